//! Which mounted file system holds a directory.
//!
//! In: `/proc/self/mountinfo`. Out: the file system's type and source, and what the directory is called inside it. What
//! may surprise: with a bind mount or a btrfs subvolume the mounted root is a directory of the file system, not its root.

use super::Tree;
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};

/// A directory in a mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The file system's type.
    pub fstype: String,
    /// What is mounted.
    pub source: String,
    /// Its device number, such as `254:1`.
    pub number: String,
    /// The directory, from the root of the file system on.
    pub path: PathBuf,
}

/// Finds the file system that holds `directory`, which need not exist yet.
///
/// # Errors
/// There is no mountinfo, or nothing in it answers.
pub fn holder(tree: &Tree, directory: &Path) -> anyhow::Result<Holder> {
    let mountinfo = tree.path("proc/self/mountinfo");
    let text = std::fs::read_to_string(&mountinfo).with_context(|| format!("cannot read {}", mountinfo.display()))?;
    let directory = existing(tree, directory);
    let mut best: Option<(PathBuf, Holder)> = None;
    for line in text.lines() {
        let Some((point, mount)) = parse(line) else { continue };
        let Ok(below) = directory.strip_prefix(&point) else { continue };
        // Of two mounts on one point the later one covers the earlier.
        if best.as_ref().is_none_or(|(longest, _)| point.as_os_str().len() >= longest.as_os_str().len()) {
            let path = mount.path.join(below).components().collect();
            best = Some((point, Holder { path, ..mount }));
        }
    }
    match best {
        Some((_, holder)) => Ok(holder),
        None => bail!("no line of {} has the file system of {}", mountinfo.display(), directory.display()),
    }
}

/// The directory with the links of those of its parents that exist followed.
fn existing(tree: &Tree, directory: &Path) -> PathBuf {
    for parent in directory.ancestors() {
        if let (Ok(canonical), Ok(rest)) = (tree.canonical(parent), directory.strip_prefix(parent)) {
            return canonical.join(rest);
        }
    }
    directory.to_owned()
}

/// `ID PARENT MAJ:MIN ROOT POINT OPTIONS [TAGS…] - TYPE SOURCE OPTIONS`; [`Holder::path`] is the mounted root.
fn parse(line: &str) -> Option<(PathBuf, Holder)> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(2);
    let (number, root, point) = (mount.next()?, mount.next()?, mount.next()?);
    let mut filesystem = filesystem.split(' ');
    let (fstype, source) = (filesystem.next()?, filesystem.next()?);
    let holder = Holder {
        fstype: fstype.to_owned(),
        source: unescape(source),
        number: number.to_owned(),
        path: unescape(root).into(),
    };
    Some((unescape(point).into(), holder))
}

/// The kernel writes blanks, line ends and backslashes as `\NNN`.
fn unescape(text: &str) -> String {
    let mut out = text.to_owned();
    for (escape, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        out = out.replace(escape, plain);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_deepest_and_latest_mount_holds_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path());
        fs::create_dir_all(tree.path("proc/self")).unwrap();
        fs::create_dir_all(tree.path("var/crash")).unwrap();
        std::os::unix::fs::symlink("/var/crash", tree.path("dumps")).unwrap();
        fs::write(
            tree.path("proc/self/mountinfo"),
            "27 1 254:1 / / rw - ext4 /dev/vda1 rw\n\
             28 27 254:2 / /var rw,relatime shared:2 - xfs /dev/vda2 rw\n\
             29 27 0:30 /@/data /srv/with\\040blank rw - btrfs /dev/vdb rw\n\
             30 28 254:3 /x /var/crash rw - ext4 /dev/vda3 rw\n",
        )
        .unwrap();
        for (path, fstype, source, inside) in [
            ("/etc", "ext4", "/dev/vda1", "/etc"),
            ("/var/log/new", "xfs", "/dev/vda2", "/log/new"),
            ("/var/crash", "ext4", "/dev/vda3", "/x"),
            ("/dumps/a", "ext4", "/dev/vda3", "/x/a"),
            ("/srv/with blank/d", "btrfs", "/dev/vdb", "/@/data/d"),
            ("/variety", "ext4", "/dev/vda1", "/variety"),
        ] {
            let found = holder(&tree, Path::new(path)).unwrap();
            assert_eq!(
                (found.fstype.as_str(), found.source.as_str(), found.path.to_str().unwrap()),
                (fstype, source, inside)
            );
        }
    }
}
