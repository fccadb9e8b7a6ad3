//! Arbitrary text as kdump.conf, its `dracut_args` among it. Every refusal names file and line.

#![no_main]

use kdump_builder::config::{Complaints, Rhel};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &str| {
    let mut complaints = Complaints::default();
    Rhel::parse(text, Path::new("kdump.conf"), &mut complaints);
    for error in complaints.errors() {
        assert!(error.starts_with("kdump.conf:"), "{error}");
    }
});
