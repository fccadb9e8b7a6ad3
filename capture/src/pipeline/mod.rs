//! The story: open, learn, map, filter, write, finish. In: options. Out: a dump or a log, a report, an exit code.
//! May surprise: whatever the vmcore does not tell makes the dump larger, never impossible. If pages cannot be told
//! apart at all, everything is written, and the report says why.
//!
//! This file is the story of a dump. `log.rs` is that of the log, `restore.rs` those of dumps made of dumps; `plan.rs`
//! keeps the memory budget, `windows.rs` the part of bitmap 2 that it allows, `console.rs` has the lines that other tools
//! look for.

pub(crate) mod console;
mod log;
mod plan;
mod restore;
mod vmcoreinfo_file;
mod windows;

pub use crate::input::Notes;
pub use log::log;
pub use plan::{Plan, Wanted};
pub use restore::{reassemble, rebuild};

pub(crate) use console::{save, say, start_log, tell};

use std::path::Path;
use std::time::Instant;

use crate::cli::{DumpOptions, Format};
use crate::dmesg::{self, PanicLine, Since};
use crate::dumpfile::elf::{self, Stretches};
use crate::dumpfile::flatten::Flattened;
use crate::dumpfile::layout::Header;
use crate::dumpfile::order::Use;
use crate::dumpfile::runs::Present;
use crate::dumpfile::write::{Job, Writer, Written};
use crate::error::{Error, chain};
use crate::filter::Filtered;
use crate::input::{self, Carried, Input};
use crate::kernel::Kernel;
use crate::output::{self, Limited, Nowhere, Output};
use crate::progress::{Messages, Meter};
use crate::report::{self, DumpReport, Outcome};
use crate::units::DumpLevel;
use crate::uses::Uses;
use crate::vmcore::read::PhysMem;

use windows::{Cuts, Windows};

use console::{ending, remedy, would_be};
use vmcoreinfo_file::{Given, learn_from_file};

/// Writes a dump and tells how it went; returns the exit code.
pub fn dump(options: &DumpOptions) -> u8 {
    start_log(options.messages);
    let mut report = DumpReport {
        format: options.format.name(),
        codec: options.codec.name(),
        level: options.level.get(),
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
    save(options.report.as_deref(), &report);
    code
}

fn capture(options: &DumpOptions, report: &mut DumpReport) -> Result<(), Error> {
    let clock = Instant::now();
    let given = Given::read(options.vmcoreinfo.as_deref())?;
    let mut opened = input::open(&options.input, options.mapping, given.as_ref().map(|given| &given.facts))?;
    let mut input = opened.input()?;
    report.machine = input.arch().map_or("", |arch| arch.name);
    report.page_size = input.segments().page().bytes();
    report.problems.append(&mut input.problems);
    let kernel = learn(&input, given.as_ref(), options, report)?;
    if options.format == Format::Elf {
        input.place(&kernel);
    }
    report.seconds.open = clock.elapsed().as_secs_f64();

    let learned = report.clone();
    let mut levels = options.next_levels.iter();
    let mut level = options.level;
    loop {
        let result = attempt(options, level, &input, &kernel, report);
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
    input: &Input<'_>,
    kernel: &Kernel,
    report: &mut DumpReport,
) -> Result<(), Error> {
    // What is left out already stays so.
    let level = level.with(input.level());
    let wanted = Wanted {
        threads: options.threads,
        level,
        format: options.format,
        codec: options.codec,
        compress_level: options.compress_level,
        by_use: options.by_use,
        messages: options.messages,
        memory: options.memory,
        available: plan::available(),
    };
    let plan = Plan::within(input.segments(), &wanted);
    input.map_at_most(plan.mapped);
    report.threads = plan.threads;
    report.memory_budget = plan.bytes;
    ::log::info!("{}", plan.describe(input.segments()));
    let fail = |what, source: std::io::Error| match source.kind() {
        std::io::ErrorKind::OutOfMemory => Error::NoMemory { bytes: plan.bytes },
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
    report.problems.extend(input.incomplete.iter().cloned());
    write_dump(input, input, kernel, &outs, &plan, report).map_err(|e| {
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

/// Reads what the kernel in `path` says of itself, or what was given in its place.
fn identify(
    input: &Input<'_>,
    given: Option<&Given>,
    path: &Path,
    problems: &mut Vec<String>,
) -> Result<Kernel, Error> {
    let kernel = match given {
        None => Kernel::learn(input.vmcoreinfo(), input, problems),
        Some(given) => learn_from_file(given, input, path, problems)?,
    };
    // The names SUSE's kdump looks for.
    ::log::debug!("  OSRELEASE={}", kernel.release());
    ::log::debug!("  CRASHTIME={}", kernel.crash_time.unwrap_or_default());
    Ok(kernel)
}

/// The release for a report, if the kernel tells one.
fn release(kernel: &Kernel) -> Option<String> {
    Some(kernel.release()).filter(|release| !release.is_empty())
}

/// Reads what the kernel says of itself, and its last words.
fn learn(
    input: &Input<'_>,
    given: Option<&Given>,
    options: &DumpOptions,
    report: &mut DumpReport,
) -> Result<Kernel, Error> {
    let mut kernel = identify(input, given, &options.input, &mut report.problems)?;
    if let Some(Carried { header, .. }) = input.carried() {
        kernel.utsname = header.utsname.clone();
        kernel.crash_time = Some(header.crash_time).filter(|time| *time != 0).or(kernel.crash_time);
    }
    report.kernel_release = release(&kernel);
    report.crash_time = kernel.crash_time;
    if let Some(mut memory) = kernel.memory(input) {
        let mut line = PanicLine::default();
        let seen = dmesg::records(&kernel.facts, &mut memory, Since::Boot, &mut |record| {
            line.see(record.text);
            Ok(())
        });
        if let Err(e) = seen {
            report.problems.push(format!("the kernel log cannot be read: {}", chain(&e)));
        }
        report.panic_line = line.get();
    }
    Ok(kernel)
}

/// From memory to `outs`, of which there are several if the dump is split. `vmcore` gives the notes; `mem` is the same
/// input, or a fake of it in tests.
pub fn write_dump(
    mem: &dyn PhysMem,
    vmcore: &dyn Notes,
    kernel: &Kernel,
    outs: &[&dyn Output],
    plan: &Plan,
    report: &mut DumpReport,
) -> std::io::Result<()> {
    let clock = Instant::now();
    let sieve = windows::sieve(mem, kernel, plan, report);
    let uses = plan.by_use.then(|| Uses::new(mem, kernel, sieve.as_ref().map(|sieve| &sieve.map)));
    let mut windows = Windows::new(mem, kernel, plan, sieve.as_ref());
    report.level |= vmcore.carried().map_or(0, |carried| carried.level().get());
    let mut dump = Dump { mem, vmcore, kernel, plan, level: report.level, clock };
    let written = match (plan.format, outs) {
        (Format::Elf, [out]) => dump.elf(&mut windows, *out, report)?,
        _ => dump.kdump(&mut windows, uses.as_ref(), outs, report)?,
    };
    report.seconds.write = dump.clock.elapsed().as_secs_f64();
    account(&written, mem.segments().missing_pages(), report);
    if vmcore.is_incomplete() && report.outcome == Outcome::Complete {
        report.outcome = Outcome::Incomplete;
    }
    Ok(())
}

/// What a dump of any format is written from.
struct Dump<'a> {
    mem: &'a dyn PhysMem,
    vmcore: &'a dyn Notes,
    kernel: &'a Kernel,
    plan: &'a Plan,
    /// What has been left out in fact.
    level: u8,
    /// When the present phase began.
    clock: Instant,
}

impl Dump<'_> {
    fn meter(&self, name: &'static str, pages: u64) -> Meter {
        Meter::new(name, pages, self.kernel.page.bytes() as u64, self.plan.messages)
    }

    /// What the first pass over the windows has found, of which `kept` pages are left.
    fn filtered(&mut self, filtered: &Filtered, kept: u64, report: &mut DumpReport) {
        report.pages.dropped = filtered.dropped;
        report.pages.total = kept + filtered.dropped.total() + self.mem.segments().missing_pages();
        report.sections_kept_whole = filtered.sections_kept_whole;
        report.problems.extend(filtered.problems());
        report.seconds.filter = self.clock.elapsed().as_secs_f64();
        self.clock = Instant::now();
    }

    /// The first pass over the windows counts, since the data begins behind the descriptors; the second one writes, or,
    /// in the order of use, the second one writes bitmap 2, and one for each use its pages.
    fn kdump(
        &mut self,
        windows: &mut Windows<'_>,
        uses: Option<&Uses<'_>>,
        outs: &[&dyn Output],
        report: &mut DumpReport,
    ) -> std::io::Result<Written> {
        let (segments, page) = (self.mem.segments(), self.kernel.page);
        let mut cuts = Cuts::new(outs.len(), page);
        let filtered = windows.each(&mut |window, kept, _| {
            cuts.add(window, kept);
            Ok(())
        })?;
        self.filtered(&filtered, cuts.kept(), report);
        let Dump { mem, vmcore, kernel, plan, level, .. } = *self;
        let carried = vmcore.carried();
        let header = |split| Header {
            utsname: kernel.utsname.clone(),
            crash_time: kernel.crash_time.unwrap_or(0),
            status: plan.codec.flag(),
            block: page,
            max_pfn: segments.max_pfn(),
            cpus: vmcore.cpus(),
            phys_base: carried.map_or_else(|| kernel.phys_base(), |carried| carried.header.phys_base),
            level,
            split,
            notes_len: vmcore.bytes().len() as u64,
            vmcoreinfo: vmcore.vmcoreinfo_place(),
            eraseinfo: None,
            placed: None,
        };
        let headers: Vec<Header> = match outs.len() {
            0 | 1 => vec![header(None)],
            _ => cuts.ranges(segments.max_pfn()).into_iter().map(|range| header(Some(range))).collect(),
        };
        let mut writers = Vec::with_capacity(outs.len());
        for (out, header) in outs.iter().zip(&headers) {
            let job = Job {
                mem,
                present: mem.bitmaps().map_or(Present::Runs(segments.present()), Present::Copied),
                kept: cuts.kept(),
                header,
                notes: vmcore.bytes(),
                eraseinfo: carried.map_or(&[], |carried| carried.eraseinfo),
                codec: plan.codec,
                compress_level: plan.compress_level,
                threads: plan.threads,
                batch: plan.batch,
                incomplete: segments.missing_pages() > 0 || vmcore.is_incomplete(),
            };
            writers.push(Writer::begin(job, *out)?);
        }
        let meter = self.meter("Copying data", cuts.kept());
        windows.each(&mut |_, kept, _| {
            writers.iter_mut().try_for_each(|writer| {
                writer.window(kept)?;
                if uses.is_some() { Ok(()) } else { writer.pages(kept, None, &meter) }
            })
        })?;
        if let Some(uses) = uses {
            report.problems.extend(by_use(windows, uses, &mut writers, &meter)?);
        }
        let mut written = Written::default();
        writers.into_iter().for_each(|writer| written.add(writer.finish()));
        Ok(written)
    }

    /// One pass over the windows finds the stretches of kept pages, of which the segments are made.
    fn elf(
        &mut self,
        windows: &mut Windows<'_>,
        out: &dyn Output,
        report: &mut DumpReport,
    ) -> std::io::Result<Written> {
        let Dump { mem, plan, level, .. } = *self;
        let page = self.kernel.page;
        let exact = mem.bitmaps().is_some();
        let mut stretches = if exact { Stretches::exact(page) } else { Stretches::new(page) };
        let mut zero = 0;
        let without_zero = DumpLevel::new(level).is_some_and(|level| level.has(DumpLevel::ZERO));
        let filtered = windows.each(&mut |_, kept, border| {
            if without_zero {
                let meter = self.meter("Excluding zero pages", kept.count());
                zero += elf::drop_zero_pages(mem, kept, plan.threads, plan.batch, &meter)?;
            }
            stretches.add(kept, &border.shunned)
        })?;
        self.filtered(&filtered, stretches.kept() + zero, report);
        if exact && stretches.has_gaps() {
            report
                .problems
                .push("some pages that are left out read as zeros, or there would be too many segments".into());
        }
        let notes = elf::notes(self.vmcore.bytes(), self.vmcore.carried().map_or(&[], |carried| carried.eraseinfo));
        let (notes, incomplete) = (notes.as_ref(), mem.segments().missing_pages() > 0 || self.vmcore.is_incomplete());
        let (threads, batch) = (plan.threads, plan.batch);
        let job = elf::Job { mem, stretches: &stretches, notes, page, threads, batch, incomplete };
        let written = elf::write(&job, out, &self.meter("Copying data", stretches.kept()))?;
        Ok(Written { zero, ..written })
    }
}

/// Writes the pages, the most useful ones first; says where that was cut, if it was.
fn by_use(
    windows: &mut Windows<'_>,
    uses: &Uses<'_>,
    writers: &mut [Writer<'_>],
    meter: &Meter,
) -> std::io::Result<Option<String>> {
    let one = windows.is_one();
    let (mut known, mut cut) = (None, None);
    for use_ in Use::ORDER {
        windows.each(&mut |window, kept, _| {
            let order = known.take().or_else(|| uses.of(window)).ok_or(std::io::ErrorKind::OutOfMemory)?;
            writers.iter_mut().try_for_each(|writer| writer.pages(kept, Some((&order, use_)), meter))?;
            known = Some(order).filter(|_| one);
            Ok(())
        })?;
        let going_on: Vec<bool> = writers.iter_mut().map(Writer::again).collect();
        if going_on.contains(&false) && cut.is_none() {
            cut = Some(format!("pages were written in the order of use; the dump is cut in {}", use_.name()));
        }
        if !going_on.contains(&true) {
            break;
        }
    }
    Ok(cut)
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
