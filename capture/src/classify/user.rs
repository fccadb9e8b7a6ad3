//! User memory: anonymous pages, known by bit 0 of `mapping` (`PAGE_MAPPING_ANON`; KSM pages have it too), and hugetlb
//! pages.
//! May surprise: hugetlb pages have been known by three signs. Newest first: a page type (6.9, d99e3140a4d3, "mm: turn
//! folio_test_hugetlb into a PageType"); a flag in the second struct page (6.6, 9c5ccf2db04b, "mm: remove HUGETLB_PAGE_DTOR");
//! a destructor there (a number from 4.4 to 6.5, before that the address of `free_huge_page`).

use crate::memmap::PageView;
use crate::vmcoreinfo::Facts;

use super::compound::{Compound, Field, Fields};
use super::page_type::PageType;

#[derive(Clone, Copy, Debug)]
pub(super) struct Anon {
    mapping_at: usize,
}

impl Anon {
    pub(super) fn new(facts: &Facts) -> Option<Anon> {
        Some(Anon { mapping_at: facts.offset("page.mapping")? })
    }

    /// A slab page keeps something else where `mapping` is.
    #[inline]
    pub(super) fn is(&self, page: &PageView<'_>, slab: impl Fn() -> bool) -> bool {
        page.u64(self.mapping_at).is_some_and(|mapping| mapping & 1 != 0) && !slab()
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Hugetlb {
    Type(PageType),
    SecondFlag { offset: usize, mask: u64 },
    Destructor { field: Field, value: u64 },
    Unknown,
}

impl Hugetlb {
    pub(super) fn new(facts: &Facts) -> Hugetlb {
        if let Some(kind) = PageType::new(facts, "PAGE_HUGETLB_MAPCOUNT_VALUE") {
            return Hugetlb::Type(kind);
        }
        if let Some((offset, mask)) = facts.offset("page.flags").zip(facts.flag("PG_hugetlb")) {
            return Hugetlb::SecondFlag { offset, mask };
        }
        let number = facts.number("HUGETLB_PAGE_DTOR").map(i64::cast_unsigned);
        match (Fields::new(facts).dtor, number, facts.symbol("free_huge_page")) {
            (Some(field), Some(value), _) => Hugetlb::Destructor { field, value },
            (Some(field @ Field::U64(_)), None, Some(address)) => Hugetlb::Destructor { field, value: address.0 },
            _ => Hugetlb::Unknown,
        }
    }

    #[inline]
    pub(super) fn is(&self, page: &PageView<'_>, compound: &Compound) -> bool {
        match self {
            Hugetlb::Type(kind) => kind.is(page),
            Hugetlb::SecondFlag { offset, mask } => {
                compound.is_head(page) && page.next_u64(*offset).is_some_and(|flags| flags & mask != 0)
            }
            Hugetlb::Destructor { field, value } => compound.is_head(page) && field.read(page) == Some(*value),
            Hugetlb::Unknown => false,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct User {
    anon: Anon,
}

impl User {
    pub(super) fn new(facts: &Facts) -> Option<User> {
        Some(User { anon: Anon::new(facts)? })
    }

    #[inline]
    pub(super) fn is(&self, page: &PageView<'_>, slab: impl Fn() -> bool, hugetlb: impl Fn() -> bool) -> bool {
        self.anon.is(page, slab) || hugetlb()
    }
}
