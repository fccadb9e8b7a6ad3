//! Decompression of module files and of images, in memory and bounded. The decoders are [`kdump_hooks::unpack`].

pub(crate) use kdump_hooks::unpack::Lz4;
pub use kdump_hooks::unpack::{Codec, member};

use crate::host::kernel::Compression;
use anyhow::{Context, bail};
use std::io::Read;

/// No module and no firmware is larger.
const MAX_FILE: usize = 256 << 20;

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

impl From<Compression> for Codec {
    fn from(compression: Compression) -> Codec {
        match compression {
            Compression::Gzip => Codec::Gzip,
            Compression::Xz => Codec::Xz,
            Compression::Zstd => Codec::Zstd,
        }
    }
}
