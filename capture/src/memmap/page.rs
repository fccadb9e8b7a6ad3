//! One struct page, looked at in place. In: the bytes of it, and of the one after it. Out: its fields by offset.
//! May surprise: nothing is copied or decoded ahead; a field beyond the end reads as `None`.

use crate::units::{Pfn, le16, le32, le64};

/// A struct page and its neighbour: the second struct page of a compound page says what the whole is.
#[derive(Clone, Copy, Debug)]
pub struct PageView<'a> {
    /// Its page frame.
    pub pfn: Pfn,
    /// Its bytes.
    pub this: &'a [u8],
    /// The bytes of the next struct page, where they could be had.
    pub next: Option<&'a [u8]>,
}

impl PageView<'_> {
    /// The 8 bytes at `offset`.
    #[inline]
    pub fn u64(&self, offset: usize) -> Option<u64> {
        le64(self.this, offset)
    }

    /// The 4 bytes at `offset`.
    #[inline]
    pub fn u32(&self, offset: usize) -> Option<u32> {
        le32(self.this, offset)
    }

    /// The byte at `offset` of the next struct page.
    pub fn next_u8(&self, offset: usize) -> Option<u8> {
        self.next?.get(offset).copied()
    }

    /// The 2 bytes at `offset` of the next struct page.
    pub fn next_u16(&self, offset: usize) -> Option<u16> {
        le16(self.next?, offset)
    }

    /// The 8 bytes at `offset` of the next struct page.
    pub fn next_u64(&self, offset: usize) -> Option<u64> {
        le64(self.next?, offset)
    }
}
