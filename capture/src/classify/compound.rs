//! Compound pages: a head and its tails. In: `compound_head` (Linux 4.4, 1d798ca3f164, "mm: make compound_head()
//! robust"; `compound_info` from 7.1, of which bit 0 still means tail), `PG_head_mask`, and where the order is.
//! May surprise: the order lies in the second struct page. 6.6 moved it into the low byte of that one's flags
//! (ebc1baf5c9b4, "mm: free up a word in the first tail page") and no longer exports an offset for it.
//! A tail of an optimised hugetlb page may look like a head; its page frame then does not fit its order, which is
//! therefore taken as 0. So is an order that only hugetlb pages can have, on any other page: the page allocator has none
//! that large, and a damaged struct page must not take its neighbours along.

use crate::memmap::PageView;
use crate::vmcoreinfo::Facts;

/// Where the second struct page keeps a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    U8(usize),
    U16(usize),
    U64(usize),
}

impl Field {
    pub(super) fn read(self, page: &PageView<'_>) -> Option<u64> {
        match self {
            Field::U8(at) => page.next_u8(at).map(u64::from),
            Field::U16(at) => page.next_u16(at).map(u64::from),
            Field::U64(at) => page.next_u64(at),
        }
    }
}

/// Destructor and order, in the second struct page.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fields {
    pub(super) dtor: Option<Field>,
    pub(super) order: Option<Field>,
}

impl Fields {
    pub(super) fn new(facts: &Facts) -> Fields {
        // 6.3 to 6.5: members of struct folio, counted from its start, so that the first struct page is part of the way.
        let folio = |name: &str| {
            let (offset, size) = (facts.offset(name)?, facts.size("page")?);
            Some(Field::U8(offset.checked_sub(size).unwrap_or(offset)))
        };
        if let (dtor, Some(order)) = (folio("folio._folio_dtor"), folio("folio._folio_order")) {
            return Fields { dtor, order: Some(order) };
        }
        if let Some(order) = facts.offset("page.compound_order") {
            // Neighbours, so that their distance is their width: u8 from 4.16 on, u16 from 4.4, before that words.
            let dtor = facts.offset("page.compound_dtor");
            return match dtor.map(|dtor| (dtor, order.abs_diff(dtor))) {
                Some((dtor, 2)) => Fields { dtor: Some(Field::U16(dtor)), order: Some(Field::U16(order)) },
                Some((dtor, 8)) => Fields { dtor: Some(Field::U64(dtor)), order: Some(Field::U64(order)) },
                Some((dtor, _)) => Fields { dtor: Some(Field::U8(dtor)), order: Some(Field::U8(order)) },
                None => Fields { dtor: None, order: Some(Field::U8(order)) },
            };
        }
        // A kernel that has compound_head but no offset for the order is 6.6 or newer.
        let modern = facts.offset("page.compound_head").or(facts.offset("page.compound_info")).is_some();
        let order = facts.offset("page.flags").filter(|_| modern).map(Field::U8);
        Fields { dtor: None, order }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Compound {
    tail: Option<usize>,
    head: Option<(usize, u64)>,
    order: Option<Field>,
    /// How many orders the page allocator has.
    orders: Option<u64>,
}

impl Compound {
    pub(super) fn new(facts: &Facts) -> Compound {
        let mask = facts.number("PG_head_mask").map(i64::cast_unsigned).filter(|mask| *mask != 0);
        Compound {
            tail: facts.offset("page.compound_info").or_else(|| facts.offset("page.compound_head")),
            head: facts.offset("page.flags").zip(mask),
            order: Fields::new(facts).order,
            orders: facts.length("zone.free_area").filter(|orders| (1..=32).contains(orders)),
        }
    }

    #[inline]
    pub(super) fn is_tail(&self, page: &PageView<'_>) -> bool {
        self.tail.and_then(|offset| page.u64(offset)).is_some_and(|word| word & 1 != 0)
    }

    #[inline]
    pub(super) fn is_head(&self, page: &PageView<'_>) -> bool {
        self.head.is_some_and(|(offset, mask)| page.u64(offset).is_some_and(|flags| flags & mask != 0))
    }

    /// log2 of the pages that share the verdict of `page`; 0 where it is no head, or the order makes no sense.
    pub(super) fn order(&self, page: &PageView<'_>, hugetlb: impl Fn() -> bool) -> u32 {
        if !self.is_head(page) {
            return 0;
        }
        let order = self.order.and_then(|field| field.read(page)).and_then(|order| u32::try_from(order).ok());
        let possible = |order: u32| self.orders.is_none_or(|orders| u64::from(order) < orders) || hugetlb();
        order.filter(|order| aligned(page, *order) && possible(*order)).unwrap_or(0)
    }
}

/// Whether a block of `1 << order` pages can begin at `page`: every such block is aligned to its size.
pub(super) fn aligned(page: &PageView<'_>, order: u32) -> bool {
    1u64.checked_shl(order).is_some_and(|pages| page.pfn.0.is_multiple_of(pages))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Pfn;

    #[test]
    fn an_order_that_only_hugetlb_pages_have_is_taken_from_no_other_page() {
        let text = b"OFFSET(page.flags)=0\nOFFSET(page.compound_head)=8\nNUMBER(PG_head_mask)=65536\nLENGTH(zone.free_area)=11";
        let compound = Compound::new(&Facts::parse(text));
        let head = 65536u64.to_le_bytes();
        for (order, hugetlb, found) in [(10, false, 10), (11, false, 0), (18, false, 0), (18, true, 18), (21, true, 0)]
        {
            let page = PageView { pfn: Pfn(1 << 20), this: &head, next: Some(&[order]) };
            assert_eq!(compound.order(&page, || hugetlb), found, "{order}, {hugetlb}");
        }
    }
}
