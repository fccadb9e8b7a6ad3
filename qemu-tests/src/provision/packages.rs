//! Host programs, and the packages that bring them.

use anyhow::{Context, Result, bail};

use crate::{folders, progress, tools};

/// Program and package, for the demo and for every test that boots.
const NEEDED: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("mkfs.ext4", "e2fsprogs"),
    ("debugfs", "e2fsprogs"),
    ("cpio", "cpio"),
    ("depmod", "kmod"),
    ("modprobe", "kmod"),
    ("tar", "tar"),
];

/// Sees to it that QEMU and the other host programs are there.
pub fn tools() -> Result<()> {
    ensure(NEEDED)
}

/// Sees to it that there is what the readers of dumps need: Python with its installer of packages, and the program by
/// which crash looks for a release where it has no other way.
pub(super) fn for_readers() -> Result<()> {
    ensure(&[("python3", "python3"), ("pip3", "python3-pip"), ("strings", "binutils")])
}

/// Sees to it that a kernel module can be built.
pub(super) fn compiler() -> Result<()> {
    ensure(&[("gcc-12", "gcc-12"), ("make", "make"), ("strip", "binutils")])
}

/// Sees to it that there is what makes keys and certificates, and what gives a server file systems of its own.
pub(super) fn for_servers() -> Result<()> {
    ensure(&[("ssh-keygen", "openssh-client"), ("openssl", "openssl"), ("unshare", "util-linux")])
}

/// Sees to it that keys and certificates can be made.
pub fn openssl() -> Result<()> {
    ensure(&[("openssl", "openssl")])
}

/// Sees to it that kernels can be signed as EFI has it.
pub fn sbsign() -> Result<()> {
    ensure(&[("sbsign", "sbsigntool"), ("sbattach", "sbsigntool")])
}

/// Sees to it that sections can be put into a program.
pub(super) fn for_sections() -> Result<()> {
    ensure(&[("objcopy", "binutils")])
}

/// Sees to it that there is what makes a whole Debian system.
pub(super) fn for_debian_root() -> Result<()> {
    ensure(&[("debootstrap", "debootstrap")])
}

/// Sees to it that there is what judges manual pages.
pub fn for_manual_pages() -> Result<()> {
    ensure(&[("mandoc", "mandoc")])
}

/// Sees to it that there is what handles RPMs, and what looks for faults of packages and of their scripts.
pub fn for_packages() -> Result<()> {
    ensure(&[("rpm", "rpm"), ("lintian", "lintian"), ("shellcheck", "shellcheck")])
}

fn missing(wanted: &[(&str, &'static str)]) -> Vec<&'static str> {
    let mut packages: Vec<&str> =
        wanted.iter().filter(|(program, _)| tools::find(program).is_none()).map(|(_, package)| *package).collect();
    packages.dedup();
    packages
}

fn ensure(wanted: &[(&str, &'static str)]) -> Result<()> {
    let packages = missing(wanted);
    if packages.is_empty() {
        return Ok(());
    }
    let remedy = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    if tools::find("apt-get").is_none() {
        bail!("this machine has no apt-get; install the counterparts of these Debian packages: {}", packages.join(" "));
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("these packages are missing, and only root can install them: {remedy}");
    }
    let _lock = folders::lock("machine-apt")?;
    // Another process may have installed them meanwhile.
    let packages = missing(wanted);
    if packages.is_empty() {
        return Ok(());
    }
    progress::timed(&format!("installing {}", packages.join(", ")), || {
        super::apt::install(&packages).with_context(|| format!("unable to install what is missing; try: {remedy}"))
    })?;
    match missing(wanted).as_slice() {
        [] => Ok(()),
        still => {
            bail!("apt-get reported success, yet the programs of these packages are not found: {}", still.join(" "))
        }
    }
}
