//! What a program prints, to a reader who may go away: `… | head` has seen enough and leaves.
//!
//! In: stdout or stderr, and what is written. Out: the same, as long as someone reads it. May surprise: what comes after
//! that is dropped and is no error. Work that was begun is then done as if nobody had left, and the exit says how it
//! went. A disk that is full is an error as ever.

use std::io::{ErrorKind, Result, Stderr, StdoutLock, Write};

/// A writer whose reader may go away.
#[derive(Debug)]
pub struct MayLeave<W> {
    to: W,
    has_left: bool,
}

/// What the program prints.
pub fn stdout() -> MayLeave<StdoutLock<'static>> {
    MayLeave::new(std::io::stdout().lock())
}

/// What it says beside that.
pub fn stderr() -> MayLeave<Stderr> {
    MayLeave::new(std::io::stderr())
}

impl<W> MayLeave<W> {
    /// As long as someone reads it, all goes to `to`.
    pub fn new(to: W) -> MayLeave<W> {
        MayLeave { to, has_left: false }
    }

    fn unless_left<T>(&mut self, instead: T, write: impl FnOnce(&mut W) -> Result<T>) -> Result<T> {
        if self.has_left {
            return Ok(instead);
        }
        match write(&mut self.to) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.has_left = true;
                Ok(instead)
            }
            done => done,
        }
    }
}

impl<W: Write> Write for MayLeave<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.unless_left(bytes.len(), |to| to.write(bytes))
    }

    fn flush(&mut self) -> Result<()> {
        self.unless_left((), W::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{LineWriter, Read};

    #[test]
    fn what_nobody_reads_any_more_is_dropped_and_is_no_error() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut out = MayLeave::new(LineWriter::new(writer));
        writeln!(out, "one").unwrap();
        let mut seen = [0; 4];
        reader.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"one\n");
        drop(reader);
        for _ in 0..3 {
            writeln!(out, "{}", "two ".repeat(5000)).unwrap();
            out.flush().unwrap();
        }
    }

    #[test]
    fn a_disk_that_is_full_is_an_error() {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        assert_eq!(writeln!(MayLeave::new(full), "one").unwrap_err().kind(), ErrorKind::StorageFull);
    }
}
