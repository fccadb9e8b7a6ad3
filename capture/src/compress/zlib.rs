//! zlib streams, made by libdeflate, which is some three times as fast as zlib at the same level.
//! May surprise: it is given less room than a page, so that it stops as soon as nothing can be saved.

use libdeflater::{CompressionLvl, Compressor};

use super::Codec;

pub(super) struct Zlib(Compressor);

impl Zlib {
    pub(super) fn new() -> Self {
        Zlib(Compressor::new(CompressionLvl::new(1).unwrap_or_else(|_| CompressionLvl::fastest())))
    }
}

impl Codec for Zlib {
    fn pack(&mut self, page: &[u8], out: &mut [u8]) -> Option<usize> {
        self.0.zlib_compress(page, out.get_mut(..page.len() - 1)?).ok()
    }
}
