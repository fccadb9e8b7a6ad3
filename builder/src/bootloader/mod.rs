//! The kernel command lines that the next boots will have, where boot loaders keep them.
//!
//! In: the files of a machine, whose boot entry is meant, and an [`Edit`] of command lines. Out: a [`Plan`]: which files
//! change and how, and which programs have to be told. Nothing is written before [`Plan::apply`], which leaves what was
//! there before the first change of ours beside each file, with [`BACKUP`] at the end of its name, but for the entry of a
//! new kernel, which goes with it. Where a program fails, it leaves the files as they were.
//!
//! | file | has |
//! |---|---|
//! | `edit.rs` | words taken out of a command line and put into it, the rest left as it stands |
//! | `entries.rs` | boot loader entries, one file for each: GRUB on Fedora, systemd-boot, zipl on IBM Z |
//! | `grub.rs` | `/etc/default/grub` and `grub.d`, of which GRUB's configuration is made |
//! | `zipl.rs` | `/etc/zipl.conf` |
//!
//! May surprise: `/etc/kernel/cmdline` and `/etc/default/grub` are what kernels of the future get, so they change together
//! with the entries of those that are installed.

mod edit;
mod entries;
mod grub;
mod zipl;

pub use edit::{Edit, Only};

use crate::host::Tree;
use anyhow::{Context, bail};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the name of a file ends in that holds what was there before.
pub const BACKUP: &str = "before-kdump";

/// Whose boot entry is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those of all installed kernels, and of those to come.
    All,
    /// The one that the boot loader takes if nobody chooses.
    Default,
    /// That of the kernel with this path.
    Kernel(PathBuf),
    /// That of the kernel of this release.
    Release(String),
    /// That of a kernel of this release, which was just installed. Where all have one for all alike, it is that.
    New(String),
}

impl Which {
    /// What `--kernel` says. Without it, all are meant, but where grubby is, that of `release`, as RHEL has it.
    ///
    /// # Errors
    /// `release` is not known, or files that say which entry is the default cannot be read.
    pub fn typed(
        text: Option<&str>,
        release: impl FnOnce() -> anyhow::Result<String>,
        tree: &Tree,
    ) -> anyhow::Result<Which> {
        Ok(match text {
            None if entries::has_grubby(tree) => Which::Release(release()?),
            None | Some("ALL") => Which::All,
            Some("DEFAULT") => match zipl::default(tree)?.or(entries::default(tree)?) {
                Some(linux) if !entries::has_grubby(tree) => Which::Kernel(linux.into()),
                _ => Which::Default,
            },
            Some(path) => Which::Kernel(path.into()),
        })
    }

    /// Whether an entry whose kernel is `linux`, as the boot loader finds it, is meant; it may say of what release it is.
    /// Boot loaders start from the root of a file system of their own, so the ends of the paths decide.
    fn means(&self, linux: &str, version: Option<&str>) -> bool {
        let path = match self {
            Which::All => return true,
            Which::Default => return false,
            Which::New(release) | Which::Release(release) => {
                let file = format!("vmlinuz-{release}");
                return version == Some(release) || linux.split('/').any(|part| part == release || part == file);
            }
            Which::Kernel(path) => path,
        };
        let linux = Path::new(linux.trim_start_matches('/'));
        path.ends_with(linux) || linux.ends_with(path.strip_prefix("/boot").unwrap_or(path)) || {
            let name = |path: &Path| path.file_name().map(|name| name.to_owned());
            // Two kernels of kernel-install are both called `linux`, in folders named after their releases.
            name(path) == name(linux) && name(path).is_some_and(|name| name != "linux" && name != "vmlinuz")
        }
    }
}

/// One file that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// As the machine calls it.
    pub path: PathBuf,
    /// What it holds; nothing if it is not there.
    pub before: Option<String>,
    /// What it will hold.
    pub after: String,
}

/// All that is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Files that change.
    pub changes: Vec<Change>,
    /// Whether the files that change were made a moment ago, so that nobody wants a copy of them.
    pub fresh: bool,
    /// Files that already say it.
    pub settled: Vec<PathBuf>,
    /// Files that say something else, and for which the edit is not.
    pub left: Vec<PathBuf>,
    /// Programs that change what is not changed here, with their arguments.
    pub first: Vec<Vec<String>>,
    /// Programs to run afterwards, with their arguments: the first of each list that the machine has.
    pub commands: Vec<Vec<Vec<String>>>,
    /// Whether they are to run though no file changes: it may be that they never ran with what the files say.
    pub again: bool,
    /// What has to be done by hand.
    pub notes: Vec<String>,
}

/// Finds what has to change.
///
/// # Errors
/// There is no boot loader that is known, no such entry, or a file that cannot be followed.
pub fn plan(tree: &Tree, which: &Which, edit: &Edit) -> anyhow::Result<Plan> {
    let mut plan = Plan::default();
    let mut found = entries::plan(tree, which, edit, &mut plan)?;
    found |= zipl::plan(tree, which, edit, &mut plan)?;
    found |= grub::plan(tree, which, edit, found, &mut plan)?;
    if !found {
        let by_hand: Vec<&str> = edit.added().collect();
        if let (Which::All, Some(image)) = (which, entries::unified(tree)?) {
            bail!(
                "{image} is a unified kernel image, which holds its command line itself: write that to /{} with `{}`, then \
                 build the image anew",
                entries::NEXT,
                by_hand.join(" ")
            );
        }
        match which {
            Which::All => bail!(
                "there is no boot loader that is known: neither entries in {} nor /etc/zipl.conf nor /etc/default/grub \
                 is there; put `{}` on the kernel command line yourself",
                entries::FOLDERS.map(|folder| format!("/{folder}")).join(", "),
                by_hand.join(" ")
            ),
            Which::New(_) => plan.notes.push("the new kernel has no boot entry yet".to_owned()),
            Which::Default => bail!(
                "nothing says which boot entry is the default: neither grubenv nor loader.conf nor the firmware; name its \
                 kernel with --kernel=PATH"
            ),
            Which::Release(release) => bail!("no boot entry is for kernel {release}; name the kernel of one, or ALL"),
            Which::Kernel(kernel) => bail!("no boot entry is for {}; name the kernel of one, or ALL", kernel.display()),
        }
    }
    Ok(plan)
}

impl Plan {
    /// Notes that a file is to hold `after`.
    fn change(&mut self, path: &Path, before: Option<String>, after: String) {
        match before.as_ref() == Some(&after) {
            true => self.settled.push(path.to_owned()),
            false => self.changes.push(Change { path: path.to_owned(), before, after }),
        }
    }

    /// Notes that a file stays as it is.
    fn leave(&mut self, path: &Path) {
        self.left.push(Path::new("/").join(path));
    }

    fn run(&mut self, alternatives: &[&[&str]]) {
        let words = |line: &&[&str]| line.iter().map(|word| (*word).to_owned()).collect();
        let command: Vec<Vec<String>> = alternatives.iter().map(words).collect();
        if !self.commands.contains(&command) {
            self.commands.push(command);
        }
    }

    /// Shows it: the lines that go and those that come.
    ///
    /// # Errors
    /// `out` refuses.
    pub fn show(&self, tree: &Tree, out: &mut dyn Write) -> anyhow::Result<()> {
        for Change { path, before, after } in &self.changes {
            writeln!(out, "{}:", path.display())?;
            let before: Vec<&str> = before.iter().flat_map(|text| text.lines()).collect();
            let after: Vec<&str> = after.lines().collect();
            for line in before.iter().filter(|line| !after.contains(line)) {
                writeln!(out, "- {line}")?;
            }
            for line in after.iter().filter(|line| !before.contains(line)) {
                writeln!(out, "+ {line}")?;
            }
        }
        for path in &self.settled {
            writeln!(out, "{}: says so already", path.display())?;
        }
        for path in &self.left {
            writeln!(out, "{}: stays as it is", path.display())?;
        }
        for words in &self.first {
            writeln!(out, "Run: {}", shown(words))?;
        }
        for words in self.runs(tree) {
            writeln!(out, "Then: {}", shown(words))?;
        }
        for note in &self.notes {
            writeln!(out, "Note: {note}")?;
        }
        Ok(())
    }

    /// Which of the programs are to run afterwards.
    pub fn runs(&self, tree: &Tree) -> Vec<&[String]> {
        match self.again || !self.is_settled() {
            true => self.commands.iter().filter_map(|command| available(tree, command)).collect(),
            false => Vec::new(),
        }
    }

    /// Writes the files, then runs the programs if this is the machine. Where one of them fails, the files are what they
    /// were, so that whoever tries again does all of it again.
    ///
    /// # Errors
    /// A file cannot be written, or a program fails.
    pub fn apply(&self, tree: &Tree) -> anyhow::Result<()> {
        self.apply_with(tree, &|words| match tree.is_this_machine() {
            true => run(words),
            false => {
                log::warn!("these are not the files of this machine; run there: {}", shown(words));
                Ok(())
            }
        })
    }

    fn apply_with(&self, tree: &Tree, run: &dyn Fn(&[String]) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut written = Vec::new();
        let done = self.changes.iter().try_for_each(|change| {
            let copy = write(tree, change, !self.fresh);
            written.push((change, copy.with_context(|| format!("cannot change {}", change.path.display()))?));
            Ok(())
        });
        done.and_then(|()| self.tell(tree, run)).inspect_err(|_| {
            for (change, copy) in written.iter().rev() {
                if let Err(error) = put_back(tree, change, copy.as_deref()) {
                    log::warn!("{error:#}");
                }
            }
        })
    }

    fn tell(&self, tree: &Tree, run: &dyn Fn(&[String]) -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.first.iter().try_for_each(|words| run(words))?;
        if self.again || !self.is_settled() {
            for command in self.commands.iter().filter(|command| available(tree, command).is_none()) {
                let names: Vec<&str> = command.iter().filter_map(|words| Some(words.first()?.as_str())).collect();
                log::warn!("the boot loader has to be told by its own program, and {} is not here", names.join(" or "));
            }
        }
        self.runs(tree).into_iter().try_for_each(run)
    }

    /// Whether there is nothing to do.
    pub fn is_settled(&self) -> bool {
        self.changes.is_empty() && self.first.is_empty()
    }
}

fn run(words: &[String]) -> anyhow::Result<()> {
    let Some((program, arguments)) = words.split_first() else { return Ok(()) };
    // What it says is for people; our stdout may be read by a program.
    let status = Command::new(program).args(arguments).stdout(std::io::stderr()).status();
    let status = status.with_context(|| format!("cannot run {program}"))?;
    if !status.success() {
        bail!(
            "`{}` ended with {status}; see to what it says, then try again; what was written before is put back",
            shown(words)
        );
    }
    Ok(())
}

/// As it would be typed.
fn shown(words: &[String]) -> String {
    let quoted = |word: &String| if word.contains(' ') { format!("'{word}'") } else { word.clone() };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// The first alternative whose program the machine has.
fn available<'a>(tree: &Tree, command: &'a [Vec<String>]) -> Option<&'a [String]> {
    let has = |name: &str| ["usr/sbin", "usr/bin", "sbin", "bin"].iter().any(|dir| tree.path(dir).join(name).is_file());
    command.iter().find(|words| words.first().is_some_and(|program| has(program))).map(Vec::as_slice)
}

/// Replaces a file in one motion, with its old self beside it if there is to be a copy: where that is, if it was made.
fn write(tree: &Tree, change: &Change, copy: bool) -> anyhow::Result<Option<PathBuf>> {
    let path = match &change.before {
        Some(_) => tree.resolve(&change.path)?,
        None => tree.path(&change.path),
    };
    let folder = path.parent().context("it is in no folder")?;
    let (mut mode, mut kept) = (0o644, None);
    if let Some(before) = &change.before {
        mode = fs::metadata(&path)?.permissions().mode() & 0o7777;
        let backup = path.with_added_extension(BACKUP);
        kept = (copy && keep(&backup, before, mode)?).then_some(backup);
    } else {
        fs::create_dir_all(folder)?;
    }
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(change.after.as_bytes())?;
    new.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    new.as_file().sync_all()?;
    new.persist(&path)?;
    fs::File::open(folder)?.sync_all()?;
    Ok(kept)
}

/// Undoes a change, and takes the copy away that was made for it.
fn put_back(tree: &Tree, change: &Change, copy: Option<&Path>) -> anyhow::Result<()> {
    let Change { path, before, after } = change;
    match before {
        Some(before) => {
            let back = Change { path: path.clone(), before: Some(after.clone()), after: before.clone() };
            write(tree, &back, false).map(drop)
        }
        None => fs::remove_file(tree.path(path)).map_err(Into::into),
    }
    .and_then(|()| copy.map_or(Ok(()), fs::remove_file).map_err(Into::into))
    .with_context(|| format!("cannot put back what was in {}; see to it", path.display()))
}

/// Keeps a copy of what was there. One that is there already stays: it has what was there before any change of ours.
/// Whether it was made.
fn keep(backup: &Path, before: &str, mode: u32) -> anyhow::Result<bool> {
    let opened = fs::File::options().write(true).create_new(true).mode(mode).open(backup);
    let kept = match opened {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(false),
        opened => opened.and_then(|mut file| {
            file.write_all(before.as_bytes())?;
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.sync_all()
        }),
    };
    kept.with_context(|| format!("cannot keep a copy as {}", backup.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(super) fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Tree) {
        crate::fake::tree(files).unwrap()
    }

    pub(super) fn crashkernel(value: &str) -> Edit {
        Edit::default().set("crashkernel", &[format!("crashkernel={value}")])
    }

    #[test]
    fn a_machine_without_a_boot_loader_is_told_what_to_do_by_hand() {
        let (_dir, tree) = tree(&[]);
        let error = plan(&tree, &Which::All, &crashkernel("256M")).unwrap_err().to_string();
        assert!(error.contains("put `crashkernel=256M` on the kernel command line yourself"), "{error}");
    }

    #[test]
    fn a_file_is_replaced_with_its_mode_and_a_copy_stays_beside_it() {
        let (_dir, tree) = tree(&[("etc/default/grub", "GRUB_CMDLINE_LINUX=\"quiet\"\n")]);
        let path = tree.path("etc/default/grub");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let plan = plan(&tree, &Which::All, &crashkernel("256M")).unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains("\"quiet\""), "a plan writes nothing");
        plan.apply(&tree).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "GRUB_CMDLINE_LINUX=\"quiet crashkernel=256M\"\n");
        let backup = tree.path("etc/default/grub.before-kdump");
        assert_eq!(fs::read_to_string(&backup).unwrap(), "GRUB_CMDLINE_LINUX=\"quiet\"\n");
        for file in [path, backup] {
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let again = super::plan(&tree, &Which::All, &crashkernel("256M")).unwrap();
        assert_eq!((again.changes.len(), again.settled.len()), (0, 1));
        super::plan(&tree, &Which::All, &crashkernel("300M")).unwrap().apply(&tree).unwrap();
        let kept = fs::read_to_string(tree.path("etc/default/grub.before-kdump")).unwrap();
        assert_eq!(kept, "GRUB_CMDLINE_LINUX=\"quiet\"\n", "the copy is of what was there before any change");
    }

    #[test]
    fn where_a_program_fails_the_files_are_what_they_were_and_all_is_done_again() {
        let grub = "GRUB_CMDLINE_LINUX=\"crashkernel=1M\"\n";
        for (files, made) in [
            (&[("etc/default/grub", grub), ("usr/sbin/update-grub", "")][..], "etc/default/grub"),
            (
                &[("etc/default/grub", ""), ("etc/default/grub.d/a.cfg", ""), ("usr/sbin/update-grub", "")],
                "etc/default/grub.d/kdump-rs.cfg",
            ),
        ] {
            let (_dir, tree) = tree(files);
            let before = fs::read_to_string(tree.path(made)).ok();
            for fails in [true, true, false] {
                let mut plan = plan(&tree, &Which::All, &crashkernel("256M")).unwrap();
                assert_eq!(plan.changes.len(), 1, "{made}");
                let said = fs::read_to_string(tree.path(made)).ok();
                let ran = std::cell::RefCell::new(Vec::new());
                let run = |words: &[String]| {
                    ran.borrow_mut().push(shown(words));
                    assert!(fs::read_to_string(tree.path(made)).unwrap().contains("=256M"), "it is told too early");
                    if fails { bail!("no room") } else { Ok(()) }
                };
                assert_eq!(plan.apply_with(&tree, &run).is_err(), fails);
                assert_eq!(*ran.borrow(), ["update-grub"]);
                assert_eq!(fs::read_to_string(tree.path(made)).ok() == said, fails, "{made}");
                assert_eq!(said, before);
                // The copy is of what was there, or there is none.
                let copy = fs::read_to_string(tree.path(format!("{made}.{BACKUP}"))).ok();
                assert_eq!(copy, before.clone().filter(|_| !fails));
                // One that is settled is told again on demand alone.
                ran.borrow_mut().clear();
                if !fails {
                    plan = super::plan(&tree, &Which::All, &crashkernel("256M")).unwrap();
                    plan.apply_with(&tree, &run).unwrap();
                    assert!(plan.is_settled() && ran.borrow().is_empty());
                    plan.again = true;
                    plan.apply_with(&tree, &run).unwrap();
                    assert_eq!(*ran.borrow(), ["update-grub"]);
                }
            }
        }
    }

    #[test]
    fn a_plan_shows_what_goes_what_comes_and_what_is_run() {
        let (_dir, tree) = tree(&[
            ("etc/default/grub", "# mine\nGRUB_CMDLINE_LINUX=\"crashkernel=128M\"\n"),
            ("usr/sbin/grub2-mkconfig", ""),
        ]);
        let mut out = Vec::new();
        plan(&tree, &Which::All, &crashkernel("256M")).unwrap().show(&tree, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "/etc/default/grub:\n- GRUB_CMDLINE_LINUX=\"crashkernel=128M\"\n+ GRUB_CMDLINE_LINUX=\"crashkernel=256M\"\n\
             Then: grub2-mkconfig -o /boot/grub2/grub.cfg\n"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn whatever_a_file_says_a_change_is_made_once(
            which in 0..4_usize,
            text in "(GRUB_CMDLINE_LINUX(_DEFAULT)?=|options |linux /x|image=/x|parameters=|\\[a\\]|crashkernel=1M|a=b|[\"'# \n\\\\$]){0,16}",
        ) {
            let path = ["etc/default/grub", "etc/zipl.conf", "boot/loader/entries/a.conf", "etc/default/grub.d/a.cfg"][which];
            let (_dir, tree) = tree(&[("etc/default/grub", ""), (path, &text)]);
            // An edit that is for nobody, and one for those that have no word of it, which an edit for all leaves none of.
            let nobody = crashkernel("1M").only(Only::Saying(Vec::new()));
            let silent = crashkernel("1M").only(Only::Saying(vec![Vec::new()]));
            if let Ok(none) = plan(&tree, &Which::All, &nobody) {
                prop_assert!(none.is_settled(), "{:?}", none);
            }
            if let Ok(first) = plan(&tree, &Which::All, &crashkernel("256M")) {
                first.apply(&tree).unwrap();
                if let Ok(second) = plan(&tree, &Which::All, &crashkernel("256M")) {
                    prop_assert!(second.is_settled(), "{:?} after {:?}", second, first);
                    let third = plan(&tree, &Which::All, &silent).unwrap();
                    prop_assert!(third.is_settled(), "{:?} after {:?}", third, second);
                }
            }
        }
    }
}
