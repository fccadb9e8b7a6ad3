//! A bitmap as runs of pages. In: blocks of a bitmap. Out: at most so many runs, that hold every page of it.
//! May surprise: a dump can have millions of runs, which as a list would take more memory than the bitmap. So where
//! there are too many, those with small gaps between them become one; who needs to know exactly asks the bitmap itself.

use std::io;

use crate::units::{Pfn, le64};
use crate::vmcore::read::Bitmaps;
use crate::vmcore::segments::PageRun;

use super::bitmap::{Write, run_blocks};

/// Runs in the list at most: 256 KiB.
const MOST: usize = 1 << 14;

/// Bitmap 1, as runs or as another dump has it.
#[derive(Clone, Copy)]
pub enum Present<'a> {
    /// These pages.
    Runs(&'a [PageRun]),
    /// A copy.
    Copied(&'a dyn Bitmaps),
}

impl std::fmt::Debug for Present<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Present").finish_non_exhaustive()
    }
}

impl Present<'_> {
    /// Writes it in blocks with the position of each; blocks of zeros are left out.
    pub fn blocks(&self, write: &mut Write<'_>) -> io::Result<()> {
        match self {
            Present::Runs(runs) => run_blocks(runs, write),
            Present::Copied(bitmaps) => {
                bitmaps.present(&mut |at, block| if super::write::is_zero(block) { Ok(()) } else { write(at, block) })
            }
        }
    }
}

/// Runs of pages, few enough.
#[derive(Debug)]
pub struct Runs {
    runs: Vec<PageRun>,
    /// Runs this near to each other are one.
    gap: u64,
    most: usize,
    end: Pfn,
}

impl Runs {
    /// Of pages below `end`.
    pub fn below(end: Pfn) -> Runs {
        Runs { runs: Vec::new(), gap: 0, most: MOST, end }
    }

    /// Adds the pages of a block of the bitmap, which follows the last one.
    pub fn add(&mut self, at: u64, block: &[u8]) {
        for (index, bytes) in block.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            let (mut left, base) = (le64(&word, 0).unwrap_or(0), (at + index as u64 * 8) * 8);
            while left != 0 {
                let from = u64::from(left.trailing_zeros());
                let len = u64::from((!(left >> from)).trailing_zeros());
                self.push(PageRun { start: Pfn(base + from), end: Pfn((base + from + len).min(self.end.0)) });
                left = if from + len >= 64 { 0 } else { left >> (from + len) << (from + len) };
            }
        }
    }

    fn push(&mut self, run: PageRun) {
        if run.is_empty() {
            return;
        }
        match self.runs.last_mut() {
            Some(last) if run.start.0 - last.end.0 <= self.gap => last.end = run.end,
            _ => self.runs.push(run),
        }
        while self.runs.len() > self.most {
            self.gap = (self.gap * 2).max(1);
            let gap = self.gap;
            self.runs.dedup_by(|next, last| {
                let near = next.start.0 - last.end.0 <= gap;
                if near {
                    last.end = next.end;
                }
                near
            });
        }
    }

    /// The runs, by page.
    pub fn into_runs(self) -> Vec<PageRun> {
        self.runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_hold_every_page_and_are_exact_while_they_are_few(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 0..200),
            most in 1usize..40,
            cut in 0u64..1600,
            block in 1usize..5,
        ) {
            let mut runs = Runs { most, ..Runs::below(Pfn(cut)) };
            for (index, part) in bytes.chunks(block * 8).enumerate() {
                runs.add((index * block * 8) as u64, part);
            }
            let (gap, runs) = (runs.gap, runs.into_runs());
            let set: Vec<u64> = (0..bytes.len() as u64 * 8).filter(|p| *p < cut && bytes[(p / 8) as usize] >> (p % 8) & 1 == 1).collect();
            prop_assert!(runs.len() <= most);
            let within = |pfn: u64| runs.iter().any(|run| run.start.0 <= pfn && pfn < run.end.0);
            prop_assert!(set.iter().all(|pfn| within(*pfn)));
            for pair in runs.windows(2) { prop_assert!(pair[1].start.0 > pair[0].end.0 + gap); }
            if gap == 0 { prop_assert_eq!(runs.iter().map(PageRun::len).sum::<u64>(), set.len() as u64); }
        }
    }
}
