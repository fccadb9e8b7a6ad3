//! Page types: the kinds of page that `_mapcount` names when nothing maps the page. In: an exported value. Out: a
//! comparison.
//! May surprise: three encodings. Up to 4.17 one magic number per kind (buddy: -128); from 4.18 inverted bits
//! (6e292b9be7f4, "mm: split page_type out from _mapcount"), of which one page has one; from 6.12 the top byte alone
//! (4ffca5a96678, "mm: support only one page_type per page"), and the low 24 bits may carry something else.

use crate::memmap::PageView;
use crate::vmcoreinfo::Facts;

/// One kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageType {
    offset: usize,
    value: u32,
    mask: u32,
}

impl PageType {
    /// The kind whose value is exported as `NUMBER(key)`; printed as signed, or as unsigned by some.
    pub(super) fn new(facts: &Facts, key: &str) -> Option<PageType> {
        let offset = facts.offset("page._mapcount")?;
        let number = facts.number(key)?;
        let value = i32::try_from(number).map(i32::cast_unsigned).or_else(|_| u32::try_from(number)).ok()?;
        let mask = if value & 0x00ff_ffff == 0 { 0xff00_0000 } else { u32::MAX };
        // A value of zero would match pages that are mapped once.
        (value != 0).then_some(PageType { offset, value, mask })
    }

    #[inline]
    pub(super) fn is(&self, page: &PageView<'_>) -> bool {
        page.u32(self.offset).is_some_and(|mapcount| mapcount & self.mask == self.value)
    }
}
