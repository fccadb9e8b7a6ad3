//! Arbitrary text as an image configuration.

#![no_main]

use kdump_init::config::ImageConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = ImageConfig::parse(text);
});
