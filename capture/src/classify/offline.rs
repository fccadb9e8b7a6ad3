//! Memory that is logically not there: ballooned (virtio, Hyper-V, VMware) or unplugged (virtio-mem). Reading it may
//! fail or make the host give it back, so it is left out at every level. A page type since 5.1 ("mm: convert
//! PG_balloon to PG_offline").

use crate::memmap::PageView;
use crate::vmcoreinfo::Facts;

use super::page_type::PageType;

#[derive(Clone, Copy, Debug)]
pub(super) struct Offline {
    kind: PageType,
}

impl Offline {
    pub(super) fn new(facts: &Facts) -> Option<Offline> {
        Some(Offline { kind: PageType::new(facts, "PAGE_OFFLINE_MAPCOUNT_VALUE")? })
    }

    #[inline]
    pub(super) fn is(&self, page: &PageView<'_>, slab: impl Fn() -> bool) -> bool {
        self.kind.is(page) && !slab()
    }
}
