//! Samba: an SMB server that needs nothing of the host's kernel. Not installed, so that no service is started.

use std::path::PathBuf;

use anyhow::Result;

use super::apt::unpack;
use crate::folders;

const PACKAGES: [&str; 11] = [
    "samba",
    "samba-libs",
    "samba-common",
    "samba-common-bin",
    "libldb2",
    "libtalloc2",
    "libtdb1",
    "libtevent0",
    "libpopt0",
    "libwbclient0",
    "liblmdb0",
];

/// The folder below which it lies, with the libraries that a small Debian lacks.
pub fn samba() -> Result<PathBuf> {
    let root = folders::qemu().join("samba");
    folders::made_once(&root, "samba, as SMB server", |folder| unpack(&PACKAGES, folder))?;
    Ok(root)
}
