//! What a dump of this machine would hold, asked while it runs: `--mem-usage /proc/kcore`. In: the running system. Out:
//! pages by kind, as a table or as JSON, and an exit code.
//! May surprise: memory changes while it is counted, so counts that contradict each other are normal and never an error.
//! Without a reserved crash kernel makedumpfile refuses; here that is a warning, because how much to reserve is what one
//! asks this for.
//!
//! ```text
//!  /proc/iomem ─▶ crash kernel, not counted ─┐
//!  /proc/kcore ─▶ kcore.rs: segments, vmcoreinfo ─▶ filter, level 31 ─▶ zeros.rs: what is left, read ─▶ report.rs
//! ```

mod kcore;
mod report;
pub mod system;
mod zeros;

use std::time::Instant;

use crate::classify::Classifier;
use crate::cli::UsageOptions;
use crate::dumpfile::bitmap::Kept;
use crate::error::{Error, chain};
use crate::filter::{Border, Sieve};
use crate::kernel::Kernel;
use crate::memmap::MemMap;
use crate::pipeline::{save, say, start_log, tell};
use crate::progress::{Messages, Meter};
use crate::units::{DumpLevel, Pfn};
use crate::vmcore::read::PhysMem;
use crate::vmcore::segments::PageRun;

use kcore::Kcore;
use system::{Running, System};

pub use report::{Estimate, UsagePages, UsageReport};

/// Everything that can be left out.
const LEVEL: u8 = 31;

/// Counts and tells; returns the exit code.
pub fn usage(options: &UsageOptions) -> u8 {
    start_log(options.messages);
    let mut report = UsageReport::default();
    let code = match count(options, &Running, &mut report) {
        Ok(()) => 0,
        Err(error) => {
            report.error = Some(chain(&error));
            error.exit_code()
        }
    };
    tell(&report.problems, report.error.as_deref());
    if options.json {
        say(&(serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"), false);
    } else if report.error.is_none() {
        say(&report.table(), false);
    }
    save(options.report.as_deref(), &report);
    code
}

/// Counts the pages of `system`, whose memory is the file that `options` name.
pub fn count(options: &UsageOptions, system: &dyn System, report: &mut UsageReport) -> Result<(), Error> {
    let clock = Instant::now();
    let mut kcore = Kcore::open(&options.kcore, system)?;
    report.problems.append(&mut kcore.problems);
    report.crash_kernel = kcore.crash_kernel;
    let kernel = Kernel::learn(&kcore.vmcoreinfo, &kcore, &mut report.problems);
    report.kernel_release = Some(kernel.release()).filter(|release| !release.is_empty());
    report.machine = kernel.arch.map_or("", |arch| arch.name);
    report.page_size = kernel.page.bytes() as u64;
    report.pages = pages(&kcore, &kernel, options.threads, options.messages, &mut report.problems).map_err(|why| {
        Error::Input { path: options.kcore.clone(), why: format!("its pages cannot be told apart ({why})") }
    })?;
    report.estimate(kcore.segments().max_pfn());
    report.seconds = clock.elapsed().as_secs_f64();
    Ok(())
}

/// Pages of `mem` by kind.
pub fn pages(
    mem: &dyn PhysMem,
    kernel: &Kernel,
    threads: usize,
    messages: Messages,
    problems: &mut Vec<String>,
) -> Result<UsagePages, String> {
    let runs = mem.segments().backed();
    let Some(mut memory) = kernel.memory(mem) else { return Err(problems.pop().unwrap_or_default()) };
    let mut map = MemMap::new(kernel, &mut memory, runs)?;
    problems.append(&mut map.problems);
    let level = DumpLevel::new(LEVEL).unwrap_or_default();
    let sieve = Sieve { map, classifier: Classifier::new(&kernel.facts, level, problems) };
    let kept = Kept::all(runs).ok_or("there is no memory for the bitmap")?;
    let total = kept.count();
    let meter = |name, pages| Meter::new(name, pages, kernel.page.bytes() as u64, messages);
    let whole = PageRun { start: Pfn(0), end: Pfn(u64::MAX) };
    let telling = meter("Telling pages apart", total);
    let filtered = sieve.run(mem, kernel, whole, &kept, &mut Border::default(), threads, &telling);
    let filtered = filtered.map_err(|e| e.to_string())?;
    problems.extend(filtered.problems());
    let rest = kept.count();
    let found = zeros::count(mem, &kept, kernel.page, threads, &meter("Looking for zero pages", rest))
        .map_err(|e| e.to_string())?;
    if found.unreadable > 0 {
        problems.push(format!("{} pages could not be read", found.unreadable));
    }
    Ok(UsagePages {
        total,
        zero: found.zero,
        dropped: filtered.dropped,
        kernel_data: rest.saturating_sub(found.zero + found.unreadable),
        unreadable: found.unreadable,
    })
}
