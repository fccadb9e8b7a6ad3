//! A working dump with bytes of it replaced, filtered once more.
//! Input: a byte of level and shape, then patches of 3 bytes position, 1 byte length, and that many bytes.

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use std::path::Path;
use std::sync::LazyLock;

use common::{Bytes, Era, Leaf, Machine};
use kdump_capture::cli::Format;
use kdump_capture::compress::Kind;
use kdump_capture::dumpfile::layout::INCOMPLETE;
use kdump_capture::dumpfile::read::Dump;
use kdump_capture::fake::MemFile;
use kdump_capture::input::{KdumpInput, Notes};
use kdump_capture::kernel::Kernel;
use kdump_capture::pipeline::{Plan, Wanted, write_dump};
use kdump_capture::report::DumpReport;
use kdump_capture::units::DumpLevel;
use libfuzzer_sys::fuzz_target;

static DUMPS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut machine = Machine::new(Era::V6_12, 4, Leaf::M2);
    machine.set(0x480, &["buddy:7"]);
    machine.set(0x500, &["lru", "file"]);
    machine.set(0x502, &["lru", "anon"]);
    [(0, Kind::None), (1, Kind::Lzo)]
        .map(|(level, codec)| machine.dump(&machine.memory(), level, codec, 1, usize::MAX).1)
        .to_vec()
});

fuzz_target!(|data: &[u8]| {
    let Some((first, mut rest)) = data.split_first() else { return };
    let mut bytes = DUMPS[usize::from(first >> 5 & 1)].clone();
    while let Some((head, tail)) = rest.split_first_chunk::<4>() {
        let at = u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize;
        let len = usize::from(head[3] % 24).min(tail.len());
        let (patch, after) = tail.split_at(len);
        rest = after;
        let at = match at % 4 {
            // The header, the sub header and notes, bitmaps and descriptors, anything.
            0 => at / 4 % 464,
            1 => 4096 + at / 4 % 4096,
            2 => 4096 + at / 4 % (16 * 4096),
            _ => at / 4 % (bytes.len() - 32),
        };
        bytes[at..at + len].copy_from_slice(patch);
    }
    let source = Bytes(bytes);
    let Ok(input) = KdumpInput::open(&source, Path::new("dump"), &mut Vec::new()) else { return };
    // A larger machine needs a larger bitmap; nothing else depends on it.
    if Dump::open(&source).is_ok_and(|dump| dump.header.max_pfn.0 > 1 << 22) {
        return;
    }
    let mut report = DumpReport::default();
    let kernel = Kernel::learn(input.vmcoreinfo(), input.mem(), &mut report.problems);
    let level = DumpLevel::new(first & 31).unwrap();
    let format = if first >> 6 & 1 == 1 { Format::Elf } else { Format::Kdump };
    let wanted = Wanted { threads: 1, level, format, codec: Kind::Snappy, ..Wanted::default() };
    let plan = Plan::within(input.mem().segments(), &wanted);
    let out = MemFile::new(64 << 20);
    if write_dump(input.mem(), &input, &kernel, &[&out], &plan, &mut report).is_err() || format == Format::Elf {
        return;
    }
    let p = report.pages;
    let dump = Bytes(out.into_bytes());
    if report.error.is_none() {
        assert_eq!(p.total, p.kept + p.zero + p.dropped.total() + p.unreadable);
        let opened = Dump::open(&dump).unwrap();
        let mut kept = 0;
        opened
            .kept_pages(&mut |_| {
                kept += 1;
                Ok(())
            })
            .unwrap();
        assert_eq!(kept, p.kept + p.zero + p.unreadable);
        assert!(opened.header.status & INCOMPLETE != 0 || !(input.is_incomplete() || p.unreadable > 0));
        assert_eq!(opened.notes().unwrap(), input.bytes());
    }
});
