//! The power goes while a dump is written: a file has its name only if it is whole.
//!
//! All that is done to the disk during one crash is recorded; from that, the disk as it was at hundreds of moments is
//! made anew, with what had not been flushed there, lost, or in part. The last moment has the whole dump, with which
//! every file is compared that has its name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use qemu_tests::crash::cut_off;
use qemu_tests::damage::Dice;
use qemu_tests::prelude::*;
use qemu_tests::write_log::{Unflushed, WriteLog, copy_sparse};

/// The files of a dump.
const FILES: [&str; 4] = ["vmcore-dmesg.txt", "vmcore", "kexec-dmesg.log", "status.json"];

#[test]
fn ext4_keeps_its_promises_at_any_moment() -> Result<()> {
    ext4("power-ext4", 40)
}

#[test]
#[ignore = "400 moments instead of 40"]
fn ext4_keeps_its_promises_at_hundreds_of_moments() -> Result<()> {
    ext4("power-ext4-many", 400)
}

/// XFS has no tool that replays its log, so that a kernel has to mount each disk.
#[test]
#[ignore = "boots two guests"]
fn xfs_keeps_its_promises_at_any_moment() -> Result<()> {
    let disk = TargetDisk::xfs("power-xfs", 384)?;
    let (log, files) = recorded("xfs", "power-xfs", &disk)?;
    let mut images = Vec::new();
    for (number, (count, unflushed)) in moments(&log, 23).into_iter().enumerate() {
        images.push(("xfs", disk_at(&disk, &log, count, unflushed, &format!("moment-{number}"))?));
    }
    let folder = disk.beside("mounted");
    let found = target_disk::dumps_by_mounting(&kernel(Suite::Own)?, "nouuid", &images, &folder)?;
    let mut tally = Tally::default();
    for (number, dumps) in found.iter().enumerate() {
        tally.look(dumps, &files).with_context(|| format!("moment {number}"))?;
    }
    tally.saw_all()
}

/// What the header of a raw disk says is true, and `kdumpctl recover` makes no more of it.
#[test]
#[ignore = "a boot of its own: 40 moments of a raw disk"]
fn a_raw_disk_keeps_its_promises_at_any_moment() -> Result<()> {
    let disk = TargetDisk::raw("power-raw", 320)?;
    let path = disk.beside("log");
    copy_sparse(&disk.image, &disk.beside("pristine"))?;
    let scenario = Scenario {
        target: TargetDisk::RAW.into(),
        qemu: disk.logged(&path)?,
        ..Scenario::of(kernel(Suite::Own)?, "power-raw")
    };
    ensure!(crash(&scenario)?.ending == Ending::Reboot, "the dump failed");
    let log = WriteLog::open(&path)?;
    let dump_of = |said: &serde_json::Value| said["directory"].as_str().map(PathBuf::from);
    let said = TargetDisk::recovered(
        &disk_at(&disk, &log, log.len(), Unflushed::Kept, "whole")?,
        &disk.beside("whole-recovered"),
    )?;
    let whole = dump_of(&said).filter(|_| said["outcome"] == "complete").with_context(|| format!("{said}"))?;
    let mut seen = BTreeMap::<String, u32>::new();
    for (count, unflushed) in moments(&log, 40) {
        let at = || format!("after {count} of {} writes, {unflushed:?}", log.len());
        let image = disk_at(&disk, &log, count, unflushed, "moment")?;
        let said = TargetDisk::recovered(&image, &disk.beside("moment-recovered"))?;
        ensure!(said["result"] != "failed", "{}: the header was no longer true: {said}", at());
        let Some(dump) = dump_of(&said) else {
            *seen.entry("no dump".to_owned()).or_default() += 1;
            continue;
        };
        let outcome = said["outcome"].as_str().unwrap_or_default();
        *seen.entry(outcome.to_owned()).or_default() += 1;
        ensure!((outcome == "complete") == dump.join("vmcore").exists(), "{}: {said}", at());
        for name in ["vmcore-dmesg.txt", "vmcore", "kexec-dmesg.log"] {
            if dump.join(name).exists() {
                ensure!(fs::read(dump.join(name))? == fs::read(whole.join(name))?, "{}: {name} is not whole", at());
            }
        }
    }
    println!("{seen:?}");
    ensure!(seen.contains_key("complete") && seen.len() > 1, "too few moments of each kind: {seen:?}");
    Ok(())
}

/// The same by killing the machine itself, whenever it happens to be.
#[test]
#[ignore = "boots four guests"]
fn killed_machines_leave_a_raw_disk_whose_header_is_true() -> Result<()> {
    let mut dice = Dice(6);
    for number in 0..4 {
        let disk = TargetDisk::raw(&format!("power-raw-killed-{number}"), 320)?;
        let scenario = Scenario {
            target: TargetDisk::RAW.into(),
            qemu: disk.plain(),
            ..Scenario::of(kernel(Suite::Own)?, "power-raw-killed")
        };
        cut_off(&scenario, "stage target done", Duration::from_millis(dice.below(6000)))?;
        let said = TargetDisk::recovered(&disk.image, &disk.beside("recovered"))?;
        println!("machine {number}: {said}");
        ensure!(said["result"] == "recovered", "machine {number}: {said}");
        let dump = said["directory"].as_str().map(PathBuf::from).with_context(|| format!("{said}"))?;
        ensure!((said["outcome"] == "complete") == dump.join("vmcore").exists(), "machine {number}: {said}");
        if dump.join("vmcore").exists() {
            sound(&[dump]).with_context(|| format!("machine {number}"))?;
        } else if let Ok(log) = fs::read_to_string(dump.join("vmcore-dmesg.txt")) {
            ensure!(log.contains("Kernel panic"), "machine {number}: the log is not whole");
        }
    }
    Ok(())
}

/// The same by killing the machine itself, at ten moments for each file system.
#[test]
#[ignore = "boots 21 guests"]
fn ten_killed_machines_for_each_file_system_leave_no_lie() -> Result<()> {
    let mut dice = Dice(5);
    let mut killed = |disk: &TargetDisk, fstype: &str| {
        let scenario = scenario(fstype, "power-killed", disk.plain())?;
        cut_off(&scenario, "stage target done", Duration::from_millis(dice.below(6000)))
    };
    for number in 0..10 {
        let disk = TargetDisk::ext4(&format!("power-killed-{number}"), 256, |_| Ok(()))?;
        killed(&disk, "ext4")?;
        sound(&disk.dumps()?).with_context(|| format!("machine {number}"))?;
    }
    let mut images = Vec::new();
    for number in 10..20 {
        let disk = TargetDisk::xfs(&format!("power-killed-{number}"), 384)?;
        killed(&disk, "xfs")?;
        images.push(("xfs", disk.image));
    }
    let folder = images[0].1.with_file_name("mounted");
    let found = target_disk::dumps_by_mounting(&kernel(Suite::Own)?, "nouuid", &images, &folder)?;
    found.iter().try_for_each(|dumps| sound(dumps))
}

fn ext4(name: &str, count: usize) -> Result<()> {
    let disk = TargetDisk::ext4(name, 256, |_| Ok(()))?;
    let (log, files) = recorded("ext4", name, &disk)?;
    let mut tally = Tally::default();
    for (count, unflushed) in moments(&log, count) {
        let image = disk_at(&disk, &log, count, unflushed, "moment")?;
        let dumps = target_disk::dumps_on_ext4(&image, &disk.beside("moment-taken"))?;
        tally.look(&dumps, &files).with_context(|| format!("after {count} of {} writes, {unflushed:?}", log.len()))?;
    }
    tally.saw_all()
}

fn scenario(fstype: &str, name: &str, qemu: Vec<String>) -> Result<Scenario> {
    let target = format!("{fstype} LABEL={}", target_disk::LABEL);
    Ok(Scenario { target, qemu, ..Scenario::of(kernel(Suite::Own)?, name) })
}

/// Crashes a guest, and gives what was done to its disk, and the files of its dump.
fn recorded(fstype: &str, name: &str, disk: &TargetDisk) -> Result<(WriteLog, BTreeMap<String, Vec<u8>>)> {
    let log = disk.beside("log");
    copy_sparse(&disk.image, &disk.beside("pristine"))?;
    let outcome = crash(&scenario(fstype, name, disk.logged(&log)?)?)?;
    ensure!(outcome.ending == Ending::Reboot, "the capture kernel's ending was {:?}", outcome.ending);
    let log = WriteLog::open(&log)?;
    let whole = disk_at(disk, &log, log.len(), Unflushed::Kept, "whole")?;
    let folder = disk.beside("whole-taken");
    let dumps = match fstype {
        "ext4" => target_disk::dumps_on_ext4(&whole, &folder)?,
        _ => target_disk::dumps_by_mounting(&kernel(Suite::Own)?, "nouuid", &[("xfs", whole)], &folder)?.remove(0),
    };
    let [dump] = dumps.as_slice() else { bail!("one crash left {dumps:?}") };
    judge::dump_alone(dump, &kernel(Suite::Own)?.release, &outcome.marker)?;
    let read = |name: &str| Ok((name.to_owned(), fs::read(dump.join(name))?));
    Ok((log, FILES.into_iter().map(read).collect::<Result<_>>()?))
}

/// Seeded moments, with each fate of what was not flushed in turn; the last is the end.
fn moments(log: &WriteLog, count: usize) -> Vec<(usize, Unflushed)> {
    let mut dice = Dice(4);
    let mut moment = |number: usize| {
        let at = usize::try_from(dice.below(log.len() as u64 + 1)).unwrap_or(0);
        let fate = match number % 4 {
            0 => Unflushed::Kept,
            1 => Unflushed::Lost,
            _ => Unflushed::Some(dice.word()),
        };
        (at, fate)
    };
    let mut moments: Vec<_> = (1..count).map(&mut moment).collect();
    moments.push((log.len(), Unflushed::Lost));
    moments
}

fn disk_at(disk: &TargetDisk, log: &WriteLog, count: usize, unflushed: Unflushed, name: &str) -> Result<PathBuf> {
    let image = disk.beside(name);
    copy_sparse(&disk.beside("pristine"), &image)?;
    log.replay(count, unflushed, &image)?;
    Ok(image)
}

/// What was there at all moments together.
#[derive(Debug, Default)]
struct Tally {
    moments: u32,
    without_dump: u32,
    incomplete: u32,
    with: BTreeMap<String, u32>,
}

impl Tally {
    /// Every file that has its name is the whole file.
    fn look(&mut self, dumps: &[PathBuf], files: &BTreeMap<String, Vec<u8>>) -> Result<()> {
        self.moments += 1;
        ensure!(dumps.len() <= 1, "one crash left {dumps:?}");
        let Some(dump) = dumps.first() else {
            self.without_dump += 1;
            return Ok(());
        };
        for entry in fs::read_dir(dump)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.ends_with("-incomplete") {
                self.incomplete += 1;
                continue;
            }
            let whole = files.get(&name).with_context(|| format!("a file {name}"))?;
            ensure!(fs::read(dump.join(&name))? == *whole, "{name} has its name and is not whole");
            *self.with.entry(name).or_default() += 1;
        }
        // They appear in this order.
        let there: Vec<bool> = FILES.iter().map(|name| dump.join(name).exists()).collect();
        ensure!(there.is_sorted_by(|one, next| one >= next), "{FILES:?} are there: {there:?}");
        Ok(())
    }

    /// The moments were well chosen.
    fn saw_all(&self) -> Result<()> {
        println!("{self:?}");
        let early = self.with.get("vmcore-dmesg.txt").copied().unwrap_or_default();
        let late = self.with.get("vmcore").copied().unwrap_or_default();
        ensure!(self.incomplete > 0 && early > late && late > 0, "too few moments of each kind: {self:?}");
        Ok(())
    }
}

/// Whatever has its name is what it says, as far as can be told without the whole dump.
fn sound(dumps: &[PathBuf]) -> Result<()> {
    let is_there = |dump: &Path, name: &str| dump.join(name).exists();
    for dump in dumps {
        if is_there(dump, "vmcore") {
            let program = qemu_tests::programs::programs()?.path("kdump-capture");
            let said =
                qemu_tests::tools::text(std::process::Command::new(program).arg("verify").arg(dump.join("vmcore")))?;
            ensure!(said.contains("The dump is sound."), "{said}");
            ensure!(is_there(dump, "vmcore-dmesg.txt"), "the log was not saved first");
        }
        if is_there(dump, "vmcore-dmesg.txt") {
            ensure!(
                fs::read_to_string(dump.join("vmcore-dmesg.txt"))?.contains("Kernel panic"),
                "the log is not whole"
            );
        }
        if is_there(dump, "status.json") {
            qemu_tests::status::Status::read(&dump.join("status.json"))?.check_files(dump)?;
        }
    }
    Ok(())
}
