//! Puts kernel and image into the reserved memory, and remembers what was put there.
//!
//! In: what is on disk, and the configuration of the command line. Out: a loaded capture kernel, and [`Loaded`] in a file
//! below `/run`, which goes with the next boot as the capture kernel does.

use super::kernel::OnDisk;
use super::{Machine, keys, oops};
use crate::cli::Loading;
use crate::config::{Config, Given, Syscall};
use crate::crashkernel::Arch;
use crate::host::{Tree, watchdog};
use crate::inspect;
use crate::kexec::cmdline::{self, Parts};
use crate::kexec::{self, Purpose};
use anyhow::{Context, bail};
use kdump_init::config::ImageConfig;
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const RECORD: &str = "run/kdump/loaded.json";

/// What is in the reserved memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Loaded {
    /// The kernel's release.
    pub(super) release: String,
    /// The kernel's file.
    pub(super) kernel: PathBuf,
    /// The image's file.
    pub(super) image: PathBuf,
    /// When the image's file was written, in seconds of Unix time.
    pub(super) image_written: u64,
    /// The command line.
    pub(super) cmdline: String,
    /// The system call by which it was loaded.
    pub(super) syscall: String,
}

/// Loads it.
pub(super) fn run(
    machine: &Machine,
    disk: &OnDisk,
    config: &Config,
    how: &Loading,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let line = command_line(machine, config)?;
    log::debug!("{}: {}", disk.kernel.display(), line.to_string_lossy());
    let is_on = |given: &Option<Given<bool>>| given.as_ref().is_some_and(|given| given.value);
    let syscall = how.syscall.or(config.system.syscall.as_ref().map(|given| given.value));
    let shrink = how.shrink || is_on(&config.system.auto_resize);
    put(machine, disk, line, &Loading { syscall, shrink }, out)?;
    oops::make_a_panic(&machine.tree, config);
    Ok(())
}

/// Loads it with a command line that is known.
pub(super) fn put(
    machine: &Machine,
    disk: &OnDisk,
    line: CString,
    how: &Loading,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let tree = &machine.tree;
    let image = fs::read(&disk.image).with_context(|| format!("cannot read the image {}", disk.image.display()))?;
    let config = inspect::config(&image)?;
    let keys = keys::hand_over(tree, &config)?;
    drop(image);
    if how.shrink {
        shrink(machine, &config, disk, out)?;
    }
    let syscall = wanted(tree, how);
    let files = kexec::Files { kernel: &disk.kernel, image: Some(&disk.image), cmdline: &line };
    let done = kexec::load(tree, machine.kexec, Purpose::Crash, files, syscall).with_context(|| {
        let what = format!("cannot load the capture kernel {} with {}", disk.kernel.display(), disk.image.display());
        if keys > 0 { format!("{what}; {}", keys::REMEDY) } else { what }
    })?;
    remember(tree, disk, &line.to_string_lossy(), syscall, done);
    let by = if done == Syscall::Load { " by kexec_load" } else { "" };
    writeln!(out, "Loaded {} with {}{by}", disk.kernel.display(), disk.image.display())?;
    Ok(())
}

/// The system call that is asked for, now or when it was loaded before.
fn wanted(tree: &Tree, how: &Loading) -> Syscall {
    how.syscall.or_else(|| last(tree).map(|loaded| loaded.asked())).unwrap_or_default()
}

impl Loaded {
    /// The call that is to be used again.
    fn asked(&self) -> Syscall {
        match self.syscall.as_str() {
            "load" => Syscall::Load,
            "file" => Syscall::File,
            _ => Syscall::Auto,
        }
    }
}

/// What was loaded last since this machine was booted.
pub(super) fn last(tree: &Tree) -> Option<Loaded> {
    serde_json::from_str(&fs::read_to_string(tree.path(RECORD)).ok()?).ok()
}

/// Nothing is loaded any more.
pub(super) fn forget(tree: &Tree) {
    // Its being there changes nothing: the kernel says whether something is loaded.
    let _ = fs::remove_file(tree.path(RECORD));
}

fn remember(tree: &Tree, disk: &OnDisk, line: &str, asked: Syscall, done: Syscall) {
    // Who asked for one call gets that one again at a reload; who did not, may get the other one.
    let syscall = match (asked, done) {
        (Syscall::Auto, Syscall::Load) => "auto, kexec_load",
        (Syscall::Auto, _) => "auto, kexec_file_load",
        (Syscall::Load, _) => "load",
        (Syscall::File, _) => "file",
    };
    let loaded = Loaded {
        release: disk.release.clone(),
        kernel: disk.kernel.clone(),
        image: disk.image.clone(),
        image_written: written(&disk.image).unwrap_or(0),
        cmdline: line.to_owned(),
        syscall: syscall.to_owned(),
    };
    let path = tree.path(RECORD);
    let noted = path
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(&path, serde_json::to_vec_pretty(&loaded).unwrap_or_default()));
    if let Err(error) = noted {
        log::warn!("cannot note in {} what is loaded: {error}", path.display());
    }
}

/// When a file was written, in seconds of Unix time.
pub(super) fn written(path: &Path) -> Option<u64> {
    let time: SystemTime = fs::metadata(path).and_then(|meta| meta.modified()).ok()?;
    Some(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

/// Gives back what is reserved beyond the need. Only without a loaded kernel will the kernel do that.
fn shrink(machine: &Machine, config: &ImageConfig, disk: &OnDisk, out: &mut dyn Write) -> anyhow::Result<()> {
    let tree = &machine.tree;
    let file = ["sys/kernel/kexec_crash_size", "sys/kernel/kexec/crash_size"].map(|name| tree.path(name));
    let Some(file) = file.into_iter().find(|file| file.exists()) else { return Ok(()) };
    let reserved = super::status::reserved(tree);
    let need = crate::estimate::for_image(tree, config, &disk.kernel, &disk.image)?.recommended();
    if need >= reserved {
        log::info!("{} MiB are reserved and {} MiB needed: nothing is given back", reserved >> 20, need >> 20);
        return Ok(());
    }
    machine
        .kexec
        .unload(Purpose::Crash)
        .map_err(|error| kexec::explain(error, &kexec::Guard::of(tree)))
        .context("cannot unload the capture kernel, and memory is only given back without one")?;
    fs::write(&file, need.to_string()).with_context(|| {
        format!("cannot give back memory: {} does not take {need}; start without --shrink", file.display())
    })?;
    writeln!(out, "Gave back {} MiB of the {} MiB that were reserved", (reserved - need) >> 20, reserved >> 20)?;
    Ok(())
}

/// The command line of the capture kernel.
pub(super) fn command_line(machine: &Machine, config: &Config) -> anyhow::Result<CString> {
    let Config { dialect, arch, system: config, dump, .. } = config;
    let usual = || cmdline::usual_remove(*dialect, *arch);
    let mut remove = config.remove.as_ref().map_or_else(usual, |given| given.value.clone());
    let base = match &config.commandline {
        Some(given) => given.value.clone(),
        None => {
            // The network by which this system was booted is not the way to the dump target, which the image knows; and
            // names of its cards are those of the capture kernel only by chance.
            remove = format!("{remove} {}", kdump_hooks::net::options::WORDS.join(" "));
            machine.tree.line("proc/cmdline").context("cannot read /proc/cmdline; set KDUMP_COMMANDLINE")?
        }
    };
    let cpuinfo = machine.tree.line("proc/cpuinfo").unwrap_or_default();
    let usual = || cmdline::usual_append(*dialect, *arch);
    let append = config.append.as_ref().map_or_else(usual, |given| given.value.clone());
    let is_left_alone = dump.image.watchdog.as_ref().is_some_and(|given| !given.value);
    let watchdog = if is_left_alone { None } else { watchdog::active(&machine.tree) };
    let watchdog = watchdog.map(|watchdog| watchdog::options(&watchdog)).unwrap_or_default();
    let mut append = [&[append], &watchdog[..]].concat().join(" ");
    if *arch == Arch::Aarch64
        && machine.tree.line("sys/devices/virtual/dmi/id/sys_vendor").as_deref() == Some("Amazon EC2")
    {
        // As RHEL has it: on these machines it only costs time.
        append = append.split(' ').filter(|word| *word != "irqpoll").collect::<Vec<_>>().join(" ");
    }
    cmdline::capture(Parts {
        base: &base,
        remove: &remove,
        append: &append,
        boot_apicid: cmdline::boot_apicid(&cpuinfo),
    })
}

/// That the image on disk is there and can be loaded.
pub(super) fn check_image(disk: &OnDisk) -> anyhow::Result<()> {
    if !disk.image.is_file() {
        bail!("there is no image {}; kdumpctl start builds it", disk.image.display());
    }
    Ok(())
}
