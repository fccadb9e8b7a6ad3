//! Dumps in the order of use: the same pages as ever, and those that are cut off are the least useful ones.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

mod common;

use common::{Era, Leaf, Machine, kept};
use kdump_capture::cli::Format;
use kdump_capture::compress::Kind;
use kdump_capture::dumpfile::order::Use;
use kdump_capture::dumpfile::{flat_file::FlatFile, flatten::Flattened, read::Source};
use kdump_capture::examine::check;
use kdump_capture::fake::{MemCore, MemFile};
use kdump_capture::kernel::Kernel;
use kdump_capture::output::Output;
use kdump_capture::paging::{Seen, walk};
use kdump_capture::pipeline::{Plan, Wanted};
use kdump_capture::progress::Messages;
use kdump_capture::report::{DumpReport, Outcome};
use kdump_capture::units::{DumpLevel, FileOffset, Pfn, PhysAddr};
use kdump_capture::vmcore::read::PhysMem;
use proptest::prelude::*;

const STACK: u64 = 0x5f0;
const PER_CPU: u64 = 0x5e0;

/// The image at 0x200, struct pages at 0x400; and what is listed in [`known`].
fn machine() -> Machine {
    let mut machine = Machine::new(Era::V6_12, 5, Leaf::K4);
    // A flag that all pages of the image have, and one page elsewhere.
    for pfn in (0x200..0x400).chain([PER_CPU]) {
        machine.set(pfn, &["waiters"]);
    }
    machine.set(0x180, &["buddy:4"]);
    machine.set(0x1c0, &["anon", "compound:3"]);
    machine.set(0x520, &["slab"]);
    machine.set(0x540, &["slab", "compound:2"]);
    machine.set(0x550, &["lru", "file", "private"]);
    machine.set(0x551, &["lru", "file"]);
    machine.set(0x560, &["anon"]);
    // A stack, which is not to be executed; and user memory that the kernel has mapped as well.
    machine.map(0xffa0_0000_0000_0000, STACK << 12 | 1 << 63, 4096);
    machine.map(0xffa0_0000_0000_2000, 0x560 << 12 | 1 << 63, 4096);
    machine
}

/// Some pages, the most useful first; those of one list are good for the same.
fn known() -> [(Use, Vec<u64>); 10] {
    [
        (Use::Needed, vec![0x200, 0x201, STACK]),
        (Use::Boot, vec![PER_CPU]),
        (Use::Slab, vec![0x520, 0x540, 0x541, 0x542, 0x543]),
        (Use::Code, vec![0x280, 0x300, 0x3ff]),
        (Use::Memmap, vec![0x400, 0x417]),
        (Use::Kernel, vec![0x100, 0x418, 0x544, 0x5ff]),
        (Use::PrivateCache, vec![0x550]),
        (Use::Cache, vec![0x551]),
        (Use::User, vec![0x1c0, 0x1c7, 0x560]),
        (Use::Free, vec![0x180, 0x18f]),
    ]
}

fn plan(machine: &Machine, level: u8, threads: usize, window: u64, by_use: bool) -> Plan {
    let (level, codec) = (DumpLevel::new(level).unwrap(), Kind::Zstd);
    let wanted = Wanted { threads, level, format: Format::Kdump, codec, by_use, ..Wanted::default() };
    Plan { window, batch: 64, ..Plan::within(machine.memory().segments(), &wanted) }
}

fn dump(machine: &Machine, plan: &Plan, limit: usize) -> (DumpReport, Vec<u8>) {
    let file = MemFile::new(limit);
    let report = machine.planned(&machine.memory(), plan, &[&file]);
    (report, file.into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_whole_dump_has_the_same_pages_in_either_order(
        window in prop_oneof![Just(u64::MAX), (1u64..30).prop_map(|words| words * 64)],
        level in 0u8..32,
        threads in 1usize..4,
    ) {
        let machine = machine();
        let (plain, one) = dump(&machine, &plan(&machine, level, 1, u64::MAX, false), usize::MAX);
        let (report, other) = dump(&machine, &plan(&machine, level, threads, window, true), usize::MAX);
        prop_assert_eq!((report.outcome, report.pages), (Outcome::Complete, plain.pages));
        prop_assert_eq!(&report.problems, &plain.problems);
        prop_assert!(kept(&other) == kept(&one));
        let verdict = check(&common::Bytes(other.clone()), other.len() as u64, 1, Messages(0));
        prop_assert!(verdict.sound, "{:?}", verdict.problems);
    }

    #[test]
    fn what_is_cut_off_is_less_useful_than_what_is_there(
        window in prop_oneof![Just(u64::MAX), (1u64..30).prop_map(|words| words * 64)],
        threads in 1usize..4,
        part in 1usize..100,
    ) {
        let machine = machine();
        let whole = dump(&machine, &plan(&machine, 0, 1, u64::MAX, false), usize::MAX).1;
        // From where the headers and one page just fit.
        let least = 0x500 * 24 + 5 * 4096;
        let limit = least + (whole.len() - least) * part / 100;
        let (report, bytes) = dump(&machine, &plan(&machine, 0, threads, window, true), limit);
        prop_assert_eq!(report.outcome, Outcome::Incomplete);
        let cut = report.problems.iter().find_map(|problem| problem.split("the dump is cut in ").nth(1)).unwrap();
        let pages = kept(&bytes);
        prop_assert_eq!(pages.len(), 0x500);
        let saved = pages.iter().filter(|(_, page)| page.is_some()).count() as u64;
        prop_assert_eq!(saved, report.pages.kept);
        for (pfn, page) in &pages {
            prop_assert!(page.as_deref().is_none_or(|page| page == machine.page(pfn.0)), "{:?}", pfn);
        }
        let at = Use::ORDER.iter().position(|use_| use_.name() == cut).unwrap();
        for (place, (use_, list)) in known().iter().enumerate() {
            for pfn in list {
                let there = pages.iter().any(|(page, bytes)| page.0 == *pfn && bytes.is_some());
                prop_assert!(place == at || there == (place < at), "{:x} ({:?}), cut in {}", pfn, use_, cut);
            }
        }
    }
}

#[test]
fn the_order_of_the_list_here_is_the_collector_s() {
    assert_eq!(known().map(|(use_, _)| use_), Use::ORDER);
}

#[test]
fn the_same_memory_gives_the_same_bytes_with_any_number_of_workers() {
    let machine = machine();
    let one = dump(&machine, &plan(&machine, 8, 1, u64::MAX, true), usize::MAX).1;
    for threads in 2..5 {
        assert!(dump(&machine, &plan(&machine, 8, threads, u64::MAX, true), usize::MAX).1 == one, "{threads} workers");
    }
}

#[test]
fn a_stream_in_the_order_of_use_is_the_same_dump() {
    let machine = machine();
    let plan = plan(&machine, 31, 2, u64::MAX, true);
    let stream = Flattened::new(Vec::new()).unwrap();
    assert_eq!(machine.planned(&machine.memory(), &plan, &[&stream]).outcome, Outcome::Complete);
    stream.finish().unwrap();
    let stream = stream.into_inner();
    let flat = FlatFile::open(common::Bytes(stream.clone()), stream.len() as u64).unwrap();
    let mut rebuilt = vec![0; usize::try_from(flat.len()).unwrap()];
    flat.read_at(FileOffset(0), &mut rebuilt).unwrap();
    assert!(kept(&rebuilt) == kept(&dump(&machine, &plan, usize::MAX).1));
}

#[test]
fn a_walk_sees_all_that_is_mapped_once_and_ends_among_tables_that_lead_in_circles() {
    let mut machine = machine();
    let walked = |machine: &Machine, most: u64| {
        let memory: MemCore = machine.memory();
        let kernel = Kernel::learn(machine.vmcoreinfo.as_bytes(), &memory, &mut Vec::new());
        let (mut tables, mut leaves) = (vec![], vec![]);
        let whole = walk(kernel.paging.as_deref().unwrap(), &memory, most, &mut |seen| {
            match seen {
                Seen::Table { at, .. } => tables.push(at.0),
                Seen::Leaf { virt, phys, code, .. } => leaves.push((virt.0, Pfn(phys.0 >> 12), code)),
            }
            true
        });
        (whole, tables, leaves)
    };
    let (whole, tables, leaves) = walked(&machine, 1000);
    assert!(whole && leaves.len() == 0x200 + 24 + 2, "{}", leaves.len());
    assert!(leaves.contains(&(0xffa0_0000_0000_0000, Pfn(STACK), false)));
    assert!(leaves.contains(&(0xffff_ffff_811f_f000, Pfn(0x3ff), true)));
    assert!(leaves.is_sorted(), "from the lowest address up");
    assert_eq!((tables[0], tables.len()), (0x20_0000, 13), "a top table, and four on each of three ways");
    assert!(!walked(&machine, 4).0);
    // An entry of the top table that leads to itself, and one that leads out of memory.
    let root = PhysAddr(0x20_0000);
    machine.put64(root.0 + 300 * 8, root.0 | 3);
    machine.put64(root.0 + 301 * 8, 0x7000_0000 | 3);
    let (whole, tables, _) = walked(&machine, 100_000);
    assert!(whole && tables.len() < 1000, "{}", tables.len());
}
