//! nfs-ganesha: an NFS server that needs nothing of the host's kernel. Not installed, so that no service is started.

use std::path::PathBuf;

use anyhow::Result;

use super::apt::unpack;
use crate::folders;

const PACKAGES: [&str; 12] = [
    "nfs-ganesha",
    "nfs-ganesha-vfs",
    "libntirpc4.3",
    "libnfsidmap1",
    "liburcu8",
    "libwbclient0",
    "libdbus-1-3",
    "libgssapi-krb5-2",
    "libkrb5-3",
    "libk5crypto3",
    "libkrb5support0",
    "libkeyutils1",
];

/// The folder below which it lies, with the libraries that a small Debian lacks.
pub fn ganesha() -> Result<PathBuf> {
    let root = folders::qemu().join("ganesha");
    folders::made_once(&root, "nfs-ganesha, as NFS server", |folder| unpack(&PACKAGES, folder))?;
    Ok(root)
}
