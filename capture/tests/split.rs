//! Split dumps: the parts hold what the whole would, and become the whole again.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Bytes, Era, Leaf, Machine, kept};
use kdump_capture::cli::Format;
use kdump_capture::compress::Kind;
use kdump_capture::dumpfile::layout::INCOMPLETE;
use kdump_capture::dumpfile::read::{Dump, Source};
use kdump_capture::dumpfile::reassemble::{Parts, Reassembled};
use kdump_capture::dumpfile::write::alike;
use kdump_capture::fake::MemFile;
use kdump_capture::output::Output;
use kdump_capture::report::{DumpReport, Outcome};
use kdump_capture::units::PageSize;
use proptest::prelude::*;

fn machine() -> Machine {
    let mut machine = Machine::new(Era::V6_12, 5, Leaf::M2);
    machine.set(0x480, &["buddy:7"]);
    machine.set(0x500, &["lru", "file"]);
    machine
}

fn split(machine: &Machine, level: u8, codec: Kind, threads: usize, limits: &[usize]) -> (DumpReport, Vec<Bytes>) {
    let files: Vec<MemFile> = limits.iter().map(|limit| MemFile::new(*limit)).collect();
    let outs: Vec<&dyn Output> = files.iter().map(|file| file as &dyn Output).collect();
    let report = machine.split_to(&machine.memory(), level, Format::Kdump, codec, threads, &outs);
    (report, files.into_iter().map(|file| Bytes(file.into_bytes())).collect())
}

fn together(parts: &[Bytes]) -> Result<(Reassembled, Vec<u8>), String> {
    let sources: Vec<&dyn Source> = parts.iter().map(|part| part as &dyn Source).collect();
    let out = MemFile::new(usize::MAX);
    let done = Parts::open(&sources).unwrap()?.write(&out).map_err(|e| e.to_string())?;
    Ok((done, out.into_bytes()))
}

#[test]
fn each_part_has_its_share_and_says_which() {
    let (report, parts) = split(&machine(), 0, Kind::Zlib, 2, &[usize::MAX; 3]);
    assert_eq!((report.outcome, report.pages.kept), (Outcome::Complete, 0x500));
    assert_eq!(report.bytes, parts.iter().map(|p| p.0.len() as u64).sum::<u64>());
    let mut next = 0;
    for part in &parts {
        let (start, end) = Dump::open(part).unwrap().header.split.unwrap();
        assert_eq!(start.0, next);
        assert!((end.0 - start.0.max(0x100)).abs_diff(0x500 / 3) <= 2 * alike(PageSize::K4) as u64, "{start} {end}");
        next = end.0;
        assert_eq!(part.0[..4096], parts[0].0[..4096], "crash compares headers byte by byte");
    }
    assert_eq!(next, 0x600);
}

#[test]
fn files_that_do_not_belong_together_are_named() {
    let whole = Bytes(machine().dump(&machine().memory(), 31, Kind::Zlib, 1, usize::MAX).1);
    let mut a = split(&machine(), 31, Kind::Zlib, 1, &[usize::MAX; 3]).1;
    let mut b = split(&machine(), 30, Kind::Zlib, 1, &[usize::MAX; 3]).1;
    assert!(together(&[whole]).unwrap_err().contains("not part of a split"));
    assert!(together(&[Bytes(b"x".to_vec())]).unwrap_err().contains("file 1"));
    assert!(together(&a[..2]).unwrap_err().contains("missing"));
    assert!(together(&a[1..]).unwrap_err().contains("missing"));
    a[1] = b.remove(1);
    assert!(together(&a).unwrap_err().contains("file 2 is part of another dump"));
}

#[test]
fn a_part_that_did_not_fit_makes_the_whole_incomplete_with_all_other_pages() {
    let machine = machine();
    let sizes: Vec<usize> = split(&machine, 0, Kind::None, 1, &[usize::MAX; 3]).1.iter().map(|p| p.0.len()).collect();
    let (report, parts) = split(&machine, 0, Kind::None, 2, &[sizes[0], sizes[1], sizes[2] - 400_000]);
    assert_eq!(report.outcome, Outcome::Incomplete);
    let (done, bytes) = together(&parts).unwrap();
    assert!(done.incomplete && done.missing >= 80 && done.missing < 0x200, "{done:?}");
    assert_eq!(done.pages, report.pages.kept);
    let pages = kept(&bytes);
    assert_eq!(pages.len(), 0x500);
    for (pfn, page) in pages {
        assert!(page.is_none_or(|page| page == machine.page(pfn.0)), "pfn {pfn}");
    }
    assert_eq!(Dump::open(&Bytes(bytes)).unwrap().header.status & INCOMPLETE, INCOMPLETE);
}

fn run(args: &[&str], dir: &Path) -> bool {
    Command::new(env!("CARGO_BIN_EXE_kdump-capture")).args(args).current_dir(dir).output().unwrap().status.success()
}

#[test]
fn the_commands_split_and_reassemble_files() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("vmcore"), machine().elf()).unwrap();
    assert!(run(&["--split", "-z", "-d31", "vmcore", "a", "b", "c"], dir));
    assert!(run(&["-z", "-d31", "vmcore", "direct"], dir));
    assert!(run(&["--reassemble", "b", "a", "c", "whole"], dir));
    assert!(fs::read(dir.join("whole")).unwrap() == fs::read(dir.join("direct")).unwrap());
    assert!(!run(&["--reassemble", "a", "b", "other"], dir) && !dir.join("other").exists());
    // The next level is tried for all parts.
    let size = ["a", "b", "c"].map(|name| fs::metadata(dir.join(name)).unwrap().len()).into_iter().max().unwrap();
    assert!(run(&["--split", "-f", "-z", "-d0,31", "-L", &size.to_string(), "vmcore", "a", "b", "c"], dir));
    assert!(run(&["--reassemble", "-f", "a", "b", "c", "whole"], dir));
    assert!(fs::read(dir.join("whole")).unwrap() == fs::read(dir.join("direct")).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn parts_become_the_very_file_that_an_unsplit_dump_is(
        parts in 2usize..9,
        level in 0u8..32,
        codec in 0usize..Kind::ALL.len(),
        threads in 1usize..5,
    ) {
        let (machine, codec) = (machine(), Kind::ALL[codec]);
        let (direct, file) = machine.dump(&machine.memory(), level, codec, 1, usize::MAX);
        let (report, mut parts) = split(&machine, level, codec, threads, &vec![usize::MAX; parts]);
        prop_assert_eq!(report.pages, direct.pages);
        parts.reverse();
        let (done, again) = together(&parts).unwrap();
        prop_assert_eq!((done.missing, done.bytes), (0, file.len() as u64));
        prop_assert!(again == file);
    }

    #[test]
    fn damaged_parts_have_an_outcome(at in proptest::collection::vec((0usize..60_000, any::<u8>()), 1..20), cut in 0usize..300_000) {
        let mut parts = split(&machine(), 31, Kind::Zlib, 1, &[usize::MAX; 2]).1;
        for (at, byte) in at { parts[at % 2].0[at / 2] = byte; }
        let len = parts[1].0.len();
        parts[1].0.truncate(len.saturating_sub(cut / 2));
        if let Ok((done, bytes)) = together(&parts) {
            prop_assert!(done.bytes <= bytes.len() as u64);
        }
    }
}
