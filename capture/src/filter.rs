//! Asks every struct page, section by section, on all threads. In: sections and a classifier. Out: bits cleared in
//! bitmap 2, and counts by kind.
//! May surprise: a hugetlb page may reach across sections, so ranges are cleared wherever they go; each bit is counted
//! by the one worker that flipped it. A section that cannot be looked at is kept whole.

use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::classify::{Classifier, Dropped, Verdict};
use crate::dumpfile::bitmap::Kept;
use crate::kernel::Kernel;
use crate::memmap::{MemMap, PageView, Scan, Section, Step};
use crate::paging::Virtual;
use crate::progress::Meter;
use crate::units::Pfn;
use crate::vmcore::read::PhysMem;
use crate::vmcore::segments::PageRun;
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

/// Runs `classifier` over all of `map`, clearing `kept`.
pub fn run(
    mem: &dyn PhysMem,
    kernel: &Kernel,
    map: &MemMap,
    classifier: &Classifier,
    kept: &Kept,
    threads: usize,
    meter: &Meter,
) -> io::Result<Filtered> {
    let next = AtomicUsize::new(0);
    let total = Mutex::new(Filtered::default());
    workers::run(threads.min(map.sections.len()), meter, &|| {
        let Some(mut memory) = kernel.memory(mem) else { return };
        let mut scan = Scan::new(map, mem);
        let mut mine = Filtered::default();
        while let Some(section) = map.sections.get(next.fetch_add(1, Ordering::Relaxed)) {
            meter.add(one(mem, map, section, classifier, kept, &mut memory, &mut scan, &mut mine));
        }
        let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
        total.dropped.merge(&mine.dropped);
        total.sections_kept_whole += mine.sections_kept_whole;
        total.damaged += mine.damaged;
    })?;
    Ok(total.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// One section; returns how many of its pages are in the dump.
#[expect(clippy::too_many_arguments, reason = "one worker's whole world")]
fn one(
    mem: &dyn PhysMem,
    map: &MemMap,
    section: &Section,
    classifier: &Classifier,
    kept: &Kept,
    memory: &mut Virtual<'_>,
    scan: &mut Scan<'_>,
    mine: &mut Filtered,
) -> u64 {
    let end = map.end(section);
    let runs = mem.segments().backed();
    let mut pages = 0;
    let mut blind = 0;
    let mut decided = section.first;
    for run in &runs[runs.partition_point(|run| run.end <= section.first)..] {
        if run.start >= end {
            break;
        }
        let run = PageRun { start: run.start.max(section.first), end: run.end.min(end) };
        pages += run.len();
        // A block dropped at the end of the last run may reach into this one.
        let rest = PageRun { start: run.start.max(decided), end: run.end };
        if rest.is_empty() {
            continue;
        }
        let look = &mut |page: PageView<'_>| match classifier.verdict(&page) {
            Verdict::Keep => Step::Next,
            Verdict::KeepDamaged => {
                mine.damaged += 1;
                Step::Next
            }
            Verdict::Drop { why, order } => {
                let count = 1u64.checked_shl(order).unwrap_or(1);
                mine.dropped.add(why, kept.drop_range(page.pfn, count));
                decided = Pfn(page.pfn.0.saturating_add(count));
                if order == 0 { Step::Next } else { Step::Jump(decided) }
            }
        };
        blind += scan.run(memory, section, rest, look);
    }
    mine.sections_kept_whole += u64::from(blind > 0);
    pages
}
