//! Arbitrary bytes as a dump to be read back.

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use kdump_capture::compress::Kind;
use kdump_capture::dumpfile::layout::Descriptor;
use kdump_capture::dumpfile::read::Dump;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    if bytes.len() > 464 {
        bytes[..12].copy_from_slice(b"KDUMP   \x06\0\0\0");
    }
    let source = common::Bytes(bytes);
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
        // Whatever the descriptor says, every codec has a look at it.
        for kind in Kind::ALL {
            let _ = dump.page(&Descriptor { flags: kind.flag(), ..*descriptor });
        }
    }
});
