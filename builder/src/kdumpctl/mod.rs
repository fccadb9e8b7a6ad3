//! `kdumpctl`: the capture kernel as the administrator handles it.
//!
//! In: what was typed and the files of the machine. Out: a loaded or unloaded capture kernel, RHEL's words on stdout and
//! RHEL's exit codes. All files are found below one root and all system calls go through [`Kexec`], so that a test can
//! be a machine. Each word is one module, and one line of [`run`].

mod boot_loader;
mod config;
mod default_crashkernel;
mod dumps;
mod estimate;
pub(crate) mod kernel;
pub(crate) mod kernel_file;
mod kexec;
mod keys;
mod load;
mod lock;
mod modules;
mod notify;
mod oops;
mod places;
mod propagate;
mod reach;
mod rebuild;
pub mod recover;
mod recovery;
mod rehearse;
mod reload;
mod reset_crashkernel;
mod showmem;
mod start;
mod status;
mod stop;
mod test;
mod waiting;

use crate::cli::{Kdumpctl, Told, Word};
use crate::config::Files;
use crate::generator;
use crate::host::Tree;
use crate::kexec::Kexec;
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

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
    match &typed.word {
        Word::Start { replace, how, told } => {
            alone(&machine, out, *told, &[("Starting", &|out| start::run(&machine, *replace, how, out))])
                .inspect(|_| reach::warn(&machine, reach::patience()))
        }
        Word::Stop(told) => alone(&machine, out, *told, &[("Stopping", &|_| stop::run(&machine))]),
        Word::Restart { how, told } => alone(
            &machine,
            out,
            *told,
            &[("Stopping", &|_| stop::run(&machine)), ("Starting", &|out| start::run(&machine, false, how, out))],
        )
        .inspect(|_| reach::warn(&machine, reach::patience())),
        Word::Reload { how, told } => {
            reload::or_busy(alone(&machine, out, *told, &[("Reloading", &|out| reload::run(&machine, how, out))]))
        }
        Word::Rebuild(told) => alone(&machine, out, *told, &[("Rebuilding", &|out| rebuild::run(&machine, out))])
            .inspect(|_| reach::warn(&machine, Duration::ZERO)),
        Word::Status { verbose, how } => status::run(&machine, *verbose, how.json, out),
        // The device is locked; nothing else of the machine is touched.
        Word::Recover { device, to, json } => recovery::run(&machine, device.as_deref(), to.as_deref(), *json, out),
        Word::Config { word } => config::run(&machine, word, out),
        Word::Generator { dir } => generator::run(&machine.files, dir).map(|()| ExitCode::SUCCESS),
        Word::Notify => notify::patiently(&machine, reach::patience(), out).map(|()| ExitCode::SUCCESS),
        Word::Modules(how) => modules::run(&machine, how.json, out).map(|()| ExitCode::SUCCESS),
        Word::Propagate(Told { json: true }) => {
            as_json(out, &[("Propagating", &|out| propagate::run(&machine, true, out))])
        }
        Word::Propagate(_) => propagate::run(&machine, false, out).map(|()| ExitCode::SUCCESS),
        Word::SetupCrypttab => Err(keys::set_up_by_hand()),
        Word::Showmem(how) => showmem::run(&machine, how.json, out).map(|()| ExitCode::SUCCESS),
        Word::Estimate(how) => estimate::run(&machine, how.json, out).map(|()| ExitCode::SUCCESS),
        Word::GetDefaultCrashkernel { way, told } => {
            default_crashkernel::run(&machine, *way, told.json, out).map(|()| ExitCode::SUCCESS)
        }
        Word::ResetCrashkernel(what) => reset_crashkernel::run(&machine, what, out).map(|()| ExitCode::SUCCESS),
        Word::AfterUpdate => locked(&machine, out, &|out| boot_loader::after_update(&machine, out)),
        Word::ForKernel { release } => locked(&machine, out, &|out| boot_loader::for_kernel(&machine, release, out)),
        Word::Test { force, result, how } => test::run(&machine, *force, *result, how.json, out),
        Word::Rehearse(what) => rehearse::run(&machine, what, out),
        Word::Dumps(what) => dumps::run(&machine, what, out),
        Word::Kexec(what) => {
            let _lock = lock(&machine, out, what.told)?;
            match what.told.json {
                true => as_json(out, &[("Loading", &|out| kexec::run(&machine, what, out))]),
                false => kexec::run(&machine, what, out).map(|()| ExitCode::SUCCESS),
            }
        }
    }
}

/// What is done, and what it is called.
type Step<'a> = (&'a str, &'a dyn Fn(&mut dyn Write) -> anyhow::Result<()>);

/// Does something while no other kdumpctl is at work.
fn locked(
    machine: &Machine,
    out: &mut dyn Write,
    what: &dyn Fn(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let _lock = lock::take(&machine.tree, out)?;
    what(out).map(|()| ExitCode::SUCCESS)
}

/// Takes steps in order while no other kdumpctl is at work, and says how each came out.
fn alone(machine: &Machine, out: &mut dyn Write, told: Told, steps: &[Step]) -> anyhow::Result<ExitCode> {
    let _lock = lock(machine, out, told)?;
    if told.json {
        return as_json(out, steps);
    }
    for (what, step) in steps {
        match step(out) {
            Ok(()) => writeln!(out, "{what} kdump: [OK]")?,
            Err(error) => {
                writeln!(out, "{what} kdump: [FAILED]")?;
                return Err(error);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes the lock. Who has to wait is told where it spoils no JSON.
fn lock(machine: &Machine, out: &mut dyn Write, told: Told) -> anyhow::Result<File> {
    let mut errors = std::io::stderr();
    lock::take(&machine.tree, if told.json { &mut errors } else { out })
}

/// Takes steps in order, and says of each how it came out and what it said meanwhile.
fn as_json(out: &mut dyn Write, steps: &[Step]) -> anyhow::Result<ExitCode> {
    let (mut done, mut ended) = (Vec::new(), Ok(()));
    for (what, step) in steps {
        let mut said = Vec::new();
        ended = step(&mut said);
        let said = String::from_utf8_lossy(&said);
        let error = ended.as_ref().err().map(|error| format!("{error:#}"));
        done.push(json!({
            "step": what, "ok": ended.is_ok(), "said": said.lines().collect::<Vec<_>>(), "error": error,
        }));
        if ended.is_err() {
            break;
        }
    }
    writeln!(out, "{:#}", json!({ "ok": ended.is_ok(), "steps": done }))?;
    ended.map(|()| ExitCode::SUCCESS)
}
