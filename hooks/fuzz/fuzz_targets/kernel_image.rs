//! Arbitrary bytes as a kernel's image: what is in it is found and unpacked, or it is refused.

#![no_main]

use kdump_hooks::kernel_image::{unified, unpack};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = (unified::initrd(bytes), unified::kernel(bytes), unified::release(bytes));
    if let (Ok(kernel), true) = (unpack(bytes), bytes.starts_with(b"\x7fELF")) {
        assert_eq!(kernel, bytes);
    }
});
