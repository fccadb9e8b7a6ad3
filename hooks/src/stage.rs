//! The stages of a boot, in the order in which it passes them. A normal boot ends with [`Stage::Root`] and
//! [`Stage::Switch`], which a capture boot has not.

use std::fmt;

/// A step of the boot. Each has a time limit, is logged and timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Kernel file systems, log, image configuration.
    Early,
    /// What is known of modules: the indexes, modprobe.d, the kernel command line. Hooks act here before the first driver
    /// is loaded.
    Modules,
    /// Modules that the devices ask for.
    Devices,
    /// Interfaces and addresses, if a target or a hook needs them.
    Network,
    /// Disks of other machines, and what is put together of them.
    Storage,
    /// In a normal boot: the root file system is found and mounted.
    Root,
    /// In a normal boot: the root is there, and the first of its programs is about to run.
    Switch,
    /// The dump target: found, opened.
    Target,
    /// The administrator's own work before anything is saved.
    Pre,
    /// The kernel log: small, written first, enough on most mornings.
    Log,
    /// Whether there is room for the dump, and what is done for it.
    Room,
    /// The dump.
    Vmcore,
    /// The administrator's own work after it.
    Post,
    /// What is done when no target has a complete dump.
    Emergency,
    /// The status is written, the target closed.
    Ending,
}

impl Stage {
    /// The name that logs and `status.json` use.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Early => "early",
            Stage::Modules => "modules",
            Stage::Devices => "devices",
            Stage::Network => "network",
            Stage::Storage => "storage",
            Stage::Root => "root",
            Stage::Switch => "switch",
            Stage::Target => "target",
            Stage::Pre => "pre",
            Stage::Log => "log",
            Stage::Room => "room",
            Stage::Vmcore => "vmcore",
            Stage::Post => "post",
            Stage::Emergency => "emergency",
            Stage::Ending => "ending",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
