//! What a hook may do to the machine that has just crashed.

use crate::device::DeviceSpec;
use crate::keys::Keys;
use crate::livepatch;
use crate::net::Net;
use anyhow::bail;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the first target is mounted in the capture environment. Another one may come beside it.
pub const MOUNT_POINT: &str = "/kdump/target";

/// Where a normal boot mounts the root before it is one.
pub const SYSROOT: &str = "/sysroot";

/// The capture environment. `init` implements it over system calls; [`crate::fake::FakeMachine`] records.
pub trait Machine {
    /// Loads a module by name or alias with its dependencies, as `modprobe NAME` does. One that is built in or already
    /// loaded is a success.
    ///
    /// # Errors
    /// No such module in this image, or why the kernel refused it.
    fn load_module(&mut self, request: &str) -> anyhow::Result<()>;

    /// Waits until `device` is there, at most `limit`, and gives its node below `/dev`.
    ///
    /// # Errors
    /// The device did not appear in time.
    fn wait_for_device(&mut self, device: &DeviceSpec, limit: Duration) -> anyhow::Result<PathBuf>;

    /// Waits until `count` devices are there that `device` names, or as many as their superblock wants; at most `limit`.
    /// Gives the nodes of those that are there then, which may be fewer.
    ///
    /// # Errors
    /// None appeared in time.
    fn wait_for_members(
        &mut self,
        device: &DeviceSpec,
        count: Option<u64>,
        limit: Duration,
    ) -> anyhow::Result<Vec<PathBuf>>;

    /// Writes to a file of proc, sysfs or configfs.
    ///
    /// # Errors
    /// There is no such file, or the kernel's refusal.
    fn tell_kernel(&mut self, file: &Path, text: &str) -> anyhow::Result<()>;

    /// Reads a file of proc or sysfs, without the space at its end.
    ///
    /// # Errors
    /// There is no such file, or the kernel's refusal.
    fn ask_kernel(&mut self, file: &Path) -> anyhow::Result<String>;

    /// Mounts, creating the mount point where it is missing.
    ///
    /// # Errors
    /// The kernel's refusal ([`Refused`]), with its own words where the kernel log has them.
    fn mount(&mut self, plan: &MountPlan) -> anyhow::Result<()>;

    /// Runs a program of the image to its end; what it says goes to the log.
    ///
    /// # Errors
    /// It cannot be started, or was not done in time and has been killed.
    fn run(&mut self, program: &Program) -> anyhow::Result<Ended>;

    /// Flushes the file system that is mounted at `point` and unmounts it.
    ///
    /// # Errors
    /// Data may not have reached the device.
    fn unmount(&mut self, point: &Path) -> anyhow::Result<()>;

    /// As [`Machine::mount`], with options that nobody may see: they appear in no message and in no list.
    ///
    /// # Errors
    /// As [`Machine::mount`].
    fn mount_with_secret(&mut self, plan: &MountPlan, secret: &[String]) -> anyhow::Result<()>;

    /// Where the target in hand is mounted, or is to be: another place than one that is left behind by a target that
    /// could not be unmounted.
    fn mount_point(&self) -> PathBuf {
        PathBuf::from(MOUNT_POINT)
    }

    /// Leaves the mounted target behind, which does not answer any more: nothing is flushed, nothing is waited for.
    fn give_up(&mut self);

    /// The kernel's network.
    fn network(&mut self) -> &mut dyn Net;

    /// The kernel's keys.
    fn keys(&mut self) -> &mut dyn Keys;

    /// Whether something is at that path, in the image or in the kernel's own file systems.
    fn has_file(&self, path: &Path) -> bool;

    /// Reads a file of the image, such as a key.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    fn read_file(&mut self, path: &Path) -> anyhow::Result<Vec<u8>>;

    /// The kernel's live patches.
    fn live_patches(&mut self) -> &mut dyn livepatch::Kernel;
}

/// A program to be run. No shell comes between: an argument is an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment variables besides `PATH`.
    pub env: Vec<(String, String)>,
    /// It is killed when it takes longer.
    pub limit: Duration,
}

impl Program {
    /// Program and arguments, with nothing special in its environment.
    pub fn new(argv: &[&str], limit: Duration) -> Program {
        Program { argv: argv.iter().map(|word| (*word).to_owned()).collect(), env: Vec::new(), limit }
    }
}

/// How a program ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; 128 and the number of the signal that ended it.
    pub code: i32,
    /// The last of what it said.
    pub said: String,
}

impl Ended {
    /// Whether it ended well; if not, with what it said.
    ///
    /// # Errors
    /// An exit code other than 0.
    pub fn well(self, program: &str) -> anyhow::Result<()> {
        match self {
            Ended { code: 0, .. } => Ok(()),
            Ended { code, said } if said.is_empty() => bail!("{program} failed: exit code {code}"),
            Ended { code, said } => bail!("{program} failed: exit code {code} ({said})"),
        }
    }
}

/// One call of mount(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPlan {
    /// What is mounted.
    pub source: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// The file system's type.
    pub fstype: String,
    /// Options as fstab writes them, without `defaults`.
    pub options: Vec<String>,
}

/// A refusal of the kernel that can be told from others by its errno.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The errno.
    pub errno: i32,
    /// What it means here, with the kernel's own words where it has any.
    pub reason: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Refused {}
