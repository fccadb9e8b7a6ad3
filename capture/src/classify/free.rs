//! Free pages: blocks of the buddy allocator, known by the page type buddy, their order in `private`; and memory a
//! guest has not accepted yet (page type exported since 6.16, "mm: Add PAGE_UNACCEPTED to vmcoreinfo"), which comes in
//! blocks of the largest order.
//! May surprise: pages on per-CPU lists are free too but not in the buddy allocator, and are kept. A block is taken
//! only if its order is possible and its page frame fits it: a damaged struct page must not take its neighbours along.

use crate::memmap::PageView;
use crate::vmcoreinfo::Facts;

use super::compound::aligned;
use super::page_type::PageType;
use super::{Verdict, Why};

#[derive(Clone, Copy, Debug)]
pub(super) struct Free {
    buddy: PageType,
    unaccepted: Option<PageType>,
    order_at: usize,
    orders: u64,
}

impl Free {
    pub(super) fn new(facts: &Facts) -> Option<Free> {
        Some(Free {
            buddy: PageType::new(facts, "PAGE_BUDDY_MAPCOUNT_VALUE")?,
            unaccepted: PageType::new(facts, "PAGE_UNACCEPTED_MAPCOUNT_VALUE"),
            order_at: facts.offset("page.private")?,
            orders: facts.length("zone.free_area").filter(|n| (1..=32).contains(n))?,
        })
    }

    #[inline]
    pub(super) fn verdict(&self, page: &PageView<'_>, slab: impl Fn() -> bool) -> Option<Verdict> {
        let (order, why) = if self.buddy.is(page) && !slab() {
            (page.u64(self.order_at)?, Why::Free)
        } else if self.unaccepted.is_some_and(|kind| kind.is(page)) {
            (self.orders - 1, Why::Unaccepted)
        } else {
            return None;
        };
        let order = u32::try_from(order).ok().filter(|order| u64::from(*order) < self.orders && aligned(page, *order));
        Some(order.map_or(Verdict::KeepDamaged, |order| Verdict::Drop { why, order }))
    }
}
