//! Which pages are kept: bitmap 2, in memory, one bit per page that is in the vmcore, or in a window of it; and both
//! bitmaps as the file has them. In: runs of pages. Out: bits.
//! May surprise: holes between runs take no memory, and bitmap 1 none at all: it follows from the runs. Bits are only
//! ever cleared, by any worker, and clearing counts the bits that flipped, so that the statistics are exact in any order.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::units::{Pfn, to_usize};
use crate::vmcore::segments::PageRun;

/// Takes a block of bitmap bytes and its position in the bitmap.
pub type Write<'a> = dyn FnMut(u64, &[u8]) -> io::Result<()> + 'a;

#[derive(Debug)]
struct Piece {
    run: PageRun,
    /// Index of the word that holds the first page; bits are where the file has them.
    word: usize,
}

impl Piece {
    /// Index of the word that holds `pfn`.
    fn index(&self, pfn: u64) -> Option<usize> {
        self.word.checked_add(to_usize(pfn / 64 - self.run.start.0 / 64)?)
    }
}

/// Bitmap 2, or a window of it.
#[derive(Debug)]
pub struct Kept {
    pieces: Vec<Piece>,
    words: Vec<AtomicU64>,
}

/// Bits `from..to` of one word.
fn mask(from: u64, to: u64) -> u64 {
    let below = |n: u64| if n >= 64 { u64::MAX } else { (1 << n) - 1 };
    below(to) & !below(from)
}

impl Kept {
    /// Bytes of memory a bitmap over `runs` takes.
    pub fn bytes_for(runs: &[PageRun]) -> u64 {
        runs.iter().map(|run| (((run.end.0 - 1) / 64) - run.start.0 / 64 + 1) * 8 + size_of::<Piece>() as u64).sum()
    }

    /// All pages of `runs` (disjoint, in order) are kept at first. `None` if there is no memory for it.
    pub fn all(runs: &[PageRun]) -> Option<Kept> {
        Kept::within(runs, PageRun { start: Pfn(0), end: Pfn(u64::MAX) })
    }

    /// The same for the part of `runs` in `window`, which begins and ends at a multiple of 64 pages.
    pub fn within(runs: &[PageRun], window: PageRun) -> Option<Kept> {
        let inside = || clip(runs, window);
        let mut words: Vec<AtomicU64> = Vec::new();
        let total: u64 = inside().map(|run| ((run.end.0 - 1) / 64) - run.start.0 / 64 + 1).sum();
        words.try_reserve_exact(to_usize(total)?).ok()?;
        let mut pieces = Vec::new();
        pieces.try_reserve_exact(inside().count()).ok()?;
        for run in inside() {
            pieces.push(Piece { run, word: words.len() });
            let mut base = run.start.0 & !63;
            while base < run.end.0 {
                words.push(AtomicU64::new(mask(run.start.0.saturating_sub(base), run.end.0 - base)));
                base += 64;
            }
        }
        Some(Kept { pieces, words })
    }

    fn word(&self, piece: &Piece, pfn: u64) -> Option<&AtomicU64> {
        self.words.get(piece.index(pfn)?)
    }

    /// Whether `pfn` is kept.
    pub fn contains(&self, pfn: Pfn) -> bool {
        let index = self.pieces.partition_point(|p| p.run.end <= pfn);
        let Some(piece) = self.pieces.get(index).filter(|p| p.run.start <= pfn) else { return false };
        self.word(piece, pfn.0).is_some_and(|word| word.load(Ordering::Relaxed) >> (pfn.0 % 64) & 1 == 1)
    }

    /// The first page from `from` on, below `end`, that is kept (or is not, with `kept` false); `end` if there is none.
    pub fn next(&self, from: Pfn, end: Pfn, kept: bool) -> Pfn {
        let mut at = from.0;
        for piece in &self.pieces[self.pieces.partition_point(|p| p.run.end <= from)..] {
            if !kept && at < piece.run.start.0 {
                break;
            }
            at = at.max(piece.run.start.0);
            while at < piece.run.end.0.min(end.0) {
                let word = self.word(piece, at).map_or(0, |word| word.load(Ordering::Relaxed));
                let bits = (if kept { word } else { !word }) & mask(at % 64, 64);
                if bits != 0 {
                    let found = (at & !63) + u64::from(bits.trailing_zeros());
                    // Beyond the run, bits of its last word are not kept.
                    return Pfn(found.min(if kept { found } else { piece.run.end.0 }).min(end.0));
                }
                at = (at & !63) + 64;
            }
            at = at.min(piece.run.end.0);
            if at >= end.0 {
                break;
            }
        }
        if kept { end } else { Pfn(at.min(end.0)) }
    }

    /// Calls `each` for the words that have `pages` pages from `first` on: their index, and which of their bits are meant.
    pub(super) fn words_of(&self, first: Pfn, pages: u64, each: &mut dyn FnMut(usize, u64)) {
        let end = first.0.saturating_add(pages);
        for piece in &self.pieces[self.pieces.partition_point(|p| p.run.end <= first)..] {
            if piece.run.start.0 >= end {
                break;
            }
            let (mut at, stop) = (piece.run.start.0.max(first.0), piece.run.end.0.min(end));
            while at < stop {
                let base = at & !63;
                if let Some(index) = piece.index(at) {
                    each(index, mask(at - base, stop - base));
                }
                at = base + 64;
            }
        }
    }

    /// Word number `index`, as [`Kept::words_of`] tells it.
    pub(super) fn word_at(&self, index: usize) -> Option<&AtomicU64> {
        self.words.get(index)
    }

    /// Drops `pages` pages from `first` on; returns how many of them were kept until now.
    pub fn drop_range(&self, first: Pfn, pages: u64) -> u64 {
        let mut flipped = 0;
        self.words_of(first, pages, &mut |index, bits| {
            if let Some(word) = self.words.get(index) {
                flipped += u64::from((word.fetch_and(!bits, Ordering::Relaxed) & bits).count_ones());
            }
        });
        flipped
    }

    /// Drops the pages that are not in `block`, which is at `at` in a bitmap of the same pages.
    pub fn keep_only(&self, at: u64, block: &[u8]) {
        let (first, end) = (at * 8, (at + block.len() as u64) * 8);
        for piece in &self.pieces[self.pieces.partition_point(|p| p.run.end.0 <= first)..] {
            if piece.run.start.0 >= end {
                break;
            }
            let mut base = piece.run.start.0.max(first) & !63;
            while base < piece.run.end.0.min(end) {
                let bytes = to_usize(base / 8 - at).and_then(|skip| block.get(skip..)).unwrap_or_default();
                let mut bits = [0; 8];
                let len = bytes.len().min(8);
                bits[..len].copy_from_slice(&bytes[..len]);
                if let Some(word) = self.word(piece, base.max(piece.run.start.0)) {
                    word.fetch_and(u64::from_le_bytes(bits), Ordering::Relaxed);
                }
                base += 64;
            }
        }
    }

    /// How many pages are kept.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }

    /// How many pages from `start` on, below `end`, are kept.
    pub fn count_between(&self, start: Pfn, end: Pfn) -> u64 {
        let mut found = 0;
        for piece in &self.pieces[self.pieces.partition_point(|p| p.run.end <= start)..] {
            let (mut at, stop) = (piece.run.start.0.max(start.0), piece.run.end.0.min(end.0));
            while at < stop {
                let base = at & !63;
                let word = self.word(piece, at).map_or(0, |word| word.load(Ordering::Relaxed));
                found += u64::from((word & mask(at - base, stop - base)).count_ones());
                at = base + 64;
            }
        }
        found
    }

    /// Where to cut so that all `parts` hold about as many kept pages, all but the last a multiple of `multiple`: `parts`
    /// ranges from page 0 to `end`.
    pub fn cuts(&self, parts: u64, multiple: u64, end: Pfn) -> Vec<(Pfn, Pfn)> {
        let total = self.count();
        let (mut cuts, mut start) = (Vec::new(), Pfn(0));
        for part in 1..parts {
            // The lowest page with enough kept pages below it.
            let wanted = u64::try_from(u128::from(total) * u128::from(part) / u128::from(parts)).unwrap_or(total);
            let wanted = wanted - wanted % multiple;
            let (mut low, mut high) = (start.0, end.0);
            while low < high {
                let middle = low + (high - low) / 2;
                if self.count_between(Pfn(0), Pfn(middle)) < wanted { low = middle + 1 } else { high = middle }
            }
            cuts.push((start, Pfn(low)));
            start = Pfn(low);
        }
        cuts.push((start, end));
        cuts
    }

    /// A cursor over the kept pages.
    pub fn cursor(&self) -> Cursor {
        self.cursor_from(Pfn(0))
    }

    /// A cursor over the kept pages from `start` on.
    pub fn cursor_from(&self, start: Pfn) -> Cursor {
        Cursor { piece: self.pieces.partition_point(|p| p.run.end <= start), pfn: start.0 }
    }

    /// The next kept pages from `cursor` on, up to `room` of them, appended to `out`.
    pub fn take(&self, cursor: &mut Cursor, room: usize, out: &mut Vec<Pfn>) {
        self.take_of(cursor, room, out, &|_| u64::MAX);
    }

    /// The same of those pages that `asked` has bits of: for each word, those which are meant.
    pub(super) fn take_of(&self, cursor: &mut Cursor, room: usize, out: &mut Vec<Pfn>, asked: &dyn Fn(usize) -> u64) {
        while let Some(piece) = self.pieces.get(cursor.piece) {
            let mut at = cursor.pfn.max(piece.run.start.0);
            while at < piece.run.end.0 {
                let word = self.word(piece, at).map_or(0, |word| word.load(Ordering::Relaxed));
                let asked = if word == 0 { 0 } else { piece.index(at).map_or(0, asked) };
                let (base, mut left) = (at & !63, word & asked & mask(at % 64, 64));
                while left != 0 {
                    let bit = u64::from(left.trailing_zeros());
                    if out.len() >= room {
                        cursor.pfn = base + bit;
                        return;
                    }
                    out.push(Pfn(base + bit));
                    left &= left - 1;
                }
                at = base + 64;
            }
            cursor.piece += 1;
            cursor.pfn = 0;
        }
    }

    /// Writes bitmap 2 as the file has it, in blocks of up to [`BLOCK`] bytes with the position of each; zeros at the
    /// start and at the end of a block are left out.
    pub fn blocks(&self, write: &mut Write<'_>) -> io::Result<()> {
        let mut blocks = Blocks::new(write);
        for piece in &self.pieces {
            let mut base = piece.run.start.0 & !63;
            while base < piece.run.end.0 {
                let word = self.word(piece, base.max(piece.run.start.0)).map_or(0, |w| w.load(Ordering::Relaxed));
                blocks.or(base / 64, word)?;
                base += 64;
            }
        }
        blocks.flush()
    }
}

/// The parts of `runs` (disjoint, in order) that lie in `window`.
pub fn clip(runs: &[PageRun], window: PageRun) -> impl Iterator<Item = PageRun> + '_ {
    let from = runs.partition_point(|run| run.end <= window.start);
    let touched = runs[from..].iter().take_while(move |run| run.start < window.end);
    touched.map(move |run| PageRun { start: run.start.max(window.start), end: run.end.min(window.end) })
}

/// Where a walk over the kept pages stands.
#[derive(Debug, Clone)]
pub struct Cursor {
    piece: usize,
    pfn: u64,
}

/// Writes bitmap 1, which is `runs`, like [`Kept::blocks`].
pub fn run_blocks(runs: &[PageRun], write: &mut Write<'_>) -> io::Result<()> {
    let mut blocks = Blocks::new(write);
    for run in runs {
        let mut base = run.start.0 & !63;
        while base < run.end.0 {
            blocks.or(base / 64, mask(run.start.0.saturating_sub(base), run.end.0 - base))?;
            base += 64;
        }
    }
    blocks.flush()
}

/// The largest block written at once, in bytes.
pub const BLOCK: usize = 64 << 10;

struct Blocks<'a, 'b> {
    write: &'a mut Write<'b>,
    number: u64,
    bytes: Vec<u8>,
    /// The first byte of the block that is not zero; its end if all are.
    from: usize,
    /// One past the last one.
    to: usize,
}

impl<'a, 'b> Blocks<'a, 'b> {
    fn new(write: &'a mut Write<'b>) -> Self {
        Blocks { write, number: 0, bytes: vec![0; BLOCK], from: BLOCK, to: 0 }
    }

    /// Two runs may share a word, hence "or".
    fn or(&mut self, word: u64, bits: u64) -> io::Result<()> {
        let per_block = (BLOCK / 8) as u64;
        if word / per_block != self.number {
            self.flush()?;
            self.number = word / per_block;
        }
        let at = to_usize(word % per_block).unwrap_or(0) * 8;
        if bits != 0 {
            for (byte, new) in self.bytes[at..at + 8].iter_mut().zip(bits.to_le_bytes()) {
                *byte |= new;
            }
            (self.from, self.to) = (self.from.min(at), self.to.max(at + 8));
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.from < self.to {
            // The last word may reach beyond the bitmap's last byte, never with a bit set; whole blocks of the file do.
            let used = &mut self.bytes[self.from..self.to];
            (self.write)(self.number * BLOCK as u64 + self.from as u64, used)?;
            used.fill(0);
            (self.from, self.to) = (BLOCK, 0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn run(start: u64, end: u64) -> PageRun {
        PageRun { start: Pfn(start), end: Pfn(end) }
    }

    #[test]
    fn only_bits_that_flip_are_counted() {
        let kept = Kept::all(&[run(3, 70), run(1000, 1001)]).unwrap();
        assert_eq!(kept.count(), 68);
        assert_eq!(kept.drop_range(Pfn(0), 10), 7);
        assert_eq!(kept.drop_range(Pfn(0), 2000), 61);
        assert_eq!(kept.count(), 0);
    }

    proptest! {
        #[test]
        fn the_bitmap_is_a_set_of_pages(
            lens in proptest::collection::vec((1u64..200, 1u64..200), 1..6),
            drops in proptest::collection::vec((0u64..1200, 0u64..300), 0..8),
            room in 1usize..100,
            multiple in 1u64..9,
        ) {
            let (mut at, mut runs, mut set) = (0, vec![], BTreeSet::new());
            for (gap, len) in lens { runs.push(run(at + gap, at + gap + len)); set.extend(at + gap..at + gap + len); at += gap + len; }
            let kept = Kept::all(&runs).unwrap();
            for (first, pages) in drops {
                let before = set.len();
                set.retain(|p| !(first..first + pages).contains(p));
                prop_assert_eq!(kept.drop_range(Pfn(first), pages), (before - set.len()) as u64);
            }
            let (mut cursor, mut out) = (kept.cursor(), vec![]);
            loop {
                let mut some = vec![];
                kept.take(&mut cursor, room, &mut some);
                if some.is_empty() { break; }
                out.extend(some);
            }
            let want: Vec<Pfn> = set.iter().copied().map(Pfn).collect();
            prop_assert_eq!(&out, &want);
            let mut file = vec![0u8; BLOCK];
            kept.blocks(&mut |at, b| { let at = at as usize; file[at..at + b.len()].copy_from_slice(b); Ok(()) }).unwrap();
            let read: Vec<Pfn> = (0..BLOCK as u64 * 8).filter(|p| file[(p / 8) as usize] >> (p % 8) & 1 == 1).map(Pfn).collect();
            prop_assert_eq!(read, want);
            let copy = Kept::all(&runs).unwrap();
            for (index, block) in file.chunks(room * 8).enumerate() {
                copy.keep_only((index * room * 8) as u64, block);
            }
            prop_assert_eq!(copy.count(), set.len() as u64);
            for p in 0..2000 { prop_assert_eq!(copy.contains(Pfn(p)), set.contains(&p)); }
            let last = Pfn(at + 1);
            let cuts = kept.cuts(3, multiple, last);
            prop_assert_eq!((cuts[0].0, cuts[2].1, cuts[0].1, cuts[1].1), (Pfn(0), last, cuts[1].0, cuts[2].0));
            for (start, end) in cuts {
                let inside = set.range(start.0..end.0).count();
                prop_assert_eq!(kept.count_between(start, end), inside as u64);
                prop_assert!(inside.abs_diff(set.len() / 3) as u64 <= 2 * multiple);
                prop_assert!((inside as u64).is_multiple_of(multiple) || end == last);
                let mut first = vec![];
                kept.take(&mut kept.cursor_from(start), 1, &mut first);
                prop_assert_eq!(first.first().map(|p| p.0), set.range(start.0..).next().copied());
            }
            for p in 0..2000 { prop_assert_eq!(kept.contains(Pfn(p)), set.contains(&p)); }
            for (from, end) in [(0, 1500), (3, 70), (64, 128), (100, 101), (700, 900)] {
                for from in from..end {
                    for wanted in [true, false] {
                        let first = (from..end).find(|p| set.contains(p) == wanted).unwrap_or(end);
                        prop_assert_eq!(kept.next(Pfn(from), Pfn(end), wanted), Pfn(first), "{} {} {}", from, end, wanted);
                    }
                }
            }
        }
    }
}
