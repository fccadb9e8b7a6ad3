//! The story: open, learn, map, filter, write, finish. In: options. Out: a dump or a log, a report, an exit code.
//! May surprise: whatever the vmcore does not tell makes the dump larger, never impossible. If pages cannot be told
//! apart at all, everything is written, and the report says why.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::classify::Classifier;
use crate::cli::{DumpOptions, Format, LogOptions, ReassembleOptions, RebuildOptions};
use crate::compress::Kind;
use crate::dmesg::{self, PanicLine};
use crate::dumpfile::bitmap::Kept;
use crate::dumpfile::elf;
use crate::dumpfile::flatten::Flattened;
use crate::dumpfile::layout::Header;
use crate::dumpfile::read::Source;
use crate::dumpfile::reassemble::Parts;
use crate::dumpfile::rebuild::{self, Ended};
use crate::dumpfile::write::{self, BATCH, Job, Written};
use crate::error::{Error, chain};
use crate::filter::{self, Filtered};
use crate::kernel::Kernel;
use crate::memmap::MemMap;
use crate::output::{self, Limited, Nowhere, Output};
use crate::progress::{Messages, Meter};
use crate::report::{self, DumpReport, LogReport, Outcome, ReassembleReport, RebuildReport};
use crate::units::{DumpLevel, PageSize, Pfn};
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
        format: options.format.name(),
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
        say(&report.statistics(), options.flattened);
    }
    if options.messages.shows(Messages::COMMON) {
        let text = if options.dry_run {
            would_be(&report)
        } else if options.more_outputs.is_empty() {
            ending("dumpfile", &options.output, report.outcome)
        } else {
            let names: Vec<String> = options.outputs().map(|path| path.display().to_string()).collect();
            ending("dumpfiles", Path::new(&names.join(", ")), report.outcome)
        };
        say(&text, options.flattened);
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
    if options.messages.shows(Messages::COMMON) {
        let output = options.output.as_deref().unwrap_or(Path::new("STDOUT"));
        say(&ending("dmesg log", output, report.outcome), options.output.is_none());
    }
    code.max(save(options.report.as_deref(), &report))
}

/// Rebuilds a dump from the stream on stdin and tells how it went; returns the exit code.
pub fn rebuild(options: &RebuildOptions) -> u8 {
    start_log(options.messages);
    let mut report = RebuildReport::default();
    if let Err(error) = rebuild_from(&mut std::io::stdin().lock(), options, &mut report) {
        report.error = Some(chain(&error));
    }
    tell(&report.problems, report.error.as_deref());
    if options.messages.shows(Messages::COMMON) {
        say(&ending("dumpfile", &options.output, report.outcome), false);
    }
    u8::from(report.outcome != Outcome::Complete).max(save(options.report.as_deref(), &report))
}

fn rebuild_from(
    stream: &mut dyn std::io::Read,
    options: &RebuildOptions,
    report: &mut RebuildReport,
) -> Result<(), Error> {
    let stdin = || "the stream on stdin".into();
    rebuild::header(stream)
        .map_err(|source| Error::OpenInput { path: stdin(), source })?
        .map_err(|why| Error::Input { path: stdin(), why: why.into() })?;
    let out = output::create(&options.output, options.force, &[])?;
    let rebuilt = rebuild::records(stream, &out);
    report.bytes = rebuilt.bytes;
    report.records = rebuilt.records;
    report.outcome = if rebuilt.incomplete || rebuilt.ended.is_some() || rebuilt.records == 0 {
        Outcome::Incomplete
    } else {
        Outcome::Complete
    };
    if rebuilt.incomplete {
        report.problems.push("the dump says of itself that it is incomplete".into());
    }
    if let Some(ended) = rebuilt.ended {
        let remedy = if let Ended::Write(e) = &ended { remedy(e) } else { "" };
        let why = chain(&ended);
        report.error = Some(format!("{why}{remedy}. This is an incomplete dumpfile, but it might be analyzable."));
    }
    Ok(())
}

/// Makes one dump of the files of a split one and tells how it went; returns the exit code.
pub fn reassemble(options: &ReassembleOptions) -> u8 {
    start_log(options.messages);
    let mut report = ReassembleReport::default();
    if let Err(error) = reassemble_parts(options, &mut report) {
        report.error = Some(chain(&error));
    }
    tell(&report.problems, report.error.as_deref());
    if options.messages.shows(Messages::COMMON) {
        say(&ending("dumpfile", &options.output, report.outcome), false);
    }
    u8::from(report.outcome != Outcome::Complete).max(save(options.report.as_deref(), &report))
}

fn reassemble_parts(options: &ReassembleOptions, report: &mut ReassembleReport) -> Result<(), Error> {
    let mut files = Vec::new();
    for path in &options.parts {
        files.push(File::open(path).map_err(|source| Error::OpenInput { path: path.into(), source })?);
    }
    let sources: Vec<&dyn Source> = files.iter().map(|file| file as &dyn Source).collect();
    let names = || options.parts.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
    let parts = Parts::open(&sources)
        .map_err(|source| Error::OpenInput { path: names().into(), source })?
        .map_err(|why| Error::Input { path: names().into(), why })?;
    let still_read: Vec<&Path> = options.parts.iter().map(PathBuf::as_path).collect();
    let out = output::create(&options.output, options.force, &still_read)?;
    let fail = |source| Error::Write { what: "the parts", path: options.output.clone(), remedy: "", source };
    let done = parts.write(&out).map_err(fail)?;
    report.bytes = done.bytes;
    report.pages = done.pages;
    report.missing = done.missing;
    if done.incomplete {
        report.problems.push("a part says of itself that it is incomplete".into());
    }
    if done.missing > 0 {
        report.problems.push(format!("{} pages have no data", done.missing));
    }
    if let Some(e) = &done.stopped {
        let remedy = remedy(e);
        report.error = Some(format!(
            "unable to write all data{remedy}: {e}. This is an incomplete dumpfile, but it might be analyzable."
        ));
    }
    let whole = report.problems.is_empty() && report.error.is_none();
    report.outcome = if whole { Outcome::Complete } else { Outcome::Incomplete };
    Ok(())
}

fn capture(options: &DumpOptions, report: &mut DumpReport) -> Result<(), Error> {
    let clock = Instant::now();
    let mut vmcore = Vmcore::open(&options.input, PageSize::K4, options.mapping)?;
    report.problems.append(&mut vmcore.problems);
    let kernel = learn(&vmcore, report);
    report.seconds.open = clock.elapsed().as_secs_f64();

    let learned = report.clone();
    let mut levels = options.next_levels.iter();
    let mut level = options.level;
    loop {
        let result = attempt(options, level, &vmcore, &kernel, report);
        match levels.next() {
            Some(next) if report.full && may_retry(options) => {
                let said = format!("the dump does not fit with level {}; retried with {}", level.get(), next.get());
                let problems = std::mem::take(&mut report.problems);
                *report = DumpReport { problems, ..learned.clone() };
                report.problems.push(said);
                level = *next;
            }
            _ => return result,
        }
    }
}

/// Makes room for the next level; false where that cannot be: what went into a stream or a device is gone.
fn may_retry(options: &DumpOptions) -> bool {
    let is_file = |path: &&Path| path.symlink_metadata().is_ok_and(|meta| meta.is_file());
    let there: Vec<&Path> = options.outputs().filter(|path| path.symlink_metadata().is_ok()).collect();
    let removed = || there.iter().all(|path| std::fs::remove_file(path).is_ok());
    options.dry_run || (!options.flattened && there.iter().all(is_file) && removed())
}

/// Writes the dump with one level.
fn attempt(
    options: &DumpOptions,
    level: DumpLevel,
    vmcore: &Vmcore,
    kernel: &Kernel,
    report: &mut DumpReport,
) -> Result<(), Error> {
    let (codec, hard) = (options.codec, options.compress_level);
    let mut plan = Plan::with(vmcore, options.threads, level, codec, hard, options.messages);
    plan.format = options.format;
    report.threads = plan.threads;
    report.memory_budget = plan.bytes;
    log::info!("{}", plan.describe());
    let fail = |what, source: std::io::Error| match source.kind() {
        std::io::ErrorKind::OutOfMemory => Error::NoMemory { bytes: Kept::bytes_for(vmcore.segments().backed()) },
        _ => Error::Write { what, path: options.output.clone(), remedy: remedy(&source), source },
    };
    let mut outs: Vec<Box<dyn Output>> = Vec::new();
    for path in options.outputs() {
        outs.push(if options.dry_run {
            Box::new(Nowhere)
        } else if options.flattened {
            Box::new(Flattened::stdout().map_err(|e| fail("the stream's header", e))?)
        } else {
            Box::new(output::create(path, options.force, &[&options.input])?)
        });
    }
    let limit = options.limit.unwrap_or(u64::MAX);
    let limited: Vec<Limited<'_>> = outs.iter().map(|out| Limited::new(out.as_ref(), limit)).collect();
    let outs: Vec<&dyn Output> = limited.iter().map(|out| out as &dyn Output).collect();
    write_dump(vmcore, vmcore, kernel, &outs, &plan, report).map_err(|e| {
        report.full = e.kind() == std::io::ErrorKind::StorageFull;
        fail("the headers", e)
    })?;
    // A dump that stopped early still is a whole stream, unless the stream itself is what broke.
    match outs.iter().try_for_each(|out| out.finish()) {
        Err(e) if report.error.is_none() => {
            report.outcome = Outcome::Incomplete;
            Err(fail("the end", e))
        }
        _ => Ok(()),
    }
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
        Plan { threads, batch, level, format: Format::Kdump, codec, compress_level, messages, bytes }
    }

    fn describe(&self) -> String {
        let mib = self.bytes.div_ceil(1 << 20);
        format!("Memory budget: {mib} MiB ({} workers, {} pages per batch)", self.threads, self.batch)
    }
}

/// From memory to `outs`, of which there are several if the dump is split. `vmcore` gives the notes; `mem` is the same vmcore, or a fake of it in tests.
pub fn write_dump(
    mem: &dyn PhysMem,
    vmcore: &dyn Notes,
    kernel: &Kernel,
    outs: &[&dyn Output],
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
    let total = kept.count();
    let incomplete = segments.missing_bytes() > 0;
    let whole = [(Pfn(0), segments.max_pfn())];
    let cuts = kept.cuts(outs.len() as u64, segments.max_pfn());
    let mut written = Written::default();
    for (out, cut) in outs.iter().zip(if outs.len() > 1 { cuts.as_slice() } else { &whole }) {
        let split = Some(*cut).filter(|_| outs.len() > 1);
        written.add(match plan.format {
            Format::Kdump => write_kdump(mem, vmcore, kernel, &kept, plan, *out, incomplete, report.level, split)?,
            Format::Elf => write_elf(mem, vmcore, kernel, &kept, plan, *out, incomplete, report.level)?,
        });
    }
    report.seconds.write = clock.elapsed().as_secs_f64();
    account(&written, missing_pages, report);
    report.pages.total = total + filtered.dropped.total() + missing_pages;
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "a dump's whole world")]
fn write_kdump(
    mem: &dyn PhysMem,
    vmcore: &dyn Notes,
    kernel: &Kernel,
    kept: &Kept,
    plan: &Plan,
    out: &dyn Output,
    incomplete: bool,
    level: u8,
    split: Option<(Pfn, Pfn)>,
) -> std::io::Result<Written> {
    let segments = mem.segments();
    let header = Header {
        utsname: kernel.utsname.clone(),
        crash_time: kernel.crash_time.unwrap_or(0),
        status: plan.codec.flag(),
        block: kernel.page,
        max_pfn: segments.max_pfn(),
        cpus: vmcore.cpus(),
        phys_base: kernel.facts.number("phys_base").map_or(0, i64::cast_unsigned),
        level,
        split,
        notes_len: vmcore.bytes().len() as u64,
        vmcoreinfo: vmcore.vmcoreinfo_place(),
    };
    let (start, end) = split.unwrap_or((Pfn(0), segments.max_pfn()));
    let meter = Meter::new("Copying data", kept.count_between(start, end), kernel.page.bytes() as u64, plan.messages);
    let job = Job {
        mem,
        present: segments.present(),
        kept,
        header: &header,
        notes: vmcore.bytes(),
        codec: plan.codec,
        compress_level: plan.compress_level,
        threads: plan.threads,
        batch: plan.batch,
        incomplete,
    };
    write::write(&job, out, &meter)
}

#[expect(clippy::too_many_arguments, reason = "a dump's whole world")]
fn write_elf(
    mem: &dyn PhysMem,
    vmcore: &dyn Notes,
    kernel: &Kernel,
    kept: &Kept,
    plan: &Plan,
    out: &dyn Output,
    incomplete: bool,
    level: u8,
) -> std::io::Result<Written> {
    let (page, threads, batch) = (kernel.page, plan.threads, plan.batch);
    let job = elf::Job { mem, kept, notes: vmcore.bytes(), page, threads, batch, incomplete };
    let meter = |name, pages| Meter::new(name, pages, page.bytes() as u64, plan.messages);
    let without_zero = DumpLevel::new(level).is_some_and(|level| level.has(DumpLevel::ZERO));
    let zero = if without_zero { elf::drop_zero_pages(&job, &meter("Excluding zero pages", kept.count()))? } else { 0 };
    let written = elf::write(&job, out, &meter("Copying data", kept.count()))?;
    Ok(Written { zero, ..written })
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

fn account(written: &Written, missing_pages: u64, report: &mut DumpReport) {
    report.bytes = written.bytes;
    report.pages.unreadable = written.unreadable + missing_pages;
    let counted = DumpLevel::new(report.level).is_some_and(|level| level.has(DumpLevel::ZERO));
    report.pages.zero = if counted { written.zero } else { 0 };
    report.pages.kept = written.saved + if counted { 0 } else { written.zero };
    if missing_pages > 0 {
        report.problems.push(format!("the vmcore is shorter than its headers say; {missing_pages} pages are missing"));
    }
    if written.unreadable > 0 {
        report.problems.push(format!("{} pages could not be read", written.unreadable));
    }
    if let Some(stopped) = &written.stopped {
        report.full = stopped.kind() == std::io::ErrorKind::StorageFull;
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
        Some(path) => Box::new(output::create(path, options.force, &[&options.input])?),
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
        std::io::ErrorKind::StorageFull => " (make room on the target, or leave out more with -d)",
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
    let is = if what.ends_with('s') { "are" } else { "is" };
    match outcome {
        Outcome::Complete => format!("\nThe {what} {is} saved to {}.\n\nmakedumpfile Completed.\n", path.display()),
        Outcome::Incomplete => {
            format!("\nThe {what} {is} saved to {}, incomplete.\n\nmakedumpfile Failed.\n", path.display())
        }
        Outcome::Failed => "\nmakedumpfile Failed.\n".into(),
    }
}

/// How a dry run ends.
fn would_be(report: &DumpReport) -> String {
    match report.outcome {
        Outcome::Failed => "\nmakedumpfile Failed.\n".into(),
        Outcome::Incomplete => {
            format!("\nThe dumpfile would have {} bytes, incomplete.\n\nmakedumpfile Failed.\n", report.bytes)
        }
        Outcome::Complete => {
            format!("\nThe dumpfile would have {} bytes.\n\nmakedumpfile Completed.\n", report.bytes)
        }
    }
}

/// Says it on stdout, or on stderr where stdout is the dump's.
fn say(text: &str, on_stderr: bool) {
    // Nobody may be listening; the exit code tells all the same.
    let _ = if on_stderr {
        std::io::stderr().lock().write_all(text.as_bytes())
    } else {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush())
    };
}

/// Writes the report, if one is wanted; returns 1 if it could not be.
fn save(path: Option<&Path>, report: &impl serde::Serialize) -> u8 {
    let Some(path) = path else { return 0 };
    let written = serde_json::to_vec(report)
        .map_err(std::io::Error::other)
        .and_then(|json| output::create(path, true, &[]).map_err(std::io::Error::other)?.write_all(&json));
    match written {
        Ok(()) => 0,
        Err(e) => {
            log::error!("kdump-capture: unable to write the report to {}: {e}", path.display());
            1
        }
    }
}
