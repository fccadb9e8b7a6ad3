//! Any text is an fstab: no panic, and a line is read back as it is written.
#![no_main]

use kdump_hooks::fstab;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for entry in fstab::parse(text) {
        // Text that is not what it was written from would be mounted elsewhere.
        let again = fstab::parse(&entry.to_string());
        assert_eq!(again.first().map(|read| (&read.source, &read.point)), Some((&entry.source, &entry.point)));
        let _ = entry.for_the_kernel();
    }
});
