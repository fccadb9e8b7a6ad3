//! What is written together. In: kept pages, window by window. Out: runs of pages, in order.
//! May surprise: a run may hold a few dropped pages, which are written with their neighbours; never those that are not to be
//! read.

use std::io;

use crate::units::{PageSize, Pfn};
use crate::vmcore::segments::PageRun;

use super::super::bitmap::Kept;

/// As many dropped pages (of 4 KiB) in a row end a segment, fewer are written. One header is far smaller than a page, but
/// readers look through all headers for every address: so there is at most one for each MiB. It is makedumpfile's number
/// too, whose dumps readers have been tuned with.
pub const GAP: u64 = 256;

/// Kept pages in runs, gathered window by window. Fewer dropped pages than end a segment do not end a run either: so a
/// run takes 16 bytes for at least as many pages as [`GAP`], half of what a bitmap takes if memory is as scattered as that.
#[derive(Debug)]
pub struct Stretches {
    runs: Vec<PageRun>,
    gap: u64,
    usual_gap: u64,
    kept: u64,
}

/// So many runs are no more than the gap between them makes: 4 MiB of them, and as many segments as readers, this
/// program's own among them, can be expected to go through.
const MOST: usize = 1 << 18;

impl Stretches {
    /// None yet, of a machine with pages of this size.
    pub fn new(page: PageSize) -> Stretches {
        let usual_gap = ((GAP << PageSize::K4.shift()) >> page.shift()).max(1);
        Stretches { runs: Vec::new(), gap: usual_gap, usual_gap, kept: 0 }
    }

    /// The same of a source that has no data for dropped pages: these are not written, since they would read as zeros,
    /// unless that takes too many segments.
    pub fn exact(page: PageSize) -> Stretches {
        Stretches { gap: 1, ..Stretches::new(page) }
    }

    /// Whether dropped pages are written between kept ones.
    pub fn has_gaps(&self) -> bool {
        self.gap > 1
    }

    fn join(&mut self) {
        self.gap = (self.gap * 2).min(self.usual_gap);
        let gap = self.gap;
        self.runs.dedup_by(|next, last| {
            let near = next.start.0 - last.end.0 < gap;
            if near {
                last.end = next.end;
            }
            near
        });
    }

    /// Adds what is kept in the window that follows those before; no run reaches over pages of `shunned` (in order), which
    /// are not to be read. An error if there is no memory for it.
    pub fn add(&mut self, kept: &Kept, shunned: &[PageRun]) -> io::Result<()> {
        self.kept += kept.count();
        let end = Pfn(u64::MAX);
        let mut start = kept.next(Pfn(0), end, true);
        while start < end {
            let stop = kept.next(start, end, false);
            match self.runs.last_mut() {
                Some(last) if start.0 - last.end.0 < self.gap && !touches(shunned, last.end, start) => last.end = stop,
                _ => {
                    self.runs.try_reserve(1).map_err(|_| io::ErrorKind::OutOfMemory)?;
                    self.runs.push(PageRun { start, end: stop });
                }
            }
            while self.runs.len() > MOST && self.gap < self.usual_gap {
                self.join();
            }
            start = kept.next(stop, end, true);
        }
        Ok(())
    }

    /// Kept pages; the dropped ones between them are not counted.
    pub fn kept(&self) -> u64 {
        self.kept
    }

    /// The first run that ends after `pfn`.
    pub(super) fn at_or_after(&self, pfn: Pfn) -> Option<&PageRun> {
        self.runs.get(self.runs.partition_point(|run| run.end <= pfn))
    }

    pub(super) fn contains(&self, pfn: Pfn) -> bool {
        self.at_or_after(pfn).is_some_and(|run| run.start <= pfn)
    }
}

/// Whether one of `runs`, which are in order, has a page from `start` on below `end`.
fn touches(runs: &[PageRun], start: Pfn, end: Pfn) -> bool {
    runs.get(runs.partition_point(|run| run.end <= start)).is_some_and(|run| run.start < end)
}
