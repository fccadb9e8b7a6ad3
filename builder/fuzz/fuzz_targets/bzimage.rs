//! Arbitrary bytes as a kernel. What is taken for one has an entry and takes memory.

#![no_main]

use kdump_builder::kexec::segments::BzImage;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(kernel) = BzImage::parse(bytes) {
        assert!(kernel.code.len() > 0x200 && kernel.size >= kernel.code.len() as u64 && kernel.alignment > 0);
    }
});
