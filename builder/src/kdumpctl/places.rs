//! Where dumps are, as far as this machine sees it.
//!
//! In: the configured targets and `/proc/self/mountinfo`. Out: directories, and in words which targets cannot be looked
//! at from here.
//!
//! May surprise: a target may be mounted at several points, and not as a whole: of a bind mount or a subvolume only the
//! part counts in which dumps would be. What is mounted from another machine may hold the dumps of others.

use super::{Machine, recovery};
use crate::config::{Config, OnFailure, Origin, TargetLine};
use crate::host::mounts::{self, Mount};
use crate::host::{Tree, sysfs};
use crate::target::ROOTFS_DIR;
use kdump_hooks::DeviceSpec;
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// What this machine sees.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The directories of dumps on its own disks.
    pub(super) local: Vec<PathBuf>,
    /// Those that the hypervisor shares.
    pub(super) shared: Vec<PathBuf>,
    /// Those that are mounted from other machines.
    pub(super) far: Vec<PathBuf>,
    /// What this machine would see if it were mounted, and where that is configured.
    pub(super) unmounted: Vec<String>,
    /// What it does not see, and why.
    pub(super) unseen: Vec<String>,
}

impl Places {
    /// Finds them.
    pub(super) fn of(config: &Config, tree: &Tree) -> Places {
        let mut places = Places::default();
        let usual = &config.dump.path.value;
        if config.dump.targets.is_empty() {
            places.local.push(tree.path(usual));
        }
        let mounts = mounts::all(tree);
        for wanted in &config.dump.targets {
            let path = wanted.value.path.as_ref().unwrap_or(usual);
            match &wanted.value.line {
                TargetLine::Filesystem { device, .. } => {
                    let found = on_device(tree, &mounts, device, &wanted.value.options, path);
                    if found.is_empty() {
                        places.is_not_mounted(device, &wanted.origin);
                    }
                    places.local.extend(found);
                }
                // What is on it has been recovered, or will be.
                TargetLine::Raw(_) => places.local.push(tree.path(usual)),
                line @ TargetLine::Virtiofs(tag) => {
                    let found = from_elsewhere(tree, &mounts, line, path);
                    if found.is_empty() {
                        places.is_not_mounted(tag, &wanted.origin);
                    }
                    places.shared.extend(found);
                }
                line => {
                    let found = from_elsewhere(tree, &mounts, line, path);
                    if found.is_empty() {
                        places.unseen.push("dumps go to another machine".to_owned());
                    }
                    places.far.extend(found);
                }
            }
        }
        if config.dump.failure_action.value == OnFailure::DumpToRootfs {
            places.look_below_the_root(tree, &mounts);
        }
        for found in [&mut places.local, &mut places.shared, &mut places.far] {
            found.sort();
            found.dedup();
        }
        places.unseen.dedup();
        places
    }

    /// The same, and whether a dump is on a raw target still.
    pub(super) fn with_raw(machine: &Machine, config: &Config) -> Places {
        let mut places = Places::of(config, &machine.tree);
        places.unseen.extend(recovery::waiting(machine, config));
        places
    }

    /// All directories.
    pub(super) fn all(&self) -> Vec<PathBuf> {
        self.local.iter().chain(&self.shared).chain(&self.far).cloned().collect()
    }

    /// Where `dump_to_rootfs` puts them, unless something is mounted over it.
    fn look_below_the_root(&mut self, tree: &Tree, mounts: &[Mount]) {
        let dir = Path::new("/").join(ROOTFS_DIR);
        let above = mounts.iter().find(|mount| mount.point != Path::new("/") && dir.starts_with(&mount.point));
        match above {
            None => self.local.push(tree.path(&dir)),
            Some(mount) => {
                let point = mount.point.display();
                self.unseen
                    .push(format!("{} of the root file system is below what is mounted at {point}", dir.display()));
            }
        }
    }

    fn is_not_mounted(&mut self, what: impl Display, origin: &Origin) {
        self.unseen.push(format!("{what} is not mounted here"));
        self.unmounted.push(format!("{origin}: {what} is not mounted here"));
    }
}

/// Where `path` of the file system on a device is, at all of its mount points.
fn on_device(tree: &Tree, mounts: &[Mount], device: &DeviceSpec, options: &[String], path: &Path) -> Vec<PathBuf> {
    let names = sysfs::block_names(tree, device);
    let is_it = |mount: &&Mount| {
        let node = tree.canonical(Path::new(&mount.source)).ok();
        let name = node.as_deref().and_then(|node| node.strip_prefix("/dev").ok()?.to_str());
        names.iter().any(|known| {
            name.is_some_and(|name| name.replace('/', "!") == *known)
                || tree.line(&format!("sys/class/block/{known}/dev")).is_some_and(|number| number == mount.number)
        })
    };
    // The capture kernel mounts what these say; else what is mounted now.
    let usual = || mounts::options(tree, device, names.first().map(|name| Path::new("/dev").join(name)).as_deref());
    let options = if options.is_empty() { usual() } else { options.to_vec() };
    let subvolume = options.iter().find_map(|option| option.strip_prefix("subvol=")).unwrap_or("/");
    let whole = Path::new("/").join(subvolume).join(relative(path));
    let mut found = Vec::new();
    for mount in mounts.iter().filter(is_it) {
        let here = |below: &Path| tree.path(&mount.point).join(below);
        if let Ok(below) = whole.strip_prefix(&mount.root) {
            found.push(here(below));
        } else if mount.fstype == "btrfs" && here(relative(path)).is_dir() {
            // A subvolume that the file system is mounted with where nothing names one.
            found.push(here(relative(path)));
        }
    }
    found
}

/// Where `path` of an export, a share or a folder of the hypervisor is mounted.
fn from_elsewhere(tree: &Tree, mounts: &[Mount], line: &TargetLine, path: &Path) -> Vec<PathBuf> {
    let bare = |server: &str| server.trim_matches(['[', ']']).to_ascii_lowercase();
    let found = mounts.iter().filter_map(|mount| {
        let (there, whole) = match line {
            TargetLine::Nfs(nfs) if mount.fstype.starts_with("nfs") => {
                let (server, export) = mount.source.rsplit_once(":/")?;
                let is_it = bare(server) == bare(&nfs.server)
                    || nfs.address.is_some_and(|address| bare(server) == address.to_string());
                is_it.then(|| (Path::new("/").join(export), Path::new(&nfs.export).to_owned()))?
            }
            TargetLine::Cifs(cifs) if mount.fstype == "cifs" || mount.fstype == "smb3" => {
                let (server, share) = mount.source.trim_start_matches(['/', '\\']).split_once(['/', '\\'])?;
                let share = share.replace('\\', "/");
                let is_it = bare(server) == bare(&cifs.server);
                is_it.then(|| (Path::new("/").join(share), Path::new("/").join(&cifs.share)))?
            }
            TargetLine::Virtiofs(tag) if mount.fstype == "virtiofs" && mount.source == *tag => {
                (PathBuf::from("/"), PathBuf::from("/"))
            }
            _ => return None,
        };
        let there = there.join(relative(&mount.root));
        let below = whole.join(relative(path)).strip_prefix(there).ok()?.to_owned();
        Some(tree.path(&mount.point).join(below))
    });
    found.collect()
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Files;

    /// What is seen with this kdump.toml where this is mounted: on own disks, elsewhere, and not.
    type Seen = (Vec<String>, Vec<String>, Vec<String>);

    fn seen(target: &str, mountinfo: &str) -> Seen {
        seen_with("", target, mountinfo)
    }

    fn seen_with(first: &str, target: &str, mountinfo: &str) -> Seen {
        let (dir, tree) = crate::fake::tree(&[
            ("etc/kdump/kdump.toml", &format!("path = \"/var/crash\"\n{first}\n[[target]]\n{target}\n")),
            ("proc/self/mountinfo", mountinfo),
            ("dev/vdb1", ""),
            ("sys/class/block/vdb1/dev", "254:17\n"),
            ("mnt/sub/var/crash/a/vmcore", ""),
        ])
        .unwrap();
        let config = Config::read(&Files::new(dir.path(), None, None)).unwrap();
        let Places { local, shared, far, unseen, unmounted } = Places::of(&config, &tree);
        assert!(unmounted.iter().all(|line| line.contains("kdump.toml:")), "{unmounted:?}");
        let far = [shared, far].concat();
        let below = |path: &PathBuf| format!("/{}", path.strip_prefix(dir.path()).unwrap().display());
        (local.iter().map(below).collect(), far.iter().map(below).collect(), unseen)
    }

    #[test]
    fn a_device_is_found_at_all_of_its_mount_points_as_far_as_dumps_are_below_them() {
        let conf = "kind = \"filesystem\"\ntype = \"ext4\"\ndevice = \"/dev/vdb1\"";
        for (mountinfo, local) in [
            ("1 0 254:17 / /mnt/crash\\040disk rw - ext4 /dev/vdb1 rw\n", &["/mnt/crash disk/var/crash"][..]),
            ("1 0 254:17 / / rw - ext4 /dev/root rw\n", &["/var/crash"]),
            (
                "1 0 254:17 /home /home rw - ext4 /dev/vdb1 rw\n2 0 254:17 /var /srv rw - ext4 /dev/vdb1 rw\n\
                 3 0 254:17 / /whole rw - ext4 /dev/vdb1 rw\n",
                &["/srv/crash", "/whole/var/crash"],
            ),
            (
                "1 0 0:30 /@a /mnt/none rw - btrfs /dev/vdb1 rw\n2 0 0:30 /@b /mnt/sub rw - btrfs /dev/vdb1 rw\n",
                &["/mnt/sub/var/crash"],
            ),
        ] {
            assert_eq!(seen(conf, mountinfo), (local.iter().map(|dir| (*dir).to_owned()).collect(), vec![], vec![]));
        }
        for mountinfo in ["", "1 0 254:17 /home /home rw - ext4 /dev/vdb1 rw\n", "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"]
        {
            assert_eq!(seen(conf, mountinfo), (vec![], vec![], vec!["/dev/vdb1 is not mounted here".to_owned()]));
        }
    }

    #[test]
    fn what_is_mounted_from_elsewhere_is_seen_and_kept_apart() {
        let nfs = "kind = \"nfs\"\nexport = \"nas:/srv/crash\"\npath = \"/dumps\"";
        let elsewhere = vec!["dumps go to another machine".to_owned()];
        for (mountinfo, far) in [
            ("1 0 0:40 / /mnt rw - nfs4 nas:/srv rw\n", Some("/mnt/crash/dumps")),
            ("1 0 0:40 / /mnt rw - nfs NAS:/srv/crash rw\n", Some("/mnt/dumps")),
            ("1 0 0:40 / /mnt rw - nfs4 nas:/srv/other rw\n", None),
            ("1 0 0:40 / /mnt rw - nfs4 other:/srv rw\n", None),
        ] {
            let unseen = if far.is_some() { Vec::new() } else { elsewhere.clone() };
            assert_eq!(
                seen(nfs, mountinfo),
                (vec![], far.map(str::to_owned).into_iter().collect(), unseen),
                "{mountinfo}"
            );
        }
        let shares = "1 0 0:40 / /mnt rw - cifs //nas/crash rw\n";
        let shared = "1 0 0:40 / /srv/my\\040crash rw - virtiofs crash rw\n";
        assert_eq!(seen("kind = \"virtiofs\"\ntag = \"crash\"", shared).1, ["/srv/my crash/var/crash"]);
        assert_eq!(seen("kind = \"virtiofs\"\ntag = \"crash\"", shares).2, ["crash is not mounted here"]);
        assert_eq!(seen("kind = \"cifs\"\nshare = \"//nas/crash\"\npath = \"/d\"", shares).1, ["/mnt/d"]);
    }

    #[test]
    fn dumps_that_fell_back_to_the_root_file_system_are_seen_unless_something_covers_them() {
        let conf = "kind = \"nfs\"\nexport = \"nas:/x\"";
        let to_rootfs = "failure_action = \"dump_to_rootfs\"";
        let (root, elsewhere) = ("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n", "dumps go to another machine".to_owned());
        assert_eq!(seen_with(to_rootfs, conf, root), (vec!["/var/crash".to_owned()], vec![], vec![elsewhere.clone()]));
        let (local, _, unseen) = seen_with(to_rootfs, conf, &format!("{root}2 1 8:2 / /var rw - ext4 /dev/sda2 rw\n"));
        assert_eq!((local, unseen.len()), (vec![], 2));
        assert_eq!(unseen[1], "/var/crash of the root file system is below what is mounted at /var");
        assert_eq!(seen(conf, root), (vec![], vec![], vec![elsewhere]));
    }
}
