//! OpenSSH's server with its sftp-server, and vsftpd. Not installed, so that no service is started.

use std::path::PathBuf;

use anyhow::Result;

use super::apt::unpack;
use crate::folders;

/// The libraries are those that a small Debian lacks.
const PACKAGES: [&str; 14] = [
    "openssh-server",
    "openssh-sftp-server",
    "vsftpd",
    "libwrap0",
    "libcap2",
    "libaudit1",
    "libcap-ng0",
    "libpam0g",
    "libcom-err2",
    "libgssapi-krb5-2",
    "libkrb5-3",
    "libk5crypto3",
    "libkrb5support0",
    "libkeyutils1",
];

/// The folder below which they lie.
pub fn servers() -> Result<PathBuf> {
    let root = folders::qemu().join("servers");
    super::packages::for_servers()?;
    folders::made_once(&root, "OpenSSH's server and vsftpd", |folder| unpack(&PACKAGES, folder))?;
    Ok(root)
}
