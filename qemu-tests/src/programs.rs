//! The project's programs, built once per process and static, as an image needs them.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};

use crate::{folders, progress, tools};

/// What cargo builds for; the folder of that name has what it built.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";
const PACKAGES: [&str; 5] = ["kdump-init", "kdump-capture", "kdump-builder", "kdump-hooks", "qemu-tests"];
const BINARIES: [&str; 10] = [
    "kdump-init",
    "kdump-capture",
    "kdump-send",
    "mkdumprd",
    "kdumpctl",
    "kpatch",
    "guest-init",
    "keep-raw",
    "page-kinds",
    "saboteur",
];

/// Where the built programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// The file of a program.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Builds what is out of date; cargo's own progress is shown.
pub fn programs() -> Result<Programs> {
    static BUILT: OnceLock<Result<Programs, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.clone().map_err(|error| anyhow!(error))
}

/// The collector with every check that the shipped one leaves out: it panics where arithmetic overflows.
pub fn checked_collector() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(folders::workspace()).args(["build", "--quiet", "--target", TARGET, "--target-dir"]);
    command.arg(folders::target()).args(["--package", "kdump-capture", "--bin", "kdump-capture"]);
    progress::timed("building the collector with all checks", || tools::run(&mut command))?;
    Ok(folders::target().join(TARGET).join("debug/kdump-capture"))
}

/// PID 1 as it is shipped, but with a bug.
pub fn init_with_a_bug() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(folders::workspace()).args(["build", "--quiet", "--release", "--target", TARGET]);
    command.arg("--target-dir").arg(folders::target()).args(["--package", "kdump-init", "--example", "bug"]);
    progress::timed("building a PID 1 with a bug", || tools::run(&mut command))?;
    Ok(folders::target().join(TARGET).join("release/examples/bug"))
}

fn build() -> Result<Programs> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(folders::workspace()).args(["build", "--release", "--target", TARGET, "--target-dir"]);
    command.arg(folders::target());
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    for binary in BINARIES {
        command.args(["--bin", binary]);
    }
    progress::timed("building the programs", || {
        let status = command.status().with_context(|| format!("unable to start {}", tools::shown(&command)))?;
        if !status.success() {
            bail!("{} ended with {status}", tools::shown(&command));
        }
        Ok(())
    })?;
    Ok(Programs { folder: folders::target().join(TARGET).join("release") })
}
