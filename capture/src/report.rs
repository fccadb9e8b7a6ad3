//! What happened, for machines and for people. In: what the pipeline found. Out: `--report`'s JSON, and the statistics.
//! May surprise: init copies the JSON into status.json as it is, so its keys are a contract; it is written whatever
//! happened, as far as things are known.

use std::fmt::Write as _;

use serde::Serialize;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// All that was asked for is in the file.
    Complete,
    /// The file can be used, but something is missing from it.
    Incomplete,
    /// There is nothing to use.
    #[default]
    Failed,
}

/// Pages by kind; `total` is the sum of the others, less the pages that did not fit.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PageCounts {
    /// Pages the vmcore's headers promise.
    pub total: u64,
    /// Pages whose data was written.
    pub kept: u64,
    /// Pages of zeros left out by level 1.
    pub zero: u64,
    /// See [`crate::classify::Dropped`].
    #[serde(flatten)]
    pub dropped: crate::classify::Dropped,
    /// Pages the vmcore promises and does not give.
    pub unreadable: u64,
}

/// Duration of each phase, in seconds.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub struct Seconds {
    /// Headers, vmcoreinfo, log.
    pub open: f64,
    /// Bitmap 2.
    pub filter: f64,
    /// The file.
    pub write: f64,
}

/// The report of a dump.
#[derive(Debug, Default, Clone, Serialize)]
pub struct DumpReport {
    /// How it ended.
    pub outcome: Outcome,
    /// The error, as one chain.
    pub error: Option<String>,
    /// `kdump-compressed` or `elf`.
    pub format: &'static str,
    /// The name of a [`crate::compress::Kind`].
    pub codec: &'static str,
    /// The level that was in effect: less than asked for if pages could not be told apart.
    pub level: u8,
    /// Workers.
    pub threads: usize,
    /// Size of the dump.
    pub bytes: u64,
    /// Release of the crashed kernel.
    pub kernel_release: Option<String>,
    /// Its machine.
    pub machine: &'static str,
    /// Bytes of a page.
    pub page_size: usize,
    /// Unix time of the crash.
    pub crash_time: Option<u64>,
    /// Why the kernel went down, in its own words.
    pub panic_line: Option<String>,
    /// Pages by kind.
    pub pages: PageCounts,
    /// Sections with struct pages that could not be read.
    pub sections_kept_whole: u64,
    /// Durations.
    pub seconds: Seconds,
    /// Bytes of memory the run was planned to take.
    pub memory_budget: u64,
    /// Bytes of memory it took at most, as the kernel counts (mapped pages of a plain file included).
    pub peak_rss: u64,
    /// What went wrong without ending the run.
    pub problems: Vec<String>,
    /// The dump did not fit, so that a higher level may help.
    #[serde(skip)]
    pub full: bool,
}

/// How much log there was.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LogCounts {
    /// Records with text.
    pub records: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Records that were damaged.
    pub lost: u64,
}

/// The report of `--dump-dmesg`.
#[derive(Debug, Default, Serialize)]
pub struct LogReport {
    /// How it ended.
    pub outcome: Outcome,
    /// The error, as one chain.
    pub error: Option<String>,
    /// Release of the crashed kernel.
    pub kernel_release: Option<String>,
    /// Unix time of the crash.
    pub crash_time: Option<u64>,
    /// Why the kernel went down, in its own words.
    pub panic_line: Option<String>,
    /// The live patches that the kernel had; `None` if that cannot be told.
    pub live_patches: Option<Vec<String>>,
    /// How much log there was.
    pub log: LogCounts,
    /// What went wrong without ending the run.
    pub problems: Vec<String>,
}

/// The report of `-R`.
#[derive(Debug, Default, Serialize)]
pub struct RebuildReport {
    /// How it ended.
    pub outcome: Outcome,
    /// The error, as one chain.
    pub error: Option<String>,
    /// Size of the dump.
    pub bytes: u64,
    /// Records of the stream.
    pub records: u64,
    /// What went wrong without ending the run.
    pub problems: Vec<String>,
}

/// The report of `--reassemble`.
#[derive(Debug, Default, Serialize)]
pub struct ReassembleReport {
    /// How it ended.
    pub outcome: Outcome,
    /// The error, as one chain.
    pub error: Option<String>,
    /// Size of the dump.
    pub bytes: u64,
    /// Pages with data.
    pub pages: u64,
    /// Pages that should be there and have none.
    pub missing: u64,
    /// What went wrong without ending the run.
    pub problems: Vec<String>,
}

impl DumpReport {
    /// The page statistics, as `--message-level 16` shows them.
    pub fn statistics(&self) -> String {
        let p = &self.pages;
        let excluded = p.zero + p.dropped.total();
        let mut text = String::new();
        let mut line = |name: &str, pages: u64| {
            let _ = writeln!(
                text,
                "{name:<28}: {pages:>12} pages {:>9} MiB",
                pages.saturating_mul(self.page_size as u64) >> 20
            );
        };
        line("In the vmcore", p.total);
        line("  Excluded", excluded);
        line("    Zero", p.zero);
        line("    Cache", p.dropped.cache);
        line("    Private cache", p.dropped.private_cache);
        line("    User", p.dropped.user);
        line("    Free", p.dropped.free);
        line("    Poisoned (hwpoison)", p.dropped.hwpoison);
        line("    Offline", p.dropped.offline);
        line("  Unreadable", p.unreadable);
        line("  Written", p.kept);
        let part = (p.kept * 100).checked_div(p.total).unwrap_or(0);
        let _ = writeln!(text, "The dump holds {part}% of the pages in {} bytes.", self.bytes);
        text
    }
}

/// The most memory this process has taken, in bytes; 0 if the system does not tell.
pub fn peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}
