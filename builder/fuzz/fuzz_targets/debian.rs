//! Arbitrary text as /etc/default/kdump-tools. Every refusal names file and line.

#![no_main]

use kdump_builder::config::{Complaints, debian};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &str| {
    let mut complaints = Complaints::default();
    debian::parse(text, Path::new("kdump-tools"), Path::new("/nowhere"), &mut complaints);
    for error in complaints.errors() {
        assert!(error.starts_with("kdump-tools:"), "{error}");
    }
});
