//! The memory budget. In: the vmcore's size and what was asked for. Out: how many workers with how large batches.
//! May surprise: what was asked for is cut down to the budget, never the budget stretched.

use crate::cli::Format;
use crate::compress::Kind;
use crate::dumpfile::bitmap::Kept;
use crate::dumpfile::write::BATCH;
use crate::progress::Messages;
use crate::units::{DumpLevel, PageSize};
use crate::vmcore::read::PhysMem;

/// All workers together may take this much; the design allows 24 MiB besides the bitmap.
const WORKER_MEMORY: usize = 16 << 20;

/// The program's own data, the notes and what libraries keep.
const FIXED_MEMORY: u64 = 4 << 20;

/// Page tables at hand, struct pages being copied, stack.
const WORKER_FIXED: usize = 192 << 10;

/// How much is done at once, so that the budget is kept.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Workers.
    pub threads: usize,
    /// Pages per batch.
    pub batch: usize,
    /// What is left out.
    pub level: DumpLevel,
    /// What the dump is written as.
    pub format: Format,
    /// How pages are packed.
    pub codec: Kind,
    /// How hard the codec tries; `None` leaves it to the codec.
    pub compress_level: Option<i32>,
    /// Which messages appear.
    pub messages: Messages,
    /// Bytes of memory all this takes.
    pub bytes: u64,
}

impl Plan {
    /// As many of `threads` as fit: first batches get smaller, then workers fewer.
    pub fn within(
        mem: &dyn PhysMem,
        threads: usize,
        level: DumpLevel,
        format: Format,
        codec: Kind,
        compress_level: Option<i32>,
        messages: Messages,
    ) -> Plan {
        let page = mem.segments().page().bytes();
        // As many bytes, whatever a page is.
        let full = (BATCH * PageSize::K4.bytes() / page).max(4);
        let cost =
            |batch: usize| batch * (page + 64) + codec.room(page) + codec.context_bytes(compress_level) + WORKER_FIXED;
        let batch = if threads * cost(full) <= WORKER_MEMORY { full } else { full / 4 };
        let threads = threads.clamp(1, (WORKER_MEMORY / cost(batch)).max(1));
        let bitmap = Kept::bytes_for(mem.segments().backed());
        let bytes = FIXED_MEMORY + bitmap + (threads * cost(batch)) as u64;
        Plan { threads, batch, level, format, codec, compress_level, messages, bytes }
    }

    /// In words, for the log.
    pub(super) fn describe(&self) -> String {
        let mib = self.bytes.div_ceil(1 << 20);
        format!("Memory budget: {mib} MiB ({} workers, {} pages per batch)", self.threads, self.batch)
    }
}
