//! Names of partitions, from the table on their disk.
//!
//! In: a disk. Out: what `PARTUUID=` and `PARTLABEL=` mean there. It is only asked where the kernel's own uevent does
//! not say: older kernels know names of partitions, but not their UUIDs. May surprise: with an MBR the UUID is made of
//! the disk's signature and the partition's number, so that the table itself tells nothing more.

use super::superblock::dashed;
use std::io::{ErrorKind, Read, Seek, SeekFrom};

/// A partition as its table describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    /// `PARTUUID=`.
    pub uuid: Option<String>,
    /// `PARTLABEL=`; an MBR has none.
    pub name: Option<String>,
}

/// Bytes of a logical sector: 512, or 4096 on some disks; the GPT's header is in the second one.
const SECTORS: [u64; 2] = [512, 4096];
/// Entries have this size or a multiple of it.
const ENTRY: u32 = 128;
/// Larger entries are not believed.
const LARGEST_ENTRY: u32 = 4096;

/// What the table of a disk says of partition `number`, which counts from 1. `None` if there is no such table or entry.
///
/// # Errors
/// The disk cannot be read.
pub fn partition(disk: &mut (impl Read + Seek), number: u32) -> std::io::Result<Option<Partition>> {
    for sector in SECTORS {
        if let Some(header) = read::<92>(disk, sector)?
            && header.starts_with(b"EFI PART")
        {
            return gpt(disk, &header, sector, number);
        }
    }
    Ok(read::<512>(disk, 0)?.and_then(|mbr| {
        let signature = u32::from_le_bytes(mbr.get(440..444)?.try_into().ok()?);
        let is_mbr = mbr.ends_with(&[0x55, 0xaa]) && signature != 0 && number > 0;
        is_mbr.then(|| Partition { uuid: Some(format!("{signature:08x}-{number:02x}")), name: None })
    }))
}

fn gpt(
    disk: &mut (impl Read + Seek),
    header: &[u8; 92],
    sector: u64,
    number: u32,
) -> std::io::Result<Option<Partition>> {
    let field =
        |at: usize| header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
    let first = u64::from(field(72)) | u64::from(field(76)) << 32;
    let (count, size) = (field(80), field(84));
    if number == 0 || number > count || size % ENTRY != 0 || !(ENTRY..=LARGEST_ENTRY).contains(&size) {
        return Ok(None);
    }
    let place = first.checked_mul(sector).and_then(|start| start.checked_add(u64::from(number - 1) * u64::from(size)));
    let Some(entry) = place.map(|place| read::<128>(disk, place)).transpose()?.flatten() else { return Ok(None) };
    let (guid, name) = (entry.get(16..32).unwrap_or_default(), entry.get(56..).unwrap_or_default());
    let Some(uuid) = dashed(&mixed(guid)) else { return Ok(None) };
    let units: Vec<u16> =
        name.chunks_exact(2).filter_map(|unit| Some(u16::from_le_bytes(unit.try_into().ok()?))).collect();
    let name = String::from_utf16_lossy(units.split(|unit| *unit == 0).next().unwrap_or_default());
    Ok(Some(Partition { uuid: Some(uuid), name: Some(name).filter(|name| !name.is_empty()) }))
}

/// A GUID as text has it: its first three fields are numbers of the little end first.
fn mixed(guid: &[u8]) -> Vec<u8> {
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    ORDER.iter().filter_map(|at| guid.get(*at).copied()).collect()
}

/// Some bytes of the disk; `None` behind its end.
fn read<const N: usize>(disk: &mut (impl Read + Seek), at: u64) -> std::io::Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    match disk.seek(SeekFrom::Start(at)).and_then(|_| disk.read_exact(&mut bytes)) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidInput) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn disk(sector: usize) -> Vec<u8> {
        let mut disk = vec![0; 8 * sector];
        disk[sector..sector + 8].copy_from_slice(b"EFI PART");
        disk[sector + 72] = 2;
        disk[sector + 80] = 4;
        disk[sector + 84] = 128;
        let entry = 2 * sector + 128;
        disk[entry + 16..entry + 32].copy_from_slice(&[3, 2, 1, 0xaa, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]);
        for (at, byte) in b"dumps".iter().enumerate() {
            disk[entry + 56 + 2 * at] = *byte;
        }
        disk
    }

    #[test]
    fn a_gpt_tells_uuid_and_name_at_either_sector_size() {
        for sector in [512, 4096] {
            let mut disk = Cursor::new(disk(sector));
            let expected =
                Partition { uuid: Some("aa010203-0405-0607-0809-0a0b0c0d0e0f".into()), name: Some("dumps".into()) };
            assert_eq!(partition(&mut disk, 2).unwrap(), Some(expected));
            for empty in [0, 1, 5] {
                assert_eq!(partition(&mut disk, empty).unwrap(), None);
            }
        }
    }

    #[test]
    fn an_mbr_tells_signature_and_number() {
        let mut disk = vec![0; 2048];
        disk[440..444].copy_from_slice(&0x6b64_756d_u32.to_le_bytes());
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        let uuid = |number| partition(&mut Cursor::new(&disk), number).unwrap().unwrap().uuid.unwrap();
        assert_eq!((uuid(1), uuid(12)), ("6b64756d-01".to_owned(), "6b64756d-0c".to_owned()));
        assert_eq!(partition(&mut Cursor::new(vec![0; 2048]), 1).unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_table_is_taken_in_peace(mut bytes in proptest::collection::vec(any::<u8>(), 604..4000), number: u32) {
            bytes[512..520].copy_from_slice(b"EFI PART");
            let _ = partition(&mut Cursor::new(bytes), number);
        }
    }
}
