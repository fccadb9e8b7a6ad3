//! Arbitrary bytes as the records of a flattened stream: rebuilt, and read where they lie, which must be the same;
//! what was rebuilt as a dump to be read back.

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use kdump_capture::dumpfile::flat_file::FlatFile;
use kdump_capture::dumpfile::flatten::{SIGNATURE, TYPE_AND_VERSION, pair};
use kdump_capture::dumpfile::read::{Dump, Source};
use kdump_capture::dumpfile::rebuild::{self, Ended};
use kdump_capture::fake::MemFile;
use kdump_capture::units::FileOffset;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut stream = SIGNATURE.to_vec();
    stream.extend(pair(TYPE_AND_VERSION));
    stream.resize(4096, 0);
    // The first byte says how numbers are made small, so that records go on.
    let Some((first, data)) = data.split_first() else { return };
    if first & 1 == 1 {
        for chunk in data.chunks(64) {
            let at = i64::from(chunk[0]) << (first >> 4);
            stream.extend(pair([at, chunk.len() as i64]));
            stream.extend(chunk);
        }
    } else {
        stream.extend(data);
    }
    let mut from = stream.as_slice();
    assert!(rebuild::header(&mut from).unwrap().is_ok());
    let out = MemFile::new(1 << 20);
    let done = rebuild::records(&mut from, &out);
    let bytes = out.into_bytes();
    assert!(done.bytes <= bytes.len() as u64);
    let len = stream.len() as u64;
    let file = FlatFile::open(common::Bytes(stream), len).unwrap();
    assert!(file.index_bytes() <= 48 * data.len());
    if !matches!(done.ended, Some(Ended::Write(_))) {
        assert_eq!((file.len(), file.facts.records), (done.bytes, done.records));
        assert_eq!(file.facts.ended.is_some(), done.ended.is_some());
        let mut whole = vec![0xee; bytes.len() + 1];
        assert_eq!(file.read_at(FileOffset(0), &mut whole).unwrap() as u64, file.len());
        let mut wanted = bytes[..done.bytes as usize].to_vec();
        if done.ended.is_some() {
            // Rebuilding marks a dump that is cut short.
            for place in [48, 424] {
                wanted.iter_mut().skip(place).take(1).for_each(|byte| *byte = whole[place]);
            }
        }
        assert!(whole.starts_with(&wanted));
        for piece in [3, 64, 4096] {
            let at = bytes.len() / piece;
            let mut some = vec![0xee; piece];
            let got = file.read_at(FileOffset(at as u64), &mut some).unwrap();
            assert_eq!(some[..got], whole[at..at + got]);
        }
    }
    if let Ok(dump) = Dump::open(&common::Bytes(bytes)) {
        let complete = dump.header.status & kdump_capture::dumpfile::layout::INCOMPLETE == 0;
        assert!(!complete || done.ended.is_none());
    }
});
