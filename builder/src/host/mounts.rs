//! Which mounted file system holds a directory.
//!
//! In: `/proc/self/mountinfo`. Out: the file system's type and source, and what the directory is called inside it. What
//! may surprise: with a bind mount or a btrfs subvolume the mounted root is a directory of the file system, not its root.

use super::{Tree, sysfs};
use anyhow::{Context, bail};
use kdump_hooks::DeviceSpec;
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

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The file system's type.
    pub fstype: String,
    /// What is mounted.
    pub source: String,
    /// Its device number, such as `254:1`.
    pub number: String,
    /// Which directory of it is mounted.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
}

/// All that is mounted; nothing where that cannot be told.
pub fn all(tree: &Tree) -> Vec<Mount> {
    let text = tree.line("proc/self/mountinfo").unwrap_or_default();
    let mounts = text.lines().filter_map(parse);
    let mount = |(point, Holder { fstype, source, number, path })| Mount { fstype, source, number, root: path, point };
    mounts.map(mount).collect()
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

/// How the file system on `device` is mounted, whose node here is `node`: as fstab says, else as it is mounted now; the
/// first entry counts. What concerns only the running system is left out.
pub fn options(tree: &Tree, device: &DeviceSpec, node: Option<&Path>) -> Vec<String> {
    let node = node.and_then(|node| tree.canonical(node).ok());
    let facts = node.as_deref().and_then(|node| sysfs::facts_of_node(tree, node)).unwrap_or_default();
    let is_it = |source: &str| match source.parse::<DeviceSpec>() {
        Ok(spec) if spec == *device => true,
        Ok(DeviceSpec::Path(path)) => node.is_some() && tree.canonical(&path).ok() == node,
        Ok(spec) => spec.matches(&facts),
        Err(_) => false,
    };
    let fields = |file: &str| -> Option<Vec<String>> {
        let text = std::fs::read_to_string(tree.path(file)).ok()?;
        text.lines().find_map(|line| {
            let mut fields = line.split_whitespace();
            fields.next().filter(|source| is_it(&unescape(source)))?;
            let fstype = fields.nth(1)?;
            (fstype != "swap").then(|| fields.next())?.map(|options| options.split(',').map(unescape).collect())
        })
    };
    let mut options: Vec<String> = fields("etc/fstab").or_else(|| fields("proc/self/mounts")).unwrap_or_default();
    options.retain(|option| !is_of_the_running_system(option));
    // A running mount tells the same subvolume twice, and a restored snapshot has another number.
    if options.iter().any(|option| option.starts_with("subvol=")) {
        options.retain(|option| !option.starts_with("subvolid="));
    }
    options
}

/// Whether an option is about when and by whom something is mounted, or names a node that another kernel names
/// otherwise.
fn is_of_the_running_system(option: &str) -> bool {
    const WORDS: [&str; 15] = [
        "rw", "ro", "defaults", "auto", "noauto", "nofail", "_netdev", "user", "nouser", "users", "owner", "group",
        "seclabel", "noquota", "bind",
    ];
    const BEGINNINGS: [&str; 5] = ["x-", "X-", "comment=", "device=", "helper="];
    WORDS.contains(&option) || BEGINNINGS.iter().any(|beginning| option.starts_with(beginning))
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

    /// The options of a device, when the machine has these files.
    fn options_of(device: &str, fstab: &str, mounts: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path());
        for folder in ["proc/self", "etc", "dev/disk/by-uuid"] {
            fs::create_dir_all(tree.path(folder)).unwrap();
        }
        fs::write(tree.path("dev/vdb"), "").unwrap();
        std::os::unix::fs::symlink("../../vdb", tree.path("dev/disk/by-uuid/AA-1")).unwrap();
        fs::write(tree.path("etc/fstab"), fstab).unwrap();
        fs::write(tree.path("proc/self/mounts"), mounts).unwrap();
        options(&tree, &device.parse().unwrap(), Some(Path::new("/dev/vdb"))).join(",")
    }

    #[test]
    fn options_are_those_of_fstab_and_without_it_those_of_the_running_mount() {
        let mounts = "/dev/vda / ext4 rw,data=journal 0 0\n\
                      /dev/vdb /srv btrfs rw,seclabel,noatime,compress=zstd:3,subvolid=256,subvol=/@/my\\040dumps 0 0\n";
        let running = "noatime,compress=zstd:3,subvol=/@/my dumps";
        assert_eq!(options_of("/dev/vdb", "", mounts), running);
        assert_eq!(options_of("LABEL=crash", "# /dev/vdb /x btrfs ssd\n", mounts), running);
        let fstab = "LABEL=crash /srv btrfs noauto,x-systemd.automount,noatime,device=/dev/vdc,subvol=dumps 0 0\n";
        assert_eq!(options_of("LABEL=crash", fstab, mounts), "noatime,subvol=dumps");
        assert_eq!(options_of("UUID=AA-1", "/dev/disk/by-uuid/AA-1 / btrfs subvolid=5", ""), "subvolid=5");
        assert_eq!(options_of("UUID=AA-1", "/dev/vdb / btrfs defaults", mounts), "");
        assert_eq!(options_of("UUID=AA-1", "/dev/vdb none swap pri=1", ""), "");
    }

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
             30 28 254:3 /x /var/crash rw - ext4 /dev/vda3 rw\n\
             31 27 0:30 /@/data/deep /bound rw - btrfs /dev/vdb rw,subvolid=256,subvol=/@\n\
             32 27 254:1 /home/dumps /under rw - ext4 /dev/vda1 rw\n\
             33 27 0:30 / /top rw - btrfs /dev/vdb rw,subvolid=5,subvol=/\n",
        )
        .unwrap();
        for (path, fstype, source, inside) in [
            ("/etc", "ext4", "/dev/vda1", "/etc"),
            ("/var/log/new", "xfs", "/dev/vda2", "/log/new"),
            ("/var/crash", "ext4", "/dev/vda3", "/x"),
            ("/dumps/a", "ext4", "/dev/vda3", "/x/a"),
            ("/srv/with blank/d", "btrfs", "/dev/vdb", "/@/data/d"),
            ("/bound/d", "btrfs", "/dev/vdb", "/@/data/deep/d"),
            ("/under/d", "ext4", "/dev/vda1", "/home/dumps/d"),
            ("/top/@snap/d", "btrfs", "/dev/vdb", "/@snap/d"),
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
