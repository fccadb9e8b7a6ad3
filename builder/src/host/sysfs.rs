//! Where a block device hangs: from its name to the modaliases and drivers up to the root of its bus.
//!
//! In: `/dev/disk/by-*` links and `/sys/class/block`; where no udev has made links, what is written on the devices. Out:
//! requests that `kmod` can resolve. What may surprise: a partition has no driver, its disk has; an NVMe namespace hangs
//! on a virtual subsystem, which has links to the controllers that lead to it. What supplies a device counts as if it were
//! on the way: a board's card reader does not work before the driver of its regulator is there.

use super::Tree;
use anyhow::Context;
use kdump_hooks::DeviceSpec;
use kdump_hooks::device::Facts;
use kdump_init::devices::Finder;
use nix::sys::stat::{major, minor};
use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The kernel's names of the block devices that `device` names, such as `vda1` or `dm-0`: several for a file system that
/// is on several. None if it is not here.
pub fn block_names(tree: &Tree, device: &DeviceSpec) -> Vec<String> {
    if let DeviceSpec::Path(path) = device {
        // A node that this tree lacks may still be known to its sysfs under the name given.
        let path = tree.canonical(path).unwrap_or_else(|_| path.clone());
        return name_of(tree, &path).into_iter().collect();
    }
    let dev = tree.path("/dev");
    let written = finder(tree).find_all(device).0;
    let written: Vec<String> =
        written.iter().filter_map(|node| Some(node.strip_prefix(&dev).ok()?.to_str()?.replace('/', "!"))).collect();
    if !written.is_empty() {
        return written;
    }
    linked(tree, device).and_then(|path| name_of(tree, &path)).into_iter().collect()
}

/// The name of a node in sysfs, if it is there. Without udev a node may have any name; its number tells then.
fn name_of(tree: &Tree, node: &Path) -> Option<String> {
    let name = |node: &Path| Some(node.strip_prefix("/dev").ok()?.to_str()?.replace('/', "!"));
    let known = |name: &String| tree.canonical(&Path::new("/sys/class/block").join(name)).is_ok();
    let by_number = || {
        let meta = fs::metadata(tree.path(node)).ok().filter(|meta| meta.file_type().is_block_device())?;
        name(&node_of_number(tree, &format!("{}:{}", major(meta.rdev()), minor(meta.rdev()))).ok()?)
    };
    name(node).filter(known).or_else(|| by_number().filter(known))
}

/// The node that one of udev's links leads to.
fn linked(tree: &Tree, device: &DeviceSpec) -> Option<PathBuf> {
    let dir = device.links()?;
    let names = names_in(&tree.path(dir));
    let is_it = |name: &&String| match (format!("{dir}/{name}").parse(), device) {
        (Ok(DeviceSpec::Uuid(have)), DeviceSpec::Uuid(wanted))
        | (Ok(DeviceSpec::PartUuid(have)), DeviceSpec::PartUuid(wanted)) => have.eq_ignore_ascii_case(wanted),
        (have, wanted) => have.as_ref() == Ok(wanted),
    };
    tree.canonical(&Path::new(dir).join(names.iter().find(is_it)?)).ok()
}

/// Reads what is written on the devices of a machine.
pub fn finder(tree: &Tree) -> Finder {
    Finder::new(&tree.path("/sys/class/block"), &tree.path("/dev"))
}

/// A name of the device that is written on it, and so is the same in the capture kernel.
pub fn lasting_name(tree: &Tree, device: &Path) -> Option<DeviceSpec> {
    let node = tree.canonical(device).ok()?;
    let facts = name_of(tree, &node).map(|name| finder(tree).facts_of(&name)).unwrap_or_default();
    let link = |dir: &str| {
        let mut names = names_in(&tree.path(dir));
        names.sort();
        names.into_iter().find(|name| tree.canonical(&Path::new(dir).join(name)).is_ok_and(|found| found == node))
    };
    let uuid = facts.uuid.or_else(|| link("/dev/disk/by-uuid"));
    let partuuid = || facts.partuuid.or_else(|| link("/dev/disk/by-partuuid"));
    uuid.map(DeviceSpec::Uuid).or_else(|| partuuid().map(DeviceSpec::PartUuid))
}

/// A name of the device that is the same in the capture kernel and does not come from what is on it.
pub fn lasting_name_of_place(tree: &Tree, device: &Path) -> Option<DeviceSpec> {
    let node = tree.canonical(device).ok()?;
    let name = name_of(tree, &node)?;
    if name.starts_with("md") {
        // The image puts it together under the name by which it is known here.
        return Some(DeviceSpec::from(device));
    }
    let place = tree.canonical(&Path::new("/sys/class/block").join(&name)).ok()?;
    if let Some(map) = tree.line(&place.join("dm/name").to_string_lossy()) {
        return Some(DeviceSpec::Path(Path::new("/dev/mapper").join(map)));
    }
    let facts = finder(tree).facts_of(&name);
    let link = || {
        let mut links = names_in(&tree.path("/dev/disk/by-partuuid")).into_iter();
        links.find(|link| {
            tree.canonical(&Path::new("/dev/disk/by-partuuid").join(link)).is_ok_and(|found| found == node)
        })
    };
    let partuuid = facts.partuuid.or_else(link).map(DeviceSpec::PartUuid);
    partuuid.or(facts.wwid.map(DeviceSpec::Wwid))
}

/// What can be read of the device with that node, which is no link.
pub fn facts_of_node(tree: &Tree, node: &Path) -> Option<Facts> {
    name_of(tree, node).map(|name| finder(tree).facts_of(&name))
}

/// The requests for all drivers between a disk and the root of its bus, disk first. `None` if it is not here, or says
/// nothing of what it needs, as a loop device does.
pub fn chain(tree: &Tree, name: &str) -> Option<Vec<String>> {
    drivers(tree, tree.canonical(&Path::new("/sys/class/block").join(name)).ok()?)
}

/// The requests for all drivers between a network card and the root of its bus, card first, that of its transceiver
/// (PHY) last. `None` if it is not here.
pub fn card_chain(tree: &Tree, name: &str) -> Option<Vec<String>> {
    let class = Path::new("/sys/class/net").join(name);
    let mut requests = drivers(tree, tree.canonical(&class.join("device")).ok()?)?;
    let phy = tree.canonical(&class.join("phydev")).ok().and_then(|phy| drivers(tree, phy)).unwrap_or_default();
    requests.extend(phy.into_iter().filter(|request| !requests.contains(request)).collect::<Vec<_>>());
    Some(requests)
}

/// The requests for all drivers between a device and the root of its bus, device first; then those of what supplies any
/// of these with clocks, power or an IOMMU, and so on.
fn drivers(tree: &Tree, device: PathBuf) -> Option<Vec<String>> {
    let mut requests: Vec<String> = Vec::new();
    let mut seen = BTreeSet::new();
    let mut todo = VecDeque::from([device]);
    while let Some(device) = todo.pop_front() {
        for place in device.ancestors().take_while(|place| place.starts_with("/sys/devices")) {
            if !seen.insert(place.to_owned()) {
                break;
            }
            todo.extend(nvme_controllers(tree, place));
            todo.extend(suppliers(tree, place));
            // A controller of another machine hangs on no bus; the kernel's name for the way to it is its driver's.
            let transport = tree.path(place.join("transport"));
            let over_tcp = fs::read_to_string(transport).is_ok_and(|transport| transport.trim() == "tcp");
            let alias = fs::read_to_string(tree.path(place.join("modalias"))).unwrap_or_default();
            let driver = tree.canonical(&place.join("driver/module")).ok();
            let module =
                driver.as_deref().and_then(Path::file_name).and_then(|module| module.to_str()).unwrap_or_default();
            for request in [alias.trim(), module, if over_tcp { "nvme_tcp" } else { "" }] {
                if !request.is_empty() && !requests.iter().any(|other| other == request) {
                    requests.push(request.to_owned());
                }
            }
        }
    }
    (!requests.is_empty()).then_some(requests)
}

/// The devices without which the one at `place` does not work.
fn suppliers(tree: &Tree, place: &Path) -> Vec<PathBuf> {
    let mut names = names_in(&tree.path(place));
    names.retain(|name| name.starts_with("supplier:"));
    names.sort();
    names.iter().filter_map(|name| tree.canonical(&place.join(name).join("supplier")).ok()).collect()
}

/// The controllers of an NVMe subsystem, if `place` is one.
pub(super) fn nvme_controllers(tree: &Tree, place: &Path) -> Vec<PathBuf> {
    if !place.parent().is_some_and(|parent| parent.ends_with("virtual/nvme-subsystem")) {
        return Vec::new();
    }
    let mut names = names_in(&tree.path(place));
    names.sort();
    let controllers = names.iter().map(|name| place.join(name)).filter(|link| tree.path(link).is_symlink());
    controllers.filter_map(|link| tree.canonical(&link).ok()).filter(|real| !real.starts_with(place)).collect()
}

/// The node of the block device with that number, such as `/dev/vda1` for `254:1`.
///
/// # Errors
/// sysfs does not know the number.
pub fn node_of_number(tree: &Tree, number: &str) -> anyhow::Result<PathBuf> {
    let uevent = tree.path("sys/dev/block").join(number).join("uevent");
    let text = fs::read_to_string(&uevent).with_context(|| format!("cannot read {}", uevent.display()))?;
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    name.map(|name| Path::new("/dev").join(name)).with_context(|| format!("{} names no device", uevent.display()))
}

/// The names in a directory; none, if it cannot be read.
pub(super) fn names_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A virtio disk with one partition, found by UUID and label.
    fn machine() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path());
        let disk = "/sys/devices/pci0000:00/0000:00:05.0/virtio1/block/vda";
        for path in [
            &format!("{disk}/vda1/slaves"),
            "/sys/class/block",
            "/sys/bus/drivers/virtio_blk",
            "/sys/module/virtio_blk",
            "/dev/disk/by-uuid",
            "/dev/disk/by-label",
            "/sys/devices/virtual/block/dm-0/slaves/vda1",
            "/sys/dev/block/254:1",
        ] {
            fs::create_dir_all(tree.path(path)).unwrap();
        }
        let virtio = "/sys/devices/pci0000:00/0000:00:05.0/virtio1";
        fs::write(tree.path(virtio).join("modalias"), "virtio:d00000002v00001AF4\n").unwrap();
        fs::write(tree.path("/sys/devices/pci0000:00/0000:00:05.0/modalias"), "pci:v00001AF4d1001\n").unwrap();
        symlink("/sys/bus/drivers/virtio_blk", tree.path(virtio).join("driver")).unwrap();
        symlink("/sys/module/virtio_blk", tree.path("/sys/bus/drivers/virtio_blk/module")).unwrap();
        symlink(format!("{disk}/vda1"), tree.path("/sys/class/block/vda1")).unwrap();
        symlink("/sys/devices/virtual/block/dm-0", tree.path("/sys/class/block/dm-0")).unwrap();
        fs::write(tree.path("/dev/vda1"), "").unwrap();
        fs::write(tree.path("/sys/dev/block/254:1/uevent"), "MAJOR=254\nDEVNAME=vda1\n").unwrap();
        symlink("../../vda1", tree.path("/dev/disk/by-uuid/abcd-12")).unwrap();
        symlink("../../vda1", tree.path("/dev/disk/by-label/my\\x20dumps")).unwrap();
        (dir, tree)
    }

    #[test]
    fn every_name_of_a_device_leads_to_its_drivers() {
        let (_dir, tree) = machine();
        for spec in ["/dev/vda1", "UUID=ABCD-12", "LABEL=my dumps"] {
            let names = block_names(&tree, &spec.parse().unwrap());
            let chain = chain(&tree, &names[0]).unwrap();
            assert_eq!(chain, ["virtio:d00000002v00001AF4", "virtio_blk", "pci:v00001AF4d1001"], "{spec}");
        }
    }

    #[test]
    fn an_nvme_namespace_leads_to_the_controllers_of_its_subsystem() {
        let (_dir, tree) = machine();
        let subsystem = "/sys/devices/virtual/nvme-subsystem/nvme-subsys0";
        let controller = "/sys/devices/pci0000:00/0000:00:06.0";
        fs::create_dir_all(tree.path(subsystem).join("nvme0n1")).unwrap();
        fs::create_dir_all(tree.path(controller).join("nvme/nvme0")).unwrap();
        fs::write(tree.path(controller).join("modalias"), "pci:v8086bc01\n").unwrap();
        symlink(format!("{controller}/nvme/nvme0"), tree.path(subsystem).join("nvme0")).unwrap();
        symlink("/sys/class/nvme-subsystem", tree.path(subsystem).join("subsystem")).unwrap();
        symlink(format!("{subsystem}/nvme0n1"), tree.path("/sys/class/block/nvme0n1")).unwrap();
        assert_eq!(chain(&tree, "nvme0n1").unwrap(), ["pci:v8086bc01"]);
    }

    #[test]
    fn a_network_card_leads_to_its_drivers_and_to_that_of_its_transceiver() {
        let (_dir, tree) = machine();
        let virtio = "/sys/devices/pci0000:00/0000:00:05.0/virtio1";
        let phy = "/sys/devices/platform/mdio-0";
        for path in ["/sys/class/net/eno1", phy] {
            fs::create_dir_all(tree.path(path)).unwrap();
        }
        fs::write(tree.path(phy).join("modalias"), "mdio:0001\n").unwrap();
        symlink(virtio, tree.path("/sys/class/net/eno1/device")).unwrap();
        symlink(phy, tree.path("/sys/class/net/eno1/phydev")).unwrap();
        let chain = card_chain(&tree, "eno1").unwrap();
        assert_eq!(chain, ["virtio:d00000002v00001AF4", "virtio_blk", "pci:v00001AF4d1001", "mdio:0001"]);
        assert_eq!(card_chain(&tree, "eno2"), None);
    }

    #[test]
    fn a_device_without_drivers_tells_nothing() {
        let (_dir, tree) = machine();
        fs::create_dir_all(tree.path("/sys/devices/virtual/block/loop0")).unwrap();
        symlink("/sys/devices/virtual/block/loop0", tree.path("/sys/class/block/loop0")).unwrap();
        assert_eq!(chain(&tree, "loop0"), None);
    }

    #[test]
    fn a_device_that_is_not_here_is_not_an_error() {
        let (_dir, tree) = machine();
        for spec in ["/dev/vdz", "UUID=1", "LABEL=x"] {
            assert!(block_names(&tree, &spec.parse().unwrap()).is_empty(), "{spec}");
        }
    }

    #[test]
    fn without_udev_a_device_is_known_by_what_is_written_on_it() {
        let (_dir, tree) = machine();
        let mut xfs = vec![0; 4096];
        xfs[..4].copy_from_slice(b"XFSB");
        xfs[32] = 0xaa;
        fs::write(tree.path("/dev/vda1"), xfs).unwrap();
        let uuid: DeviceSpec = "UUID=aa000000-0000-0000-0000-000000000000".parse().unwrap();
        assert_eq!(block_names(&tree, &uuid), ["vda1"]);
        assert_eq!(lasting_name(&tree, Path::new("/dev/vda1")), Some(uuid));
    }

    #[test]
    fn numbers_and_nodes_lead_to_names() {
        let (_dir, tree) = machine();
        assert_eq!(node_of_number(&tree, "254:1").unwrap(), Path::new("/dev/vda1"));
        assert!(node_of_number(&tree, "1:1").is_err());
        let uuid = DeviceSpec::Uuid("abcd-12".into());
        assert_eq!(lasting_name(&tree, Path::new("/dev/disk/by-label/my\\x20dumps")), Some(uuid));
    }
}
