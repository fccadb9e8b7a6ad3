//! Arbitrary text as `fence_kdump_args`. What is accepted can be sent by.

#![no_main]

use kdump_builder::config::fence::Options;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(options) = Options::parse(text) {
        assert!(options.port > 0 && (1..=3600).contains(&options.interval), "{options:?}");
    }
});
