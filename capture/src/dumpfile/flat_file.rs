//! A flattened stream in a file, as the file it was made of. In: the stream. Out: [`Source`]: bytes at positions.
//! May surprise: nothing is rebuilt. The records are gone through once, by their heads alone, and an index of who has
//! the last word on which bytes stays in memory: 24 bytes per piece, small for the large records that this program
//! writes. What no record has is zeros, as `-R` leaves holes.
//!
//! ```text
//!  stream   | header | 0: AAAAAA | 9: BBB | 2: CC | end |
//!  file     AACCAA...BBB
//!  index    0+2 -> A   2+2 -> C   4+2 -> A   9+3 -> B
//! ```

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;

use crate::units::{FileOffset, to_usize};

use super::flatten::{HEADER, RECORD};
use super::read::Source;
use super::rebuild::{self, Ended};

/// Records beyond this number are not indexed: 96 MiB of index, for 256 GiB even in pieces of 64 KiB.
const MAX_RECORDS: usize = 1 << 22;

/// Bytes of the file that lie in one piece in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    at: u64,
    len: u64,
    /// Where in the stream. Later records lie further on, so this is also their order.
    from: u64,
}

impl Piece {
    fn end(&self) -> u64 {
        self.at + self.len
    }
}

/// What the stream is like.
#[derive(Debug, Default)]
pub struct StreamFacts {
    /// Records, the last perhaps in part.
    pub records: u64,
    /// Bytes that a later record has once more.
    pub overlapping: u64,
    /// Bytes behind the end record.
    pub trailing: u64,
    /// Why it does not come to its end.
    pub ended: Option<Ended>,
}

/// Why a stream cannot be looked into.
#[derive(Debug, thiserror::Error)]
pub enum FlatError {
    /// Reading failed.
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    /// It does not begin as one.
    #[error("{0}")]
    Header(&'static str),
    /// The index would be too large.
    #[error("it has more than {MAX_RECORDS} records; make a file of it first: kdump-capture -R DUMPFILE < STREAM")]
    Many,
}

/// The file in a stream.
pub struct FlatFile<S> {
    stream: S,
    pieces: Vec<Piece>,
    /// What the stream is like.
    pub facts: StreamFacts,
}

impl<S> std::fmt::Debug for FlatFile<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlatFile").field("pieces", &self.pieces.len()).field("facts", &self.facts).finish()
    }
}

impl<S: Source> FlatFile<S> {
    /// Goes through the records of `stream`, which has `len` bytes.
    pub fn open(stream: S, len: u64) -> Result<FlatFile<S>, FlatError> {
        FlatFile::limited(stream, len, MAX_RECORDS)
    }

    fn limited(stream: S, len: u64, most: usize) -> Result<FlatFile<S>, FlatError> {
        let mut start = vec![0; HEADER];
        let got = stream.read_at(FileOffset(0), &mut start)?;
        rebuild::header(&mut &start[..got])?.map_err(FlatError::Header)?;
        let (mut pieces, mut facts, mut at) = (Vec::new(), StreamFacts::default(), HEADER as u64);
        loop {
            let mut head = [0; RECORD];
            if stream.read_at(FileOffset(at), &mut head)? < RECORD {
                facts.ended = Some(Ended::Cut);
                break;
            }
            at += RECORD as u64;
            let record = match rebuild::record(&head, facts.records) {
                Ok(Some(record)) => record,
                Ok(None) => {
                    facts.trailing = len.saturating_sub(at);
                    break;
                }
                Err(impossible) => {
                    facts.ended = Some(impossible);
                    break;
                }
            };
            facts.records += 1;
            let there = record.len.min(len.saturating_sub(at));
            if there > 0 {
                if pieces.len() == most {
                    return Err(FlatError::Many);
                }
                pieces.push(Piece { at: record.at, len: there, from: at });
            }
            if there < record.len {
                facts.ended = Some(Ended::Cut);
                break;
            }
            at += record.len;
        }
        let stated: u64 = pieces.iter().fold(0, |sum, piece| piece.len.saturating_add(sum));
        let pieces = last_words(pieces);
        facts.overlapping = stated - pieces.iter().map(|piece| piece.len).sum::<u64>().min(stated);
        Ok(FlatFile { stream, pieces, facts })
    }

    /// Bytes of the file.
    pub fn len(&self) -> u64 {
        self.pieces.last().map_or(0, Piece::end)
    }

    /// Whether no record came.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The stream.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Bytes of memory the index takes.
    pub fn index_bytes(&self) -> usize {
        self.pieces.capacity() * size_of::<Piece>()
    }
}

/// Disjoint pieces, by position. Where some overlap, the one furthest on in the stream counts.
fn last_words(mut all: Vec<Piece>) -> Vec<Piece> {
    all.sort_unstable_by_key(|piece| (piece.at, piece.from));
    if all.windows(2).all(|pair| pair[0].end() <= pair[1].at) {
        all.shrink_to_fit();
        return all;
    }
    let mut out: Vec<Piece> = Vec::with_capacity(all.len());
    // Those that reach the position, the last of the stream on top.
    let mut open: BinaryHeap<(u64, Reverse<u64>, u64)> = BinaryHeap::new();
    let (mut next, mut at) = (0, 0);
    loop {
        while let Some(piece) = all.get(next).filter(|piece| piece.at <= at) {
            open.push((piece.from, Reverse(piece.at), piece.end()));
            next += 1;
        }
        while open.peek().is_some_and(|(_, _, end)| *end <= at) {
            open.pop();
        }
        let coming = all.get(next).map(|piece| piece.at);
        let (from, start, end) = match (open.peek(), coming) {
            (Some((from, Reverse(start), end)), _) => (*from, *start, *end),
            (None, Some(coming)) => {
                at = coming;
                continue;
            }
            (None, None) => break,
        };
        let stop = coming.unwrap_or(end).min(end);
        let piece = Piece { at, len: stop - at, from: from + (at - start) };
        match out.last_mut() {
            Some(last) if last.end() == piece.at && last.from + last.len == piece.from => last.len += piece.len,
            _ => out.push(piece),
        }
        at = stop;
    }
    out.shrink_to_fit();
    out
}

impl<S: Source> Source for FlatFile<S> {
    fn read_at(&self, at: FileOffset, buffer: &mut [u8]) -> io::Result<usize> {
        let len = to_usize(self.len().saturating_sub(at.0)).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = &mut buffer[..len];
        let first = self.pieces.partition_point(|piece| piece.end() <= at.0);
        let mut done = 0;
        for piece in &self.pieces[first..] {
            if done == len {
                break;
            }
            let here = at.0 + done as u64;
            let hole = to_usize(piece.at.saturating_sub(here)).unwrap_or(usize::MAX).min(len - done);
            buffer[done..done + hole].fill(0);
            done += hole;
            let skip = (at.0 + done as u64).saturating_sub(piece.at);
            let want = to_usize(piece.len - skip.min(piece.len)).unwrap_or(usize::MAX).min(len - done);
            let got = self.stream.read_at(FileOffset(piece.from + skip), &mut buffer[done..done + want])?;
            done += got;
            if got < want {
                break;
            }
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dumpfile::flatten::{END, SIGNATURE, TYPE_AND_VERSION, pair};
    use crate::fake::MemFile;
    use proptest::prelude::*;

    struct Bytes(Vec<u8>);

    impl Source for Bytes {
        fn read_at(&self, at: FileOffset, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.as_slice().read_at(at, buffer)
        }
    }

    fn stream(records: &[(u64, Vec<u8>)], end: bool) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend(pair(TYPE_AND_VERSION));
        bytes.resize(HEADER, 0);
        for (at, data) in records {
            bytes.extend(pair([at.cast_signed(), (data.len() as u64).cast_signed()]));
            bytes.extend(data);
        }
        if end {
            bytes.extend(pair(END));
        }
        bytes
    }

    fn open(bytes: Vec<u8>) -> FlatFile<Bytes> {
        let len = bytes.len() as u64;
        FlatFile::open(Bytes(bytes), len).unwrap()
    }

    #[test]
    fn too_many_records_are_refused_with_the_remedy() {
        let bytes = stream(&[(0, vec![1]), (1, vec![2]), (2, vec![3])], true);
        let len = bytes.len() as u64;
        assert!(FlatFile::limited(Bytes(bytes.clone()), len, 3).is_ok());
        let error = FlatFile::limited(Bytes(bytes), len, 2).unwrap_err();
        assert!(matches!(error, FlatError::Many) && error.to_string().contains("-R DUMPFILE"));
    }

    #[test]
    fn the_index_of_adjoining_rewrites_stays_small() {
        let file = open(stream(&[(0, vec![1; 100]), (100, vec![2; 100]), (20, vec![3; 10]), (40, vec![4; 10])], true));
        assert_eq!((file.pieces.len(), file.facts.overlapping, file.len()), (6, 20, 200));
        assert!(file.facts.ended.is_none() && file.facts.records == 4);
    }

    #[test]
    fn what_follows_the_end_is_counted_and_not_read() {
        let mut bytes = stream(&[(0, vec![1; 8])], true);
        bytes.extend([9; 50]);
        let file = open(bytes);
        assert_eq!((file.facts.trailing, file.len()), (50, 8));
    }

    proptest! {
        #[test]
        fn every_byte_is_the_one_that_rebuilding_gives(
            records in proptest::collection::vec((0u64..300, proptest::collection::vec(any::<u8>(), 1..80)), 0..30),
            cut in 0usize..200,
            places in proptest::collection::vec((0u64..400, 0usize..400), 1..20),
        ) {
            let mut bytes = stream(&records, true);
            bytes.truncate((bytes.len() - cut.min(bytes.len() - HEADER)).max(HEADER));
            let out = MemFile::new(1 << 20);
            let done = rebuild::records(&mut &bytes[HEADER..], &out);
            let file = open(bytes);
            let rebuilt = out.into_bytes();
            prop_assert_eq!(file.facts.ended.is_some(), done.ended.is_some());
            prop_assert_eq!((file.len(), file.facts.records), (done.bytes, done.records));
            for (at, len) in places {
                let mut buffer = vec![0xee; len];
                let got = file.read_at(FileOffset(at), &mut buffer).unwrap();
                let want = rebuilt.get(at as usize..).unwrap_or_default();
                prop_assert_eq!(&buffer[..got], &want[..want.len().min(len)]);
            }
            for pair in file.pieces.windows(2) {
                prop_assert!(pair[0].end() <= pair[1].at);
            }
        }
    }
}
