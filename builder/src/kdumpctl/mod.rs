//! `kdumpctl`: the capture kernel as the administrator handles it.
//!
//! In: what was typed and the files of the machine. Out: a loaded or unloaded capture kernel, RHEL's words on stdout and
//! RHEL's exit codes. All files are found below one root and all system calls go through [`Kexec`], so that a test can
//! be a machine.

pub(crate) mod kernel;
mod keys;
mod modules;
mod notify;
mod propagate;
pub mod recover;
mod recovery;
mod start;
mod status;
mod stop;

use crate::cli::{Kdumpctl, Word};
use crate::config::Files;
use crate::host::Tree;
use crate::kexec::Kexec;
use anyhow::{Context, bail};
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// How long to wait for another kdumpctl.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a command works on.
#[derive(Debug)]
pub struct Machine<'a> {
    /// The files of the machine.
    pub tree: Tree,
    /// The configuration.
    pub files: Files,
    /// Where our programs are, if not beside this one.
    pub programs: Option<PathBuf>,
    /// The system calls.
    pub kexec: &'a dyn Kexec,
}

/// Does what was typed.
///
/// # Errors
/// Why it could not be done.
pub fn run(typed: &Kdumpctl, tree: Tree, kexec: &dyn Kexec, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let files = Files::new(tree.root(), typed.config.as_deref(), typed.sysconfig.as_deref());
    let machine = Machine { tree, files, programs: typed.programs.clone(), kexec };
    if typed.word == Word::Status {
        return status::run(&machine, out);
    }
    if let Word::Recover { device, to, json } = &typed.word {
        // The device is locked; nothing else of the machine is touched.
        return recovery::run(&machine, device.as_deref(), to.as_deref(), *json, out);
    }
    if typed.word == Word::Modules {
        return modules::run(&machine, out).map(|()| ExitCode::SUCCESS);
    }
    if typed.word == Word::Propagate {
        return propagate::run(&machine, out).map(|()| ExitCode::SUCCESS);
    }
    let _lock = lock(&machine.tree, out)?;
    let (what, done) = match typed.word {
        Word::Start => {
            let started = start::run(&machine, out);
            // The dumps of the last crash, whether or not there can be another.
            notify::run(&machine);
            ("Starting", started)
        }
        Word::Stop => ("Stopping", stop::run(&machine)),
        Word::Status | Word::Propagate | Word::Modules | Word::Recover { .. } => return status::run(&machine, out),
    };
    match done {
        Ok(()) => writeln!(out, "{what} kdump: [OK]")?,
        Err(error) => {
            writeln!(out, "{what} kdump: [FAILED]")?;
            return Err(error);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One kdumpctl at a time. The lock goes with the file.
fn lock(tree: &Tree, out: &mut dyn Write) -> anyhow::Result<File> {
    // /run belongs to root alone; where others may write, others may lock.
    let dir = tree.path("run");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let path = dir.join("kdump.lock");
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.with_context(|| format!("cannot open the lock {}; run it as root", path.display()))?;
    let since = Instant::now();
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if since.elapsed() > PATIENCE => {
                bail!(
                    "another kdumpctl holds {} for more than {} s; see what it waits for",
                    path.display(),
                    PATIENCE.as_secs()
                )
            }
            Err(TryLockError::WouldBlock) => {
                if !told && since.elapsed() > Duration::from_secs(1) {
                    told = true;
                    writeln!(out, "Another kdumpctl is at work, waiting for it to end")?;
                }
                thread::sleep(Duration::from_millis(100));
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
    }
}
