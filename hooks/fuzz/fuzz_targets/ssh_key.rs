//! Arbitrary bytes as a private key, and as a host's key: a host's key that is taken has its kind in it.

#![no_main]

use kdump_hooks::ssh_key::{base64, check_host_key, check_private};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let _ = check_private(bytes, Path::new("/k"));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if check_host_key(text).is_ok() {
        let (kind, key) = text.trim().split_once(char::is_whitespace).unwrap();
        assert!(base64(key.trim()).unwrap()[4..].starts_with(kind.as_bytes()));
    }
});
