//! Arbitrary text as /etc/sysconfig/kdump, in RHEL's and in SUSE's words. Every refusal names file and line.

#![no_main]

use kdump_builder::config::{Complaints, Config};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &str| {
    for alone in [false, true] {
        let mut complaints = Complaints::default();
        Config::of_sysconfig(text, Path::new("kdump"), alone, &mut complaints);
        for error in complaints.errors() {
            assert!(error.starts_with("kdump:"), "{error}");
        }
    }
});
