//! The flattened stream: the same dump through a pipe, whatever happens to it on the way.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::io::{self, Write};
use std::process::{Command, Output as Ended, Stdio};
use std::sync::{LazyLock, Mutex};

use common::{Bytes, Era, Leaf, Machine, kept};
use kdump_capture::cli::Format;
use kdump_capture::compress::Kind;
use kdump_capture::dumpfile::flatten::{END, Flattened, HEADER, RECORD, pair};
use kdump_capture::dumpfile::layout::INCOMPLETE;
use kdump_capture::dumpfile::read::Dump;
use kdump_capture::dumpfile::rebuild::{self, Rebuilt};
use kdump_capture::fake::MemFile;
use kdump_capture::output::Output;
use kdump_capture::report::{DumpReport, Outcome};
use kdump_capture::send::share::Share;
use kdump_capture::units::FileOffset;
use proptest::prelude::*;

fn machine() -> Machine {
    let mut machine = Machine::new(Era::V6_12, 5, Leaf::M2);
    machine.set(0x480, &["buddy:7"]);
    machine.set(0x500, &["lru", "file"]);
    machine
}

/// A pipe that breaks after `room` bytes.
struct Pipe {
    bytes: Vec<u8>,
    room: usize,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(self.room - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..len]);
        if len == 0 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(len) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn flattened(machine: &Machine, level: u8, codec: Kind, threads: usize, room: usize) -> (DumpReport, Vec<u8>) {
    let out = Flattened::new(Pipe { bytes: vec![], room }).unwrap();
    let report = machine.dump_to(&machine.memory(), level, Format::Kdump, codec, threads, &out);
    assert_eq!(out.finish().is_ok(), room == usize::MAX);
    (report, out.into_inner().bytes)
}

fn rebuilt(mut stream: &[u8]) -> (Rebuilt, Vec<u8>) {
    rebuild::header(&mut stream).unwrap().unwrap();
    let out = MemFile::new(1 << 30);
    let done = rebuild::records(&mut stream, &out);
    (done, out.into_bytes())
}

/// Position and length of each record.
fn records(stream: &[u8]) -> Vec<(i64, i64)> {
    let mut at = HEADER;
    let mut found = vec![];
    loop {
        let number = |at: usize| i64::from_be_bytes(stream[at..at + 8].try_into().unwrap());
        let record = (number(at), number(at + 8));
        if [record.0, record.1] == END {
            assert_eq!(at + RECORD, stream.len());
            return found;
        }
        found.push(record);
        at += RECORD + record.1 as usize;
    }
}

#[test]
fn the_stream_is_the_same_with_any_number_of_threads_and_its_data_ascends() {
    let machine = machine();
    let (report, one) = flattened(&machine, 1, Kind::Zstd, 1, usize::MAX);
    assert_eq!(report.outcome, Outcome::Complete);
    for threads in [2, 5] {
        assert!(flattened(&machine, 1, Kind::Zstd, threads, usize::MAX).1 == one, "{threads} threads");
    }
    let records = records(&one);
    assert_eq!(records.last().unwrap().0, 0, "the final header comes last");
    assert!(records.len() <= 12, "{records:?}");
    let large: Vec<i64> = records.iter().filter(|(_, len)| *len > 64 << 10).map(|(at, _)| *at).collect();
    assert!(!large.is_empty() && large.is_sorted());
}

static STREAM: LazyLock<Vec<u8>> = LazyLock::new(|| flattened(&machine(), 31, Kind::Zlib, 2, usize::MAX).1);

fn stream(records: &[(i64, &[u8])], end: bool) -> Vec<u8> {
    let mut bytes = STREAM[..HEADER].to_vec();
    for (at, data) in records {
        bytes.extend(pair([*at, data.len() as i64]));
        bytes.extend(*data);
    }
    if end {
        bytes.extend(pair(END));
    }
    bytes
}

#[test]
fn where_records_overlap_the_later_one_counts() {
    let (done, bytes) = rebuilt(&stream(&[(4, b"earlier"), (0, b"other"), (8, b"l")], true));
    assert!(done.ended.is_none());
    assert_eq!((done.records, done.bytes), (3, 11));
    assert_eq!(bytes, b"otherarller");
}

#[test]
fn a_record_that_cannot_be_ends_the_stream() {
    for (at, len) in [(-1, 5), (0, -1), (0, 0), (i64::MAX, 1), (1 << 52, 1), (1, 1 << 52), (-2, -2), (0, i64::MAX)] {
        let mut bytes = stream(&[(0, b"good")], false);
        bytes.extend(pair([at, len]));
        bytes.extend([1; 64]);
        let (done, file) = rebuilt(&bytes);
        assert!(matches!(done.ended, Some(rebuild::Ended::Impossible { number: 1, .. })), "{at} {len} {done:?}");
        assert_eq!(file, b"good");
    }
}

#[test]
fn what_is_no_stream_is_named() {
    let mut other_version = STREAM.clone();
    other_version[31] = 2;
    let cases: [(&[u8], &str); 4] =
        [(b"", "empty"), (b"KDUMP   ", "no flattened"), (&other_version, "version"), (&STREAM[..100], "within its")];
    for (mut bytes, why) in cases {
        assert!(rebuild::header(&mut bytes).unwrap().unwrap_err().contains(why), "{why}");
    }
}

#[test]
fn a_stream_cut_short_says_incomplete_even_if_its_header_did_not() {
    let whole = rebuilt(&STREAM).1;
    assert_eq!(Dump::open(&Bytes(whole.clone())).unwrap().header.status & INCOMPLETE, 0);
    let (done, file) = rebuilt(&stream(&[(0, &whole[..5000])], false));
    assert!(matches!(done.ended, Some(rebuild::Ended::Cut)) && !done.incomplete);
    assert_eq!(file[424], whole[424] | 8);
}

#[test]
fn a_full_disk_while_rebuilding_keeps_what_fits() {
    let mut from = STREAM.as_slice();
    rebuild::header(&mut from).unwrap().unwrap();
    let out = MemFile::new(rebuilt(&STREAM).1.len() / 2);
    assert!(matches!(rebuild::records(&mut from, &out).ended, Some(rebuild::Ended::Write(_))));
    let bytes = out.into_bytes();
    assert_eq!(Dump::open(&Bytes(bytes)).unwrap().header.status & INCOMPLETE, INCOMPLETE);
}

#[test]
fn a_broken_pipe_leaves_an_incomplete_dump_with_the_pages_that_came() {
    let machine = machine();
    let (whole, _) = flattened(&machine, 0, Kind::None, 1, usize::MAX);
    for threads in [1, 3] {
        let (report, bytes) = flattened(&machine, 0, Kind::None, threads, 2 << 20);
        assert_eq!(report.outcome, Outcome::Incomplete);
        let (done, file) = rebuilt(&bytes);
        assert!(matches!(done.ended, Some(rebuild::Ended::Cut)) && done.incomplete);
        let pages: Vec<_> = kept(&file).into_iter().filter_map(|(pfn, page)| Some((pfn, page?))).collect();
        assert!(pages.len() > 100 && (pages.len() as u64) < whole.pages.kept, "{}", pages.len());
        for (pfn, page) in pages {
            assert!(page == machine.page(pfn.0), "pfn {pfn}");
        }
    }
}

fn run(args: &[&str], dir: &std::path::Path, stdin: Option<&str>) -> Ended {
    let stdin = stdin.map_or_else(Stdio::null, |name| File::open(dir.join(name)).unwrap().into());
    let mut command = Command::new(env!("CARGO_BIN_EXE_kdump-capture"));
    command.args(args).current_dir(dir).stdin(stdin).output().unwrap()
}

#[test]
fn stdout_is_the_dump_s_alone_and_the_log_is_plain_text() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("vmcore"), machine().elf()).unwrap();
    assert!(run(&["-z", "-d31", "vmcore", "direct"], dir, None).status.success());
    let out = run(&["-F", "-z", "-d31", "--show-stats", "vmcore"], dir, None);
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.success() && said.contains("The dumpfile is saved to STDOUT."), "{said}");
    assert!(said.contains("makedumpfile Completed.") && said.contains("Written"), "{said}");
    fs::write(dir.join("flat"), &out.stdout).unwrap();

    let out = run(&["-R", "again", "--report", "report.json"], dir, Some("flat"));
    assert!(out.status.success() && String::from_utf8(out.stdout).unwrap().contains("saved to again."));
    assert!(fs::read(dir.join("again")).unwrap() == fs::read(dir.join("direct")).unwrap());
    assert!(fs::read_to_string(dir.join("report.json")).unwrap().contains("\"outcome\":\"complete\""));
    assert_eq!(run(&["-R", "again"], dir, Some("flat")).status.code(), Some(1), "it exists");

    let out = run(&["-F", "-L", "2000K", "vmcore"], dir, None);
    assert_eq!(out.status.code(), Some(1));
    fs::write(dir.join("limited"), &out.stdout).unwrap();
    let out = run(&["-R", "limited.out", "--report", "limited.json"], dir, Some("limited"));
    assert_eq!(out.status.code(), Some(1));
    let report = fs::read_to_string(dir.join("limited.json")).unwrap();
    assert!(report.contains("\"error\":null") && report.contains("says of itself"), "{report}");
    assert!(kept(&fs::read(dir.join("limited.out")).unwrap()).iter().any(|(_, page)| page.is_some()));

    let log = run(&["-F", "--dump-dmesg", "vmcore"], dir, None);
    assert!(log.status.success() && log.stdout.starts_with(b"[    0.001000] [      T1] Linux version 6\n"));
    assert!(String::from_utf8(log.stderr).unwrap().contains("The dmesg log is saved to STDOUT."));

    fs::write(dir.join("cut"), &fs::read(dir.join("flat")).unwrap()[..9000]).unwrap();
    let out = run(&["-R", "cut.out"], dir, Some("cut"));
    assert_eq!(out.status.code(), Some(1));
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(said.contains("the stream ends early") && said.contains("incomplete dumpfile"), "{said}");
    assert!(dir.join("cut.out").exists());
    assert_eq!(run(&["-R", "none.out"], dir, Some("vmcore")).status.code(), Some(1));
    assert!(!dir.join("none.out").exists(), "what is no stream makes no file");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_stream_rebuilds_to_the_very_file_that_a_direct_dump_is(
        kinds in proptest::collection::vec((0x410u64..0x600, 0usize..4), 0..30),
        level in 0u8..32,
        codec in 0usize..Kind::ALL.len(),
        threads in 1usize..6,
    ) {
        let mut machine = machine();
        for (pfn, kind) in kinds {
            machine.set(pfn & !7, &[["buddy:3", "anon", "lru", "offline"][kind]]);
        }
        let codec = Kind::ALL[codec];
        let (direct, file) = machine.dump(&machine.memory(), level, codec, 1, usize::MAX);
        let (report, stream) = flattened(&machine, level, codec, threads, usize::MAX);
        prop_assert_eq!(report.outcome, Outcome::Complete);
        prop_assert_eq!(report.bytes, direct.bytes);
        let (done, again) = rebuilt(&stream);
        prop_assert!(done.ended.is_none() && !done.incomplete);
        prop_assert_eq!(done.bytes, again.len() as u64);
        prop_assert!(again == file);
    }

    #[test]
    fn a_stream_cut_anywhere_keeps_right_pages_and_says_incomplete(part in 0.0f64..1.0) {
        #[expect(clippy::cast_precision_loss, reason = "a place in the stream")]
        let len = HEADER + ((STREAM.len() - 1 - HEADER) as f64 * part) as usize;
        let (done, file) = rebuilt(&STREAM[..len]);
        prop_assert!(matches!(done.ended, Some(rebuild::Ended::Cut)));
        let source = Bytes(file);
        // Headers, notes and bitmaps are the first that goes out.
        let dump = Dump::open(&source);
        prop_assert!(dump.is_ok() || len < HEADER + (16 << 10));
        if let Ok(mut dump) = dump {
            prop_assert_eq!(dump.header.status & INCOMPLETE, INCOMPLETE);
            let mut descriptors = vec![];
            let _ = dump.kept(&mut |_, descriptor| { descriptors.push(descriptor); Ok(()) });
            // The stream may end within a descriptor; the page of that one cannot be read.
            prop_assert!(descriptors.iter().filter(|d| dump.page(d).is_err()).count() <= 1);
        }
    }

    #[test]
    fn arbitrary_records_end(bytes in proptest::collection::vec(any::<u8>(), 0..400), small in any::<bool>()) {
        let mut all = STREAM[..HEADER].to_vec();
        for chunk in bytes.chunks(20) {
            if small { all.extend(pair([i64::from(chunk[0]), chunk.len() as i64])); }
            all.extend(chunk);
        }
        let (done, file) = rebuilt(&all);
        prop_assert!(done.ended.is_some() && file.len() as u64 == done.bytes.max(file.len() as u64));
    }
}

#[test]
fn a_stream_says_on_its_way_how_much_of_it_has_come() {
    /// What is known after each record.
    #[derive(Default)]
    struct Follows(Mutex<(Share, Vec<Option<(u64, u64)>>)>);
    impl Output for Follows {
        fn write_at(&self, at: FileOffset, bytes: &[u8]) -> io::Result<usize> {
            let (share, known) = &mut *self.0.lock().unwrap();
            share.see(at.0, bytes);
            known.push(share.known());
            Ok(bytes.len())
        }
        fn reserve(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
    }

    let machine = Machine::new(Era::V6_12, 5, Leaf::M2);
    let flat = Flattened::new(Vec::new()).unwrap();
    machine.dump_to(&machine.memory(), 0, Format::Kdump, Kind::Zstd, 2, &flat);
    flat.finish().unwrap();
    let stream = flat.into_inner();
    let mut from = &stream[..];
    rebuild::header(&mut from).unwrap().unwrap();
    let follows = Follows::default();
    assert!(rebuild::records(&mut from, &follows).ended.is_none());
    let known: Vec<(u64, u64)> = follows.0.into_inner().unwrap().1.into_iter().flatten().collect();
    assert_eq!((known[0], known.last()), ((0, 0x500 * 24), Some(&(0x500 * 24, 0x500 * 24))));
    assert!(known.is_sorted() && known.len() > 3, "{known:?}");
}
