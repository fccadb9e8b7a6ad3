//! Arbitrary bytes as an image that lsinitrd lists.

#![no_main]

use kdump_builder::inspect::{self, Order};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut out = Vec::new();
    let _ = inspect::list(data, Order::Size, &mut out);
    let _ = inspect::print(data, "init", &mut out);
});
