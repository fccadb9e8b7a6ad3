//! Rebuilds a dump from a flattened stream. In: a stream (see `flatten.rs`). Out: the file it was made of.
//! May surprise: a stream that ends early is no reason to wait: what came is kept, and marked as incomplete, whatever
//! its own header says. Positions and lengths come from elsewhere and are checked; nothing is held but one buffer.

use std::io::{self, Read};

use crate::output::{Output, write_all};
use crate::units::{FileOffset, le32, to_usize};

use super::flatten::{END, HEADER, RECORD, SIGNATURE, TYPE_AND_VERSION, pair};
use super::layout;

/// No dump is longer: no machine has more memory.
const LONGEST: u64 = 1 << 52;
/// Copied at once.
const BUFFER: usize = 1 << 20;
/// The start of the dump, kept in sight to mark it as incomplete: an ELF header, or `disk_dump_header`.
const START: usize = 464;

/// Why a stream did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// No end record.
    #[error("the stream ends early")]
    Cut,
    /// A record that cannot be.
    #[error("record {number} claims {length} bytes at position {position}, which cannot be")]
    Impossible {
        /// Counted from 0.
        number: u64,
        /// As in the stream.
        position: i64,
        /// As in the stream.
        length: i64,
    },
    /// Reading failed.
    #[error("unable to read the stream")]
    Read(#[source] io::Error),
    /// Writing failed.
    #[error("unable to write all data")]
    Write(#[source] io::Error),
}

/// What was rebuilt.
#[derive(Debug, Default)]
pub struct Rebuilt {
    /// Where the file ends.
    pub bytes: u64,
    /// Records copied, the last perhaps in part.
    pub records: u64,
    /// Why it is not all.
    pub ended: Option<Ended>,
    /// Whether the dump says of itself that it is incomplete, and did so before this end.
    pub incomplete: bool,
}

/// Reads the header of a stream; the text says what is wrong with it.
pub fn header(from: &mut dyn Read) -> io::Result<Result<(), &'static str>> {
    let mut header = vec![0; HEADER];
    let got = fill(from, &mut header)?;
    Ok(if got == 0 {
        Err("it is empty")
    } else if !header.starts_with(SIGNATURE) {
        Err("it is no flattened dump")
    } else if header.get(16..32) != Some(&pair(TYPE_AND_VERSION)) {
        Err("it is a flattened dump of another version")
    } else if got < HEADER {
        Err("it ends within its header")
    } else {
        Ok(())
    })
}

/// Where the bytes behind its head belong.
pub(super) struct Record {
    pub(super) at: u64,
    pub(super) len: u64,
}

/// Reads the head of record `number`; `None` is the end of the stream.
pub(super) fn record(head: &[u8; RECORD], number: u64) -> Result<Option<Record>, Ended> {
    let field = |bytes: &[u8]| bytes.first_chunk().map_or(0, |b| i64::from_be_bytes(*b));
    let (position, length) = (field(&head[..8]), field(&head[8..]));
    if [position, length] == END {
        return Ok(None);
    }
    let sane = |n: i64| u64::try_from(n).ok().filter(|n| *n <= LONGEST);
    match (sane(position), sane(length)) {
        (Some(at), Some(len)) if len > 0 && at + len <= LONGEST => Ok(Some(Record { at, len })),
        _ => Err(Ended::Impossible { number, position, length }),
    }
}

/// Copies all records behind the header to `out`.
pub fn records(from: &mut dyn Read, out: &dyn Output) -> Rebuilt {
    let mut copy = Copy { from, out, buffer: vec![0; BUFFER], start: vec![0; START], done: Rebuilt::default() };
    copy.done.ended = copy.run().err();
    let mark = marked(&copy.start);
    copy.done.incomplete = mark.is_some_and(|(_, already)| already);
    if let (Some(_), Some((place, false))) = (&copy.done.ended, mark) {
        let flag = copy.start.get(place).copied().unwrap_or_default() | flag(&copy.start);
        // The reason why it ended is told; if this fails too, it is the same one.
        let _ = write_all(out, FileOffset(place as u64), &[flag]);
    }
    copy.done
}

/// The bit that says "incomplete": of `e_flags` in an ELF file (as makedumpfile has it), of `status` in the other.
fn flag(start: &[u8]) -> u8 {
    if start.starts_with(b"\x7fELF") { 1 } else { 8 }
}

/// Where a dump that starts so says whether it is incomplete, and whether it does; `None` if it is not known.
fn marked(start: &[u8]) -> Option<(usize, bool)> {
    let place = match start {
        elf if elf.starts_with(b"\x7fELF") => 48,
        kdump if kdump.starts_with(layout::SIGNATURE) => 424,
        _ => return None,
    };
    Some((place, le32(start, place)? & u32::from(flag(start)) != 0))
}

struct Copy<'a> {
    from: &'a mut dyn Read,
    out: &'a dyn Output,
    buffer: Vec<u8>,
    start: Vec<u8>,
    done: Rebuilt,
}

impl Copy<'_> {
    fn run(&mut self) -> Result<(), Ended> {
        loop {
            let mut head = [0; RECORD];
            if fill(self.from, &mut head).map_err(Ended::Read)? < RECORD {
                return Err(Ended::Cut);
            }
            match record(&head, self.done.records)? {
                Some(Record { at, len }) => self.record(at, len)?,
                None => return Ok(()),
            }
        }
    }

    fn record(&mut self, mut at: u64, mut len: u64) -> Result<(), Ended> {
        self.done.records += 1;
        while len > 0 {
            let want = to_usize(len).unwrap_or(usize::MAX).min(BUFFER);
            let buffer = &mut self.buffer[..want];
            let (got, read) = match fill(self.from, buffer) {
                Ok(got) => (got, if got < want { Err(Ended::Cut) } else { Ok(()) }),
                Err(e) => (0, Err(Ended::Read(e))),
            };
            let (fitted, written) = write_all(self.out, FileOffset(at), &buffer[..got]);
            if let Some(room) = to_usize(at).and_then(|at| self.start.get_mut(at..)) {
                let seen = room.len().min(fitted);
                room[..seen].copy_from_slice(&buffer[..seen]);
            }
            if fitted > 0 {
                self.done.bytes = self.done.bytes.max(at + fitted as u64);
            }
            written.map_err(Ended::Write)?;
            read?;
            at += want as u64;
            len -= want as u64;
        }
        Ok(())
    }
}

/// Reads until `buffer` is full or the stream ends; returns how much came.
fn fill(from: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match from.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}
