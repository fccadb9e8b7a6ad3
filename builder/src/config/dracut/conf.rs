//! dracut.conf and its directories, as far as they are assignments.
//!
//! May surprise: dracut gives these files to bash, one after the other, so that `=` in a later one replaces what an earlier
//! one says. Distributions ship some with commands in them: those are noted and passed over. An error is only what should
//! be followed and cannot be read; `dracut_conf no` in kdump.conf lets none of the files count. Drivers that the kernel
//! does not have are left out of the image.

use super::super::assignments::Assignment;
use super::super::files::without_mark;
use super::super::words::nearest;
use super::shell::{Statement, statements};
use super::{Asked, Word};
use crate::config::{Complaints, Given, Origin};
use anyhow::{Context, anyhow};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The file, below the root.
pub const FILE: &str = "etc/dracut.conf";

/// The directories, the most important first: of two files with the same name, its one counts.
pub const DIRECTORIES: [&str; 3] = ["etc/dracut.conf.d", "run/initramfs/dracut.conf.d", "usr/lib/dracut/dracut.conf.d"];

use Word::{Moot, Refused};

const LOGS: &str = "what is told goes to stderr";
const NOT_HERE: &str = "it is about images that dracut builds";
const NO_DUMP: &str = "an image that boots the system saves no dump";

/// The keys.
const KEYS: &[(&str, Word)] = &[
    ("add_drivers", Word::AddDrivers),
    ("force_drivers", Word::ForceDrivers),
    ("omit_drivers", Word::OmitDrivers),
    ("filesystems", Word::Filesystems),
    // What is for every image of the machine may be missing in this one.
    ("install_items", Word::InstallOptional),
    ("install_optional_items", Word::InstallOptional),
    ("fw_dir", Word::Firmware),
    ("add_dracutmodules", Word::AddModules),
    ("force_add_dracutmodules", Word::AddModules),
    ("omit_dracutmodules", Word::OmitModules),
    ("kernel_cmdline", Word::KernelCmdline),
    ("compress", Word::Compress),
    // RHEL's mkdumprd, too, has its own word on that.
    ("hostonly", Moot("an image for dumps is for this machine; write `dracut_args --no-hostonly` for one that is not")),
    ("sshkey", Word::SshKey),
    (
        "drivers",
        Moot("an image has what its target needs and no list of its own; add_drivers and omit_drivers are followed"),
    ),
    ("include", Refused("there is no such key of dracut's; write `dracut_args --include FROM TO` into kdump.conf")),
    ("dracutmodules", Moot(NOT_HERE)),
    ("early_microcode", Moot("only an image for a normal boot has microcode")),
    ("hostonly_mode", Moot("an image has what its target needs, which is the strictest mode")),
    ("hostonly_cmdline", Moot("what the target needs is written into the image, not on a command line")),
    ("hostonly_default_device", Moot("only the target's devices count")),
    ("hostonly_nics", Moot("the card on the way to the target is found by itself")),
    ("persistent_policy", Moot("devices are always named by what lasts")),
    ("do_strip", Moot("programs and modules stay as the distribution made them")),
    ("aggressive_strip", Moot("programs and modules stay as the distribution made them")),
    ("do_hardlink", Moot("every file is in the image once")),
    ("do_prelink", Moot(NOT_HERE)),
    ("reproducible", Moot("every image is")),
    ("enhanced_cpio", Moot(NOT_HERE)),
    ("squash_compress", Moot("the image has no second file system in it")),
    ("compress_level", Moot("a level that suits the capture kernel is always used")),
    ("mdadmconf", Moot("a RAID is put together as it is on this machine")),
    ("lvmconf", Moot("volumes are put together without lvm.conf")),
    ("use_fstab", Moot("only the target is mounted")),
    ("add_fstab", Moot("only the target is mounted")),
    ("fstab_lines", Moot("only the target is mounted")),
    ("add_device", Moot("only the target's devices count")),
    ("fscks", Moot("file systems are not checked in the image")),
    ("nofscks", Moot("file systems are not checked in the image")),
    ("ro_mnt", Moot("only the target is mounted, and it is written to")),
    ("stdloglvl", Moot(LOGS)),
    ("sysloglvl", Moot(LOGS)),
    ("fileloglvl", Moot(LOGS)),
    ("kmsgloglvl", Moot(LOGS)),
    ("logfile", Moot(LOGS)),
    ("show_modules", Moot(LOGS)),
    ("loginstall", Moot(LOGS)),
    ("printsize", Moot(LOGS)),
    ("i18n_vars", Moot("init speaks one language")),
    ("i18n_default_font", Moot("init speaks one language")),
    ("i18n_install_all", Moot("init speaks one language")),
    ("kernel_image", Moot(NOT_HERE)),
    ("uefi", Moot(NOT_HERE)),
    ("uefi_stub", Moot(NOT_HERE)),
    ("uefi_splash_image", Moot(NOT_HERE)),
    ("uefi_secureboot_cert", Moot(NOT_HERE)),
    ("uefi_secureboot_key", Moot(NOT_HERE)),
    ("uefi_secureboot_engine", Moot(NOT_HERE)),
    ("sbat", Moot(NOT_HERE)),
    ("ukify", Moot(NOT_HERE)),
    ("machine_id", Moot(NOT_HERE)),
    ("kernel_only", Moot(NOT_HERE)),
    ("no_kernel", Moot(NOT_HERE)),
    ("parallel", Moot(NOT_HERE)),
    ("noimageifnotneeded", Moot(NOT_HERE)),
    ("tmpdir", Moot(NOT_HERE)),
    ("prefix", Moot(NOT_HERE)),
    ("libdirs", Moot(NOT_HERE)),
    ("nscd", Moot(NOT_HERE)),
    ("acpi_override", Moot("the tables of the running kernel are handed over")),
    ("acpi_table_dir", Moot("the tables of the running kernel are handed over")),
    ("initrdname", Moot(NOT_HERE)),
    ("realinitpath", Moot(NOT_HERE)),
    ("systemdutildir", Moot(NOT_HERE)),
    ("systemdutilconfdir", Moot(NOT_HERE)),
    ("systemdsystemunitdir", Moot(NOT_HERE)),
    ("systemdsystemconfdir", Moot(NOT_HERE)),
    ("systemdnetwork", Moot(NOT_HERE)),
    ("udevdir", Moot(NOT_HERE)),
    ("stdloglevel", Moot(LOGS)),
    ("debug", Moot(LOGS)),
];

/// Those that mean something else for an image that boots the system.
const FOR_BOOT: &[(&str, Word)] = &[
    ("hostonly", Word::Hostonly),
    ("early_microcode", Moot("mkdumprd --early-microcode brings it")),
    ("sshkey", Moot(NO_DUMP)),
    ("kernel_cmdline", Moot("an image has no command line; the boot loader's is the place")),
];

/// Those that are followed.
#[cfg(test)]
pub(super) fn followed() -> Vec<&'static str> {
    KEYS.iter().filter(|(_, word)| word.is_followed()).map(|(key, _)| *key).collect()
}

/// Reads all files below `root` that count, for an image that boots the system if `for_boot`; their paths.
///
/// # Errors
/// One cannot be read.
pub(super) fn read(
    asked: &mut Asked,
    root: &Path,
    for_boot: bool,
    complaints: &mut Complaints,
) -> anyhow::Result<Vec<PathBuf>> {
    let files = files(root)?;
    let mut said = Said { for_boot, ..Said::default() };
    for file in &files {
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        said.add(&without_mark(String::from_utf8_lossy(&bytes).into_owned()), file, complaints);
    }
    said.follow(asked, complaints);
    Ok(files)
}

/// The file, and those of the directories in the order of their names.
fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut by_name: BTreeMap<ByVersion, PathBuf> = BTreeMap::new();
    for directory in DIRECTORIES.map(|directory| root.join(directory)) {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", directory.display())),
        };
        for entry in entries {
            let path = entry.with_context(|| format!("cannot read {}", directory.display()))?.path();
            let is_conf = path.extension().is_some_and(|extension| extension == "conf");
            if let Some(name) = path.file_name().filter(|_| is_conf) {
                by_name.entry(ByVersion(name.to_string_lossy().into_owned())).or_insert_with(|| path.clone());
            }
        }
    }
    let all = [root.join(FILE)].into_iter().chain(by_name.into_values());
    // A link to /dev/null shadows and says nothing.
    Ok(all.filter(|path| path.is_file()).collect())
}

/// A name that is sorted as `sort -V` does: `9-a` before `10-a`.
#[derive(PartialEq, Eq)]
struct ByVersion(String);

impl ByVersion {
    /// Its parts: text, and the number behind it by its length and digits.
    fn parts(&self) -> impl Iterator<Item = (&str, usize, &str)> {
        let mut rest = self.0.as_str();
        std::iter::from_fn(move || {
            let is_digit = |c: char| c.is_ascii_digit();
            let (text, behind) = rest.split_at(rest.find(is_digit).unwrap_or(rest.len()));
            let (number, behind) = behind.split_at(behind.find(|c| !is_digit(c)).unwrap_or(behind.len()));
            let is_over = rest.is_empty();
            rest = behind;
            let number = number.trim_start_matches('0');
            (!is_over).then_some((text, number.len(), number))
        })
    }
}

impl Ord for ByVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(other.parts()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for ByVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Follows the text of one file. What `dracut_args` said of one value stays.
pub(super) fn follow(asked: &mut Asked, text: &str, file: &Path, complaints: &mut Complaints) {
    let mut said = Said::default();
    said.add(text, file, complaints);
    said.follow(asked, complaints);
}

/// What the keys that are followed are at the end of all files.
#[derive(Default)]
struct Said {
    values: BTreeMap<&'static str, (Word, Vec<Part>)>,
    /// Whether the image boots the system.
    for_boot: bool,
}

/// One assignment's share of a value, or why it cannot be read.
type Part = Given<Result<String, String>>;

impl Said {
    /// What one more file says.
    fn add(&mut self, text: &str, file: &Path, complaints: &mut Complaints) {
        for statement in statements(text) {
            let (assignment, problem) = match statement {
                Statement::Assigns(assignment, told) => (assignment, told.err()),
                Statement::Runs { line, word } => {
                    runs(&word, &Origin::Line(file.to_owned(), line), complaints);
                    continue;
                }
            };
            self.assign(assignment, problem, file, complaints);
        }
    }

    fn assign(&mut self, assignment: Assignment, problem: Option<String>, file: &Path, complaints: &mut Complaints) {
        let Assignment { line, name, value, appends } = assignment;
        let place = Origin::Line(file.to_owned(), line);
        let special = FOR_BOOT.iter().filter(|_| self.for_boot);
        let Some((key, word)) = special.chain(KEYS).find(|(key, _)| *key == name) else {
            match nearest(&name, KEYS.iter().map(|(key, _)| *key)) {
                Some(near) => complaints.warn(&place, format!("dracut has no key {name}; was {near} meant?")),
                None => complaints.note(&place, format!("{name} is not known here and does not count")),
            }
            return;
        };
        if let Moot(why) = word {
            if !value.trim().is_empty() || problem.is_some() {
                complaints.note(&place, format!("{name}: {why}"));
            }
            return;
        }
        let is_read = problem.is_none();
        if appends && is_read && !value.trim().is_empty() && !(value.starts_with(' ') && value.ends_with(' ')) {
            complaints.note(&place, format!("{name}: dracut wants blanks at both ends of the value"));
        }
        let (_, parts) = self.values.entry(key).or_insert((*word, Vec::new()));
        if !appends && is_read {
            if let Some(first) = parts.first().filter(|first| is_other_file(&first.origin, file)) {
                complaints.note(&place, format!("{name}: `=` replaces what {} says; `+=` adds to it", first.origin));
            }
            parts.clear();
        }
        parts.push(Given { value: problem.map_or(Ok(value), Err), origin: place });
    }

    /// Asks for what is left of it.
    fn follow(self, asked: &mut Asked, complaints: &mut Complaints) {
        let mut own = Asked::default();
        for (key, (word, parts)) in self.values {
            for Given { value, origin } in parts {
                let done = match value {
                    Ok(value) if value.trim().is_empty() => Ok(()),
                    Ok(value) => own.follow(word, &value, &origin, false, complaints),
                    Err(problem) => Err(anyhow!(problem)),
                };
                if let Err(problem) = done {
                    complaints.fail(&origin, problem.context(key));
                }
            }
        }
        merge(asked, own);
    }
}

fn is_other_file(origin: &Origin, file: &Path) -> bool {
    !matches!(origin, Origin::Line(other, _) if other == file)
}

/// A command; one that reads another file may set anything.
fn runs(word: &str, place: &Origin, complaints: &mut Complaints) {
    match word {
        "." | "source" | "eval" => {
            complaints.warn(place, format!("`{word}` is not run here; write what it sets into this file"));
        }
        word => complaints.note(place, format!("`{word}` is a command, and none is run here")),
    }
}

/// Lists are added up; of single values, that of the command line stays, and then that of the last file.
fn merge(asked: &mut Asked, other: Asked) {
    let (image, mut more) = (&mut asked.image, other.image);
    image.take_lists(&mut more);
    one(&mut image.compress, more.compress);
    one(&mut image.hostonly, more.hostonly);
    one(&mut image.watchdog, more.watchdog);
    one(&mut image.integrity, more.integrity);
    one(&mut image.modsign, more.modsign);
    one(&mut asked.sshkey, other.sshkey);
    if let Some(more) = other.kernel_cmdline {
        super::append_line(&mut asked.kernel_cmdline, &more.value, &more.origin);
    }
}

/// What kdump.conf says is not for dracut.conf to change.
fn one<T>(value: &mut Option<Given<T>>, other: Option<Given<T>>) {
    let is_conf = |given: &Given<T>| matches!(&given.origin, Origin::Line(file, _) if !is_dracut(file));
    if other.is_some() && !value.as_ref().is_some_and(is_conf) {
        *value = other;
    }
}

pub(super) fn is_dracut(file: &Path) -> bool {
    file.ends_with(FILE) || file.parent().is_some_and(|parent| parent.ends_with("dracut.conf.d"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpio::write::Packing;

    fn asked(text: &str) -> (Asked, Complaints) {
        let (mut asked, mut complaints) = (Asked::default(), Complaints::default());
        follow(&mut asked, text, Path::new("/etc/dracut.conf"), &mut complaints);
        (asked, complaints)
    }

    #[test]
    fn every_key_that_is_followed_takes_effect() {
        let image = |text: &str| {
            let (asked, complaints) = asked(text);
            assert!(complaints.errors().is_empty() && complaints.warnings.is_empty(), "{text}: {complaints:?}");
            asked
        };
        assert_eq!(image("add_drivers+=\" a b \"").image.add_drivers[1].value, "b");
        assert_eq!(image("force_drivers+=\" a \"").image.force_drivers[0].value, "a");
        assert_eq!(image("omit_drivers=\"nouveau amdgpu\"").image.omit_drivers.len(), 2);
        assert_eq!(image("filesystems+=\" xfs \"").image.filesystems[0].value, "xfs");
        assert_eq!(image("install_items+=\" /bin/a \"").image.install_optional[0].value, Path::new("/bin/a"));
        assert_eq!(image("install_optional_items+=\" vi \"").image.install_optional[0].value, Path::new("vi"));
        assert_eq!(image("fw_dir=/a:/b").image.firmware.len(), 2);
        assert_eq!(
            image("omit_dracutmodules+=\" watchdog \"").image.watchdog.unwrap().origin.to_string(),
            "/etc/dracut.conf:1"
        );
        let keys = image("add_dracutmodules+=\" masterkey \"\nforce_add_dracutmodules+=\" modsign \"").image;
        assert!(keys.integrity.unwrap().value && keys.modsign.unwrap().value);
        assert_eq!(image("kernel_cmdline=\"a\"\nkernel_cmdline+=\" b \"").kernel_cmdline.unwrap().value, "a b");
        assert_eq!(image("compress=\"zstd -19\"").image.compress.unwrap().value, Packing::Zstd);
        assert_eq!(image("hostonly=no").image.hostonly, None);
        assert_eq!(image("sshkey=/root/k").sshkey.unwrap().value, Path::new("/root/k"));
    }

    #[test]
    fn every_key_changes_something_or_says_why_not() {
        for (key, word) in KEYS {
            let value = match word {
                Word::AddModules => "lvm",
                Word::OmitModules => "watchdog",
                Word::Compress => "zstd",
                Word::Firmware | Word::InstallOptional | Word::SshKey => "/a",
                _ => "a",
            };
            let (asked, complaints) = asked(&format!("{key}=\"{value}\""));
            let told = [complaints.errors(), complaints.notes].concat();
            let is_named = told.iter().any(|line| line.starts_with("/etc/dracut.conf:1: "));
            assert!(asked != Asked::default() || is_named, "{key}");
        }
        for (at, (key, _)) in KEYS.iter().enumerate() {
            assert!(!KEYS.get(at + 1..).unwrap().iter().any(|(other, _)| other == key), "{key} is there twice");
        }
    }

    #[test]
    fn what_is_about_other_images_is_noted_and_shell_is_an_error_only_where_it_matters() {
        let (asked_for, complaints) =
            asked("compress=lzop\nearly_microcode=yes\nadd_dracutmodules+=\" fips \"\nmine=1\n");
        assert_eq!(asked_for, Asked::default());
        assert!(complaints.errors().is_empty() && complaints.notes.len() == 4, "{complaints:?}");
        for (text, message) in [
            (
                "\nkernel_cmdline=\"$(cat /x)\"",
                "/etc/dracut.conf:2: kernel_cmdline: `$` asks a shell to expand something",
            ),
            (
                "[[ $x ]] && omit_drivers=\"\"",
                "/etc/dracut.conf:1: omit_drivers: a condition of a shell decides about it",
            ),
            ("if x\nthen\nsshkey=/a\nfi", "/etc/dracut.conf:3: sshkey: a condition of a shell decides about it"),
            ("add_drivers+=\" =net \"", "/etc/dracut.conf:1: add_drivers: `=net` names modules by a directory"),
        ] {
            let errors = asked(text).1.errors();
            assert!(errors.len() == 1 && errors[0].starts_with(message), "{errors:?}");
        }
        for text in [
            "initrdname=\"initrd-$kernel\"",
            "[[ $x ]] && show_modules=yes",
            "export DRACUT_NO_XATTR=1",
            "drivers+=\" a \"",
            "if x; then y=1; fi",
        ] {
            let (read, complaints) = asked(&format!("{text}\nadd_drivers+=\" nbd \""));
            assert!(complaints.errors().is_empty() && complaints.warnings.is_empty(), "{text}: {complaints:?}");
            assert!(!complaints.notes.is_empty() && read.image.add_drivers.len() == 1, "{text}: {complaints:?}");
        }
        let (_, complaints) = asked(". /etc/more.conf");
        assert_eq!(complaints.warnings, ["/etc/dracut.conf:1: `.` is not run here; write what it sets into this file"]);
        let (_, complaints) = asked("add_driver+=\" x \"");
        assert_eq!(complaints.warnings, ["/etc/dracut.conf:1: dracut has no key add_driver; was add_drivers meant?"]);
    }

    #[test]
    fn a_file_in_etc_shadows_one_of_the_same_name_and_names_are_the_order() {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("etc/dracut.conf", "compress=cat\n"),
            ("usr/lib/dracut/dracut.conf.d/20-b.conf", "add_drivers+=\" shadowed \"\n"),
            ("usr/lib/dracut/dracut.conf.d/10-a.conf", "add_drivers+=\" a \"\n"),
            ("etc/dracut.conf.d/20-b.conf", "add_drivers+=\" b \"\ncompress=zstd\n"),
            ("etc/dracut.conf.d/README", "nothing"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let (mut asked, mut complaints) = (Asked::default(), Complaints::default());
        let files = read(&mut asked, root.path(), false, &mut complaints).unwrap();
        assert_eq!(files.len(), 3);
        let drivers: Vec<&str> = asked.image.add_drivers.iter().map(|given| given.value.as_str()).collect();
        assert_eq!(drivers, ["a", "b"]);
        assert_eq!(asked.image.compress.unwrap().value, Packing::Zstd);
    }
    #[test]
    fn a_later_file_replaces_with_an_equals_sign_and_adds_with_a_plus() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("etc/dracut.conf.d");
        fs::create_dir_all(&directory).unwrap();
        let read = |files: &[(&str, &str)]| {
            for (name, text) in files {
                fs::write(directory.join(name), text).unwrap();
            }
            let (mut asked, mut complaints) = (Asked::default(), Complaints::default());
            read(&mut asked, root.path(), false, &mut complaints).unwrap();
            assert!(complaints.errors().is_empty() && complaints.warnings.is_empty(), "{complaints:?}");
            (asked.image, complaints.notes)
        };
        let (image, notes) = read(&[
            ("9-a.conf", "omit_drivers+=\" xfs \"\nadd_drivers+=\" nbd $x \"\nomit_dracutmodules+=\" watchdog \"\n"),
            ("10-b.conf", "omit_drivers=\"\"\nadd_drivers=\" dummy \"\nadd_drivers+=\" brd \"\nomit_dracutmodules=\n"),
        ]);
        let names: Vec<&str> = image.add_drivers.iter().map(|given| given.value.as_str()).collect();
        assert_eq!(names, ["dummy", "brd"]);
        assert!(image.omit_drivers.is_empty() && image.watchdog.is_none(), "{image:?}");
        assert!(notes[0].ends_with("9-a.conf:1 says; `+=` adds to it"), "{notes:?}");
        let (image, _) = read(&[("11-c.conf", "omit_drivers+=\" ext4 \"\n")]);
        assert_eq!(image.omit_drivers[0].value, "ext4");
    }

    #[test]
    fn names_are_sorted_by_the_numbers_in_them() {
        let mut names = ["10-a", "9-b", "09-b", "a", "a10b", "a9b", "a9"].map(|name| ByVersion(name.into()));
        names.sort();
        assert_eq!(names.map(|name| name.0), ["09-b", "9-b", "10-a", "a", "a9", "a9b", "a10b"]);
    }
}
