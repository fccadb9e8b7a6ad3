//! The flattened stream. In: bytes at positions, as for a file. Out: the same as records, for a pipe.
//! May surprise: small pieces that follow each other are gathered, so that records are few and large; what was
//! gathered goes out from the highest position to the lowest. So data comes before its descriptors, and the final
//! header, without "incomplete", last of all: a stream that is cut short rebuilds to a dump that says so.
//!
//! ```text
//!  0       "makedumpfile", padded to 16; type 1, version 1: i64 big-endian; zeros
//!  4096    record: position, length: i64 big-endian; then as many bytes, of the dump as it is
//!          record …                     positions in any order; where two overlap, the later one counts
//!          end: position and length -1
//! ```

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use crate::output::Output;
use crate::units::FileOffset;

/// The first bytes of a stream.
pub const SIGNATURE: &[u8; 16] = b"makedumpfile\0\0\0\0";
/// Bytes of the stream's header.
pub const HEADER: usize = 4096;
/// Position and length.
pub const RECORD: usize = 16;
/// What a valid stream has as type and as version.
pub const TYPE_AND_VERSION: [i64; 2] = [1, 1];
/// Position and length of the last record.
pub const END: [i64; 2] = [-1, -1];

/// Pieces from this length on are records of their own.
const LARGE: usize = 128 << 10;
/// Gathered at most, apart from the piece that went over it.
const GATHERED: usize = 512 << 10;
/// What is gathered does not wait for more data than this: a page is worth nothing before its descriptor has come.
const BEHIND: usize = 1 << 20;
/// Runs of pieces gathered side by side: data, descriptors, headers.
const RUNS: usize = 4;

/// Two numbers as the stream has them.
pub fn pair(numbers: [i64; 2]) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    bytes[..8].copy_from_slice(&numbers[0].to_be_bytes());
    bytes[8..].copy_from_slice(&numbers[1].to_be_bytes());
    bytes
}

/// A run of gathered bytes.
struct Run {
    at: u64,
    bytes: Vec<u8>,
}

impl Run {
    fn end(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }
}

struct Stream<W> {
    to: W,
    runs: Vec<Run>,
    /// Bytes that overtook what is gathered.
    behind: usize,
    broken: bool,
}

/// Turns positioned writes into records on `W`.
pub struct Flattened<W>(Mutex<Stream<W>>);

impl<W> std::fmt::Debug for Flattened<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flattened").finish_non_exhaustive()
    }
}

impl Flattened<File> {
    /// A stream on stdout, without the line buffer of the standard library.
    pub fn stdout() -> io::Result<Self> {
        Flattened::new(File::from(io::stdout().as_fd().try_clone_to_owned()?))
    }
}

impl<W: Write> Flattened<W> {
    /// Begins a stream: writes its header.
    pub fn new(mut to: W) -> io::Result<Self> {
        let mut header = vec![0; HEADER];
        header[..16].copy_from_slice(SIGNATURE);
        header[16..32].copy_from_slice(&pair(TYPE_AND_VERSION));
        to.write_all(&header)?;
        Ok(Flattened(Mutex::new(Stream { to, runs: Vec::new(), behind: 0, broken: false })))
    }

    /// The stream, when all is done.
    pub fn into_inner(self) -> W {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).to
    }
}

impl<W: Write> Stream<W> {
    /// A record that went out in part would swallow the next one, so after an error nothing more is written.
    fn put(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the stream is broken"));
        }
        let result = parts.iter().try_for_each(|part| self.to.write_all(part));
        self.broken = result.is_err();
        result
    }

    fn record(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let number = |n: u64| i64::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge));
        let head = pair([number(at)?, number(bytes.len() as u64)?]);
        self.put(&[&head, bytes])
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut runs = std::mem::take(&mut self.runs);
        self.behind = 0;
        runs.sort_by_key(|run| std::cmp::Reverse(run.at));
        runs.iter().try_for_each(|run| self.record(run.at, &run.bytes))
    }

    fn piece(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let end = at.saturating_add(bytes.len() as u64);
        if self.runs.iter().any(|run| run.at < end && at < run.end()) {
            self.flush()?;
        }
        let follows = self.runs.iter().position(|run| run.end() == at);
        if bytes.len() >= LARGE {
            if let Some(run) = follows.map(|index| self.runs.swap_remove(index)) {
                self.record(run.at, &run.bytes)?;
            }
            self.record(at, bytes)?;
            self.behind += bytes.len();
            return if self.behind > BEHIND { self.flush() } else { Ok(()) };
        }
        match follows.and_then(|index| self.runs.get_mut(index)) {
            Some(run) => run.bytes.extend_from_slice(bytes),
            None => {
                if self.runs.len() == RUNS {
                    self.flush()?;
                }
                self.runs.push(Run { at, bytes: bytes.to_vec() });
            }
        }
        if self.runs.iter().map(|run| run.bytes.len()).sum::<usize>() > GATHERED { self.flush() } else { Ok(()) }
    }
}

impl<W: Write + Send> Output for Flattened<W> {
    fn write_at(&self, at: FileOffset, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).piece(at.0, bytes)?;
        }
        Ok(bytes.len())
    }

    fn reserve(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn in_order(&self) -> bool {
        true
    }

    fn flush(&self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }

    fn finish(&self) -> io::Result<()> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stream.flush()?;
        stream.put(&[&pair(END)])?;
        stream.to.flush()
    }
}
