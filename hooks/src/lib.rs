//! What an image can do: one module per capability, its two sides next to each other.
//!
//! # Nouns
//!
//! - **Hook**: one capability of an image. Its builder side answers *what goes into the image for it*
//!   ([`Hook::gather`]); its boot side does the work in the capture environment, at the stages that it names
//!   ([`Hook::stages`], [`Hook::act`]). A dump target is a hook that is opened and closed instead ([`TargetHook`]).
//! - **Settings**: what the configuration asks of the hooks; it travels from builder to init inside `image.toml`.
//! - **Target**: where a dump goes. A **destination** is an opened target.
//! - **Stage**: a step of the capture boot.
//! - **Host**: what the builder knows of the machine that it builds for. **Machine**: what a hook may do to the machine
//!   that has just crashed. Both are traits; both have fakes ([`fake`]) that tests of any crate use.
//!
//! # Flow
//!
//! ```text
//!   builder:  Settings ─▶ hooks() ─▶ gather(host) ─▶ Contribution { modules, files, each with its reason }
//!   init:     Settings ─▶ hooks() ─▶ act(stage, machine)
//!             Settings ─▶ targets ─▶ open(machine) ─▶ Destination ─▶ close(machine)
//! ```
//!
//! # Where to look
//!
//! | module | is |
//! |---|---|
//! | [`filesystem`] | the hook for a dump target that is a local file system |
//! | [`storage`] | the hooks for what lies between a target and the disks: LVM, RAID, LUKS, multipath |
//! | [`virtiofs`] | the hook for a directory that the hypervisor shares |
//! | [`early_kdump`] | the hook that loads the capture kernel in a normal boot, before the system does |
//! | [`sysctl`] | sysctl.conf and sysctl.d |
//! | [`kmod`] | what modprobe knows: indexes, modprobe.d, aliases, order of loading; both sides need it |
//! | [`cmdline`] | the kernel command line |
//! | [`device`] | how a configuration names a block device |
//! | [`mod@stage`] | the stages and their order |
//!
//! A new capability is one module here and one line in [`Settings::hooks`] (and, for a target, one in [`Target`]).
//! PID 1 links this crate: nothing heavy that only the builder needs belongs here.

pub mod cmdline;
pub mod device;
pub mod early_kdump;
pub mod fake;
pub mod filesystem;
pub mod host;
pub mod kmod;
pub mod machine;
pub mod stage;
pub mod storage;
pub mod sysctl;
pub mod virtiofs;

pub use device::DeviceSpec;
pub use host::{Contribution, FileNeed, Host, ModuleNeed, ProgramNeed};
pub use machine::{Ended, Machine, MountPlan, Program};
pub use stage::Stage;

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// One capability of an image.
pub trait Hook: fmt::Debug + Sync {
    /// The hook's name as logs and plans show it, such as `filesystem`.
    fn name(&self) -> &'static str;

    /// Builder side: what the image must hold for this capability on that host.
    ///
    /// # Errors
    /// What is missing on the host, and what to do about it. An image is not built with a hole in it.
    fn gather(&self, host: &dyn Host) -> anyhow::Result<Contribution>;

    /// Boot side: the stages at which it acts, before what the boot itself does there.
    fn stages(&self) -> &'static [Stage] {
        &[]
    }

    /// Boot side: what it does at one of its stages, within `limit`.
    ///
    /// # Errors
    /// What could not be done. The log has it and `status.json` too; the boot goes on unless the stage says otherwise.
    fn act(&self, _stage: Stage, _machine: &mut dyn Machine, _limit: Duration) -> anyhow::Result<()> {
        Ok(())
    }
}

/// A hook that is a place for dumps.
pub trait TargetHook: Hook {
    /// Makes the target ready for writing, waiting for its device at most `limit`.
    ///
    /// # Errors
    /// Why the target cannot be used; the next target is tried then.
    fn open(&self, machine: &mut dyn Machine, limit: Duration) -> anyhow::Result<Destination>;

    /// Puts everything written on stable storage and lets go of the target.
    ///
    /// # Errors
    /// Why the data may not be safe.
    fn close(&self, machine: &mut dyn Machine) -> anyhow::Result<()>;
}

/// An opened target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Files are created below this directory, the root of the target.
    Directory(PathBuf),
}

/// Where a dump goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Target {
    /// A file system on a local block device.
    Filesystem(filesystem::Filesystem),
    /// A directory that the hypervisor shares.
    Virtiofs(virtiofs::Virtiofs),
}

impl Target {
    /// The block device that it is on, if it is on one.
    pub fn device(&self) -> Option<&DeviceSpec> {
        match self {
            Target::Filesystem(filesystem) => Some(&filesystem.device),
            Target::Virtiofs(_) => None,
        }
    }

    /// The hook that serves this target.
    pub fn hook(&self) -> &dyn TargetHook {
        match self {
            Target::Filesystem(filesystem) => filesystem,
            Target::Virtiofs(share) => share,
        }
    }
}

/// `ext4 LABEL=crash`: as kdump.conf writes it.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Filesystem(filesystem) => filesystem.fmt(f),
            Target::Virtiofs(share) => share.fmt(f),
        }
    }
}

/// What the configuration asks of the hooks. Part of the image configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Dump targets in the order in which they are tried.
    pub targets: Vec<Target>,
    /// What must not be loaded.
    #[serde(default)]
    pub modules: kmod::Settings,
    /// What is put together before the targets are looked for, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub storage: Vec<storage::Layer>,
    /// The capture kernel that a normal boot loads early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_kdump: Option<early_kdump::EarlyKdump>,
}

impl Settings {
    /// The hooks that these settings call for.
    pub fn hooks(&self) -> Vec<&dyn Hook> {
        let early_kdump = self.early_kdump.as_ref().map(|early| early as &dyn Hook);
        let storage = self.storage.iter().map(storage::Layer::hook);
        let targets = self.targets.iter().map(|target| target.hook() as &dyn Hook);
        // The earliest first: whatever crashes after it is dumped.
        early_kdump.into_iter().chain(storage).chain(targets).collect()
    }
}
