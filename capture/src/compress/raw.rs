//! No compression. In: a page. Out: nothing smaller, ever.

use super::Codec;

#[derive(Debug)]
pub(super) struct Raw;

impl Codec for Raw {
    fn pack(&mut self, _page: &[u8], _out: &mut [u8]) -> Option<usize> {
        None
    }
}
