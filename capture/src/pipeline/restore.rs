//! A dump made of dumps: `-R` and `--reassemble`. In: a flattened stream, or the parts of a split dump. Out: one file.
//! May surprise: what is there is kept, marked incomplete, when the rest is missing.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::console::{ending, remedy, save, say, start_log, tell};
use crate::cli::{ReassembleOptions, RebuildOptions};
use crate::dumpfile::read::Source;
use crate::dumpfile::reassemble::Parts;
use crate::dumpfile::rebuild::{self, Ended};
use crate::error::{Error, chain};
use crate::output;
use crate::progress::Messages;
use crate::report::{Outcome, ReassembleReport, RebuildReport};

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
    save(options.report.as_deref(), &report);
    u8::from(report.outcome != Outcome::Complete)
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
    save(options.report.as_deref(), &report);
    u8::from(report.outcome != Outcome::Complete)
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
