//! Counts the running kernel's pages with our collector and with makedumpfile, side by side. Out: files in a folder of the
//! disk, which the host takes off.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use qemu_tests::mem_usage::{FOLDER, IOMEM, MAKEDUMPFILE, OURS, TABLE};
use qemu_tests::provision::ORACLE_IN_GUEST;

const KCORE: &str = "/proc/kcore";
const OUR_COLLECTOR: &str = "/usr/sbin/kdump-capture";

/// Runs all counts, one after the other.
pub(crate) fn measure() -> Result<()> {
    fs::create_dir_all(FOLDER).with_context(|| format!("unable to make {FOLDER}"))?;
    fs::copy("/proc/iomem", format!("{FOLDER}/{IOMEM}")).context("unable to keep /proc/iomem")?;
    let mut ours = Command::new(OUR_COLLECTOR);
    keep(ours.args(["--mem-usage", "--json", "--message-level", "4", KCORE]), OURS)?;
    let [loader, words @ ..] = ORACLE_IN_GUEST;
    keep(Command::new(loader).args(words).args(["--mem-usage", KCORE]), MAKEDUMPFILE)?;
    // Called by the name under which scripts know it.
    let name = "/usr/sbin/makedumpfile";
    std::os::unix::fs::symlink(OUR_COLLECTOR, name).with_context(|| format!("unable to make the link {name}"))?;
    keep(Command::new(name).args(["-f", "--mem-usage", KCORE]), TABLE)
}

/// Keeps what a program says; it must succeed.
fn keep(command: &mut Command, name: &str) -> Result<()> {
    let output = command.output().with_context(|| format!("unable to run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    fs::write(format!("{FOLDER}/{name}"), output.stdout).with_context(|| format!("unable to keep {name}"))
}
