//! Looks for pages of zeros among those that are kept, on all threads. In: the kept pages. Out: how many hold only zeros.
//! May surprise: neighbours are read together, since /proc/kcore is read by system calls; where that fails each is read
//! alone, so that a bad page costs itself.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::dumpfile::bitmap::Kept;
use crate::dumpfile::write::is_zero;
use crate::progress::Meter;
use crate::units::PageSize;
use crate::vmcore::read::{Pages, PhysMem};
use crate::workers;

/// Pages that a worker takes at once.
const BATCH: usize = 512;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// Pages of zeros.
    pub(super) zero: u64,
    /// Pages that cannot be read.
    pub(super) unreadable: u64,
}

/// Reads all pages of `kept`.
pub(super) fn count(
    mem: &dyn PhysMem,
    kept: &Kept,
    page: PageSize,
    threads: usize,
    meter: &Meter,
) -> io::Result<Found> {
    let cursor = Mutex::new(kept.cursor());
    let (zero, unreadable) = (AtomicU64::new(0), AtomicU64::new(0));
    workers::run(threads, meter, &|| {
        let (mut reader, mut pages) = (mem.reader(), Pages::new(mem, page));
        let most = (reader.longest() / page.bytes()).max(1);
        let mut pfns = Vec::with_capacity(BATCH);
        loop {
            pfns.clear();
            kept.take(&mut cursor.lock().unwrap_or_else(PoisonError::into_inner), BATCH, &mut pfns);
            if pfns.is_empty() {
                break;
            }
            for run in pfns.chunk_by(|a, b| a.0 + 1 == b.0).flat_map(|run| run.chunks(most)) {
                let together = run.first().and_then(|first| page.address(*first));
                let together = together.and_then(|at| reader.bytes(at, run.len() * page.bytes()).ok());
                if let Some(bytes) = together {
                    let found = bytes.chunks(page.bytes()).filter(|page| is_zero(page)).count();
                    zero.fetch_add(found as u64, Ordering::Relaxed);
                    continue;
                }
                for pfn in run {
                    match pages.page(*pfn).map(is_zero) {
                        Ok(found) => zero.fetch_add(found.into(), Ordering::Relaxed),
                        Err(_) => unreadable.fetch_add(1, Ordering::Relaxed),
                    };
                }
            }
            meter.add(pfns.len() as u64);
        }
    })?;
    Ok(Found { zero: zero.into_inner(), unreadable: unreadable.into_inner() })
}
