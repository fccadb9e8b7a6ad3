//! What a hook may do to the machine that has just crashed.

use crate::device::DeviceSpec;
use std::path::{Path, PathBuf};
use std::time::Duration;

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

    /// Mounts, creating the mount point where it is missing.
    ///
    /// # Errors
    /// The kernel's refusal, with its own words where the kernel log has them.
    fn mount(&mut self, plan: &MountPlan) -> anyhow::Result<()>;

    /// Flushes the file system that is mounted at `point` and unmounts it.
    ///
    /// # Errors
    /// Data may not have reached the device.
    fn unmount(&mut self, point: &Path) -> anyhow::Result<()>;
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
