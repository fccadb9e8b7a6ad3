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

/// A file being written: begun, given one window of bitmap 2 after the other, and finished.
pub struct Writer<'a> {
    shared: Shared<'a>,
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

    /// Writes bitmap 2 and the pages of a window, the lowest one first; of a split dump only the file's own pages. When
    /// writing has stopped, what is to come is still marked in bitmap 2, as pages without data. An error means that the
    /// file holds nothing yet.
    pub fn window(&mut self, kept: &Kept, meter: &Meter) -> io::Result<()> {
        let job = self.shared.job;
        match self.bitmap(kept) {
            Err(e) if self.total == 0 => return Err(e),
            Err(e) => self.shared.turns.stop(e),
            Ok(()) => {}
        }
        let (start, end) = job.header.split.unwrap_or((Pfn(0), Pfn(u64::MAX)));
        self.total += kept.count_between(start, end);
        let (descriptor, batch) = (self.descriptor, self.batch);
        let source = Mutex::new(Source { kept, cursor: kept.cursor_from(start), end, descriptor, batch });
        workers::run(job.threads, meter, &|| self.shared.work(&source, meter))?;
        let source = source.into_inner().unwrap_or_else(PoisonError::into_inner);
        (self.descriptor, self.batch) = (source.descriptor, source.batch);
        Ok(())
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
    cursor: Cursor,
    end: Pfn,
    descriptor: u64,
    batch: u64,
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
            descriptors: Vec::with_capacity(self.job.batch),
            data: vec![0; self.job.batch * block + self.job.codec.room(block)],
            used: 0,
            last: Last::default(),
        };
        let mut codec = self.job.codec.codec(self.job.compress_level);
        let mut pages = Pages::new(self.job.mem, self.job.header.block);
        while let Some((batch, descriptor)) = self.next_batch(source, &mut arena.pfns) {
            self.pack(&mut arena, codec.as_mut(), &mut pages);
            if !self.turns.wait(batch) {
                break;
            }
            let at = FileOffset(self.at.fetch_add(arena.used as u64, Ordering::Relaxed));
            // To a file, all write at once; a stream takes one batch after the other.
            if self.out.in_order() {
                self.store(&mut arena, at, descriptor);
                self.turns.pass();
            } else {
                self.turns.pass();
                self.store(&mut arena, at, descriptor);
            }
            meter.add(arena.pfns.len() as u64);
        }
        guard.off();
    }

    fn next_batch(&self, source: &Mutex<Source<'_>>, pfns: &mut Vec<Pfn>) -> Option<(u64, u64)> {
        pfns.clear();
        let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
        let source = &mut *source;
        if self.turns.stopped() {
            return None;
        }
        source.kept.take(&mut source.cursor, self.job.batch, pfns);
        pfns.truncate(pfns.partition_point(|pfn| *pfn < source.end));
        if pfns.is_empty() {
            return None;
        }
        let taken = (source.batch, source.descriptor);
        source.batch += 1;
        source.descriptor += pfns.len() as u64;
        Some(taken)
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
    fn store(&self, arena: &mut Arena, at: FileOffset, first: u64) {
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
        let place = FileOffset(self.job.header.descriptors_at().0 + first * DESCRIPTOR as u64);
        let (_, second) = write_all(self.out, place, &bytes);
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
}

/// Whether every byte is zero, 128 bytes at a time so that the loop becomes vector instructions.
pub fn is_zero(page: &[u8]) -> bool {
    let (chunks, rest) = page.as_chunks::<128>();
    chunks.iter().all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0) && rest.iter().all(|byte| *byte == 0)
}
