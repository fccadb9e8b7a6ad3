//! Arbitrary bytes as an image that lsinitrd lists.

#![no_main]

use kdump_builder::inspect;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut out = Vec::new();
    let _ = inspect::list(data, &mut out);
    let _ = inspect::print(data, "init", &mut out);
});
