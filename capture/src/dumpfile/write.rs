//! Writes the dump. In: kept pages and a header. Out: the file, and what became of each page.
//! May surprise: workers take batches of pages from one cursor, pack them into an arena of their own, and only then
//! wait for their turn to be told where in the file their data goes. So there is one lock per batch, no writer that all
//! wait for, and the same bytes with any number of workers. A page with the bytes of the one before it is not packed
//! again: both descriptors lead to the same data (an eighth to a quarter of what level 31 keeps is such pages).
//!
//! The header says "incomplete" from the start, and is rewritten when the last page is in: whatever ends the program
//! early leaves a file that says so. When the disk fills up, what fits is kept: descriptors of data that did not fit
//! stay zero, which readers take as missing.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::compress::{Codec, Kind};
use crate::output::{Output, write_all};
use crate::progress::Meter;
use crate::units::{FileOffset, PageSize, Pfn, to_usize};
use crate::vmcore::read::{Pages, PhysMem};
use crate::workers;

use super::bitmap::{Cursor, Kept};
use super::layout::{DESCRIPTOR, Descriptor, Header, INCOMPLETE};
use super::order::{Order, Use};
use super::runs::Present;
use super::turn::Turns;

/// Bytes of pages in a batch, before they are packed.
pub const BATCH: usize = 1 << 20;

/// A page like the one before it shares that one's data, but not across so many bytes of pages: batches of any multiple
/// of it give the same file, and so does a dump that is split there.
const ALIKE: usize = 256 << 10;

/// How many pages that is, at least one.
pub fn alike(page: PageSize) -> usize {
    (ALIKE >> page.shift()).max(1)
}

/// What is to be written.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The machine's memory.
    pub mem: &'a dyn PhysMem,
    /// Bitmap 1.
    pub present: Present<'a>,
    /// How many pages are kept, in all windows and files.
    pub kept: u64,
    /// The header; its status is written with "incomplete" added until the end.
    pub header: &'a Header,
    /// The bytes of the notes.
    pub notes: &'a [u8],
    /// The text that says what was erased; comes last, so it is there only if all pages are.
    pub eraseinfo: &'a [u8],
    /// How pages are packed.
    pub codec: Kind,
    /// How hard the codec tries; `None` leaves it to the codec.
    pub compress_level: Option<i32>,
    /// Number of workers.
    pub threads: usize,
    /// Pages per batch.
    pub batch: usize,
    /// Something makes the dump incomplete whatever becomes of its pages, so its header says so for good.
    pub incomplete: bool,
}

impl std::fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("header", self.header).field("codec", &self.codec).finish_non_exhaustive()
    }
}

/// What became of the pages.
#[derive(Debug, Default)]
pub struct Written {
    /// Pages whose data is in the file, pages of zeros not counted.
    pub saved: u64,
    /// Pages of zeros; they share one piece of data.
    pub zero: u64,
    /// Pages the source did not give.
    pub unreadable: u64,
    /// Pages whose data did not fit.
    pub lost: u64,
    /// Where the file ends.
    pub bytes: u64,
    /// What ended the writing early.
    pub stopped: Option<io::Error>,
}

impl Written {
    /// Adds another file of a split dump.
    pub fn add(&mut self, other: Written) {
        self.saved += other.saved;
        self.zero += other.zero;
        self.unreadable += other.unreadable;
        self.lost += other.lost;
        self.bytes += other.bytes;
        self.stopped = self.stopped.take().or(other.stopped);
    }
}

/// A file being written: begun, given one window of bitmap 2 after the other, and finished. The pages of a window come
/// with it, or, in the order of use, in several passes over all windows.
pub struct Writer<'a> {
    shared: Shared<'a>,
    /// How many pages of this pass lie in the windows before.
    descriptor: u64,
    batch: u64,
    /// Pages that should be in the file.
    total: u64,
}

impl std::fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("job", &self.shared.job).field("total", &self.total).finish_non_exhaustive()
    }
}

impl<'a> Writer<'a> {
    /// Writes what comes before the pages, but for bitmap 2. An error means that not even that fits.
    pub fn begin(job: Job<'a>, out: &'a dyn Output) -> io::Result<Writer<'a>> {
        // Of a split dump each file has room for the descriptors of all pages.
        let data_at = job.header.data_at(job.kept);
        let block = job.header.block.bytes();
        out.reserve(data_at.0)?;
        put_header(&job, out, INCOMPLETE)?;
        write_all(out, FileOffset(block as u64), &job.header.sub_header()).1?;
        write_all(out, job.header.notes_at(), job.notes).1?;
        // Who follows a stream is to know what bitmaps are before they come.
        out.flush()?;
        let base = job.header.bitmap1_at().0;
        job.present.blocks(&mut |at, bytes| write_all(out, FileOffset(base + at), bytes).1)?;
        let shared = Shared {
            job,
            out,
            zero: Descriptor { offset: data_at.0, size: u32::try_from(block).unwrap_or(u32::MAX), flags: 0 },
            turns: Turns::default(),
            at: AtomicU64::new(data_at.0 + block as u64),
            counts: Counts::default(),
        };
        Ok(Writer { shared, descriptor: 0, batch: 0, total: 0 })
    }

    /// Writes bitmap 2 of a window, the lowest one first. When writing has stopped, what is to come is still marked in it,
    /// as pages without data. An error means that the file holds nothing yet.
    pub fn window(&mut self, kept: &Kept) -> io::Result<()> {
        match self.bitmap(kept) {
            Err(e) if self.total == 0 => return Err(e),
            Err(e) => self.shared.turns.stop(e),
            Ok(()) => {}
        }
        let (start, end) = self.range();
        self.total += kept.count_between(start, end);
        Ok(())
    }

    /// Writes the pages of a window, the lowest one first, or those of one use; of a split dump only the file's own.
    pub fn pages(&mut self, kept: &Kept, of: Option<(&Order, Use)>, meter: &Meter) -> io::Result<()> {
        let (start, end) = self.range();
        let number = Numbers { next: self.descriptor, at: start };
        let source = Mutex::new(Source { kept, of, cursor: kept.cursor_from(start), end, number, batch: self.batch });
        workers::run(self.shared.job.threads, meter, &|| self.shared.work(&source, meter))?;
        self.batch = source.into_inner().unwrap_or_else(PoisonError::into_inner).batch;
        self.descriptor += kept.count_between(start, end);
        Ok(())
    }

    /// The next pass over all windows begins; false if there is no use in it, as writing has stopped.
    pub fn again(&mut self) -> bool {
        self.descriptor = 0;
        !self.shared.turns.stopped()
    }

    /// The pages that are the file's own.
    fn range(&self) -> (Pfn, Pfn) {
        self.shared.job.header.split.unwrap_or((Pfn(0), Pfn(u64::MAX)))
    }

    fn bitmap(&self, kept: &Kept) -> io::Result<()> {
        let Shared { job, out, zero, .. } = &self.shared;
        let base = job.header.bitmap2_at().0;
        kept.blocks(&mut |at, bytes| write_all(*out, FileOffset(base + at), bytes).1)?;
        out.flush()?;
        if self.total > 0 {
            Ok(())
        } else {
            write_all(*out, FileOffset(zero.offset), &vec![0; job.header.block.bytes()]).1
        }
    }

    /// Marks the dump as complete, if it is.
    pub fn finish(self) -> Written {
        let Writer { shared, total, .. } = self;
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let counts = &shared.counts;
        let mut written = Written {
            saved: count(&counts.saved),
            zero: count(&counts.zero),
            unreadable: count(&counts.unreadable),
            bytes: count(&counts.end).max(shared.zero.offset + u64::from(shared.zero.size)),
            ..Written::default()
        };
        written.lost = total - (written.saved + written.zero + written.unreadable).min(total);
        written.stopped = shared.turns.into_stopped();
        if written.stopped.is_none() {
            let job = &shared.job;
            written.stopped = put_eraseinfo(job.header, job.eraseinfo, shared.out, &mut written.bytes).err();
        }
        if written.stopped.is_none() && written.unreadable == 0 && !shared.job.incomplete {
            written.stopped = put_header(&shared.job, shared.out, 0).err();
        }
        written
    }
}

fn put_header(job: &Job<'_>, out: &dyn Output, status: u32) -> io::Result<()> {
    let header = Header { status: job.header.status | status, ..job.header.clone() };
    write_all(out, FileOffset(0), &header.header_block()).1
}

/// Writes what was erased to the end of the file, which then lies further on; nothing if that is nothing.
pub(super) fn put_eraseinfo(header: &Header, text: &[u8], out: &dyn Output, end: &mut u64) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let place = (FileOffset(*end), text.len() as u64);
    write_all(out, place.0, text).1?;
    *end += place.1;
    let header = Header { eraseinfo: Some(place), ..header.clone() };
    write_all(out, FileOffset(header.block.bytes() as u64), &header.sub_header()).1
}

/// Where the next batch comes from.
struct Source<'a> {
    kept: &'a Kept,
    of: Option<(&'a Order, Use)>,
    cursor: Cursor,
    end: Pfn,
    number: Numbers,
    batch: u64,
}

/// Counts descriptors: each kept page has one, in the order of page frames.
struct Numbers {
    /// That of the first kept page from `at` on.
    next: u64,
    at: Pfn,
}

impl Numbers {
    /// The descriptor of `pfn`, which is kept, and not below those that were asked for before.
    fn of(&mut self, kept: &Kept, pfn: Pfn) -> u64 {
        if self.at < pfn {
            self.next += kept.count_between(self.at, pfn);
            self.at = pfn;
        }
        self.next
    }

    /// Counts `pages` pages that follow each other.
    fn pass(&mut self, pages: u64, last: Pfn) {
        (self.next, self.at) = (self.next + pages, Pfn(last.0.saturating_add(1)));
    }
}

#[derive(Default)]
struct Counts {
    saved: AtomicU64,
    zero: AtomicU64,
    unreadable: AtomicU64,
    end: AtomicU64,
}

struct Shared<'a> {
    job: Job<'a>,
    out: &'a dyn Output,
    zero: Descriptor,
    turns: Turns,
    /// Where the next batch goes; only read and written by the worker whose turn it is.
    at: AtomicU64,
    counts: Counts,
}

/// A page of zeros, while descriptors count from the start of a batch's data: no page of it can lie there.
const ZERO: Descriptor = Descriptor { offset: u64::MAX, size: 1, flags: 0 };

/// One worker's memory.
struct Arena {
    pfns: Vec<Pfn>,
    /// For each page which descriptor is its.
    numbers: Vec<u64>,
    descriptors: Vec<Descriptor>,
    data: Vec<u8>,
    used: usize,
    last: Last,
}

/// The page packed last, to compare the next one with.
#[derive(Default)]
struct Last {
    descriptor: Descriptor,
    /// Its bytes, if those in the arena are packed.
    plain: Vec<u8>,
}

impl Arena {
    fn is_like_last(&self, page: &[u8]) -> bool {
        let Descriptor { offset, size, flags } = self.last.descriptor;
        let stored = || to_usize(offset).and_then(|at| self.data.get(at..)?.get(..size as usize));
        size > 0 && page == if flags == 0 { stored().unwrap_or_default() } else { self.last.plain.as_slice() }
    }
}

impl Shared<'_> {
    fn work(&self, source: &Mutex<Source<'_>>, meter: &Meter) {
        let guard = self.turns.guard();
        let block = self.job.header.block.bytes();
        let mut arena = Arena {
            pfns: Vec::with_capacity(self.job.batch),
            numbers: Vec::with_capacity(self.job.batch),
            descriptors: Vec::with_capacity(self.job.batch),
            data: vec![0; self.job.batch * block + self.job.codec.room(block)],
            used: 0,
            last: Last::default(),
        };
        let mut codec = self.job.codec.codec(self.job.compress_level);
        let mut pages = Pages::new(self.job.mem, self.job.header.block);
        while let Some(batch) = self.next_batch(source, &mut arena) {
            self.pack(&mut arena, codec.as_mut(), &mut pages);
            if !self.turns.wait(batch) {
                break;
            }
            let at = FileOffset(self.at.fetch_add(arena.used as u64, Ordering::Relaxed));
            // To a file, all write at once; a stream takes one batch after the other.
            if self.out.in_order() {
                self.store(&arena, at);
                self.turns.pass();
            } else {
                self.turns.pass();
                self.store(&arena, at);
            }
            meter.add(arena.pfns.len() as u64);
        }
        guard.off();
    }

    fn next_batch(&self, source: &Mutex<Source<'_>>, arena: &mut Arena) -> Option<u64> {
        let Arena { pfns, numbers, .. } = arena;
        pfns.clear();
        numbers.clear();
        let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
        let source = &mut *source;
        if self.turns.stopped() {
            return None;
        }
        match source.of {
            None => source.kept.take(&mut source.cursor, self.job.batch, pfns),
            Some((order, use_)) => order.take(use_, source.kept, &mut source.cursor, self.job.batch, pfns),
        }
        pfns.truncate(pfns.partition_point(|pfn| *pfn < source.end));
        let last = *pfns.last()?;
        let (kept, number) = (source.kept, &mut source.number);
        if source.of.is_none() {
            // All that is kept comes, one after the other.
            numbers.extend((number.next..).take(pfns.len()));
            number.pass(pfns.len() as u64, last);
        } else {
            numbers.extend(pfns.iter().map(|pfn| number.of(kept, *pfn)));
        }
        source.batch += 1;
        Some(source.batch - 1)
    }

    /// Packs the batch; descriptors count from the start of its data.
    fn pack(&self, arena: &mut Arena, codec: &mut dyn Codec, pages: &mut Pages<'_>) {
        arena.descriptors.clear();
        arena.used = 0;
        let alike = alike(self.job.header.block);
        for (index, pfn) in arena.pfns.iter().enumerate() {
            if index.is_multiple_of(alike) {
                arena.last.descriptor = Descriptor::default();
            }
            let Ok(page) = pages.page(*pfn) else {
                arena.descriptors.push(Descriptor::default());
                continue;
            };
            if is_zero(page) {
                arena.descriptors.push(ZERO);
                continue;
            }
            if arena.is_like_last(page) {
                arena.descriptors.push(arena.last.descriptor);
                continue;
            }
            let free = &mut arena.data[arena.used..];
            let (len, flags) = match codec.pack(page, free) {
                Some(len) => {
                    arena.last.plain.clear();
                    arena.last.plain.extend_from_slice(page);
                    (len, self.job.codec.flag())
                }
                None => {
                    free[..page.len()].copy_from_slice(page);
                    (page.len(), 0)
                }
            };
            let size = u32::try_from(len).unwrap_or(u32::MAX);
            arena.last.descriptor = Descriptor { offset: arena.used as u64, size, flags };
            arena.descriptors.push(arena.last.descriptor);
            arena.used += len;
        }
    }

    /// Writes data, then descriptors: a descriptor never points to data that is not there.
    fn store(&self, arena: &Arena, at: FileOffset) {
        let (fitted, result) = write_all(self.out, at, &arena.data[..arena.used]);
        self.counts.end.fetch_max(at.0 + fitted as u64, Ordering::Relaxed);
        let (mut saved, mut zero, mut unreadable) = (0, 0, 0);
        let mut bytes = Vec::with_capacity(arena.descriptors.len() * DESCRIPTOR);
        for d in &arena.descriptors {
            let stored = if d.size == 0 {
                unreadable += 1;
                *d
            } else if *d == ZERO {
                zero += 1;
                self.zero
            } else if to_usize(d.offset + u64::from(d.size)).is_some_and(|end| end <= fitted) {
                saved += 1;
                Descriptor { offset: d.offset + at.0, ..*d }
            } else {
                Descriptor::default()
            };
            bytes.extend(stored.bytes());
        }
        let second = self.describe(&arena.numbers, &bytes);
        let described = second.is_ok();
        if let Err(e) = result.and(second) {
            self.turns.stop(e);
        }
        if described {
            self.counts.saved.fetch_add(saved, Ordering::Relaxed);
            self.counts.zero.fetch_add(zero, Ordering::Relaxed);
            self.counts.unreadable.fetch_add(unreadable, Ordering::Relaxed);
        }
    }

    /// Writes descriptors, those that follow each other at once.
    fn describe(&self, numbers: &[u64], mut bytes: &[u8]) -> io::Result<()> {
        for run in numbers.chunk_by(|one, next| one + 1 == *next) {
            let (these, rest) = bytes.split_at(run.len() * DESCRIPTOR);
            let place = self.job.header.descriptors_at().0 + run[0] * DESCRIPTOR as u64;
            write_all(self.out, FileOffset(place), these).1?;
            bytes = rest;
        }
        Ok(())
    }
}

/// Whether every byte is zero, 128 bytes at a time so that the loop becomes vector instructions.
pub fn is_zero(page: &[u8]) -> bool {
    let (chunks, rest) = page.as_chunks::<128>();
    chunks.iter().all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0) && rest.iter().all(|byte| *byte == 0)
}
