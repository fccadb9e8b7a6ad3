//! UEFI for a guest, without which it has no variables of the firmware: OVMF.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::apt::unpack;
use crate::{folders, tools};

/// The firmware.
#[derive(Clone, Debug)]
pub struct Firmware {
    folder: PathBuf,
}

/// OVMF, fetched once.
pub fn firmware() -> Result<Firmware> {
    let root = folders::qemu().join("ovmf");
    folders::made_once(&root, "OVMF, a firmware", |folder| unpack(&["ovmf"], folder))?;
    Ok(Firmware { folder: root.join("usr/share/OVMF") })
}

impl Firmware {
    /// QEMU's words for it; its variables are kept in `folder`, empty at first.
    pub fn words(&self, folder: &Path) -> Result<Vec<String>> {
        let variables = folder.join("variables.fd");
        tools::copy(&self.folder.join("OVMF_VARS_4M.fd"), &variables)?;
        let drive = |options: &str, file: &Path| {
            ["-drive".to_owned(), format!("if=pflash,format=raw,{options}file={}", file.display())]
        };
        let code = drive("readonly=on,", &self.folder.join("OVMF_CODE_4M.fd"));
        Ok([code, drive("", &variables)].concat())
    }
}
