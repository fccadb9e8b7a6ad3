//! Debian's kdump-tools, whose configuration is read here as it is shipped. Nothing of it is run.

use std::path::PathBuf;

use anyhow::Result;

use super::apt::unpack;
use crate::folders;

/// The folder below which it lies.
pub fn kdump_tools() -> Result<PathBuf> {
    let root = folders::qemu().join("kdump-tools");
    folders::made_once(&root, "kdump-tools, for its configuration", |folder| unpack(&["kdump-tools"], folder))?;
    Ok(root)
}
