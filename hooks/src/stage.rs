//! The stages of a capture boot.

use std::fmt;

/// A step of the capture boot. Each has a time limit, is logged and timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Kernel file systems, log, image configuration.
    Early,
    /// What is known of modules: the indexes, modprobe.d, the kernel command line.
    Modules,
    /// Modules that the devices ask for.
    Devices,
    /// Addresses and routes, for targets that need them.
    Network,
    /// The dump target: found, opened.
    Target,
    /// Work before the dump.
    PreHooks,
    /// The kernel log: small, written first, enough on most mornings.
    Log,
    /// The dump.
    Vmcore,
    /// Work after the dump.
    PostHooks,
    /// The status is written, the target closed.
    Ending,
}

impl Stage {
    /// Every stage, in the order in which a boot passes them.
    pub const ALL: [Stage; 10] = [
        Stage::Early,
        Stage::Modules,
        Stage::Devices,
        Stage::Network,
        Stage::Target,
        Stage::PreHooks,
        Stage::Log,
        Stage::Vmcore,
        Stage::PostHooks,
        Stage::Ending,
    ];

    /// The name that logs and `status.json` use.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Early => "early",
            Stage::Modules => "modules",
            Stage::Devices => "devices",
            Stage::Network => "network",
            Stage::Target => "target",
            Stage::PreHooks => "pre",
            Stage::Log => "log",
            Stage::Vmcore => "vmcore",
            Stage::PostHooks => "post",
            Stage::Ending => "ending",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
