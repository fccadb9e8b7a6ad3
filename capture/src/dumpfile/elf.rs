//! The ELF dump. In: the vmcore's PT_LOADs and kept pages. Out: a core file that crash and gdb read as they read a vmcore.
//! May surprise: a page is left out by ending a segment before it, so a few dropped pages in a row are written all the
//! same ([`GAP`]). Segments are never held in a list: they follow from PT_LOADs and from [`Stretches`] of kept pages, and
//! are gone through once to be counted, once for their headers and once for their data.
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

use std::borrow::Cow;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use goblin::elf::header::{ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_NONE, ET_CORE, EV_CURRENT};
use goblin::elf::program_header::{PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE};

use crate::output::{Output, write_all};
use crate::progress::Meter;
use crate::units::{FileOffset, PageSize, Pfn, PhysAddr, VirtAddr, to_usize};
use crate::vmcore::read::{Pages, PhysMem};
use crate::vmcore::segments::{Load, PageRun, Segments};
use crate::workers;

use super::bitmap::Kept;
use super::turn::Turns;
use super::write::{Written, is_zero};

/// As many dropped pages (of 4 KiB) in a row end a segment, fewer are written. One header is far smaller than a page, but readers
/// look through all headers for every address: so there is at most one for each MiB. It is makedumpfile's number too,
/// whose dumps readers have been tuned with.
pub const GAP: u64 = 256;

/// `e_flags`: the dump is incomplete.
pub const INCOMPLETE: u32 = 1;

const EHDR: u64 = 64;
const PHDR: u64 = 56;
const SHDR: u64 = 64;
const PN_XNUM: u64 = 0xffff;
/// Program headers are written in blocks of this many bytes.
const BLOCK: usize = 64 << 10;

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
    fn at_or_after(&self, pfn: Pfn) -> Option<&PageRun> {
        self.runs.get(self.runs.partition_point(|run| run.end <= pfn))
    }

    fn contains(&self, pfn: Pfn) -> bool {
        self.at_or_after(pfn).is_some_and(|run| run.start <= pfn)
    }
}

/// Whether one of `runs`, which are in order, has a page from `start` on below `end`.
fn touches(runs: &[PageRun], start: Pfn, end: Pfn) -> bool {
    runs.get(runs.partition_point(|run| run.end <= start)).is_some_and(|run| run.start < end)
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
    let total = job.stretches.kept;
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

/// Where everything goes.
struct Layout<'a> {
    map: &'a Segments,
    loads: Vec<Load>,
    stretches: &'a Stretches,
    page: PageSize,
    /// `e_machine`.
    machine: u16,
    notes_len: u64,
    /// PT_LOADs.
    count: u64,
}

impl<'a> Layout<'a> {
    fn new(job: &Job<'a>) -> Layout<'a> {
        let map = job.mem.segments();
        // The kernel image lies within RAM, so some memory is written twice. Headers that claim more than that are
        // damaged, and would fill any disk.
        let bytes: u64 = map.extents().iter().map(|e| e.len).sum();
        let mut claimed = 0u64;
        let sane = |load: &&Load| {
            claimed = claimed.saturating_add(load.filesz.min(bytes));
            claimed <= bytes.saturating_mul(2)
        };
        let loads = map.loads.iter().filter(sane).copied().collect();
        let machine = job.mem.arch().map_or(EM_NONE, |arch| arch.elf);
        let notes_len = job.notes.len() as u64;
        Layout { map, loads, stretches: job.stretches, page: job.page, machine, notes_len, count: 0 }
    }

    fn headers(&self) -> u64 {
        self.count + 1
    }

    fn many(&self) -> bool {
        self.headers() >= PN_XNUM
    }

    fn section_at(&self) -> u64 {
        EHDR + self.headers() * PHDR
    }

    fn notes_at(&self) -> u64 {
        self.section_at() + if self.many() { SHDR } else { 0 }
    }

    fn data_at(&self) -> u64 {
        self.notes_at() + self.notes_len
    }

    fn segments(&self) -> Walk<'_> {
        Walk { layout: self, load: 0, at: None, offset: self.data_at() }
    }

    fn elf_header(&self, flags: u32) -> Vec<u8> {
        let number = if self.many() { PN_XNUM } else { self.headers() };
        let short = |n: u64| u16::try_from(n).unwrap_or(u16::MAX).to_le_bytes();
        let (section_at, section_len, sections) = if self.many() { (self.section_at(), SHDR, 1) } else { (0, 0, 0) };
        let mut header = ELFMAG.to_vec();
        header.extend([ELFCLASS64, ELFDATA2LSB, EV_CURRENT]);
        header.resize(16, 0);
        header.extend(ET_CORE.to_le_bytes());
        header.extend(self.machine.to_le_bytes());
        header.extend(u32::from(EV_CURRENT).to_le_bytes());
        header.extend(0u64.to_le_bytes());
        header.extend(EHDR.to_le_bytes());
        header.extend(section_at.to_le_bytes());
        header.extend(flags.to_le_bytes());
        for n in [EHDR, PHDR, number, section_len, sections, 0] {
            header.extend(short(n));
        }
        header
    }

    fn put_headers(&self, out: &dyn Output) -> io::Result<()> {
        let mut at = EHDR;
        let mut block = Vec::with_capacity(BLOCK + 256);
        let notes = (self.notes_at(), self.notes_len);
        program_header(&mut block, PT_NOTE, 0, [notes.0, 0, 0, notes.1, notes.1]);
        for s in self.segments() {
            program_header(&mut block, PT_LOAD, PF_R | PF_W | PF_X, [s.offset, s.virt.0, s.phys.0, s.filesz, s.memsz]);
            if block.len() >= BLOCK {
                write_all(out, FileOffset(at), &block).1?;
                at += block.len() as u64;
                block.clear();
            }
        }
        if self.many() {
            let mut section = vec![0; to_usize(SHDR).unwrap_or(0)];
            let number = u32::try_from(self.headers()).map_err(|_| io::ErrorKind::FileTooLarge)?;
            section[44..48].copy_from_slice(&number.to_le_bytes()); // sh_info
            block.extend(section);
        }
        write_all(out, FileOffset(at), &block).1
    }

    /// The first page from `from` on, below `end`, that is written for itself; `end` if there is none. `end` is where a
    /// PT_LOAD's data ends, in part of a page perhaps: such a page has no bit of its own and is kept if the vmcore has it.
    fn next_kept(&self, from: Pfn, end: PhysAddr) -> Pfn {
        let whole = self.page.pfn(end);
        let next = || self.stretches.at_or_after(from).map_or(whole, |run| run.start.max(from).min(whole));
        let found = if from < whole { next() } else { from };
        if found < whole || whole.0 << self.page.shift() == end.0 {
            return found;
        }
        let start = PhysAddr(whole.0 << self.page.shift());
        let present = self.map.present();
        let run = present.get(present.partition_point(|run| run.end <= whole));
        let judged = run.is_some_and(|run| run.start <= whole);
        let wanted = if judged {
            self.stretches.contains(whole)
        } else {
            self.map.at_or_after(start).is_some_and(|e| e.start < end)
        };
        if from <= whole && wanted { whole } else { Pfn(whole.0 + 1) }
    }
}

/// The five numbers: offset, virtual and physical address, bytes in the file and in memory.
fn program_header(block: &mut Vec<u8>, kind: u32, flags: u32, numbers: [u64; 5]) {
    block.extend(kind.to_le_bytes());
    block.extend(flags.to_le_bytes());
    for n in numbers {
        block.extend(n.to_le_bytes());
    }
    block.extend(0u64.to_le_bytes()); // p_align: as the kernel has it
}

/// A PT_LOAD of the dump.
#[derive(Clone, Copy, Debug)]
struct Segment {
    phys: PhysAddr,
    virt: VirtAddr,
    offset: u64,
    filesz: u64,
    memsz: u64,
    /// Where the next one's data may begin.
    next: u64,
    /// The PT_LOAD of the vmcore that it is part of.
    load: Load,
}

/// Goes through all segments.
struct Walk<'a> {
    layout: &'a Layout<'a>,
    load: usize,
    at: Option<PhysAddr>,
    offset: u64,
}

impl Iterator for Walk<'_> {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        let (layout, page) = (self.layout, self.layout.page);
        let (load, at, end) = loop {
            let load = layout.loads.get(self.load)?;
            let (at, end) = (self.at.unwrap_or(load.phys), PhysAddr(load.phys.0 + load.memsz));
            if at < end {
                break (load, at, end);
            }
            self.load += 1;
            self.at = None;
        };
        // What lies behind `p_filesz` has no data here, even if another PT_LOAD has it.
        let limit = PhysAddr(load.phys.0 + load.filesz);
        let last = Pfn(limit.0.div_ceil(page.bytes() as u64));
        let mut data_end = page.pfn(at);
        let stop = loop {
            let kept = layout.next_kept(data_end, limit);
            if kept >= last {
                break end;
            }
            if kept > data_end {
                break PhysAddr(kept.0 << page.shift());
            }
            let whole = page.pfn(limit);
            let end = layout.stretches.at_or_after(kept).map_or(kept, |run| run.end);
            data_end = if kept < whole { end.min(whole) } else { last };
        };
        let data_end = (data_end.0 << page.shift()).min(limit.0).max(at.0);
        let filesz = data_end - at.0;
        let offset = if filesz == 0 { 0 } else { congruent(self.offset, at, page) };
        if filesz > 0 {
            self.offset = offset.saturating_add(filesz);
        }
        self.at = Some(stop);
        let virt = VirtAddr(load.virt.0.wrapping_add(at.0 - load.phys.0));
        Some(Segment { phys: at, virt, offset, filesz, memsz: stop.0 - at.0, next: self.offset, load: *load })
    }
}

/// The first position from `offset` on that lies in its page where `at` lies in its own.
fn congruent(offset: u64, at: PhysAddr, page: PageSize) -> u64 {
    let mask = page.bytes() as u64 - 1;
    offset.saturating_add(at.0.wrapping_sub(offset) & mask)
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
