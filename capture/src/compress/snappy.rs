//! Raw snappy blocks: no stream format around them, and no checksum.

use snap::raw::{Encoder, max_compress_len};

use super::Codec;

pub(super) struct Snappy(Encoder);

impl Snappy {
    pub(super) fn new() -> Self {
        Snappy(Encoder::new())
    }

    /// The library refuses to begin with less room than the worst page takes.
    pub(super) fn room(page: usize) -> usize {
        max_compress_len(page)
    }
}

impl Codec for Snappy {
    fn pack(&mut self, page: &[u8], out: &mut [u8]) -> Option<usize> {
        self.0.compress(page, out).ok().filter(|len| *len < page.len())
    }
}
