//! Decompression as a kernel does it of images, and of what an image holds: in memory, and bounded.
//!
//! In: bytes that begin with a compressed member. Out: a reader of what is in it, which stops where the member does.
//! May surprise: no decoder takes a window that no kernel would; an image that needs more could not be booted either. The
//! builder reads images by it, kpatch the kernel's own image; PID 1 has no room for it and calls nothing of it.

mod blocks;
mod codec;
mod lz4;
mod lzop;

pub use codec::Codec;
pub use lz4::Lz4;

use std::io::{self, BufRead, Read};
use xz2::stream::Stream;

/// What a decoder may take for its window: 128 MiB, the kernel's own limit for zstd.
const MAX_WINDOW_LOG: u32 = 27;

/// The same for xz and lzma, with what their tables take.
const MAX_XZ_MEMORY: u64 = (1 << MAX_WINDOW_LOG) + (1 << 20);

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
