//! systemd's stub, which is the beginning of a unified kernel image.

use std::path::PathBuf;

use anyhow::Result;

use super::apt::unpack;
use super::packages;
use crate::folders;

/// The stub for x86_64, and what puts sections into it.
pub fn stub() -> Result<PathBuf> {
    packages::for_sections()?;
    let root = folders::qemu().join("stub");
    folders::made_once(&root, "systemd's stub for unified images", |folder| unpack(&["systemd-boot-efi"], folder))?;
    Ok(root.join("usr/lib/systemd/boot/efi/linuxx64.efi.stub"))
}
