//! What surrounds a dump: the administrator's programs, every way to end, and a machine that has no room left.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use qemu_tests::prelude::*;
use qemu_tests::programs::programs;
use qemu_tests::provision::generic_kernel;
use qemu_tests::tools;

/// A target that is nowhere.
const MISSING: &str = "ext4 UUID=00000000-0000-4000-8000-00000000dead";

#[test]
fn programs_of_the_administrator_run_in_order_even_when_no_room_is_left() -> Result<()> {
    let say = "echo \"$KDUMP_STAGE: $0 $* outcome=$KDUMP_OUTCOME dir=${KDUMP_DIR##*/}\"";
    let scenario = Scenario {
        busybox: true,
        files: vec![
            GuestFile::script("/usr/local/bin/pre", say),
            GuestFile::script("/etc/kdump/pre.d/10-fails", &format!("{say}; exit 5")),
            GuestFile::script("/etc/kdump/post.d/10-env", say),
            GuestFile {
                path: "/usr/local/bin/post".into(),
                content: qemu_tests::scenario::Content::Script(
                    "#!/usr/bin/env sh\necho \"$1 $KDUMP_OUTCOME\" > $KDUMP_DIR/post.txt\n".into(),
                ),
            },
            GuestFile::link("/usr/bin/env", "../../bin/busybox"),
            GuestFile::link("/bin/sh", "busybox"),
        ],
        conf: vec!["kdump_pre /usr/local/bin/pre".into(), "kdump_post /usr/local/bin/post".into()],
        other_collector: Some("/usr/libexec/saboteur full kdump-capture -z -d 31".into()),
        ..Scenario::of(kernel(Suite::Own)?, "programs")
    };
    let outcome = crash(&scenario)?;
    ensure!(outcome.ending == Ending::Reboot, "the final action was {:?}", outcome.ending);
    let dump = outcome.dump()?;
    // There was no room for the collector's report, so that status.json cannot tell of pages; the dump can.
    outcome.status()?.expect_outcome("complete")?;
    let verify = tools::text(Command::new(programs()?.path("kdump-capture")).arg("verify").arg(dump.join("vmcore")))?;
    ensure!(verify.contains("The dump is sound."), "{verify}");
    let beside = std::fs::read_to_string(dump.join("post.txt")).context("kdump_post left nothing beside the dump")?;
    ensure!(beside == "0 complete\n", "kdump_post was told: {beside}");
    let log = std::fs::read_to_string(dump.join("kexec-dmesg.log"))?;
    let name = dump.file_name().unwrap_or_default().to_string_lossy();
    let mut from = 0;
    for line in [
        &format!("pre: /usr/local/bin/pre  outcome= dir={name}"),
        &format!("pre: /etc/kdump/pre.d/10-fails  outcome= dir={name}"),
        "/etc/kdump/pre.d/10-fails ended with 5",
        "no room on /run",
        &format!("post: /etc/kdump/post.d/10-env 0 outcome=complete dir={name}"),
    ] {
        let place =
            log[from..].find(line).with_context(|| format!("the log lacks, or has in another place: {line}"))?;
        from += place;
    }
    let stages = outcome.status()?.at("/stages")?.clone();
    let stages = stages.as_array().context("no list of stages")?;
    ensure!(
        stages.iter().all(|stage| stage["available"].as_u64().is_some_and(|kib| kib > 1024)),
        "a stage does not tell its memory: {stages:?}"
    );
    Ok(())
}

#[test]
fn kdump_pre_calls_the_dump_off_and_the_final_action_follows() -> Result<()> {
    let scenario = Scenario {
        busybox: true,
        files: vec![GuestFile::script("/usr/local/bin/pre", "echo not today; exit 3")],
        conf: vec!["kdump_pre /usr/local/bin/pre".into(), "final_action poweroff".into(), "failure_action halt".into()],
        ..Scenario::of(kernel(Suite::Own)?, "called-off")
    };
    let outcome = crash(&scenario)?;
    ensure!(outcome.ending == Ending::PowerOff, "it ended with {:?}", outcome.ending);
    let dump = outcome.dump()?;
    ensure!(!dump.join("vmcore").exists() && !dump.join("vmcore-incomplete").exists(), "there is a dump");
    let status = outcome.status()?;
    status.expect_outcome("failed")?;
    let reason = status.text("/reason")?;
    ensure!(reason.contains("kdump_pre") && reason.contains("ended with 3 (not today)"), "the reason is: {reason}");
    Ok(())
}

#[test]
fn a_shell_serves_who_comes_and_leaving_it_leads_to_the_final_action() -> Result<()> {
    let scenario = Scenario {
        target: MISSING.into(),
        busybox: true,
        conf: vec!["failure_action shell".into(), "final_action poweroff".into()],
        append: "rd.timeout=5".into(),
        dialogue: vec![
            // What says the terminal's name is what sleeps: a Ctrl-C between two programs reaches busybox's shell alone,
            // which forgets it and starts the second.
            ("goes on to the final action", "echo sum-$((40+2)); sh -c 'tty; exec sleep 600'\n"),
            // The terminal is the session's own, so that Ctrl-C reaches what runs in front and nothing else.
            ("/dev/ttyS0", "\u{3}"),
            ("^C", "echo interrupted-$?; ls -l /proc/vmcore; ps | grep -c saboteur; exit\n"),
        ],
        ..Scenario::of(kernel(Suite::Own)?, "shell")
    };
    let outcome = crash(&scenario)?;
    for words in ["NO COMPLETE DUMP: ", "sum-42", "interrupted-130", "the shell is left; final action: poweroff"] {
        ensure!(outcome.console.contains(words), "the console does not say {words}:\n{}", outcome.console);
    }
    ensure!(outcome.ending == Ending::PowerOff, "it ended with {:?}", outcome.ending);
    Ok(())
}

#[test]
fn suse_s_shell_comes_after_a_complete_dump_and_before_the_final_action() -> Result<()> {
    let scenario = Scenario {
        busybox: true,
        conf: vec!["final_action poweroff".into()],
        sysconfig: vec!["KDUMP_IMMEDIATE_REBOOT=\"false\"".into()],
        // A terminal that its session's leader has left is emptied.
        dialogue: vec![("goes on to the final action", "echo sum-$((40+2))\n"), ("sum-42", "exit\n")],
        ..Scenario::of(kernel(Suite::Own)?, "shell-first")
    };
    let outcome = crash(&scenario)?;
    for words in ["The dump is complete.", "sum-42", "the shell is left; final action: poweroff"] {
        ensure!(outcome.console.contains(words), "the console does not say {words}:\n{}", outcome.console);
    }
    ensure!(outcome.ending == Ending::PowerOff, "it ended with {:?}", outcome.ending);
    judge::dump_alone(outcome.dump()?, &scenario.kernel.release, &outcome.marker)?;
    ensure!(outcome.status()?.text("/ending")? == "shell", "status.json does not tell of the shell");
    Ok(())
}

#[test]
fn a_missing_target_leads_to_a_dump_on_the_root_file_system() -> Result<()> {
    let scenario = Scenario {
        target: MISSING.into(),
        busybox: true,
        files: vec![
            GuestFile::text("/proc/self/mountinfo", "27 1 254:0 / / rw - ext4 /dev/vda rw\n"),
            GuestFile::text("/sys/class/block/.here", ""),
            GuestFile::script("/etc/kdump/emergency.d/10-call", "echo \"help: $KDUMP_OUTCOME, $KDUMP_REASON\""),
        ],
        conf: vec!["failure_action dump_to_rootfs".into(), "final_action poweroff".into()],
        append: "rd.timeout=5".into(),
        ..Scenario::of(kernel(Suite::Own)?, "rootfs")
    };
    let outcome = crash(&scenario)?;
    ensure!(outcome.ending == Ending::PowerOff, "it ended with {:?}", outcome.ending);
    let dump = outcome.dump()?;
    let (.., status) = judge::dump_alone(dump, &scenario.kernel.release, &outcome.marker)?;
    ensure!(status.text("/targets/0/outcome")? == "failed", "{}", status.at("/targets")?);
    ensure!(status.text("/targets/1/target")?.starts_with("rootfs (ext4 "), "{}", status.at("/targets")?);
    let log = std::fs::read_to_string(dump.join("kexec-dmesg.log"))?;
    ensure!(log.contains("help: failed, target ext4 UUID=00000000"), "the emergency program did not run before it");
    Ok(())
}

/// A watchdog whose driver is at hand in the cloud kernel: it is the kernel's own, and resets like any other.
fn with_watchdog(name: &str) -> Result<Scenario> {
    Ok(Scenario {
        append: "softdog.soft_margin=10".into(),
        conf: vec!["extra_modules softdog".into(), "failure_action poweroff".into()],
        ..Scenario::of(kernel(Suite::Own)?, name)
    })
}

#[test]
#[ignore = "a boot that takes a minute; the decisions are tested without one"]
fn a_watchdog_is_kept_alive_while_a_dump_takes_longer_than_its_time() -> Result<()> {
    let scenario = Scenario {
        files: vec![
            GuestFile::text("/sys/class/block/.here", ""),
            GuestFile::text("/sys/class/watchdog/watchdog0/state", "active\n"),
            GuestFile::link("/sys/class/watchdog/watchdog0/device", "/sys/devices/platform/wdt"),
            GuestFile::text("/sys/devices/platform/wdt/driver/name", ""),
            GuestFile::link("/sys/devices/platform/wdt/driver/module", "/sys/module/softdog"),
            GuestFile::text("/sys/module/softdog/refcnt", "1\n"),
        ],
        other_collector: Some("/usr/libexec/saboteur slow 30 kdump-capture -z -d 31".into()),
        ..with_watchdog("watchdog-tended")?
    };
    let outcome = crash(&scenario)?;
    ensure!(outcome.console.contains("is kept alive"), "no watchdog was found:\n{}", outcome.console);
    ensure!(outcome.ending == Ending::Reboot, "it ended with {:?}", outcome.ending);
    judge::dump_alone(outcome.dump()?, &scenario.kernel.release, &outcome.marker)?;
    Ok(())
}

#[test]
#[ignore = "the counterpart of the one before"]
fn a_watchdog_that_nobody_tends_resets_the_machine() -> Result<()> {
    let scenario = Scenario {
        busybox: true,
        files: vec![GuestFile::script("/usr/local/bin/pre", "/sbin/modprobe softdog")],
        other_collector: Some("/usr/libexec/saboteur neglect 60".into()),
        ..with_watchdog("watchdog-neglected")?
    };
    let scenario = Scenario { conf: [scenario.conf, vec!["kdump_pre /usr/local/bin/pre".into()]].concat(), ..scenario };
    ensure!(crash(&scenario).is_err(), "it came to an ending of its own");
    let console = std::fs::read_to_string(scenario.folder().join("console.log"))?;
    ensure!(console.contains("softdog: Initiating system reboot"), "nothing reset it:\n{console}");
    Ok(())
}

/// A watchdog of the machine itself: QEMU's i6300esb, which resets it when nobody tends it.
#[test]
#[ignore = "fetches Debian's kernel for any machine, 70 MB, for its driver; a boot that takes a minute"]
fn a_watchdog_of_the_chipset_is_kept_alive_by_its_own_driver() -> Result<()> {
    let pci = "/sys/devices/pci0000:00/0000:00:1e.0";
    let mut files = vec![
        GuestFile::text(&format!("{pci}/modalias"), "pci:v00008086d000025ABsv00001AF4sd00001100bc08sc80i00\n"),
        GuestFile::link(&format!("{pci}/driver/module"), "/sys/module/i6300esb"),
        GuestFile::text("/sys/module/i6300esb/refcnt", "1\n"),
        GuestFile::text("/sys/class/watchdog/watchdog0/state", "active\n"),
        GuestFile::link("/sys/class/watchdog/watchdog0/device", pci),
    ];
    files.extend(GuestFile::virtio_disk());
    let scenario = Scenario {
        files,
        append: "i6300esb.heartbeat=20".into(),
        conf: vec!["failure_action poweroff".into()],
        // To lose its power instead would be an ending that is none of ours.
        qemu: ["-device", "i6300esb", "-action", "watchdog=poweroff"].map(str::to_owned).into(),
        other_collector: Some("/usr/libexec/saboteur slow 60 kdump-capture -z -d 31".into()),
        crashkernel_mib: 192,
        memory_mib: 768,
        ..Scenario::of(generic_kernel()?, "watchdog-chipset")
    };
    let outcome = crash(&scenario)?;
    ensure!(outcome.console.contains("is kept alive"), "no watchdog was found:\n{}", outcome.console);
    ensure!(outcome.ending == Ending::Reboot, "it ended with {:?}", outcome.ending);
    let loaded = outcome.status()?;
    let loaded = loaded.names("/modules/loaded")?;
    ensure!(loaded.contains(&"i6300esb"), "its driver was not loaded: {loaded:?}");
    judge::dump_alone(outcome.dump()?, &scenario.kernel.release, &outcome.marker)?;
    Ok(())
}
