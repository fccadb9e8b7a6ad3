//! Decompression of module files and of images, in memory and bounded.

use crate::host::kernel::Compression;
use anyhow::{Context, bail};
use std::io::{BufRead, Read};

/// No module and no firmware is larger.
const MAX_FILE: usize = 256 << 20;

/// Decompresses a whole file.
///
/// # Errors
/// The data is damaged or comes to an unreasonable size.
pub fn unpack(bytes: &[u8], compression: Compression) -> anyhow::Result<Vec<u8>> {
    unpack_one(bytes, compression, MAX_FILE).map(|(unpacked, _)| unpacked)
}

/// Decompresses the first member of `bytes`, up to `limit` bytes; the result, and how long the member was.
///
/// # Errors
/// As [`unpack`].
pub fn unpack_one(bytes: &[u8], compression: Compression, limit: usize) -> anyhow::Result<(Vec<u8>, usize)> {
    let mut rest = bytes;
    let mut unpacked = Vec::new();
    read_member(&mut rest, compression, limit as u64 + 1, &mut unpacked)
        .with_context(|| format!("cannot unpack {compression} data"))?;
    if unpacked.len() > limit {
        bail!("{compression} data comes to more than {} MiB", limit >> 20);
    }
    Ok((unpacked, bytes.len() - rest.len()))
}

fn read_member(
    input: &mut dyn BufRead,
    compression: Compression,
    most: u64,
    out: &mut Vec<u8>,
) -> std::io::Result<usize> {
    match compression {
        Compression::Gzip => flate2::bufread::GzDecoder::new(input).take(most).read_to_end(out),
        Compression::Xz => xz2::bufread::XzDecoder::new(input).take(most).read_to_end(out),
        Compression::Zstd => {
            zstd::stream::read::Decoder::with_buffer(input)?.single_frame().take(most).read_to_end(out)
        }
    }
}
