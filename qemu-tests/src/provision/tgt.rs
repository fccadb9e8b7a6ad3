//! tgt: an iSCSI server that needs nothing of the host's kernel. Not installed, so that no service is started.

use std::path::PathBuf;

use anyhow::Result;

use super::apt::unpack;
use crate::folders;

const PACKAGES: [&str; 6] = ["tgt", "libaio1", "libibverbs1", "librdmacm1", "libnl-3-200", "libnl-route-3-200"];

/// The folder below which it lies, with the libraries that a small Debian lacks.
pub fn tgt() -> Result<PathBuf> {
    let root = folders::qemu().join("tgt");
    folders::made_once(&root, "tgt, as iSCSI server", |folder| unpack(&PACKAGES, folder))?;
    Ok(root)
}
