//! A synthetic vmcore in, a dump out, and back: every page must be what it was.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use common::{Bytes, Era, Leaf, Machine, kept, options};
use kdump_capture::cli::{DumpOptions, LogOptions};
use kdump_capture::compress::Kind;
use kdump_capture::dmesg::Since;
use kdump_capture::dumpfile::layout::INCOMPLETE;
use kdump_capture::dumpfile::read::Dump;
use kdump_capture::fake::MemCore;
use kdump_capture::pipeline;
use kdump_capture::progress::Messages;
use kdump_capture::report::Outcome;
use kdump_capture::units::{DumpLevel, Pfn, PhysAddr};

fn machine() -> Machine {
    let mut machine = Machine::new(Era::V6_12, 5, Leaf::M2);
    machine.set(0x480, &["buddy:7"]);
    machine.set(0x500, &["lru", "file"]);
    machine.set(0x510, &["anon", "compound:4"]);
    machine
}

fn report(dir: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(dir.join("report.json")).unwrap()).unwrap()
}

fn same_pages(machine: &Machine, dump: &[u8]) {
    for (pfn, page) in kept(dump) {
        assert_eq!(page.as_deref(), Some(machine.page(pfn.0)), "pfn {pfn}");
    }
}

#[test]
fn every_page_comes_back_as_it_was_with_every_codec() {
    let machine = machine();
    for codec in Kind::ALL {
        for level in [0, 1, 31] {
            let (report, dump) = machine.dump(&machine.memory(), level, codec, 2, usize::MAX);
            assert_eq!(report.outcome, Outcome::Complete, "{:?}", report.problems);
            same_pages(&machine, &dump);
            let p = report.pages;
            assert_eq!(p.total, p.kept + p.zero + p.dropped.total() + p.unreadable);
            assert_eq!(p.total, 0x500);
            assert_eq!(kept(&dump).len() as u64, p.kept + p.zero);
            assert_eq!(dump.len() as u64, report.bytes);
        }
    }
}

#[test]
fn the_bytes_are_the_same_with_any_number_of_threads() {
    let machine = machine();
    for codec in Kind::ALL {
        let one = machine.dump(&machine.memory(), 17, codec, 1, usize::MAX).1;
        for threads in [2, 3, 7] {
            assert!(machine.dump(&machine.memory(), 17, codec, threads, usize::MAX).1 == one, "{threads} threads");
        }
    }
}

#[test]
fn pages_that_are_like_the_one_before_share_its_data() {
    let mut machine = machine();
    let pattern = machine.page(0x544).to_vec();
    let noise = machine.page(0x543).to_vec();
    for pfn in [0x541, 0x542, 0x543, 0x545] {
        machine.put(pfn * 4096, &pattern);
    }
    machine.put(0x544 * 4096, &[0; 4096]);
    machine.put(0x546 * 4096, &noise);
    machine.put(0x547 * 4096, &noise);
    for codec in Kind::ALL {
        let bytes = Bytes(machine.dump(&machine.memory(), 31, codec, 2, usize::MAX).1);
        let mut offsets = std::collections::BTreeMap::new();
        Dump::open(&bytes)
            .unwrap()
            .kept(&mut |pfn, descriptor| {
                offsets.insert(pfn.0, descriptor.offset);
                Ok(())
            })
            .unwrap();
        // A page of zeros between two does not matter; another page does.
        assert!([0x542, 0x543, 0x545].iter().all(|pfn| offsets[pfn] == offsets[&0x541]), "{codec:?}: {offsets:x?}");
        assert_eq!(offsets[&0x546], offsets[&0x547]);
        assert!(offsets[&0x546] > offsets[&0x545] && offsets[&0x548] > offsets[&0x547]);
        same_pages(&machine, &bytes.0);
    }
}

#[test]
fn a_file_gives_the_same_dump_as_the_fake_mapped_or_copied() {
    let machine = machine();
    let fake = machine.dump(&machine.memory(), 31, Kind::Zstd, 1, usize::MAX).1;
    for mapping in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("vmcore"), machine.elf()).unwrap();
        let o = DumpOptions { mapping, ..options(dir.path(), 31, Kind::Zstd) };
        assert_eq!(pipeline::dump(&o), 0);
        assert!(fs::read(&o.output).unwrap() == fake, "mapping {mapping}");
        let report = report(dir.path());
        assert_eq!(report["outcome"], "complete");
        assert_eq!(report["panic_line"], "Kernel panic - not syncing: test");
        assert_eq!(report["kernel_release"], "6.0.0-test");
        assert_eq!(report["crash_time"], 1_700_000_000);
        assert_eq!(report["problems"], serde_json::json!([]));
    }
}

#[test]
fn a_source_is_not_overwritten_by_its_own_dump() {
    let machine = machine();
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("vmcore");
    fs::write(&source, machine.elf()).unwrap();
    fs::hard_link(&source, dir.path().join("dump")).unwrap();
    let o = DumpOptions { force: true, ..options(dir.path(), 31, Kind::Zstd) };
    assert_eq!(pipeline::dump(&o), 1);
    assert!(fs::read(&source).unwrap() == machine.elf());
    assert!(report(dir.path())["error"].as_str().unwrap().contains("it is what is to be read"));
}

#[test]
fn the_report_has_exactly_the_keys_of_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("vmcore"), machine().elf()).unwrap();
    pipeline::dump(&options(dir.path(), 31, Kind::Zlib));
    let text = fs::read_to_string(dir.path().join("report.json")).unwrap();
    let keys = [
        "outcome",
        "error",
        "format",
        "codec",
        "level",
        "threads",
        "bytes",
        "kernel_release",
        "machine",
        "page_size",
        "crash_time",
        "panic_line",
        "pages",
        "total",
        "kept",
        "zero",
        "cache",
        "private_cache",
        "user",
        "free",
        "hwpoison",
        "offline",
        "unreadable",
        "sections_kept_whole",
        "seconds",
        "open",
        "filter",
        "write",
        "memory_budget",
        "peak_rss",
        "problems",
    ];
    let found: Vec<&str> =
        text.match_indices("\":").map(|(end, _)| &text[text[..end].rfind('"').unwrap() + 1..end]).collect();
    assert_eq!(found, keys);
}

#[test]
fn headers_notes_and_bitmap_1_are_what_the_machine_was() {
    let machine = machine();
    let bytes = Bytes(machine.dump(&machine.memory(), 31, Kind::Zlib, 2, usize::MAX).1);
    let dump = Dump::open(&bytes).unwrap();
    assert_eq!(dump.header.max_pfn, Pfn(0x600));
    assert_eq!(dump.header.status, 1);
    assert_eq!(dump.header.level, 31);
    assert_eq!(dump.header.crash_time, 1_700_000_000);
    assert_eq!(dump.vmcoreinfo().unwrap(), machine.vmcoreinfo.as_bytes());
    let mut present = vec![];
    dump.present(&mut |pfn| {
        present.push(pfn.0);
        Ok(())
    })
    .unwrap();
    assert_eq!(present, (0x100..0x600).collect::<Vec<_>>());
}

#[test]
fn a_page_that_cannot_be_read_has_an_empty_descriptor() {
    let machine = machine();
    let mut memory = machine.memory();
    memory.break_page(Pfn(0x150));
    let (report, dump) = machine.dump(&memory, 0, Kind::Zstd, 2, usize::MAX);
    assert_eq!((report.outcome, report.pages.unreadable), (Outcome::Incomplete, 1));
    let pages = kept(&dump);
    assert_eq!(pages.iter().filter(|(_, page)| page.is_none()).map(|(pfn, _)| pfn.0).collect::<Vec<_>>(), [0x150]);
    assert_eq!(Dump::open(&Bytes(dump)).unwrap().header.status & INCOMPLETE, INCOMPLETE);
}

#[test]
fn struct_pages_that_cannot_be_read_keep_their_section() {
    let machine = machine();
    let mut memory = machine.memory();
    // mem_map of page frames 0x500 to 0x5ff: four pages from here on.
    (0x414..0x418).for_each(|pfn| memory.break_page(Pfn(pfn)));
    let (report, dump) = machine.dump(&memory, 31, Kind::Zstd, 2, usize::MAX);
    assert_eq!(report.sections_kept_whole, 1);
    let found: Vec<u64> = kept(&dump).iter().map(|(pfn, _)| pfn.0).collect();
    assert!(found.contains(&0x500) && found.contains(&0x510) && !found.contains(&0x480));
}

#[test]
fn a_full_disk_keeps_what_fits() {
    let machine = machine();
    let whole = machine.dump(&machine.memory(), 0, Kind::None, 1, usize::MAX).1;
    for threads in [1, 3] {
        for limit in [whole.len() / 2, whole.len() - 5000, whole.len() - 1] {
            let (report, dump) = machine.dump(&machine.memory(), 0, Kind::None, threads, limit);
            assert_eq!(report.outcome, Outcome::Incomplete);
            assert!(report.error.as_deref().unwrap().contains("incomplete dumpfile"), "{:?}", report.error);
            let pages = kept(&dump);
            assert_eq!(pages.len(), 0x500);
            let saved = pages.iter().filter(|(_, page)| page.is_some()).count() as u64;
            assert_eq!(saved, report.pages.kept);
            assert!(saved > 0 && saved < 0x500);
            for (pfn, page) in pages {
                assert!(page.is_none_or(|page| page == machine.page(pfn.0)), "pfn {pfn}");
            }
            assert_eq!(Dump::open(&Bytes(dump)).unwrap().header.status & INCOMPLETE, INCOMPLETE);
        }
    }
    let (report, _) = machine.dump(&machine.memory(), 0, Kind::None, 1, 9000);
    assert_eq!(report.outcome, Outcome::Failed);
}

#[test]
fn a_size_limit_is_as_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let machine = machine();
    fs::write(dir.path().join("vmcore"), machine.elf()).unwrap();
    for limit in [9000, 2_000_000] {
        let o = DumpOptions { limit: Some(limit), force: true, ..options(dir.path(), 0, Kind::None) };
        assert_eq!(pipeline::dump(&o), 1);
        let report = report(dir.path());
        assert!(report["error"].as_str().unwrap().contains("size limit"), "{report}");
        let dump = fs::read(&o.output).unwrap();
        assert!(dump.len() as u64 <= limit);
        if limit > 9000 {
            assert_eq!((report["outcome"].as_str(), report["bytes"].as_u64()), (Some("incomplete"), Some(limit)));
            let saved = kept(&dump).into_iter().filter_map(|(pfn, page)| Some((pfn, page?)));
            assert!(saved.inspect(|(pfn, page)| assert!(page == machine.page(pfn.0), "pfn {pfn}")).count() > 300);
        }
    }
}

#[test]
fn the_next_level_is_tried_when_the_dump_does_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("vmcore"), machine().elf()).unwrap();
    let plain = options(dir.path(), 31, Kind::None);
    assert_eq!(pipeline::dump(&plain), 0);
    let (alone, size) = (fs::read(&plain.output).unwrap(), fs::metadata(&plain.output).unwrap().len());
    fs::remove_file(&plain.output).unwrap();
    let levels = |list: &[u8]| list.iter().map(|n| DumpLevel::new(*n).unwrap()).collect::<Vec<_>>();
    let o = DumpOptions { next_levels: levels(&[1, 31]), limit: Some(size), ..options(dir.path(), 0, Kind::None) };
    assert_eq!(pipeline::dump(&o), 0);
    assert!(fs::read(&o.output).unwrap() == alone);
    let found = report(dir.path());
    assert_eq!((found["outcome"].as_str(), found["level"].as_u64()), (Some("complete"), Some(31)));
    assert_eq!(found["problems"][1], "the dump does not fit with level 1; retried with 31");
    // The last one stays, incomplete.
    let o = DumpOptions { next_levels: levels(&[31]), limit: Some(size - 1), force: true, ..o };
    assert_eq!(pipeline::dump(&o), 1);
    assert_eq!(report(dir.path())["outcome"], "incomplete");
    assert!(kept(&fs::read(&o.output).unwrap()).len() > 100);
}

#[test]
fn a_dry_run_tells_the_size_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("vmcore"), machine().elf()).unwrap();
    let o = options(dir.path(), 31, Kind::Zstd);
    assert_eq!(pipeline::dump(&DumpOptions { dry_run: true, ..o.clone() }), 0);
    assert!(!o.output.exists());
    let (dry, pages) = (report(dir.path())["bytes"].as_u64(), report(dir.path())["pages"].clone());
    assert_eq!(pipeline::dump(&o), 0);
    assert_eq!(dry, Some(fs::metadata(&o.output).unwrap().len()));
    assert_eq!(report(dir.path())["pages"], pages);
}

#[test]
fn a_vmcore_without_vmcoreinfo_is_written_unfiltered() {
    let mut machine = machine();
    for text in [
        String::new(),
        machine.vmcoreinfo.replace("6.0.0-test", "5.9.9"),
        machine.vmcoreinfo.replace("SYMBOL(", "SYM("),
    ] {
        machine.vmcoreinfo = text;
        let (report, dump) = machine.dump(&machine.memory(), 31, Kind::Zstd, 2, usize::MAX);
        assert_eq!((report.outcome, report.level), (Outcome::Complete, 1));
        assert!(report.problems.iter().any(|p| p.contains("unfiltered")), "{:?}", report.problems);
        assert_eq!(kept(&dump).len(), 0x500);
        assert!(report.pages.zero > 0);
        same_pages(&machine, &dump);
    }
}

#[test]
fn mem_section_may_be_a_pointer_to_its_array() {
    let mut machine = machine();
    let straight = machine.dump(&machine.memory(), 31, Kind::None, 1, usize::MAX).0;
    let line = machine.vmcoreinfo.lines().find(|l| l.starts_with("SYMBOL(mem_section)")).unwrap().to_owned();
    let roots = u64::from_str_radix(line.split_once('=').unwrap().1, 16).unwrap();
    let pointer = 0x28_7000; // an unused page of the image
    machine.put64(pointer, roots);
    machine.vmcoreinfo = machine.vmcoreinfo.replace(&line, &format!("SYMBOL(mem_section)={:x}", common::virt(pointer)));
    let behind = machine.dump(&machine.memory(), 31, Kind::None, 1, usize::MAX).0;
    assert_eq!(behind.pages.dropped, straight.pages.dropped);
    assert_eq!(behind.problems, straight.problems);
}

#[test]
fn a_vmcore_cut_short_gives_what_is_there_and_says_so() {
    let machine = machine();
    let elf = machine.elf();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("vmcore"), &elf[..elf.len() - 100 * 4096 - 77]).unwrap();
    assert_eq!(pipeline::dump(&options(dir.path(), 0, Kind::Zstd)), 1);
    let r = report(dir.path());
    assert_eq!((r["outcome"].as_str(), r["pages"]["unreadable"].as_u64()), (Some("incomplete"), Some(101)));
    let pages = kept(&fs::read(dir.path().join("dump")).unwrap());
    assert_eq!(pages.len(), 0x500 - 101, "a page cut in two is missing as well");
}

#[test]
fn an_existing_dump_is_overwritten_only_by_force_and_is_the_owners() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("vmcore"), machine().elf()).unwrap();
    fs::write(dir.path().join("dump"), b"precious").unwrap();
    let o = options(dir.path(), 31, Kind::None);
    assert_eq!(pipeline::dump(&o), 1);
    assert_eq!(fs::read(&o.output).unwrap(), b"precious");
    assert!(report(dir.path())["error"].as_str().unwrap().contains("-f overwrites it"));
    assert_eq!(pipeline::dump(&DumpOptions { force: true, ..o.clone() }), 0);
    assert_eq!(fs::metadata(&o.output).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_is_no_vmcore_fails_with_its_reason_and_leaves_nothing() {
    for (bytes, code, why) in [
        (b"".to_vec(), 1, "is empty"),
        (b"KDUMP   xxxxxxxx".to_vec(), 1, "version 3 to 6"),
        (b"hello".to_vec(), 1, "ELF header"),
        (
            {
                let mut elf = machine().elf();
                elf[18] = 22;
                elf
            },
            2,
            "it is of s390x",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("vmcore"), bytes).unwrap();
        assert_eq!(pipeline::dump(&options(dir.path(), 31, Kind::Zstd)), code);
        let r = report(dir.path());
        assert_eq!(r["outcome"], "failed");
        assert!(r["error"].as_str().unwrap().contains(why), "{r}");
        assert!(!dir.path().join("dump").exists());
    }
}

#[test]
fn the_log_goes_to_a_file_with_its_report() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("vmcore"), machine().elf()).unwrap();
    let o = LogOptions {
        input: dir.path().join("vmcore"),
        output: Some(dir.path().join("log")),
        since: Since::Boot,
        force: false,
        vmcoreinfo: None,
        messages: Messages(0),
        report: Some(dir.path().join("report.json")),
    };
    assert_eq!(pipeline::log(&o), 0);
    let text =
        "[    0.001000] [      T1] Linux version 6\n[    0.002000] [      C1] Kernel panic - not syncing: test\n";
    assert_eq!(fs::read_to_string(dir.path().join("log")).unwrap(), text);
    assert_eq!(report(dir.path())["log"], serde_json::json!({"records": 2, "bytes": text.len(), "lost": 0}));
}

#[test]
fn the_log_since_the_last_clear_may_be_empty() {
    let dir = tempfile::tempdir().unwrap();
    for (next, records) in [(1, 1), (2, 0)] {
        let mut machine = machine();
        machine.log_cleared(next, Some(0));
        fs::write(dir.path().join("vmcore"), machine.elf()).unwrap();
        let o = LogOptions {
            input: dir.path().join("vmcore"),
            output: Some(dir.path().join("log")),
            since: Since::Clear,
            vmcoreinfo: None,
            force: true,
            messages: Messages(0),
            report: Some(dir.path().join("report.json")),
        };
        assert_eq!(pipeline::log(&o), 0);
        assert_eq!(report(dir.path())["log"]["records"], records);
        assert_eq!(report(dir.path())["outcome"], "complete");
    }
}

#[test]
fn trying_harder_makes_the_dump_smaller_and_keeps_every_page() {
    let machine = machine();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("vmcore"), machine.elf()).unwrap();
    for (codec, levels) in [(Kind::Zlib, [1, 6, 12]), (Kind::Zstd, [-20, 1, 19])] {
        let mut sizes = vec![];
        for level in levels {
            let o = DumpOptions { compress_level: Some(level), force: true, ..options(dir.path(), 0, codec) };
            assert_eq!(pipeline::dump(&o), 0);
            let dump = fs::read(&o.output).unwrap();
            same_pages(&machine, &dump);
            sizes.push(dump.len());
        }
        assert!(sizes.is_sorted_by(|a, b| a >= b) && sizes[0] > sizes[2], "{}: {sizes:?}", codec.name());
    }
}

/// The data of the whole dump begins at a multiple of the page size, in a place that is also one within a batch.
#[test]
fn a_page_whose_place_in_its_batch_is_that_of_the_zero_page_in_the_file_is_not_taken_for_it() {
    let ram: Vec<u8> = (0..512u64 * 512)
        .flat_map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes())
        .skip(8)
        .chain([1; 8])
        .collect();
    let memory = MemCore::new([(PhysAddr(0x10_0000), ram.clone())]);
    let (report, bytes) = machine().dump(&memory, 0, Kind::None, 1, usize::MAX);
    assert_eq!(report.outcome, Outcome::Complete);
    let pages = kept(&bytes);
    assert_eq!(pages.len(), 512);
    for ((pfn, page), want) in pages.iter().zip(ram.chunks(4096)) {
        assert!(page.as_deref() == Some(want), "pfn {pfn}");
    }
}
