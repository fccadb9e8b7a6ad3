//! A dump target that is a device or partition without a file system.
//!
//! *Into the image*: the drivers of the device, if the device is on the host. *At boot*: wait for the device. What is
//! written where is told by [`layout`], which the capture environment writes and `kdumpctl recover` reads.
//!
//! May surprise: only names count that do not come from what is on the device, since that is overwritten.

pub mod layout;

use crate::device::DeviceSpec;
use crate::filesystem;
use crate::host::{Contribution, Host};
use crate::machine::Machine;
use crate::{Destination, Hook, TargetHook};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// A device or partition without a file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    /// The device.
    pub device: DeviceSpec,
    /// Whether a file system on it is overwritten.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "raw {}", self.device)
    }
}

impl Hook for Raw {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn gather(&self, host: &dyn Host) -> anyhow::Result<Contribution> {
        Ok(Contribution { modules: filesystem::drivers(host, &self.device)?, ..Contribution::default() })
    }
}

impl TargetHook for Raw {
    fn open(&self, machine: &mut dyn Machine, limit: Duration) -> anyhow::Result<Destination> {
        let node = machine.wait_for_device(&self.device, limit)?;
        Ok(Destination::Device { node, force: self.force })
    }

    fn close(&self, _machine: &mut dyn Machine) -> anyhow::Result<()> {
        // Nothing is mounted, and each part is flushed when it is whole.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeHost, FakeMachine};
    use crate::{Settings, Target};

    fn target() -> Raw {
        Raw { device: DeviceSpec::PartUuid("6b64-01".into()), force: false }
    }

    #[test]
    fn the_device_is_awaited_and_nothing_is_mounted() {
        let mut machine = FakeMachine::default();
        machine.devices.insert("PARTUUID=6b64-01".into(), "/dev/vdb1".into());
        let destination = target().open(&mut machine, Duration::from_secs(9)).unwrap();
        target().close(&mut machine).unwrap();
        assert_eq!(destination, Destination::Device { node: "/dev/vdb1".into(), force: false });
        assert_eq!(machine.journal, ["wait PARTUUID=6b64-01 9s"]);
        let error = target().open(&mut FakeMachine::default(), Duration::from_secs(3)).unwrap_err();
        assert_eq!(error.to_string(), "PARTUUID=6b64-01 did not appear within 3 s");
    }

    #[test]
    fn the_image_gets_the_drivers_of_the_device_and_no_file_system() {
        let mut host = FakeHost::default();
        host.chains.insert("PARTUUID=6b64-01".into(), vec!["virtio:d2v1".into(), "virtio_pci".into()]);
        let contribution = target().gather(&host).unwrap();
        let requests: Vec<_> = contribution.modules.iter().map(|need| need.request.as_str()).collect();
        assert_eq!(requests, ["virtio:d2v1", "virtio_pci"]);
    }

    #[test]
    fn a_target_survives_the_way_through_the_image_configuration() {
        for target in [target(), Raw { force: true, ..target() }] {
            let settings = Settings { targets: vec![Target::Raw(target)], ..Settings::default() };
            let text = toml::to_string(&settings).unwrap();
            assert_eq!(toml::from_str::<Settings>(&text).unwrap(), settings, "{text}");
            assert_eq!(settings.targets[0].to_string(), "raw PARTUUID=6b64-01");
        }
    }
}
