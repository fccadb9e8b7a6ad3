//! The tools of storage stacks, for a guest's disk: LVM, mdadm, cryptsetup, and those that make file systems.
//!
//! They are downloaded with the libraries that they need and never installed on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::apt::{Apt, update_machine_once};
use crate::{folders, tools};

const PACKAGES: [&str; 7] = ["lvm2", "dmsetup", "mdadm", "cryptsetup-bin", "e2fsprogs", "xfsprogs", "btrfs-progs"];
/// What the guest gets of each package.
const WANTED: [&str; 6] = ["bin", "sbin", "lib", "lib64", "usr/lib", "usr/sbin"];

/// Puts the tools, those of further packages, and all their libraries on the disk below `tree`.
pub(crate) fn install(tree: &Path, further: &[&str]) -> Result<()> {
    copy_all("storage-tools", &PACKAGES, tree)?;
    further.iter().try_for_each(|package| copy_all(&format!("storage-tools-{package}"), &[package], tree))
}

/// One of the tools, for this machine.
pub(crate) fn program(name: &str) -> Result<Command> {
    Ok(super::small_filesystems::command(&unpacked("storage-tools", &PACKAGES)?, name))
}

/// The folder with these packages and their libraries.
fn unpacked(name: &str, wanted: &[&str]) -> Result<PathBuf> {
    let folder = folders::qemu().join(name);
    folders::made_once(&folder, "the tools of storage stacks", |folder| {
        let apt = Apt::default();
        let packages = apt.with_libraries(wanted).or_else(|_| {
            update_machine_once();
            apt.with_libraries(wanted)
        });
        apt.unpack(&packages.context("apt cannot resolve the packages of storage tools")?, folder)
    })?;
    Ok(folder)
}

fn copy_all(name: &str, wanted: &[&str], tree: &Path) -> Result<()> {
    let folder = unpacked(name, wanted)?;
    for part in WANTED.iter().filter(|part| folder.join(part).exists()) {
        std::fs::create_dir_all(tree.join(part))?;
        // In a bare guest, a folder and a link to one are merged into the same folder; a Debian has merged them already.
        let how: &[&str] = if tree.join("lib").is_symlink() { &["-a", "--remove-destination"] } else { &["-rL"] };
        tools::run(tools::command("cp").args(how).arg(folder.join(part).join(".")).arg(tree.join(part)))?;
    }
    Ok(())
}
