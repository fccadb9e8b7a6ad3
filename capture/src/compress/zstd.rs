//! zstd frames at level 1, one per page, from one context.

use zstd::zstd_safe::CCtx;

use super::Codec;

const LEVEL: i32 = 1;

pub(super) struct Zstd(Option<CCtx<'static>>);

impl Zstd {
    pub(super) fn new() -> Self {
        Zstd(CCtx::try_create())
    }
}

impl Codec for Zstd {
    fn pack(&mut self, page: &[u8], out: &mut [u8]) -> Option<usize> {
        self.0.as_mut()?.compress(out, page, LEVEL).ok().filter(|len| *len < page.len())
    }
}
