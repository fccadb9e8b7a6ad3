//! Telling file systems apart by their superblock.
//!
//! | type | magic | uuid | label |
//! |---|---|---|---|
//! | ext2, ext3, ext4 | `53 ef` at 1024+56 | 1024+104 | 1024+120, 16 |
//! | xfs | `XFSB` at 0 | 32 | 108, 12 |
//! | btrfs | `_BHRfS_M` at 65536+64 | 65536+32 | 65536+299, 256 |
//! | vfat | `55 aa` at 510 and `FAT32` at 82 or `FAT1` at 54 | 67 or 39, 4 | 71 or 43, 11 |

use std::io::{Read, Seek, SeekFrom};

/// What a superblock says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The type, as far as the magic tells it: `ext` is any of the family.
    pub fstype: &'static str,
    /// The UUID as blkid prints it.
    pub uuid: Option<String>,
    /// The label, if there is one.
    pub label: Option<String>,
}

/// The first 4 KiB hold every superblock but that of btrfs.
const FRONT: usize = 4096;
const BTRFS: u64 = 65536;
const EXT: usize = 1024;

/// Reads what is on a device. `None` if it is nothing known.
///
/// # Errors
/// The device cannot be read.
pub fn probe(device: &mut (impl Read + Seek)) -> std::io::Result<Option<Superblock>> {
    let front = block(device, 0)?;
    if let Some(found) = ext(&front).or_else(|| xfs(&front)).or_else(|| vfat(&front)) {
        return Ok(Some(found));
    }
    Ok(btrfs(&block(device, BTRFS)?))
}

/// Up to 4 KiB from `at`; what is behind the end of the device is missing.
fn block(device: &mut (impl Read + Seek), at: u64) -> std::io::Result<Vec<u8>> {
    device.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::with_capacity(FRONT);
    device.take(FRONT as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn ext(front: &[u8]) -> Option<Superblock> {
    let superblock = front.get(EXT..)?;
    (superblock.get(56..58)? == [0x53, 0xef]).then(|| Superblock {
        fstype: "ext",
        uuid: superblock.get(104..120).and_then(uuid),
        label: superblock.get(120..136).and_then(label),
    })
}

fn xfs(front: &[u8]) -> Option<Superblock> {
    front.starts_with(b"XFSB").then(|| Superblock {
        fstype: "xfs",
        uuid: front.get(32..48).and_then(uuid),
        label: front.get(108..120).and_then(label),
    })
}

fn btrfs(superblock: &[u8]) -> Option<Superblock> {
    (superblock.get(64..72)? == b"_BHRfS_M").then(|| Superblock {
        fstype: "btrfs",
        uuid: superblock.get(32..48).and_then(uuid),
        label: superblock.get(299..555).and_then(label),
    })
}

fn vfat(front: &[u8]) -> Option<Superblock> {
    if front.get(510..512)? != [0x55, 0xaa] {
        return None;
    }
    let (serial, name) = match (front.get(82..87)?, front.get(54..58)?) {
        (b"FAT32", _) => (67, 71),
        (_, b"FAT1") => (39, 43),
        _ => return None,
    };
    let serial: [u8; 4] = front.get(serial..serial + 4)?.try_into().ok()?;
    let serial = u32::from_le_bytes(serial);
    let label = front.get(name..name + 11).and_then(label).filter(|label| label != "NO NAME");
    Some(Superblock { fstype: "vfat", uuid: Some(format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff)), label })
}

/// The usual text of 16 bytes; all zero is none.
fn uuid(bytes: &[u8]) -> Option<String> {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = |range| hex.get::<std::ops::Range<usize>>(range);
    let text = format!("{}-{}-{}-{}-{}", part(0..8)?, part(8..12)?, part(12..16)?, part(16..20)?, part(20..32)?);
    bytes.iter().any(|byte| *byte != 0).then_some(text)
}

/// Text up to the first NUL, without padding; empty is none.
fn label(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(bytes.get(..end)?).trim_end().to_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
        image[at..at + bytes.len()].copy_from_slice(bytes);
    }

    const UUID: [u8; 16] = [0xaa, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    const TEXT: &str = "aa010203-0405-0607-0809-0a0b0c0d0e0f";

    fn found(image: Vec<u8>) -> Superblock {
        probe(&mut Cursor::new(image)).unwrap().unwrap()
    }

    #[test]
    fn ext_xfs_and_btrfs_are_told_apart_with_uuid_and_label() {
        let mut ext = vec![0; 4096];
        put(&mut ext, 1024 + 56, &[0x53, 0xef]);
        put(&mut ext, 1024 + 104, &UUID);
        put(&mut ext, 1024 + 120, b"crash\0old");
        let mut xfs = vec![0; 4096];
        put(&mut xfs, 0, b"XFSB");
        put(&mut xfs, 32, &UUID);
        put(&mut xfs, 108, b"crashdisk-12");
        let mut btrfs = vec![0; 70_000];
        put(&mut btrfs, 65536 + 64, b"_BHRfS_M");
        put(&mut btrfs, 65536 + 32, &UUID);
        put(&mut btrfs, 65536 + 299, b"crash");
        for (image, fstype, label) in [(ext, "ext", "crash"), (xfs, "xfs", "crashdisk-12"), (btrfs, "btrfs", "crash")] {
            let expected = Superblock { fstype, uuid: Some(TEXT.into()), label: Some(label.into()) };
            assert_eq!(found(image), expected);
        }
    }

    #[test]
    fn vfat_has_a_short_serial_in_capitals_and_no_name_is_no_label() {
        let mut fat = vec![0; 4096];
        put(&mut fat, 510, &[0x55, 0xaa]);
        put(&mut fat, 82, b"FAT32   ");
        put(&mut fat, 67, &0x1234_abcd_u32.to_le_bytes());
        put(&mut fat, 71, b"NO NAME    ");
        assert_eq!(found(fat), Superblock { fstype: "vfat", uuid: Some("1234-ABCD".into()), label: None });
    }

    #[test]
    fn an_empty_device_is_nothing() {
        assert_eq!(probe(&mut Cursor::new(Vec::new())).unwrap(), None);
        assert_eq!(probe(&mut Cursor::new(vec![0; 100_000])).unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_in_peace(mut image in proptest::collection::vec(any::<u8>(), 0..3000), at in 0..3000usize) {
            if let Some(place) = image.get_mut(at..at + 4) {
                place.copy_from_slice(b"XFSB");
            }
            let _ = probe(&mut Cursor::new(image));
        }
    }
}
