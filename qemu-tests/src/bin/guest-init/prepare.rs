//! From a bare kernel to the disk as root; and the ending.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

const DISK: &str = "/dev/vda";
const ROOT: &str = "/sysroot";
const LIMIT: Duration = Duration::from_secs(60);

/// Mounts proc, sysfs and devtmpfs below `root`.
pub(crate) fn mount_kernel_filesystems(root: &str) -> Result<()> {
    for (kind, place) in [("proc", "proc"), ("sysfs", "sys"), ("devtmpfs", "dev")] {
        let place = format!("{root}/{place}");
        fs::create_dir_all(&place).with_context(|| format!("unable to make {place}"))?;
        match mount(Some(kind), place.as_str(), Some(kind), MsFlags::empty(), None::<&str>) {
            // Some kernels mount devtmpfs themselves.
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(error) => return Err(error).with_context(|| format!("unable to mount {kind} on {place}")),
        }
    }
    Ok(())
}

/// Loads what the host packed, in the host's order.
pub(crate) fn load_modules() -> Result<()> {
    let order = fs::read_to_string("/modules/order").context("unable to read the packed order of modules")?;
    for name in order.lines() {
        let file = File::open(Path::new("/modules").join(name)).with_context(|| format!("unable to open {name}"))?;
        match finit_module(file.as_fd(), c"", ModuleInitFlags::empty()) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error).with_context(|| format!("the kernel refused the module {name}")),
        }
    }
    Ok(())
}

/// Waits for the disk, mounts it and makes it the root.
pub(crate) fn enter_disk() -> Result<()> {
    let began = Instant::now();
    while !Path::new(DISK).exists() {
        if began.elapsed() > LIMIT {
            bail!("{DISK} did not appear within {} s", LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    fs::create_dir_all(ROOT)?;
    mount(Some(DISK), ROOT, Some("ext4"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("unable to mount {DISK}"))?;
    mount_kernel_filesystems(ROOT)?;
    nix::unistd::chroot(ROOT).with_context(|| format!("unable to enter {ROOT}"))?;
    std::env::set_current_dir("/").context("unable to enter the new root")
}

/// Ends the machine. PID 1 must not end, whatever the kernel answers.
pub(crate) fn power_off() -> ! {
    nix::unistd::sync();
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    println!("GUEST: failed: unable to power off: {error}");
    loop {
        std::thread::sleep(LIMIT);
    }
}
