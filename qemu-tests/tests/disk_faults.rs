//! Disks that fail: no error is passed over, and the console says what happened where the disk cannot.

use std::fs;

use anyhow::{Context, Result, ensure};
use qemu_tests::prelude::*;

/// Rules for blkdebug by which the event is answered with EIO from its `nth` time on.
fn fails_from(event: &str, nth: u32) -> String {
    let states: String = (1..nth)
        .map(|state| format!("[set-state]\nevent = \"{event}\"\nstate = \"{state}\"\nnew_state = \"{}\"\n", state + 1))
        .collect();
    format!("{states}[inject-error]\nevent = \"{event}\"\nerrno = \"5\"\nstate = \"{nth}\"\nonce = \"off\"\n")
}

fn crashed_onto(name: &str, qemu: Vec<String>) -> Result<qemu_tests::crash::Outcome> {
    let scenario = Scenario {
        target: format!("ext4 LABEL={}", target_disk::LABEL),
        conf: vec!["failure_action poweroff".into()],
        qemu,
        ..Scenario::of(kernel(Suite::Own)?, name)
    };
    let outcome = crash(&scenario)?;
    ensure!(outcome.ending == Ending::PowerOff, "the failure action was {:?}:\n{}", outcome.ending, outcome.console);
    ensure!(!outcome.console.contains("dump complete"), "it calls the dump complete:\n{}", outcome.console);
    Ok(outcome)
}

/// Nothing on the disk is called by a name that it does not deserve, and no status calls the dump complete.
fn tells_no_lies(disk: &TargetDisk) -> Result<()> {
    for dump in disk.dumps()? {
        ensure!(!dump.join("vmcore").exists(), "something is called vmcore that is none");
        if let Ok(status) = fs::read_to_string(dump.join("status.json")) {
            ensure!(!status.contains("\"outcome\": \"complete\""), "the status is {status}");
        }
    }
    Ok(())
}

#[test]
fn a_disk_that_cannot_flush_has_no_dump() -> Result<()> {
    let disk = TargetDisk::ext4("fault-flush", 256, |_| Ok(()))?;
    // The first flushes are those of the mount and of the new directory.
    let outcome = crashed_onto("fault-flush", disk.failing(&fails_from("flush_to_os", 8))?)?;
    let says = |words: &str| outcome.console.lines().any(|line| line.contains(words));
    ensure!(says("Input/output error") || says("EIO"), "the error is not on the console:\n{}", outcome.console);
    tells_no_lies(&disk)
}

#[test]
#[ignore = "a matrix of its own: the other faults of a disk"]
fn a_disk_that_cannot_be_written_to_any_more_has_no_dump() -> Result<()> {
    for nth in [2, 12, 40] {
        let name = format!("fault-write-{nth}");
        let disk = TargetDisk::ext4(&name, 256, |_| Ok(()))?;
        let outcome = crashed_onto(&name, disk.failing(&fails_from("write_aio", nth))?)?;
        let line = outcome.console.lines().find(|line| line.contains("kdump") && line.contains("rror"));
        line.with_context(|| format!("the error is not on the console:\n{}", outcome.console))?;
        tells_no_lies(&disk)?;
    }
    Ok(())
}

/// Under another name our collector is one of which nothing is known beforehand, and level 0 fits on no such disk.
#[test]
#[ignore = "a matrix of its own: the other faults of a disk"]
fn a_disk_that_is_full_in_mid_stream_still_gets_a_status() -> Result<()> {
    let disk = TargetDisk::ext4("fault-full", 64, |_| Ok(()))?;
    let scenario = Scenario {
        target: format!("ext4 LABEL={}", target_disk::LABEL),
        conf: vec!["failure_action poweroff".into()],
        other_collector: Some("/usr/bin/unknown -d 0".into()),
        files: vec![GuestFile::link("/usr/bin/unknown", "/usr/sbin/kdump-capture")],
        qemu: disk.plain(),
        ..Scenario::of(kernel(Suite::Own)?, "fault-full")
    };
    let outcome = crash(&scenario)?;
    ensure!(outcome.ending == Ending::PowerOff, "the failure action was {:?}", outcome.ending);
    tells_no_lies(&disk)?;
    let dumps = disk.dumps()?;
    let dump = dumps.first().with_context(|| format!("there is no dump:\n{}", outcome.console))?;
    let status = qemu_tests::status::Status::read(&dump.join("status.json"))?;
    status.expect_outcome("incomplete")?;
    let reason = status.text("/reason")?;
    ensure!(reason.contains("No space left"), "the reason is: {reason}");
    ensure!(dump.join("vmcore-dmesg.txt").exists() && dump.join("kexec-dmesg.log").exists(), "a log is missing");
    Ok(())
}

#[test]
#[ignore = "a matrix of its own: the other faults of a disk"]
fn a_disk_that_is_read_only_is_said_to_be_so() -> Result<()> {
    let disk = TargetDisk::ext4("fault-read-only", 256, |_| Ok(()))?;
    let outcome = crashed_onto("fault-read-only", disk.read_only())?;
    let line = outcome.console.lines().find(|line| line.contains("cannot mount the target"));
    let line = line.with_context(|| format!("the reason is not on the console:\n{}", outcome.console))?;
    ensure!(line.contains("EROFS") || line.contains("EACCES"), "it says: {line}");
    tells_no_lies(&disk)
}
