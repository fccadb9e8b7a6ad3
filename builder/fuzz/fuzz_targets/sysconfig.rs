//! Arbitrary text as /etc/sysconfig/kdump. Every refusal names file and line.

#![no_main]

use kdump_builder::config::Sysconfig;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &str| {
    if let Err(error) = Sysconfig::parse(text, Path::new("kdump"), &mut Vec::new()) {
        assert!(format!("{error:#}").starts_with("kdump:"), "{error:#}");
    }
});
