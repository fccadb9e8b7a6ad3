//! The log out of a vmcore: small, and enough on most mornings. In: options. Out: the log, a report, an exit code.

use std::io::Write;
use std::path::Path;

use super::console::{ending, remedy, save, say, start_log, tell};
use super::vmcoreinfo_file::Given;
use super::{identify, release};
use crate::cli::LogOptions;
use crate::dmesg::{self, PanicLine, Since};
use crate::error::{Error, chain};
use crate::input;
use crate::live_patches::{self, ModuleList};
use crate::output;
use crate::progress::Messages;
use crate::report::{LogReport, Outcome};
use crate::vmcore::read::PhysMem;

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
    save(options.report.as_deref(), &report);
    code
}

fn save_log(options: &LogOptions, report: &mut LogReport) -> Result<(), Error> {
    let given = Given::read(options.vmcoreinfo.as_deref())?;
    let mut opened = input::open(&options.input, true, given.as_ref().map(|given| &given.facts))?;
    let mut input = opened.input()?;
    report.problems.append(&mut input.problems);
    let kernel = identify(&input, given.as_ref(), &options.input, &mut report.problems)?;
    report.kernel_release = release(&kernel);
    report.crash_time = kernel.crash_time;
    let no_log = |why: String| Error::NoLog { path: options.input.clone(), why };
    let Some(mut memory) = kernel.memory(&input) else {
        return Err(no_log(report.problems.last().cloned().unwrap_or_default()));
    };

    let path = options.output.as_deref().unwrap_or(Path::new("stdout"));
    let mut out: Box<dyn Write> = match &options.output {
        Some(path) => Box::new(output::create(path, options.force, &[&options.input])?),
        None => Box::new(std::io::stdout().lock()),
    };
    let (mut line, mut modules) = (PanicLine::default(), ModuleList::default());
    let (mut text, mut bytes) = (Vec::new(), 0u64);
    let found = dmesg::records(&kernel.facts, &mut memory, options.since, &mut |record| {
        line.see(record.text);
        modules.see(record.text);
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
    // A list that is there and cannot be read is worth a line; a kernel that does not tell where it is, is not.
    report.live_patches = match live_patches::in_memory(&kernel.facts, &mut memory) {
        Ok(patches) => Some(patches),
        Err(why) => {
            if kernel.facts.symbol("kallsyms_names").is_some() {
                report.problems.push(format!("live patches: {why}"));
            }
            modules.patches()
        }
    };
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
    let gone = input.segments().missing_bytes();
    if gone > 0 {
        report.problems.push(format!("the vmcore is {gone} bytes shorter than its headers say"));
    }
    // There always is a log, but not always one since the last clear.
    let nothing = found.records == 0 && (options.since == Since::Boot || found.lost > 0);
    report.outcome = if nothing { Outcome::Incomplete } else { Outcome::Complete };
    Ok(())
}
