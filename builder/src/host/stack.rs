//! What a block device is put together from, down to the disks.
//!
//! In: a device's name in sysfs. Out: the layers that an image has to put together again, lowest first; and the disks.
//! May surprise: device-mapper tells what made a device only by a prefix of its UUID (`LVM-`, `CRYPT-`, `mpath-`). The
//! volumes that LVM keeps inside others, such as the halves of a mirror, are devices of their own, and no layers.

use super::{Tree, crypttab, remote, sysfs};
use anyhow::{Context, bail};
use kdump_hooks::DeviceSpec;
use kdump_hooks::storage::{Crypt, Key, Layer, Lvm, Mdraid, Multipath, Part, Segment};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The layers below and including a device, lowest first.
///
/// # Errors
/// One is of a kind that cannot be put together in the image, or a secret or a fact is missing.
pub fn layers(tree: &Tree, name: &str) -> anyhow::Result<Vec<Layer>> {
    let mut walk = Walk { tree, seen: BTreeSet::new(), layers: Vec::new() };
    walk.descend(name, None)?;
    Ok(walk.layers)
}

/// The disks that a device is on; itself, if it is one.
pub fn disks(tree: &Tree, name: &str) -> BTreeSet<String> {
    let (mut disks, mut seen, mut todo) = (BTreeSet::new(), BTreeSet::new(), vec![name.to_owned()]);
    while let Some(name) = todo.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let below = below(tree, &name);
        if below.is_empty() {
            disks.insert(name);
        }
        todo.extend(below);
    }
    disks
}

/// What a device is made of: its slaves, or the disk that it is a partition of.
pub fn below(tree: &Tree, name: &str) -> Vec<String> {
    if fact(tree, name, "partition").is_some() {
        return disk_of(tree, name).into_iter().collect();
    }
    let Ok(place) = place(tree, name) else { return Vec::new() };
    let mut slaves = sysfs::names_in(&tree.path(place.join("slaves")));
    slaves.sort();
    slaves
}

fn disk_of(tree: &Tree, partition: &str) -> Option<String> {
    Some(place(tree, partition).ok()?.parent()?.file_name()?.to_str()?.to_owned())
}

fn place(tree: &Tree, name: &str) -> anyhow::Result<PathBuf> {
    tree.canonical(&Path::new("/sys/class/block").join(name))
}

/// A file of the device's directory in sysfs. `None` if it is missing or empty.
fn fact(tree: &Tree, name: &str, file: &str) -> Option<String> {
    let path = place(tree, name).ok()?.join(file);
    tree.line(path.to_str()?).filter(|text| !text.is_empty())
}

/// The node of a device; of a partition, that of the whole, since both come together.
fn node(tree: &Tree, name: &str) -> String {
    let dm = fact(tree, name, "dm/uuid").unwrap_or_default();
    let is_part = fact(tree, name, "partition").is_some() || (dm.starts_with("part") && dm.contains("-mpath-"));
    if let Some(whole) = below(tree, name).first().filter(|_| is_part) {
        return node(tree, whole);
    }
    match fact(tree, name, "dm/name") {
        Some(name) => format!("/dev/mapper/{name}"),
        None => format!("/dev/{name}"),
    }
}

/// The UUID that is written on a device.
fn uuid(tree: &Tree, name: &str) -> anyhow::Result<DeviceSpec> {
    let uuid = sysfs::finder(tree).facts_of(name).uuid;
    uuid.map(DeviceSpec::Uuid).with_context(|| format!("cannot read the UUID on {name}"))
}

/// A walk down.
struct Walk<'a> {
    tree: &'a Tree,
    seen: BTreeSet<String>,
    layers: Vec<Layer>,
}

impl Walk<'_> {
    /// Adds the layers of a device after those below it. `group` is the volume group of the volume above it.
    fn descend(&mut self, name: &str, group: Option<&str>) -> anyhow::Result<()> {
        if !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let dm = fact(self.tree, name, "dm/uuid");
        let own_group = dm.as_deref().and_then(volume_group);
        let below = below(self.tree, name);
        for device in &below {
            self.descend(device, own_group)?;
        }
        if own_group.is_some() && own_group == group {
            return Ok(());
        }
        let dm_name = fact(self.tree, name, "dm/name").unwrap_or_default();
        let layer = match dm.as_deref() {
            Some(_) if own_group.is_some() => self.volume(name, &dm_name, own_group)?,
            Some(uuid) if uuid.starts_with("CRYPT-LUKS") => self.luks(uuid, &dm_name, self.nodes(&below))?,
            Some(uuid) if uuid.starts_with("mpath-") => self.multipath(name, &dm_name, uuid, &below)?,
            Some(uuid) if uuid.starts_with("part") && uuid.contains("-mpath-") => {
                return self.part(name, uuid, &dm_name, &below);
            }
            None if fact(self.tree, name, "md/level").is_some() => self.array(name, &below)?,
            None if fact(self.tree, name, "partition").is_some() || below.is_empty() => {
                let place = place(self.tree, name).unwrap_or_default();
                let remote = remote::layers(self.tree, name, &place)?;
                // DRBD, loop, zram, brd, ZFS' volumes: nothing below them says what they are made of.
                if place.starts_with("/sys/devices/virtual/block") && remote.is_empty() {
                    bail!(
                        "{name} is no disk, and this version cannot put it together in the image; write a target that is on \
                         LVM, md RAID, LUKS, multipath or a plain disk, be it by iSCSI or NVMe over TCP"
                    );
                }
                self.layers
                    .extend(remote.into_iter().filter(|layer| !is_known(&self.layers, layer)).collect::<Vec<_>>());
                return Ok(());
            }
            kind => bail!(
                "{name} is put together from {} by something that this version cannot do in the image ({}); write a \
                 target that is on LVM, md RAID, LUKS, multipath or a plain disk, be it by iSCSI or NVMe over TCP",
                below.join(", "),
                kind.unwrap_or("neither device-mapper nor md")
            ),
        };
        self.layers.push(layer);
        Ok(())
    }

    fn volume(&self, name: &str, dm_name: &str, group: Option<&str>) -> anyhow::Result<Layer> {
        let (group_name, volume) =
            names_of_volume(dm_name).with_context(|| format!("{dm_name} is not the name of a logical volume"))?;
        let (mut physical, mut segments) = (BTreeSet::new(), BTreeSet::new());
        let (mut todo, mut seen) = (vec![name.to_owned()], BTreeSet::new());
        while let Some(device) = todo.pop() {
            if !seen.insert(device.clone()) {
                continue;
            }
            let uuid = fact(self.tree, &device, "dm/uuid");
            if uuid.as_deref().and_then(volume_group) == group {
                let inside = fact(self.tree, &device, "dm/name").unwrap_or_default();
                segments.extend(segments_of(&inside, uuid.as_deref().unwrap_or_default()));
                todo.extend(below(self.tree, &device));
            } else {
                physical.insert(device);
            }
        }
        let on = self.nodes(&physical);
        let physical = physical.iter().map(|device| uuid(self.tree, device)).collect::<anyhow::Result<_>>()?;
        Ok(Layer::Lvm(Lvm { group: group_name, volume, physical, segments: segments.into_iter().collect(), on }))
    }

    /// The names by which layers know the devices that they stand on.
    fn nodes<'d>(&self, devices: impl IntoIterator<Item = &'d String>) -> Vec<String> {
        devices.into_iter().map(|device| node(self.tree, device)).collect()
    }

    fn luks(&self, dm_uuid: &str, name: &str, on: Vec<String>) -> anyhow::Result<Layer> {
        let hex = dm_uuid.split('-').nth(2).unwrap_or_default();
        let part = |range| hex.get::<std::ops::Range<usize>>(range).unwrap_or_default();
        let uuid = [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-");
        let key = key(self.tree, name, &uuid)?;
        Ok(Layer::Crypt(Crypt { name: name.to_owned(), device: DeviceSpec::Uuid(uuid), key, on }))
    }

    fn array(&self, name: &str, members: &[String]) -> anyhow::Result<Layer> {
        let metadata = fact(self.tree, name, "md/metadata_version").unwrap_or_default();
        let Some(member) = members.first().filter(|_| !metadata.starts_with("external:")) else {
            bail!(
                "{name} is a RAID with {metadata} metadata, which this version cannot start in the image (firmware \
                 RAID); write a target elsewhere"
            );
        };
        Ok(Layer::Mdraid(Mdraid {
            name: name.to_owned(),
            members: uuid(self.tree, member)?,
            count: members.len() as u64,
            level: fact(self.tree, name, "md/level").unwrap_or_default(),
            on: self.nodes(members),
        }))
    }

    fn multipath(&self, name: &str, dm_name: &str, dm_uuid: &str, paths: &[String]) -> anyhow::Result<Layer> {
        let wwid = paths.iter().find_map(|path| sysfs::finder(self.tree).facts_of(path).wwid);
        let wwid = wwid.with_context(|| format!("sysfs does not tell which disk {dm_name} is"))?;
        let sectors = self.sectors(name)?;
        let (name, uuid) = (dm_name.to_owned(), dm_uuid.to_owned());
        Ok(Layer::Multipath(Multipath { name, uuid, wwid, paths: paths.len() as u64, sectors, parts: Vec::new() }))
    }

    /// Adds a partition to the multipath device that it is on, which has just been walked over.
    fn part(&mut self, name: &str, dm_uuid: &str, dm_name: &str, below: &[String]) -> anyhow::Result<()> {
        let number = dm_uuid.trim_start_matches("part").split('-').next().unwrap_or_default();
        let whole = below.first().and_then(|map| fact(self.tree, map, "dm/name"));
        let path = disks(self.tree, name).into_iter().next().unwrap_or_default();
        let path = place(self.tree, &path)?;
        let start = sysfs::names_in(&self.tree.path(&path)).into_iter().find_map(|part| {
            let line = |file: &str| self.tree.line(path.join(&part).join(file).to_str()?);
            (line("partition").as_deref() == Some(number)).then(|| line("start"))?
        });
        let start = start.and_then(|start| start.parse().ok());
        let start = start.with_context(|| format!("sysfs does not tell where partition {dm_name} begins"))?;
        let part = Part { name: dm_name.to_owned(), start, sectors: self.sectors(name)? };
        for layer in &mut self.layers {
            if let Layer::Multipath(map) = layer
                && Some(&map.name) == whole.as_ref()
            {
                map.parts.push(part);
                return Ok(());
            }
        }
        bail!("{dm_name} is a partition of no multipath device that is known")
    }

    fn sectors(&self, name: &str) -> anyhow::Result<u64> {
        let size = fact(self.tree, name, "size").and_then(|size| size.parse().ok());
        size.with_context(|| format!("cannot read the size of {name}"))
    }
}

/// Whether a layer is there already; a second session takes the same way.
fn is_known(layers: &[Layer], layer: &Layer) -> bool {
    layers.iter().any(|known| match (known, layer) {
        (Layer::Iscsi(known), Layer::Iscsi(layer)) => known.is_same_way(layer),
        (known, layer) => known == layer,
    })
}

/// The volume group's UUID in that of a device of LVM.
fn volume_group(uuid: &str) -> Option<&str> {
    uuid.strip_prefix("LVM-")?.get(..32)
}

/// `my--group-volume`: each dash of a name is doubled, a single one stands between the names.
fn names_of_volume(name: &str) -> Option<(String, String)> {
    let mut dashes = name.match_indices('-').map(|(at, _)| at).peekable();
    while let Some(at) = dashes.next() {
        if dashes.peek() == Some(&(at + 1)) {
            dashes.next();
            continue;
        }
        let plain = |part: &str| part.replace("--", "-");
        return Some((plain(name.get(..at)?), plain(name.get(at + 1..)?)));
    }
    None
}

/// What the name and the UUID of a device inside a volume say of how the volume is made.
fn segments_of(name: &str, uuid: &str) -> Vec<Segment> {
    const MARKS: [(&str, Segment); 11] = [
        ("_tmeta", Segment::Thin),
        ("_tdata", Segment::Thin),
        ("_rimage_", Segment::Raid),
        ("_rmeta_", Segment::Raid),
        ("_mimage_", Segment::Mirror),
        ("_mlog", Segment::Mirror),
        ("_cdata", Segment::Cache),
        ("_cmeta", Segment::Cache),
        ("_cvol", Segment::Cache),
        ("_corig", Segment::Cache),
        ("_wcorig", Segment::Writecache),
    ];
    let mut found: Vec<Segment> =
        MARKS.iter().filter(|(mark, _)| name.contains(mark)).map(|(_, segment)| *segment).collect();
    match uuid.rsplit('-').next() {
        Some("tpool" | "pool") => found.push(Segment::Thin),
        Some("cow" | "real") => found.push(Segment::Snapshot),
        _ => {}
    }
    if name.ends_with("_wcorig") {
        found.retain(|segment| *segment != Segment::Cache);
    }
    found
}

/// Where the key of a LUKS volume comes from.
fn key(tree: &Tree, name: &str, uuid: &str) -> anyhow::Result<Key> {
    let text = tree.read(Path::new("/etc/crypttab")).unwrap_or_default();
    let usual = PathBuf::from(format!("/etc/cryptsetup-keys.d/{name}.key"));
    let named = crypttab::key_file(&String::from_utf8_lossy(&text), name, uuid).context("/etc/crypttab")?;
    if let Some(key) = named {
        return Ok(key);
    }
    if tree.resolve(&usual).is_ok() {
        return Ok(Key::File { path: usual, offset: 0, size: None });
    }
    if tree.path("/sys/kernel/config/crash_dm_crypt_keys").is_dir() {
        return Ok(Key::Kernel(format!("kdump-cryptsetup:vk-{uuid}")));
    }
    bail!(
        "{name} is encrypted (LUKS {uuid}), nobody can type its passphrase in the capture kernel, and this kernel does \
         not hand keys over (CONFIG_CRASH_DM_CRYPT); add a key file with `cryptsetup luksAddKey` and name it in \
         /etc/crypttab"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    struct Machine {
        _dir: tempfile::TempDir,
        tree: Tree,
    }

    const LUKS: &str = "aa010203-0405-0607-0809-0a0b0c0d0e0f";

    impl Machine {
        fn new() -> Machine {
            let dir = tempfile::tempdir().unwrap();
            let tree = Tree::new(dir.path());
            for path in ["sys/class/block", "dev", "etc"] {
                fs::create_dir_all(tree.path(path)).unwrap();
            }
            Machine { _dir: dir, tree }
        }

        /// A device made of others, or a disk if there are none, with these files in sysfs.
        fn device(&self, name: &str, slaves: &[&str], files: &[(&str, &str)]) -> &Machine {
            let above = if slaves.is_empty() { "pci0000:00/0000:00:04.0/virtio1" } else { "virtual" };
            self.device_at(&format!("/sys/devices/{above}/block/{name}"), slaves, files)
        }

        fn device_at(&self, place: &str, slaves: &[&str], files: &[(&str, &str)]) -> &Machine {
            let name = place.rsplit('/').next().unwrap();
            for slave in slaves {
                fs::create_dir_all(self.tree.path(place).join("slaves").join(slave)).unwrap();
            }
            for (file, text) in files {
                let path = self.tree.path(place).join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            fs::create_dir_all(self.tree.path(place)).unwrap();
            // Relative, as the kernel's are: what reads without knowing of the tree must not leave it.
            let link = place.replacen("/sys", "../..", 1);
            symlink(link, self.tree.path("sys/class/block").join(name)).unwrap();
            self
        }

        /// What is on a device.
        fn content(&self, name: &str, parts: &[(usize, &[u8])]) -> &Machine {
            let mut bytes = vec![0; 8192];
            for (at, part) in parts {
                bytes[*at..at + part.len()].copy_from_slice(part);
            }
            fs::write(self.tree.path("dev").join(name), bytes).unwrap();
            self
        }

        fn layers(&self, name: &str) -> anyhow::Result<Vec<Layer>> {
            layers(&self.tree, name)
        }
    }

    #[test]
    fn what_is_no_disk_and_made_of_nothing_known_is_refused() {
        let machine = Machine::new();
        for name in ["drbd0", "loop3", "zram0", "zd16"] {
            machine.device_at(&format!("/sys/devices/virtual/block/{name}"), &[], &[]);
            let error = machine.layers(name).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name} is no disk")), "{error}");
        }
        machine.device_at("/sys/devices/virtual/block/loop4/loop4p1", &[], &[("partition", "1\n")]);
        assert!(machine.layers("loop4p1").is_err());
        machine.device("vda", &[], &[]);
        assert_eq!(machine.layers("vda").unwrap(), []);
    }

    const PV: &[(usize, &[u8])] =
        &[(512, b"LABELONE"), (532, &[32]), (536, b"LVM2 001"), (544, b"AbCdEf0123456789abcdefGHIJKLMNOP")];
    const GROUP: &str = "LVM-0123456789abcdef0123456789abcdef";

    fn lvm(suffix: &str) -> String {
        format!("{GROUP}ABCDEFGHIJKLMNOPQRSTUVWXYZ012345{suffix}")
    }

    #[test]
    fn lvm_on_luks_on_a_mirror_is_three_layers_from_the_bottom_up() {
        let machine = Machine::new();
        machine.device_at("/sys/devices/pci0/virtio1/block/vdb", &[], &[]);
        machine.device_at("/sys/devices/pci0/virtio2/block/vdc", &[], &[]);
        let md = [("md/level", "raid1\n"), ("md/metadata_version", "1.2\n")];
        machine.device("md127", &["vdb", "vdc"], &md);
        let crypt = format!("CRYPT-LUKS2-{}-secret\n", LUKS.replace('-', ""));
        machine.device("dm-0", &["md127"], &[("dm/uuid", &crypt), ("dm/name", "secret\n")]);
        machine.device("dm-1", &["dm-0"], &[("dm/uuid", &lvm("")), ("dm/name", "my--vg-crash\n")]);
        machine.content("vdb", &[(4096, &[0xfc, 0x4e, 0x2b, 0xa9, 1]), (4112, &[0xaa])]).content("dm-0", PV);
        fs::write(machine.tree.path("etc/crypttab"), format!("x UUID={LUKS} /root/key keyfile-size=64\n")).unwrap();
        assert_eq!(
            machine.layers("dm-1").unwrap(),
            [
                Layer::Mdraid(Mdraid {
                    name: "md127".into(),
                    members: DeviceSpec::Uuid("aa000000-0000-0000-0000-000000000000".into()),
                    count: 2,
                    level: "raid1".into(),
                    on: vec!["/dev/vdb".into(), "/dev/vdc".into()],
                }),
                Layer::Crypt(Crypt {
                    name: "secret".into(),
                    device: DeviceSpec::Uuid(LUKS.into()),
                    key: Key::File { path: "/root/key".into(), offset: 0, size: Some(64) },
                    on: vec!["/dev/md127".into()],
                }),
                Layer::Lvm(Lvm {
                    group: "my-vg".into(),
                    volume: "crash".into(),
                    physical: vec![DeviceSpec::Uuid("AbCdEf-0123-4567-89ab-cdef-GHIJ-KLMNOP".into())],
                    segments: vec![],
                    on: vec!["/dev/mapper/secret".into()],
                })
            ]
        );
        let layers = machine.layers("dm-1").unwrap();
        for (lower, upper) in layers.iter().zip(&layers[1..]) {
            assert_eq!(upper.hook().stands_on(), [lower.hook().makes().unwrap()]);
        }
        assert_eq!(layers[2].hook().makes().unwrap(), "/dev/mapper/my--vg-crash");
        assert_eq!(disks(&machine.tree, "dm-1"), BTreeSet::from(["vdb".to_owned(), "vdc".to_owned()]));
    }

    #[test]
    fn the_volumes_inside_a_thin_volume_are_no_layers_but_tell_its_drivers() {
        let machine = Machine::new();
        machine.device_at("/sys/devices/pci0/virtio1/block/vdb", &[], &[]).content("vdb", PV);
        for (name, slaves, suffix, dm_name) in [
            ("dm-0", &["vdb"] as &[_], "-tdata", "vg-pool_tdata"),
            ("dm-1", &["vdb"], "-tmeta", "vg-pool_tmeta"),
            ("dm-2", &["dm-0", "dm-1"], "-tpool", "vg-pool-tpool"),
            ("dm-3", &["dm-2"], "", "vg-crash"),
        ] {
            machine.device(name, slaves, &[("dm/uuid", &lvm(suffix)), ("dm/name", dm_name)]);
        }
        let [Layer::Lvm(volume)] = &machine.layers("dm-3").unwrap()[..] else { panic!("not one volume") };
        assert_eq!((volume.segments.as_slice(), volume.physical.len()), (&[Segment::Thin] as &[_], 1));
    }

    #[test]
    fn a_partition_of_a_multipath_device_is_told_with_it() {
        let machine = Machine::new();
        for disk in ["sda", "sdb"] {
            let place = format!("/sys/devices/pci0/{disk}/block/{disk}");
            machine.device_at(&place, &[], &[("device/wwid", "naa.5000\n")]);
            machine.device_at(&format!("{place}/{disk}1"), &[], &[("partition", "1\n"), ("start", "2048\n")]);
        }
        let map = [("dm/uuid", "mpath-35000"), ("dm/name", "mpatha"), ("size", "4096\n")];
        machine.device("dm-0", &["sda", "sdb"], &map);
        let part = [("dm/uuid", "part1-mpath-35000"), ("dm/name", "mpatha-part1"), ("size", "2048\n")];
        machine.device("dm-1", &["dm-0"], &part);
        let expected = Multipath {
            name: "mpatha".into(),
            uuid: "mpath-35000".into(),
            wwid: "naa.5000".into(),
            paths: 2,
            sectors: 4096,
            parts: vec![Part { name: "mpatha-part1".into(), start: 2048, sectors: 2048 }],
        };
        assert_eq!(machine.layers("dm-1").unwrap(), [Layer::Multipath(expected)]);
    }

    #[test]
    fn what_cannot_be_put_together_is_refused_by_name_with_a_remedy() {
        let machine = Machine::new();
        machine.device_at("/sys/devices/pci0/virtio1/block/vdb", &[], &[]);
        let crypt = format!("CRYPT-LUKS1-{}-secret", LUKS.replace('-', ""));
        machine.device("dm-0", &["vdb"], &[("dm/uuid", &crypt), ("dm/name", "secret")]);
        machine.device("dm-1", &["vdb"], &[("dm/uuid", "CRYPT-VERITY-x"), ("dm/name", "sealed")]);
        machine.device("md0", &["vdb"], &[("md/level", "raid1"), ("md/metadata_version", "external:/md127/0")]);
        machine.device("bcache0", &["vdb"], &[]);
        for (name, words) in [
            ("dm-0", "add a key file with `cryptsetup luksAddKey`"),
            (
                "dm-1",
                "dm-1 is put together from vdb by something that this version cannot do in the image (CRYPT-VERITY-x)",
            ),
            ("md0", "firmware RAID"),
            ("bcache0", "neither device-mapper nor md"),
        ] {
            let error = format!("{:#}", machine.layers(name).unwrap_err());
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(machine.layers("vdb").unwrap(), []);
    }

    #[test]
    fn without_a_key_file_the_kernel_hands_the_key_over_where_it_can() {
        let machine = Machine::new();
        fs::create_dir_all(machine.tree.path("sys/kernel/config/crash_dm_crypt_keys")).unwrap();
        assert_eq!(key(&machine.tree, "secret", LUKS).unwrap(), Key::Kernel(format!("kdump-cryptsetup:vk-{LUKS}")));
        fs::create_dir_all(machine.tree.path("etc/cryptsetup-keys.d")).unwrap();
        fs::write(machine.tree.path("etc/cryptsetup-keys.d/secret.key"), "k").unwrap();
        let usual = Key::File { path: "/etc/cryptsetup-keys.d/secret.key".into(), offset: 0, size: None };
        assert_eq!(key(&machine.tree, "secret", LUKS).unwrap(), usual);
    }

    #[test]
    fn dashes_in_names_of_volumes_are_doubled() {
        let names = |name| names_of_volume(name).map(|(group, volume)| format!("{group}/{volume}"));
        assert_eq!(names("vg-lv").as_deref(), Some("vg/lv"));
        assert_eq!(names("my--vg-a--b--c").as_deref(), Some("my-vg/a-b-c"));
        assert_eq!(names("odd"), None);
    }

    proptest::proptest! {
        #[test]
        fn names_of_volumes_are_read_back(group in "[a-z][a-z-]{0,8}[a-z]", volume in "[a-z][a-z-]{0,8}[a-z]") {
            let name = format!("{}-{}", group.replace('-', "--"), volume.replace('-', "--"));
            proptest::prop_assert_eq!(names_of_volume(&name), Some((group, volume)));
        }
    }
}
