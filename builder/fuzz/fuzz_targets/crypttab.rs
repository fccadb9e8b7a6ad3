//! Arbitrary text as `/etc/crypttab`.

#![no_main]

use kdump_builder::host::crypttab::key_file;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (text, options) = input;
    let _ = key_file(text, "secret", "aa010203-0405-0607-0809-0a0b0c0d0e0f");
    let _ = key_file(&format!("secret /dev/x /k {options}"), "secret", "");
});
