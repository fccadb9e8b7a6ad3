//! The ELF dump: every kept page is in it as it was, at its address, and readers of vmcores read it.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use common::{Era, Leaf, Machine, RAM, RAM_LEN, kept};
use kdump_capture::cli::Format;
use kdump_capture::compress::Kind;
use kdump_capture::dumpfile::elf::GAP;
use kdump_capture::dumpfile::flatten::Flattened;
use kdump_capture::dumpfile::rebuild;
use kdump_capture::fake::{MemCore, MemFile};
use kdump_capture::output::Output;
use kdump_capture::pipeline::{Plan, Wanted};
use kdump_capture::report::{DumpReport, Outcome};
use kdump_capture::units::{DumpLevel, PageSize, Pfn, PhysAddr};
use kdump_capture::vmcore::elf::{ElfParts, read};
use kdump_capture::vmcore::read::PhysMem;
use kdump_capture::vmcore::segments::{Load, Segments};
use proptest::prelude::*;

/// Dropped: exactly as many pages as end a segment at 0x500, fewer at 0x440.
fn machine() -> Machine {
    let mut machine = Machine::new(Era::V6_12, 5, Leaf::M2);
    machine.set(0x440, &["buddy:6"]);
    machine.set(0x500, &["buddy:8"]);
    machine
}

fn dump(machine: &Machine, memory: &dyn PhysMem, level: u8, threads: usize, limit: usize) -> (DumpReport, Vec<u8>) {
    let out = MemFile::new(limit);
    let report = machine.dump_to(memory, level, Format::Elf, Kind::None, threads, &out);
    (report, out.into_bytes())
}

fn parts(bytes: &[u8]) -> ElfParts {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("elf");
    fs::write(&path, bytes).unwrap();
    read(&File::open(path).unwrap(), bytes.len() as u64).unwrap()
}

/// The bytes of a PT_LOAD that are in the file.
fn data<'a>(bytes: &'a [u8], load: &Load) -> &'a [u8] {
    let rest = bytes.get(load.offset.0 as usize..).unwrap_or_default();
    &rest[..rest.len().min(load.filesz as usize)]
}

fn flags(bytes: &[u8]) -> u8 {
    bytes[48]
}

#[test]
fn segments_end_before_a_long_gap_and_cover_the_same_addresses() {
    let machine = machine();
    let (report, bytes) = dump(&machine, &machine.memory(), 16, 2, usize::MAX);
    assert_eq!((report.outcome, report.pages.dropped.free), (Outcome::Complete, 64 + GAP));
    assert_eq!((report.pages.kept, report.bytes), (0x500 - 64 - GAP, bytes.len() as u64));
    let parts = parts(&bytes);
    assert_eq!(parts.notes, machine.notes().0);
    let [load] = parts.loads.as_slice() else { panic!("{:?}", parts.loads) };
    assert_eq!((load.phys.0, load.memsz, load.filesz), (RAM, RAM_LEN as u64, 0x400 << 12));
    assert!(data(&bytes, load) == &machine.ram[..0x400 << 12], "pages of the short gap are written");
    assert_eq!(load.offset.0 % 4096, 0);
    assert_eq!(flags(&bytes), 0);
}

#[test]
fn a_gap_in_the_middle_begins_a_segment_and_one_at_the_start_has_no_data() {
    let mut machine = Machine::new(Era::V6_12, 4, Leaf::M2);
    machine.set(0x100, &["buddy:8"]);
    machine.set(0x400, &["buddy:7"]);
    machine.set(0x480, &["buddy:7"]);
    let (report, bytes) = dump(&machine, &machine.memory(), 16, 3, usize::MAX);
    assert_eq!(report.outcome, Outcome::Complete);
    let found: Vec<_> = parts(&bytes).loads.iter().map(|l| (l.phys.0 >> 12, l.filesz >> 12, l.memsz >> 12)).collect();
    assert_eq!(found, [(0x100, 0, 0x100), (0x200, 0x200, 0x300), (0x500, 0x100, 0x100)]);
}

#[test]
fn pages_that_are_not_to_be_read_are_not_written_between_others_either() {
    for kind in ["hwpoison", "offline"] {
        let mut machine = Machine::new(Era::V7_1, 4, Leaf::M2);
        machine.set(0x500, &[kind]);
        machine.set(0x480, &["buddy:3"]);
        for window in [u64::MAX, 0x100] {
            let wanted =
                Wanted { threads: 2, level: DumpLevel::new(16).unwrap(), format: Format::Elf, ..Wanted::default() };
            let plan = Plan { window, ..Plan::within(machine.memory().segments(), &wanted) };
            let out = MemFile::new(usize::MAX);
            assert_eq!(machine.planned(&machine.memory(), &plan, &[&out]).outcome, Outcome::Complete);
            let loads = parts(&out.into_bytes()).loads;
            let found: Vec<_> = loads.iter().map(|l| (l.phys.0 >> 12, l.filesz >> 12, l.memsz >> 12)).collect();
            assert_eq!(found, [(0x100, 0x400, 0x401), (0x501, 0xff, 0xff)], "{kind}; a small free block is written");
        }
    }
}

#[test]
fn the_bytes_are_the_same_with_any_number_of_threads() {
    let machine = machine();
    for level in [0, 1, 31] {
        let one = dump(&machine, &machine.memory(), level, 1, usize::MAX).1;
        for threads in [2, 5] {
            assert!(dump(&machine, &machine.memory(), level, threads, usize::MAX).1 == one, "{level} {threads}");
        }
    }
}

#[test]
fn pages_cut_at_a_segment_s_ends_are_written_as_far_as_they_go() {
    let mut machine = machine();
    machine.set(0x400, &["buddy:8"]);
    let (head, tail) = (0x400, RAM_LEN - 0x300);
    let memory = MemCore::new([(PhysAddr(RAM + head as u64), machine.ram[head..tail].to_vec())]);
    let (report, bytes) = dump(&machine, &memory, 16, 2, usize::MAX);
    assert_eq!(report.outcome, Outcome::Complete, "{report:?}");
    let [first, last] = parts(&bytes).loads[..] else { panic!("{:?}", parts(&bytes).loads) };
    assert_eq!((first.phys.0, first.filesz), (RAM + 0x400, 0x30_0000 - 0x400));
    assert_eq!((last.phys.0, last.filesz, last.memsz), (RAM + 0x4f_f000, 0xd00, 0xd00));
    assert_eq!(first.offset.0 % 4096, 0x400);
    for load in [first, last] {
        let at = (load.phys.0 - RAM) as usize;
        assert!(data(&bytes, &load) == &machine.ram[at..at + load.filesz as usize], "{load:?}");
    }
}

#[test]
fn more_segments_than_a_header_can_count_are_counted_in_a_section() {
    let machine = machine();
    for (pieces, headers) in [(0xfffd, 0xfffe), (0xfffe, 0xffff), (0x1_0010, 0xffff)] {
        // Sixteen bytes in each page, one place further every time.
        let piece = |n: u64| (PhysAddr(n * 4096 + n * 16 % 4096), n.to_le_bytes().repeat(2));
        let memory = MemCore::new((0..pieces).map(piece));
        let (report, bytes) = dump(&machine, &memory, 0, 2, usize::MAX);
        assert_eq!(report.outcome, Outcome::Complete);
        assert_eq!(u16::from_le_bytes([bytes[56], bytes[57]]), headers);
        let parts = parts(&bytes);
        assert!(parts.problems.is_empty() && parts.loads.len() as u64 == pieces, "{:?}", parts.problems);
        for (n, load) in parts.loads.iter().enumerate() {
            assert_eq!(data(&bytes, load), (n as u64).to_le_bytes().repeat(2));
        }
    }
}

#[test]
fn headers_that_claim_the_same_memory_over_and_over_do_not_fill_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut elf = machine().elf();
    let ram = elf[64 + 2 * 56..64 + 3 * 56].to_vec();
    for n in 3..60 {
        elf[64 + n * 56..64 + (n + 1) * 56].copy_from_slice(&ram);
    }
    elf[56] = 60;
    fs::write(dir.path().join("vmcore"), &elf).unwrap();
    assert!(run(&["-E", "vmcore", "dump"], dir.path()));
    let size = fs::metadata(dir.path().join("dump")).unwrap().len();
    assert!(size < 3 * RAM_LEN as u64, "{size}");
}

#[test]
fn a_full_disk_leaves_a_core_that_says_so_with_the_pages_that_fit() {
    let machine = machine();
    let whole = dump(&machine, &machine.memory(), 0, 1, usize::MAX).1.len();
    for threads in [1, 3] {
        for limit in [whole / 2, whole - 4000, whole - 1] {
            let (report, bytes) = dump(&machine, &machine.memory(), 0, threads, limit);
            assert_eq!((report.outcome, flags(&bytes)), (Outcome::Incomplete, 1));
            assert!(report.error.unwrap().contains("incomplete dumpfile"));
            assert!(report.pages.kept > 0x100 && report.pages.kept < 0x500);
            let parts = parts(&bytes);
            let map = Segments::new(parts.loads.clone(), bytes.len() as u64, PageSize::K4, &mut vec![]);
            let found: u64 = map.backed().iter().map(|run| run.len()).sum();
            assert!(found >= report.pages.kept && found < 0x500);
            assert!(data(&bytes, &parts.loads[0]) == &machine.ram[..bytes.len() - parts.loads[0].offset.0 as usize]);
        }
    }
    let (report, _) = dump(&machine, &machine.memory(), 0, 1, 1000);
    assert_eq!(report.outcome, Outcome::Failed);
}

#[test]
fn a_page_that_cannot_be_read_is_zeros_and_makes_the_core_incomplete() {
    let machine = machine();
    let mut memory = machine.memory();
    memory.break_page(Pfn(0x151));
    let (report, bytes) = dump(&machine, &memory, 0, 2, usize::MAX);
    assert_eq!((report.outcome, report.pages.unreadable, flags(&bytes)), (Outcome::Incomplete, 1, 1));
    let data = data(&bytes, &parts(&bytes).loads[0]).to_vec();
    assert!(data[0x51 << 12..0x52 << 12].iter().all(|b| *b == 0));
    assert!(data[0x52 << 12..] == machine.ram[0x52 << 12..]);
}

#[test]
fn a_flattened_core_rebuilds_to_the_same_bytes_and_cut_short_says_incomplete() {
    let machine = machine();
    for (level, threads) in [(0, 1), (31, 4)] {
        let direct = dump(&machine, &machine.memory(), level, 1, usize::MAX).1;
        let out = Flattened::new(vec![]).unwrap();
        machine.dump_to(&machine.memory(), level, Format::Elf, Kind::None, threads, &out);
        out.finish().unwrap();
        let stream = out.into_inner();
        for cut in [0, 100, stream.len() / 2] {
            let mut from = &stream[..stream.len() - cut];
            rebuild::header(&mut from).unwrap().unwrap();
            let file = MemFile::new(usize::MAX);
            let done = rebuild::records(&mut from, &file);
            let bytes = file.into_bytes();
            assert_eq!(done.ended.is_some(), cut > 0);
            assert!(cut > 0 || bytes == direct, "{level} {threads}");
            assert!(cut == 0 || bytes.len() < 64 || flags(&bytes) == 1);
        }
    }
}

fn run(args: &[&str], dir: &Path) -> bool {
    Command::new(env!("CARGO_BIN_EXE_kdump-capture")).args(args).current_dir(dir).output().unwrap().status.success()
}

#[test]
fn a_dump_of_the_core_holds_the_pages_that_a_dump_of_the_vmcore_holds() {
    let dir = tempfile::tempdir().unwrap();
    let machine = machine();
    fs::write(dir.path().join("vmcore"), machine.elf()).unwrap();
    assert!(run(&["-E", "-d", "17", "vmcore", "core"], dir.path()));
    assert!(run(&["-d", "17", "core", "again"], dir.path()));
    assert!(run(&["-d", "17", "vmcore", "direct"], dir.path()));
    let pages = |name: &str| -> Vec<_> {
        let pages = kept(&fs::read(dir.path().join(name)).unwrap());
        pages.into_iter().filter(|(_, page)| page.iter().flatten().any(|b| *b != 0)).collect()
    };
    let pfns = |name: &str| pages(name).iter().map(|(pfn, _)| pfn.0).collect::<Vec<_>>();
    assert_eq!(pfns("again"), pfns("direct"));
    assert!(pages("again") == pages("direct") && pages("direct").len() > 0x100);
    // And a core of the core is the core.
    assert!(run(&["-E", "-d", "17", "core", "core2"], dir.path()));
    assert!(fs::read(dir.path().join("core2")).unwrap() == fs::read(dir.path().join("core")).unwrap());
    let log = |name: &str| run(&["--dump-dmesg", "-f", name, "log"], dir.path());
    assert!(log("core"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_kept_page_is_in_the_core_as_it_was(
        kinds in proptest::collection::vec((0x418u64..0x600, 0usize..4, 0u64..9), 0..20),
        level in 0u8..32,
        threads in 1usize..5,
    ) {
        let mut machine = machine();
        for (pfn, kind, order) in kinds {
            let kind = ["buddy", "anon", "lru", "offline"][kind];
            machine.set(pfn >> order << order, &[&if kind == "buddy" { format!("buddy:{order}") } else { kind.into() }]);
        }
        let (as_kdump, kdump) = machine.dump(&machine.memory(), level, Kind::None, 1, usize::MAX);
        let (report, bytes) = dump(&machine, &machine.memory(), level, threads, usize::MAX);
        prop_assert_eq!(report.outcome, Outcome::Complete);
        prop_assert_eq!(report.pages, as_kdump.pages);
        prop_assert_eq!(report.bytes, bytes.len() as u64);
        let loads = parts(&bytes).loads;
        prop_assert_eq!(loads.iter().map(|l| l.memsz).sum::<u64>(), RAM_LEN as u64);
        for load in &loads {
            let at = (load.phys.0 - RAM) as usize;
            prop_assert!(data(&bytes, load) == &machine.ram[at..at + load.filesz as usize]);
        }
        let within = |pfn: Pfn| loads.iter().any(|l| l.phys.0 <= pfn.0 << 12 && pfn.0 << 12 < l.phys.0 + l.filesz);
        for (pfn, page) in kept(&kdump) {
            let zero = page.unwrap().iter().all(|b| *b == 0);
            prop_assert!(within(pfn) || (zero && level & 1 == 1), "pfn {}", pfn);
        }
    }
}
