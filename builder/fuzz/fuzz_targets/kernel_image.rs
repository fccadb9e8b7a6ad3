//! Arbitrary bytes as a kernel's image: they are unpacked, or refused.

#![no_main]

use kdump_builder::signatures::unpack_kernel;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let (Ok(kernel), true) = (unpack_kernel(bytes), bytes.starts_with(b"\x7fELF")) {
        assert_eq!(kernel, bytes);
    }
});
