//! Which pages are left out, and why. In: a struct page and the dump level. Out: a [`Verdict`].
//! May surprise: nothing here reads a file or knows a kernel version. What the dump does not export is not known, and
//! what is not known is kept.
//!
//! The order of the questions, the first answer wins:
//!
//! ```text
//!  poisoned tail?   hwpoison.rs   any level   the page alone
//!  tail?            compound.rs               keep: its head speaks for it
//!  buddy?           free.rs       level 16    1 << private pages
//!  unaccepted?      free.rs       level 16    the largest block
//!  cache, plain?    cache.rs      level 2     the compound page
//!  cache?           cache.rs      level 4     the compound page
//!  anon, hugetlb?   user.rs       level 8     the compound page
//!  poisoned?        hwpoison.rs   any level   the compound page
//!  offline?         offline.rs    any level   the compound page
//!  else                                       keep
//! ```
//!
//! Zero pages are not asked for here: they are known by their content, when it is written.

mod cache;
mod compound;
mod free;
mod hwpoison;
mod offline;
mod page_type;
mod slab;
mod user;

use serde::Serialize;

use crate::memmap::PageView;
use crate::units::DumpLevel;
use crate::vmcoreinfo::Facts;

use cache::Cache;
use compound::Compound;
use free::Free;
use hwpoison::HwPoison;
use offline::Offline;
use slab::Slab;
use user::{Hugetlb, User};

/// Why a page is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// File cache without private data.
    Cache,
    /// File cache with private data (buffers).
    PrivateCache,
    /// Memory of user processes.
    User,
    /// Free memory.
    Free,
    /// Memory the hardware has given up.
    HwPoison,
    /// Memory that is not there: ballooned or unplugged.
    Offline,
    /// Memory that a guest has not accepted from its host; counted as free.
    Unaccepted,
}

impl Why {
    /// Whether such a page is better not even read: it may stop the machine, or take its time.
    pub fn shuns(self) -> bool {
        matches!(self, Why::HwPoison | Why::Offline | Why::Unaccepted)
    }
}

/// The answer for one struct page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Write it.
    Keep,
    /// Write it; its struct page contradicts itself.
    KeepDamaged,
    /// Leave out `1 << order` pages from here on.
    Drop {
        /// The reason.
        why: Why,
        /// log2 of the number of pages, below 64; the page frame is a multiple of it.
        order: u32,
    },
}

/// Pages left out, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// File cache without private data.
    pub cache: u64,
    /// File cache with private data.
    pub private_cache: u64,
    /// User memory.
    pub user: u64,
    /// Free memory.
    pub free: u64,
    /// Poisoned memory.
    pub hwpoison: u64,
    /// Ballooned or unplugged memory.
    pub offline: u64,
}

impl Dropped {
    /// Counts `pages` of one kind.
    pub fn add(&mut self, why: Why, pages: u64) {
        let count = match why {
            Why::Cache => &mut self.cache,
            Why::PrivateCache => &mut self.private_cache,
            Why::User => &mut self.user,
            Why::Free | Why::Unaccepted => &mut self.free,
            Why::HwPoison => &mut self.hwpoison,
            Why::Offline => &mut self.offline,
        };
        *count += pages;
    }

    /// Adds another worker's counts.
    pub fn merge(&mut self, other: &Dropped) {
        self.cache += other.cache;
        self.private_cache += other.private_cache;
        self.user += other.user;
        self.free += other.free;
        self.hwpoison += other.hwpoison;
        self.offline += other.offline;
    }

    /// All kinds together.
    pub fn total(&self) -> u64 {
        self.cache + self.private_cache + self.user + self.free + self.hwpoison + self.offline
    }
}

/// The signs by which this kernel's pages are known, and the level asked for.
#[derive(Debug, Clone)]
pub struct Classifier {
    compound: Compound,
    slab: Slab,
    free: Option<Free>,
    cache: Option<Cache>,
    user: Option<User>,
    hugetlb: Hugetlb,
    hwpoison: Option<HwPoison>,
    offline: Option<Offline>,
}

impl Classifier {
    /// Learns the signs from `facts`. Where `level` asks for something that cannot be told apart, `problems` says so.
    pub fn new(facts: &Facts, level: DumpLevel, problems: &mut Vec<String>) -> Classifier {
        let mut want = |asked: bool, found: bool, what: &str, key: &str| {
            if asked && !found {
                problems.push(format!("{what} cannot be told apart and are kept: no {key} in vmcoreinfo"));
            }
        };
        let free = Free::new(facts);
        want(level.has(DumpLevel::FREE), free.is_some(), "free pages", "PAGE_BUDDY_MAPCOUNT_VALUE");
        let cache = Cache::new(facts, level);
        let any_cache = level.has(DumpLevel::CACHE) || level.has(DumpLevel::CACHE_PRIVATE);
        want(any_cache, cache.is_some(), "cache pages", "NUMBER(PG_lru), NUMBER(PG_private) or OFFSET(page.mapping)");
        let user = User::new(facts);
        want(level.has(DumpLevel::USER), user.is_some(), "user pages", "OFFSET(page.mapping)");
        Classifier {
            compound: Compound::new(facts),
            slab: Slab::new(facts),
            free: free.filter(|_| level.has(DumpLevel::FREE)),
            cache: cache.filter(|_| any_cache),
            user: user.filter(|_| level.has(DumpLevel::USER)),
            hugetlb: Hugetlb::new(facts),
            hwpoison: HwPoison::new(facts),
            offline: Offline::new(facts),
        }
    }

    /// Whether any page can be left out at all, so that struct pages are worth looking at.
    pub fn asks_anything(&self) -> bool {
        self.free.is_some()
            || self.cache.is_some()
            || self.user.is_some()
            || self.hwpoison.is_some()
            || self.offline.is_some()
    }

    /// log2 of the pages that the slab page `page` is the first of; `None` if it is none.
    pub fn slab(&self, page: &PageView<'_>) -> Option<u32> {
        (!self.compound.is_tail(page) && self.slab.is(page)).then(|| self.compound.order(page, || false))
    }

    /// Whether `page` is written.
    #[inline]
    pub fn verdict(&self, page: &PageView<'_>) -> Verdict {
        let poisoned = self.hwpoison.as_ref().is_some_and(|h| h.is(page));
        if self.compound.is_tail(page) {
            return if poisoned { Verdict::Drop { why: Why::HwPoison, order: 0 } } else { Verdict::Keep };
        }
        let slab = || self.slab.is(page);
        let hugetlb = || self.hugetlb.is(page, &self.compound);
        if let Some(free) = &self.free
            && let Some(verdict) = free.verdict(page, slab)
        {
            return verdict;
        }
        let why = self
            .cache
            .as_ref()
            .and_then(|cache| cache.why(page, slab))
            .or_else(|| self.user.as_ref().filter(|user| user.is(page, slab, hugetlb)).map(|_| Why::User))
            .or_else(|| poisoned.then_some(Why::HwPoison))
            .or_else(|| self.offline.as_ref().filter(|offline| offline.is(page, slab)).map(|_| Why::Offline));
        match why {
            Some(why) => Verdict::Drop { why, order: self.compound.order(page, hugetlb) },
            None => Verdict::Keep,
        }
    }
}
