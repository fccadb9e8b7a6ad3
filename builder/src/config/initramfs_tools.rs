//! initramfs-tools' lists of modules: what every image of a Debian machine loads before any device is asked.
//!
//! In: `/etc/initramfs-tools/modules` and the packages' lists beside it. Out: modules, each with its line.
//! May surprise: only an image for a normal boot follows them, as it takes the place of theirs.

use super::image::Image;
use super::values::module_name;
use super::{Complaints, Given, Origin};
use anyhow::Context;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The administrator's list, below the root.
const FILE: &str = "etc/initramfs-tools/modules";

/// The directory of the packages' lists.
const DIRECTORY: &str = "usr/share/initramfs-tools/modules.d";

/// Reads all lists below `root`.
///
/// # Errors
/// One cannot be read.
pub(super) fn read(image: &mut Image, root: &Path, complaints: &mut Complaints) -> anyhow::Result<()> {
    for file in files(root)? {
        match fs::read(&file) {
            Ok(bytes) => follow(image, &String::from_utf8_lossy(&bytes), &file, complaints),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }
    Ok(())
}

fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let directory = root.join(DIRECTORY);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<PathBuf>>>(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    let mut files = entries.with_context(|| format!("cannot read {}", directory.display()))?;
    files.retain(|file| file.is_file());
    files.sort();
    files.insert(0, root.join(FILE));
    Ok(files)
}

/// Follows the text of one list: a module a line, with its options behind it.
pub fn follow(image: &mut Image, text: &str, file: &Path, complaints: &mut Complaints) {
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default();
        let (name, options) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
        if name.is_empty() {
            continue;
        }
        let place = Origin::Line(file.to_owned(), number);
        if !options.trim().is_empty() {
            let instead = format!("write `options {name} {}` into /etc/modprobe.d", options.trim());
            complaints.warn(&place, format!("options of a module are not followed here; {instead}"));
        }
        match module_name(name) {
            Ok(name) => image.force_drivers.push(Given::at(name, &place)),
            Err(problem) => complaints.fail(&place, problem),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_line_is_a_module_and_options_are_named_with_where_they_belong() {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            (FILE, "# a list\n\n  nbd\nraid1 # behind it\ndummy numdummies=2\n"),
            ("usr/share/initramfs-tools/modules.d/b", "brd\n"),
            ("usr/share/initramfs-tools/modules.d/a", "loop"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let (mut image, mut complaints) = (Image::default(), Complaints::default());
        read(&mut image, root.path(), &mut complaints).unwrap();
        let found: Vec<&str> = image.force_drivers.iter().map(|given| given.value.as_str()).collect();
        assert_eq!(found, ["nbd", "raid1", "dummy", "loop", "brd"]);
        let [warning] = &complaints.warnings[..] else { panic!("{complaints:?}") };
        assert!(warning.contains("modules:5: ") && warning.contains("`options dummy numdummies=2` into"), "{warning}");
        follow(&mut image, "a/b\n", Path::new("modules"), &mut complaints);
        assert!(complaints.errors()[0].starts_with("modules:1: "), "{complaints:?}");
        read(&mut Image::default(), Path::new("/nowhere"), &mut complaints).unwrap();
    }

    proptest! {
        #[test]
        fn names_are_read_back_from_any_layout(names in proptest::collection::vec("[a-z][a-z0-9_]{0,8}", 0..6)) {
            let text: String = names.iter().map(|name| format!("#\n\t {name}  # {name}\n")).collect();
            let (mut image, mut complaints) = (Image::default(), Complaints::default());
            follow(&mut image, &text, Path::new("modules"), &mut complaints);
            let found: Vec<String> = image.force_drivers.into_iter().map(|given| given.value).collect();
            prop_assert_eq!(found, names);
        }
    }
}
