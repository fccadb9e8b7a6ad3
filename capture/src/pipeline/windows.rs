//! Which pages are kept, as much of it at once as the budget allows. In: memory and the plan. Out: bitmap 2, one window
//! after the other, from the lowest page up.
//! May surprise: with one window the filter runs once and its bitmap stays; with several it runs again for every pass, as
//! the bitmap of one window makes room for that of the next.

use std::io;

use crate::classify::Classifier;
use crate::dumpfile::bitmap::Kept;
use crate::dumpfile::write::alike;
use crate::filter::{Border, Filtered, Sieve};
use crate::kernel::Kernel;
use crate::memmap::MemMap;
use crate::progress::{Messages, Meter};
use crate::report::DumpReport;
use crate::units::{PageSize, Pfn};
use crate::vmcore::read::PhysMem;
use crate::vmcore::segments::PageRun;

use super::Plan;

/// What is done with a window, its bitmap, and what else is known of it.
type Each<'a> = dyn FnMut(PageRun, &Kept, &Border) -> io::Result<()> + 'a;

/// The windows of a vmcore.
pub(super) struct Windows<'a> {
    mem: &'a dyn PhysMem,
    kernel: &'a Kernel,
    plan: &'a Plan,
    /// `None` if every page is kept.
    sieve: Option<&'a Sieve>,
    ranges: Vec<PageRun>,
    /// The bitmap of the only window, and what was dropped from it.
    whole: Option<(Kept, Border, Filtered)>,
    passes: u32,
}

impl<'a> Windows<'a> {
    /// The windows of `mem`, through `sieve`.
    pub(super) fn new(mem: &'a dyn PhysMem, kernel: &'a Kernel, plan: &'a Plan, sieve: Option<&'a Sieve>) -> Self {
        Windows { mem, kernel, plan, sieve, ranges: plan.windows(mem.segments()), whole: None, passes: 0 }
    }

    /// Calls `each` for every window; returns what the filter did in all of them.
    pub(super) fn each(&mut self, each: &mut Each<'_>) -> io::Result<Filtered> {
        self.passes += 1;
        let meter = self.meter();
        let (mut total, mut border) = (Filtered::default(), Border::default());
        for window in self.ranges.clone() {
            if let Some((kept, border, filtered)) = &self.whole {
                each(window, kept, border)?;
                return Ok(*filtered);
            }
            let kept = Kept::within(self.mem.segments().backed(), window).ok_or(io::ErrorKind::OutOfMemory)?;
            if let Some(bitmaps) = self.mem.bitmaps() {
                bitmaps.kept(window, &mut |at, block| {
                    kept.keep_only(at, block);
                    Ok(())
                })?;
            }
            total.add(&self.filter(window, &kept, &mut border, &meter)?);
            each(window, &kept, &border)?;
            if self.ranges.len() == 1 {
                self.whole = Some((kept, std::mem::take(&mut border), total));
            }
        }
        Ok(total)
    }

    /// Whether there is no more than one.
    pub(super) fn is_one(&self) -> bool {
        self.ranges.len() <= 1
    }

    fn filter(&self, window: PageRun, kept: &Kept, border: &mut Border, meter: &Meter) -> io::Result<Filtered> {
        match &self.sieve {
            Some(sieve) => sieve.run(self.mem, self.kernel, window, kept, border, self.plan.threads, meter),
            None => Ok(Filtered::default()),
        }
    }

    /// The progress of a pass; of the first one, as the others are part of writing.
    fn meter(&self) -> Meter {
        let shown = self.passes == 1 && self.sieve.is_some();
        let messages = if shown { self.plan.messages } else { Messages(0) };
        let pages = self.mem.segments().backed().iter().map(PageRun::len).sum();
        Meter::new("Excluding unnecessary pages", pages, self.kernel.page.bytes() as u64, messages)
    }
}

/// Finds the means to tell pages apart. Without them the level in `report` is what can be done by content alone.
pub(super) fn sieve(mem: &dyn PhysMem, kernel: &Kernel, plan: &Plan, report: &mut DumpReport) -> Option<Sieve> {
    report.level = plan.level.get();
    let classifier = Classifier::new(&kernel.facts, plan.level, &mut report.problems);
    if !plan.by_use && !classifier.asks_anything() && plan.level == plan.level.content_only() {
        return None;
    }
    let map = kernel.memory(mem).ok_or_else(|| "see above".to_owned());
    match map.and_then(|mut memory| MemMap::new(kernel, &mut memory, mem.segments().backed())) {
        Ok(mut map) => {
            report.problems.append(&mut map.problems);
            Some(Sieve { map, classifier })
        }
        Err(why) => {
            report.level = plan.level.content_only().get();
            report.problems.push(format!("the dump is written unfiltered, struct pages cannot be found: {why}"));
            None
        }
    }
}

/// Where a split dump is cut, so that its files hold about as many pages. The bitmap of the only window tells the very
/// page; of several only the ends are known.
pub(super) struct Cuts {
    parts: u64,
    multiple: u64,
    kept: u64,
    /// For each cut, the first page behind it.
    exact: Vec<Pfn>,
    /// The end of each window, and how many pages are kept below it.
    ends: Vec<(Pfn, u64)>,
}

impl Cuts {
    pub(super) fn new(parts: usize, page: PageSize) -> Cuts {
        let multiple = alike(page) as u64;
        Cuts { parts: parts as u64, multiple, kept: 0, exact: Vec::new(), ends: Vec::new() }
    }

    /// Counts a window.
    pub(super) fn add(&mut self, window: PageRun, kept: &Kept) {
        self.kept += kept.count();
        self.ends.push((window.end, self.kept));
        let cuts = || kept.cuts(self.parts, self.multiple, window.end).into_iter().map(|(_, end)| end).collect();
        self.exact = if self.parts > 1 { cuts() } else { Vec::new() };
    }

    /// Pages kept in all windows.
    pub(super) fn kept(&self) -> u64 {
        self.kept
    }

    /// One range for each part, from page 0 to `end`.
    pub(super) fn ranges(&self, end: Pfn) -> Vec<(Pfn, Pfn)> {
        let near = |part: u64| {
            let wanted = self.kept / self.parts.max(1) * part;
            let nearest = self.ends.iter().min_by_key(|(_, below)| below.abs_diff(wanted));
            nearest.map_or(end, |(at, _)| (*at).min(end))
        };
        let mut ranges = Vec::new();
        let mut start = Pfn(0);
        for part in 1..self.parts {
            let exact = || self.exact.get(usize::try_from(part - 1).unwrap_or(usize::MAX)).copied();
            let cut = if self.ends.len() > 1 { near(part) } else { exact().unwrap_or(end) };
            ranges.push((start, cut));
            start = cut;
        }
        ranges.push((start, end));
        ranges
    }
}
