//! The virtual machine of a rehearsal.
//!
//! In: kernel, image, command line, how much memory. Out: what it printed, until it ended or its time was over.
//!
//! ```text
//!  0            what is reserved          2 MiB aligned
//!  │ the capture kernel's memory (mem=) │ │ the prepared memory: elfcorehdr= │ the image, as the firmware left it │
//! ```
//!
//! May surprise: the kernel is kept from its upper memory by `mem=`, so that it has as much as a capture kernel would have,
//! and may look at the rest through /proc/vmcore as at memory of another kernel.

use super::core;
use super::stage::{Bus, DISK, IMAGE};
use crate::cli::Accel;
use anyhow::{Context, bail};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The program.
pub(super) const PROGRAM: &str = "qemu-system-x86_64";
/// The files that it leaves.
const CORE: &str = "core";
/// What it printed.
pub(super) const CONSOLE: &str = "console.log";
/// The firmware puts the image at the end of memory, with something of its own behind it.
const BESIDES: u64 = 16 << 20;
/// More than this is not in one piece below the devices.
pub(super) const MOST: u64 = 1536 << 20;

/// What it is made of.
#[derive(Debug)]
pub(super) struct Qemu<'a> {
    pub(super) kernel: &'a Path,
    /// Where image and disk are.
    pub(super) folder: &'a Path,
    pub(super) bus: Bus,
    /// Bytes of memory that the kernel may use.
    pub(super) memory: u64,
    /// Its command line, to which the places are added.
    pub(super) cmdline: String,
    pub(super) release: &'a str,
    pub(super) accel: Accel,
    pub(super) more: &'a [String],
}

/// How it went.
#[derive(Debug)]
pub(super) struct Ended {
    /// How long it ran.
    pub(super) took: Duration,
    /// Whether it was stopped because its time was over.
    pub(super) late: bool,
    /// What it printed.
    pub(super) console: String,
}

impl Qemu<'_> {
    /// The command, and the prepared memory in a file.
    fn command(&self, now: u64) -> anyhow::Result<Command> {
        let place = self.memory.next_multiple_of(core::ALIGNMENT);
        fs::write(self.folder.join(CORE), core::make(place, self.release, now)).context("cannot write the memory")?;
        let image = fs::metadata(self.folder.join(IMAGE))?.len();
        let total = (place + core::SIZE + image + BESIDES).div_ceil(1 << 20);
        let mut command = Command::new(PROGRAM);
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"]);
        command.args(["-machine", "q35", "-cpu", "max", "-smp", "1", "-m", &total.to_string()]);
        for accel in match self.accel {
            Accel::Auto => &["kvm", "tcg"][..],
            Accel::Kvm => &["kvm"],
            Accel::Tcg => &["tcg"],
        } {
            command.args(["-accel", accel]);
        }
        command.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.folder.join(IMAGE));
        let words = format!("{} mem={}K elfcorehdr={place:#x}", self.cmdline, self.memory >> 10);
        command.args(["-append", &words]);
        let file = |name: &str| self.folder.join(name).display().to_string().replace(',', ",,");
        command.args(["-device", &format!("loader,file={},addr={place:#x},force-raw=on", file(CORE))]);
        command.args(["-drive", &format!("file={},format=raw,if=none,id=scratch,cache=unsafe", file(DISK))]);
        for device in match self.bus {
            Bus::Virtio => &["virtio-blk-pci,drive=scratch"][..],
            Bus::Nvme => &["nvme,drive=scratch,serial=rehearsal"],
            Bus::Ahci => &["ide-hd,drive=scratch,bus=ide.0"],
            Bus::VirtioScsi => &["virtio-scsi-pci", "scsi-hd,drive=scratch"],
        } {
            command.args(["-device", device]);
        }
        command.args(self.more);
        Ok(command)
    }

    /// Runs it to its end, or as long as it may.
    pub(super) fn run(&self, now: u64, limit: Duration) -> anyhow::Result<Ended> {
        let mut command = self.command(now)?;
        let mut log = File::create(self.folder.join(CONSOLE)).context("cannot write the console's log")?;
        let errors = File::create(self.folder.join("qemu.log"))?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).spawn();
        let mut child = Running(child.with_context(|| format!("cannot run {PROGRAM}"))?);
        let began = Instant::now();
        let pipe = child.0.stdout.take().context("QEMU has no standard output")?;
        let (lines, printed) = channel();
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
                line.clear();
            }
        });
        let mut console = String::new();
        let late = loop {
            match printed.recv_timeout(limit.saturating_sub(began.elapsed())) {
                Ok(line) => {
                    log.write_all(line.as_bytes())?;
                    console.push_str(&line);
                }
                Err(RecvTimeoutError::Disconnected) => break false,
                Err(RecvTimeoutError::Timeout) => break true,
            }
        };
        let took = began.elapsed();
        drop(child);
        if console.is_empty() && !late {
            let said = fs::read_to_string(self.folder.join("qemu.log")).unwrap_or_default();
            bail!("{PROGRAM} ran no kernel: {}", said.trim());
        }
        Ok(Ended { took, late, console })
    }
}

/// QEMU, which does not outlive the rehearsal.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
