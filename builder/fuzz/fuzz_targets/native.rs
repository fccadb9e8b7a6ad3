//! Arbitrary text as kdump.toml. Every refusal names file and line.

#![no_main]

use kdump_builder::config::Native;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &str| {
    if let Err(error) = Native::parse(text, Path::new("kdump.toml")) {
        assert!(format!("{error:#}").starts_with("kdump.toml:"), "{error:#}");
    }
});
