//! Decompression of module files and of images, in memory and bounded.
//!
//! In: bytes that begin with a compressed member. Out: a reader of what is in it, which stops where the member does.
//! May surprise: no decoder takes a window that no kernel would; an image that needs more could not be booted either.

mod blocks;
mod codec;
mod lz4;
mod lzop;

pub use codec::Codec;
pub(crate) use lz4::Lz4;

use crate::host::kernel::Compression;
use anyhow::{Context, bail};
use std::io::{self, BufRead, Read};
use xz2::stream::Stream;

/// No module and no firmware is larger.
const MAX_FILE: usize = 256 << 20;

/// What a decoder may take for its window: 128 MiB, the kernel's own limit for zstd.
const MAX_WINDOW_LOG: u32 = 27;

/// The same for xz and lzma, with what their tables take.
const MAX_XZ_MEMORY: u64 = (1 << MAX_WINDOW_LOG) + (1 << 20);

/// Decompresses a whole file.
///
/// # Errors
/// The data is damaged or comes to an unreasonable size.
pub fn unpack(bytes: &[u8], compression: Compression) -> anyhow::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    let mut rest = bytes;
    member(compression.into(), &mut rest)
        .and_then(|reader| reader.take(MAX_FILE as u64 + 1).read_to_end(&mut unpacked))
        .with_context(|| format!("cannot unpack {compression} data"))?;
    if unpacked.len() > MAX_FILE {
        bail!("{compression} data comes to more than {} MiB", MAX_FILE >> 20);
    }
    Ok(unpacked)
}

/// Reads what is in the compressed member that `input` begins with. Once all of it has been read, `input` stands behind
/// the member.
///
/// # Errors
/// The member does not begin as it should; or, in reading, it is damaged or needs too large a window.
pub fn member<'a>(codec: Codec, input: &'a mut dyn BufRead) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match codec {
        Codec::Gzip => Box::new(flate2::bufread::GzDecoder::new(input)),
        Codec::Bzip2 => Box::new(bzip2::bufread::BzDecoder::new(input)),
        Codec::Lzma => Box::new(xz2::bufread::XzDecoder::new_stream(input, Stream::new_lzma_decoder(MAX_XZ_MEMORY)?)),
        Codec::Xz => {
            Box::new(xz2::bufread::XzDecoder::new_stream(input, Stream::new_stream_decoder(MAX_XZ_MEMORY, 0)?))
        }
        Codec::Lzo => Box::new(lzop::open(input)?),
        Codec::Lz4 => Box::new(lz4::open(input)?),
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?.single_frame();
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            Box::new(decoder)
        }
    })
}
