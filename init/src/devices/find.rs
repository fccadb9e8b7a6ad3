//! From a name in a configuration to a device node.
//!
//! May surprise: a device that another one is made of is passed over when a superblock's UUID or label is looked for:
//! the path of a multipath map shows what is on the map. A physical volume of LVM stays what it is, however many volumes
//! are on it.

use super::partition::{Partition, partition};
use super::superblock::{Superblock, probe};
use kdump_hooks::DeviceSpec;
use kdump_hooks::device::Facts;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// How long a look waits for one disk.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a physical volume of LVM holds.
const VOLUMES: &str = "LVM2_member";

/// Looks at block devices. A disk that does not answer holds up one look, not the search; if it answers later, a later
/// look hears it.
#[derive(Debug)]
pub struct Finder {
    /// `/sys/class/block`.
    class: PathBuf,
    /// `/dev`.
    dev: PathBuf,
    /// Questions that have not been answered.
    open: BTreeMap<String, Receiver<Seen>>,
}

/// What was seen of a device.
#[derive(Clone, Debug, Default)]
struct Seen {
    superblock: Option<Superblock>,
    partition: Option<Partition>,
    wwid: Option<String>,
}

impl Finder {
    /// Looks below these directories.
    pub fn new(class: &Path, dev: &Path) -> Finder {
        Finder { class: class.to_owned(), dev: dev.to_owned(), open: BTreeMap::new() }
    }

    /// The node of `spec`, if it is there now.
    pub fn find(&mut self, spec: &DeviceSpec) -> Option<PathBuf> {
        match spec {
            DeviceSpec::Path(path) => {
                let node = self.dev.join(path.strip_prefix("/dev").ok()?);
                node.exists().then_some(node)
            }
            _ => self.find_all(spec).0.into_iter().next(),
        }
    }

    /// The nodes of all devices that `spec` names, in the order of their names, and how many their superblock wants.
    pub fn find_all(&mut self, spec: &DeviceSpec) -> (Vec<PathBuf>, u64) {
        let (mut nodes, mut wanted) = (Vec::new(), 1);
        for name in block_devices(&self.class) {
            let is_part = spec.is_of_content() && self.is_part_of_another(&name);
            if is_part && !self.is_below_volumes(&name) {
                continue;
            }
            let Some(seen) = self.look(&name) else { continue };
            // A half of a mirror of LVM is below a volume too, and looks like it.
            if is_part && seen.superblock.as_ref().is_none_or(|superblock| superblock.fstype != VOLUMES) {
                continue;
            }
            if spec.matches(&seen.facts()) {
                nodes.push(node(&self.dev, &name));
                wanted = seen.superblock.map_or(1, |superblock| superblock.devices);
            }
        }
        (nodes, wanted)
    }

    /// What is known of the device with that name.
    pub fn superblock_of(&mut self, name: &str) -> Option<Superblock> {
        self.look(name)?.superblock
    }

    /// What the device with that name can be called.
    pub fn facts_of(&mut self, name: &str) -> Facts {
        self.look(name).unwrap_or_default().facts()
    }

    /// What is there, for the message that says what is not.
    pub fn inventory(&mut self) -> Vec<String> {
        let names = block_devices(&self.class);
        let describe = |name: String| match self.look(&name) {
            None if self.open.contains_key(&name) => format!("{name} (does not answer)"),
            Some(Seen { superblock: Some(Superblock { fstype, uuid, label, .. }), .. }) => {
                let uuid = uuid.map(|uuid| format!(" UUID={uuid}")).unwrap_or_default();
                let label = label.map(|label| format!(" LABEL={label}")).unwrap_or_default();
                format!("{name} ({fstype}{uuid}{label})")
            }
            _ => name,
        };
        names.into_iter().map(describe).collect()
    }

    fn is_part_of_another(&self, name: &str) -> bool {
        fs::read_dir(self.class.join(name).join("holders")).is_ok_and(|mut holders| holders.next().is_some())
    }

    /// Whether all that stands on it are volumes of LVM. It is their physical volume then, and may get more of them.
    fn is_below_volumes(&self, name: &str) -> bool {
        let Ok(holders) = fs::read_dir(self.class.join(name).join("holders")) else { return false };
        holders.flatten().all(|holder| {
            let uuid = fs::read_to_string(holder.path().join("dm/uuid")).unwrap_or_default();
            uuid.starts_with("LVM-")
        })
    }

    /// Asks a disk what is on it, in a thread that may never come back.
    fn look(&mut self, name: &str) -> Option<Seen> {
        let (answer, patience) = match self.open.remove(name) {
            Some(answer) => (answer, Duration::ZERO),
            None => {
                let (tell, answer) = mpsc::channel();
                let (class, dev, name) = (self.class.clone(), self.dev.clone(), name.to_owned());
                thread::Builder::new().spawn(move || drop(tell.send(see(&class, &dev, &name)))).ok()?;
                (answer, PATIENCE)
            }
        };
        match answer.recv_timeout(patience) {
            Ok(seen) => Some(seen),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                if !patience.is_zero() {
                    log::warn!("{name} does not answer; the search goes on without it");
                }
                self.open.insert(name.to_owned(), answer);
                None
            }
        }
    }
}

impl Seen {
    fn facts(&self) -> Facts {
        let (superblock, partition) = (self.superblock.clone(), self.partition.clone().unwrap_or_default());
        let (uuid, label) = superblock.map_or((None, None), |it| (it.uuid, it.label));
        Facts { uuid, label, partuuid: partition.uuid, partlabel: partition.name, wwid: self.wwid.clone() }
    }
}

/// Block devices by name, those that hold no data of their own left out.
fn block_devices(class: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(class) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !["ram", "loop", "zram"].iter().any(|kind| name.starts_with(kind)))
        .collect();
    names.sort();
    names
}

/// The node of a device; sysfs writes `!` for the `/` in the names of some.
fn node(dev: &Path, name: &str) -> PathBuf {
    dev.join(name.replace('!', "/"))
}

fn see(class: &Path, dev: &Path, name: &str) -> Seen {
    let superblock = File::open(node(dev, name)).ok().and_then(|mut device| probe(&mut device).ok().flatten());
    Seen { superblock, partition: partition_of(class, dev, name), wwid: wwid(&class.join(name)) }
}

/// The identifier that a disk gives: SCSI's page 83, NVMe's namespace, or virtio's serial number.
fn wwid(place: &Path) -> Option<String> {
    let says = |file| fs::read_to_string(place.join(file)).ok().map(|text| text.trim().to_owned());
    ["device/wwid", "wwid", "serial"].into_iter().filter_map(says).find(|text| !text.is_empty())
}

/// The names of a partition: the kernel's own, or those of the table on its disk.
fn partition_of(class: &Path, dev: &Path, name: &str) -> Option<Partition> {
    let number: u32 = fs::read_to_string(class.join(name).join("partition")).ok()?.trim().parse().ok()?;
    let uevent = fs::read_to_string(class.join(name).join("uevent")).unwrap_or_default();
    let says = |key: &str| uevent.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
    let known = Partition { uuid: says("PARTUUID="), name: says("PARTNAME=") };
    if known.uuid.is_some() {
        return Some(known);
    }
    let place = fs::canonicalize(class.join(name)).ok()?;
    let disk = node(dev, place.parent()?.file_name()?.to_str()?);
    let read = File::open(disk).and_then(|mut disk| partition(&mut disk, number)).ok().flatten();
    Some(read.unwrap_or(known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_device_is_found_by_what_is_on_it_and_the_rest_is_listed() {
        let tree = tempfile::tempdir().unwrap();
        let (class, dev) = (tree.path().join("class"), tree.path().join("dev"));
        for name in ["vda", "vdb", "loop0"] {
            fs::create_dir_all(class.join(name)).unwrap();
        }
        fs::create_dir_all(&dev).unwrap();
        let mut xfs = vec![0; 4096];
        xfs[..4].copy_from_slice(b"XFSB");
        xfs[108..113].copy_from_slice(b"crash");
        fs::write(dev.join("vda"), vec![0; 4096]).unwrap();
        fs::write(dev.join("vdb"), xfs).unwrap();
        let mut finder = Finder::new(&class, &dev);
        let mut find = |spec: &str| finder.find(&spec.parse().unwrap());
        assert_eq!(find("LABEL=crash"), Some(dev.join("vdb")));
        assert_eq!(find("/dev/vda"), Some(dev.join("vda")));
        assert_eq!(find("UUID=1"), None);
        assert_eq!(find("/dev/vdz"), None);
        assert_eq!(finder.inventory(), ["vda", "vdb (xfs LABEL=crash)"]);
    }

    /// A disk `vda` with a first partition.
    fn partitioned(uevent: &str) -> (tempfile::TempDir, Finder) {
        let tree = tempfile::tempdir().unwrap();
        let (class, dev) = (tree.path().join("class"), tree.path().join("dev"));
        let part = tree.path().join("devices/vda/vda1");
        fs::create_dir_all(&part).unwrap();
        fs::create_dir_all(&class).unwrap();
        fs::create_dir_all(&dev).unwrap();
        std::os::unix::fs::symlink(part.parent().unwrap(), class.join("vda")).unwrap();
        std::os::unix::fs::symlink(&part, class.join("vda1")).unwrap();
        fs::write(part.join("partition"), "1\n").unwrap();
        fs::write(part.join("uevent"), uevent).unwrap();
        let mut disk = vec![0; 4096];
        disk[440..444].copy_from_slice(&0x6b64_756d_u32.to_le_bytes());
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        fs::write(dev.join("vda"), disk).unwrap();
        fs::write(dev.join("vda1"), vec![0; 4096]).unwrap();
        let finder = Finder::new(&class, &dev);
        (tree, finder)
    }

    #[test]
    fn a_partition_is_known_to_the_kernel_or_by_the_table_of_its_disk() {
        let (tree, mut finder) = partitioned("PARTN=1\n");
        let node = tree.path().join("dev/vda1");
        assert_eq!(finder.find(&"PARTUUID=6B64756d-01".parse().unwrap()), Some(node.clone()));
        let (tree, mut finder) = partitioned("PARTUUID=abc\nPARTNAME=my dumps\n");
        let node = tree.path().join("dev/vda1");
        assert_eq!(finder.find(&"PARTUUID=abc".parse().unwrap()), Some(node.clone()));
        assert_eq!(finder.find(&"PARTLABEL=my dumps".parse().unwrap()), Some(node));
    }

    #[test]
    fn what_another_device_is_made_of_is_not_taken_for_it() {
        let tree = tempfile::tempdir().unwrap();
        let (class, dev) = (tree.path().join("class"), tree.path().join("dev"));
        fs::create_dir_all(class.join("sda/holders/dm-0")).unwrap();
        fs::create_dir_all(class.join("dm-0/holders")).unwrap();
        fs::create_dir_all(&dev).unwrap();
        let mut xfs = vec![0; 4096];
        xfs[..4].copy_from_slice(b"XFSB");
        xfs[108..113].copy_from_slice(b"crash");
        fs::write(dev.join("sda"), &xfs).unwrap();
        fs::write(dev.join("dm-0"), &xfs).unwrap();
        let label = "LABEL=crash".parse().unwrap();
        assert_eq!(Finder::new(&class, &dev).find_all(&label), (vec![dev.join("dm-0")], 1));
    }

    #[test]
    fn a_physical_volume_may_get_a_second_volume_but_the_half_of_a_mirror_is_no_whole() {
        let tree = tempfile::tempdir().unwrap();
        let (class, dev) = (tree.path().join("class"), tree.path().join("dev"));
        for device in ["sda", "dm-0"] {
            let volume = class.join(device).join("holders/dm-1/dm");
            fs::create_dir_all(&volume).unwrap();
            fs::write(volume.join("uuid"), "LVM-abc\n").unwrap();
        }
        fs::create_dir_all(&dev).unwrap();
        let mut pv = vec![0; 4096];
        for (at, part) in [(512, &b"LABELONE"[..]), (532, &[32]), (536, b"LVM2 001"), (544, &[b'a'; 32])] {
            pv[at..at + part.len()].copy_from_slice(part);
        }
        let mut xfs = vec![0; 4096];
        xfs[..4].copy_from_slice(b"XFSB");
        xfs[108..113].copy_from_slice(b"crash");
        fs::write(dev.join("sda"), &pv).unwrap();
        fs::write(dev.join("dm-0"), &xfs).unwrap();
        let mut finder = Finder::new(&class, &dev);
        let uuid = "UUID=aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa".parse().unwrap();
        assert_eq!(finder.find(&uuid), Some(dev.join("sda")));
        assert_eq!(finder.find(&"LABEL=crash".parse().unwrap()), None);
    }

    #[test]
    fn a_disk_that_does_not_answer_holds_up_one_look_only() {
        let tree = tempfile::tempdir().unwrap();
        let (class, dev) = (tree.path().join("class"), tree.path().join("dev"));
        fs::create_dir_all(class.join("sda")).unwrap();
        fs::create_dir_all(&dev).unwrap();
        // Opening a pipe that nobody writes to blocks.
        nix::unistd::mkfifo(&dev.join("sda"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut finder = Finder::new(&class, &dev);
        let start = Instant::now();
        for _ in 0..20 {
            assert_eq!(finder.find(&"UUID=1".parse().unwrap()), None);
        }
        // Each look that waited would take all its patience.
        assert!(start.elapsed() < PATIENCE * 10);
        assert_eq!(finder.inventory(), ["sda (does not answer)"]);
    }
}
