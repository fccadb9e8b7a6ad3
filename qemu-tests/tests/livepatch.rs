//! kpatch on a real kernel, with live patches of our own: what it says, and what the kernel then does.

use std::fs;

use anyhow::{Context, Result, ensure};
use qemu_tests::live::{Live, live};
use qemu_tests::prelude::*;
use qemu_tests::provision::{Kernel, own_module};

/// What is typed, how it ends, and what it says.
type Step = (&'static str, i64, &'static [&'static str]);

const STEPS: &[Step] = &[
    ("kpatch list", 0, &["Loaded patch modules:\n<NO_RESULT>\n\nInstalled patch modules:\n<NO_RESULT>\n"]),
    ("kpatch install /patches/live-patch-one.ko", 0, &["installing live_patch_one (", "there is no kpatch.service"]),
    ("kpatch load live_patch_one", 0, &["live_patch_one is enabled"]),
    ("/bin/busybox cat /proc/cmdline", 0, &["live patch one\n"]),
    ("kpatch list", 0, &["live_patch_one [enabled]\n\nInstalled patch modules:\nlive_patch_one ("]),
    ("kpatch load --all", 0, &["already enabled"]),
    // Another one on top of it.
    ("kpatch load /patches/live-patch-two.ko", 0, &["live_patch_two is enabled"]),
    ("/bin/busybox cat /proc/cmdline", 0, &["live patch two\n"]),
    // Another build of it, by the note that the kernel shows.
    ("kpatch load /patches/live-patch-two.ko", 0, &["live_patch_two is already enabled"]),
    ("kpatch load /patches/other/live-patch-two.ko", 1, &["another build of live_patch_two is loaded"]),
    ("kpatch list --json", 0, &["\"state\": \"enabled\"", "\"vmlinux/cmdline_proc_show\""]),
    ("kpatch unload live-patch-two", 0, &["unloading"]),
    ("/bin/busybox cat /proc/cmdline", 0, &["live patch one\n"]),
    // One in the place of all others, and an old one on top of that.
    ("kpatch load /patches/live-patch-three.ko", 0, &["has replaced live_patch_one"]),
    ("/bin/busybox cat /proc/cmdline", 0, &["live patch three\n"]),
    ("kpatch load live_patch_one", 0, &["live_patch_one is enabled"]),
    ("kpatch uninstall live_patch_one", 0, &["stays so until the next reboot"]),
    ("kpatch unload --all", 0, &[]),
    ("/bin/busybox cat /proc/cmdline", 0, &["guest.mode=commands"]),
    ("/bin/busybox ls /sys/module", 0, &[]),
    // What is refused.
    ("kpatch load /patches/wrong-kernel.ko", 1, &["was built for kernel 9.", "is running"]),
    ("kpatch load /patches/holder.ko", 1, &["but no live patch"]),
    ("kpatch load /patches/live-patch-held-cut.ko", 1, &["is no kernel module"]),
    ("kpatch install /patches/live-patch-two.ko", 0, &[]),
    (
        "/bin/busybox dd if=/patches/garbage of=/var/lib/kpatch/KERNEL/live-patch-two.ko conv=notrunc bs=1 seek=64",
        0,
        &[],
    ),
    ("kpatch load live_patch_two", 1, &["is not what was installed as live_patch_two"]),
    ("kpatch load nothing", 1, &["no patch nothing is installed"]),
    ("kpatch unload printk", 1, &["printk is no live patch, but a part of the kernel itself"]),
    // A task in the patched function holds the transition up.
    ("/bin/busybox insmod /patches/holder.ko", 0, &[]),
    ("kpatch unload holder", 1, &["the module holder that is loaded is no live patch, and is left alone"]),
    ("& /bin/busybox cat /proc/holder", 0, &[]),
    ("/bin/busybox sleep 2", 0, &[]),
    (
        "kpatch load --timeout 4 /patches/live-patch-held.ko",
        1,
        &["was not enabled", "reversed", "busybox (pid ", "holder_wait"],
    ),
    (
        "/bin/busybox timeout -s INT 10 /usr/sbin/kpatch load /patches/live-patch-held.ko",
        1,
        &["was not enabled", "reversed", "SIGINT came before the transition of live_patch_held was done"],
    ),
    ("kpatch list", 0, &["Loaded patch modules:\n<NO_RESULT>\n"]),
    ("/bin/busybox dd if=/patches/garbage of=/proc/holder", 0, &[]),
    ("/bin/busybox sleep 2", 0, &[]),
    ("kpatch load /patches/live-patch-held.ko", 0, &["live_patch_held is enabled"]),
    // A task in the patch itself holds up the way out; once that is forced, the kernel keeps the module.
    ("kpatch load /patches/live-patch-holding.ko", 0, &["live_patch_holding is enabled"]),
    ("& /bin/busybox cat /proc/holder", 0, &[]),
    ("/bin/busybox sleep 2", 0, &[]),
    ("kpatch unload --timeout 4 live_patch_holding", 1, &["was not disabled", "reversed", "busybox (pid ", "instead"]),
    ("kpatch list", 0, &["live_patch_holding [enabled]"]),
    (
        "kpatch unload --force --timeout 2 live_patch_holding",
        0,
        &["forcing the transition", "is disabled; its module stays until the reboot"],
    ),
    ("kpatch list", 0, &["Loaded patch modules:\nlive_patch_held [enabled]\n\n"]),
    ("/bin/busybox ls /sys/module", 0, &["live_patch_holding"]),
    ("kpatch load /patches/live-patch-holding.ko", 1, &["is still there", "was forced"]),
    ("kpatch version", 0, &["0."]),
];

#[test]
fn live_patches_are_loaded_stacked_replaced_and_reversed() -> Result<()> {
    let kernel = kernel(Suite::Own)?;
    let commands = STEPS.iter().map(|(command, ..)| command.replace("KERNEL", &kernel.release));
    let guest = Live {
        name: "livepatch",
        append: "",
        qemu: Vec::new(),
        programs: vec!["kpatch"],
        files: files(&kernel)?,
        commands: commands.collect(),
        kernel,
    };
    let answers = live(&guest)?;
    for (answer, (_, code, words)) in answers.iter().zip(STEPS) {
        answer.expect(*code, words)?;
    }
    let modules =
        answers.iter().find(|answer| answer.command.ends_with("/sys/module")).context("no list of modules")?;
    ensure!(!modules.out.contains("live_patch"), "modules of patches are left: {}", modules.out);
    ensure!(answers.len() == STEPS.len(), "a step is missing");
    Ok(())
}

/// The patches, sound and otherwise.
fn files(kernel: &Kernel) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for name in
        ["live-patch-one", "live-patch-two", "live-patch-three", "live-patch-held", "live-patch-holding", "holder"]
    {
        let content = fs::read(own_module(kernel, name)?).with_context(|| format!("unable to read {name}"))?;
        files.push((format!("/patches/{name}.ko"), content));
    }
    let two = files.iter().find(|(path, _)| path.contains("two")).context("no patch")?.1.clone();
    files.push(("/patches/other/live-patch-two.ko".into(), of_another_build(two)?));
    let held = files.iter().find(|(path, _)| path.contains("held")).context("no patch")?.1.clone();
    files.push(("/patches/live-patch-held-cut.ko".into(), held.iter().take(100).copied().collect()));
    files.push(("/patches/wrong-kernel.ko".into(), for_another_kernel(held, &kernel.release)?));
    files.push(("/patches/garbage".into(), vec![b'x'; 4]));
    Ok(files)
}

/// The module with another note of its build.
fn of_another_build(mut module: Vec<u8>) -> Result<Vec<u8>> {
    // The sizes of name and sum, the kind of note, its name.
    let note = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0";
    let at = module.windows(note.len()).position(|window| window == note).context("no note of its build")?;
    let digit = module.get_mut(at + note.len()).context("the note is cut")?;
    *digit ^= 1;
    Ok(module)
}

/// The module with a release in its version magic that no kernel has.
fn for_another_kernel(mut module: Vec<u8>, release: &str) -> Result<Vec<u8>> {
    let magic = format!("vermagic={release} ").into_bytes();
    let at = module.windows(magic.len()).position(|window| window == magic).context("no version magic")?;
    let digit = module.get_mut(at + "vermagic=".len()).context("no release")?;
    *digit = b'9';
    Ok(module)
}
