//! The files of a small Debian system with systemd, of the machine's own release.
//!
//! Surprising: debootstrap runs the packages' own scripts in a chroot, so that only root can make it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{later, packages};
use crate::{folders, tools};

/// Copies the system to `tree`, where it can be changed. Nobody can log in on its serial console: who asks for a name there
/// empties the port's buffers first, and with them what somebody else has just said.
pub fn debian_system(tree: &Path) -> Result<()> {
    tools::run(tools::command("cp").arg("-a").arg(debian_root()?).arg(tree))?;
    let getty = tree.join("etc/systemd/system/serial-getty@ttyS0.service");
    symlink("/dev/null", &getty).with_context(|| format!("unable to mask {}", getty.display()))
}

/// The folder with the system's files, made when it is not there.
fn debian_root() -> Result<PathBuf> {
    packages::for_debian_root()?;
    let folder = folders::qemu().join("debian-root");
    folders::made_once(&folder, "a small Debian system (debootstrap)", |folder| {
        ensure!(nix::unistd::geteuid().is_root(), "only root can run debootstrap, which makes a Debian system");
        let mut command = tools::command("debootstrap");
        command.args(["--variant=minbase", "--include=systemd-sysv,udev", &later::codename()?]).arg(folder);
        tools::run(command.arg(later::archive_uri()?))?;
        for left in ["var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"] {
            fs::remove_dir_all(folder.join(left))?;
            fs::create_dir(folder.join(left))?;
        }
        Ok(())
    })?;
    Ok(folder)
}
