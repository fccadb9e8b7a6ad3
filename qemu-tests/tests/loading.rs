//! The ways to load a capture kernel, and to crash a machine for a test.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use qemu_tests::prelude::*;
use qemu_tests::programs::programs;
use qemu_tests::tools;

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
