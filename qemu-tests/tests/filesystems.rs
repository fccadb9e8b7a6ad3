//! Dumps on file systems of every kind: ext4, xfs and btrfs have tests of their own elsewhere.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use qemu_tests::live::{self, Live, live};
use qemu_tests::prelude::*;
use qemu_tests::shared_folder::SharedFolder;
use qemu_tests::status::sha256;

/// Two crashes in the same minutes of the guest's clock, on an ext2: every second of them is taken before the second
/// crash, one by the first dump and the others by directories in which there is nothing.
#[test]
fn two_crashes_at_one_time_leave_two_dumps_and_the_second_touches_nothing_of_the_first() -> Result<()> {
    const MINUTES: usize = 20;
    let disk = TargetDisk::older_ext("ext2", "two-crashes", 320)?;
    let clock = ["-rtc", "base=2026-02-03T04:00:00,clock=vm"].map(str::to_owned);
    let scenario = Scenario {
        target: format!("ext2 LABEL={}", target_disk::LABEL),
        qemu: [disk.plain(), clock.into()].concat(),
        ..Scenario::of(kernel(Suite::Own)?, "two-crashes")
    };
    let name = |dump: &Path| dump.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let first = crash(&scenario)?;
    let one = disk.dumps()?.pop().with_context(|| format!("there is no dump:\n{}", first.console))?;
    judge::dump_alone(&one, &scenario.kernel.release, &first.marker)?;
    let (before, sums) = (name(&one), sums(&one)?);
    let seconds =
        (0..MINUTES * 60).map(|second| format!("127.0.0.1-2026-02-03-04:{:02}:{:02}", second / 60, second % 60));
    ensure!(seconds.clone().any(|second| second == before), "the first dump is called {before}");
    disk.take_names(seconds)?;

    let second = crash(&scenario)?;
    let dumps: Vec<_> = disk.dumps()?.into_iter().filter(|dump| dump.join("status.json").exists()).collect();
    let [one, other] = match name(&dumps[0]) == before {
        true => [&dumps[0], &dumps[1]],
        false => [&dumps[1], &dumps[0]],
    };
    ensure!(dumps.len() == 2 && name(one) == before, "the dumps are {dumps:?}:\n{}", second.console);
    ensure!(self::sums(one)? == sums, "the first dump is not what it was");
    judge::dump_alone(other, &scenario.kernel.release, &second.marker)?;
    let other = name(other);
    ensure!(other.starts_with("127.0.0.1-2026-02-03-04:") && other.ends_with(".1"), "the second is called {other}");
    Ok(())
}

/// The files of a dump, with their sums.
fn sums(dump: &Path) -> Result<Vec<(String, u64, String)>> {
    let mut sums = Vec::new();
    for entry in std::fs::read_dir(dump)? {
        let path = entry?.path();
        let (bytes, sum) = sha256(&path)?;
        sums.push((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), bytes, sum));
    }
    sums.sort();
    Ok(sums)
}

#[test]
#[ignore = "a boot of its own: a folder that the hypervisor shares"]
fn a_dump_goes_to_a_shared_folder_by_virtiofs() -> Result<()> {
    let folder = qemu_tests::folders::qemu().join("runs/virtiofs-shared");
    let shared = SharedFolder::start(&folder, "crash", live::MEMORY_MIB)?;
    let scenario = Scenario {
        target: "virtiofs crash".into(),
        memory_mib: live::MEMORY_MIB,
        qemu: shared.qemu.clone(),
        ..Scenario::of(kernel(Suite::Own)?, "virtiofs")
    };
    let outcome = crash(&scenario)?;
    ensure!(outcome.ending == Ending::Reboot, "it ended with {:?}:\n{}", outcome.ending, outcome.console);
    let dumps: Vec<_> = std::fs::read_dir(shared.folder.join("var/crash"))?.collect::<Result<_, _>>()?;
    ensure!(dumps.len() == 1, "one crash left {dumps:?}");
    judge::dump_alone(&dumps[0].path(), &scenario.kernel.release, &outcome.marker)?;

    // Before the share is mounted no dump is seen.
    let modules = scenario.kernel.load_order("virtiofs")?;
    let name = |file: &Path| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let insert = |file: &PathBuf| format!("/bin/busybox insmod /modules/{}", name(file));
    let mut commands: Vec<String> = modules.iter().map(insert).collect();
    commands.extend(AFTERWARDS.map(str::to_owned));
    let mut files = vec![("/etc/kdump.conf".to_owned(), b"virtiofs crash\npath /var/crash\n".to_vec())];
    for file in &modules {
        files.push((format!("/modules/{}", name(file)), std::fs::read(file)?));
    }
    let guest = Live {
        name: "virtiofs-after",
        kernel: scenario.kernel.clone(),
        append: "",
        qemu: shared.qemu.clone(),
        programs: vec!["kdumpctl", "kdump-init", "kdump-capture", "kdump-send"],
        files,
        commands,
    };
    let answers = live(&guest)?;
    let Some([unmounted, made, mounted, list, verify]) = answers.last_chunk() else { bail!("there are {answers:?}") };
    unmounted.expect(0, &["no target of dumps is mounted on this machine"])?;
    made.expect(0, &[])?;
    mounted.expect(0, &[])?;
    list.expect(0, &[&name(&dumps[0].path()), "complete", "sysrq triggered crash"])?;
    verify.expect(0, &[": sound, "])
}

/// What the next boot does with the share `crash`.
const AFTERWARDS: [&str; 5] = [
    "kdumpctl dumps list",
    "/bin/busybox mkdir /srv",
    "/bin/busybox mount -t virtiofs crash /srv",
    "kdumpctl dumps list",
    "kdumpctl dumps verify",
];

#[test]
#[ignore = "a boot of its own: ext2 is in every run, and ext4"]
fn a_dump_goes_to_ext3() -> Result<()> {
    let disk = TargetDisk::older_ext("ext3", "ext3", 256)?;
    let scenario = Scenario {
        target: format!("ext3 LABEL={}", target_disk::LABEL),
        qemu: disk.plain(),
        ..Scenario::of(kernel(Suite::Own)?, "ext3")
    };
    let outcome = crash(&scenario)?;
    let dumps = disk.dumps()?;
    let dump = dumps.first().with_context(|| format!("there is no dump:\n{}", outcome.console))?;
    judge::dump_alone(dump, &scenario.kernel.release, &outcome.marker)?;
    Ok(())
}

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
