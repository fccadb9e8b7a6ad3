//! A small dump with bytes of it replaced, to be read back, and as the one part of a split dump.
//! Input: a byte that chooses the dump, then patches of 2 bytes position, 1 byte length, and that many bytes; if the byte
//! is 255, what follows is the dump.

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use std::sync::LazyLock;

use common::{Era, Leaf, Machine};
use kdump_capture::cli::Format;
use kdump_capture::compress::Kind;
use kdump_capture::dumpfile::layout::Descriptor;
use kdump_capture::dumpfile::memory::DumpMem;
use kdump_capture::dumpfile::read::Dump;
use kdump_capture::dumpfile::reassemble::Parts;
use kdump_capture::examine;
use kdump_capture::fake::{MemCore, MemFile};
use kdump_capture::kernel::Kernel;
use kdump_capture::progress::Messages;
use kdump_capture::units::PhysAddr;
use kdump_capture::vmcore::read::PhysMem;
use libfuzzer_sys::fuzz_target;

static DUMPS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let machine = Machine::new(Era::V6_12, 4, Leaf::M2);
    let small = MemCore::new([(PhysAddr(0x10_0000), machine.ram[..24 << 12].to_vec())]);
    let mut dumps: Vec<_> = Kind::ALL.map(|kind| machine.dump(&small, 1, kind, 1, usize::MAX).1).to_vec();
    let parts = [MemFile::new(1 << 20), MemFile::new(1 << 20)];
    let _ = machine.split_to(&small, 0, Format::Kdump, Kind::Lzo, 1, &[&parts[0], &parts[1]]);
    dumps.extend(parts.map(MemFile::into_bytes));
    dumps
});

fuzz_target!(|data: &[u8]| {
    let Some((first, mut rest)) = data.split_first() else { return };
    let mut bytes = match first {
        255 => std::mem::take(&mut rest).to_vec(),
        _ => DUMPS[usize::from(*first) % DUMPS.len()].clone(),
    };
    while let Some((head, tail)) = rest.split_first_chunk::<3>() {
        let at = usize::from(u16::from_le_bytes([head[0], head[1]]));
        let (patch, after) = tail.split_at(usize::from(head[2] % 24).min(tail.len()));
        rest = after;
        let at = match at % 4 {
            // The header, the sub header and notes, bitmaps and descriptors, anything.
            0 => at / 4 % 464,
            1 => 4096 + at / 4 % 2048,
            2 => 8192 + at / 4 % (4 * 4096),
            _ => at,
        };
        let at = at % (bytes.len() - 32);
        bytes[at..at + patch.len()].copy_from_slice(patch);
    }
    let len = bytes.len() as u64;
    let source = common::Bytes(bytes);
    if let Ok(Ok(parts)) = Parts::open(&[&source]) {
        let out = MemFile::new(1 << 20);
        if let Ok(done) = parts.write(&out) {
            assert!(done.bytes <= 1 << 20);
        }
    }
    // A larger machine needs a larger bitmap; nothing else depends on it.
    if Dump::open(&source).is_ok_and(|dump| dump.header.max_pfn.0 > 1 << 22) {
        return;
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
