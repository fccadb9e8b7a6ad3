//! Raw ext4 disks, made from a folder and taken apart again, without mounting and so without root.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::tools;

const MIB: u64 = 1 << 20;

/// Makes an ext4 image with the content of `tree`.
pub fn make_ext4(image: &Path, tree: &Path, mib: u64, label: &str, uuid: &str) -> Result<()> {
    empty(image, mib * MIB)?;
    let mut command = tools::command("mkfs.ext4");
    command.args(["-q", "-F", "-E", "root_owner=0:0", "-L", label, "-U", uuid, "-d"]).arg(tree).arg(image);
    tools::run(&mut command).map(drop)
}

/// Makes an image of zeros that takes no room.
pub fn empty(image: &Path, bytes: u64) -> Result<()> {
    let make = || File::create(image)?.set_len(bytes);
    make().with_context(|| format!("unable to make the disk image {}", image.display()))
}

/// Copies the folder `inside` of an ext4 image into `folder`, after its journal has been replayed.
pub fn take_off(image: &Path, inside: &str, folder: &Path) -> Result<()> {
    // 1 and 2: there was something to repair, such as a journal of the kernel that crashed.
    tools::run_accepting(tools::command("e2fsck").arg("-fy").arg(image), &[0, 1, 2])?;
    let request = format!("rdump \"{inside}\" \"{}\"", folder.display());
    let output = tools::run(tools::command("debugfs").arg("-R").arg(request).arg(image))?;
    let name = Path::new(inside).file_name().unwrap_or_default();
    if !folder.join(name).exists() {
        bail!("{inside} is not on the disk {}: {}", image.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
