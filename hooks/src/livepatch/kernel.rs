//! The kernel as kpatch asks and tells it.

use super::{grub, interrupt, refusal, variable};
use crate::cmdline::Cmdline;
use crate::kernel::{self, LinuxKeys, Refusal};
use crate::keys::Keys;
use crate::kmod::ModuleName;
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Tasks that are looked at, at most: a machine that makes them faster than they are read is not waited for.
const MOST_TASKS: usize = 1 << 20;

/// What kpatch asks of the kernel, and tells it. Paths are absolute, as on a running machine.
pub trait Kernel {
    /// As `uname -r` prints it.
    ///
    /// # Errors
    /// The kernel does not tell.
    fn release(&self) -> io::Result<String>;

    /// What a file of sysfs or procfs holds, without the blanks around it.
    ///
    /// # Errors
    /// There is no such file, or it cannot be read.
    fn read(&self, file: &Path) -> io::Result<String>;

    /// What a file of sysfs holds that is no text.
    ///
    /// # Errors
    /// There is no such file, or it cannot be read.
    fn read_bytes(&self, file: &Path) -> io::Result<Vec<u8>>;

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// There is no such directory.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// Writes to a file of sysfs.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn write(&mut self, file: &Path, text: &str) -> io::Result<()>;

    /// Puts a module in.
    ///
    /// # Errors
    /// Why the kernel refuses it, with its own words.
    fn insert(&mut self, name: &ModuleName, file: &Path) -> Result<(), Refusal>;

    /// Takes a module out.
    ///
    /// # Errors
    /// Why the kernel keeps it.
    fn remove(&mut self, name: &ModuleName) -> Result<(), Refusal>;

    /// The tasks that a transition to `enabled` still waits for.
    fn holding_up(&mut self, enabled: bool) -> Vec<Task>;

    /// How long it has been up, on a clock that nobody sets.
    fn now(&self) -> Duration;

    /// From now on a signal that asks for the end is not to end the program.
    fn heed(&mut self);

    /// The signal that has come since.
    fn interrupted(&self) -> Option<&'static str>;

    /// Lets time pass.
    fn pause(&mut self, time: Duration);

    /// Its keys.
    fn keys(&self) -> &dyn Keys;

    /// Whether this kernel was started to dump another one.
    fn is_capture(&self) -> bool;

    /// What the firmware, or else GRUB, remembers for us over a restart; nothing, if it does not.
    ///
    /// # Errors
    /// There is no such place, or it cannot be read.
    fn remembered(&self) -> io::Result<String>;

    /// Has it remember `text`, or nothing any more. Where GRUB counts, it counts from nothing then.
    ///
    /// # Errors
    /// There is no such place, or it is full, or cannot be written to.
    fn remember(&mut self, text: &str) -> io::Result<()>;

    /// How many boots GRUB has counted since one was finished, this one included, where it counts and not the firmware
    /// remembers.
    fn counted(&self) -> Option<u32>;
}

/// A task that holds a transition up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its number, that of the thread.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// What it is doing in the kernel, innermost first; empty where that may not be read.
    pub stack: Vec<String>,
}

/// The kernel that is running.
#[derive(Clone, Copy, Debug)]
pub struct LinuxKernel;

impl Kernel for LinuxKernel {
    fn release(&self) -> io::Result<String> {
        self.read(Path::new("/proc/sys/kernel/osrelease"))
    }

    fn read(&self, file: &Path) -> io::Result<String> {
        self.read_bytes(file).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    fn read_bytes(&self, file: &Path) -> io::Result<Vec<u8>> {
        fs::read(file)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names: Vec<String> = fs::read_dir(directory)?
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<_>>()?;
        names.sort();
        Ok(names)
    }

    fn write(&mut self, file: &Path, text: &str) -> io::Result<()> {
        fs::OpenOptions::new()
            .write(true)
            .open(file)
            .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
    }

    fn insert(&mut self, name: &ModuleName, file: &Path) -> Result<(), Refusal> {
        kernel::insert_explained(name, file, "", refusal::explain).map(drop)
    }

    fn remove(&mut self, name: &ModuleName) -> Result<(), Refusal> {
        kernel::remove(name)
    }

    fn holding_up(&mut self, enabled: bool) -> Vec<Task> {
        let wanted = if enabled { "1" } else { "0" };
        let numbers = |directory: PathBuf| {
            let names = fs::read_dir(directory).into_iter().flatten().flatten();
            names.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        };
        let threads = numbers("/proc".into()).flat_map(|process| numbers(format!("/proc/{process}/task").into()));
        threads.take(MOST_TASKS).filter_map(|pid| self.held(pid, wanted)).collect()
    }

    fn heed(&mut self) {
        interrupt::heed();
    }

    fn interrupted(&self) -> Option<&'static str> {
        interrupt::came()
    }

    fn now(&self) -> Duration {
        Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
    }

    fn pause(&mut self, time: Duration) {
        std::thread::sleep(time);
    }

    fn keys(&self) -> &dyn Keys {
        &LinuxKeys
    }

    fn is_capture(&self) -> bool {
        Path::new("/proc/vmcore").exists()
    }

    fn remembered(&self) -> io::Result<String> {
        let variable = variable::read(Path::new(variable::DIRECTORY));
        variable.or_else(|error| self.grub().map(|kept| kept.accounts).ok_or(error))
    }

    fn remember(&mut self, text: &str) -> io::Result<()> {
        match self.grub() {
            Some(_) if variable::read(Path::new(variable::DIRECTORY)).is_err() => grub::write(Path::new("/"), text),
            _ => variable::write(Path::new(variable::DIRECTORY), text),
        }
    }

    fn counted(&self) -> Option<u32> {
        let is_remembered = variable::read(Path::new(variable::DIRECTORY)).is_ok();
        self.grub().filter(|_| !is_remembered).map(|kept| kept.boots)
    }
}

impl LinuxKernel {
    fn grub(self) -> Option<grub::Kept> {
        let cmdline = self.read(Path::new("/proc/cmdline")).ok()?;
        grub::read(Path::new("/"), &Cmdline::parse(&cmdline))
    }

    /// The task, if it is in the way; -1 is what a task has while there is no transition.
    fn held(self, pid: u32, wanted: &str) -> Option<Task> {
        let file = |name: &str| self.read(Path::new(&format!("/proc/{pid}/{name}"))).ok();
        let state = file("patch_state")?;
        (state != wanted && state != "-1").then(|| Task {
            pid,
            name: file("comm").unwrap_or_default(),
            stack: file("stack").unwrap_or_default().lines().map(frame).collect(),
        })
    }
}

/// `[<0>] do_nanosleep+0x67/0x170` without what is the same in every line.
fn frame(line: &str) -> String {
    line.split_once("] ").map_or(line, |(_, frame)| frame).to_owned()
}
