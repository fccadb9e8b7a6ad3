//! Disks that fail: no error is passed over, and the console says what happened where the disk cannot.

use anyhow::{Context, Result, ensure};
use qemu_tests::prelude::*;
use qemu_tests::status::Status;

/// Rules for blkdebug by which the event is answered with EIO from its `nth` time on.
fn fails_from(event: &str, nth: u32) -> String {
    let states: String = (1..nth)
        .map(|state| format!("[set-state]\nevent = \"{event}\"\nstate = \"{state}\"\nnew_state = \"{}\"\n", state + 1))
        .collect();
    format!("{states}[inject-error]\nevent = \"{event}\"\nerrno = \"5\"\nstate = \"{nth}\"\nonce = \"off\"\n")
}

fn crashed_onto(name: &str, qemu: Vec<String>) -> Result<qemu_tests::crash::Outcome> {
    crashed_onto_target(&format!("ext4 LABEL={}", target_disk::LABEL), name, qemu)
}

fn crashed_onto_target(target: &str, name: &str, qemu: Vec<String>) -> Result<qemu_tests::crash::Outcome> {
    let scenario = Scenario {
        target: target.to_owned(),
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
        if dump.join("status.json").exists() {
            let status = Status::read(&dump.join("status.json"))?;
            ensure!(status.text("/outcome")? != "complete", "the status is a lie: {}", status.at("/reason")?);
        }
    }
    Ok(())
}

/// The twelfth flush is that of the dump itself.
#[test]
fn a_disk_that_cannot_flush_has_no_dump() -> Result<()> {
    cannot_flush(12)
}

#[test]
#[ignore = "a matrix of its own: the other faults of a disk"]
fn a_disk_that_fails_at_an_earlier_or_a_later_flush_has_no_dump() -> Result<()> {
    [3, 7, 10, 13].into_iter().try_for_each(cannot_flush)
}

fn cannot_flush(nth: u32) -> Result<()> {
    let name = format!("fault-flush-{nth}");
    let disk = TargetDisk::ext4(&name, 256, |_| Ok(()))?;
    let outcome = crashed_onto(&name, disk.failing(&fails_from("flush_to_os", nth))?)?;
    let says = |words: &str| outcome.console.lines().any(|line| line.contains("kdump: ") && line.contains(words));
    ensure!(says("NO COMPLETE DUMP"), "the failure is not on the console:\n{}", outcome.console);
    ensure!(
        says("I/O error") || says("Input/output error") || says("Read-only"),
        "nor the reason:\n{}",
        outcome.console
    );
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

/// The flushes that begin the dump, that of the log and that of the dump itself; and writes from the header on.
#[test]
#[ignore = "a matrix of its own: the other faults of a disk"]
fn a_raw_disk_that_fails_has_no_complete_dump() -> Result<()> {
    for (event, nth) in
        [("flush_to_os", 1), ("flush_to_os", 4), ("flush_to_os", 7), ("write_aio", 1), ("write_aio", 12)]
    {
        let name = format!("fault-raw-{event}-{nth}");
        let disk = TargetDisk::raw(&name, 320)?;
        let outcome = crashed_onto_target(TargetDisk::RAW, &name, disk.failing(&fails_from(event, nth))?)?;
        let says = |words: &str| outcome.console.lines().any(|line| line.contains("kdump: ") && line.contains(words));
        ensure!(
            says("NO COMPLETE DUMP") && says("Input/output error"),
            "{name} is not on the console:\n{}",
            outcome.console
        );
        raw_tells_no_lies(&disk).context(name)?;
    }
    Ok(())
}

/// The next target has the dump, and what was wrong with the first.
#[test]
#[ignore = "a matrix of its own: the other faults of a disk"]
fn after_a_raw_disk_that_fails_the_next_target_has_the_dump() -> Result<()> {
    for (event, nth) in [("flush_to_os", 7), ("write_aio", 12)] {
        let name = format!("fault-raw-next-{event}");
        let disk = TargetDisk::raw(&name, 320)?;
        let scenario = Scenario {
            native: Some(format!(
                "failure_action = \"poweroff\"\n[[target]]\nkind = \"raw\"\ndevice = \"{}\"\n\
                 [[target]]\nkind = \"filesystem\"\ntype = \"ext4\"\ndevice = \"LABEL={LABEL}\"\n",
                TargetDisk::RAW.trim_start_matches("raw ")
            )),
            qemu: disk.failing(&fails_from(event, nth))?,
            ..Scenario::of(kernel(Suite::Own)?, &name)
        };
        let outcome = crash(&scenario)?;
        ensure!(outcome.ending == Ending::Reboot, "{name}: it ended with {:?}:\n{}", outcome.ending, outcome.console);
        let (_, _, status) = judge::dump_alone(outcome.dump()?, &scenario.kernel.release, &outcome.marker)?;
        let told = |pointer: &str| status.text(pointer);
        ensure!(told("/targets/0/outcome")? == "failed" && told("/targets/1/outcome")? == "ok", "{name}: {status:?}");
        let error = told("/targets/0/error")?;
        ensure!(error.contains("Input/output error"), "{name}: the error is {error}");
        raw_tells_no_lies(&disk).context(name)?;
    }
    Ok(())
}

/// Whatever can be recovered is not called complete, and its header is true.
fn raw_tells_no_lies(disk: &TargetDisk) -> Result<()> {
    let said = TargetDisk::recovered(&disk.image, &disk.beside("recovered"))?;
    ensure!(said["result"] != "failed", "the header is not true: {said}");
    ensure!(said["outcome"] != "complete", "the dump is called complete: {said}");
    let Some(dump) = said["directory"].as_str().map(std::path::Path::new) else { return Ok(()) };
    ensure!(!dump.join("vmcore").exists(), "something is called vmcore that is none: {said}");
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
    let status = Status::read(&dump.join("status.json"))?;
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
