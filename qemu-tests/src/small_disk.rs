//! A file system of a few MiB that one server alone has, until somebody fills it while a dump is written.
//!
//! In: a folder. Out: a command that runs a program with the file system mounted there; seen from outside, by way of that
//! program, what is in it. It is a tmpfs in a mount namespace of its own, and so gone with the program.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::tools;

const MIB: usize = 1 << 20;

/// The file system.
#[derive(Clone, Debug)]
pub struct SmallDisk {
    folder: PathBuf,
    mib: usize,
}

impl SmallDisk {
    /// One of so many MiB; the folder is made.
    pub fn new(folder: &Path, mib: usize) -> Result<SmallDisk> {
        ensure!(nix::unistd::geteuid().is_root(), "a server with a file system of its own needs root; run as root");
        fs::create_dir_all(folder).with_context(|| format!("unable to make {}", folder.display()))?;
        // A link on the way would lead out of what the program sees.
        let folder = folder.canonicalize().with_context(|| format!("unable to find {}", folder.display()))?;
        Ok(SmallDisk { folder, mib })
    }

    /// A command for the program that has it.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = tools::command("unshare");
        let script = "mount -t tmpfs -o \"size=$1m\" none \"$2\" && shift 2 && exec \"$@\"";
        command.args(["--mount", "sh", "-c", script, "sh", &self.mib.to_string()]).arg(&self.folder).arg(program);
        command
    }

    /// Where it is seen by way of the process that has it.
    pub fn seen(&self, process: u32) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{process}/root"));
        root.join(self.folder.strip_prefix("/").unwrap_or(&self.folder))
    }

    /// Leaves no room on it.
    pub fn fill(&self, process: u32) -> Result<()> {
        let path = self.seen(process).join("filler");
        let mut file = File::create(&path).with_context(|| format!("unable to make {}", path.display()))?;
        for _ in 0..=self.mib {
            match file.write_all(&[7; MIB]) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).with_context(|| format!("unable to fill {}", path.display())),
            }
        }
        bail!("{} has more room than it was given", self.folder.display())
    }
}
