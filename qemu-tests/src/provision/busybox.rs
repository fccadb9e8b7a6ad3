//! busybox, static, for guests that have a shell or scripts.

use std::path::PathBuf;

use anyhow::Result;

use super::apt::unpack;
use crate::folders;

/// The program, fetched when it is not there, never installed.
pub fn busybox() -> Result<PathBuf> {
    let folder = folders::qemu().join("busybox");
    folders::made_once(&folder, "busybox, for guests", |folder| unpack(&["busybox-static"], folder))?;
    let places = ["bin/busybox", "usr/bin/busybox"].map(|place| folder.join(place));
    let there = places.into_iter().find(|place| place.exists());
    anyhow::Context::context(there, "the package has no busybox")
}
