//! Asks every struct page, section by section, on all threads. In: sections, a classifier and a window. Out: bits cleared
//! in the window's bitmap 2, and counts by kind.
//! May surprise: a hugetlb page may reach across sections, so ranges are cleared wherever they go; each bit is counted
//! by the one worker that flipped it. What reaches across the window's end is carried into the next one. A section that
//! cannot be looked at is kept whole.

use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::classify::{Classifier, Dropped, Verdict, Why};
use crate::dumpfile::bitmap::{Kept, clip};
use crate::kernel::Kernel;
use crate::memmap::{MemMap, PageView, Scan, Section, Step};
use crate::paging::Virtual;
use crate::progress::Meter;
use crate::units::Pfn;
use crate::vmcore::read::PhysMem;
use crate::vmcore::segments::{PageRun, merge};
use crate::workers;

/// What the filter did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Filtered {
    /// Pages dropped, by kind.
    pub dropped: Dropped,
    /// Sections of which some struct pages could not be read, so that these pages are kept.
    pub sections_kept_whole: u64,
    /// Struct pages that contradict themselves; their pages are kept.
    pub damaged: u64,
}

impl Filtered {
    /// Adds another worker's part, or another window's.
    pub fn add(&mut self, other: &Filtered) {
        self.dropped.merge(&other.dropped);
        self.sections_kept_whole += other.sections_kept_whole;
        self.damaged += other.damaged;
    }

    /// What should be known of it.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        let blind = self.sections_kept_whole;
        let unread = format!("struct pages of {blind} sections could not be read; those pages are kept");
        let damaged = format!("{} struct pages contradict themselves; their pages are kept", self.damaged);
        [(blind, unread), (self.damaged, damaged)].into_iter().filter(|(count, _)| *count > 0).map(|(_, said)| said)
    }
}

/// Pages dropped as far as the window went; the rest of them lies behind its end. A block begins at a multiple of its
/// length, so there are few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carried {
    first: Pfn,
    pages: u64,
    why: Why,
}

/// What is to be known of a window beside its bits.
#[derive(Debug, Default)]
pub struct Border {
    /// What reaches into the next window.
    carried: Vec<Carried>,
    /// Dropped pages that are not to be read either, in order; perhaps more than those, where there are very many.
    pub shunned: Vec<PageRun>,
}

/// A worker lists so many runs of pages that are not to be read; beyond, all that follows counts as such.
const MOST_SHUNNED: usize = 1 << 12;

/// How struct pages are found, and what they are asked.
#[derive(Debug)]
pub struct Sieve {
    /// Where they are.
    pub map: MemMap,
    /// The questions.
    pub classifier: Classifier,
}

impl Sieve {
    /// Runs over the pages of `window`, clearing `kept`. `border` is that of the window before, and then of this one.
    #[expect(clippy::too_many_arguments, reason = "what is asked, of whom, where, and who does it")]
    pub fn run(
        &self,
        mem: &dyn PhysMem,
        kernel: &Kernel,
        window: PageRun,
        kept: &Kept,
        border: &mut Border,
        threads: usize,
        meter: &Meter,
    ) -> io::Result<Filtered> {
        let mut total = Filtered::default();
        let mut next_border = Border::default();
        for block in border.carried.drain(..) {
            total.dropped.add(block.why, kept.drop_range(block.first, block.pages));
            if block.why.shuns() {
                next_border.shunned.push(block.run());
            }
            if block.run().end > window.end {
                next_border.carried.push(block);
            }
        }
        let sections = self.map.touched(window);
        let next = AtomicUsize::new(0);
        let total = Mutex::new((total, next_border));
        workers::run(threads.min(sections.len()), meter, &|| {
            let Some(mut memory) = kernel.memory(mem) else { return };
            let mut scan = Scan::new(&self.map, mem);
            let mut mine = Worker { sieve: self, mem, run: Run::new(window, kept), damaged: 0, blind: 0 };
            while let Some(section) = sections.get(next.fetch_add(1, Ordering::Relaxed)) {
                meter.add(mine.section(section, &mut memory, &mut scan));
            }
            mine.run.drop();
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            total.0.add(&Filtered {
                dropped: mine.run.dropped,
                sections_kept_whole: mine.blind,
                damaged: mine.damaged,
            });
            total.1.carried.append(&mut mine.run.border.carried);
            total.1.shunned.append(&mut mine.run.border.shunned);
        })?;
        let (filtered, next_border) = total.into_inner().unwrap_or_else(PoisonError::into_inner);
        *border = next_border;
        border.shunned = merge(std::mem::take(&mut border.shunned));
        Ok(filtered)
    }
}

impl Carried {
    fn run(&self) -> PageRun {
        PageRun { start: self.first, end: Pfn(self.first.0.saturating_add(self.pages)) }
    }
}

/// Pages in a row that are dropped for one reason, gathered: a bit at a time would cost more than the verdicts.
struct Run<'a> {
    window: PageRun,
    kept: &'a Kept,
    first: Pfn,
    pages: u64,
    why: Why,
    dropped: Dropped,
    border: Border,
}

impl<'a> Run<'a> {
    fn new(window: PageRun, kept: &'a Kept) -> Self {
        let (dropped, border) = (Dropped::default(), Border::default());
        Run { window, kept, first: Pfn(0), pages: 0, why: Why::Free, dropped, border }
    }

    /// The page frame behind the run.
    fn end(&self) -> Pfn {
        Pfn(self.first.0.saturating_add(self.pages))
    }

    /// Adds `pages` from `first` on.
    #[inline]
    fn add(&mut self, first: Pfn, pages: u64, why: Why) {
        if why == self.why && first == self.end() {
            self.pages = self.pages.saturating_add(pages);
        } else {
            self.drop();
            (self.first, self.pages, self.why) = (first, pages, why);
        }
    }

    /// Clears the run's bits; another one may begin.
    fn drop(&mut self) {
        let pages = std::mem::take(&mut self.pages);
        if pages == 0 {
            return;
        }
        let whole = Carried { first: self.first, pages, why: self.why };
        self.dropped.add(self.why, self.kept.drop_range(self.first, pages));
        if whole.run().end > self.window.end {
            self.border.carried.push(whole);
        }
        if self.why.shuns() {
            let full = self.border.shunned.len() >= MOST_SHUNNED;
            let last = self.border.shunned.last_mut().filter(|_| full);
            match last {
                // A worker's sections come in order.
                Some(last) => last.end = Pfn(u64::MAX),
                None => self.border.shunned.push(whole.run()),
            }
        }
    }
}

/// One worker's world.
struct Worker<'a> {
    sieve: &'a Sieve,
    mem: &'a dyn PhysMem,
    run: Run<'a>,
    damaged: u64,
    /// Sections of which struct pages could not be read.
    blind: u64,
}

impl Worker<'_> {
    /// One section; returns how many of its pages are in the window and in the dump.
    fn section(&mut self, section: &Section, memory: &mut Virtual<'_>, scan: &mut Scan<'_>) -> u64 {
        let Sieve { map, classifier } = self.sieve;
        let window = self.run.window;
        let of_section = PageRun { start: section.first.max(window.start), end: map.end(section).min(window.end) };
        let mut pages = 0;
        let mut blind = 0;
        let mut decided = of_section.start;
        for run in clip(self.mem.segments().backed(), of_section) {
            pages += run.len();
            // A block dropped at the end of the last run may reach into this one.
            let rest = PageRun { start: run.start.max(decided), end: run.end };
            if rest.is_empty() {
                continue;
            }
            blind += scan.run(memory, section, rest, &mut |page: PageView<'_>| match classifier.verdict(&page) {
                Verdict::Keep => Step::Next,
                Verdict::KeepDamaged => {
                    self.damaged += 1;
                    Step::Next
                }
                Verdict::Drop { why, order } => {
                    let count = 1u64.checked_shl(order).unwrap_or(1);
                    self.run.add(page.pfn, count, why);
                    decided = Pfn(page.pfn.0.saturating_add(count));
                    if order == 0 { Step::Next } else { Step::Jump(decided) }
                }
            });
        }
        self.blind += u64::from(blind > 0);
        pages
    }
}
