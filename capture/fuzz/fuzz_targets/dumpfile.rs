//! Arbitrary bytes as a dump to be read back, and as the one part of a split dump.

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use kdump_capture::compress::Kind;
use kdump_capture::dumpfile::layout::Descriptor;
use kdump_capture::dumpfile::memory::DumpMem;
use kdump_capture::dumpfile::read::Dump;
use kdump_capture::dumpfile::reassemble::Parts;
use kdump_capture::fake::MemFile;
use kdump_capture::examine;
use kdump_capture::kernel::Kernel;
use kdump_capture::progress::Messages;
use kdump_capture::units::PhysAddr;
use kdump_capture::vmcore::read::PhysMem;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    if bytes.len() > 464 {
        bytes[..12].copy_from_slice(b"KDUMP   \x06\0\0\0");
    }
    let len = bytes.len() as u64;
    let source = common::Bytes(bytes);
    if let Ok(Ok(parts)) = Parts::open(&[&source]) {
        let out = MemFile::new(1 << 20);
        if let Ok(done) = parts.write(&out) {
            assert!(done.bytes <= 1 << 20);
        }
    }
    let verdict = examine::check(&source, len, 1, Messages(0));
    assert!(verdict.problems.len() <= 20);
    let Ok(mut dump) = Dump::open(&source) else { return };
    if let (Ok(vmcoreinfo), Ok(memory)) = (dump.vmcoreinfo(), DumpMem::new(&source)) {
        let _ = Kernel::learn(&vmcoreinfo, &memory, &mut Vec::new());
        let mut pages = memory.reader();
        for pfn in 0..64 {
            let _ = pages.bytes(PhysAddr(pfn << 12), 4096);
        }
    }
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
