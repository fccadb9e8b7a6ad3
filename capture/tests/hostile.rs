//! Damaged vmcores: there is always an outcome, never a panic, never an endless loop.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

mod common;

use std::fs;
use std::sync::LazyLock;

use common::{Era, Leaf, Machine, options};
use kdump_capture::cli::{DumpOptions, Format, LogOptions};
use kdump_capture::compress::Kind;
use kdump_capture::dmesg::Since;
use kdump_capture::pipeline;
use kdump_capture::progress::Messages;
use proptest::prelude::*;

static ELF: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut machine = Machine::new(Era::V6_6, 4, Leaf::K4);
    machine.set(0x400, &["hugetlb:7"]);
    machine.set(0x480, &["buddy:7"]);
    machine.elf()
});

fn run(bytes: &[u8]) -> serde_json::Value {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let input = dir.path().join("vmcore");
    fs::write(&input, bytes).unwrap();
    let report = dir.path().join("report.json");
    let options = options(dir.path(), 31, Kind::Zstd);
    let value = |code: u8| {
        let value: serde_json::Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
        assert_eq!(code == 0, value["outcome"] == "complete", "{value}");
        value
    };
    let output = dir.path().join("core");
    value(pipeline::dump(&DumpOptions { format: Format::Elf, codec: Kind::None, output, ..options.clone() }));
    let value = value(pipeline::dump(&options));
    let log = LogOptions {
        input,
        output: Some(dir.path().join("log")),
        since: Since::Boot,
        force: false,
        vmcoreinfo: None,
        messages: Messages(0),
        report: None,
    };
    pipeline::log(&log);
    value
}

#[test]
fn the_fixture_itself_is_complete() {
    let report = run(&ELF);
    assert_eq!(report["outcome"], "complete", "{report}");
    assert_eq!(report["pages"]["free"], 128);
    assert_eq!(report["pages"]["user"], 128);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_vmcore_cut_anywhere_has_an_outcome(len in 0usize..0x50_3000) {
        let report = run(&ELF[..len.min(ELF.len() - 1)]);
        prop_assert_ne!(report["outcome"].as_str(), Some("complete"));
    }

    #[test]
    fn damaged_headers_have_an_outcome(
        at in proptest::collection::vec((0usize..0x2000, any::<u8>()), 1..12),
    ) {
        let mut bytes = ELF.clone();
        for (at, byte) in at { bytes[at] = byte; }
        run(&bytes);
    }

    #[test]
    fn damaged_tables_have_an_outcome(
        // Page tables, names, sections, the log and struct pages, all from 0x3000 (where RAM begins) on.
        at in proptest::collection::vec((0usize..0x9_0000, any::<u64>()), 1..40),
        pages in proptest::collection::vec((0x100usize..0x600, 0usize..8, any::<u64>()), 0..40),
    ) {
        let mut bytes = ELF.clone();
        let ram = bytes.len() - common::RAM_LEN;
        for (at, word) in at {
            let at = ram + 0x10_0000 + (at & !7);
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        for (pfn, field, word) in pages {
            let at = ram + 0x30_0000 + pfn * 64 + field * 8;
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        run(&bytes);
    }
}
