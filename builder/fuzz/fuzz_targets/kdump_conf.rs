//! Arbitrary text as kdump.conf. Every refusal names file and line.

#![no_main]

use kdump_builder::config::KdumpConf;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &str| {
    if let Err(error) = KdumpConf::parse(text, Path::new("kdump.conf"), &mut Vec::new()) {
        assert!(format!("{error:#}").starts_with("kdump.conf:"), "{error:#}");
    }
});
