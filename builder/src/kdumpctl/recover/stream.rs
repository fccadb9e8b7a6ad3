//! How long a flattened stream is, and how large the dump that it is of, told from the heads of its records.
//!
//! May surprise: only heads are read, so this takes a moment whatever the dump's size. The collector, which rebuilds the
//! dump, reads the same format with the same limits.

use anyhow::{Context, bail};
use kdump_hooks::raw::layout::FLATTENED;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes of the stream's header.
const HEADER: u64 = 4096;
/// Bytes of a record's head: position and length, with the big end first.
const HEAD: u64 = 16;
/// No dump is longer.
const LONGEST: i64 = 1 << 52;

/// A stream on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// How many bytes it has, its last record included.
    pub length: u64,
    /// How many bytes the dump has, holes left out.
    pub data: u64,
    /// Whether it has a last record.
    pub is_whole: bool,
}

/// Measures the stream that begins at `at` and ends before `end`.
///
/// # Errors
/// It cannot be read, or what is there cannot be a stream.
pub fn measure(device: &File, at: u64, end: u64) -> anyhow::Result<Stream> {
    let mut header = [0; 32];
    device.read_exact_at(&mut header, at).context("cannot read the stream's header")?;
    let (signature, numbers) = header.split_at(16);
    if signature != FLATTENED || pair(numbers) != (1, 1) {
        bail!("it is a stream of a version that is not known");
    }
    let mut stream = Stream { length: HEADER, data: 0, is_whole: false };
    for number in 0_u64.. {
        let place = at.saturating_add(stream.length);
        if place.saturating_add(HEAD) > end {
            return Ok(Stream { length: end.saturating_sub(at), ..stream });
        }
        let mut head = [0; 16];
        device.read_exact_at(&mut head, place).with_context(|| format!("cannot read record {number} of the stream"))?;
        let (position, length) = pair(&head);
        if (position, length) == (-1, -1) {
            return Ok(Stream { length: stream.length + HEAD, is_whole: true, ..stream });
        }
        let is_sane = (0..=LONGEST).contains(&position) && (1..=LONGEST).contains(&length);
        let bytes = u64::try_from(length).unwrap_or_default();
        if !is_sane || position + length > LONGEST {
            bail!("record {number} of the stream claims {length} bytes at position {position}, which cannot be");
        }
        stream.length = stream.length.saturating_add(HEAD).saturating_add(bytes);
        // A stream that was cut off has no more of its last record than is before the end.
        let there = end.saturating_sub(place.saturating_add(HEAD));
        stream.data = stream.data.saturating_add(bytes.min(there));
    }
    Ok(stream)
}

fn pair(bytes: &[u8]) -> (i64, i64) {
    let number =
        |at: usize| bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, i64::from_be_bytes);
    (number(0), number(8))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The stream of a dump that is written in these pieces.
    pub(in super::super) fn stream(pieces: &[(i64, &[u8])]) -> Vec<u8> {
        let mut bytes = FLATTENED.to_vec();
        bytes.extend([1_i64, 1].map(i64::to_be_bytes).concat());
        bytes.resize(4096, 0);
        for (at, piece) in pieces {
            bytes.extend([*at, i64::try_from(piece.len()).unwrap()].map(i64::to_be_bytes).concat());
            bytes.extend(*piece);
        }
        bytes.extend([-1_i64, -1].map(i64::to_be_bytes).concat());
        bytes
    }

    fn on_device(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 4096).unwrap();
        file.set_len(1 << 20).unwrap();
        file
    }

    fn measured(bytes: &[u8], end: u64) -> anyhow::Result<Stream> {
        measure(&on_device(bytes), 4096, end)
    }

    proptest! {
        #[test]
        fn a_stream_is_as_long_as_it_was_written(
            pieces in proptest::collection::vec((0..1_i64 << 40, proptest::collection::vec(any::<u8>(), 1..300)), 0..20),
        ) {
            let pieces: Vec<(i64, &[u8])> = pieces.iter().map(|(at, piece)| (*at, &piece[..])).collect();
            let bytes = stream(&pieces);
            let data = pieces.iter().map(|(_, piece)| piece.len() as u64).sum();
            let whole = Stream { length: bytes.len() as u64, data, is_whole: true };
            prop_assert_eq!(measured(&bytes, 1 << 20).unwrap(), whole);
            let cut = measured(&bytes, 4096 + bytes.len() as u64 - 1).unwrap();
            prop_assert_eq!((cut.length, cut.is_whole), (bytes.len() as u64 - 1, false));
        }

        #[test]
        fn any_records_are_taken_in_peace(records in proptest::collection::vec(any::<u8>(), 0..500)) {
            let mut bytes = stream(&[])[..4096].to_vec();
            bytes.extend(records);
            let _ = measured(&bytes, 1 << 20);
        }
    }

    #[test]
    fn of_a_record_that_is_cut_off_only_what_is_there_counts() {
        let mut bytes = stream(&[]);
        bytes.truncate(4096);
        bytes.extend([0, LONGEST].map(i64::to_be_bytes).concat());
        let end = 4096 + bytes.len() as u64 + 3;
        let expected = Stream { length: bytes.len() as u64 + 3, data: 3, is_whole: false };
        assert_eq!(measured(&bytes, end).unwrap(), expected);
    }

    #[test]
    fn what_cannot_be_a_stream_is_named() {
        let error = |bytes: &[u8]| format!("{:#}", measured(bytes, 1 << 20).unwrap_err());
        assert!(error(&[0; 4096]).contains("version that is not known"));
        let mut bytes = stream(&[]);
        bytes.truncate(4096);
        // Zeros follow, where the last record should be.
        assert!(error(&bytes).contains("record 0 of the stream claims 0 bytes at position 0"));
    }
}
