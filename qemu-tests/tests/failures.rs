//! What goes wrong in the capture kernel is said on the console, and an ending is reached in time.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qemu_tests::prelude::*;

#[test]
fn a_missing_target_leads_to_the_failure_action_within_its_limit() -> Result<()> {
    const MISSING: &str = "00000000-0000-4000-8000-00000000dead";
    let scenario = Scenario {
        target: format!("ext4 UUID={MISSING}"),
        conf: vec!["failure_action poweroff".into()],
        append: "rd.timeout=8".into(),
        ..Scenario::of(kernel(Suite::Own)?, "missing-target")
    };
    let outcome = crash(&scenario)?;
    ensure!(outcome.ending == Ending::PowerOff, "the failure action was {:?}", outcome.ending);
    ensure!(outcome.dump.is_none(), "a dump was written to {:?}", outcome.dump);
    let reason = outcome.console.lines().find(|line| line.contains(MISSING) && line.contains("did not appear"));
    reason.with_context(|| format!("the console does not give the reason:\n{}", outcome.console))?;
    let stage =
        outcome.stages.iter().find(|stage| stage.name == "panic to ending").context("the stage was not timed")?;
    // 8 s for the target; the rest is for an emulated kernel to boot and to end, on a machine that may be busy.
    ensure!(stage.took < Duration::from_secs(150), "it took {:.0} s", stage.took.as_secs_f64());
    Ok(())
}

#[test]
fn a_collector_that_hangs_is_killed_and_the_failure_action_follows() -> Result<()> {
    let scenario = Scenario {
        other_collector: Some("/usr/libexec/saboteur hang".into()),
        conf: vec!["failure_action poweroff".into()],
        append: "rd.kdump.stall=5".into(),
        ..Scenario::of(kernel(Suite::Own)?, "hanging-collector")
    };
    let outcome = crash(&scenario)?;
    ensure!(outcome.ending == Ending::PowerOff, "the failure action was {:?}", outcome.ending);
    let dump = outcome.dump()?;
    ensure!(dump.join("vmcore-incomplete").exists() && !dump.join("vmcore").exists(), "the dump's name is a lie");
    ensure!(dump.join("vmcore-dmesg.txt").exists(), "the log was not saved first");
    let status = outcome.status()?;
    status.expect_outcome("incomplete")?;
    let reason = status.text("/reason")?;
    ensure!(reason.contains("stuck for 5 s"), "the reason is: {reason}");
    Ok(())
}

#[test]
fn a_worker_that_is_killed_leaves_a_status_and_the_failure_action_follows() -> Result<()> {
    let scenario = Scenario {
        other_collector: Some("/usr/libexec/saboteur kill".into()),
        conf: vec!["failure_action halt".into()],
        ..Scenario::of(kernel(Suite::Own)?, "killed-worker")
    };
    let outcome = crash(&scenario)?;
    ensure!(outcome.ending == Ending::Halt, "the failure action was {:?}", outcome.ending);
    let dump = outcome.dump()?;
    ensure!(dump.join("kexec-dmesg.log").exists(), "the log of the capture environment was not saved");
    ensure!(!dump.join("vmcore").exists(), "something is called vmcore that is none");
    let status = outcome.status()?;
    status.expect_outcome("incomplete")?;
    ensure!(status.text("/targets/0/outcome")? == "failed", "the target is not told: {}", status.at("/targets")?);
    let reason = status.text("/reason")?;
    ensure!(reason.contains("SIGKILL") && reason.contains("stage vmcore"), "the reason is: {reason}");
    Ok(())
}

#[test]
fn a_target_of_another_type_is_refused_in_the_kernel_s_own_words() -> Result<()> {
    let scenario = Scenario {
        target: format!("xfs LABEL={LABEL}"),
        conf: vec!["failure_action poweroff".into()],
        ..Scenario::of(kernel(Suite::Own)?, "wrong-type")
    };
    let outcome = crash(&scenario)?;
    ensure!(outcome.ending == Ending::PowerOff, "the failure action was {:?}", outcome.ending);
    let says = |words: &str| outcome.console.lines().any(|line| line.contains("cannot mount") && line.contains(words));
    ensure!(says("xfs LABEL=") && says("the kernel says: "), "the reason is not on the console:\n{}", outcome.console);
    Ok(())
}

#[test]
fn a_collector_that_fails_leaves_the_log_and_the_reason() -> Result<()> {
    let scenario = Scenario {
        // Any program that refuses its arguments will do; this one is on the guest's disk.
        other_collector: Some("/usr/sbin/kdumpctl collect".into()),
        conf: vec!["failure_action halt".into()],
        ..Scenario::of(kernel(Suite::Own)?, "failing-collector")
    };
    let outcome = crash(&scenario)?;
    ensure!(outcome.ending == Ending::Halt, "the failure action was {:?}", outcome.ending);
    let dump = outcome.dump()?;
    let log = std::fs::read_to_string(dump.join("vmcore-dmesg.txt")).context("the log was not saved first")?;
    ensure!(log.contains(&outcome.marker), "the log lacks the marker");
    ensure!(!dump.join("vmcore").exists(), "something is called vmcore that is none");
    let status = outcome.status()?;
    status.expect_outcome("failed")?;
    let reason = status.text("/reason")?;
    ensure!(reason.contains("kdumpctl"), "the reason does not name the collector: {reason}");
    ensure!(outcome.console.contains("kdumpctl failed"), "the console does not give the reason:\n{}", outcome.console);
    Ok(())
}

#[test]
fn a_collector_that_takes_all_memory_is_killed_first_and_status_says_so() -> Result<()> {
    let scenario = Scenario {
        other_collector: Some("/usr/libexec/saboteur eat".into()),
        conf: vec!["failure_action poweroff".into()],
        ..Scenario::of(kernel(Suite::Own)?, "out-of-memory")
    };
    let outcome = crash(&scenario)?;
    ensure!(outcome.ending == Ending::PowerOff, "the failure action was {:?}", outcome.ending);
    let dump = outcome.dump()?;
    ensure!(dump.join("vmcore-incomplete").exists() && !dump.join("vmcore").exists(), "the dump's name is a lie");
    let status = outcome.status()?;
    status.expect_outcome("incomplete")?;
    let reason = status.text("/reason")?;
    ensure!(reason.contains("memory ran out, reserve more with crashkernel="), "the reason is: {reason}");
    let log = std::fs::read_to_string(dump.join("kexec-dmesg.log"))?;
    let killed: Vec<&str> = log.lines().filter(|line| line.contains("Killed process")).collect();
    ensure!(killed.len() == 1 && killed[0].contains("(saboteur)"), "others were killed, too: {killed:?}");
    Ok(())
}

#[test]
fn where_nothing_can_be_started_any_more_the_failure_action_follows() -> Result<()> {
    let scenario = Scenario {
        busybox: true,
        // There are more threads than that already: every clone(2) fails with EAGAIN from then on.
        files: vec![GuestFile::script("/usr/local/bin/pre", "echo 20 > /proc/sys/kernel/threads-max")],
        conf: vec!["kdump_pre /usr/local/bin/pre".into(), "failure_action poweroff".into()],
        ..Scenario::of(kernel(Suite::Own)?, "no-threads")
    };
    let outcome = crash(&scenario)?;
    ensure!(outcome.ending == Ending::PowerOff, "the failure action was {:?}", outcome.ending);
    let status = outcome.status()?;
    status.expect_outcome("failed")?;
    let reason = status.text("/reason")?;
    ensure!(reason.contains("cannot start") && reason.contains("Resource temporarily"), "the reason is: {reason}");
    Ok(())
}

#[test]
fn a_panic_of_pid_1_itself_is_logged_and_the_failure_action_follows() -> Result<()> {
    let init = std::fs::read(qemu_tests::programs::init_with_a_bug()?)?;
    let scenario = Scenario {
        overlay: vec![("init".into(), init)],
        conf: vec!["failure_action poweroff".into()],
        ..Scenario::of(kernel(Suite::Own)?, "bug")
    };
    let outcome = crash(&scenario)?;
    ensure!(outcome.ending == Ending::PowerOff, "the failure action was {:?}", outcome.ending);
    for words in ["kdump: PID 1 has a bug: panicked at", "a bug of the test's"] {
        ensure!(outcome.console.contains(words), "the console does not say {words}:\n{}", outcome.console);
    }
    ensure!(!outcome.console.contains("Attempted to kill init"), "PID 1 died of it:\n{}", outcome.console);
    Ok(())
}
