//! What would be lost on a device that a dump is written to as it is.
//!
//! In: a device. Out: what is on it, if that is neither nothing nor a dump. Asked when the image is built and once more
//! before the dump is written: names of disks change their places, and disks are put to other uses.
//!
//! May surprise: whatever ends its first sector as a boot sector does counts as one.

use super::superblock::probe;
use kdump_hooks::raw::layout::{Bad, FLATTENED, HEADER, Header};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// What is on a device that is not a dump of ours or of makedumpfile.
///
/// # Errors
/// The device cannot be read.
pub fn content(device: &mut File) -> std::io::Result<Option<&'static str>> {
    let mut first = Vec::new();
    device.seek(SeekFrom::Start(0)).and_then(|_| device.by_ref().take(HEADER as u64).read_to_end(&mut first))?;
    if first.starts_with(FLATTENED) || Header::decode(&first) != Err(Bad::Foreign) {
        return Ok(None);
    }
    if let Some(found) = probe(device)? {
        return Ok(Some(found.fstype));
    }
    for (name, at, magic) in SIGNATURES {
        let mut bytes = vec![0; magic.len()];
        match device.read_exact_at(&mut bytes, *at) {
            Ok(()) if bytes == *magic => return Ok(Some(*name)),
            Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => return Err(error),
            _ => {}
        }
    }
    Ok(None)
}

/// Whether the kernel knows partitions of that device, whatever kind of table says so.
///
/// # Errors
/// The device cannot be looked at.
pub fn has_partitions(device: &File, sys: &Path) -> std::io::Result<bool> {
    let number = device.metadata()?.rdev();
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    // A file in the place of a device has no entry there.
    let Ok(entries) = fs::read_dir(sys.join("dev/block").join(format!("{major}:{minor}"))) else { return Ok(false) };
    Ok(entries.flatten().any(|entry| entry.path().join("partition").is_file()))
}

/// Signatures of what nothing here ever mounts: name, place, bytes. The master boot record comes last, since boot sectors
/// of file systems end in the same way.
const SIGNATURES: &[(&str, u64, &[u8])] = &[
    ("swap", 4086, b"SWAPSPACE2"),
    ("swap", 4086, b"SWAP-SPACE"),
    ("a hibernated system", 4086, b"S1SUSPEND"),
    ("a partition table", 512, b"EFI PART"),
    ("a partition table", 4096, b"EFI PART"),
    ("ntfs", 3, b"NTFS    "),
    ("exfat", 3, b"EXFAT   "),
    ("bitlocker", 3, b"-FVE-FS-"),
    ("squashfs", 0, b"hsqs"),
    ("erofs", 1024, &[0xe2, 0xe1, 0xf5, 0xe0]),
    ("iso9660", 32769, b"CD001"),
    ("jfs", 32768, b"JFS1"),
    ("reiserfs", 65588, b"ReIsEr"),
    ("minix", 1040, &[0x7f, 0x13]),
    ("minix", 1040, &[0x8f, 0x13]),
    ("minix", 1040, &[0x68, 0x24]),
    ("minix", 1040, &[0x78, 0x24]),
    ("minix", 1048, &[0x5a, 0x4d]),
    ("bcache", 4120, &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81]),
    (
        "bcachefs",
        4120,
        &[0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9, 0xd9, 0x6a, 0x60, 0xcf, 0x80, 0x3d, 0xf7, 0xef],
    ),
    ("ceph", 0, b"bluestore block device"),
    ("zfs", 131_072, &[0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0]),
    ("zfs", 132_096, &[0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0]),
    ("a boot sector or partition table", 510, &[0x55, 0xaa]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    fn content_of(parts: &[(u64, &[u8])]) -> Option<&'static str> {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        for (at, bytes) in parts {
            file.write_all_at(bytes, *at).unwrap();
        }
        file.flush().unwrap();
        content(&mut file).unwrap()
    }

    #[test]
    fn what_is_on_a_device_is_told_unless_it_is_a_dump() {
        assert_eq!(content_of(&[]), None);
        assert_eq!(content_of(&[(1024 + 56, &[0x53, 0xef])]), Some("ext"));
        for (name, at, magic) in SIGNATURES {
            assert_eq!(content_of(&[(*at, magic)]), Some(*name));
        }
        let header = Header::begun(7, "6.1").encode();
        let mut damaged = header;
        damaged[300] ^= 1;
        for dump in [&header[..], &damaged, FLATTENED] {
            assert_eq!(content_of(&[(0, dump), (510, &[0x55, 0xaa])]), None);
        }
    }

    #[test]
    fn a_device_too_small_for_any_signature_is_empty() {
        let mut file = tempfile::tempfile().unwrap();
        assert_eq!(content(&mut file).unwrap(), None);
        file.write_all(&[1; 100]).unwrap();
        assert_eq!(content(&mut file).unwrap(), None);
    }

    #[test]
    fn partitions_are_the_kernels_to_know() {
        let sys = tempfile::tempdir().unwrap();
        let device = File::open("/dev/null").unwrap();
        assert!(!has_partitions(&device, sys.path()).unwrap());
        let disk = sys.path().join("devices/disk");
        fs::create_dir_all(disk.join("queue")).unwrap();
        fs::create_dir_all(sys.path().join("dev/block")).unwrap();
        symlink("../../devices/disk", sys.path().join("dev/block/1:3")).unwrap();
        assert!(!has_partitions(&device, sys.path()).unwrap());
        fs::create_dir(disk.join("disk1")).unwrap();
        fs::write(disk.join("disk1/partition"), "1\n").unwrap();
        assert!(has_partitions(&device, sys.path()).unwrap());
    }
}
