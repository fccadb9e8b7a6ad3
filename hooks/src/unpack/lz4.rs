//! lz4's legacy frame, the only one that kernels read; and back.
//!
//! ```text
//!  02 21 4c 18 | size of a block, 4 bytes, little-endian | block | size | block | …
//! ```
//!
//! May surprise: it has no end of its own. A size of 0 (padding), or one that no block can have (what comes next), is the
//! end as well.

use super::blocks::{Blocks, bytes, damaged, take};
use lz4_flex::block;
use std::io::{self, BufRead, Write};

const MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

/// What a block holds at most; the kernel unpacks into a buffer of this size.
const BLOCK: usize = 8 << 20;

pub(super) fn open(input: &mut dyn BufRead) -> io::Result<Blocks<'_>> {
    if bytes(input)? != MAGIC {
        return Err(damaged("there is no legacy frame of lz4"));
    }
    Ok(Blocks { input, next, flags: 0, block: vec![0; BLOCK], at: 0, end: 0 })
}

fn next(input: &mut dyn BufRead, out: &mut [u8], _: u32) -> io::Result<usize> {
    let size = match input.fill_buf()? {
        [] => return Ok(0),
        &[a, b, c, d, ..] => u32::from_le_bytes([a, b, c, d]),
        short if short.iter().all(|byte| *byte == 0) => 0,
        _ => return Err(damaged("the size of a block is cut off")),
    };
    if size == 0 || size as usize > block::get_maximum_output_size(BLOCK) {
        return Ok(0);
    }
    input.consume(4);
    let packed = take(input, size)?;
    block::decompress_into(&packed, out).map_err(|error| damaged(&error.to_string()))
}

/// Writes a legacy frame.
#[derive(Debug)]
pub struct Lz4<W: Write> {
    out: W,
    block: Vec<u8>,
}

impl<W: Write> Lz4<W> {
    /// Begins one.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(mut out: W) -> io::Result<Lz4<W>> {
        out.write_all(&MAGIC)?;
        Ok(Lz4 { out, block: Vec::with_capacity(BLOCK) })
    }

    /// Writes what is left, and an end, so that something may follow.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.write_block()?;
        self.out.write_all(&[0; 4])?;
        Ok(self.out)
    }

    fn write_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let packed = block::compress(&self.block);
        let size = u32::try_from(packed.len()).map_err(io::Error::other)?;
        self.out.write_all(&size.to_le_bytes())?;
        self.out.write_all(&packed)?;
        self.block.clear();
        Ok(())
    }
}

impl<W: Write> Write for Lz4<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if self.block.len() == BLOCK {
            self.write_block()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
