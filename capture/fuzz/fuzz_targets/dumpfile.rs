//! Arbitrary bytes as a dump to be read back, and as the one part of a split dump.

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use kdump_capture::dumpfile::read::Dump;
use kdump_capture::dumpfile::reassemble::Parts;
use kdump_capture::fake::MemFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    if bytes.len() > 464 {
        bytes[..12].copy_from_slice(b"KDUMP   \x06\0\0\0");
    }
    let source = common::Bytes(bytes);
    if let Ok(Ok(parts)) = Parts::open(&[&source]) {
        let out = MemFile::new(1 << 20);
        if let Ok(done) = parts.write(&out) {
            assert!(done.bytes <= 1 << 20);
        }
    }
    let Ok(mut dump) = Dump::open(&source) else { return };
    let _ = dump.vmcoreinfo();
    let _ = dump.present(&mut |_| Ok(()));
    let mut some = Vec::new();
    let _ = dump.kept(&mut |_, descriptor| {
        if some.len() < 64 {
            some.push(descriptor);
        }
        Ok(())
    });
    for descriptor in &some {
        let _ = dump.page(descriptor);
    }
});
