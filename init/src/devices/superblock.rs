//! Telling what is on a device by its superblock.
//!
//! In: a device. Out: its type, UUID and label as blkid prints them. May surprise: a part of something else, such as a
//! member of a RAID, is told from a file system before it is looked at as one; RAID1 members begin like the file system
//! that is on the array.

use std::io::{Read, Seek, SeekFrom};

/// What a superblock says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The type as blkid names it; `ext` is any of the family.
    pub fstype: &'static str,
    /// The UUID as blkid prints it; that of the array for a member of a RAID.
    pub uuid: Option<String>,
    /// The label, if there is one.
    pub label: Option<String>,
    /// How many devices it takes, if it says so.
    pub devices: u64,
}

impl Superblock {
    /// Whether it is of a device that is only part of another.
    pub fn is_member(&self) -> bool {
        matches!(self.fstype, RAID | "LVM2_member")
    }
}

/// Where something is counted from.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// The start of the device.
    Start(u64),
    /// The start of the last whole 64 KiB but one of the device, as md 0.90 has it.
    Last64K,
    /// 8 KiB before the end of the device, at a multiple of 4 KiB, as md 1.0 has it.
    Last8K,
}

/// How a UUID is written.
#[derive(Clone, Copy, Debug)]
enum Uuid {
    /// Sixteen bytes.
    Bytes(usize),
    /// Text of so many bytes at most.
    Text(usize, usize),
    /// Four bytes of FAT.
    Serial(usize),
    /// One little-endian word at the first place, three at the second.
    Words(usize, usize),
    /// 32 letters, at a place that the header tells.
    Pv,
}

/// How a label is written.
#[derive(Clone, Copy, Debug)]
enum Label {
    /// There is none.
    No,
    /// Bytes.
    Utf8(usize, usize),
    /// Units of two bytes.
    Utf16(usize, usize),
}

/// One kind of superblock.
#[derive(Debug)]
struct Kind {
    name: &'static str,
    block: Place,
    /// All of these bytes are at these offsets in the block.
    magic: &'static [(usize, &'static [u8])],
    uuid: Uuid,
    label: Label,
    /// Where the number of devices is, eight bytes.
    devices: Option<usize>,
}

const RAID: &str = "linux_raid_member";
const MD: &[u8] = &0xa92b_4efc_u32.to_le_bytes();
const LVM: &[u8] = b"LVM2 001";
const LUKS: &[u8] = b"LUKS\xba\xbe";

const fn kind(
    name: &'static str,
    block: Place,
    magic: &'static [(usize, &'static [u8])],
    uuid: Uuid,
    label: Label,
) -> Kind {
    Kind { name, block, magic, uuid, label, devices: None }
}

/// Every kind, in the order in which they are looked for.
const KINDS: &[Kind] = &[
    kind(RAID, Place::Start(0), &[(0, MD), (4, &[1, 0, 0, 0])], Uuid::Bytes(16), Label::No),
    kind(RAID, Place::Start(4096), &[(0, MD), (4, &[1, 0, 0, 0])], Uuid::Bytes(16), Label::No),
    kind(RAID, Place::Last8K, &[(0, MD), (4, &[1, 0, 0, 0])], Uuid::Bytes(16), Label::No),
    kind(RAID, Place::Last64K, &[(0, MD), (4, &[0, 0, 0, 0])], Uuid::Words(20, 52), Label::No),
    kind("crypto_LUKS", Place::Start(0), &[(0, LUKS), (6, &[0, 1])], Uuid::Text(168, 40), Label::No),
    kind("crypto_LUKS", Place::Start(0), &[(0, LUKS), (6, &[0, 2])], Uuid::Text(168, 40), Label::Utf8(24, 48)),
    kind("LVM2_member", Place::Start(0), &[(0, b"LABELONE"), (24, LVM)], Uuid::Pv, Label::No),
    kind("LVM2_member", Place::Start(512), &[(0, b"LABELONE"), (24, LVM)], Uuid::Pv, Label::No),
    kind("LVM2_member", Place::Start(1024), &[(0, b"LABELONE"), (24, LVM)], Uuid::Pv, Label::No),
    kind("LVM2_member", Place::Start(1536), &[(0, b"LABELONE"), (24, LVM)], Uuid::Pv, Label::No),
    kind("xfs", Place::Start(0), &[(0, b"XFSB")], Uuid::Bytes(32), Label::Utf8(108, 12)),
    kind("ext", Place::Start(1024), &[(56, &[0x53, 0xef])], Uuid::Bytes(104), Label::Utf8(120, 16)),
    kind("f2fs", Place::Start(1024), &[(0, &0xf2f5_2010_u32.to_le_bytes())], Uuid::Bytes(108), Label::Utf16(124, 512)),
    Kind {
        devices: Some(136),
        ..kind("btrfs", Place::Start(65536), &[(64, b"_BHRfS_M")], Uuid::Bytes(32), Label::Utf8(299, 256))
    },
    kind("vfat", Place::Start(0), &[(510, &[0x55, 0xaa]), (82, b"FAT32")], Uuid::Serial(67), Label::Utf8(71, 11)),
    kind("vfat", Place::Start(0), &[(510, &[0x55, 0xaa]), (54, b"FAT1")], Uuid::Serial(39), Label::Utf8(43, 11)),
];

/// What is read of a device at one place.
const BLOCK: usize = 4096;

/// Reads what is on a device. `None` if it is nothing known.
///
/// # Errors
/// The device cannot be read.
pub fn probe(device: &mut (impl Read + Seek)) -> std::io::Result<Option<Superblock>> {
    let size = device.seek(SeekFrom::End(0))?;
    let mut have: Option<(u64, Vec<u8>)> = None;
    for kind in KINDS {
        let Some(place) = kind.block.of(size) else { continue };
        let bytes = match have.take() {
            Some((at, bytes)) if at == place => bytes,
            _ => block(device, place)?,
        };
        if let Some(found) = kind.read(&bytes) {
            return Ok(Some(found));
        }
        have = Some((place, bytes));
    }
    Ok(None)
}

/// Up to 4 KiB from `at`; what is behind the end of the device is missing.
fn block(device: &mut (impl Read + Seek), at: u64) -> std::io::Result<Vec<u8>> {
    device.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::with_capacity(BLOCK);
    device.take(BLOCK as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Place {
    /// As an offset into a device of that size.
    fn of(self, size: u64) -> Option<u64> {
        match self {
            Place::Start(at) => Some(at),
            Place::Last64K => (size & !0xffff).checked_sub(0x10000),
            Place::Last8K => size.checked_sub(0x2000).map(|at| at & !0xfff),
        }
    }
}

impl Kind {
    fn read(&self, block: &[u8]) -> Option<Superblock> {
        if !self.magic.iter().all(|(at, magic)| at_most(block, *at, magic.len()) == Some(magic)) {
            return None;
        }
        Some(Superblock {
            fstype: self.name,
            uuid: self.uuid.read(block),
            label: self.label.read(block),
            devices: self.devices.and_then(|at| at_most(block, at, 8)?.try_into().ok()).map_or(1, u64::from_le_bytes),
        })
    }
}

impl Uuid {
    fn read(self, block: &[u8]) -> Option<String> {
        match self {
            Uuid::Bytes(at) => dashed(at_most(block, at, 16)?),
            Uuid::Text(at, most) => text(at_most(block, at, most)?),
            Uuid::Serial(at) => {
                let serial = word(block, at)?;
                Some(format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff))
            }
            Uuid::Words(first, rest) => {
                let words = [word(block, first)?, word(block, rest)?, word(block, rest + 4)?, word(block, rest + 8)?];
                dashed(&words.map(u32::to_be_bytes).concat())
            }
            Uuid::Pv => {
                let at = usize::try_from(word(block, 20)?).ok()?;
                let letters = std::str::from_utf8(at_most(block, at, 32)?).ok()?;
                if !letters.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                    return None;
                }
                split(letters, &[6, 4, 4, 4, 4, 4, 6])
            }
        }
    }
}

impl Label {
    fn read(self, block: &[u8]) -> Option<String> {
        match self {
            Label::No => None,
            Label::Utf8(at, most) => text(at_most(block, at, most)?).filter(|label| label != "NO NAME"),
            Label::Utf16(at, most) => {
                let units = at_most(block, at, 2 * most)?.chunks_exact(2).map(|unit| unit.iter().rev());
                let units = units.map(|bytes| bytes.fold(0, |unit, byte| unit << 8 | u16::from(*byte)));
                let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
                Some(String::from_utf16_lossy(&units)).filter(|label| !label.is_empty())
            }
        }
    }
}

fn at_most(block: &[u8], at: usize, length: usize) -> Option<&[u8]> {
    block.get(at..at.checked_add(length)?)
}

fn word(block: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(at_most(block, at, 4)?.try_into().ok()?))
}

/// The usual text of 16 bytes; all zero is none.
pub(super) fn dashed(bytes: &[u8]) -> Option<String> {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.iter().any(|byte| *byte != 0).then(|| split(&hex, &[8, 4, 4, 4, 12])).flatten()
}

/// Parts of these lengths, with dashes between them.
fn split(text: &str, lengths: &[usize]) -> Option<String> {
    let mut rest = text;
    let mut parts = Vec::new();
    for length in lengths {
        let (part, behind) = rest.split_at_checked(*length)?;
        parts.push(part);
        rest = behind;
    }
    Some(parts.join("-"))
}

/// Text up to the first NUL, without padding; empty is none.
fn text(bytes: &[u8]) -> Option<String> {
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
    const PV: &str = "AbCdEf-0123-4567-89ab-cdef-GHIJ-KLMNOP";

    /// What is written at which places, and the type, the UUID and the label that it tells.
    type Case<'a> = (&'a [(usize, &'a [u8])], &'a str, &'a str, Option<&'a str>);

    /// A device of a MiB with these bytes at these places, and what it is found to be.
    fn found(parts: &[(usize, &[u8])]) -> Superblock {
        let mut image = vec![0; 1 << 20];
        for (at, bytes) in parts {
            put(&mut image, *at, bytes);
        }
        probe(&mut Cursor::new(image)).unwrap().unwrap()
    }

    #[test]
    fn every_kind_is_told_with_uuid_and_label() {
        let md: &[u8] = &[0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0];
        let old_md: &[u8] = &[0xfc, 0x4e, 0x2b, 0xa9, 0, 0, 0, 0];
        let pv: &[u8] = b"AbCdEf0123456789abcdefGHIJKLMNOP";
        let old_end = (1 << 20) - 0x10000;
        let cases: &[Case<'_>] = &[
            (&[(1024 + 56, &[0x53, 0xef]), (1024 + 104, &UUID), (1144, b"crash\0old")], "ext", TEXT, Some("crash")),
            (&[(0, b"XFSB"), (32, &UUID), (108, b"crashdisk-12")], "xfs", TEXT, Some("crashdisk-12")),
            (&[(65600, b"_BHRfS_M"), (65568, &UUID), (65835, b"crash")], "btrfs", TEXT, Some("crash")),
            (&[(1024, &[0x10, 0x20, 0xf5, 0xf2]), (1132, &UUID), (1148, b"c\0d\0")], "f2fs", TEXT, Some("cd")),
            (&[(0, md), (16, &UUID)], RAID, TEXT, None),
            (&[(4096, md), (4096 + 16, &UUID)], RAID, TEXT, None),
            (&[((1 << 20) - 0x2000, md), ((1 << 20) - 0x2000 + 16, &UUID)], RAID, TEXT, None),
            (
                &[(old_end, old_md), (old_end + 20, &[3, 2, 1, 0xaa]), (old_end + 52, &[7, 6, 5, 4])],
                RAID,
                "aa010203-0405-0607-0000-000000000000",
                None,
            ),
            (&[(0, LUKS), (7, &[1]), (168, TEXT.as_bytes())], "crypto_LUKS", TEXT, None),
            (&[(0, LUKS), (7, &[2]), (24, b"c"), (168, TEXT.as_bytes())], "crypto_LUKS", TEXT, Some("c")),
            (&[(512, b"LABELONE"), (532, &[32]), (536, LVM), (544, pv)], "LVM2_member", PV, None),
        ];
        for (parts, fstype, uuid, label) in cases {
            let superblock = found(parts);
            assert_eq!(superblock.fstype, *fstype);
            assert_eq!(superblock.uuid.as_deref(), Some(*uuid), "{fstype}");
            assert_eq!(superblock.label.as_deref(), *label, "{fstype}");
            assert_eq!(superblock.is_member(), ["LVM2_member", RAID].contains(fstype), "{fstype}");
        }
    }

    #[test]
    fn vfat_has_a_short_serial_in_capitals_and_no_name_is_no_label() {
        let serial = 0x1234_abcd_u32.to_le_bytes();
        let fat = found(&[(510, &[0x55, 0xaa]), (82, b"FAT32   "), (67, &serial), (71, b"NO NAME    ")]);
        assert_eq!((fat.fstype, fat.uuid.as_deref(), fat.label), ("vfat", Some("1234-ABCD"), None));
    }

    #[test]
    fn a_member_of_a_raid_is_not_the_file_system_on_it() {
        let md: &[u8] = &[0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0];
        assert_eq!(found(&[(0, b"XFSB"), ((1 << 20) - 0x2000, md)]).fstype, RAID);
    }

    #[test]
    fn btrfs_says_how_many_devices_it_takes() {
        assert_eq!(found(&[(65600, b"_BHRfS_M"), (65536 + 136, &[3])]).devices, 3);
    }

    #[test]
    fn an_empty_device_is_nothing() {
        assert_eq!(probe(&mut Cursor::new(Vec::new())).unwrap(), None);
        assert_eq!(probe(&mut Cursor::new(vec![0; 100_000])).unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_in_peace(
            mut image in proptest::collection::vec(any::<u8>(), 0..3000),
            at in 0..3000usize,
            kind in 0..KINDS.len(),
        ) {
            for (offset, magic) in KINDS[kind].magic {
                if let Some(place) = image.get_mut(at + offset..at + offset + magic.len()) {
                    place.copy_from_slice(magic);
                }
            }
            let _ = probe(&mut Cursor::new(image));
        }
    }
}
