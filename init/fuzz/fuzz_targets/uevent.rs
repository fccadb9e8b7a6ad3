//! Arbitrary bytes as a message of the kernel, and as a beat of the worker.

#![no_main]

use kdump_init::beat::Beat;
use kdump_init::devices::Uevent;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some(event) = Uevent::parse(data) {
        let _ = (event.modalias(), event.is_block());
    }
    let line = std::str::from_utf8(data).ok().and_then(|text| text.lines().next());
    if let Some(beat) = line.and_then(Beat::parse) {
        assert_eq!(Beat::parse(&beat.line()), Some(beat));
    }
});
