//! What each page is good for, so that the most useful ones are written first where not all will be. In: struct pages and
//! page tables. Out: an [`Order`].
//! May surprise: one thread does it, and what is said last counts, so that a dump depends on nothing but the memory; each
//! page has one use even if struct pages contradict each other. No kernel says which flag marks memory that was set aside
//! at boot (`PG_reserved`); the struct pages of the kernel's own image show it, since they have nothing else.
//!
//! ```text
//!  struct pages     slab, cache, user, free; the image's flag: set aside at boot
//!  page tables      each of them is needed, and what they map but for the map of all memory, if no struct page says else
//!  mem_map          where struct pages themselves are
//! ```

use crate::classify::{Classifier, Verdict, Why};
use crate::dumpfile::bitmap::clip;
use crate::dumpfile::order::{Order, Use};
use crate::input::DirectMap;
use crate::kernel::Kernel;
use crate::memmap::{MemMap, Scan, Section, Step};
use crate::paging::{Seen, Virtual, walk};
use crate::units::{DumpLevel, Pfn, PhysAddr};
use crate::vmcore::read::PhysMem;
use crate::vmcore::segments::PageRun;

/// The flags of a struct page, below the numbers of its zone, node and section.
const FLAGS: u64 = (1 << 22) - 1;

/// Symbols of the image that vmcoreinfo has.
const IMAGE: [&str; 4] = ["_stext", "init_uts_ns", "init_top_pgt", "swapper_pg_dir"];

/// How uses are told.
pub struct Uses<'a> {
    mem: &'a dyn PhysMem,
    kernel: &'a Kernel,
    map: Option<&'a MemMap>,
    classifier: Classifier,
    /// Where the flags are, and the one that memory set aside at boot has.
    reserved: Option<(usize, u64)>,
    direct: Option<DirectMap>,
}

impl std::fmt::Debug for Uses<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uses").field("reserved", &self.reserved).field("direct", &self.direct).finish_non_exhaustive()
    }
}

impl<'a> Uses<'a> {
    /// Learns the signs. Without `map`, page tables alone tell.
    pub fn new(mem: &'a dyn PhysMem, kernel: &'a Kernel, map: Option<&'a MemMap>) -> Uses<'a> {
        let all = DumpLevel::new(31).unwrap_or_default();
        let classifier = Classifier::new(&kernel.facts, all, &mut Vec::new());
        let mut uses = Uses { mem, kernel, map, classifier, reserved: None, direct: DirectMap::find(kernel, mem) };
        uses.reserved = uses.reserved();
        uses
    }

    /// The flags that all struct pages of the image have.
    fn reserved(&self) -> Option<(usize, u64)> {
        let offset = self.kernel.facts.offset("page.flags")?;
        let (map, mut memory) = (self.map?, self.kernel.memory(self.mem)?);
        let mut scan = Scan::new(map, self.mem);
        let mut common = FLAGS;
        for symbol in IMAGE {
            let Some(mapped) = self.kernel.facts.symbol(symbol).and_then(|at| memory.translate(at).ok()) else {
                continue;
            };
            let pfn = self.kernel.page.pfn(mapped.phys);
            let page = PageRun { start: pfn, end: Pfn(pfn.0.saturating_add(1)) };
            for section in map.touched(page) {
                scan.run(&mut memory, section, page, &mut |page| {
                    common &= page.u64(offset).unwrap_or(0);
                    Step::Next
                });
            }
        }
        (common != 0 && common != FLAGS).then_some((offset, common))
    }

    /// What each page of `window` is good for. `None` if there is no memory to tell.
    pub fn of(&self, window: PageRun) -> Option<Order> {
        let order = Order::within(self.mem.segments().backed(), window)?;
        let Some(mut memory) = self.kernel.memory(self.mem) else { return Some(order) };
        if let Some(map) = self.map {
            let mut scan = Scan::new(map, self.mem);
            for section in map.touched(window) {
                self.section(map, section, window, &mut memory, &mut scan, &order);
            }
        }
        self.mapped(&order);
        if let Some(map) = self.map {
            map.sections.iter().for_each(|section| self.struct_pages(map, section, &mut memory, &order));
        }
        Some(order)
    }

    fn section(
        &self,
        map: &MemMap,
        section: &Section,
        window: PageRun,
        memory: &mut Virtual<'_>,
        scan: &mut Scan<'_>,
        order: &Order,
    ) {
        let inside = PageRun { start: section.first.max(window.start), end: map.end(section).min(window.end) };
        let mut run = Run { order, first: inside.start, end: inside.start, use_: Use::Kernel };
        for pages in clip(self.mem.segments().backed(), inside) {
            scan.run(memory, section, pages, &mut |page| {
                let (use_, count) = match self.classifier.verdict(&page) {
                    Verdict::Drop { why, order } => (of(why), 1u64.checked_shl(order).unwrap_or(1)),
                    _ => match self.classifier.slab(&page) {
                        Some(order) => (Use::Slab, 1u64.checked_shl(order).unwrap_or(1)),
                        None if self
                            .reserved
                            .is_some_and(|(at, flags)| page.u64(at).is_some_and(|word| word & flags == flags)) =>
                        {
                            (Use::Boot, 1)
                        }
                        None => return Step::Next,
                    },
                };
                run.add(page.pfn, Pfn(page.pfn.0.saturating_add(count)), use_);
                if count == 1 { Step::Next } else { Step::Jump(run.end) }
            });
        }
        run.set();
    }

    /// Page tables, and what they map.
    fn mapped(&self, order: &Order) {
        let Some(paging) = self.kernel.paging.as_deref() else { return };
        let page = self.kernel.page;
        let all: u64 = self.mem.segments().backed().iter().map(PageRun::len).sum();
        // Of all that is mapped in pages there are a few tables for a thousand; damaged ones might lead anywhere.
        let (most, mut pages_left) = (all / 64 + (1 << 16), all.saturating_mul(4));
        let pages = |at: PhysAddr, len: u64| (page.pfn(at), len.div_ceil(page.bytes() as u64).max(1));
        walk(paging, self.mem, most, &mut |seen| {
            match seen {
                Seen::Table { at, len } => {
                    let (first, count) = pages(at, len);
                    order.set(first, count, Use::Needed);
                }
                Seen::Leaf { virt, phys, len, code } => {
                    // Unknown, the map of all memory is that of large leaves.
                    let direct = self.direct.map_or(len > page.bytes() as u64, |direct| direct.virt(phys) == virt);
                    if !direct {
                        let (first, count) = pages(phys, len);
                        let use_ = if code { Use::Code } else { Use::Needed };
                        order.set_over(first, count, use_, &[Use::Kernel, Use::Boot]);
                        pages_left = pages_left.saturating_sub(count);
                    }
                }
            }
            pages_left > 0
        });
    }

    /// Where the struct pages of a section are.
    fn struct_pages(&self, map: &MemMap, section: &Section, memory: &mut Virtual<'_>, order: &Order) {
        let Some((mut at, end)) = map.array(section) else { return };
        let page = self.kernel.page.bytes() as u64;
        while at < end {
            let step = match memory.translate(at) {
                Ok(mapped) => {
                    let len = mapped.len.min(end.0 - at.0);
                    let (first, last) = (mapped.phys, PhysAddr(mapped.phys.0.saturating_add(len - 1)));
                    let (first, last) = (self.kernel.page.pfn(first), self.kernel.page.pfn(last));
                    order.set(first, last.0 - first.0 + 1, Use::Memmap);
                    len
                }
                Err(_) => page - (at.0 & (page - 1)),
            };
            let Some(next) = at.checked_add(step) else { return };
            at = next;
        }
    }
}

/// What pages that a level leaves out are good for.
fn of(why: Why) -> Use {
    match why {
        Why::PrivateCache => Use::PrivateCache,
        Why::Cache => Use::Cache,
        Why::User => Use::User,
        Why::Free | Why::Unaccepted | Why::HwPoison | Why::Offline => Use::Free,
    }
}

/// Pages in a row of one use, gathered.
struct Run<'a> {
    order: &'a Order,
    first: Pfn,
    end: Pfn,
    use_: Use,
}

impl Run<'_> {
    fn add(&mut self, first: Pfn, end: Pfn, use_: Use) {
        if use_ != self.use_ || first != self.end {
            self.set();
            (self.first, self.use_) = (first, use_);
        }
        self.end = end;
    }

    fn set(&self) {
        if self.use_ != Use::Kernel {
            self.order.set(self.first, self.end.0 - self.first.0, self.use_);
        }
    }
}
