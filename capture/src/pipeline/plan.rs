//! The memory budget. In: the vmcore's size, what was asked for, what is free. Out: how many workers with how large
//! batches, and how much of the bitmap at once.
//! May surprise: what was asked for is cut down to the budget, never the budget stretched. First each worker gets less,
//! then there are fewer; the bitmap comes in windows when even so it does not fit, which costs a second filtering.

use std::fs;

use crate::cli::{Format, MemoryOptions};
use crate::compress::Kind;
use crate::dumpfile::bitmap::Kept;
use crate::dumpfile::order::Order;
use crate::dumpfile::write::BATCH;
use crate::progress::Messages;
use crate::units::{DumpLevel, PageSize, Pfn};
use crate::vmcore::read::WINDOW;
use crate::vmcore::segments::{PageRun, Segments};

const MIB: u64 = 1 << 20;

/// The budget, if memory is not short: this much, and [`PER_TIB`] for every TiB of memory.
const BASE: u64 = 24 * MIB;

/// A bitmap of pages of 4 KiB takes this much for each TiB.
const PER_TIB: u64 = 32 * MIB;

/// All workers together take no more than this.
const WORKER_MEMORY: u64 = 16 * MIB;

/// The program's own data, the notes and what libraries keep.
const FIXED_MEMORY: u64 = 4 * MIB;

/// Page tables at hand, struct pages being copied, stack.
const WORKER_FIXED: usize = 192 << 10;

/// What a worker packs at once and what it maps at once, from the best to the least.
const WORKERS: [(usize, usize); 5] = [
    (BATCH, WINDOW),
    (BATCH, WINDOW / 4),
    (BATCH / 4, WINDOW / 8),
    (BATCH / 4, WINDOW / 16),
    (BATCH / 16, WINDOW / 16),
];

/// A window of the bitmap is no smaller than this many bytes: each is filtered for itself.
const LEAST_BITMAP: u64 = 64 << 10;

/// What is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Workers.
    pub threads: usize,
    /// What is left out.
    pub level: DumpLevel,
    /// What the dump is written as.
    pub format: Format,
    /// How pages are packed.
    pub codec: Kind,
    /// How hard the codec tries; `None` leaves it to the codec.
    pub compress_level: Option<i32>,
    /// Pages are written in the order of use.
    pub by_use: bool,
    /// Which messages appear.
    pub messages: Messages,
    /// What the command line says of memory.
    pub memory: MemoryOptions,
    /// Bytes of memory that are free, if that is known.
    pub available: Option<u64>,
}

/// How much is done at once, so that the budget is kept.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Workers.
    pub threads: usize,
    /// Pages per batch.
    pub batch: usize,
    /// Bytes that each worker may map.
    pub mapped: usize,
    /// Pages per window of the bitmap.
    pub window: u64,
    /// What is left out.
    pub level: DumpLevel,
    /// What the dump is written as.
    pub format: Format,
    /// How pages are packed.
    pub codec: Kind,
    /// How hard the codec tries; `None` leaves it to the codec.
    pub compress_level: Option<i32>,
    /// Pages are written in the order of use.
    pub by_use: bool,
    /// Which messages appear.
    pub messages: Messages,
    /// Bytes of memory all this takes.
    pub bytes: u64,
}

impl Plan {
    /// As much of what is wanted as fits.
    pub fn within(segments: &Segments, wanted: &Wanted) -> Plan {
        let bitmaps = if wanted.by_use { Order::BITMAPS } else { 1 };
        let bitmap = bitmaps * Kept::bytes_for(segments.backed());
        let room = budget(segments, wanted).saturating_sub(FIXED_MEMORY);
        // A whole bitmap saves filtering twice, but not at the price of more than half of what workers could have.
        let workers = WORKER_MEMORY.min(room.saturating_sub(bitmap).max(room / 2));
        let page = segments.page().bytes();
        let codec = wanted.codec.room(page) + wanted.codec.context_bytes(wanted.compress_level, page);
        let most = wanted.memory.batch.map_or(usize::MAX, |pages| pages.saturating_mul(page));
        let sizes = WORKERS.map(|(batch, mapped)| {
            let batch = batch.min(most).max(page * 4) / page;
            (batch, mapped, (batch * (page + 64) + codec + WORKER_FIXED + mapped) as u64)
        });
        let asked = wanted.threads.max(1);
        let fits = |(_, _, cost): &&(usize, usize, u64)| asked as u64 * cost <= workers;
        let (batch, mapped, cost) = *sizes.iter().find(fits).unwrap_or(&sizes[WORKERS.len() - 1]);
        let threads = usize::try_from(workers / cost).unwrap_or(asked).clamp(1, asked);

        let left = room.saturating_sub(threads as u64 * cost);
        let at_once = wanted.memory.bitmap.unwrap_or(left).min(left).max(bitmaps * LEAST_BITMAP);
        let whole = wanted.memory.whole_bitmap || bitmap <= at_once;
        let window = if whole { u64::MAX } else { at_once / bitmaps / LEAST_BITMAP * LEAST_BITMAP * 8 };
        let bytes = FIXED_MEMORY + threads as u64 * cost + if whole { bitmap } else { at_once };
        let Wanted { level, format, codec, compress_level, by_use, messages, .. } = *wanted;
        Plan { threads, batch, mapped, window, level, format, codec, compress_level, by_use, messages, bytes }
    }

    /// The windows that hold pages, from the lowest up.
    pub(super) fn windows(&self, segments: &Segments) -> Vec<PageRun> {
        if segments.max_pfn().0 <= self.window {
            return vec![PageRun { start: Pfn(0), end: segments.max_pfn() }];
        }
        let mut windows: Vec<PageRun> = Vec::new();
        for run in segments.backed() {
            let mut start =
                windows.last().map_or(0, |window| window.end.0).max(run.start.0 / self.window * self.window);
            while start < run.end.0 {
                windows.push(PageRun { start: Pfn(start), end: Pfn(start.saturating_add(self.window)) });
                start = start.saturating_add(self.window);
            }
        }
        windows
    }

    /// In words, for the log.
    pub(super) fn describe(&self, segments: &Segments) -> String {
        let mib = self.bytes.div_ceil(MIB);
        let windows = match self.windows(segments).len() {
            0 | 1 => String::new(),
            n => format!(", bitmap in {n} windows"),
        };
        format!("Memory budget: {mib} MiB ({} workers, {} pages per batch{windows})", self.threads, self.batch)
    }
}

/// What was said, else what the design allows such a machine; in any case not more than three fifths of what is free.
fn budget(segments: &Segments, wanted: &Wanted) -> u64 {
    let pages: u64 = segments.backed().iter().map(PageRun::len).sum();
    // Of 4 KiB or larger; in pages, so that no size of memory overflows.
    let per_tib = (PER_TIB << PageSize::K4.shift()) >> segments.page().shift();
    let allowed = BASE + (pages * per_tib).div_ceil(1 << (40 - segments.page().shift()));
    let free = wanted.available.map_or(u64::MAX, |bytes| bytes / 5 * 3);
    wanted.memory.budget.unwrap_or(allowed.min(free))
}

/// `MemAvailable` of this system, in bytes.
pub(super) fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()?.checked_mul(1024)
}
