//! Arbitrary text as initramfs-tools' list of modules. Every refusal names file and line.

#![no_main]

use kdump_builder::config::{Complaints, Image, initramfs_tools};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &str| {
    let (mut image, mut complaints) = (Image::default(), Complaints::default());
    initramfs_tools::follow(&mut image, text, Path::new("modules"), &mut complaints);
    for error in complaints.errors() {
        assert!(error.starts_with("modules:"), "{error}");
    }
});
