//! Arbitrary bytes as the start of a disk.

#![no_main]

use kdump_init::devices::probe;
use libfuzzer_sys::fuzz_target;
use std::io::Cursor;

fuzz_target!(|data: &[u8]| {
    let _ = probe(&mut Cursor::new(data));
});
