//! Dumps on file systems of every kind: ext4, xfs and btrfs have tests of their own elsewhere.

use anyhow::{Context, Result, ensure};
use qemu_tests::prelude::*;

/// A name on vfat has no colon.
#[test]
fn a_dump_goes_to_vfat_under_a_name_that_it_can_have() -> Result<()> {
    let disk = TargetDisk::vfat("vfat", 256)?;
    let scenario = Scenario {
        target: format!("vfat LABEL={}", target_disk::LABEL),
        qemu: disk.plain(),
        ..Scenario::of(kernel(Suite::Own)?, "vfat")
    };
    let outcome = crash(&scenario)?;
    let dumps = disk.dumps_on_vfat()?;
    let dump = dumps.first().with_context(|| format!("there is no dump:\n{}", outcome.console))?;
    let name = dump.file_name().unwrap_or_default().to_string_lossy();
    ensure!(name.starts_with("127.0.0.1-20") && !name.contains(':') && name.len() == 29, "it is called {name}");
    judge::dump_alone(dump, &scenario.kernel.release, &outcome.marker)?;
    Ok(())
}

/// The cloud kernels have neither f2fs nor minix.
#[test]
#[ignore = "fetches Debian's generic kernel, 70 MB, and boots three guests"]
fn dumps_go_to_f2fs_and_to_minix() -> Result<()> {
    let generic = qemu_tests::provision::generic_kernel()?;
    let disks = [("f2fs", TargetDisk::f2fs("f2fs", 256)?), ("minix", TargetDisk::minix("minix", 62)?)];
    let mut markers = Vec::new();
    for (fstype, disk) in &disks {
        let name = if *fstype == "minix" { "/dev/vdb".to_owned() } else { format!("LABEL={}", target_disk::LABEL) };
        let mut files = GuestFile::virtio_disk();
        files.push(GuestFile::link(&format!("/dev/disk/by-label/{}", target_disk::LABEL), "../../vda"));
        let scenario = Scenario {
            target: format!("{fstype} {name}"),
            files,
            crashkernel_mib: 192,
            memory_mib: 640,
            qemu: disk.plain(),
            ..Scenario::of(generic.clone(), fstype)
        };
        let outcome = crash(&scenario)?;
        ensure!(outcome.ending == Ending::Reboot, "the ending was {:?}", outcome.ending);
        ensure!(outcome.console.contains("dump complete"), "there is no dump:\n{}", outcome.console);
        markers.push(outcome.marker);
    }
    let images: Vec<_> = disks.iter().map(|(fstype, disk)| (*fstype, disk.image.clone())).collect();
    let found = target_disk::dumps_by_mounting(&generic, "", &images, &disks[0].1.beside("mounted"))?;
    for (dumps, marker) in found.iter().zip(&markers) {
        let dump = dumps.first().context("the dump is not on the disk")?;
        judge::dump_alone(dump, &generic.release, marker)?;
    }
    Ok(())
}
