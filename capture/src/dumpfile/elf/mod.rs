//! The ELF dump. In: the vmcore's PT_LOADs and kept pages. Out: a core file that crash and gdb read as they read a vmcore.
//! May surprise: a page is left out by ending a segment before it, so a few dropped pages in a row are written all the
//! same ([`GAP`]). Segments are never held in a list: they follow from PT_LOADs and from [`Stretches`] of kept pages, and
//! are gone through once to be counted, once for their headers and once for their data.
//!
//! This file is the story; `stretches.rs` says what belongs together, `layout.rs` where it goes.
//!
//! ```text
//!  0           ELF header         e_flags has bit 1 (incomplete) until the very end
//!  64          program headers    PT_NOTE, then PT_LOADs in the vmcore's order
//!              section header     only with 0xffff program headers or more: their number (PN_XNUM, see elf(5))
//!              notes              copied from the vmcore
//!              data               of each PT_LOAD, at an offset congruent to its address, so that it can be mapped
//!
//!  a PT_LOAD of the vmcore    |kkkkkk.kk.........kkk.....|     k kept   . dropped
//!  becomes                    |kkkkkk.kk|        |kkk|         p_filesz
//!                             |------------------|--------|    p_memsz: together they cover the same addresses
//! ```

mod layout;
mod stretches;

pub use stretches::{GAP, Stretches};

use std::borrow::Cow;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::output::{Output, write_all};
use crate::progress::Meter;
use crate::units::{FileOffset, PageSize, Pfn, PhysAddr, to_usize};
use crate::vmcore::read::{Pages, PhysMem};
use crate::vmcore::segments::Load;
use crate::workers;

use super::bitmap::Kept;
use super::turn::Turns;
use super::write::{Written, is_zero};
use layout::{Layout, Segment, Walk};

/// `e_flags`: the dump is incomplete.
pub const INCOMPLETE: u32 = 1;

/// What is to be written.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The machine's memory.
    pub mem: &'a dyn PhysMem,
    /// The pages to keep, dropped ones between them that are too few to end a segment included.
    pub stretches: &'a Stretches,
    /// The bytes of the notes.
    pub notes: &'a [u8],
    /// The page size.
    pub page: PageSize,
    /// Number of workers.
    pub threads: usize,
    /// Pages per piece.
    pub batch: usize,
    /// Something makes the dump incomplete whatever becomes of its pages.
    pub incomplete: bool,
}

impl std::fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("page", &self.page).finish_non_exhaustive()
    }
}

/// The notes of a dump out of which something was erased: `eraseinfo` becomes one, as makedumpfile has it.
pub fn notes<'a>(notes: &'a [u8], eraseinfo: &[u8]) -> Cow<'a, [u8]> {
    let Ok(len @ 1..) = u32::try_from(eraseinfo.len()) else { return Cow::Borrowed(notes) };
    let mut all = notes.to_vec();
    all.resize(all.len().next_multiple_of(4), 0);
    for n in [10, len, 0] {
        all.extend(n.to_le_bytes());
    }
    all.extend(b"ERASEINFO\0\0\0");
    all.extend(eraseinfo);
    all.resize(all.len().next_multiple_of(4), 0);
    Cow::Owned(all)
}

/// Drops pages of `kept` that hold zeros: where segments end depends on them. So an ELF dump without zero pages reads
/// memory twice. Returns how many there were.
pub fn drop_zero_pages(mem: &dyn PhysMem, kept: &Kept, threads: usize, batch: usize, meter: &Meter) -> io::Result<u64> {
    let cursor = Mutex::new(kept.cursor());
    let dropped = AtomicU64::new(0);
    // Pages that are taken lie behind the cursor, so dropping them does not disturb it.
    let take = |pfns: &mut Vec<Pfn>| kept.take(&mut cursor.lock().unwrap_or_else(PoisonError::into_inner), batch, pfns);
    workers::run(threads, meter, &|| {
        let mut pages = Pages::new(mem, mem.segments().page());
        let mut pfns = Vec::with_capacity(batch);
        loop {
            pfns.clear();
            take(&mut pfns);
            if pfns.is_empty() {
                break;
            }
            let zero = pfns.iter().filter(|pfn| pages.page(**pfn).is_ok_and(is_zero));
            let flipped: u64 = zero.map(|pfn| kept.drop_range(*pfn, 1)).sum();
            dropped.fetch_add(flipped, Ordering::Relaxed);
            meter.add(pfns.len() as u64);
        }
    })?;
    Ok(dropped.into_inner())
}

/// Writes the dump to `out`. An error means that not even the headers fit.
pub fn write(job: &Job<'_>, out: &dyn Output, meter: &Meter) -> io::Result<Written> {
    let total = job.stretches.kept();
    let mut layout = Layout::new(job);
    layout.count = layout.segments().count() as u64;
    let end = layout.segments().last().map_or(0, |s| s.next);
    out.reserve(layout.data_at())?;
    write_all(out, FileOffset(0), &layout.elf_header(INCOMPLETE)).1?;
    layout.put_headers(out)?;
    write_all(out, FileOffset(layout.notes_at()), job.notes).1?;
    out.flush()?;

    let source = Source { segments: layout.segments(), rest: None, number: 0 };
    let shared = Shared {
        job,
        out,
        source: Mutex::new(source),
        turns: Turns::default(),
        unreadable: AtomicU64::new(0),
        done: AtomicU64::new(0),
        end: AtomicU64::new(layout.data_at()),
    };
    workers::run(job.threads, meter, &|| shared.work(meter))?;

    let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
    let mut written =
        Written { unreadable: count(&shared.unreadable), bytes: count(&shared.end), ..Written::default() };
    let done = count(&shared.done);
    written.stopped = shared.turns.into_stopped();
    written.saved = match &written.stopped {
        None => total.saturating_sub(written.unreadable),
        Some(_) => done.min(total),
    };
    written.lost = total - (written.saved + written.unreadable).min(total);
    if written.stopped.is_none() {
        written.bytes = written.bytes.max(end);
        if written.unreadable == 0 && !job.incomplete {
            written.stopped = write_all(out, FileOffset(0), &layout.elf_header(0)).1.err();
        }
    }
    Ok(written)
}

/// Where the next piece comes from.
struct Source<'a> {
    segments: Walk<'a>,
    rest: Option<Segment>,
    number: u64,
}

/// A part of a segment's data.
struct Piece {
    number: u64,
    phys: PhysAddr,
    len: usize,
    offset: FileOffset,
    load: Load,
}

impl Source<'_> {
    fn next(&mut self, job: &Job<'_>) -> Option<Piece> {
        let mut segment = match self.rest.take() {
            Some(segment) => segment,
            None => self.segments.find(|s| s.filesz > 0)?,
        };
        // Pieces end where pages do.
        let page = job.page.bytes() as u64;
        let most = job.batch as u64 * page - segment.phys.0 % page;
        let len = most.min(segment.filesz);
        let number = self.number;
        let (phys, offset) = (segment.phys, FileOffset(segment.offset));
        let piece = Piece { number, phys, len: to_usize(len)?, offset, load: segment.load };
        self.number += 1;
        segment.phys.0 += len;
        segment.offset += len;
        segment.filesz -= len;
        self.rest = Some(segment).filter(|s| s.filesz > 0);
        Some(piece)
    }
}

struct Shared<'a> {
    job: &'a Job<'a>,
    out: &'a dyn Output,
    source: Mutex<Source<'a>>,
    turns: Turns,
    unreadable: AtomicU64,
    done: AtomicU64,
    end: AtomicU64,
}

impl Shared<'_> {
    fn work(&self, meter: &Meter) {
        let guard = self.turns.guard();
        let mut pages = Pages::new(self.job.mem, self.job.page);
        let mut data = vec![0; self.job.batch * self.job.page.bytes()];
        let mut ends = Vec::with_capacity(self.job.batch);
        while let Some(piece) = self.next() {
            let data = &mut data[..piece.len];
            self.read(&piece, &mut pages, data, &mut ends);
            if !self.turns.wait(piece.number) {
                break;
            }
            if !self.out.in_order() {
                self.turns.pass();
            }
            let (fitted, result) = write_all(self.out, piece.offset, data);
            let counted = ends.iter().filter(|end| **end <= fitted).count() as u64;
            self.done.fetch_add(counted, Ordering::Relaxed);
            self.end.fetch_max(piece.offset.0 + fitted as u64, Ordering::Relaxed);
            if let Err(e) = result {
                self.turns.stop(e);
            }
            if self.out.in_order() {
                self.turns.pass();
            }
            meter.add(ends.len() as u64);
        }
        guard.off();
    }

    fn next(&self) -> Option<Piece> {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        if self.turns.stopped() { None } else { source.next(self.job) }
    }

    /// Fills `data`; `ends` are the places in it where pages end that count as saved once they are written. A page that
    /// cannot be read is zeros in the file. Memory that two PT_LOADs have is counted where the vmcore's map finds it.
    fn read(&self, piece: &Piece, pages: &mut Pages<'_>, data: &mut [u8], ends: &mut Vec<usize>) {
        ends.clear();
        let size = self.job.page.bytes() as u64;
        let mut at = 0;
        while at < data.len() {
            let phys = PhysAddr(piece.phys.0 + at as u64);
            let pfn = self.job.page.pfn(phys);
            let skip = to_usize(phys.0 % size).unwrap_or(0);
            let len = (self.job.page.bytes() - skip).min(data.len() - at);
            let found = self.job.mem.segments().find(phys).map(|(_, offset)| offset.0);
            let here = piece.load.offset.0 + (phys.0 - piece.load.phys.0);
            let ours = found == Some(here) && self.job.stretches.contains(pfn);
            let room = &mut data[at..at + len];
            match pages.page(pfn) {
                Ok(page) => {
                    room.copy_from_slice(&page[skip..skip + len]);
                    if ours {
                        ends.push(at + len);
                    }
                }
                Err(_) => {
                    room.fill(0);
                    self.unreadable.fetch_add(u64::from(ours), Ordering::Relaxed);
                }
            }
            at += len;
        }
    }
}
