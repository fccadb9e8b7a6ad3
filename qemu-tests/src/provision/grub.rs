//! GRUB for a machine without EFI. Not installed.

use std::path::PathBuf;

use anyhow::Result;

use super::apt::unpack;
use crate::{folders, tools};

/// Where it finds the rest of itself: on the first partition of the disk that it was started from.
const PREFIX: &str = "(hd0,msdos1)/";
/// What its configuration uses.
const MODULES: &[&str] =
    &["biosdisk", "part_msdos", "ext2", "normal", "linux", "loadenv", "test", "true", "serial", "terminal", "echo"];

/// What a disk needs to start GRUB.
#[derive(Clone, Debug)]
pub struct Grub {
    /// The code in the first sector.
    pub boot: PathBuf,
    /// What it loads: the sectors behind it.
    pub core: PathBuf,
    /// The program that reads and writes environment blocks.
    pub editenv: PathBuf,
}

/// It, fetched when it is not there.
pub fn grub() -> Result<Grub> {
    let root = folders::qemu().join("grub");
    folders::made_once(&root, "GRUB, for machines without EFI", |folder| {
        unpack(&["grub-pc-bin", "grub-common"], folder)?;
        let mut make = tools::command(&folder.join("usr/bin/grub-mkimage").display().to_string());
        make.arg("-d").arg(folder.join("usr/lib/grub/i386-pc")).args(["-O", "i386-pc", "-p", PREFIX, "-o"]);
        tools::run(make.arg(folder.join("core.img")).args(MODULES)).map(drop)
    })?;
    Ok(Grub {
        boot: root.join("usr/lib/grub/i386-pc/boot.img"),
        core: root.join("core.img"),
        editenv: root.join("usr/bin/grub-editenv"),
    })
}
