//! The story: open, learn, map, filter, write, finish. In: options. Out: a dump or a log, a report, an exit code.
//! May surprise: whatever the vmcore does not tell makes the dump larger, never impossible. If pages cannot be told
//! apart at all, everything is written, and the report says why.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use crate::classify::Classifier;
use crate::cli::{DumpOptions, LogOptions};
use crate::compress::Kind;
use crate::dmesg::{self, PanicLine};
use crate::dumpfile::bitmap::Kept;
use crate::dumpfile::layout::Header;
use crate::dumpfile::write::{self, BATCH, Job, Written};
use crate::error::{Error, chain};
use crate::filter::{self, Filtered};
use crate::kernel::Kernel;
use crate::memmap::MemMap;
use crate::output::{self, Output};
use crate::progress::{Messages, Meter};
use crate::report::{self, DumpReport, LogReport, Outcome};
use crate::units::{DumpLevel, PageSize};
use crate::vmcore::Vmcore;
use crate::vmcore::read::PhysMem;

/// All workers together may take this much; the design allows 24 MiB besides the bitmap.
const WORKER_MEMORY: usize = 16 << 20;

/// The program's own data, the notes and what libraries keep.
const FIXED_MEMORY: u64 = 4 << 20;

/// Page tables at hand, struct pages being copied, stack.
const WORKER_FIXED: usize = 192 << 10;

/// Writes a dump and tells how it went; returns the exit code.
pub fn dump(options: &DumpOptions) -> u8 {
    start_log(options.messages);
    let mut report = DumpReport {
        format: "kdump-compressed",
        codec: options.codec.name(),
        level: options.level.get(),
        machine: "x86_64",
        ..DumpReport::default()
    };
    let code = match capture(options, &mut report) {
        Ok(()) => u8::from(report.outcome != Outcome::Complete),
        Err(error) => {
            report.error = Some(chain(&error));
            error.exit_code()
        }
    };
    report.peak_rss = report::peak_rss();
    tell(&report.problems, report.error.as_deref());
    if options.messages.shows(Messages::REPORT) && report.outcome != Outcome::Failed {
        say(&report.statistics());
    }
    if options.messages.shows(Messages::COMMON) {
        say(&ending("dumpfile", &options.output, report.outcome));
    }
    code.max(save(options.report.as_deref(), &report))
}

/// Writes the log and tells how it went; returns the exit code.
pub fn log(options: &LogOptions) -> u8 {
    start_log(options.messages);
    let mut report = LogReport::default();
    let code = match save_log(options, &mut report) {
        Ok(()) => u8::from(report.outcome != Outcome::Complete),
        Err(error) => {
            report.error = Some(chain(&error));
            error.exit_code()
        }
    };
    tell(&report.problems, report.error.as_deref());
    if let Some(output) = options.output.as_deref().filter(|_| options.messages.shows(Messages::COMMON)) {
        say(&ending("dmesg log", output, report.outcome));
    }
    code.max(save(options.report.as_deref(), &report))
}

fn capture(options: &DumpOptions, report: &mut DumpReport) -> Result<(), Error> {
    let clock = Instant::now();
    let mut vmcore = Vmcore::open(&options.input, PageSize::K4, options.mapping)?;
    report.problems.append(&mut vmcore.problems);
    let kernel = learn(&vmcore, report);
    report.seconds.open = clock.elapsed().as_secs_f64();

    let plan = Plan::new(&vmcore, options);
    report.threads = plan.threads;
    report.memory_budget = plan.bytes;
    log::info!("{}", plan.describe());
    let out = output::create(&options.output, options.force)?;
    write_dump(&vmcore, &vmcore, &kernel, &out, &plan, report).map_err(|source| match source.kind() {
        std::io::ErrorKind::OutOfMemory => Error::NoMemory { bytes: Kept::bytes_for(vmcore.segments().backed()) },
        _ => Error::Write { what: "the headers", path: options.output.clone(), remedy: remedy(&source), source },
    })
}

/// Reads what the kernel says of itself, and its last words.
fn learn(vmcore: &Vmcore, report: &mut DumpReport) -> Kernel {
    let kernel = Kernel::learn(vmcore.vmcoreinfo(), vmcore, &mut report.problems);
    report.kernel_release = Some(kernel.release()).filter(|release| !release.is_empty());
    report.crash_time = kernel.crash_time;
    // The names SUSE's kdump looks for.
    log::debug!("  OSRELEASE={}", kernel.release());
    log::debug!("  CRASHTIME={}", kernel.crash_time.unwrap_or_default());
    if let Some(mut memory) = kernel.memory(vmcore) {
        let mut line = PanicLine::default();
        let seen = dmesg::records(&kernel.facts, &mut memory, &mut |record| {
            line.see(record.text);
            Ok(())
        });
        if let Err(e) = seen {
            report.problems.push(format!("the kernel log cannot be read: {}", chain(&e)));
        }
        report.panic_line = line.get();
    }
    kernel
}

/// How much is done at once, so that the budget is kept.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Workers.
    pub threads: usize,
    /// Pages per batch.
    pub batch: usize,
    /// What is left out.
    pub level: DumpLevel,
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
    fn new(mem: &dyn PhysMem, options: &DumpOptions) -> Plan {
        let (codec, hard) = (options.codec, options.compress_level);
        Plan::with(mem, options.threads, options.level, codec, hard, options.messages)
    }

    /// A plan with the codec's own level.
    pub fn within(mem: &dyn PhysMem, threads: usize, level: DumpLevel, codec: Kind, messages: Messages) -> Plan {
        Plan::with(mem, threads, level, codec, None, messages)
    }

    /// As many of `threads` as fit: first batches get smaller, then workers fewer.
    fn with(
        mem: &dyn PhysMem,
        threads: usize,
        level: DumpLevel,
        codec: Kind,
        compress_level: Option<i32>,
        messages: Messages,
    ) -> Plan {
        let page = PageSize::K4.bytes();
        let cost =
            |batch: usize| batch * (page + 64) + codec.room(page) + codec.context_bytes(compress_level) + WORKER_FIXED;
        let batch = if threads * cost(BATCH) <= WORKER_MEMORY { BATCH } else { BATCH / 4 };
        let threads = threads.clamp(1, (WORKER_MEMORY / cost(batch)).max(1));
        let bitmap = Kept::bytes_for(mem.segments().backed());
        let bytes = FIXED_MEMORY + bitmap + (threads * cost(batch)) as u64;
        Plan { threads, batch, level, codec, compress_level, messages, bytes }
    }

    fn describe(&self) -> String {
        let mib = self.bytes.div_ceil(1 << 20);
        format!("Memory budget: {mib} MiB ({} workers, {} pages per batch)", self.threads, self.batch)
    }
}

/// From memory to `out`. `vmcore` gives the notes; `mem` is the same vmcore, or a fake of it in tests.
pub fn write_dump(
    mem: &dyn PhysMem,
    vmcore: &dyn Notes,
    kernel: &Kernel,
    out: &dyn Output,
    plan: &Plan,
    report: &mut DumpReport,
) -> std::io::Result<()> {
    let clock = Instant::now();
    let segments = mem.segments();
    let backed = segments.backed();
    let Some(kept) = Kept::all(backed) else {
        return Err(std::io::ErrorKind::OutOfMemory.into());
    };
    let filtered = filter_pages(mem, kernel, &kept, plan, report)?;
    report.pages.dropped = filtered.dropped;
    report.sections_kept_whole = filtered.sections_kept_whole;
    report.seconds.filter = clock.elapsed().as_secs_f64();

    let clock = Instant::now();
    let missing_pages = segments.missing_pages();
    let header = Header {
        utsname: kernel.utsname.clone(),
        crash_time: kernel.crash_time.unwrap_or(0),
        status: plan.codec.flag(),
        block: kernel.page,
        max_pfn: segments.max_pfn(),
        cpus: vmcore.cpus(),
        phys_base: kernel.facts.number("phys_base").map_or(0, i64::cast_unsigned),
        level: report.level,
        notes_len: vmcore.bytes().len() as u64,
        vmcoreinfo: vmcore.vmcoreinfo_place(),
    };
    let total = kept.count();
    let meter = Meter::new("Copying data", total, kernel.page.bytes() as u64, plan.messages);
    let job = Job {
        mem,
        present: segments.present(),
        kept: &kept,
        header: &header,
        notes: vmcore.bytes(),
        codec: plan.codec,
        compress_level: plan.compress_level,
        threads: plan.threads,
        batch: plan.batch,
        incomplete: segments.missing_bytes() > 0,
    };
    let written = write::write(&job, out, &meter)?;
    report.seconds.write = clock.elapsed().as_secs_f64();
    account(&written, &header, missing_pages, report);
    report.pages.total = total + filtered.dropped.total() + missing_pages;
    Ok(())
}

/// What the headers of a dump need of the notes.
pub trait Notes {
    /// The bytes of the PT_NOTEs.
    fn bytes(&self) -> &[u8];
    /// Where in them vmcoreinfo lies, and its length.
    fn vmcoreinfo_place(&self) -> (u64, u64);
    /// CPUs whose registers were saved.
    fn cpus(&self) -> u32;
}

impl Notes for Vmcore {
    fn bytes(&self) -> &[u8] {
        self.note_bytes()
    }

    fn vmcoreinfo_place(&self) -> (u64, u64) {
        self.notes().vmcoreinfo.as_ref().map_or((0, 0), |range| (range.start as u64, range.len() as u64))
    }

    fn cpus(&self) -> u32 {
        self.notes().cpus
    }
}

/// Clears from `kept` what the level leaves out; without the means to tell pages apart, nothing.
fn filter_pages(
    mem: &dyn PhysMem,
    kernel: &Kernel,
    kept: &Kept,
    plan: &Plan,
    report: &mut DumpReport,
) -> std::io::Result<Filtered> {
    let runs = mem.segments().backed();
    let classifier = Classifier::new(&kernel.facts, plan.level, &mut report.problems);
    report.level = plan.level.get();
    if !classifier.asks_anything() && plan.level == plan.level.content_only() {
        return Ok(Filtered::default());
    }
    let map = kernel.memory(mem).ok_or_else(|| "see above".to_owned());
    let map = map.and_then(|mut memory| MemMap::new(&kernel.facts, kernel.page, &mut memory, runs));
    let map = match map {
        Ok(map) => map,
        Err(why) => {
            report.level = plan.level.content_only().get();
            report.problems.push(format!("the dump is written unfiltered, struct pages cannot be found: {why}"));
            return Ok(Filtered::default());
        }
    };
    let pages = runs.iter().map(|run| run.len()).sum();
    let meter = Meter::new("Excluding unnecessary pages", pages, kernel.page.bytes() as u64, plan.messages);
    let filtered = filter::run(mem, kernel, &map, &classifier, kept, plan.threads, &meter)?;
    if filtered.sections_kept_whole > 0 {
        let count = filtered.sections_kept_whole;
        report.problems.push(format!("struct pages of {count} sections could not be read; those pages are kept"));
    }
    if filtered.damaged > 0 {
        report.problems.push(format!("{} struct pages contradict themselves; their pages are kept", filtered.damaged));
    }
    Ok(filtered)
}

fn account(written: &Written, header: &Header, missing_pages: u64, report: &mut DumpReport) {
    report.bytes = written.bytes;
    report.pages.unreadable = written.unreadable + missing_pages;
    let counted = DumpLevel::new(header.level).is_some_and(|level| level.has(DumpLevel::ZERO));
    report.pages.zero = if counted { written.zero } else { 0 };
    report.pages.kept = written.saved + if counted { 0 } else { written.zero };
    if missing_pages > 0 {
        report.problems.push(format!("the vmcore is shorter than its headers say; {missing_pages} pages are missing"));
    }
    if written.unreadable > 0 {
        report.problems.push(format!("{} pages could not be read", written.unreadable));
    }
    if let Some(stopped) = &written.stopped {
        report.error = Some(format!(
            "unable to write all data{}: {stopped}; {} pages are missing. This is an incomplete dumpfile, but it might be analyzable.",
            remedy(stopped),
            written.lost
        ));
    }
    let whole = written.stopped.is_none() && report.pages.unreadable == 0;
    report.outcome = if whole { Outcome::Complete } else { Outcome::Incomplete };
}

fn save_log(options: &LogOptions, report: &mut LogReport) -> Result<(), Error> {
    let mut vmcore = Vmcore::open(&options.input, PageSize::K4, true)?;
    report.problems.append(&mut vmcore.problems);
    let kernel = Kernel::learn(vmcore.vmcoreinfo(), &vmcore, &mut report.problems);
    report.kernel_release = Some(kernel.release()).filter(|release| !release.is_empty());
    report.crash_time = kernel.crash_time;
    log::debug!("  OSRELEASE={}", kernel.release());
    log::debug!("  CRASHTIME={}", kernel.crash_time.unwrap_or_default());
    let no_log = |why: String| Error::NoLog { path: options.input.clone(), why };
    let Some(mut memory) = kernel.memory(&vmcore) else {
        return Err(no_log(report.problems.last().cloned().unwrap_or_default()));
    };

    let path = options.output.as_deref().unwrap_or(Path::new("stdout"));
    let mut out: Box<dyn Write> = match &options.output {
        Some(path) => Box::new(output::create(path, options.force)?),
        None => Box::new(std::io::stdout().lock()),
    };
    let (mut line, mut text, mut bytes) = (PanicLine::default(), Vec::new(), 0u64);
    let found = dmesg::records(&kernel.facts, &mut memory, &mut |record| {
        line.see(record.text);
        record.print(&mut text);
        if text.len() >= 64 << 10 {
            out.write_all(&text)?;
            bytes += text.len() as u64;
            text.clear();
        }
        Ok(())
    });
    let found = found.and_then(|found| {
        out.write_all(&text)?;
        out.flush()?;
        Ok(found)
    });
    report.panic_line = line.get();
    report.log.bytes = bytes + text.len() as u64;
    let found = found.map_err(|e| match e {
        dmesg::LogError::Missing(why) => no_log(why),
        dmesg::LogError::Io(source) => {
            Error::Write { what: "the log", path: path.into(), remedy: remedy(&source), source }
        }
    })?;
    report.log.records = found.records;
    report.log.lost = found.lost;
    if found.lost > 0 {
        report.problems.push(format!("{} log records are damaged or were overwritten", found.lost));
    }
    let gone = vmcore.segments().missing_bytes();
    if gone > 0 {
        report.problems.push(format!("the vmcore is {gone} bytes shorter than its headers say"));
    }
    report.outcome = if found.records == 0 { Outcome::Incomplete } else { Outcome::Complete };
    Ok(())
}

fn remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::StorageFull => " (make room on the target)",
        _ => "",
    }
}

pub(crate) fn start_log(messages: Messages) {
    use simplelog::{ConfigBuilder, LevelFilter, WriteLogger};
    let level = if messages.shows(Messages::DEBUG) {
        LevelFilter::Debug
    } else if messages.shows(Messages::COMMON) {
        LevelFilter::Info
    } else if messages.shows(Messages::ERROR) {
        LevelFilter::Warn
    } else {
        LevelFilter::Off
    };
    let off = LevelFilter::Off;
    let mut config = ConfigBuilder::new();
    config.set_time_level(off).set_thread_level(off).set_target_level(off).set_location_level(off).set_max_level(off);
    config.add_filter_allow_str("kdump_capture"); // goblin logs every note, byte by byte
    // A second call finds a logger in place, which is fine.
    let _ = WriteLogger::init(level, config.build(), std::io::stderr());
}

fn tell(problems: &[String], error: Option<&str>) {
    for problem in problems {
        log::warn!("kdump-capture: {problem}");
    }
    if let Some(error) = error {
        log::error!("kdump-capture: {error}");
    }
}

/// The lines other tools look for.
fn ending(what: &str, path: &Path, outcome: Outcome) -> String {
    match outcome {
        Outcome::Complete => format!("\nThe {what} is saved to {}.\n\nmakedumpfile Completed.\n", path.display()),
        Outcome::Incomplete => {
            format!("\nThe {what} is saved to {}, incomplete.\n\nmakedumpfile Failed.\n", path.display())
        }
        Outcome::Failed => "\nmakedumpfile Failed.\n".into(),
    }
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody may be listening; the exit code tells all the same.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes the report, if one is wanted; returns 1 if it could not be.
fn save(path: Option<&Path>, report: &impl serde::Serialize) -> u8 {
    let Some(path) = path else { return 0 };
    let written = serde_json::to_vec(report)
        .map_err(std::io::Error::other)
        .and_then(|json| output::create(path, true).map_err(std::io::Error::other)?.write_all(&json));
    match written {
        Ok(()) => 0,
        Err(e) => {
            log::error!("kdump-capture: unable to write the report to {}: {e}", path.display());
            1
        }
    }
}
