//! Boot loader entries: one file for each kernel, as the Boot Loader Specification has them.
//!
//! In: `loader/entries/*.conf`, where GRUB on Fedora, systemd-boot, and zipl look for them; `/etc/kernel/cmdline`, of which
//! kernel-install makes the next. Out: changes of their `options` lines. Where `grubby` is, it is told what to do instead,
//! because it also knows of what is not in these files.
//!
//! May surprise: an `options` line may be given several times, and its words may be `$kernelopts`, which GRUB takes from a
//! file of its own; the word that comes last counts, so ours go to the end of the last line.

use super::{Edit, Plan, Which};
use crate::host::Tree;
use anyhow::Context;
use std::fs;
use std::path::{Path, PathBuf};

/// Where they are.
pub(super) const FOLDERS: [&str; 3] = ["boot/loader/entries", "efi/loader/entries", "boot/efi/loader/entries"];
pub(super) const NEXT: &str = "etc/kernel/cmdline";
/// What counts where that is missing.
const SHIPPED: &str = "usr/lib/kernel/cmdline";
/// Where unified kernel images are; they hold their command lines themselves.
const UNIFIED: [&str; 3] = ["boot/EFI/Linux", "efi/EFI/Linux", "boot/efi/EFI/Linux"];

/// Where systemd-boot has the firmware keep what was chosen.
const CHOSEN: &str = "sys/firmware/efi/efivars/LoaderEntryDefault-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// Where GRUB keeps it.
const GRUBENV: [&str; 2] = ["boot/grub2/grubenv", "boot/grub/grubenv"];

/// Whether there was anything that is meant.
pub(super) fn plan(tree: &Tree, which: &Which, edit: &Edit, plan: &mut Plan) -> anyhow::Result<bool> {
    let entries = entries(tree)?;
    let grubby = has_grubby(tree);
    let mut found = false;
    if grubby && *which == Which::Default {
        found = true;
        tell_grubby(plan, "DEFAULT", edit);
    }
    for (path, text) in entries.iter().filter(|(_, text)| has_command_line(text)) {
        let linux = ["linux", "efi", "uki"].iter().find_map(|key| field(text, key)).unwrap_or_default();
        if !which.means(linux, field(text, "version")) {
            continue;
        }
        found = true;
        let parts: Vec<&str> = text.lines().filter_map(|line| value(line, "options")).collect();
        if !edit.is_for(&parts) {
            plan.leave(path);
            continue;
        }
        let after = edited(text, edit);
        plan.fresh = matches!(which, Which::New(_));
        match grubby && after != *text {
            true if linux.starts_with("/boot") => tell_grubby(plan, linux, edit),
            true => tell_grubby(plan, &format!("/boot{linux}"), edit),
            false => plan.change(path, Some(text.clone()), after),
        }
    }
    if *which == Which::All {
        found |= plan_next(tree, edit, found, plan)?;
    }
    // Entries alone say nothing to zipl before it has been run.
    if found && tree.path("etc/zipl.conf").is_file() {
        plan.run(&[&["zipl"]]);
    }
    Ok(found)
}

/// What kernel-install gives to the kernels to come, and all that concerns unified kernel images, which hold their command
/// lines themselves. Whether there was anything.
fn plan_next(tree: &Tree, edit: &Edit, has_entries: bool, plan: &mut Plan) -> anyhow::Result<bool> {
    let unified = unified(tree)?;
    let own = read(tree, NEXT)?;
    // The distribution's is as good as ours until there is one of ours.
    let shipped = if has_entries || unified.is_some() { read(tree, SHIPPED)? } else { None };
    let Some(text) = own.clone().or(shipped) else {
        if let (Some(image), true) = (unified, has_entries) {
            plan.notes.push(format!(
                "{image} is a unified kernel image, which holds its command line itself: write that to /{NEXT} with `{}`, \
                 then build the image anew",
                edit.added().collect::<Vec<_>>().join(" ")
            ));
        }
        return Ok(false);
    };
    if !edit.is_for(&[text.trim_end()]) {
        plan.leave(Path::new(NEXT));
        return Ok(unified.is_some());
    }
    let end = if text.ends_with('\n') { "\n" } else { "" };
    let after = format!("{}{end}", edit.apply(text.trim_end()));
    if own.is_some() || after != text {
        plan.change(&Path::new("/").join(NEXT), own, after);
    }
    if let Some(image) = &unified {
        plan.notes.push(format!(
            "{image} is a unified kernel image, which holds its command line itself: build it anew, with `kernel-install add` \
             or as it was built"
        ));
    }
    Ok(unified.is_some())
}

/// Whether an entry has a command line of its own. An image that has one in itself, and any other program of the
/// firmware, would take `options` in the place of what it has, or as something else altogether.
fn has_command_line(text: &str) -> bool {
    field(text, "linux").is_some() || field(text, "options").is_some()
}

/// A unified kernel image that the boot loader shows, if there is one.
pub(super) fn unified(tree: &Tree) -> anyhow::Result<Option<String>> {
    let found = UNIFIED.iter().find_map(|dir| Some(format!("/{dir}/{}", conf_like(tree, dir, "efi").first()?)));
    let of_entry = |(_, text): &(PathBuf, String)| field(text, "uki").map(str::to_owned);
    Ok(match found {
        Some(found) => Some(found),
        None => entries(tree)?.iter().filter(|(_, text)| !has_command_line(text)).find_map(of_entry),
    })
}

/// Whether any kernel has an entry of its own.
pub(super) fn any(tree: &Tree) -> bool {
    FOLDERS.iter().any(|folder| !conf_like(tree, folder, "conf").is_empty())
}

/// Whether grubby is there, and with it the habits of RHEL.
pub(super) fn has_grubby(tree: &Tree) -> bool {
    tree.path("usr/sbin/grubby").is_file()
}

/// The kernel of the entry that the boot loader takes if nobody chooses, where something names it.
pub(super) fn default(tree: &Tree) -> anyhow::Result<Option<String>> {
    // systemd-boot: what the firmware keeps for it comes before what is in its file. Two bytes are a letter, behind four.
    let kept = fs::read(tree.path(CHOSEN)).ok();
    let kept = kept.and_then(|bytes| {
        let letters = bytes.get(4..)?.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]]));
        String::from_utf16(&letters.take_while(|letter| *letter != 0).collect::<Vec<_>>()).ok()
    });
    let own = FOLDERS.map(|folder| folder.replace("entries", "loader.conf"));
    let own = own.iter().filter_map(|file| tree.line(file)).find_map(|text| field(&text, "default").map(str::to_owned));
    // GRUB's file is filled up with marks.
    let saved = GRUBENV.iter().filter_map(|file| tree.line(file)).find_map(|text| {
        let id = text.lines().find_map(|line| line.strip_prefix("saved_entry="));
        id.map(|id| format!("{id}.conf"))
    });
    let Some(id) = kept.or(own).or(saved) else { return Ok(None) };
    let is_it = |(path, _): &&(PathBuf, String)| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match id.split_once('*') {
            Some((start, end)) => name.strip_prefix(start).is_some_and(|rest| rest.ends_with(end)),
            None => name == id || name.strip_suffix(".conf") == Some(&id),
        }
    };
    let entries = entries(tree)?;
    let mut named = entries.iter().filter(is_it);
    // Of several, it is the loader's own order that decides.
    Ok(match (named.next(), named.next()) {
        (Some((_, text)), None) => field(text, "linux").map(str::to_owned),
        _ => None,
    })
}

fn tell_grubby(plan: &mut Plan, kernel: &str, edit: &Edit) {
    let mut words = vec!["grubby".to_owned(), format!("--update-kernel={kernel}")];
    words.push(format!("--remove-args={}", edit.names().collect::<Vec<_>>().join(" ")));
    let added: Vec<&str> = edit.added().collect();
    if !added.is_empty() {
        words.push(format!("--args={}", added.join(" ")));
    }
    plan.first.push(words);
}

/// The entries, each with its text.
fn entries(tree: &Tree) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut found: Vec<(PathBuf, String)> = Vec::new();
    for folder in FOLDERS {
        for name in conf_like(tree, folder, "conf") {
            let path = format!("{folder}/{name}");
            // The same place may be mounted, or linked to, under two names.
            let canonical = tree.canonical(Path::new(&path)).unwrap_or_else(|_| Path::new("/").join(&path));
            if let Some(text) = read(tree, &path)?.filter(|_| !found.iter().any(|(other, _)| *other == canonical)) {
                found.push((canonical, text));
            }
        }
    }
    Ok(found)
}

fn conf_like(tree: &Tree, folder: &str, extension: &str) -> Vec<String> {
    let entries = fs::read_dir(tree.path(folder)).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| Path::new(name).extension().is_some_and(|found| found == extension))
        .collect();
    names.sort();
    names
}

fn read(tree: &Tree, path: &str) -> anyhow::Result<Option<String>> {
    let file = tree.path(path);
    match file.exists() {
        false => Ok(None),
        true => {
            let text = tree.read(Path::new(path))?;
            String::from_utf8(text).map(Some).with_context(|| format!("/{path} is not UTF-8 text; save it as UTF-8"))
        }
    }
}

/// The value of a key of an entry.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| value(line, key))
}

fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.trim_start().strip_prefix(key).filter(|rest| rest.starts_with([' ', '\t'])).map(str::trim)
}

/// The entry with its command line changed.
fn edited(text: &str, edit: &Edit) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let Some(last) = lines.iter().rposition(|line| value(line, "options").is_some()) else {
        let line = format!("options {}\n", edit.apply(""));
        let separator = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        return format!("{text}{separator}{line}");
    };
    let mut result = String::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(words) = value(line, "options") else {
            result.push_str(line);
            continue;
        };
        let head = line.len() - line.trim_start().len() + "options".len();
        let (before, rest) = line.split_at_checked(head).unwrap_or((line, ""));
        // The end of the line is none of it.
        let gap = rest.get(..rest.len() - rest.trim_start_matches([' ', '\t']).len()).unwrap_or(" ");
        let end = if line.ends_with('\n') { "\n" } else { "" };
        let words = if at == last { edit.apply(words) } else { edit.take_out(words) };
        result.push_str(&format!("{before}{gap}{words}{end}"));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::super::tests::{crashkernel, tree};
    use super::super::{Plan, Which, plan};
    use super::*;

    const FEDORA: &str = "title Fedora\nversion 6.12\nlinux /vmlinuz-6.12\ninitrd /initramfs-6.12.img\n\
        options root=UUID=1 ro crashkernel=1G-:192M quiet\ngrub_class fedora\n";
    const SYSTEMD: &str = "title\tx\nlinux /ab12/6.1/linux\noptions root=/dev/vda2\noptions $kernelopts\n";

    fn changed(files: &[(&str, &str)], which: &Which) -> Plan {
        let (_dir, tree) = tree(files);
        plan(&tree, which, &crashkernel("256M")).unwrap()
    }

    #[test]
    fn the_entries_of_all_kernels_and_of_those_to_come_are_changed() {
        let files = [
            ("boot/loader/entries/a.conf", FEDORA),
            ("boot/loader/entries/b.conf", SYSTEMD),
            ("boot/loader/entries/README", "no entry"),
            ("etc/kernel/cmdline", "root=/dev/vda2 quiet\n"),
        ];
        let plan = changed(&files, &Which::All);
        let after: Vec<&str> = plan.changes.iter().map(|change| change.after.as_str()).collect();
        assert_eq!(
            after,
            [
                FEDORA.replace("1G-:192M", "256M").as_str(),
                SYSTEMD.replace("$kernelopts", "$kernelopts crashkernel=256M").as_str(),
                "root=/dev/vda2 quiet crashkernel=256M\n"
            ]
        );
    }

    #[test]
    fn the_entry_of_one_kernel_is_found_by_the_path_that_the_administrator_knows() {
        let files = [("efi/loader/entries/a.conf", FEDORA), ("efi/loader/entries/b.conf", SYSTEMD)];
        for (kernel, entry) in
            [("/boot/vmlinuz-6.12", "a.conf"), ("/boot/ab12/6.1/linux", "b.conf"), ("/efi/ab12/6.1/linux", "b.conf")]
        {
            let plan = changed(&files, &Which::Kernel(kernel.into()));
            let [change] = &plan.changes[..] else { panic!("{kernel}: {plan:?}") };
            assert!(change.path.ends_with(entry), "{kernel}: {}", change.path.display());
        }
        let (_dir, tree) = tree(&files);
        for kernel in ["/boot/vmlinuz-6.1", "/boot/cd34/6.1/linux"] {
            let error = plan(&tree, &Which::Kernel(kernel.into()), &crashkernel("1M")).unwrap_err();
            assert!(error.to_string().contains("no boot entry is for"), "{error}");
        }
    }

    #[test]
    fn an_entry_without_options_gets_a_line_and_a_word_in_another_line_goes() {
        assert_eq!(edited("linux /x", &crashkernel("1M")), "linux /x\noptions crashkernel=1M\n");
        assert_eq!(edited("options \n", &crashkernel("1M")), "options crashkernel=1M\n");
        let two = "options crashkernel=9M a\noptions b";
        assert_eq!(edited(two, &crashkernel("1M")), "options a\noptions b crashkernel=1M");
    }

    #[test]
    fn what_holds_its_command_line_itself_or_is_no_kernel_gets_none() {
        let others = [
            ("boot/loader/entries/uki.conf", "title x\nuki /EFI/Linux/a.efi\n"),
            ("boot/loader/entries/shell.conf", "title Shell\nefi /shellx64.efi\n"),
            ("boot/loader/entries/stub.conf", "efi /vmlinuz-6.1\noptions quiet\n"),
        ];
        let plan = changed(&others, &Which::All);
        let [change] = &plan.changes[..] else { panic!("{plan:?}") };
        assert_eq!(change.after, "efi /vmlinuz-6.1\noptions quiet crashkernel=256M\n");
        let note = "/EFI/Linux/a.efi is a unified kernel image, which holds its command line itself: write that to \
            /etc/kernel/cmdline with `crashkernel=256M`, then build the image anew";
        assert_eq!(plan.notes, [note]);
        let (_dir, tree) = tree(&others[..2]);
        let error = super::super::plan(&tree, &Which::All, &crashkernel("256M")).unwrap_err().to_string();
        assert!(error.starts_with("/EFI/Linux/a.efi is a unified kernel image"), "{error}");
    }

    #[test]
    fn the_distributions_line_of_kernels_to_come_is_taken_over_with_ours() {
        let files = [("boot/EFI/Linux/a.efi", ""), ("usr/lib/kernel/cmdline", "root=/dev/x\n")];
        let plan = changed(&files, &Which::All);
        let [change] = &plan.changes[..] else { panic!("{plan:?}") };
        assert_eq!((change.path.to_str().unwrap(), &change.before), ("/etc/kernel/cmdline", &None));
        assert_eq!(change.after, "root=/dev/x crashkernel=256M\n");
        assert!(plan.notes[0].starts_with("/boot/EFI/Linux/a.efi is a unified kernel image"), "{:?}", plan.notes);
        let (_dir, tree) = tree(&files);
        plan.apply(&tree).unwrap();
        assert!(super::super::plan(&tree, &Which::All, &crashkernel("256M")).unwrap().is_settled());
    }

    #[test]
    fn grubby_is_told_where_it_is_and_no_entry_is_touched() {
        let files = [("boot/loader/entries/a.conf", FEDORA), ("usr/sbin/grubby", "")];
        let plan = changed(&files, &Which::All);
        let line = "grubby --update-kernel=/boot/vmlinuz-6.12 --remove-args=crashkernel --args=crashkernel=256M";
        assert_eq!(plan.first, [line.split(' ').map(str::to_owned).collect::<Vec<_>>()]);
        assert!(plan.changes.is_empty() && !plan.is_settled());
        let settled = FEDORA.replace("1G-:192M", "256M");
        let plan = changed(&[("boot/loader/entries/a.conf", &settled), ("usr/sbin/grubby", "")], &Which::All);
        assert!(plan.is_settled(), "{plan:?}");
    }

    #[test]
    fn where_grubby_is_it_knows_the_default_entry_and_the_kernel_that_runs_is_meant_by_nothing() {
        let files = [("boot/loader/entries/a.conf", FEDORA), ("usr/sbin/grubby", "")];
        let release = || Ok("6.12".to_owned());
        let (_dir, tree) = tree(&files);
        let which = Which::typed(Some("DEFAULT"), release, &tree).unwrap();
        let line = "grubby --update-kernel=DEFAULT --remove-args=crashkernel --args=crashkernel=256M";
        assert_eq!(
            super::super::plan(&tree, &which, &crashkernel("256M")).unwrap().first,
            [line.split(' ').map(str::to_owned).collect::<Vec<_>>()]
        );
        let which = Which::typed(None, release, &tree).unwrap();
        assert_eq!(super::super::plan(&tree, &which, &crashkernel("256M")).unwrap().first.len(), 1);
        let which = Which::typed(None, || Ok("6.13".to_owned()), &tree).unwrap();
        let error = super::super::plan(&tree, &which, &crashkernel("256M")).unwrap_err().to_string();
        assert_eq!(error, "no boot entry is for kernel 6.13; name the kernel of one, or ALL");
    }

    #[test]
    fn the_default_entry_is_the_one_that_the_boot_loader_names() {
        let entry = |path, text| (path, text);
        let both = [
            entry("boot/loader/entries/a-6.1.conf", "linux /vmlinuz-6.1\noptions quiet\n"),
            entry("boot/loader/entries/a-6.2.conf", "linux /vmlinuz-6.2\noptions quiet\n"),
        ];
        let chosen = "\u{7}\0\0\0a\0-\x006\0.\x002\0.\0c\0o\0n\0f\0\0\0";
        for (more, expected) in [
            (&[("boot/grub2/grubenv", "# GRUB\nsaved_entry=a-6.2\nboot_success=1\n####")][..], Some("a-6.2")),
            (&[("boot/loader/loader.conf", "timeout 3\ndefault a-6.1.conf\n")], Some("a-6.1")),
            (&[("boot/loader/loader.conf", "default a-*1.conf\n")], Some("a-6.1")),
            (&[("boot/loader/loader.conf", "default a-6.1.conf\n"), (CHOSEN, chosen)], Some("a-6.2")),
            (&[("boot/loader/loader.conf", "default *\n")], None),
            (&[("boot/loader/loader.conf", "default gone.conf\n")], None),
            (&[("boot/grub2/grubenv", "saved_entry=0\n")], None),
            (&[], None),
        ] {
            let (_dir, tree) = tree(&[&both, more].concat());
            let which = Which::typed(Some("DEFAULT"), || Ok(String::new()), &tree).unwrap();
            let plan = super::super::plan(&tree, &which, &crashkernel("256M"));
            match expected {
                Some(name) => {
                    let [change] = &plan.unwrap().changes[..] else { panic!("{more:?}") };
                    assert_eq!(change.path, Path::new("/boot/loader/entries").join(format!("{name}.conf")), "{more:?}");
                }
                None => {
                    let error = plan.unwrap_err().to_string();
                    assert!(error.starts_with("nothing says which boot entry is the default"), "{error}");
                }
            }
        }
    }

    #[test]
    fn zipl_is_run_where_it_is_used() {
        let files = [("boot/loader/entries/a.conf", FEDORA), ("etc/zipl.conf", "[defaultboot]\ndefaultauto\n")];
        let plan = changed(&files, &Which::All);
        assert_eq!(plan.commands, [[["zipl".to_owned()]]]);
        assert_eq!(plan.changes.len(), 1);
    }
}
