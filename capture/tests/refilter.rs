//! Dumps as input: filtered once more, packed otherwise, out of streams, of older versions, with pages missing.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::LazyLock;

use common::{Bytes, Era, Leaf, Machine, kept, options};
use kdump_capture::cli::{DumpOptions, Format, LogOptions, MemoryOptions};
use kdump_capture::compress::Kind;
use kdump_capture::dmesg::Since;
use kdump_capture::dumpfile::flatten::Flattened;
use kdump_capture::dumpfile::layout::{INCOMPLETE, Placed};
use kdump_capture::dumpfile::read::Dump;
use kdump_capture::output::Output as _;
use kdump_capture::pipeline;
use kdump_capture::progress::Messages;
use kdump_capture::units::{FileOffset, PageSize, Pfn};
use kdump_capture::vmcore::Vmcore;
use kdump_capture::vmcore::read::{Pages, PhysMem};
use proptest::prelude::*;

static MACHINE: LazyLock<Machine> = LazyLock::new(|| {
    let mut machine = Machine::new(Era::V6_12, 5, Leaf::M2);
    machine.set(0x480, &["buddy:7"]);
    machine.set(0x500, &["lru", "file"]);
    machine.set(0x501, &["lru", "file", "private"]);
    machine.set(0x502, &["lru", "anon"]);
    machine.set(0x520, &["hugetlb:4", "anon"]);
    machine
});

fn whole(level: u8, codec: Kind) -> Vec<u8> {
    MACHINE.dump(&MACHINE.memory(), level, codec, 2, usize::MAX).1
}

fn temp() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// What becomes of `input`: exit code, report and dump.
fn again(input: &[u8], level: u8, codec: Kind) -> (u8, serde_json::Value, Vec<u8>) {
    again_with(input, level, codec, |options| options)
}

fn again_with(
    input: &[u8],
    level: u8,
    codec: Kind,
    change: impl Fn(DumpOptions) -> DumpOptions,
) -> (u8, serde_json::Value, Vec<u8>) {
    let dir = temp();
    fs::write(dir.path().join("vmcore"), input).unwrap();
    let code = pipeline::dump(&change(options(dir.path(), level, codec)));
    let report = serde_json::from_slice(&fs::read(dir.path().join("report.json")).unwrap()).unwrap();
    (code, report, fs::read(dir.path().join("dump")).unwrap_or_default())
}

/// `bytes` as a stream, in pieces that come in no order.
fn flattened(bytes: &[u8]) -> Vec<u8> {
    let out = Flattened::new(Vec::new()).unwrap();
    for at in [2, 0, 3, 1] {
        let quarter = bytes.len().div_ceil(4);
        let piece = &bytes[(at * quarter).min(bytes.len())..((at + 1) * quarter).min(bytes.len())];
        out.write_at(FileOffset((at * quarter) as u64), piece).unwrap();
        out.flush().unwrap();
    }
    out.finish().unwrap();
    out.into_inner()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_level_after_another_is_the_very_dump_of_both_at_once(
        // Behind the pages that hold the struct pages: without those, all of a section is kept.
        kinds in proptest::collection::vec((0x420u64..0x600, 0usize..6), 0..40),
        (first, second) in (0u8..32, 0u8..32),
        (codec, other) in (0usize..Kind::ALL.len(), 0usize..Kind::ALL.len()),
        flat in any::<bool>(),
        era in prop_oneof![Just(Era::V4_9), Just(Era::V6_1), Just(Era::V6_12), Just(Era::V7_1)],
    ) {
        let mut machine = Machine::new(era, 4, Leaf::M2);
        for (pfn, kind) in kinds {
            let kinds: &[&str] = [
                &["buddy:3"][..], &["lru", "anon"], &["lru", "file"], &["hugetlb:3"], &["hwpoison"], &["lru", "file", "private"],
            ][kind];
            machine.set(pfn & !7, kinds);
        }
        let (codec, other) = (Kind::ALL[codec], Kind::ALL[other]);
        let (_, source) = machine.dump(&machine.memory(), first, other, 2, usize::MAX);
        let (_, at_once) = machine.dump(&machine.memory(), first | second, codec, 1, usize::MAX);
        let source = if flat { flattened(&source) } else { source };
        // The same batches, so that pages share data in the same way.
        let (code, report, dump) = again(&source, second, codec);
        prop_assert_eq!((code, &report["level"]), (0, &serde_json::json!(first | second)), "{}", report);
        let (found, wanted) = (kept(&dump), kept(&at_once));
        prop_assert!(found == wanted);
        for (pfn, page) in &found {
            prop_assert!(page.as_deref() == Some(machine.page(pfn.0)), "pfn {}", pfn);
        }
        // Once more, at its own level, nothing changes at all.
        let (code, _, unchanged) = again(&dump, if flat { 0 } else { first | second }, codec);
        prop_assert!(code == 0 && unchanged == dump);
        // Nor would it have been another dump if it had been made of the machine.
        let (_, _, of_machine) = again(&machine.elf(), first | second, codec);
        prop_assert!(of_machine == dump);
    }
}

#[test]
fn a_page_that_is_missing_stays_so_and_its_struct_pages_keep_their_section() {
    let mut memory = MACHINE.memory();
    // Data of one page, and the struct pages of the section from 0x500 on.
    memory.break_page(Pfn(0x330));
    let map = MACHINE.struct_page(0x500) >> 12;
    for page in 0..4 {
        memory.break_page(Pfn(map + page));
    }
    let (_, source) = MACHINE.dump(&memory, 0, Kind::Zlib, 2, usize::MAX);
    let (code, report, dump) = again(&source, 31, Kind::Zstd);
    assert_eq!((code, &report["outcome"]), (1, &"incomplete".into()));
    assert_eq!((&report["pages"]["unreadable"], &report["sections_kept_whole"]), (&5.into(), &1.into()), "{report}");
    let pages = kept(&dump);
    let missing: Vec<u64> = pages.iter().filter(|(_, page)| page.is_none()).map(|(pfn, _)| pfn.0).collect();
    assert_eq!(missing, [0x330, map, map + 1, map + 2, map + 3]);
    let there: Vec<u64> = pages.iter().map(|(pfn, _)| pfn.0).filter(|pfn| *pfn >= 0x500).collect();
    assert_eq!(there, (0x500..0x600).collect::<Vec<u64>>());
    assert!(!pages.iter().any(|(pfn, _)| (0x480..0x500).contains(&pfn.0)), "the block of free pages is known as such");
    let (code, report, _) = again(&dump, 0, Kind::None);
    assert_eq!((code, &report["outcome"]), (1, &"incomplete".into()));
    assert!(report["problems"].to_string().contains("says of itself that it is incomplete"), "{report}");
}

#[test]
fn a_dump_of_an_older_version_is_read_by_what_it_has() {
    let source = whole(0, Kind::Lzo);
    let (_, _, wanted) = again(&source, 31, Kind::Zlib);
    for (version, end) in [(5, 80), (4, 64), (3, 48)] {
        let mut older = source.clone();
        older[8] = version;
        older[4096 + end..4096 + 104].fill(0xff);
        let (code, report, dump) = again(&older, 31, Kind::Zlib);
        assert_eq!(code, 0, "{report}");
        if version > 3 {
            assert!(dump == wanted, "version {version}");
        }
        assert!(kept(&dump) == kept(&wanted));
        let (source, wanted) = (Bytes(dump), Bytes(wanted.clone()));
        let (found, wanted) = (Dump::open(&source).unwrap(), Dump::open(&wanted).unwrap());
        assert_eq!(found.vmcoreinfo().unwrap(), wanted.vmcoreinfo().unwrap());
        assert_eq!((found.header.version(), found.header.cpus, found.header.placed), (6, 1, None::<Placed>));
    }
    let mut newer = source;
    newer[8] = 7;
    let (code, report, _) = again(&newer, 31, Kind::Zlib);
    assert!(code == 1 && report["error"].as_str().unwrap().contains("version 3 to 6"), "{report}");
}

#[test]
fn what_was_erased_is_still_told() {
    let text = b"erase jiffies size 8\n";
    let mut source = whole(0, Kind::None);
    let end = source.len() as u64;
    source.extend(text);
    source[4096 + 64..4096 + 72].copy_from_slice(&end.to_le_bytes());
    source[4096 + 72..4096 + 80].copy_from_slice(&(text.len() as u64).to_le_bytes());
    let (code, report, dump) = again(&source, 31, Kind::Zstd);
    assert_eq!((code, report["bytes"].as_u64()), (0, Some(dump.len() as u64)));
    assert!(dump.ends_with(text));
    assert_eq!(Dump::open(&Bytes(dump.clone())).unwrap().eraseinfo().unwrap(), text);
    let (code, _, unchanged) = again(&dump, 0, Kind::Zstd);
    assert!(code == 0 && unchanged == dump);
    let (code, _, elf) = again_with(&source, 0, Kind::None, |o| DumpOptions { format: Format::Elf, ..o });
    assert_eq!(code, 0);
    let dir = temp();
    let dir = dir.path();
    fs::write(dir.join("source"), &source).unwrap();
    assert!(program(&["--split", "-z", "-d", "31", "source", "a", "b"], dir).status.success());
    assert!(program(&["--reassemble", "b", "a", "out"], dir).status.success());
    assert!(fs::read(dir.join("out")).unwrap() == dump, "and in the parts of a split dump");
    assert!(elf.windows(12 + text.len()).any(|w| w.starts_with(b"ERASEINFO\0\0\0") && w.ends_with(text)));
}

#[test]
fn an_elf_dump_is_made_of_a_dump() {
    let dir = temp();
    for level in [0, 1, 31] {
        let (code, report, elf) = again_with(&whole(0, Kind::Lzo), level, Kind::None, |options| DumpOptions {
            format: Format::Elf,
            ..options
        });
        assert_eq!(code, 0, "{report}");
        let path = dir.path().join("elf");
        fs::write(&path, elf).unwrap();
        let vmcore = Vmcore::open(&path, true).unwrap();
        let loads = &vmcore.segments().loads;
        assert_eq!(
            (loads[0].phys.0, loads.iter().map(|l| l.memsz).sum::<u64>()),
            (common::RAM, common::RAM_LEN as u64)
        );
        let (_, one_step) = MACHINE.dump(&MACHINE.memory(), level, Kind::None, 1, usize::MAX);
        let mut pages = Pages::new(&vmcore, PageSize::K4);
        for (pfn, page) in kept(&one_step) {
            let page = page.unwrap();
            match pages.page(pfn) {
                Ok(found) => assert!(found == page),
                // Zero pages have no place of their own in ELF.
                Err(_) => assert!(level & 1 == 1 && page.iter().all(|byte| *byte == 0), "pfn {pfn}"),
            }
        }
    }
}

#[test]
fn segments_of_an_elf_dump_have_the_addresses_that_the_kernel_s_own_pointers_tell() {
    const BASE: u64 = 0xffff_9280_4000_0000;
    let mut machine = Machine::new(Era::V6_12, 4, Leaf::M2);
    for phys in (common::RAM..common::RAM + common::RAM_LEN as u64).step_by(4096) {
        machine.map(BASE + phys, phys, 4096);
    }
    // mem_section was allocated from the direct map.
    let symbol = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("SYMBOL({name})="))).unwrap();
        u64::from_str_radix(line, 16).unwrap()
    };
    let old = symbol(&machine.vmcoreinfo, "mem_section");
    let phys = old - common::virt(0x20_0000) + 0x20_0000;
    machine.vmcoreinfo = machine.vmcoreinfo.replace(&format!("{old:x}"), &format!("{:x}", BASE + phys));
    let loads = |machine: &Machine| {
        let source = machine.dump(&machine.memory(), 0, Kind::Lzo, 2, usize::MAX).1;
        let (code, report, elf) = again_with(&source, 31, Kind::None, |o| DumpOptions { format: Format::Elf, ..o });
        assert_eq!((code, &report["level"]), (0, &31.into()), "{report}");
        let dir = temp();
        fs::write(dir.path().join("elf"), elf).unwrap();
        Vmcore::open(&dir.path().join("elf"), true).unwrap().segments().loads.clone()
    };
    assert!(loads(&machine).iter().all(|load| load.virt.0 == BASE + load.phys.0));
    // Where other memory does not agree, the address is left open.
    machine.map(BASE + common::RAM, common::RAM + 4096, 4096);
    assert!(loads(&machine)[0].virt.0 == 0);
}

#[test]
fn a_dump_filtered_in_windows_is_the_same() {
    let source = whole(1, Kind::Zlib);
    let (_, _, wanted) = again(&source, 30, Kind::Lzo);
    for format in [Format::Kdump, Format::Elf] {
        let (_, _, wanted) = again_with(&source, 30, Kind::None, |options| DumpOptions { format, ..options });
        let (code, _, found) = again_with(&source, 30, Kind::None, |options| {
            let memory = MemoryOptions { bitmap: Some(16), ..options.memory };
            DumpOptions { format, memory, ..options }
        });
        assert!(code == 0 && found == wanted, "{format:?}");
    }
    assert!(kept(&wanted) == kept(&whole(31, Kind::Lzo)));
}

#[test]
fn a_stream_that_ends_early_gives_an_incomplete_dump_of_what_came() {
    let source = flattened(&MACHINE.elf());
    let (code, report, _) = again(&source, 31, Kind::Zlib);
    assert_eq!(code, 0, "{report}");
    let stream = Flattened::new(Vec::new()).unwrap();
    let bytes = whole(0, Kind::None);
    stream.write_at(FileOffset(0), &bytes).unwrap();
    let stream = stream.into_inner();
    let (code, report, dump) = again(&stream[..stream.len() - (1 << 20)], 0, Kind::Zlib);
    assert_eq!((code, &report["outcome"]), (1, &"incomplete".into()));
    assert!(report["problems"].to_string().contains("is not whole: the stream ends early"), "{report}");
    assert!(report["pages"]["unreadable"].as_u64().unwrap() >= 255);
    assert_eq!(Dump::open(&Bytes(dump.clone())).unwrap().header.status & INCOMPLETE, INCOMPLETE);
    for (pfn, page) in kept(&dump) {
        assert!(page.is_none_or(|page| page == MACHINE.page(pfn.0)), "pfn {pfn}");
    }
}

fn program(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kdump-capture")).args(args).current_dir(dir).output().unwrap()
}

#[test]
fn one_part_of_a_split_dump_is_refused_with_the_remedy() {
    let dir = temp();
    let dir = dir.path();
    fs::write(dir.join("source"), whole(0, Kind::Zlib)).unwrap();
    assert!(program(&["--split", "-z", "-d", "31", "source", "a", "b"], dir).status.success());
    let refused = program(&["-d", "31", "b", "out"], dir);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("one part of a split dump") && said.contains("--reassemble PART"), "{said}");
    assert!(!dir.join("out").exists());
    assert!(program(&["--reassemble", "b", "a", "out"], dir).status.success());
    assert!(kept(&fs::read(dir.join("out")).unwrap()) == kept(&whole(31, Kind::Zstd)));
}

#[test]
fn the_log_is_in_every_kind_of_dump() {
    let dir = temp();
    let dir = dir.path();
    for source in [whole(31, Kind::Zstd), flattened(&whole(31, Kind::Snappy)), flattened(&MACHINE.elf())] {
        fs::write(dir.join("source"), source).unwrap();
        let out = program(&["-F", "--dump-dmesg", "source"], dir);
        assert!(out.status.success() && out.stdout.ends_with(b"Kernel panic - not syncing: test\n"));
    }
}

/// The vmcore with its vmcoreinfo note overwritten.
fn without_vmcoreinfo() -> Vec<u8> {
    let mut elf = MACHINE.elf();
    let (notes, (at, len)) = MACHINE.notes();
    let start = elf.windows(notes.len()).position(|window| window == notes).unwrap();
    elf[start + at as usize..][..len as usize].fill(b'x');
    elf
}

#[test]
fn vmcoreinfo_from_a_file_stands_in_for_a_damaged_note() {
    let dir = temp();
    let file = dir.path().join("vmcoreinfo");
    fs::write(&file, &MACHINE.vmcoreinfo).unwrap();
    let with_file = |options: DumpOptions| DumpOptions { vmcoreinfo: Some(file.clone()), ..options };
    let damaged = without_vmcoreinfo();
    let (_, report, _) = again(&damaged, 31, Kind::Zlib);
    assert_eq!(report["level"], 1, "without it pages cannot be told apart");
    let (code, report, dump) = again_with(&damaged, 31, Kind::Zlib, with_file);
    assert_eq!((code, &report["level"], &report["kernel_release"]), (0, &31.into(), &"6.0.0-test".into()), "{report}");
    assert!(kept(&dump) == kept(&whole(31, Kind::Zlib)));
    let source = Bytes(dump);
    let vmcoreinfo = Dump::open(&source).unwrap().vmcoreinfo().unwrap();
    assert!(vmcoreinfo.iter().all(|byte| *byte == b'x'), "the notes stay those of the vmcore");

    fs::write(dir.path().join("vmcore"), &damaged).unwrap();
    let log = |vmcoreinfo| LogOptions {
        input: dir.path().join("vmcore"),
        output: Some(dir.path().join("log")),
        since: Since::Boot,
        force: true,
        vmcoreinfo,
        messages: Messages(0),
        report: None,
    };
    assert_eq!((pipeline::log(&log(None)), pipeline::log(&log(Some(file.clone())))), (1, 0));
    assert!(fs::read_to_string(dir.path().join("log")).unwrap().contains("Kernel panic"));
}

#[test]
fn vmcoreinfo_of_another_kernel_is_the_wrong_kernel() {
    let dir = temp();
    let file = dir.path().join("vmcoreinfo");
    let with_file = |options: DumpOptions| DumpOptions { vmcoreinfo: Some(file.clone()), ..options };
    let other = MACHINE.vmcoreinfo.replace("6.0.0-test", "6.0.1-test");
    for (text, input, code, why) in [
        (other.as_str(), MACHINE.elf(), 2, "its memory names release \"6.0.0-test\", the file given with -i names"),
        (other.as_str(), without_vmcoreinfo(), 2, "its memory names release"),
        ("OSRELEASE=6.0.1-test\n", MACHINE.elf(), 2, "its note names release \"6.0.0-test\""),
        ("OSRELEASE=6.0.1-test\n", whole(0, Kind::Zlib), 2, "names release \"6.0.0-test\""),
        ("SYMBOL(x)=1\n", MACHINE.elf(), 1, "no OSRELEASE in it"),
    ] {
        fs::write(&file, text).unwrap();
        let (found, report, dump) = again_with(&input, 31, Kind::Zlib, with_file);
        assert_eq!((found, dump.len()), (code, 0), "{report}");
        assert!(report["error"].as_str().unwrap().contains(why), "{report}");
    }
}
