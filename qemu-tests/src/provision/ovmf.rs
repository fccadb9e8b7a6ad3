//! The firmware of an EFI machine for QEMU. Not installed.

use std::path::PathBuf;

use anyhow::Result;

use super::apt::unpack;
use crate::folders;

/// The firmware, and variables as they leave the factory.
#[derive(Clone, Debug)]
pub struct Firmware {
    /// Its program.
    pub code: PathBuf,
    /// Its variables; a machine needs a copy of its own.
    pub variables: PathBuf,
}

/// The firmware, fetched when it is not there.
pub fn firmware() -> Result<Firmware> {
    let root = folders::qemu().join("ovmf");
    folders::made_once(&root, "OVMF, firmware with EFI", |folder| unpack(&["ovmf"], folder))?;
    let file = |name: &str| root.join("usr/share/OVMF").join(name);
    Ok(Firmware { code: file("OVMF_CODE_4M.fd"), variables: file("OVMF_VARS_4M.fd") })
}
