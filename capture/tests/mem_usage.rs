//! `--mem-usage`: /proc/kcore as kernels have written it, counted.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

mod common;

use std::fs;

use common::kcore::{Files, Kcore};
use common::{Era, Leaf, Machine, RAM, RAM_LEN};
use kdump_capture::cli::UsageOptions;
use kdump_capture::kernel::Kernel;
use kdump_capture::progress::Messages;
use kdump_capture::units::Pfn;
use kdump_capture::usage::{self, UsagePages, UsageReport};

/// Page frames 0x540 to 0x54f.
const IOMEM: &str = "00100000-005fffff : System RAM\n  00540000-0054ffff : Crash kernel\n";
const ALL: u64 = RAM_LEN as u64 / 4096;

fn machine() -> Machine {
    let mut machine = Machine::new(Era::V6_12, 4, Leaf::M2);
    machine.set(0x400, &["buddy:7"]);
    machine.set(0x480, &["lru", "file"]);
    machine.set(0x482, &["lru", "file", "private"]);
    machine.set(0x4c0, &["lru", "anon"]);
    machine.set(0x4c1, &["hwpoison"]);
    machine.set(0x4c2, &["offline"]);
    // In the crash kernel's memory nothing counts.
    machine.set(0x540, &["buddy:4"]);
    machine
}

fn system(iomem: &str) -> Files {
    Files([("/proc/iomem", iomem.to_owned())].into())
}

fn count(kcore: &[u8], system: &Files) -> (Result<(), String>, UsageReport) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kcore");
    fs::write(&path, kcore).unwrap();
    let options = UsageOptions { kcore: path, json: false, threads: 2, messages: Messages(0), report: None };
    let mut report = UsageReport::default();
    let result = usage::count(&options, system, &mut report);
    (result.map_err(|e| e.to_string()), report)
}

/// Pages of zeros among those that are kept whatever the level.
fn zeros(machine: &Machine) -> u64 {
    let dropped = |pfn| (0x400..0x480).contains(&pfn) || [0x480, 0x482, 0x4c0, 0x4c1, 0x4c2].contains(&pfn);
    let kept = (0x100..0x600).filter(|pfn| !dropped(*pfn) && !(0x540..0x550).contains(pfn));
    kept.filter(|pfn| machine.page(*pfn).iter().all(|byte| *byte == 0)).count() as u64
}

#[test]
fn every_page_outside_the_crash_kernel_is_counted_once_and_by_its_kind() {
    let machine = machine();
    let (result, report) = count(&machine.kcore(Kcore::WithNote), &system(IOMEM));
    result.unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    let p = report.pages;
    assert_eq!(p.total, ALL - 16);
    let d = p.dropped;
    assert_eq!((d.free, d.cache, d.private_cache, d.user, d.hwpoison, d.offline), (128, 1, 1, 1, 1, 1));
    assert_eq!((p.zero, p.unreadable), (zeros(&machine), 0));
    assert_eq!(p.total, p.kernel_data + p.zero + d.total());
    assert_eq!((report.crash_kernel, report.page_size, report.machine), (16 << 12, 4096, "x86_64"));
    assert_eq!(report.kernel_release.as_deref(), Some("6.0.0-test"));
    let sizes: Vec<(u8, u64)> = report.dump_sizes.iter().map(|e| (e.level, e.bytes)).collect();
    let fixed = 2 * 4096 + 2 * 4096;
    let size = |pages: u64, zeros: u64| fixed + pages * 24 + (pages - zeros) * 4096;
    let (no_free, least) = (p.total - 2 - 128, p.kernel_data + p.zero);
    let all = p.total - 2;
    assert_eq!(
        sizes,
        [(0, size(all, 0)), (1, size(all, p.zero)), (17, size(no_free, p.zero)), (31, size(least, p.zero))]
    );
}

#[test]
fn without_a_crash_kernel_all_is_counted_and_said_so() {
    let kcore = machine().kcore(Kcore::WithNote);
    for (files, said) in
        [(system("00100000-005fffff : System RAM\n"), "crashkernel="), (Files::default(), "/proc/iomem")]
    {
        let (result, report) = count(&kcore, &files);
        result.unwrap();
        assert_eq!((report.pages.total, report.pages.dropped.free, report.crash_kernel), (ALL, 128 + 16, 0));
        assert!(report.problems.len() == 1 && report.problems[0].contains(said), "{:?}", report.problems);
    }
}

#[test]
fn before_4_19_vmcoreinfo_is_read_where_the_system_says() {
    let mut machine = machine();
    let place = machine.vmcoreinfo_in_memory(RAM);
    let kcore = machine.kcore(Kcore::WithAddresses);
    let mut files = system(IOMEM);
    let (result, _) = count(&kcore, &files);
    assert!(result.unwrap_err().contains("cannot be told apart (vmcoreinfo is missing"));
    files.0.insert("/sys/kernel/vmcoreinfo", place);
    let (result, report) = count(&kcore, &files);
    result.unwrap();
    assert_eq!((report.pages.total, report.pages.dropped.free), (ALL - 16, 128));
    for nonsense in ["0x100001 fff", "0xffffffffffff 1000", "0x5ff000 ffffffff", "x"] {
        files.0.insert("/sys/kernel/vmcoreinfo", nonsense.into());
        assert!(count(&kcore, &files).0.is_err(), "{nonsense}");
    }
}

#[test]
fn before_4_11_there_are_no_addresses_and_no_answer() {
    let (result, _) = count(&machine().kcore(Kcore::Plain), &system(IOMEM));
    assert!(result.unwrap_err().contains("4.11"));
}

#[test]
fn a_page_that_cannot_be_read_costs_itself() {
    let machine = machine();
    let mut memory = machine.memory();
    memory.break_page(Pfn(0x5aa));
    memory.break_page(Pfn(0x5ff));
    let mut problems = vec![];
    let kernel = Kernel::learn(machine.vmcoreinfo.as_bytes(), &memory, &mut problems);
    let pages = usage::pages(&memory, &kernel, 1, Messages(0), &mut problems).unwrap();
    assert_eq!((pages.total, pages.unreadable), (ALL, 2));
    assert_eq!(problems, ["2 pages could not be read"]);
    assert_eq!(pages.total, pages.kernel_data + pages.zero + pages.unreadable + pages.dropped.total());
}

#[test]
fn scripts_find_in_the_table_what_makedumpfile_has_there() {
    let dropped =
        kdump_capture::classify::Dropped { cache: 2, private_cache: 3, user: 4, free: 5, hwpoison: 6, offline: 7 };
    let pages = UsagePages { total: 36, zero: 1, dropped, kernel_data: 8, unreadable: 0 };
    let report = UsageReport { page_size: 4096, pages, ..UsageReport::default() };
    let text = report.table();
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().take(3).collect()).collect();
    let types = [
        ["ZERO", "1", "yes"],
        ["NON_PRI_CACHE", "2", "yes"],
        ["PRI_CACHE", "3", "yes"],
        ["USER", "4", "yes"],
        ["FREE", "5", "yes"],
        ["HWPOISON", "6", "yes"],
        ["OFFLINE", "7", "yes"],
        ["KERN_DATA", "8", "no"],
    ];
    assert_eq!(rows[1], ["TYPE", "PAGES", "EXCLUDABLE"]);
    assert_eq!(rows[3..11], types);
    for line in [
        "NON_PRI_CACHE\t2               \tyes\t\t",
        "FREE\t\t5               \tyes\t\t",
        "page size:\t\t4096            \n",
        "Total pages on system:\t36              \n",
        "Total size on system:\t147456           Byte\n",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}
