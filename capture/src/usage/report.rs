//! The answer of `--mem-usage`. In: counts. Out: the table that scripts know from makedumpfile, and JSON.
//! May surprise: the words in the table's first column, its order and its last three lines are makedumpfile's; the rows
//! HWPOISON and OFFLINE and what follows the totals are ours.

use std::fmt::Write as _;

use serde::Serialize;

use crate::classify::Dropped;
use crate::dumpfile::layout::DESCRIPTOR;
use crate::units::{DumpLevel, Pfn};

/// Levels for which a size is told: all, all but zeros, without free memory too, and everything that can be left out.
const TOLD: [u8; 4] = [0, 1, 17, 31];

/// Pages by kind; `total` is the sum of the others.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct UsagePages {
    /// All that would be in a vmcore.
    pub total: u64,
    /// Pages of zeros, among those that are of no other kind.
    pub zero: u64,
    /// See [`Dropped`].
    #[serde(flatten)]
    pub dropped: Dropped,
    /// What is left: what a dump at level 31 holds.
    pub kernel_data: u64,
    /// Pages that could not be read.
    pub unreadable: u64,
}

/// What a dump would take at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// The dump level.
    pub level: u8,
    /// Bytes of a kdump-compressed file whose pages are not packed.
    pub bytes: u64,
}

/// The report of `--mem-usage`.
#[derive(Debug, Default, Clone, Serialize)]
pub struct UsageReport {
    /// The error, as one chain.
    pub error: Option<String>,
    /// The running kernel.
    pub kernel_release: Option<String>,
    /// Its machine.
    pub machine: &'static str,
    /// Bytes of a page.
    pub page_size: u64,
    /// Pages by kind.
    pub pages: UsagePages,
    /// Bytes reserved for a crash kernel; they are not counted.
    pub crash_kernel: u64,
    /// What dumps would take.
    pub dump_sizes: Vec<Estimate>,
    /// How long it took.
    pub seconds: f64,
    /// What could not be known.
    pub problems: Vec<String>,
}

impl UsageReport {
    /// Says what dumps would take; `end` is one past the last page.
    pub(super) fn estimate(&mut self, end: Pfn) {
        let p = self.pages;
        // Two bitmaps, in blocks, behind a block each for header and sub header.
        let bitmaps = 2 * (end.0.div_ceil(8)).next_multiple_of(self.page_size.max(1));
        let one = |level: u8| {
            let without = |bit: u8, pages: u64| match DumpLevel::new(level) {
                Some(level) if level.has(bit) => pages,
                _ => 0,
            };
            // Private cache is left out by level 4, which leaves out the other one too.
            let cache =
                without(DumpLevel::CACHE, p.dropped.cache) + without(DumpLevel::CACHE_PRIVATE, p.dropped.private_cache);
            let users = without(DumpLevel::USER, p.dropped.user) + without(DumpLevel::FREE, p.dropped.free);
            let pages = p.total.saturating_sub(cache + users + p.dropped.hwpoison + p.dropped.offline);
            // A page of zeros has a descriptor, which leads to the one such page in the file.
            let data = pages.saturating_sub(without(DumpLevel::ZERO, p.zero));
            Estimate { level, bytes: 2 * self.page_size + bitmaps + pages * DESCRIPTOR as u64 + data * self.page_size }
        };
        self.dump_sizes = TOLD.map(one).to_vec();
    }

    /// The table.
    pub fn table(&self) -> String {
        let p = &self.pages;
        let mut text = format!("\nTYPE\t\tPAGES\t\t\tEXCLUDABLE\tDESCRIPTION\n{}\n", "-".repeat(70));
        let rows = [
            ("ZERO", p.zero, "yes", "Nothing but zeros"),
            ("NON_PRI_CACHE", p.dropped.cache, "yes", "File cache without private data"),
            ("PRI_CACHE", p.dropped.private_cache, "yes", "File cache with private data"),
            ("USER", p.dropped.user, "yes", "Memory of user processes"),
            ("FREE", p.dropped.free, "yes", "Free memory"),
            ("HWPOISON", p.dropped.hwpoison, "yes", "Given up by the hardware"),
            ("OFFLINE", p.dropped.offline, "yes", "Ballooned or unplugged"),
            ("KERN_DATA", p.kernel_data + p.unreadable, "no", "The kernel's own data"),
        ];
        for (name, pages, excludable, description) in rows {
            let tabs = if name.len() < 8 { "\t\t" } else { "\t" };
            let _ = writeln!(text, "{name}{tabs}{pages:<16}\t{excludable}\t\t{description}");
        }
        let _ = writeln!(text, "\npage size:\t\t{:<16}", self.page_size);
        let _ = writeln!(text, "Total pages on system:\t{:<16}", p.total);
        let _ = writeln!(text, "Total size on system:\t{:<16} Byte\n", p.total * self.page_size);
        for Estimate { level, bytes } in &self.dump_sizes {
            let _ = writeln!(text, "Dump at level {level}, not packed:\t{bytes:<16} Byte");
        }
        text
    }
}
