//! Arbitrary bytes as a disk that one of the kinds of superblock begins, ends, or is in.

#![no_main]

use kdump_init::devices::probe;
use libfuzzer_sys::fuzz_target;
use std::io::Cursor;

/// A magic and its place from the start of a device; those at the end are found by the fuzzer's own length.
const MAGICS: [(usize, &[u8]); 14] = [
    (1024 + 56, &[0x53, 0xef]),
    (0, b"XFSB"),
    (65536 + 64, b"_BHRfS_M"),
    (1024, &[0x10, 0x20, 0xf5, 0xf2]),
    (510, &[0x55, 0xaa]),
    (82, b"FAT32"),
    (0, b"LUKS\xba\xbe\0\x01"),
    (0, b"LUKS\xba\xbe\0\x02"),
    (512, b"LABELONE"),
    (512 + 24, b"LVM2 001"),
    (0, &[0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0]),
    (4096, &[0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0]),
    (65536, &[0xfc, 0x4e, 0x2b, 0xa9, 0, 0, 0, 0]),
    (65536, &[0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0]),
];

fuzz_target!(|input: (u16, u16, &[u8])| {
    let (magics, at, data) = input;
    let mut disk = vec![0; 131_072 + usize::from(at & 0xff)];
    let at = usize::from(at) % disk.len();
    for (place, byte) in disk.iter_mut().skip(at).zip(data) {
        *place = *byte;
    }
    for (bit, (place, magic)) in MAGICS.iter().enumerate() {
        if magics & 1 << bit != 0 {
            disk[*place..place + magic.len()].copy_from_slice(magic);
        }
    }
    if let Ok(Some(found)) = probe(&mut Cursor::new(&disk)) {
        assert!(found.uuid.is_none_or(|uuid| uuid.len() <= 120));
        assert!(found.label.is_none_or(|label| label.len() <= 3 * 512));
    }
    let _ = probe(&mut Cursor::new(data));
});
