//! A dump target that is a file system on a local block device.
//!
//! May surprise: a btrfs of several devices is mounted by naming them all, since there is no `btrfs device scan`. Where
//! the kernel does not take the mount options, only those that say which file system it is are tried again: a dump is
//! worth more than how the administrator likes his disk mounted.
//!
//! *Into the image*: the file system's module with what it asks for by alias (character sets, checksums), and the
//! drivers of the device, if the device is on the host. *At boot*: wait for the device, mount it, and at the end flush
//! and unmount it.

use crate::device::DeviceSpec;
use crate::host::{Contribution, Host, ModuleNeed};
use crate::machine::{Machine, MountPlan, Refused};
use crate::{Destination, Hook, TargetHook};
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// File systems that kdump.conf can name, and the modules that they ask for only once they are mounted.
const KNOWN: [(&str, &[&str]); 8] = [
    ("ext2", &[]),
    ("ext3", &["crypto-crc32c"]),
    ("ext4", &["crypto-crc32c"]),
    ("xfs", &["crypto-crc32c"]),
    ("btrfs", &["crypto-crc32c"]),
    ("minix", &[]),
    ("f2fs", &["crypto-crc32"]),
    // Its names are in a character set of DOS, those of Linux in another; kernels differ in which.
    ("vfat", &["nls_cp437", "nls_ascii", "nls_iso8859-1", "nls_utf8"]),
];

/// A file system on a local block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filesystem {
    /// The type, as mount(2) takes it.
    pub fstype: String,
    /// The device.
    pub device: DeviceSpec,
    /// Mount options as fstab writes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Filesystem {
    /// Whether kdump.conf may name that type as a target.
    pub fn is_known(fstype: &str) -> bool {
        KNOWN.iter().any(|(known, _)| *known == fstype)
    }
}

impl fmt::Display for Filesystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.fstype, self.device)
    }
}

impl Hook for Filesystem {
    fn name(&self) -> &'static str {
        "filesystem"
    }

    fn gather(&self, host: &dyn Host) -> anyhow::Result<Contribution> {
        let Some((_, late)) = KNOWN.iter().find(|(known, _)| *known == self.fstype) else {
            bail!("{} is not a file system that a dump can go to", self.fstype);
        };
        let reason = format!("file system of the target {self}");
        let mut modules =
            vec![ModuleNeed { request: self.fstype.clone(), reason: reason.clone(), required: true, by_device: false }];
        modules.extend(late.iter().map(|request| ModuleNeed {
            request: (*request).to_owned(),
            reason: format!("{} asks for it when mounted", self.fstype),
            required: false,
            by_device: false,
        }));
        modules.extend(drivers(host, &self.device)?);
        Ok(Contribution { modules, ..Contribution::default() })
    }
}

impl TargetHook for Filesystem {
    fn open(&self, machine: &mut dyn Machine, limit: Duration) -> anyhow::Result<Destination> {
        let source = machine.wait_for_device(&self.device, limit)?;
        // A file system that is built in is no module, and mount(2) asks for a missing one itself; what went wrong here
        // shows there.
        if let Err(error) = machine.load_module(&self.fstype) {
            log::debug!("{error:#}");
        }
        let point = machine.mount_point();
        let mut options: Vec<String> =
            self.options.iter().filter(|option| *option != "defaults" && *option != "ro").cloned().collect();
        if self.fstype == "btrfs" && self.device.is_of_content() {
            options.extend(other_devices(machine, &self.device, &source, limit)?);
        }
        let mut plan = MountPlan { source: source.clone(), point: point.clone(), fstype: self.fstype.clone(), options };
        let mut mounted = machine.mount(&plan);
        if let Err(error) = &mounted
            && error.downcast_ref::<Refused>().is_some_and(|refused| refused.errno == EINVAL)
            && plan.options.iter().any(|option| !is_essential(option))
        {
            log::warn!("cannot mount the target {self} with {}: {error:#}; trying without", plan.options.join(","));
            plan.options.retain(|option| is_essential(option));
            mounted = machine.mount(&plan);
        }
        mounted.with_context(|| format!("cannot mount the target {self} ({})", source.display()))?;
        Ok(Destination::Directory(point))
    }

    fn close(&self, machine: &mut dyn Machine) -> anyhow::Result<()> {
        let point = machine.mount_point();
        machine.unmount(&point).with_context(|| format!("cannot unmount the target {self}"))
    }
}

/// The drivers of a target device; none, if it is not on the host.
pub(crate) fn drivers(host: &dyn Host, device: &DeviceSpec) -> anyhow::Result<Vec<ModuleNeed>> {
    let chain =
        host.device_chain(device).with_context(|| format!("cannot find the drivers of the target device {device}"))?;
    let need = |request: String| ModuleNeed {
        // An alias may be answered by nothing; a driver that is at work has a name and must be there.
        required: !request.contains(':'),
        request,
        reason: format!("driver of the target device {device}"),
        by_device: true,
    };
    Ok(chain.into_iter().flatten().map(need).collect())
}

/// The kernel's answer to an option that it does not know.
const EINVAL: i32 = 22;

/// Whether it would be another file system without that option.
fn is_essential(option: &str) -> bool {
    ["subvol=", "subvolid=", "device="].iter().any(|name| option.starts_with(name))
}

/// The options that name the other devices of a btrfs, which nobody else tells the kernel.
fn other_devices(
    machine: &mut dyn Machine,
    spec: &DeviceSpec,
    first: &Path,
    limit: Duration,
) -> anyhow::Result<Vec<String>> {
    let all = machine.wait_for_members(spec, None, limit)?;
    Ok(all.iter().filter(|node| *node != first).map(|node| format!("device={}", node.display())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeHost, FakeMachine};

    fn target(fstype: &str) -> Filesystem {
        Filesystem {
            fstype: fstype.into(),
            device: DeviceSpec::Label("crash".into()),
            options: vec!["defaults".into(), "noatime".into()],
        }
    }

    #[test]
    fn the_device_is_awaited_then_mounted_then_let_go() {
        let mut machine = FakeMachine::default();
        machine.devices.insert("LABEL=crash".into(), "/dev/vdb".into());
        let destination = target("ext4").open(&mut machine, Duration::from_secs(9)).unwrap();
        target("ext4").close(&mut machine).unwrap();
        assert_eq!(destination, Destination::Directory(crate::machine::MOUNT_POINT.into()));
        assert_eq!(
            machine.journal,
            ["wait LABEL=crash 9s", "load ext4", "mount /dev/vdb /kdump/target ext4 noatime", "unmount /kdump/target"]
        );
    }

    #[test]
    fn a_btrfs_of_several_devices_is_mounted_with_all_of_them() {
        let mut machine = FakeMachine::default();
        machine.devices.insert("LABEL=crash".into(), "/dev/vdb".into());
        machine.members.insert("LABEL=crash".into(), vec!["/dev/vdb".into(), "/dev/vdc".into()]);
        target("btrfs").open(&mut machine, Duration::from_secs(9)).unwrap();
        let last = machine.journal.last().unwrap();
        assert_eq!(last, "mount /dev/vdb /kdump/target btrfs noatime,device=/dev/vdc");
    }

    #[test]
    fn a_missing_device_is_named_with_the_limit() {
        let error = target("ext4").open(&mut FakeMachine::default(), Duration::from_secs(3)).unwrap_err();
        assert_eq!(format!("{error:#}"), "LABEL=crash did not appear within 3 s");
    }

    #[test]
    fn a_refused_mount_names_target_and_device() {
        let mut machine = FakeMachine::default();
        machine.devices.insert("LABEL=crash".into(), "/dev/vdb".into());
        machine.unmountable.insert("xfs".into());
        let error = target("xfs").open(&mut machine, Duration::from_secs(3)).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "cannot mount the target xfs LABEL=crash (/dev/vdb): unknown file system type"
        );
    }

    #[test]
    fn the_image_gets_the_file_system_and_the_drivers_of_a_device_that_is_here() {
        let mut host = FakeHost::default();
        host.chains.insert("LABEL=crash".into(), vec!["virtio:d2v1".into(), "virtio_pci".into()]);
        let contribution = target("ext4").gather(&host).unwrap();
        let requests: Vec<_> = contribution.modules.iter().map(|need| need.request.as_str()).collect();
        assert_eq!(requests, ["ext4", "crypto-crc32c", "virtio:d2v1", "virtio_pci"]);
        assert!(target("zfs").gather(&host).is_err());
    }

    #[test]
    fn a_target_survives_the_way_through_the_image_configuration() {
        let settings =
            crate::Settings { targets: vec![crate::Target::Filesystem(target("xfs"))], ..crate::Settings::default() };
        let text = toml::to_string(&settings).unwrap();
        assert_eq!(toml::from_str::<crate::Settings>(&text).unwrap(), settings, "{text}");
        assert_eq!(settings.targets[0].to_string(), "xfs LABEL=crash");
    }
}
