//! `kdumpctl dumps`: the dumps on the disks of this machine.
//!
//! In: the directories of dumps that are configured and mounted, or one that is named. Out: [`Dump`], newest first.
//!
//! May surprise: what other programs left there is listed as well, as `foreign`, and never removed; a dump that was cut off
//! before it had a status is `unfinished`.

mod list;
mod prune;
mod show;
pub(super) mod verify;

use super::Machine;
use super::places::Places;
use crate::cli::{Dumps, Place};
use crate::config::Config;
use anyhow::{Context, bail};
use kdump_init::status::FILE;
use serde::Serialize;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A longer status is none of ours.
const LONGEST_STATUS: u64 = 4 << 20;
/// The files that hold a dump.
const CORES: [&str; 5] = ["vmcore", "vmcore.flat", "vmcore-incomplete", "vmcore.flat-incomplete", "dump.elf"];
const LOGS: [&str; 3] = ["vmcore-dmesg.txt", "dmesg.txt", "vmcore-dmesg-incomplete.txt"];

/// A dump.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Dump {
    /// Its directory.
    pub(super) path: PathBuf,
    /// `complete` and what else a status says, `unfinished` without one, `foreign` if it is another program's.
    pub(super) outcome: String,
    /// Bytes of all files in it.
    pub(super) bytes: u64,
    /// The release of the kernel that crashed.
    pub(super) kernel: Option<String>,
    /// Why it crashed, in its own words.
    pub(super) panic: Option<String>,
    /// When it crashed, in seconds of Unix time.
    pub(super) time: Option<u64>,
}

/// Does what was typed.
pub(super) fn run(machine: &Machine, what: &Dumps, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    match what {
        Dumps::List { which, how } => list::run(&found(machine, which)?, how.json, out).map(|()| ExitCode::SUCCESS),
        Dumps::Show { dump, which, how } => {
            show::run(&found(machine, which)?, dump.as_deref(), how.json, out).map(|()| ExitCode::SUCCESS)
        }
        Dumps::Verify { dumps, which, how } => verify::run(machine, &found(machine, which)?, dumps, how.json, out),
        Dumps::Prune { keep, dry_run, which, how } => {
            // What is on another machine may be of others, unless somebody names it.
            let dirs = directories(machine, which, |places| places.local)?;
            prune::run(machine, &dirs, *keep, *dry_run, how.json, out)
        }
    }
}

/// The directories that hold dumps: the one that is named, else those of the configured places.
fn directories(machine: &Machine, which: &Place, of: fn(Places) -> Vec<PathBuf>) -> anyhow::Result<Vec<PathBuf>> {
    match &which.dir {
        Some(dir) if !dir.is_dir() => bail!("there is no directory {}; name the one that dumps are in", dir.display()),
        Some(dir) => Ok(vec![dir.clone()]),
        None => Ok(of(Places::of(&Config::read(&machine.files)?, &machine.tree))),
    }
}

fn found(machine: &Machine, which: &Place) -> anyhow::Result<Vec<Dump>> {
    let dirs = directories(machine, which, |places| places.all())?;
    for dir in dirs.iter().filter(|dir| !dir.is_dir()) {
        log::info!("there is no directory {}: no dump has been saved there", dir.display());
    }
    if dirs.is_empty() {
        log::info!("no target of dumps is mounted on this machine; --dir names a directory");
    }
    Ok(below(&dirs))
}

/// The newest dump of ours.
pub(super) fn newest(machine: &Machine, config: &Config) -> Option<Dump> {
    let dirs = Places::of(config, &machine.tree).local;
    below(&dirs).into_iter().find(|dump| dump.outcome != "foreign")
}

/// All dumps in these directories, newest first.
pub(super) fn below(dirs: &[PathBuf]) -> Vec<Dump> {
    let entries = dirs.iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut dumps: Vec<Dump> = folders.filter_map(|entry| Dump::read(entry.path())).collect();
    dumps.sort_by(|one, other| (other.stamp(), &other.path).cmp(&(one.stamp(), &one.path)));
    // The same one is seen at each mount point of its disk.
    let mut seen = BTreeSet::new();
    dumps.retain(|dump| fs::metadata(&dump.path).map_or(true, |meta| seen.insert((meta.dev(), meta.ino()))));
    dumps
}

impl Dump {
    /// What is at `path`, if it looks like a dump.
    fn read(path: PathBuf) -> Option<Dump> {
        let has = |names: &[&str]| names.iter().any(|name| path.join(name).is_file());
        let status = status(&path);
        if status.is_none() && !has(&CORES) && !has(&LOGS) {
            return None;
        }
        let files = fs::read_dir(&path).into_iter().flatten().flatten();
        let bytes =
            files.filter_map(|file| file.metadata().ok()).filter(|meta| meta.is_file()).map(|meta| meta.len()).sum();
        let text = |pointers: &[&str]| {
            let found = pointers.iter().find_map(|pointer| status.as_ref()?.pointer(pointer)?.as_str());
            found.map(str::to_owned)
        };
        let time = ["/vmcore/crash_time", "/log/crash_time"]
            .iter()
            .find_map(|pointer| status.as_ref()?.pointer(pointer)?.as_u64());
        let name = path.file_name()?.to_string_lossy().into_owned();
        let outcome = match text(&["/outcome"]) {
            Some(outcome) => outcome,
            None if stamp_of(&name).is_some_and(|at| at > 0) => "unfinished".to_owned(),
            None => "foreign".to_owned(),
        };
        Some(Dump {
            outcome,
            bytes,
            kernel: text(&["/vmcore/kernel_release", "/log/kernel_release"]),
            panic: text(&["/vmcore/panic_line", "/log/panic_line"]),
            time,
            path,
        })
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// By what dumps of one crash are known.
    pub(super) fn crash(&self) -> (Option<u64>, Option<&str>) {
        (self.time, self.panic.as_deref())
    }

    /// What it is sorted by: the time in its name.
    pub(super) fn stamp(&self) -> String {
        let name = self.name();
        let at = stamp_of(&name).unwrap_or(0);
        name.get(at..).unwrap_or_default().replace(':', "-")
    }
}

/// Where the time begins in a name such as `127.0.0.1-2026-01-31-12:00:00`.
fn stamp_of(name: &str) -> Option<usize> {
    let is_date = |text: &str| {
        let mut bytes = text.bytes();
        text.len() >= 16
            && "0000-00-00-00".bytes().all(|like| match (like, bytes.next()) {
                (b'0', Some(byte)) => byte.is_ascii_digit(),
                (like, byte) => byte == Some(like),
            })
    };
    name.char_indices().map(|(at, _)| at).find(|at| name.get(*at..).is_some_and(is_date))
}

/// Whom a dump's name names, as an address.
pub(super) fn host_of(name: &str) -> Option<&str> {
    name.get(..stamp_of(name)?.checked_sub(1)?)
}

/// What `status.json` says.
fn status(path: &Path) -> Option<Value> {
    let mut text = Vec::new();
    File::open(path.join(FILE)).ok()?.take(LONGEST_STATUS).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The dump that somebody means: by its name, if it is where dumps are looked for, or by its directory, wherever that is.
fn meant<'a>(dumps: &'a [Dump], typed: &Path) -> anyhow::Result<Cow<'a, Dump>> {
    if let Some(dump) = dumps.iter().find(|dump| dump.path == typed || Path::new(&dump.name()) == typed) {
        return Ok(Cow::Borrowed(dump));
    }
    let read = |dir: PathBuf| Dump::read(dir).map(Cow::Owned);
    typed
        .canonicalize()
        .ok()
        .filter(|dir| dir.is_dir())
        .and_then(read)
        .with_context(|| format!("there is no dump {}; `kdumpctl dumps list` lists them", typed.display()))
}

/// What a terminal would act on is not sent to it: names and logs come from strangers.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
