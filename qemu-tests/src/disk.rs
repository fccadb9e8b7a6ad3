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

/// Where the first partition begins.
pub(crate) const FIRST: u64 = MIB;

/// As [`make_ext4`], in the first of two partitions of a disk whose MBR has this signature.
pub fn make_ext4_in_partition(image: &Path, tree: &Path, mib: u64, signature: u32) -> Result<()> {
    empty(image, FIRST + (mib + 1) * MIB)?;
    let mut command = tools::command("mkfs.ext4");
    command.args(["-q", "-F", "-E", &format!("root_owner=0:0,offset={FIRST}"), "-d"]).arg(tree).arg(image);
    tools::run(command.arg(format!("{}k", mib * 1024)))?;
    let mut table = vec![0; 512];
    table[440..444].copy_from_slice(&signature.to_le_bytes());
    for (index, begin, length) in [(0, FIRST, mib * MIB), (1, FIRST + mib * MIB, MIB)] {
        let entry = &mut table[446 + 16 * index..][..16];
        entry[4] = 0x83;
        entry[8..12].copy_from_slice(&u32::try_from(begin / 512)?.to_le_bytes());
        entry[12..16].copy_from_slice(&u32::try_from(length / 512)?.to_le_bytes());
    }
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    let file = File::options().write(true).open(image).context("unable to open the disk image")?;
    std::os::unix::fs::FileExt::write_all_at(&file, &table, 0).context("unable to write the partition table")
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
