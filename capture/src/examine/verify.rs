//! Whether a dump is sound. In: a file. Out: [`Verdict`]: each thing that is wrong, and totals.
//! May surprise: an incomplete dump is not sound, even if it says so itself; and the sha256 in status.json is one more
//! thing to compare, not a replacement for looking at every page.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::dumpfile::flat_file::StreamFacts;
use crate::dumpfile::layout::{Descriptor, INCOMPLETE};
use crate::dumpfile::memory::ones;
use crate::dumpfile::read::{Dump, Source};
use crate::error::{Error, chain};
use crate::input::{Format, Recognised, elf_is_incomplete};
use crate::progress::{Messages, Meter};
use crate::units::{FileOffset, Pfn, to_usize};
use crate::vmcore::Vmcore;
use crate::vmcore::read::PhysMem;
use crate::workers;

use super::{open, plain};

/// So many problems are named; further ones are counted.
const NAMED: usize = 20;

/// Descriptors a worker takes at once.
const BATCH: usize = 1024;

/// Bytes read at once for a checksum, and of a status.json that is looked at.
const PIECE: usize = 1 << 20;

/// What was found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verdict {
    /// Nothing is wrong.
    pub sound: bool,
    /// Pages looked at.
    pub pages: u64,
    /// Pages that are what they should be.
    pub good: u64,
    /// Pages that cannot be read back.
    pub damaged: u64,
    /// Pages that were not saved.
    pub missing: u64,
    /// What the stream is like, if it is flattened.
    pub stream: Option<Stream>,
    /// Whether the file's sha256 was compared with status.json.
    pub sha256_compared: bool,
    /// What is wrong, the first of it.
    pub problems: Vec<String>,
    /// How much more is wrong.
    pub more_problems: u64,
}

/// What a flattened stream is like. None of this is wrong: this program rewrites the header at the end of a stream, and
/// a stream that was read off a raw device is followed by what was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Stream {
    /// Records.
    pub records: u64,
    /// Bytes that a later record has once more.
    pub overlapping: u64,
    /// Bytes behind the end record.
    pub trailing: u64,
}

impl Stream {
    /// And why the stream is not whole.
    fn of(facts: &StreamFacts) -> (Stream, Option<String>) {
        let StreamFacts { records, overlapping, trailing, .. } = *facts;
        (Stream { records, overlapping, trailing }, facts.ended.as_ref().map(|ended| chain(ended)))
    }
}

impl Verdict {
    fn problem(&mut self, what: impl Into<String>) {
        if self.problems.len() < NAMED {
            self.problems.push(what.into());
        } else {
            self.more_problems += 1;
        }
    }

    fn judged(mut self) -> Verdict {
        self.sound = self.problems.is_empty();
        self
    }

    /// As people read it.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for problem in &self.problems {
            let _ = writeln!(text, "problem: {}", plain(problem));
        }
        if self.more_problems > 0 {
            let _ = writeln!(text, "and {} more", self.more_problems);
        }
        let sum = if self.sha256_compared { ", sha256 compared with status.json" } else { "" };
        let (pages, good, damaged, missing) = (self.pages, self.good, self.damaged, self.missing);
        if let Some(Stream { records, overlapping, trailing }) = self.stream {
            let _ =
                writeln!(text, "a stream of {records} records, {overlapping} bytes twice, {trailing} after its end");
        }
        let _ = writeln!(text, "{pages} pages: {good} good, {damaged} damaged, {missing} missing{sum}");
        text + if self.sound { "The dump is sound.\n" } else { "The dump is NOT sound.\n" }
    }
}

/// Checks the file at `path`.
pub(super) fn verify(path: &Path, threads: usize, messages: Messages) -> Result<Verdict, Error> {
    let (found, format) = open(path)?;
    let stream = found.storage.stream().map(Stream::of);
    let (file, len) = (found.storage.file().try_clone(), found.file_bytes);
    let mut verdict = match format {
        Format::Kdump => check(&found.storage, found.bytes, threads, messages),
        Format::Elf => elf(path, found)?,
    };
    if let Some((_, Some(why))) = &stream {
        verdict.problem(format!("the flattened dump is not whole: {why}"));
    }
    verdict.stream = stream.map(|(stream, _)| stream);
    match stated_sum(path) {
        Ok(Some(stated)) => match file.and_then(|file| sum(&file, len, messages)) {
            Ok(found) => {
                verdict.sha256_compared = true;
                if found != stated {
                    verdict.problem(format!("the sha256 is {found}, status.json says {stated}"));
                }
            }
            Err(e) => verdict.problem(format!("the file cannot be read for its sha256: {e}")),
        },
        Ok(None) => {}
        Err(why) => verdict.problem(format!("status.json cannot be read: {why}")),
    }
    Ok(verdict.judged())
}

/// An ELF vmcore has no checks of its own: its segments must be within it.
fn elf(path: &Path, found: Recognised) -> Result<Verdict, Error> {
    let marked = elf_is_incomplete(&found.storage);
    let vmcore = Vmcore::of(found.storage, found.bytes, path, false, None)?;
    let segments = vmcore.segments();
    let mut verdict = Verdict::default();
    vmcore.problems.iter().for_each(|problem| verdict.problem(problem));
    if marked {
        verdict.problem("the dump is incomplete, as its header says");
    }
    verdict.good = segments.backed().iter().map(|run| run.len()).sum();
    verdict.missing = segments.missing_pages();
    verdict.pages = verdict.good + verdict.missing;
    if segments.missing_bytes() > 0 {
        verdict.problem(format!("the file is {} bytes shorter than its headers say", segments.missing_bytes()));
    }
    Ok(verdict)
}

/// Checks the kdump-compressed dump of `len` bytes in `source`, on `threads` threads.
pub fn check(source: &dyn Source, len: u64, threads: usize, messages: Messages) -> Verdict {
    let mut verdict = Verdict::default();
    if let Err(e) = kdump(source, len, threads, messages, &mut verdict) {
        verdict.problem(e.to_string());
    }
    verdict.judged()
}

fn kdump(source: &dyn Source, len: u64, threads: usize, messages: Messages, verdict: &mut Verdict) -> io::Result<()> {
    let dump = Dump::open(source)?;
    let header = &dump.header;
    if header.status & INCOMPLETE != 0 {
        verdict.problem("the dump is incomplete, as its header says");
    }
    let kept = bitmaps(source, &dump, verdict)?;
    let data = header.data_at(kept);
    if data.0 > len {
        verdict.problem(format!("the file ends at {len}, within its {kept} descriptors, which end at {data}"));
    }
    let meter = Meter::new("Checking pages", kept, header.block.bytes() as u64, messages);
    let shared = Shared { next: AtomicU64::new(0), kept, data, len, found: Mutex::default() };
    workers::run(threads, &meter, &|| shared.work(dump.another(), &meter))?;
    let mut found = shared.found.into_inner().unwrap_or_else(PoisonError::into_inner);
    verdict.pages = found.good + found.damaged + found.missing;
    (verdict.good, verdict.damaged, verdict.missing) = (found.good, found.damaged, found.missing);
    if found.missing > 0 {
        verdict.problem(format!("{} pages could not be saved when the dump was written", found.missing));
    }
    found.bad.sort_by_key(|(index, _)| *index);
    found.bad.truncate(NAMED);
    let named = found.bad.len() as u64;
    let pfns = pfns(&dump, &found.bad)?;
    for ((index, why), pfn) in found.bad.into_iter().zip(pfns) {
        verdict.problem(format!("page {pfn} (descriptor {index}): {why}"));
    }
    verdict.more_problems += found.damaged.saturating_sub(named);
    if let Some(e) = found.unread {
        verdict.problem(e.to_string());
    }
    Ok(())
}

/// Bitmap 2 must be within bitmap 1, and neither beyond the highest page frame; returns the count of bitmap 2.
fn bitmaps(source: &dyn Source, dump: &Dump<'_>, verdict: &mut Verdict) -> io::Result<u64> {
    let header = &dump.header;
    let (mut first, mut kept, mut outside, mut beyond) = (Vec::new(), 0, 0, 0);
    dump.bitmap(header.bitmap2_at(), &mut |at, second| {
        first.resize(second.len(), 0);
        let got = source.read_at(FileOffset(header.bitmap1_at().0 + at), &mut first)?;
        first[got..].fill(0);
        kept += ones(second);
        outside += first.iter().zip(second).map(|(a, b)| u64::from((b & !a).count_ones())).sum::<u64>();
        // The first byte that is not wholly within the highest page frame, and those after it.
        let edge = (header.max_pfn.0 / 8).saturating_sub(at);
        let start = to_usize(edge).unwrap_or(usize::MAX).min(second.len());
        let inside = if edge < second.len() as u64 && header.max_pfn.0 / 8 >= at { header.max_pfn.0 % 8 } else { 0 };
        for bytes in [&first, second] {
            beyond += ones(&bytes[start..]);
            if let Some(byte) = bytes.get(start).filter(|_| inside > 0) {
                beyond -= u64::from((byte & ((1 << inside) - 1)).count_ones());
            }
        }
        Ok(())
    })?;
    if outside > 0 {
        verdict.problem(format!("bitmap 2 has {outside} pages that bitmap 1 does not have"));
    }
    if beyond > 0 {
        verdict.problem(format!("the bitmaps have {beyond} pages beyond the highest page frame {}", header.max_pfn));
    }
    Ok(kept)
}

/// The page frames of some descriptors, which are in order.
fn pfns(dump: &Dump<'_>, bad: &[(u64, String)]) -> io::Result<Vec<Pfn>> {
    let (mut found, mut before) = (Vec::new(), 0);
    let mut wanted = bad.iter().map(|(index, _)| *index).peekable();
    dump.bitmap(dump.header.bitmap2_at(), &mut |at, block| {
        let end = before + ones(block);
        while let Some(index) = wanted.next_if(|index| *index < end) {
            let bits = (0..block.len() as u64 * 8).filter(|bit| {
                let byte = to_usize(bit / 8).and_then(|byte| block.get(byte)).copied().unwrap_or(0);
                byte >> (bit % 8) & 1 == 1
            });
            let nth = to_usize(index - before).unwrap_or(usize::MAX);
            found.extend(bits.map(|bit| Pfn(at * 8 + bit)).nth(nth));
        }
        before = end;
        Ok(())
    })?;
    Ok(found)
}

/// What the workers found so far.
#[derive(Default)]
struct Found {
    good: u64,
    damaged: u64,
    missing: u64,
    /// Descriptors that are wrong, and why; the first of each worker's batch.
    bad: Vec<(u64, String)>,
    unread: Option<io::Error>,
}

struct Shared {
    next: AtomicU64,
    kept: u64,
    /// Where the data begins, and where the file ends.
    data: FileOffset,
    len: u64,
    found: Mutex<Found>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, mut dump: Dump<'_>, meter: &Meter) {
        let mut descriptors = Vec::with_capacity(BATCH);
        loop {
            let first = self.next.fetch_add(BATCH as u64, Ordering::Relaxed);
            let count = self.kept.saturating_sub(first).min(BATCH as u64);
            if count == 0 {
                return;
            }
            descriptors.clear();
            let read = dump.descriptors(first, to_usize(count).unwrap_or(0), &mut descriptors);
            let mut mine = Found::default();
            for (index, descriptor) in (first..).zip(&descriptors) {
                match self.page(&mut dump, descriptor) {
                    Ok(true) => mine.good += 1,
                    Ok(false) => mine.missing += 1,
                    Err(why) => {
                        mine.damaged += 1;
                        if mine.bad.len() < NAMED {
                            mine.bad.push((index, why));
                        }
                    }
                }
            }
            meter.add(count);
            let mut found = self.lock();
            found.good += mine.good;
            found.damaged += mine.damaged;
            found.missing += mine.missing;
            found.bad.append(&mut mine.bad);
            if found.bad.len() > 4 * NAMED {
                found.bad.sort_by_key(|(index, _)| *index);
                found.bad.truncate(NAMED);
            }
            if let Err(e) = read {
                found.unread.get_or_insert(e);
                // Beyond the end of the file there is nothing to see.
                self.next.fetch_max(self.kept, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Whether the page is there; or what is wrong with it.
    fn page(&self, dump: &mut Dump<'_>, descriptor: &Descriptor) -> Result<bool, String> {
        if descriptor.is_missing() {
            return Ok(false);
        }
        let end = descriptor.offset.checked_add(u64::from(descriptor.size)).filter(|end| *end <= self.len);
        if descriptor.offset < self.data.0 || end.is_none() {
            return Err(format!("its {} bytes at {:#x} are not in the data", descriptor.size, descriptor.offset));
        }
        dump.page(descriptor).map(|page| page.is_some()).map_err(|e| chain(&e))
    }
}

/// The sha256 that status.json beside `path` has for it; `None` if there is none.
fn stated_sum(path: &Path) -> Result<Option<String>, String> {
    let status = path.with_file_name("status.json");
    let file = match File::open(&status) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.to_string()),
    };
    let mut text = vec![0; PIECE];
    let got = Source::read_at(&file, FileOffset(0), &mut text).map_err(|e| e.to_string())?;
    let status: serde_json::Value = serde_json::from_slice(&text[..got]).map_err(|e| e.to_string())?;
    let name = path.file_name().and_then(|name| name.to_str());
    let files = status["files"].as_array().map(Vec::as_slice).unwrap_or_default();
    let entry = files.iter().find(|file| name.is_some() && file["name"].as_str() == name);
    Ok(entry.and_then(|entry| entry["sha256"].as_str()).map(str::to_lowercase))
}

fn sum(file: &File, len: u64, messages: Messages) -> io::Result<String> {
    let meter = Meter::new("Checking the sha256", len, 1, messages);
    let result = Mutex::new(Ok(String::new()));
    workers::run(1, &meter, &|| {
        let (mut hasher, mut piece, mut at) = (Sha256::new(), vec![0; PIECE], 0);
        let read = loop {
            match Source::read_at(file, FileOffset(at), &mut piece) {
                Ok(0) => break Ok(()),
                Ok(got) => {
                    hasher.update(&piece[..got]);
                    at += got as u64;
                    meter.add(got as u64);
                }
                Err(e) => break Err(e),
            }
        };
        let hex = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        *result.lock().unwrap_or_else(PoisonError::into_inner) = read.map(|()| hex);
    })?;
    result.into_inner().unwrap_or_else(PoisonError::into_inner)
}
