//! Arbitrary bytes as a disk with a partition table.

#![no_main]

use kdump_init::devices::partition;
use libfuzzer_sys::fuzz_target;
use std::io::Cursor;

fuzz_target!(|input: (bool, u32, Vec<u8>)| {
    let (large, number, mut disk) = input;
    let sector = if large { 4096 } else { 512 };
    if let Some(header) = disk.get_mut(sector..sector + 8) {
        header.copy_from_slice(b"EFI PART");
    } else if let Some(magic) = disk.get_mut(510..512) {
        magic.copy_from_slice(&[0x55, 0xaa]);
    }
    if let Ok(Some(found)) = partition(&mut Cursor::new(&disk), number) {
        assert!(found.uuid.is_some_and(|uuid| uuid.len() >= 11));
    }
});
