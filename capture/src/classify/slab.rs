//! Slab pages, which overlay their own fields on struct page, so that these must not be read as anything else.
//! Linux 6.10 turned the flag `PG_slab` into a page type (46df8e73a4a3, "mm: free up PG_slab"), and exports one or the
//! other.
//! May surprise: makedumpfile 1.7.8 tests bit 7 when `PG_slab` is not exported, which since 6.10 is `PG_waiters`.

use crate::memmap::PageView;
use crate::vmcoreinfo::Facts;

use super::page_type::PageType;

#[derive(Clone, Copy, Debug)]
pub(super) enum Slab {
    Type(PageType),
    Flag { offset: usize, mask: u64 },
    Unknown,
}

impl Slab {
    pub(super) fn new(facts: &Facts) -> Slab {
        if let Some(kind) = PageType::new(facts, "PAGE_SLAB_MAPCOUNT_VALUE") {
            return Slab::Type(kind);
        }
        match (facts.offset("page.flags"), facts.flag("PG_slab")) {
            (Some(offset), Some(mask)) => Slab::Flag { offset, mask },
            _ => Slab::Unknown,
        }
    }

    #[inline]
    pub(super) fn is(&self, page: &PageView<'_>) -> bool {
        match self {
            Slab::Type(kind) => kind.is(page),
            Slab::Flag { offset, mask } => page.u64(*offset).is_some_and(|flags| flags & mask != 0),
            Slab::Unknown => false,
        }
    }
}
