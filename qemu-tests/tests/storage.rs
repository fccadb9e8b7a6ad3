//! Real crashes to targets that are put together from several layers, in the guest, by the distribution's own tools.

use anyhow::{Result, ensure};
use qemu_tests::prelude::*;

/// LVM on LUKS on a mirror, one half of which the capture kernel cannot reach.
#[test]
fn a_dump_goes_through_lvm_luks_and_a_mirror_with_one_member_missing() -> Result<()> {
    let stack = Stack {
        modules: vec!["raid1", "dm_crypt", "xts", "algif_skcipher", "xfs", "virtio_scsi", "sd_mod"],
        disks: vec![
            Spare { mib: 640, bus: Bus::Virtio, name: "half" },
            Spare { mib: 640, bus: Bus::Scsi, name: "other-half" },
        ],
        files: vec![
            ("/root/key", "a key that only the image knows"),
            ("/etc/crypttab", "secret /dev/md0 /root/key luks\n"),
        ],
        prepare: vec![
            "mdadm --create /dev/md0 --run --level=1 --raid-devices=2 --metadata=1.2 --assume-clean /dev/vdb /dev/sda",
            "cryptsetup luksFormat --batch-mode --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
             --key-file /root/key /dev/md0",
            "cryptsetup open --key-file /root/key /dev/md0 secret",
            "lvm pvcreate /dev/mapper/secret",
            "lvm vgcreate my-vg /dev/mapper/secret",
            "lvm lvcreate --yes --wipesignatures n --extents 80%FREE --name crash my-vg",
            "mkfs.xfs -q /dev/my-vg/crash",
            "mount xfs /dev/my-vg/crash /mnt",
        ],
        fetch: vec![
            "mdadm --assemble --run /dev/md0 /dev/vdb",
            "cryptsetup open --key-file /root/key /dev/md0 secret",
            "lvm lvchange --activate y my-vg/crash",
            "mount xfs /dev/my-vg/crash /mnt",
        ],
        ..Stack::default()
    };
    let scenario = Scenario {
        target: "xfs /dev/my-vg/crash".into(),
        crashkernel_mib: 160,
        append: "module_blacklist=virtio_scsi".into(),
        stack: Some(stack),
        ..Scenario::of(kernel(Suite::Own)?, "lvm-luks-raid")
    };
    let outcome = crash(&scenario)?;
    judge::dump_alone(outcome.dump()?, &scenario.kernel.release, &outcome.marker)?;
    ensure!(outcome.console.contains("there is only 1, after"), "the other half was not missing:\n{}", outcome.console);
    Ok(())
}

/// Without a target directive: `path` is a bind mount of a directory in a subvolume of a btrfs on two disks, one of them
/// NVMe. Another subvolume is what is mounted when none is named.
#[test]
fn a_dump_goes_to_what_is_bound_from_a_subvolume_of_a_btrfs_on_two_disks() -> Result<()> {
    let stack = Stack {
        modules: vec!["btrfs", "nvme"],
        disks: vec![
            Spare { mib: 400, bus: Bus::Virtio, name: "first" },
            Spare { mib: 400, bus: Bus::Nvme, name: "second" },
        ],
        prepare: vec![
            "mkfs.btrfs -q -d raid0 /dev/vdb /dev/nvme0n1",
            "mount btrfs /dev/vdb /mnt device=/dev/nvme0n1",
            "btrfs subvolume create /mnt/dumps",
            "btrfs subvolume create /mnt/other",
            "btrfs subvolume set-default /mnt/other",
            "mount btrfs /dev/vdb /srv subvol=dumps,device=/dev/nvme0n1",
            "busybox mkdir -p /srv/deep/er",
            "busybox mount -o bind /srv/deep/er /var/crash",
        ],
        fetch: vec![
            "mount btrfs /dev/vdb /srv subvol=dumps,device=/dev/nvme0n1",
            "busybox mkdir -p /mnt/var/crash",
            "busybox mount -o bind /srv/deep/er /mnt/var/crash",
        ],
        ..Stack::default()
    };
    let scenario = Scenario {
        target: String::new(),
        stack: Some(stack),
        busybox: true,
        ..Scenario::of(kernel(Suite::Own)?, "btrfs-two-disks")
    };
    let outcome = crash(&scenario)?;
    judge::dump_alone(outcome.dump()?, &scenario.kernel.release, &outcome.marker)?;
    let log = std::fs::read_to_string(outcome.dump()?.join("kexec-dmesg.log"))?;
    ensure!(log.contains("nvme nvme0: pci function"), "the capture kernel saw no NVMe disk:\n{log}");
    Ok(())
}

/// The subvolume is named by the native configuration, or by fstab as RHEL has it; `path` is a directory in it. It has
/// the dump, and neither the subvolume that is mounted when none is named nor what is above all of them.
#[test]
#[ignore = "a matrix of its own: who names the subvolume"]
fn a_dump_goes_to_the_subvolume_that_kdump_toml_or_fstab_names() -> Result<()> {
    let native = "[[target]]\nkind = \"filesystem\"\ntype = \"btrfs\"\ndevice = \"LABEL=DUMPS\"\n\
                  options = [\"subvol=named/dumps\"]\n";
    for (name, native, fstab) in [
        ("subvolume-native", Some(native.to_owned()), "LABEL=DUMPS /elsewhere btrfs noauto,subvol=other 0 0\n"),
        ("subvolume-fstab", None, "LABEL=DUMPS /elsewhere btrfs noauto,subvol=/named/dumps 0 0\n"),
    ] {
        let stack = Stack {
            modules: vec!["btrfs"],
            disks: vec![Spare { mib: 400, bus: Bus::Virtio, name: "btrfs" }],
            files: vec![("/etc/fstab", fstab)],
            prepare: vec![
                "mkfs.btrfs -q -L DUMPS /dev/vdb",
                "mount btrfs /dev/vdb /mnt",
                "btrfs subvolume create /mnt/named",
                "btrfs subvolume create /mnt/named/dumps",
                "btrfs subvolume create /mnt/other",
                "btrfs subvolume set-default /mnt/other",
            ],
            fetch: vec!["mount btrfs /dev/vdb /mnt subvol=named/dumps"],
            ..Stack::default()
        };
        let scenario = Scenario {
            native,
            target: "btrfs LABEL=DUMPS".into(),
            stack: Some(stack),
            ..Scenario::of(kernel(Suite::Own)?, name)
        };
        let outcome = crash(&scenario)?;
        judge::dump_alone(outcome.dump()?, &scenario.kernel.release, &outcome.marker)?;
    }
    Ok(())
}

/// Without a target directive: `path` is a bind mount of another directory of the root file system.
#[test]
#[ignore = "a boot of its own: a bind mount of a btrfs is in every run"]
fn a_dump_goes_to_what_is_bound_from_elsewhere_on_the_root_file_system() -> Result<()> {
    let stack = Stack {
        prepare: vec!["busybox mkdir -p /srv/deep/crash", "busybox mount -o bind /srv/deep/crash /var/crash"],
        fetch: vec![
            "busybox mount -o bind /srv/deep /mnt",
            "busybox mkdir -p /mnt/var",
            "busybox mv /mnt/crash /mnt/var",
        ],
        ..Stack::default()
    };
    let scenario = Scenario {
        target: String::new(),
        stack: Some(stack),
        busybox: true,
        ..Scenario::of(kernel(Suite::Own)?, "bind-mount")
    };
    let outcome = crash(&scenario)?;
    judge::dump_alone(outcome.dump()?, &scenario.kernel.release, &outcome.marker)?;
    Ok(())
}

/// A thin volume on a partitioned disk with two paths. (5 minutes and more under emulation.)
#[test]
#[ignore = "a matrix of its own: thin volumes and multipath"]
fn a_dump_goes_to_a_thin_volume_behind_two_paths() -> Result<()> {
    let disk = Bus::Paths(0x5000_c500_0000_0001);
    let stack = Stack {
        modules: vec!["dm_multipath", "dm_service_time", "dm_thin_pool", "virtio_scsi", "sd_mod"],
        disks: vec![Spare { mib: 640, bus: disk, name: "shared" }, Spare { mib: 640, bus: disk, name: "shared" }],
        files: vec![("/table", "0 1310720 multipath 0 0 1 1 service-time 0 2 1 /dev/sda 1 /dev/sdb 1\n")],
        prepare: vec![
            "dmsetup create mpatha --uuid mpath-35000c50000000001 /table",
            "lvm pvcreate /dev/mapper/mpatha",
            "lvm vgcreate vg /dev/mapper/mpatha",
            "lvm lvcreate --config global{thin_check_executable=\"\"} --yes --type thin --virtualsize 500m --size 500m \
             --thinpool pool --name crash vg",
            "mkfs.ext4 -q /dev/vg/crash",
        ],
        fetch: vec![
            "dmsetup create mpatha --uuid mpath-35000c50000000001 /table",
            "lvm lvchange --config global{thin_check_executable=\"\"} --activate y vg/crash",
            "mount ext4 /dev/vg/crash /mnt",
        ],
        ..Stack::default()
    };
    let scenario = Scenario {
        target: "ext4 /dev/vg/crash".into(),
        crashkernel_mib: 160,
        stack: Some(stack),
        ..Scenario::of(kernel(Suite::Own)?, "thin-multipath")
    };
    let outcome = crash(&scenario)?;
    judge::dump_alone(outcome.dump()?, &scenario.kernel.release, &outcome.marker)?;
    ensure!(outcome.console.contains("service-time 0 2 1"), "it was not two paths:\n{}", outcome.console);
    Ok(())
}
