//! A logical volume of LVM.
//!
//! In: volume group, volume, the physical volumes below, and the kinds of segments that it is put together from. At
//! boot: waits for the physical volumes, then activates this one volume and nothing else; LVM itself activates what the
//! volume needs, such as its thin pool.
//!
//! May surprise: `lvm.conf` in the image is ours, not the host's, which may name devices files, daemons and programs that
//! the image does not have. A thin pool is not checked before it is activated: `thin_check` may take more memory than
//! there is, and a pool that needs repair refuses activation by itself.

use super::{STAGES, load, module, run, tool};
use crate::device::DeviceSpec;
use crate::host::{Contribution, FileNeed, Host};
use crate::machine::Machine;
use crate::{Hook, Moment, Next, Stage};
use anyhow::Context;
use log::warn;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// How long the other physical volumes are awaited once one is missing.
const MISSING: Duration = Duration::from_secs(15);

const CONFIGURATION: &str = "/etc/lvm/lvm.conf";

const LVM_CONF: &str = "\
devices {
    dir = \"/dev\"
    scan = [ \"/dev\" ]
    obtain_device_list_from_udev = 0
    external_device_info_source = \"none\"
    use_devicesfile = 0
    md_component_detection = 1
    multipath_component_detection = 1
    issue_discards = 0
}
activation {
    udev_sync = 0
    udev_rules = 0
    verify_udev_operations = 0
    monitoring = 0
    polling_interval = 0
    use_linear_target = 1
    activation_mode = \"degraded\"
    reserved_stack = 64
    reserved_memory = 1024
}
backup {
    backup = 0
    archive = 0
}
global {
    use_lvmpolld = 0
    use_lvmlockd = 0
    event_activation = 0
    notify_dbus = 0
    thin_check_executable = \"\"
    cache_check_executable = \"\"
}
log {
    syslog = 0
    file = \"\"
}
";

/// What of a volume has a driver of its own; linear and striped ones do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Segment {
    /// A thin pool.
    Thin,
    /// RAID of LVM.
    Raid,
    /// The older mirrors.
    Mirror,
    /// A snapshot, or the origin of one.
    Snapshot,
    /// A cache in front of it.
    Cache,
    /// A write cache in front of it.
    Writecache,
}

impl Segment {
    fn modules(self) -> &'static [&'static str] {
        match self {
            Segment::Thin => &["dm_thin_pool"],
            Segment::Raid => &["dm_raid", "raid1", "raid10", "raid456"],
            Segment::Mirror => &["dm_mirror"],
            Segment::Snapshot => &["dm_snapshot"],
            Segment::Cache => &["dm_cache", "dm_cache_smq"],
            Segment::Writecache => &["dm_writecache"],
        }
    }
}

/// A logical volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lvm {
    /// The volume group.
    pub group: String,
    /// The volume.
    pub volume: String,
    /// The physical volumes that it is on.
    pub physical: Vec<DeviceSpec>,
    /// What of it has drivers of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<Segment>,
    /// The devices that it is made of, as the host named them; what puts one of them together may have failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<String>,
}

impl Lvm {
    fn full_name(&self) -> String {
        format!("{}/{}", self.group, self.volume)
    }
}

impl Hook for Lvm {
    fn name(&self) -> &'static str {
        "lvm"
    }

    fn gather(&self, _host: &dyn Host) -> anyhow::Result<Contribution> {
        let reason = format!("the target is on the logical volume {}", self.full_name());
        let mut modules = vec![module("dm_mod", &reason, true)];
        for segment in &self.segments {
            // The first is the driver itself; the others may be built in or not be used.
            modules.extend(segment.modules().iter().zip(0..).map(|(name, at)| module(name, &reason, at == 0)));
        }
        let conf = FileNeed {
            path: CONFIGURATION.into(),
            bytes: LVM_CONF.into(),
            secret: false,
            reason: "LVM without udev, daemons and other programs".to_owned(),
        };
        Ok(Contribution { modules, programs: vec![tool("lvm", &reason)], files: vec![conf], ..Contribution::default() })
    }

    fn makes(&self) -> Option<String> {
        // Device-mapper doubles the dashes within a name.
        let part = |name: &str| name.replace('-', "--");
        Some(format!("/dev/mapper/{}-{}", part(&self.group), part(&self.volume)))
    }

    fn stands_on(&self) -> &[String] {
        &self.on
    }

    fn stages(&self) -> &'static [Stage] {
        STAGES
    }

    fn act(&self, moment: &Moment, machine: &mut dyn Machine) -> anyhow::Result<Next> {
        let limit = moment.limit;
        let name = self.full_name();
        load(machine, "dm_mod");
        for module in self.segments.iter().flat_map(|segment| segment.modules()) {
            load(machine, module);
        }
        let mut patience = limit;
        for physical in &self.physical {
            // A volume that is a RAID can do without; LVM knows.
            if let Err(error) = machine.wait_for_device(physical, patience) {
                warn!("a physical volume of {} is missing: {error:#}", self.group);
                patience = MISSING.min(limit);
            }
        }
        let argv = ["lvm", "lvchange", "--activate", "y", "--sysinit", "--ignoreactivationskip", "--yes", &name];
        run(machine, &argv).with_context(|| format!("cannot activate the logical volume {name}"))?;
        let node = DeviceSpec::from(Path::new(&format!("/dev/{name}")));
        machine.wait_for_device(&node, limit)?;
        Ok(Next::GoOn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeHost, FakeMachine};
    use crate::machine::Ended;

    fn volume() -> Lvm {
        Lvm {
            group: "vg".into(),
            volume: "crash".into(),
            physical: vec![DeviceSpec::Uuid("pv1".into()), DeviceSpec::Uuid("pv2".into())],
            segments: vec![Segment::Thin],
            on: vec!["/dev/vdb".into()],
        }
    }

    #[test]
    fn only_the_one_volume_is_activated_once_its_disks_are_there() {
        let mut machine = FakeMachine::default();
        for device in ["UUID=pv1", "UUID=pv2", "/dev/vg/crash"] {
            machine.devices.insert(device.into(), "/dev/x".into());
        }
        volume().act(&Moment::at(Stage::Devices, Duration::from_secs(9)), &mut machine).unwrap();
        assert_eq!(
            machine.journal,
            [
                "load dm_mod",
                "load dm_thin_pool",
                "wait UUID=pv1 9s",
                "wait UUID=pv2 9s",
                "run DM_DISABLE_UDEV=1 MDADM_NO_UDEV=1 LVM_SUPPRESS_FD_WARNINGS=1 lvm lvchange --activate y --sysinit \
                 --ignoreactivationskip --yes vg/crash",
                "wait /dev/vg/crash 9s"
            ]
        );
    }

    #[test]
    fn a_missing_disk_is_left_to_lvm_which_is_quoted() {
        let mut machine = FakeMachine::default();
        machine.programs.insert("lvm".into(), Ended { code: 5, said: "Refusing activation of partial LV".into() });
        let error = volume().act(&Moment::at(Stage::Devices, Duration::from_secs(1)), &mut machine).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "cannot activate the logical volume vg/crash: lvm failed: exit code 5 (Refusing activation of partial LV)"
        );
    }

    #[test]
    fn several_missing_disks_are_not_waited_for_one_after_the_other() {
        let mut machine = FakeMachine::default();
        machine.devices.insert("/dev/vg/crash".into(), "/dev/x".into());
        volume().act(&Moment::at(Stage::Devices, Duration::from_secs(90)), &mut machine).unwrap();
        let waits: Vec<_> = machine.journal.iter().filter(|line| line.starts_with("wait UUID")).collect();
        assert_eq!(waits, ["wait UUID=pv1 90s", "wait UUID=pv2 15s"]);
    }

    #[test]
    fn the_image_gets_lvm_its_drivers_and_a_configuration_of_its_own() {
        let contribution = volume().gather(&FakeHost::default()).unwrap();
        let modules: Vec<_> = contribution.modules.iter().map(|need| need.request.as_str()).collect();
        assert_eq!(modules, ["dm_mod", "dm_thin_pool"]);
        assert_eq!(contribution.files[0].path, Path::new(CONFIGURATION));
        assert!(contribution.programs[0].paths.contains(&"/sbin/lvm".into()));
    }
}
