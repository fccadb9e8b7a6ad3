//! A QEMU machine: what it is made of, and one that runs.
//!
//! It has no device that is not asked for, its serial port is the console, and it dies with the thread that started it.
//! A guest that resets or powers off ends QEMU; how it ended is what the kernel said last (see [`Ending`]).
//!
//! Surprising: at most one guest per core of the host runs at once, over all processes; the others wait for a slot.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tempfile::TempDir;

use crate::accel::Accel;
use crate::console::{Console, Echo};
use crate::emulation;
use crate::folders::{self, Lock};
use crate::stack::Bus;
use crate::{monitor, sys, tools};

/// What the console said, in the machine's folder.
pub(crate) const CONSOLE_LOG: &str = "console.log";

/// How a guest came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It restarted.
    Reboot,
    /// It switched itself off.
    PowerOff,
    /// It halted; a halted machine stays on.
    Halt,
}

/// What the kernel says on each ending, at every log level.
const ENDINGS: [(&str, Ending); 3] = [
    ("reboot: Restarting system", Ending::Reboot),
    ("reboot: Power down", Ending::PowerOff),
    ("reboot: System halted", Ending::Halt),
];

/// A disk of the guest, from a raw image file.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The image.
    pub image: PathBuf,
    /// The serial number by which the guest may know it.
    pub serial: String,
    /// What it hangs on.
    pub bus: Bus,
}

/// What a machine is made of.
#[derive(Clone, Debug)]
pub struct Machine {
    kernel: Option<PathBuf>,
    initrd: PathBuf,
    append: String,
    accel: Accel,
    cpu: String,
    memory_mib: u32,
    cpus: u32,
    disks: Vec<Disk>,
    devices: Vec<String>,
    words: Vec<String>,
    echo: Echo,
}

impl Machine {
    /// A machine of 512 MiB and two processors that boots this kernel.
    pub fn new(kernel: &Path, initrd: &Path, append: &str, accel: Accel) -> Machine {
        Machine {
            kernel: Some(kernel.into()),
            initrd: initrd.into(),
            append: append.into(),
            accel,
            cpu: "max".into(),
            memory_mib: 512,
            cpus: 2,
            disks: Vec::new(),
            devices: Vec::new(),
            words: Vec::new(),
            echo: Echo::Silent,
        }
    }

    /// The same machine, but it boots what its first disk has.
    pub fn from_disk(accel: Accel) -> Machine {
        Machine { kernel: None, ..Machine::new(Path::new(""), Path::new(""), "", accel) }
    }

    /// Further words of the kernel's command line.
    pub fn append(mut self, words: &str) -> Machine {
        self.append = format!("{} {words}", self.append);
        self
    }

    /// The processor model.
    pub fn cpu(mut self, model: &str) -> Machine {
        self.cpu = model.into();
        self
    }

    /// The memory.
    pub fn memory_mib(mut self, mib: u32) -> Machine {
        self.memory_mib = mib;
        self
    }

    /// One more disk, in the order vda, vdb …
    pub fn disk(mut self, disk: Disk) -> Machine {
        self.disks.push(disk);
        self
    }

    /// One more device, as QEMU's `-device` takes it.
    pub fn device(mut self, device: &str) -> Machine {
        self.devices.push(device.into());
        self
    }

    /// Further words of the command line.
    pub fn words(mut self, words: &[String]) -> Machine {
        self.words.extend_from_slice(words);
        self
    }

    /// Who sees the console.
    pub fn echo(mut self, echo: Echo) -> Machine {
        self.echo = echo;
        self
    }

    /// Waits for a slot and starts; the console's log goes to `folder`.
    pub fn start(&self, folder: &Path) -> Result<Running> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.start_in(folder, Some(folders::lock_any("slots", cores)?))
    }

    /// Starts without a slot, which its user has: a machine that only serves another.
    pub fn start_beside(&self, folder: &Path) -> Result<Running> {
        self.start_in(folder, None)
    }

    fn start_in(&self, folder: &Path, slot: Option<Lock>) -> Result<Running> {
        let mut command = tools::command("qemu-system-x86_64");
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"]);
        command.args(["-machine", "q35", "-accel", self.accel.argument(), "-cpu", &self.accel.processor(&self.cpu)]);
        command.args(["-m", &self.memory_mib.to_string(), "-smp", &self.cpus.to_string()]);
        if let Some(kernel) = &self.kernel {
            command.arg("-kernel").arg(kernel).arg("-initrd").arg(&self.initrd);
            command.args(["-append", &format!("console=ttyS0 {} {}", emulation::KERNEL_WORDS, self.append)]);
        }
        if self.disks.iter().any(|disk| matches!(disk.bus, Bus::Scsi | Bus::Paths(_))) {
            command.args(["-device", "virtio-scsi-pci"]);
        }
        for (number, disk) in self.disks.iter().enumerate() {
            let mut drive = format!("file={},format=raw,if=none,id=disk{number},cache=unsafe", comma_safe(&disk.image));
            let device = match disk.bus {
                Bus::Virtio => format!("virtio-blk-pci,drive=disk{number},serial={}", disk.serial),
                Bus::Nvme => format!("nvme,drive=disk{number},serial={}", disk.serial),
                Bus::Scsi => format!("scsi-hd,drive=disk{number},serial={}", disk.serial),
                Bus::Paths(wwn) => {
                    drive.push_str(",file.locking=off");
                    format!("scsi-hd,drive=disk{number},serial={},wwn={wwn:#x},share-rw=on", disk.serial)
                }
            };
            command.args(["-drive", &drive, "-device", &device]);
        }
        for device in &self.devices {
            command.args(["-device", device]);
        }
        command.args(&self.words);
        let monitor = folders::for_sockets()?;
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", comma_safe(&monitor.path().join("qmp"))));
        let errors = std::fs::File::create(folder.join("qemu.log")).context("unable to write QEMU's log")?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        sys::die_with_parent(&mut command);
        let mut child = command.spawn().with_context(|| format!("unable to start {}", tools::shown(&command)))?;
        let pipe = child.stdout.take().context("QEMU has no standard output")?;
        let running = Qemu { child, _slot: slot };
        let console = Console::follow(pipe, &folder.join(CONSOLE_LOG), self.echo)?;
        Ok(Running { qemu: running, monitor, console, log: folder.join("qemu.log"), began: Instant::now() })
    }
}

/// QEMU's option syntax takes a doubled comma for one in a file name.
fn comma_safe(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// The process; it is killed when this is dropped.
#[derive(Debug)]
struct Qemu {
    child: Child,
    _slot: Option<Lock>,
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A machine that runs, until it is dropped.
#[derive(Debug)]
pub struct Running {
    qemu: Qemu,
    monitor: TempDir,
    console: Console,
    log: PathBuf,
    began: Instant,
}

impl Running {
    /// Its console.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Asks the guest's balloon driver to leave it `mib` of memory. It takes its time.
    pub fn balloon(&self, mib: u32) -> Result<()> {
        let value = u64::from(mib) << 20;
        self.ask("balloon", &json!({"value": value}))
    }

    /// Asks QEMU for one command of its monitor.
    pub fn ask(&self, command: &str, arguments: &serde_json::Value) -> Result<()> {
        monitor::ask(&self.monitor.path().join("qmp"), command, arguments)
    }

    /// Presses keys on its console.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        let stdin = self.qemu.child.stdin.as_mut().context("QEMU has no standard input")?;
        stdin.write_all(keys.as_bytes()).and_then(|()| stdin.flush()).context("unable to type on the console")
    }

    /// Waits for the guest's end and says which one it was.
    pub fn wait_for_ending(mut self, limit: Duration) -> Result<Ending> {
        let words = ENDINGS.map(|(words, _)| words);
        let (which, _) = self.console.wait_for_any(&words, limit).map_err(|error| self.with_qemu_errors(error))?;
        let ending = ENDINGS[which].1;
        if ending != Ending::Halt {
            let left = limit.saturating_sub(self.began.elapsed()).max(Duration::from_secs(10));
            if !self.console.wait_for_end(left) {
                bail!(
                    "the kernel announced its {ending:?}, but the machine runs on; its last lines:\n{}",
                    self.console.tail()
                );
            }
            self.qemu.child.wait().context("unable to wait for QEMU")?;
        }
        Ok(ending)
    }

    fn with_qemu_errors(&self, error: anyhow::Error) -> anyhow::Error {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        // Emulation warns of every feature of the processor model that it lacks.
        let errors: Vec<&str> = said.lines().filter(|line| !line.contains("warning:")).collect();
        if errors.is_empty() { error } else { error.context(format!("QEMU said: {}", errors.join("; "))) }
    }
}
