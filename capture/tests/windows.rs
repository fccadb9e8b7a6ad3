//! Less memory than the bitmap takes: the same pages in the same dump, found window by window.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

mod common;

use std::fs;

use common::{Era, Leaf, Machine, kept, options};
use kdump_capture::cli::{DumpOptions, Format, MemoryOptions};
use kdump_capture::compress::Kind;
use kdump_capture::fake::MemFile;
use kdump_capture::output::Output;
use kdump_capture::pipeline::{self, Plan, Wanted};
use kdump_capture::report::{DumpReport, Outcome};
use kdump_capture::units::{DumpLevel, PageSize, PhysAddr, VirtAddr};
use kdump_capture::vmcore::segments::{Load, Segments};
use proptest::prelude::*;

fn machine() -> Machine {
    let mut machine = Machine::new(Era::V6_12, 5, Leaf::M2);
    // Blocks that reach across the ends of small windows.
    machine.set(0x200, &["hugetlb:8"]);
    machine.set(0x400, &["buddy:6"]);
    machine.set(0x500, &["anon", "compound:7"]);
    machine.set(0x590, &["lru", "file"]);
    machine
}

fn wanted(level: u8, format: Format, threads: usize) -> Wanted {
    Wanted { threads, level: DumpLevel::new(level).unwrap(), format, codec: Kind::Zlib, ..Wanted::default() }
}

fn dump(machine: &Machine, plan: &Plan, parts: usize, limit: usize) -> (DumpReport, Vec<Vec<u8>>) {
    let files: Vec<MemFile> = (0..parts).map(|_| MemFile::new(limit)).collect();
    let outs: Vec<&dyn Output> = files.iter().map(|file| file as &dyn Output).collect();
    let report = machine.planned(&machine.memory(), plan, &outs);
    (report, files.into_iter().map(MemFile::into_bytes).collect())
}

fn windows(machine: &Machine, wanted: &Wanted, window: u64) -> Plan {
    let plan = Plan::within(kdump_capture::vmcore::read::PhysMem::segments(&machine.memory()), wanted);
    Plan { window, batch: 64, ..plan }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn windows_of_any_size_give_the_same_pages(
        window in (1u64..30).prop_map(|words| words * 64),
        level in 0u8..32,
        threads in 1usize..4,
    ) {
        let machine = machine();
        let (whole, one) = dump(&machine, &windows(&machine, &wanted(level, Format::Kdump, 1), u64::MAX), 1, usize::MAX);
        let plan = windows(&machine, &wanted(level, Format::Kdump, threads), window);
        let (report, some) = dump(&machine, &plan, 1, usize::MAX);
        prop_assert_eq!((report.outcome, report.pages), (Outcome::Complete, whole.pages));
        prop_assert_eq!(&report.problems, &whole.problems);
        prop_assert!(kept(&some[0]) == kept(&one[0]));

        let core = dump(&machine, &windows(&machine, &wanted(level, Format::Elf, 1), u64::MAX), 1, usize::MAX);
        let (report, some) = dump(&machine, &windows(&machine, &wanted(level, Format::Elf, threads), window), 1, usize::MAX);
        prop_assert_eq!((report.outcome, report.pages), (Outcome::Complete, whole.pages));
        prop_assert!(some[0] == core.1[0]);
    }

    #[test]
    fn a_dump_split_at_windows_has_each_page_once(window in (2u64..12).prop_map(|words| words * 64), parts in 2usize..5) {
        use kdump_capture::dumpfile::{read::Source, reassemble::Parts};
        let machine = machine();
        let plan = windows(&machine, &wanted(31, Format::Kdump, 2), window);
        let (report, files) = dump(&machine, &plan, parts, usize::MAX);
        prop_assert_eq!(report.outcome, Outcome::Complete);
        let files: Vec<common::Bytes> = files.into_iter().map(common::Bytes).collect();
        let sources: Vec<&dyn Source> = files.iter().map(|file| file as &dyn Source).collect();
        let out = MemFile::new(usize::MAX);
        let done = Parts::open(&sources).unwrap().unwrap().write(&out).unwrap();
        prop_assert_eq!((done.missing, done.incomplete), (0, false));
        let one = dump(&machine, &windows(&machine, &wanted(31, Format::Kdump, 1), u64::MAX), 1, usize::MAX).1;
        prop_assert!(kept(&out.into_bytes()) == kept(&one[0]));
    }
}

#[test]
fn a_full_disk_leaves_a_dump_in_which_later_windows_are_marked_as_missing() {
    let machine = machine();
    let plan = windows(&machine, &wanted(0, Format::Kdump, 2), 256);
    let whole = dump(&machine, &plan, 1, usize::MAX).1.remove(0).len();
    for limit in [whole / 2, whole - 100] {
        let (report, files) = dump(&machine, &plan, 1, limit);
        assert_eq!(report.outcome, Outcome::Incomplete);
        let pages = kept(&files[0]);
        assert_eq!(pages.len(), 0x500);
        let saved = pages.iter().filter(|(_, page)| page.is_some()).count() as u64;
        assert_eq!(saved, report.pages.kept);
        assert!(saved > 0x80 && saved < 0x500, "{saved}");
        assert!(pages.iter().all(|(pfn, page)| page.as_deref().is_none_or(|page| page == machine.page(pfn.0))));
    }
}

fn memory_of(tib: u64) -> Segments {
    let load = |at: u64, len: u64| Load {
        phys: PhysAddr(at),
        virt: VirtAddr(0),
        offset: kdump_capture::units::FileOffset(4096),
        filesz: len,
        memsz: len,
    };
    // Below and above the hole that PCs have.
    Segments::new(vec![load(0x10_0000, 3 << 30), load(4 << 30, tib << 40)], u64::MAX, PageSize::K4, &mut vec![])
}

#[test]
fn the_budget_is_kept_with_any_number_of_workers() {
    for (tib, threads) in [(0, 1), (0, 2), (0, 64), (1, 1), (1, 16), (4, 500)] {
        for codec in Kind::ALL {
            let segments = memory_of(tib);
            let plan = Plan::within(&segments, &Wanted { threads, codec, ..Wanted::default() });
            assert!(plan.bytes <= (24 << 20) + (tib + 1) * (32 << 20), "{tib} TiB, {threads}: {plan:?}");
            assert!(plan.threads >= threads.min(20) && plan.batch >= 16, "{plan:?}");
            assert_eq!(plan.window, u64::MAX, "filtered once");
        }
    }
}

#[test]
fn little_memory_means_small_windows_and_few_workers_not_failure() {
    let segments = memory_of(4);
    for free in [0u64, 1 << 20, 10 << 20, 40 << 20, 100 << 20] {
        let plan = Plan::within(&segments, &Wanted { threads: 8, available: Some(free), ..Wanted::default() });
        assert!(plan.window < u64::MAX && plan.window.is_multiple_of(64), "{plan:?}");
        assert!(plan.bytes <= (free / 5 * 3).max(6 << 20), "{plan:?}");
    }
    let asked = |memory| Plan::within(&segments, &Wanted { threads: 2, memory, ..Wanted::default() });
    let small = asked(MemoryOptions { bitmap: Some(1 << 20), ..MemoryOptions::default() });
    assert_eq!(small.window, 8 << 20);
    assert_eq!(asked(MemoryOptions { batch: Some(64), ..MemoryOptions::default() }).batch, 64);
    let whole = MemoryOptions { budget: Some(8 << 20), whole_bitmap: true, ..MemoryOptions::default() };
    assert_eq!(asked(whole).window, u64::MAX);
    assert!(asked(MemoryOptions { budget: Some(64 << 20), ..MemoryOptions::default() }).bytes <= 64 << 20);
}

#[test]
fn the_command_line_s_budget_gives_the_same_dump() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("vmcore"), machine().elf()).unwrap();
    let plain = options(dir.path(), 31, Kind::Zstd);
    assert_eq!(pipeline::dump(&plain), 0);
    let usual = fs::read(&plain.output).unwrap();
    let memory = MemoryOptions { budget: Some(4 << 20), batch: Some(4), ..MemoryOptions::default() };
    assert_eq!(pipeline::dump(&DumpOptions { force: true, memory, ..plain.clone() }), 0);
    assert_eq!(kept(&fs::read(&plain.output).unwrap()), kept(&usual));
}
