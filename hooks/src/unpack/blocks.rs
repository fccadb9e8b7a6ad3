//! A stream that is unpacked block by block.

use std::io::{self, BufRead, ErrorKind, Read};

/// Unpacks the next block of `input` into the start of the buffer; how long it is, 0 at the end.
pub(super) type Next = fn(&mut dyn BufRead, &mut [u8], u32) -> io::Result<usize>;

/// Reads one block after the other.
pub(super) struct Blocks<'a> {
    pub(super) input: &'a mut dyn BufRead,
    pub(super) next: Next,
    /// What the head of the stream says of its blocks.
    pub(super) flags: u32,
    /// As large as a block can be.
    pub(super) block: Vec<u8>,
    pub(super) at: usize,
    pub(super) end: usize,
}

impl Read for Blocks<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.end && !out.is_empty() {
            self.at = 0;
            self.end = (self.next)(self.input, &mut self.block, self.flags)?;
        }
        let mut rest = self.block.get(self.at..self.end).unwrap_or_default();
        let read = rest.read(out)?;
        self.at += read;
        Ok(read)
    }
}

/// Data that is not what it should be.
pub(super) fn damaged(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.to_owned())
}

pub(super) fn bytes<const N: usize>(input: &mut dyn BufRead) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The `len` bytes that come next.
pub(super) fn take(input: &mut dyn BufRead, len: u32) -> io::Result<Vec<u8>> {
    let mut taken = Vec::new();
    match input.take(len.into()).read_to_end(&mut taken)? == len as usize {
        true => Ok(taken),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
