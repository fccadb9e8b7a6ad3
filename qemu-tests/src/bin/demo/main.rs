//! `cargo demo`: crashes a kernel in QEMU, captures it, and checks the dump.

mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use qemu_tests::console::Echo;
use qemu_tests::crash::{Outcome, crash};
use qemu_tests::provision::{self, Kernel, Suite};
use qemu_tests::scenario::Scenario;
use qemu_tests::{folders, judge, progress, tools};

/// Boots a kernel in QEMU, panics it, captures its memory with kdump-rs, and checks the dump.
///
/// What is missing is fetched: QEMU and a few tools by apt when run as root, a Debian kernel in any case.
#[derive(Debug, Parser)]
#[command(name = "cargo demo --", bin_name = "cargo demo --")]
struct Arguments {
    /// The kernel to crash, a bzImage; Debian's cloud kernel if not given
    #[arg(long, value_name = "VMLINUZ", requires = "modules")]
    kernel: Option<PathBuf>,
    /// That kernel's modules: its …/lib/modules/RELEASE
    #[arg(long, value_name = "DIR", requires = "kernel")]
    modules: Option<PathBuf>,
    /// The kernel's levels of page tables
    #[arg(long, value_name = "4|5", default_value = "5", value_parser = ["4", "5"])]
    levels: String,
    /// The memory that is reserved for the capture kernel
    #[arg(long, value_name = "MIB", default_value_t = 128)]
    crashkernel: u32,
    /// Show the steps only, not the guest's console
    #[arg(long, short)]
    quiet: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    provision::tools()?;
    let scenario = scenario(arguments)?;
    progress::note(&format!("crashing Linux {}", scenario.kernel.release));
    let outcome = crash(&scenario)?;
    let dump = keep(&outcome)?;
    let checked = progress::timed("reading the dump back", || {
        judge::dump_alone(&dump, &scenario.kernel.release, &outcome.marker)
    })?;
    report::print(&dump, &outcome, &checked)
}

fn scenario(arguments: &Arguments) -> Result<Scenario> {
    let kernel = match (&arguments.kernel, &arguments.modules) {
        (Some(vmlinuz), Some(modules)) => Kernel::from_files(vmlinuz, modules)?,
        _ => provision::kernel(Suite::Own)?,
    };
    let mut scenario = Scenario::of(kernel, "demo");
    scenario.echo = if arguments.quiet { Echo::Silent } else { Echo::Lines };
    scenario.crashkernel_mib = arguments.crashkernel;
    if arguments.levels == "4" {
        scenario.page_tables = qemu_tests::scenario::PageTables::Four;
    }
    Ok(scenario)
}

/// Moves the dump to `target/demo/`, in place of the one before.
fn keep(outcome: &Outcome) -> Result<PathBuf> {
    let from = outcome.dump()?;
    let folder = folders::target().join("demo");
    folders::fresh(&folder)?;
    let to = folder.join(from.file_name().unwrap_or_default());
    std::fs::rename(from, &to).with_context(|| format!("unable to move the dump to {}", to.display()))?;
    tools::copy(&outcome.folder.join("console.log"), &folder.join("console.log"))?;
    Ok(relative(&to))
}

/// The path as one would type it in the current folder.
fn relative(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).to_path_buf()
}
