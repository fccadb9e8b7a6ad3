//! The tools of file systems that few use for dumps: vfat's, those that copy from it, and f2fs'. Not installed.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::apt::unpack;
use crate::folders;

const PACKAGES: [&str; 3] = ["dosfstools", "mtools", "f2fs-tools"];

/// One of their programs, for this machine.
pub(crate) fn program(name: &str) -> Result<Command> {
    let folder = folders::qemu().join("small-filesystems");
    folders::made_once(&folder, "the tools of vfat and f2fs", |folder| unpack(&PACKAGES, folder))?;
    Ok(command(&folder, name))
}

/// A program below `folder`, with the libraries there.
pub(super) fn command(folder: &Path, name: &str) -> Command {
    let found = ["sbin", "usr/sbin", "bin", "usr/bin"].map(|part| folder.join(part).join(name));
    let program = found.iter().find(|path| path.exists()).unwrap_or(&found[0]);
    let libraries = ["lib", "usr/lib"].map(|part| folder.join(part).join("x86_64-linux-gnu").display().to_string());
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").env("LD_LIBRARY_PATH", libraries.join(":")).stdin(std::process::Stdio::null());
    command
}
