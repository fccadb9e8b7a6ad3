//! Arbitrary text as the address that sysfs tells of an NVMe controller.

#![no_main]

use kdump_builder::host::remote::portal;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = portal(text);
});
