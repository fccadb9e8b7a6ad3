//! Arbitrary text as dracut.conf. Every refusal names file and line.

#![no_main]

use kdump_builder::config::{Complaints, dracut::Asked};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &str| {
    let mut complaints = Complaints::default();
    Asked::default().text(text, Path::new("dracut.conf"), &mut complaints);
    for error in complaints.errors() {
        assert!(error.starts_with("dracut.conf:"), "{error}");
    }
});
