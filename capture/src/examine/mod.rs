//! Looks at a dump that is there: what is in it, and whether it is sound. In: a file. Out: answers, for people and as
//! JSON, and an exit code.
//! May surprise: the file may have been written by any program on any machine, so it is as hostile as memory is; the
//! number of problems that are named is bounded, their count is not.
//!
//! Another format is one arm each in [`info`] and [`verify`], after [`crate::input::recognise`] has recognised it.

mod info;
mod verify;

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use crate::cli::ExamineOptions;
use crate::error::{Error, chain};
use crate::input::{Format, Recognised, recognise};
use crate::pipeline::start_log;

pub use info::{Info, Pages};
pub use verify::{Verdict, check};

/// The file, and what it is.
fn open(path: &Path) -> Result<(Recognised, Format), Error> {
    let found = recognise(path)?;
    let format = found.format.ok_or_else(|| match found.storage.stream().map(|facts| facts.ended.as_ref()) {
        None => input(path, "it is neither a kdump-compressed dump nor an ELF vmcore, nor one of them flattened"),
        Some(None) => input(path, "it is flattened, but not a dump"),
        Some(Some(ended)) => input(path, format!("as a flattened dump, it has no header: {}", chain(ended))),
    })?;
    Ok((found, format))
}

fn input(path: &Path, why: impl Into<String>) -> Error {
    Error::Input { path: path.into(), why: why.into() }
}

/// Says what is in a dump; returns the exit code.
pub fn info(options: &ExamineOptions) -> u8 {
    start_log(options.messages);
    answer(options, info::info(&options.file), Info::text, |_| 0)
}

/// Checks a dump; returns the exit code: 0 if it is sound.
pub fn verify(options: &ExamineOptions) -> u8 {
    start_log(options.messages);
    let verdict = verify::verify(&options.file, options.threads, options.messages);
    answer(options, verdict, Verdict::text, |verdict| u8::from(!verdict.sound))
}

fn answer<T: Serialize>(
    options: &ExamineOptions,
    result: Result<T, Error>,
    text: impl Fn(&T) -> String,
    code: impl Fn(&T) -> u8,
) -> u8 {
    let found = match result {
        Ok(found) => found,
        Err(error) => {
            log::error!("kdump-capture: {}", chain(&error));
            return error.exit_code();
        }
    };
    let text =
        if options.json { serde_json::to_string_pretty(&found).unwrap_or_default() + "\n" } else { text(&found) };
    // Nobody may be listening; the exit code tells all the same.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    code(&found)
}

/// `text` without what a terminal would act on.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
