//! A dump target that is a directory which the hypervisor shares (`virtiofs TAG`).
//!
//! *Into the image*: virtiofs and the drivers of virtio. *At boot*: mount it by its tag, as soon as the share is there.
//! May surprise: a share is no block device and has no node; that it is there is known by the mount alone.

use crate::host::{Contribution, Host, ModuleNeed};
use crate::machine::{Machine, MountPlan};
use crate::{Destination, Hook, TargetHook};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// A share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Virtiofs {
    /// The name by which the hypervisor offers it.
    pub tag: String,
}

impl fmt::Display for Virtiofs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "virtiofs {}", self.tag)
    }
}

impl Hook for Virtiofs {
    fn name(&self) -> &'static str {
        "virtiofs"
    }

    fn gather(&self, _host: &dyn Host) -> anyhow::Result<Contribution> {
        let need = |request: &str, required, by_device| ModuleNeed {
            request: request.to_owned(),
            reason: format!("the target is the share {}", self.tag),
            required,
            by_device,
        };
        let modules =
            vec![need("virtiofs", true, false), need("virtio_pci", false, true), need("virtio_mmio", false, true)];
        Ok(Contribution { modules, ..Contribution::default() })
    }
}

impl TargetHook for Virtiofs {
    fn open(&self, machine: &mut dyn Machine, _limit: Duration) -> anyhow::Result<Destination> {
        if let Err(error) = machine.load_module("virtiofs") {
            log::debug!("{error:#}");
        }
        let point = machine.mount_point();
        machine
            .mount(&MountPlan {
                source: self.tag.clone().into(),
                point: point.clone(),
                fstype: "virtiofs".to_owned(),
                options: Vec::new(),
            })
            .with_context(|| {
                format!("cannot mount the target {self}; does the hypervisor offer a share of that tag?")
            })?;
        Ok(Destination::Directory(point))
    }

    fn close(&self, machine: &mut dyn Machine) -> anyhow::Result<()> {
        let point = machine.mount_point();
        machine.unmount(&point).with_context(|| format!("cannot unmount the target {self}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeHost, FakeMachine};

    #[test]
    fn a_share_is_mounted_by_its_tag() {
        let share = Virtiofs { tag: "dumps".into() };
        let mut machine = FakeMachine::default();
        share.open(&mut machine, Duration::from_secs(9)).unwrap();
        share.close(&mut machine).unwrap();
        let expected = ["load virtiofs", "mount dumps /kdump/target virtiofs ", "unmount /kdump/target"];
        assert_eq!(machine.journal, expected);
        assert_eq!(share.gather(&FakeHost::default()).unwrap().modules[0].request, "virtiofs");
        assert_eq!(share.to_string(), "virtiofs dumps");
    }
}
