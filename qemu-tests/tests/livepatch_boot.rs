//! Live patches at boot: by the service, by the image before any driver, not at all where that is asked for, and not a
//! third time if two boots were not finished with them. What was active in a kernel that crashed is in its dump.

use std::fs;

use anyhow::{Context, Result, ensure};
use qemu_tests::grub_disk;
use qemu_tests::patched::{Boot, Outcome, Starter, System};
use qemu_tests::prelude::*;
use qemu_tests::status::Status;

const VERSION: &str = "cat /proc/version";
const PATCHED: &str = "live patch of the version\n";
const ENABLED: &str = "Loaded patch modules:\nlive_patch_version [enabled]\n";
const NONE: &str = "Loaded patch modules:\n<NO_RESULT>\n";
/// What the guard has noted.
const MARKER: &str = "cat /sys/firmware/efi/efivars/KpatchBoots-*";

/// What each command is to end with and to say, of either output.
type Expected = &'static [(&'static str, i64, &'static [&'static str])];

/// The image has no patch; the service loads what is installed.
const SERVICE: Expected = &[
    (VERSION, 0, &[PATCHED]),
    ("systemctl is-enabled kpatch.service kpatch-booted.service", 0, &["enabled\nenabled\n"]),
    ("systemctl is-active kpatch.service kpatch-booted.service", 0, &["active\nactive\n"]),
    ("kpatch list", 0, &[ENABLED, "Installed patch modules:\nlive_patch_version ("]),
    ("journalctl --sync && journalctl --no-pager --boot --unit kpatch.service", 0, &["live_patch_version is enabled"]),
    // Neither stopping nor disabling takes a patch out.
    ("systemctl disable kpatch.service && systemctl stop kpatch.service", 0, &[]),
    // The image of the next boot loads patches all the same, and somebody has to note that it was finished.
    ("systemctl is-enabled kpatch.service kpatch-booted.service", 0, &["disabled\nenabled\n"]),
    (VERSION, 0, &[PATCHED]),
    ("kpatch unload --all && kpatch list", 0, &[NONE]),
    (VERSION, 0, &["Linux version "]),
    ("systemctl start kpatch.service", 0, &[]),
    (VERSION, 0, &[PATCHED]),
];

/// The image loads it, though the service has been disabled; once that is back, it finds that it is there.
const IMAGE: Expected = &[
    (VERSION, 0, &[PATCHED]),
    ("systemctl is-active kpatch.service kpatch-booted.service", 0, &["inactive\nactive\n"]),
    ("systemctl enable --now kpatch.service", 0, &[]),
    ("systemctl is-active kpatch.service kpatch-booted.service", 0, &["active\nactive\n"]),
    (
        "journalctl --sync && journalctl --no-pager --boot --unit kpatch.service",
        0,
        &["live_patch_version is already enabled"],
    ),
    (
        "journalctl --sync && journalctl --no-pager --boot --unit kpatch-booted.service",
        0,
        &["live_patch_version: the boot is finished with it"],
    ),
    (MARKER, 1, &["No such file"]),
    ("cat /sys/kernel/kexec_crash_loaded", 0, &["1\n"]),
];

/// `kpatch.enable=0`: nobody loads it. Then another one takes its place.
const OFF: Expected = &[
    (VERSION, 0, &["Linux version "]),
    ("kpatch list", 0, &[NONE]),
    ("systemctl is-active kpatch.service", 3, &["inactive\n"]),
    ("kpatch load --all", 0, &["kpatch.enable=0 is on the kernel command line"]),
    (
        "kpatch uninstall live-patch-version",
        0,
        &["uninstalling live_patch_version", "updated the live patches in /boot"],
    ),
    ("systemctl is-enabled kpatch.service", 0, &["enabled\n"]),
    (
        "kpatch install /root/patches/live-patch-panic.ko",
        0,
        &["installing live_patch_panic", "updated the live patches in /boot"],
    ),
];

/// Two boots were not finished with it: neither the image nor the service loads it.
const BARRED: Expected = &[
    ("kpatch list", 0, &[NONE, "Installed patch modules:\nlive_patch_panic ("]),
    ("systemctl is-active kpatch.service", 3, &["failed\n"]),
    (
        "journalctl --sync && journalctl --no-pager --boot --unit kpatch.service",
        0,
        &["did not finish its last 2 boots with it"],
    ),
    (MARKER, 0, &["live_patch_panic "]),
    ("kpatch uninstall live_patch_panic", 0, &["uninstalling live_patch_panic"]),
    (MARKER, 1, &["No such file"]),
];

/// The same on a machine whose boots GRUB counts.
const BARRED_BY_GRUB: Expected = &[
    ("cat /proc/cmdline", 0, &["kpatch.boots=3 kpatch.accounts=\n"]),
    ("kpatch list", 0, &[NONE, "Installed patch modules:\nlive_patch_panic ("]),
    (
        "journalctl --sync && journalctl --no-pager --boot --unit kpatch.service",
        0,
        &["did not finish its last 2 boots with it"],
    ),
    ("systemctl is-active kpatch-booted.service", 0, &["active\n"]),
    // That boot is finished: the count begins anew, and the patch stays where it is.
    ("grep -o kpatch_.* /boot/grub/grubenv", 0, &["kpatch_accounts=live_patch_panic:"]),
    ("grep kpatch_boots /boot/grub/grubenv", 1, &[]),
];

fn boot(name: &'static str, append: &'static str, expected: Expected, crashes: bool) -> Boot {
    Boot { name, append, commands: expected.iter().map(|(command, ..)| *command).collect(), crashes }
}

fn check(outcome: &Outcome, expected: Expected) -> Result<()> {
    ensure!(outcome.answers.len() == expected.len(), "an answer is missing");
    for (answer, (_, code, words)) in outcome.answers.iter().zip(expected) {
        answer.expect(*code, words)?;
    }
    Ok(())
}

#[test]
fn patches_are_loaded_at_boot_shown_in_a_crash_and_passed_over_when_no_boot_survives_them() -> Result<()> {
    let scenario = Scenario { memory_mib: 768, ..Scenario::of(kernel(Suite::Own)?, "livepatch-boot") };
    let crash = "rd.earlykdump crashkernel=128M";
    let service = boot("service", "", SERVICE, false);
    let image = boot("image", crash, IMAGE, true);
    let off = boot("off", "kpatch.enable=0", OFF, false);
    let barred = boot("barred", "", BARRED, false);
    let boots = [service.clone(), image.clone(), off.clone(), barred.clone()];
    let patches = ["live-patch-version", "live-patch-panic"];
    let system = System::new(scenario, Starter::Efi, &patches, &patches[..1], &boots)?;

    check(&system.boot(&service, &system.bare)?, SERVICE)?;

    let with_patch = system.image()?;
    let (bare, grown) = (fs::read(&system.bare)?, fs::read(&with_patch)?);
    // The mark is all that the bare image has at its end.
    ensure!(grown.len() > bare.len() && grown.starts_with(&bare[..bare.len() - 4096]), "the image was built anew");
    check(&system.boot(&image, &with_patch)?, IMAGE)?;
    let dump = system.dump()?;
    let status = Status::read(&dump.join("status.json"))?;
    status.expect_outcome("complete")?;
    ensure!(status.names("/log/live_patches")? == ["live_patch_version"], "{:?}", status.at("/log"));
    let log = fs::read_to_string(dump.join("vmcore-dmesg.txt"))?;
    let line = |words: &str| log.lines().position(|line| line.contains(words)).with_context(|| format!("no {words}"));
    ensure!(line("'live_patch_version': patching complete")? < line("virtio_blk virtio")?, "a driver came first");

    check(&system.boot(&off, &with_patch)?, OFF)?;

    let with_panic = system.image()?;
    for name in ["first", "second"] {
        system.boot_until(name, &with_panic, "Kernel panic - not syncing: a live patch that no boot survives")?;
    }
    let outcome = system.boot(&barred, &with_panic)?;
    check(&outcome, BARRED)?;
    let told =
        outcome.console.lines().any(|line| line.contains("live_patch_panic is not loaded: the machine did not finish"));
    ensure!(told, "the image does not say why it passed the patch over:\n{}", outcome.console);
    Ok(())
}

#[test]
fn without_efi_grub_counts_the_boots_and_the_third_passes_over_what_two_did_not_survive() -> Result<()> {
    let scenario = Scenario { memory_mib: 768, ..Scenario::of(kernel(Suite::Own)?, "livepatch-grub") };
    let barred = boot("barred", "", BARRED_BY_GRUB, false);
    let patches = ["live-patch-panic"];
    let system = System::new(scenario, Starter::Grub, &patches, &patches, std::slice::from_ref(&barred))?;
    for (name, count) in [("first", "GRUB: start 1"), ("second", "GRUB: start 2")] {
        let words = "Kernel panic - not syncing: a live patch that no boot survives";
        let console = system.boot_until(name, &system.bare, words)?;
        ensure!(console.contains(count), "GRUB did not count: {console}");
    }
    let outcome = system.boot(&barred, &system.bare)?;
    check(&outcome, BARRED_BY_GRUB)?;
    let told = |line: &str| line.contains("live_patch_panic is not loaded: the machine did not finish");
    ensure!(outcome.console.lines().any(told), "the image does not say why it passed the patch over");
    let block = grub_disk::block(&system.grub())?;
    ensure!(block.starts_with("kpatch_accounts=live_patch_panic:") && block.trim().ends_with(":3"), "{block:?}");
    // What is kept there bars it in the next boot, which is the first again.
    let console =
        system.boot_until("next", &system.bare, "live_patch_panic is not loaded: the machine did not finish")?;
    ensure!(console.contains("GRUB: start 1"), "the count has not begun anew: {console}");
    Ok(())
}
