//! `dump_to_rootfs`: the host's root file system, as the last of all targets.
//!
//! It is an ordinary file system target that has its own directory of dumps, since `path` is told from the root of the
//! target that is configured. Emergency hooks have run before it is tried.

use crate::filesystem::Filesystem;
use crate::host::{Contribution, Host};
use crate::machine::Machine;
use crate::{Destination, Hook, TargetHook};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The root file system of the machine that crashed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rootfs {
    /// The directory of all dumps in it.
    pub path: PathBuf,
    /// Where it is.
    pub filesystem: Filesystem,
}

impl fmt::Display for Rootfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rootfs ({})", self.filesystem)
    }
}

impl Hook for Rootfs {
    fn name(&self) -> &'static str {
        "rootfs"
    }

    fn gather(&self, host: &dyn Host) -> anyhow::Result<Contribution> {
        self.filesystem.gather(host)
    }
}

impl TargetHook for Rootfs {
    fn open(&self, machine: &mut dyn Machine, limit: Duration) -> anyhow::Result<Destination> {
        self.filesystem.open(machine, limit)
    }

    fn close(&self, machine: &mut dyn Machine) -> anyhow::Result<()> {
        self.filesystem.close(machine)
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn is_last_resort(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use crate::{DeviceSpec, Settings, Target};

    use super::*;

    #[test]
    fn it_survives_the_way_through_the_image_configuration() {
        let filesystem =
            Filesystem { fstype: "ext4".into(), device: DeviceSpec::Uuid("12".into()), options: Vec::new() };
        let target = Target::Rootfs(Rootfs { path: "/var/crash".into(), filesystem });
        let settings = Settings { targets: vec![target], ..Settings::default() };
        let text = toml::to_string(&settings).unwrap();
        assert_eq!(toml::from_str::<Settings>(&text).unwrap(), settings, "{text}");
        assert_eq!(settings.targets[0].to_string(), "rootfs (ext4 UUID=12)");
    }
}
