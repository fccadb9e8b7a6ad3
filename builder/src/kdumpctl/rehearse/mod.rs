//! `kdumpctl rehearse`: a dump without a crash.
//!
//! In: the kernel and the image that a crash would boot. Out: whether a dump came out, how long it took, and how much memory
//! was left.
//!
//! ```text
//!  image ─▶ stage: another target ─┐
//!  disk with its file system ──────┼─▶ qemu: as much memory as is reserved ─▶ console: status.json ─▶ what came of it
//!  core: memory of a dead kernel ──┘                                     └─▶ disk: the dump, verified
//! ```

mod core;
mod qemu;
mod stage;

use super::kernel::{self, OnDisk};
use super::{Machine, load, status, waiting};
use crate::cli::Rehearsal;
use crate::config::Config;
use crate::crashkernel::mib;
use crate::gather::programs::Programs;
use anyhow::{Context, bail};
use kdump_hooks::cmdline::words;
use kdump_init::rehearsal::{MARK, WORD};
use qemu::{CONSOLE, Ended, MOST, PROGRAM, Qemu};
use serde::Serialize;
use serde_json::Value;
use stage::{DISK, Stage};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How many lines of the console are shown after a failure.
const TAIL: usize = 20;

/// What a kernel says that has no memory left.
const OUT_OF_MEMORY: [&str; 3] = ["Out of memory", "out_of_memory", "System is deadlocked on memory"];

/// What came of it.
#[derive(Debug, Serialize)]
struct Report {
    /// Whether a complete dump came out, and was found sound if that could be seen.
    complete: bool,
    /// Why not.
    reason: Option<String>,
    /// Seconds from the kernel's start to its end.
    seconds: f64,
    /// Bytes of memory that the kernel had.
    memory: u64,
    /// Bytes of it that were free at the end of the worst stage.
    memory_left: Option<u64>,
    /// Bytes of the dump.
    dump_bytes: Option<u64>,
    /// Whether the collector found the dump on the disk sound; nothing if it could not be taken off.
    verified: Option<bool>,
    /// What a rehearsal cannot show.
    left_out: Vec<String>,
    /// What the capture environment reported.
    status: Option<Value>,
}

/// Rehearses.
pub(super) fn run(machine: &Machine, typed: &Rehearsal, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    if !cfg!(target_arch = "x86_64") {
        bail!("a rehearsal is only known here for x86_64; kdumpctl test is the other way");
    }
    if !stage::on_path(PROGRAM) {
        bail!("{PROGRAM} is not here; install QEMU for x86_64 (qemu-system-x86, qemu-kvm)");
    }
    let (disk, line) = what(machine, typed)?;
    load::check_image(&disk)?;
    let memory = match typed.memory {
        Some(mib) => mib.saturating_mul(1 << 20),
        None => status::reserved(&machine.tree),
    };
    if memory == 0 {
        bail!("no memory is reserved on this machine; say with --memory how much would be");
    }
    let scratch = tempfile::tempdir()?;
    let folder = match &typed.keep {
        Some(dir) => {
            fs::create_dir(dir).with_context(|| format!("cannot make {}, which --keep names", dir.display()))?;
            dir.as_path()
        }
        None => scratch.path(),
    };
    let mut stage = stage::set(machine, &disk.image, folder)?;
    if memory > MOST {
        stage.left_out.push(format!("{} MiB of memory: the virtual machine has {} MiB", mib(memory), mib(MOST)));
    }
    let qemu = Qemu {
        kernel: &disk.kernel,
        folder,
        bus: stage.bus,
        memory: memory.min(MOST),
        cmdline: line,
        release: &stage.config.kernel_release,
        accel: typed.accel,
        more: &typed.qemu,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let limit = Duration::from_secs(typed.limit);
    let ended = waiting::while_saying("rehearsing in a virtual machine", || qemu.run(now, limit))?;
    let report = judge(machine, &stage, &ended, memory.min(MOST), folder);
    match typed.how.json {
        true => writeln!(out, "{:#}", serde_json::to_value(&report)?)?,
        false => say(&report, &ended, &stage, out)?,
    }
    if let Some(dir) = &typed.keep {
        log::info!("{} has the console's log in {CONSOLE}, and the disk", dir.display());
    }
    Ok(if report.complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a crash would boot, or what is named instead, and its command line.
fn what(machine: &Machine, typed: &Rehearsal) -> anyhow::Result<(OnDisk, String)> {
    let config = Config::read(&machine.files)?;
    let loaded = load::last(&machine.tree).filter(|_| status::is_loaded(&machine.tree));
    let (mut disk, line) = match loaded {
        Some(loaded) => {
            let disk = OnDisk { release: loaded.release, kernel: loaded.kernel, image: loaded.image };
            (disk, loaded.cmdline)
        }
        None => {
            let line = load::command_line(machine, &config)?;
            let disk = match (&typed.kernel, &typed.image) {
                (Some(kernel), Some(image)) => {
                    OnDisk { release: String::new(), kernel: kernel.clone(), image: image.clone() }
                }
                _ => kernel::find(&machine.tree, &config.system)?,
            };
            (disk, line.to_string_lossy().into_owned())
        }
    };
    disk.kernel = typed.kernel.clone().unwrap_or(disk.kernel);
    disk.image = typed.image.clone().unwrap_or(disk.image);
    // The virtual machine has one console, and an end of its own.
    let mut line: Vec<String> = words(&line).into_iter().filter(|word| !is_of_the_machine(word)).collect();
    line.extend(["console=ttyS0", "panic=1", WORD].map(str::to_owned));
    line.extend(typed.append.iter().flat_map(|append| words(append)));
    Ok((disk, line.join(" ")))
}

/// Words that only mean something where the old kernel ran.
fn is_of_the_machine(word: &str) -> bool {
    let name = word.split('=').next().unwrap_or_default();
    ["console", "earlyprintk", "earlycon", "disable_cpu_apicid", "elfcorehdr", "mem", "memmap", "panic"].contains(&name)
}

fn judge(machine: &Machine, stage: &Stage, ended: &Ended, memory: u64, folder: &Path) -> Report {
    let line = ended.console.lines().rev().find_map(|line| line.trim_end().strip_prefix(MARK));
    let status: Option<Value> = line.and_then(|line| serde_json::from_str(line).ok());
    let get = |pointer: &str| status.as_ref().and_then(|status| status.pointer(pointer));
    let is_complete = get("/outcome").and_then(Value::as_str) == Some("complete");
    let mut report = Report {
        complete: is_complete,
        reason: get("/reason").and_then(Value::as_str).map(str::to_owned),
        seconds: ended.took.as_secs_f64(),
        memory,
        memory_left: get("/memory/available_least").and_then(Value::as_u64).map(|kib| kib << 10),
        dump_bytes: get("/vmcore/bytes").and_then(Value::as_u64),
        verified: None,
        left_out: stage.left_out.clone(),
        status: status.clone(),
    };
    if status.is_none() {
        report.reason = Some(match ended.late {
            _ if OUT_OF_MEMORY.iter().any(|words| ended.console.contains(words)) => {
                format!("{} MiB are too little: the kernel ran out of memory; raise crashkernel=", mib(memory))
            }
            true => "its time was over before a dump was written".to_owned(),
            false => "it ended without a word on a dump".to_owned(),
        });
    } else if ended.late {
        report.reason = Some("a dump was written, and then the machine did not end in time".to_owned());
        report.complete = false;
    }
    if is_complete {
        match verify(machine, stage, folder) {
            Ok(sound) => report.verified = sound,
            Err(error) => {
                report.verified = Some(false);
                report.complete = false;
                report.reason = Some(format!("{error:#}"));
            }
        }
    }
    report
}

/// Takes the dump off the scratch disk and has the collector look at every page; nothing if that cannot be done here.
fn verify(machine: &Machine, stage: &Stage, folder: &Path) -> anyhow::Result<Option<bool>> {
    if !stage.fstype.starts_with("ext") || !stage::on_path("debugfs") {
        return Ok(None);
    }
    let dumps = folder.join("dumps");
    fs::create_dir(&dumps)?;
    let request = format!("rdump {} {}", stage.config.dump.path.display(), dumps.display());
    let mut debugfs = stage::command("debugfs");
    debugfs.arg("-R").arg(request).arg(folder.join(DISK)).stdin(Stdio::null());
    debugfs.output().context("cannot run debugfs")?;
    let mut found = Vec::new();
    find(&dumps, &mut found);
    let [core] = &found[..] else { bail!("{} dumps are on the scratch disk, and not one", found.len()) };
    let collector = Programs::find(machine.programs.as_deref())?.capture;
    super::dumps::verify::pages(core, &collector)?;
    Ok(Some(true))
}

/// The dumps below a folder.
fn find(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => find(&entry.path(), found),
            Ok(_) if ["vmcore", "vmcore.flat"].iter().any(|name| entry.file_name() == *name) => {
                found.push(entry.path())
            }
            _ => {}
        }
    }
}

fn say(report: &Report, ended: &Ended, stage: &Stage, out: &mut dyn Write) -> anyhow::Result<()> {
    match report.complete {
        true => {
            let bytes = report.dump_bytes.map(|bytes| format!(" of {} MiB", mib(bytes))).unwrap_or_default();
            let sound = if report.verified == Some(true) { ", and every page of it is sound" } else { "" };
            writeln!(out, "A dump{bytes} came out on {}{sound}", stage.fstype)?;
        }
        false => {
            writeln!(out, "No complete dump came out: {}", report.reason.as_deref().unwrap_or("nobody knows why"))?;
            let lines: Vec<&str> = ended.console.lines().filter(|line| !line.starts_with(MARK)).collect();
            writeln!(out, "The console said last:")?;
            for line in lines.iter().skip(lines.len().saturating_sub(TAIL)) {
                writeln!(out, "  {}", super::dumps::printable(line))?;
            }
        }
    }
    writeln!(out, "It took {:.1} s from the kernel's start to its end", report.seconds)?;
    let left = report.memory_left.map(|left| format!(", {} MiB of it were left at the worst", left >> 20));
    writeln!(out, "The kernel had {} MiB of memory{}", mib(report.memory), left.unwrap_or_default())?;
    for part in &report.left_out {
        writeln!(out, "Not rehearsed: {part}")?;
    }
    Ok(())
}
