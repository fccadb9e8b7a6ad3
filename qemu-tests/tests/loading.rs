//! The ways to load a capture kernel, and to crash a machine for a test.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use qemu_tests::crash::{fill_disk, mkdumprd};
use qemu_tests::prelude::*;
use qemu_tests::programs::programs;
use qemu_tests::{folders, provision, tools};

/// The dump is judged against its whole source: the headers of `/proc/vmcore` are ours here. `kdumpctl test` crashes the
/// machine, and finds what came of it.
#[test]
fn a_kernel_that_is_loaded_by_kexec_load_saves_the_dump_of_a_test() -> Result<()> {
    let scenario = Scenario {
        start: "--syscall load",
        by_test: true,
        keep_raw: true,
        ..Scenario::of(kernel(Suite::Own)?, "kexec-load")
    };
    let outcome = crash(&scenario)?;
    ensure!(outcome.console.contains("kdump.img by kexec_load"), "it was loaded by another call");
    judge::against_source(&scenario, &outcome)?;

    // The machine after the reboot, as far as the result is found there.
    let machine = scenario.folder().join("after");
    for folder in ["etc", "var/lib"] {
        fs::create_dir_all(machine.join(folder))?;
    }
    fs::write(machine.join("etc/kdump.conf"), "path /var/crash\n")?;
    fs::rename(scenario.folder().join("kdump"), machine.join("var/lib/kdump")).context("no test was noted")?;
    let dump = outcome.dump()?;
    fs::rename(dump.parent().context("the dump is in no folder")?, machine.join("var/crash"))?;
    let kdumpctl = || {
        let mut command = Command::new(programs()?.path("kdumpctl"));
        command.arg("--sysroot").arg(&machine);
        anyhow::Ok(command)
    };
    let said = tools::text(kdumpctl()?.args(["test", "--result"]))?;
    ensure!(said.contains("succeeded: "), "{said}");
    let listed = tools::text(kdumpctl()?.args(["dumps", "list"]))?;
    ensure!(listed.contains("complete") && listed.contains("sysrq triggered crash"), "{listed}");
    let verified = tools::text(kdumpctl()?.args(["dumps", "verify"]))?;
    ensure!(verified.contains(": sound, "), "{verified}");
    Ok(())
}

/// Linux 6.12 keeps the headers of the dump up to date itself, in the room that it asks for.
#[test]
#[ignore = "as the first one, with a newer kernel"]
fn a_kernel_that_follows_hotplug_saves_a_dump_when_it_is_loaded_by_kexec_load() -> Result<()> {
    let scenario = Scenario {
        start: "--syscall load",
        keep_raw: true,
        ..Scenario::of(kernel(Suite::Trixie)?, "kexec-load-newer")
    };
    let outcome = crash(&scenario)?;
    ensure!(outcome.console.contains("kdump.img by kexec_load"), "it was loaded by another call");
    judge::against_source(&scenario, &outcome)?;
    Ok(())
}

/// The very kernel and image, in a virtual machine that kdumpctl makes itself. A second one has too little memory.
#[test]
fn a_rehearsal_tells_what_a_crash_would_come_to() -> Result<()> {
    provision::tools()?;
    let programs = programs()?;
    let scenario = Scenario { default_command_line: true, ..Scenario::of(kernel(Suite::Own)?, "rehearsal") };
    folders::fresh(&scenario.folder())?;
    let tree = scenario.folder().join("disk");
    fill_disk(&scenario, &programs, &tree)?;
    let image = tree.join("boot").join(format!("initramfs-{}kdump.img", scenario.kernel.release));
    tools::run(&mut mkdumprd(&scenario, &programs, &tree, &image))?;
    let _slot = folders::lock_any("slots", std::thread::available_parallelism().map_or(1, std::num::NonZero::get))?;
    let rehearse = |memory: &str, keep: &str| {
        let mut command = Command::new(programs.path("kdumpctl"));
        command.arg("--sysroot").arg(&tree).args(["rehearse", "--json", "--memory", memory, "--accel", "tcg"]);
        command.arg("--kernel").arg(&scenario.kernel.vmlinuz).arg("--image").arg(&image);
        command.args(["--qemu=-cpu", "--qemu=max,-cx16", "--limit", "240", "--keep"]).arg(scenario.folder().join(keep));
        let output = command.output().context("unable to run kdumpctl")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let report: serde_json::Value = serde_json::from_str(&text)
            .with_context(|| format!("no report but {text}{}", String::from_utf8_lossy(&output.stderr)))?;
        anyhow::Ok((output.status.success(), report))
    };
    let (succeeded, report) = rehearse("128", "enough")?;
    ensure!(succeeded && report["complete"] == true && report["verified"] == true, "{report:#}");
    ensure!(report["memory_left"].as_u64().is_some_and(|left| left > 16 << 20), "{report:#}");
    let panic = report.pointer("/status/vmcore/panic_line").and_then(serde_json::Value::as_str);
    ensure!(panic.is_some_and(|line| line.contains("kdumpctl rehearsal")), "{report:#}");
    let (succeeded, report) = rehearse("40", "too-little")?;
    ensure!(
        !succeeded && report["complete"] == false && reason_of(&report).contains("ran out of memory"),
        "{report:#}"
    );
    Ok(())
}

fn reason_of(report: &serde_json::Value) -> &str {
    report["reason"].as_str().unwrap_or_default()
}
