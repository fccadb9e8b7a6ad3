//! Arbitrary text as `/proc/keys`: at most a key for each line.

#![no_main]

use kdump_hooks::keys::Listed;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let keys = Listed::parse(text);
    assert!(keys.len() <= text.lines().count());
    assert!(keys.iter().all(|key| !key.kind.is_empty() && text.contains(&key.description)));
});
