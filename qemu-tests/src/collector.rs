//! Our collector, run on a kept source as makedumpfile would be: what it is asked, and what came of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::programs::programs;
use crate::provision::Codec;
use crate::tools;

/// What a dump is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// kdump-compressed.
    Kdump,
    /// `-E`
    Elf,
    /// `-F`: kdump-compressed, in a stream.
    Flattened,
    /// `-F -E`
    FlattenedElf,
    /// `--split`, into three files.
    Split,
}

impl Format {
    /// The options by which both collectors know it.
    pub fn options(self) -> &'static [&'static str] {
        match self {
            Format::Kdump => &[],
            Format::Elf => &["-E"],
            Format::Flattened => &["-F"],
            Format::FlattenedElf => &["-F", "-E"],
            Format::Split => &["--split"],
        }
    }

    /// Whether it goes to standard output.
    pub fn is_stream(self) -> bool {
        matches!(self, Format::Flattened | Format::FlattenedElf)
    }

    /// The names of its files in `folder`.
    pub fn files(self, folder: &Path) -> Vec<PathBuf> {
        match self {
            Format::Split => ["part1", "part2", "part3"].map(|name| folder.join(name)).into(),
            _ => vec![folder.join("dump")],
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Collected {
    /// The dump, or its parts.
    pub files: Vec<PathBuf>,
    /// What the collector reports.
    pub report: Value,
}

impl Collected {
    /// Pages of a kind, by the report.
    pub fn pages(&self, kind: &str) -> Result<u64> {
        let count = self.report.pointer(&format!("/pages/{kind}")).and_then(Value::as_u64);
        count.with_context(|| format!("the report counts no {kind} pages: {}", self.report))
    }
}

/// Where a dump ends that does not get all the room it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// `-L`: in the least useful pages.
    ByUse,
    /// As on a disk that gets full: in the highest pages.
    ByMemory,
}

/// Filters `raw` into `folder` with room for `percent` of the dump, packed by zstd.
pub fn collect_cut(raw: &Path, level: u8, percent: u64, cut: Cut, folder: &Path) -> Result<PathBuf> {
    let whole = collect(raw, level, Codec::Zstd, Format::Kdump, folder)?.files.remove(0);
    let limit = fs::metadata(&whole)?.len() * percent / 100;
    let dump = folder.join("cut");
    // The shell counts files in blocks of 512 bytes.
    let limited = format!("ulimit -f {}; trap '' XFSZ; exec \"$@\"", limit / 512);
    let mut command = Command::new("sh");
    command.arg("-c").arg(if cut == Cut::ByMemory { &limited } else { "exec \"$@\"" }).arg("sh");
    command.arg(programs()?.path("kdump-capture")).args(["--message-level", "4", "-f", "-d", &level.to_string()]);
    if cut == Cut::ByUse {
        command.args(["-L", &limit.to_string()]);
    }
    command.args(Codec::Zstd.option()).arg(raw).arg(&dump);
    let said = tools::run_accepting(&mut command, &[1])?.stderr;
    let said = String::from_utf8_lossy(&said);
    ensure!(said.contains("This is an incomplete dumpfile"), "the dump was not cut: {said}");
    Ok(dump)
}

/// Filters `raw` into a new dump in `folder`, which must be complete.
pub fn collect(raw: &Path, level: u8, codec: Codec, format: Format, folder: &Path) -> Result<Collected> {
    let files = format.files(folder);
    for file in files.iter().filter(|file| file.exists()) {
        fs::remove_file(file).with_context(|| format!("unable to remove {}", file.display()))?;
    }
    let report = folder.join("report.json");
    let mut command = Command::new(programs()?.path("kdump-capture"));
    command.args(["--message-level", "4", "-d", &level.to_string()]).arg("--report").arg(&report);
    command.args(codec.option()).args(format.options()).arg(raw);
    if format.is_stream() {
        command.stdout(File::create(&files[0])?);
    } else {
        command.args(&files);
    }
    tools::run(&mut command)?;
    let text = fs::read_to_string(&report).with_context(|| format!("unable to read {}", report.display()))?;
    let report: Value = serde_json::from_str(&text).context("the report is not JSON")?;
    ensure!(report["outcome"] == "complete", "the collector reports {report}");
    Ok(Collected { files, report })
}
