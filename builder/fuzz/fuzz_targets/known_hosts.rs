//! Arbitrary text as a file of known hosts, asked for an arbitrary host.

#![no_main]

use kdump_builder::host::known_hosts::keys_of;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (text, host) = input;
    for key in keys_of(text, host) {
        assert_eq!(key.split(' ').count(), 2, "{key}");
    }
});
