//! The tools of storage stacks, for a guest's disk: LVM, mdadm, cryptsetup, and those that make file systems.
//!
//! They are downloaded with the libraries that they need and never installed on this machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::apt::{Apt, update_machine_once};
use crate::{folders, tools};

const PACKAGES: [&str; 7] = ["lvm2", "dmsetup", "mdadm", "cryptsetup-bin", "e2fsprogs", "xfsprogs", "btrfs-progs"];
/// Libraries that only programs need which the guest does not run, and large ones at that.
const LEFT_OUT: [&str; 3] = ["libicu", "libpython", "libperl"];
/// More packages than a sound answer has.
const MOST: usize = 200;
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
        let packages = packages(&apt, wanted).or_else(|_| {
            update_machine_once();
            packages(&apt, wanted)
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

/// The packages and all libraries below them.
fn packages(apt: &Apt, wanted: &[&str]) -> Result<Vec<String>> {
    let mut found: BTreeSet<String> = BTreeSet::new();
    let mut todo: Vec<String> = wanted.iter().map(|package| (*package).to_owned()).collect();
    while let Some(package) = todo.pop() {
        if found.len() >= MOST || !found.insert(package.clone()) {
            continue;
        }
        let needed = apt.dependencies(&package)?.into_iter().filter(|name| name.starts_with("lib") || name == "zlib1g");
        todo.extend(needed.filter(|name| !LEFT_OUT.iter().any(|out| name.starts_with(out))));
    }
    Ok(found.into_iter().collect())
}
