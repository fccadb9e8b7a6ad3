//! zstd frames, one per page, from one context.

use zstd::zstd_safe::CCtx;

use super::Codec;

/// As makedumpfile's.
const LEVEL: i32 = 1;

pub(super) struct Zstd {
    context: Option<CCtx<'static>>,
    level: i32,
}

impl Zstd {
    pub(super) fn new(level: Option<i32>) -> Self {
        Zstd { context: CCtx::try_create(), level: level.unwrap_or(LEVEL) }
    }
}

impl Codec for Zstd {
    fn pack(&mut self, page: &[u8], out: &mut [u8]) -> Option<usize> {
        self.context.as_mut()?.compress(out, page, self.level).ok().filter(|len| *len < page.len())
    }
}
