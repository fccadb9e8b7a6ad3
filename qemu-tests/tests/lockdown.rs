//! A kernel that is locked down: what kdumpctl and kpatch make of it, and what the kernel itself then does.
//!
//! Nothing crashes. Without EFI there is no firmware that brings keys, so that such a kernel trusts nothing but the
//! certificate that was built into it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use qemu_tests::crash::{fill_disk, mkdumprd};
use qemu_tests::live::{Answer, Live, live};
use qemu_tests::prelude::*;
use qemu_tests::programs::programs;
use qemu_tests::provision::{Kernel, own_module};
use qemu_tests::signer::Signer;
use qemu_tests::trusting::trusting;
use qemu_tests::{folders, provision, tools};

const LOCKED: &str = "crashkernel=256M lockdown=integrity";
const LOADED: &str = "/bin/busybox cat /sys/kernel/kexec_crash_loaded";

/// What is typed, how it ends, and what it says.
type Step = (&'static str, i64, &'static [&'static str]);

/// As systemd does it, for the kernel tells of the lockdown there.
const SECURITYFS: Step = ("/bin/busybox mount -t securityfs none /sys/kernel/security", 0, &[]);
const IS_LOCKED: Step = ("/bin/busybox cat /sys/kernel/security/lockdown", 0, &["[integrity]"]);

/// Debian's own signed kernel is a stranger's without the firmware's keys.
const REFUSED: &[Step] = &[
    SECURITYFS,
    IS_LOCKED,
    ("kdumpctl start", 1, &["locked down (integrity)", "built into it", "without EFI", "boot without lockdown="]),
    // The kernel was asked, which the other call is not.
    ("/bin/busybox dmesg", 0, &["Lockdown: kdumpctl: kexec of unsigned images is restricted"]),
    (LOADED, 0, &["0"]),
    (
        "kdumpctl start --syscall load",
        1,
        &["kexec_load checks no signatures", "locked down (integrity)", "--syscall file"],
    ),
    (LOADED, 0, &["0"]),
    ("kdumpctl status -v", 3, &["Signatures:", "the kernel is locked down (integrity)"]),
    ("kpatch load /patches/bare.ko", 1, &["would refuse", "it has no signature", "lockdown"]),
    ("kpatch load /patches/strange.ko", 1, &["would refuse", "does not have its key", "CN=stranger's", "lockdown"]),
    // EPERM is 1.
    ("/bin/busybox insmod /patches/bare.ko", 1, &["Operation not permitted"]),
    ("/bin/busybox insmod /patches/strange.ko", 1, &["Operation not permitted"]),
    ("kpatch list", 0, &["Loaded patch modules:\n<NO_RESULT>"]),
    // One of Debian's.
    ("/bin/busybox insmod /patches/dummy.ko", 0, &[]),
];

#[test]
#[ignore = "boots of their own: a kernel that is locked down"]
fn a_locked_down_kernel_takes_no_kernel_and_no_patch_of_a_stranger_and_that_is_said_beforehand() -> Result<()> {
    let kernel = kernel(Suite::Own)?;
    let folder = fresh("lockdown-refused")?;
    let stranger = Signer::new(&folder.join("stranger"), "stranger's")?;
    let patch = fs::read(own_module(&kernel, "live-patch-one")?).context("unable to read the patch")?;
    let dummy = fs::read(kernel.modules.join("kernel/drivers/net/dummy.ko")).context("unable to read dummy")?;
    let mut files = with_kdump(&kernel, &folder, &fs::read(&kernel.vmlinuz)?)?;
    files.push(("/patches/strange.ko".into(), stranger.sign(&patch)?));
    files.push(("/patches/bare.ko".into(), patch));
    files.push(("/patches/dummy.ko".into(), dummy));
    expect("lockdown-refused-live", kernel, files, REFUSED)
}

const TAKEN: &[Step] = &[
    SECURITYFS,
    IS_LOCKED,
    ("kdumpctl start", 0, &["Starting kdump: [OK]"]),
    (LOADED, 0, &["1"]),
    ("kdumpctl status -v", 0, &["Kdump is operational", "(auto, kexec_file_load)"]),
    ("kdumpctl stop", 0, &[]),
    (LOADED, 0, &["0"]),
    ("kdumpctl start --syscall load", 1, &["kexec_load checks no signatures"]),
    ("kpatch load /patches/ours.ko", 0, &["live_patch_one is enabled"]),
    ("/bin/busybox cat /proc/cmdline", 0, &["live patch one\n"]),
    ("kpatch unload live_patch_one", 0, &[]),
];

/// The running kernel has our certificate built in; kernel, patch and drivers are signed by us.
#[test]
#[ignore = "boots of their own: a kernel that is locked down"]
fn a_locked_down_kernel_takes_a_kernel_and_a_patch_that_are_signed_with_a_key_of_its_own() -> Result<()> {
    let theirs = kernel(Suite::Own)?;
    let folder = fresh("lockdown-taken")?;
    let (kernel, trusted) = trusting(&theirs, &folder.join("trusting"))?;
    kernel.sign(&trusted, &["virtio_pci", "virtio_blk", "ext4"])?;
    let patch = fs::read(own_module(&theirs, "live-patch-one")?).context("unable to read the patch")?;
    let mut files = with_kdump(&theirs, &folder, &trusted.sign_kernel(&theirs.vmlinuz)?)?;
    files.push(("/patches/ours.ko".into(), trusted.sign(&patch)?));
    expect("lockdown-taken-live", kernel, files, TAKEN)
}

fn fresh(name: &str) -> Result<std::path::PathBuf> {
    provision::tools()?;
    let folder = folders::qemu().join("runs").join(name);
    folders::fresh(&folder)?;
    Ok(folder)
}

/// What kdump needs in the guest: configuration, `vmlinuz`, and the image for it.
fn with_kdump(kernel: &Kernel, folder: &Path, vmlinuz: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    let (programs, tree) = (programs()?, folder.join("disk"));
    let scenario = Scenario::of(kernel.clone(), "lockdown");
    fill_disk(&scenario, &programs, &tree)?;
    let image = format!("/boot/initramfs-{}kdump.img", kernel.release);
    tools::run(&mut mkdumprd(&scenario, &programs, &tree, &tree.join(image.trim_start_matches('/'))))?;
    let mut files = vec![(format!("/boot/vmlinuz-{}", kernel.release), vmlinuz.to_vec())];
    let config = format!("/boot/config-{}", kernel.release);
    for path in [image.as_str(), &config, "/etc/kdump.conf", "/etc/sysconfig/kdump"] {
        let bytes = fs::read(tree.join(path.trim_start_matches('/'))).with_context(|| format!("there is no {path}"))?;
        files.push((path.to_owned(), bytes));
    }
    Ok(files)
}

fn expect(name: &'static str, kernel: Kernel, files: Vec<(String, Vec<u8>)>, steps: &[Step]) -> Result<()> {
    let guest = Live {
        name,
        kernel,
        append: LOCKED,
        qemu: Vec::new(),
        programs: vec!["kdumpctl", "mkdumprd", "kdump-init", "kdump-capture", "kpatch"],
        files,
        commands: steps.iter().map(|(command, ..)| (*command).to_owned()).collect(),
    };
    let answers = live(&guest)?;
    ensure!(answers.len() == steps.len(), "a step is missing");
    let wrong = |(answer, (_, code, words)): (&Answer, &Step)| answer.expect(*code, words).err();
    let wrong: Vec<String> = answers.iter().zip(steps).filter_map(wrong).map(|error| format!("{error:#}")).collect();
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}
