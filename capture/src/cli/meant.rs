//! What a command line means: a command with all that it needs. Nothing here reads or checks anything.

use std::path::{Path, PathBuf};

use crate::compress::Kind;
use crate::dmesg::Since;
use crate::progress::Messages;
use crate::units::DumpLevel;

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// Print this and end.
    Say(String),
    /// Write a dump.
    Dump(DumpOptions),
    /// Write the log.
    Log(LogOptions),
    /// Make one dump of the files of a split one.
    Reassemble(ReassembleOptions),
    /// Rebuild a dump from a flattened stream on stdin.
    Rebuild(RebuildOptions),
    /// Say what a dump of the running system would hold.
    Usage(UsageOptions),
    /// Say what is in a dump.
    Info(ExamineOptions),
    /// Check a dump.
    Verify(ExamineOptions),
}

/// What a dump is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// kdump-compressed, version 6.
    #[default]
    Kdump,
    /// An ELF core.
    Elf,
}

impl Format {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Format::Kdump => "kdump-compressed",
            Format::Elf => "elf",
        }
    }
}

/// How much memory a dump may take; what is `None` follows from the vmcore and from what is free.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryOptions {
    /// All of it, in bytes.
    pub budget: Option<u64>,
    /// The bitmap's part, in bytes.
    pub bitmap: Option<u64>,
    /// Pages that a worker packs at once.
    pub batch: Option<usize>,
    /// The bitmap is never cut into windows.
    pub whole_bitmap: bool,
}

/// How to write a dump.
#[derive(Debug, Clone)]
pub struct DumpOptions {
    /// The vmcore.
    pub input: PathBuf,
    /// The dump; with `flattened` its name in messages.
    pub output: PathBuf,
    /// The other files of a split dump, by their pages.
    pub more_outputs: Vec<PathBuf>,
    /// Write a flattened stream to stdout instead of a file.
    pub flattened: bool,
    /// What is left out.
    pub level: DumpLevel,
    /// What is left out instead if the dump does not fit, one level after the other.
    pub next_levels: Vec<DumpLevel>,
    /// The dump may have this many bytes at most.
    pub limit: Option<u64>,
    /// Pages are written in the order of use.
    pub by_use: bool,
    /// Write nothing, only say what would be written.
    pub dry_run: bool,
    /// What it is written as.
    pub format: Format,
    /// How pages are packed.
    pub codec: Kind,
    /// How hard the codec tries; `None` leaves it to the codec.
    pub compress_level: Option<i32>,
    /// Number of workers.
    pub threads: usize,
    /// Overwrite the output.
    pub force: bool,
    /// Map the vmcore rather than copy from it.
    pub mapping: bool,
    /// A text to be taken for vmcoreinfo, instead of the note's.
    pub vmcoreinfo: Option<PathBuf>,
    /// Which messages appear.
    pub messages: Messages,
    /// How much memory it may take.
    pub memory: MemoryOptions,
    /// Where the report goes.
    pub report: Option<PathBuf>,
}

impl DumpOptions {
    /// All files of the dump.
    pub fn outputs(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.output).chain(&self.more_outputs).map(PathBuf::as_path)
    }
}

/// How to write the log.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The vmcore.
    pub input: PathBuf,
    /// The log; `None` is stdout.
    pub output: Option<PathBuf>,
    /// Which records.
    pub since: Since,
    /// Overwrite the output.
    pub force: bool,
    /// A text to be taken for vmcoreinfo, instead of the note's.
    pub vmcoreinfo: Option<PathBuf>,
    /// Which messages appear.
    pub messages: Messages,
    /// Where the report goes.
    pub report: Option<PathBuf>,
}

/// How to make one dump of several files.
#[derive(Debug, Clone)]
pub struct ReassembleOptions {
    /// The files, in any order.
    pub parts: Vec<PathBuf>,
    /// The dump.
    pub output: PathBuf,
    /// Overwrite the output.
    pub force: bool,
    /// Which messages appear.
    pub messages: Messages,
    /// Where the report goes.
    pub report: Option<PathBuf>,
}

/// How to rebuild a dump.
#[derive(Debug, Clone)]
pub struct RebuildOptions {
    /// The dump.
    pub output: PathBuf,
    /// Overwrite the output.
    pub force: bool,
    /// Which messages appear.
    pub messages: Messages,
    /// Where the report goes.
    pub report: Option<PathBuf>,
}

/// How to count the running system's pages.
#[derive(Debug, Clone)]
pub struct UsageOptions {
    /// /proc/kcore.
    pub kcore: PathBuf,
    /// Answer in JSON.
    pub json: bool,
    /// Number of workers.
    pub threads: usize,
    /// Which messages appear.
    pub messages: Messages,
    /// Where the report goes.
    pub report: Option<PathBuf>,
}

/// How to look at a dump.
#[derive(Debug, Clone)]
pub struct ExamineOptions {
    /// The dump.
    pub file: PathBuf,
    /// Answer in JSON.
    pub json: bool,
    /// Number of workers.
    pub threads: usize,
    /// Which messages appear.
    pub messages: Messages,
}
