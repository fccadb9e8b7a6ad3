//! Why a capture could not be done. In: what was being done, and to what. Out: one chain, printed once.
//! May surprise: what merely costs a page or a section is not an error but a line in the report's `problems`.

use std::io;
use std::path::PathBuf;

/// What ended a capture before its dump was complete.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for something that cannot be done.
    #[error("{0}")]
    Usage(String),
    /// The input cannot be opened or read at all.
    #[error("unable to open the vmcore {path}")]
    OpenInput {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The input is not what this program reads.
    #[error("{path} is not a vmcore this program can read: {why}")]
    Input {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do about it.
        why: String,
    },
    /// The dump comes from another kind of machine.
    #[error("{path} comes from another kind of kernel: {why}")]
    WrongKernel {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        why: String,
    },
    /// A file beside the input cannot be read.
    #[error("unable to read {what} from {path}")]
    Read {
        /// What it should have.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The output cannot be created.
    #[error("unable to create {path}{remedy}")]
    CreateOutput {
        /// The file.
        path: PathBuf,
        /// What to do about it; may be empty.
        remedy: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The output cannot be written to its end.
    #[error("unable to write {what} to {path}{remedy}")]
    Write {
        /// Which part.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What to do about it; may be empty.
        remedy: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel log is not where the dump says.
    #[error("unable to find the kernel log in {path}: {why}")]
    NoLog {
        /// The vmcore.
        path: PathBuf,
        /// What was missing.
        why: String,
    },
    /// Memory for the bitmap is not to be had.
    #[error("unable to reserve {bytes} bytes for the page bitmap; a larger crashkernel= is needed")]
    NoMemory {
        /// How much was asked for.
        bytes: u64,
    },
}

impl Error {
    /// The exit code of the program: 2 for a wrong kernel, else 1 (contract 5 of the design).
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::WrongKernel { .. } => 2,
            _ => 1,
        }
    }
}

/// The error and its causes on one line, each linked and none repeated.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
