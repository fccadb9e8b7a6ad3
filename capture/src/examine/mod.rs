//! Looks at a dump that is there: what is in it, and whether it is sound. In: a file. Out: answers, for people and as
//! JSON, and an exit code.
//! May surprise: the file may have been written by any program on any machine, so it is as hostile as memory is; the
//! number of problems that are named is bounded, their count is not.
//!
//! Another format is one arm each in [`info`] and [`verify`], after [`Format::of`] has recognised it.

mod info;
mod verify;

use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::Serialize;

use crate::cli::ExamineOptions;
use crate::dumpfile::layout::SIGNATURE;
use crate::dumpfile::read::Source;
use crate::error::{Error, chain};
use crate::pipeline::start_log;
use crate::units::FileOffset;

pub use info::{Info, Pages};
pub use verify::{Verdict, check};

/// The formats a dump can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A vmcore as the kernel shows it.
    Elf,
    /// What this program writes.
    Kdump,
    /// A stream of pieces with their places.
    Flattened,
}

impl Format {
    /// By the first bytes of a file.
    pub fn of(start: &[u8]) -> Option<Format> {
        if start.starts_with(SIGNATURE) {
            Some(Format::Kdump)
        } else if start.starts_with(b"\x7fELF") {
            Some(Format::Elf)
        } else if start.starts_with(b"makedumpfile\0") {
            Some(Format::Flattened)
        } else {
            None
        }
    }
}

/// The file, its length and its format.
fn open(path: &Path) -> Result<(File, u64, Format), Error> {
    let fail = |source| Error::OpenInput { path: path.into(), source };
    let file = File::open(path).map_err(fail)?;
    let len = file.metadata().map_err(fail)?.len();
    let mut start = [0; 16];
    let got = file.read_at(FileOffset(0), &mut start).map_err(fail)?;
    let no_dump = || input(path, "it is neither a kdump-compressed dump nor an ELF vmcore");
    let format = Format::of(&start[..got]).ok_or_else(no_dump)?;
    Ok((file, len, format))
}

fn input(path: &Path, why: impl Into<String>) -> Error {
    Error::Input { path: path.into(), why: why.into() }
}

fn flattened(path: &Path) -> Error {
    input(path, "it is a flattened dump; make a file of it first: kdump-capture -R DUMPFILE < STREAM")
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
