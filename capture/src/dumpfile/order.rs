//! The order of use: what a page is good for, of every page of a window. In: ranges of pages and their use. Out: the kept
//! pages of one use after the other.
//! May surprise: four bitmaps beside bitmap 2, a bit of the use's number in each. All ones is [`Use::Kernel`], which a
//! page is until something else is said of it, and the last word counts.

use std::sync::atomic::Ordering;

use crate::units::Pfn;
use crate::vmcore::segments::PageRun;

use super::bitmap::{Cursor, Kept};

/// What a page is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Use {
    /// Without it a dump does not open, or shows no stacks: page tables, and the data that they map: of the kernel image
    /// and its modules, and stacks.
    Needed,
    /// What was set aside at boot: per-CPU data, nodes, sections.
    Boot,
    /// The kernel's objects, tasks among them.
    Slab,
    /// Struct pages.
    Memmap,
    /// File cache with private data.
    PrivateCache,
    /// File cache.
    Cache,
    /// Memory of user processes.
    User,
    /// Free memory, and what is not to be read.
    Free,
    /// Code, of which crash(8) wants to see some; `--zero_excluded` makes it do without.
    Code,
    /// All else that the kernel has.
    Kernel = 15,
}

impl Use {
    /// All, the most useful first.
    pub const ORDER: [Use; 10] = [
        Use::Needed,
        Use::Boot,
        Use::Slab,
        Use::Code,
        Use::Memmap,
        Use::Kernel,
        Use::PrivateCache,
        Use::Cache,
        Use::User,
        Use::Free,
    ];

    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Use::Needed => "what is needed to open it",
            Use::Boot => "what was set aside at boot",
            Use::Slab => "the kernel's objects",
            Use::Memmap => "struct pages",
            Use::Code => "the kernel's code",
            Use::Kernel => "the kernel's other memory",
            Use::PrivateCache => "file cache with private data",
            Use::Cache => "file cache",
            Use::User => "user memory",
            Use::Free => "free memory",
        }
    }
}

const BITS: usize = 4;

/// The use of every page of a window.
#[derive(Debug)]
pub struct Order {
    planes: [Kept; BITS],
}

impl Order {
    /// How many bitmaps there are, bitmap 2 among them.
    pub const BITMAPS: u64 = 1 + BITS as u64;

    /// Of the pages of `runs` in `window`, as [`Kept::within`] has them. `None` if there is no memory for it.
    pub fn within(runs: &[PageRun], window: PageRun) -> Option<Order> {
        let plane = || Kept::within(runs, window);
        Some(Order { planes: [plane()?, plane()?, plane()?, plane()?] })
    }

    /// Bit `plane` of the use's number, in all places.
    fn bit(use_: Use, plane: usize) -> u64 {
        if use_ as u8 >> plane & 1 == 1 { u64::MAX } else { 0 }
    }

    /// `pages` pages from `first` on are good for `use_`.
    pub fn set(&self, first: Pfn, pages: u64, use_: Use) {
        self.change(first, pages, use_, |_| u64::MAX);
    }

    /// The same for those that have been good for one of `before`.
    pub fn set_over(&self, first: Pfn, pages: u64, use_: Use, before: &[Use]) {
        self.change(first, pages, use_, |index| before.iter().fold(0, |all, one| all | self.of(index, *one)));
    }

    fn change(&self, first: Pfn, pages: u64, use_: Use, which: impl Fn(usize) -> u64) {
        self.planes[0].words_of(first, pages, &mut |index, bits| {
            let bits = bits & which(index);
            for (number, plane) in self.planes.iter().enumerate() {
                let Some(word) = plane.word_at(index) else { continue };
                match Order::bit(use_, number) {
                    0 => word.fetch_and(!bits, Ordering::Relaxed),
                    _ => word.fetch_or(bits, Ordering::Relaxed),
                };
            }
        });
    }

    /// Which pages of word `index` are good for `use_`.
    fn of(&self, index: usize, use_: Use) -> u64 {
        let planes = self.planes.iter().enumerate();
        planes.fold(u64::MAX, |all, (number, plane)| {
            let word = plane.word_at(index).map_or(0, |word| word.load(Ordering::Relaxed));
            all & !(word ^ Order::bit(use_, number))
        })
    }

    /// The next pages of `kept` that are good for `use_`, as [`Kept::take`] takes them. `kept` is of the same window.
    pub fn take(&self, use_: Use, kept: &Kept, cursor: &mut Cursor, room: usize, out: &mut Vec<Pfn>) {
        kept.take_of(cursor, room, out, &|index| self.of(index, use_));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn each_page_is_taken_for_the_use_that_was_named_last(
            said in proptest::collection::vec((0u64..400, 0u64..200, 0usize..10, proptest::bool::ANY), 0..12),
            room in 1usize..70,
        ) {
            let runs = [PageRun { start: Pfn(3), end: Pfn(150) }, PageRun { start: Pfn(190), end: Pfn(330) }];
            let window = PageRun { start: Pfn(0), end: Pfn(320) };
            let (kept, order) = (Kept::within(&runs, window).unwrap(), Order::within(&runs, window).unwrap());
            kept.drop_range(Pfn(60), 9);
            let pages = (3..150).chain(190..320).filter(|pfn| !(60..69).contains(pfn));
            let mut uses: BTreeMap<u64, Use> = pages.map(|pfn| (pfn, Use::Kernel)).collect();
            for (first, pages, number, only_unknown) in said {
                let use_ = Use::ORDER[number];
                if only_unknown { order.set_over(Pfn(first), pages, use_, &[Use::Kernel, Use::Slab]) } else { order.set(Pfn(first), pages, use_) }
                for (_, known) in uses.range_mut(first..first + pages) {
                    if !only_unknown || [Use::Kernel, Use::Slab].contains(known) { *known = use_; }
                }
            }
            for use_ in Use::ORDER {
                let (mut cursor, mut all) = (kept.cursor(), vec![]);
                loop {
                    let mut some = vec![];
                    order.take(use_, &kept, &mut cursor, room, &mut some);
                    if some.is_empty() { break; }
                    all.extend(some);
                }
                let wanted: Vec<Pfn> = uses.iter().filter(|(_, known)| **known == use_).map(|(pfn, _)| Pfn(*pfn)).collect();
                prop_assert_eq!(all, wanted, "{:?}", use_);
            }
        }
    }
}
