//! File cache: pages on the LRU lists, or in the swap cache, that are not anonymous. Level 2 leaves out those without
//! private data, level 4 all of them.
//! May surprise: since Linux 4.10 (6326fec1122c, "mm: Use owner_priv bit for PageSwapCache, valid when PageSwapBacked")
//! the swap-cache flag means something else on pages that are not swap-backed, so where `PG_swapbacked` is exported
//! both are needed.

use crate::memmap::PageView;
use crate::units::DumpLevel;
use crate::vmcoreinfo::Facts;

use super::Why;
use super::user::Anon;

#[derive(Clone, Copy, Debug)]
pub(super) struct Cache {
    flags_at: usize,
    lru: u64,
    swap: u64,
    private: Option<u64>,
    anon: Anon,
    plain: bool,
    all: bool,
}

impl Cache {
    /// Level 2 cannot be done without `PG_private`, and neither without knowing what is anonymous.
    pub(super) fn new(facts: &Facts, level: DumpLevel) -> Option<Cache> {
        let private = facts.flag("PG_private");
        let all = level.has(DumpLevel::CACHE_PRIVATE);
        let plain = level.has(DumpLevel::CACHE) && private.is_some();
        let cache = Cache {
            flags_at: facts.offset("page.flags")?,
            lru: facts.flag("PG_lru")?,
            swap: facts.flag("PG_swapcache").map_or(0, |swap| swap | facts.flag("PG_swapbacked").unwrap_or(0)),
            private,
            anon: Anon::new(facts)?,
            plain,
            all,
        };
        (plain || all).then_some(cache)
    }

    #[inline]
    pub(super) fn why(&self, page: &PageView<'_>, slab: impl Fn() -> bool) -> Option<Why> {
        let flags = page.u64(self.flags_at)?;
        let swap = self.swap != 0 && flags & self.swap == self.swap;
        if flags & self.lru == 0 && !swap {
            return None;
        }
        let private = self.private.is_some_and(|mask| flags & mask != 0);
        let asked = self.all || (self.plain && !private);
        (asked && !self.anon.is(page, slab)).then_some(if private { Why::PrivateCache } else { Why::Cache })
    }
}
