//! Arbitrary bytes as a binary index: they end in entries, in order and of bounded size, or in an error.

#![no_main]

use kdump_hooks::kmod::binary_entries;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // The header is given, so that what lies behind it is reached.
    let mut index = b"\xb0\x07\xf4\x57\x00\x02\x00\x01".to_vec();
    index.extend(bytes);
    for bytes in [bytes, &index] {
        if let Ok(entries) = binary_entries(bytes) {
            assert!(entries.is_sorted_by_key(|entry| entry.priority));
            let size: usize = entries.iter().map(|entry| entry.key.len() + entry.value.len()).sum();
            // A byte that is not UTF-8 is three as its replacement.
            assert!(size <= 3 * (64 << 20));
        }
    }
});
