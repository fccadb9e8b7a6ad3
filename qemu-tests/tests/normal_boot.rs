//! The same init boots a system: a small Debian comes up to multi-user.target, and what goes wrong is said.

use anyhow::{Context, Result, ensure};
use qemu_tests::normal::{NormalBoot, OWN_INIT_PATH, Then, boot};
use qemu_tests::prelude::*;

#[test]
fn debian_comes_up_and_a_capture_kernel_that_was_loaded_early_saves_its_crash() -> Result<()> {
    let scenario = Scenario { memory_mib: 768, ..Scenario::of(kernel(Suite::Own)?, "normal-boot") };
    let append =
        format!("root=LABEL={LABEL} ro rd.earlykdump crashkernel=128M panic=-1 loglevel=5 systemd.show_status=1");
    let options = vec!["--early-kdump".into(), "--sysctl".into()];
    let outcome = boot(&NormalBoot { scenario, options, append, then: Then::Crash })?;
    outcome.booted_after.context("multi-user.target was not reached")?;
    ensure!(outcome.said("pid1")? == "systemd", "PID 1 is {}", outcome.said("pid1")?);
    ensure!(
        outcome.said("root")?.starts_with("ext4") && outcome.said("root")?.contains("rw,"),
        "the root is {}",
        outcome.said("root")?
    );
    ensure!(outcome.said("swappiness")? == "37", "the image's sysctl.conf was not applied");
    // The files of an initramfs are in memory that cannot be swapped; what is left is not the image's 25 MB.
    let unevictable: u64 = outcome.said("unevictable")?.parse()?;
    ensure!(unevictable < 8 * 1024, "the image's files still take {unevictable} kB");
    let mounts: Vec<&str> = outcome.said("mounts")?.split(' ').collect();
    ensure!(["/", "/dev", "/proc", "/run", "/sys"].iter().all(|point| mounts.contains(point)), "mounts: {mounts:?}");
    ensure!(!mounts.iter().any(|point| point.starts_with("/sysroot")), "mounts: {mounts:?}");
    ensure!(outcome.said("failed")?.is_empty(), "units failed: {}", outcome.said("failed")?);
    ensure!(outcome.said("loaded")? == "1", "rd.earlykdump loaded nothing");
    ensure!(outcome.ending == Ending::Reboot, "the capture kernel's ending was {:?}", outcome.ending);
    let dump = outcome.dump.context("the crash left no dump")?;
    ensure!(dump.join("vmcore").exists() && dump.join("vmcore-dmesg.txt").exists(), "the dump is not whole");
    qemu_tests::status::Status::read(&dump.join("status.json"))?.expect_outcome("complete")
}

#[test]
fn an_init_of_another_make_gets_its_arguments_and_a_writable_root() -> Result<()> {
    let scenario = Scenario::of(kernel(Suite::Own)?, "own-init");
    let append = format!(
        "root=/dev/vda rw rootwait rootfstype=xfs,ext4 rootflags=noatime loglevel=5 init={OWN_INIT_PATH} -- one two"
    );
    let outcome = boot(&NormalBoot { scenario, options: Vec::new(), append, then: Then::PowerOff })?;
    ensure!(outcome.said("pid")? == "1", "it is process {}", outcome.said("pid")?);
    ensure!(outcome.said("arguments")? == "one two", "its arguments are {}", outcome.said("arguments")?);
    let root = outcome.said("root")?;
    ensure!(root.starts_with("ext4") && root.contains("rw,noatime"), "the root is {root}");
    ensure!(outcome.said("proc")? == "own-init", "/proc is not where it should be");
    ensure!(outcome.ending == Ending::PowerOff, "the ending was {:?}", outcome.ending);
    Ok(())
}

#[test]
fn a_root_that_is_not_there_is_named_and_the_failure_action_follows() -> Result<()> {
    const MISSING: &str = "00000000-0000-4000-8000-00000000dead";
    let scenario = Scenario::of(kernel(Suite::Own)?, "missing-root");
    let append = format!("root=UUID={MISSING} rd.timeout=8 rd.emergency=poweroff rd.break loglevel=5");
    let outcome = boot(&NormalBoot { scenario, options: Vec::new(), append, then: Then::PowerOff })?;
    ensure!(outcome.ending == Ending::PowerOff, "the failure action was {:?}", outcome.ending);
    let says = |words: &[&str]| outcome.console.lines().any(|line| words.iter().all(|word| line.contains(word)));
    ensure!(
        says(&["THE SYSTEM CANNOT BE BOOTED", MISSING, "did not appear within 8 s", LABEL, "failure action: poweroff"]),
        "the console does not give the reason:\n{}",
        outcome.console
    );
    ensure!(says(&["waiting for", MISSING]), "nothing said what the boot was waiting for");
    ensure!(says(&["rd.break is asked for", "no shell"]), "rd.break was passed over in silence");
    ensure!(outcome.booted_after.is_none(), "it booted all the same");
    Ok(())
}
