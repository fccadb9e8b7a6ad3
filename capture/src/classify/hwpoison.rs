//! Poisoned memory: reading it can bring down the capture kernel, so it is left out at every level. Known by the flag
//! `PG_hwpoison`, exported where the kernel has it.
//! May surprise: a poisoned tail of a compound page is left out alone; makedumpfile 1.7.8 looks at heads only.

use crate::memmap::PageView;
use crate::vmcoreinfo::Facts;

#[derive(Clone, Copy, Debug)]
pub(super) struct HwPoison {
    flags_at: usize,
    mask: u64,
}

impl HwPoison {
    pub(super) fn new(facts: &Facts) -> Option<HwPoison> {
        Some(HwPoison { flags_at: facts.offset("page.flags")?, mask: facts.flag("PG_hwpoison")? })
    }

    #[inline]
    pub(super) fn is(&self, page: &PageView<'_>) -> bool {
        page.u64(self.flags_at).is_some_and(|flags| flags & self.mask != 0)
    }
}
