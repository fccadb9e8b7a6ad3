//! Several paths to one disk.
//!
//! In: the disk's identifier, by which the kernel's sysfs knows each path. At boot: waits for the paths and makes one
//! device of them with `dmsetup`, so that the kernel goes on with another path when one fails.
//!
//! May surprise: neither multipathd nor multipath runs. They need udev, several plug-ins and more memory, and what they
//! add, bringing a path back that has failed, is for hosts that stay up. All paths are in one group; the kernel's own
//! handler for the array (`scsi_dh_*`) is kept.

use super::{STAGES, load, module, run, tool};
use crate::device::DeviceSpec;
use crate::host::{Contribution, Host};
use crate::machine::Machine;
use crate::{Hook, Moment, Next, Stage};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long paths are awaited that may never come.
const MISSING: Duration = Duration::from_secs(10);

/// A disk with several paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Multipath {
    /// The name of the map, below `/dev/mapper`.
    pub name: String,
    /// Device-mapper's UUID of the map, by which LVM knows that its paths are not to be looked at.
    pub uuid: String,
    /// What sysfs says of each path in `device/wwid`.
    pub wwid: String,
    /// How many paths the host had.
    pub paths: u64,
    /// Sectors of 512 bytes.
    pub sectors: u64,
    /// The partitions of it that are needed; device-mapper finds none by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
}

/// A partition of a disk with several paths, in sectors of 512 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The name of its map.
    pub name: String,
    /// Where it begins.
    pub start: u64,
    /// How long it is.
    pub sectors: u64,
}

impl Multipath {
    /// The map's table, as dm-multipath reads it.
    fn table(&self, paths: &[PathBuf]) -> String {
        let each: String = paths.iter().map(|path| format!(" {} 1", path.display())).collect();
        let (sectors, count) = (self.sectors, paths.len());
        format!("0 {sectors} multipath 1 retain_attached_hw_handler 0 1 1 service-time 0 {count} 1{each}")
    }
}

impl Hook for Multipath {
    fn name(&self) -> &'static str {
        "multipath"
    }

    fn gather(&self, _host: &dyn Host) -> anyhow::Result<Contribution> {
        let reason = format!("the target is on the multipath device {}", self.name);
        let mut modules = vec![
            module("dm_mod", &reason, true),
            module("dm_multipath", &reason, true),
            module("dm_service_time", &reason, true),
        ];
        modules.extend(["scsi_dh_alua", "scsi_dh_rdac", "scsi_dh_emc"].map(|name| module(name, &reason, false)));
        Ok(Contribution { modules, programs: vec![tool("dmsetup", &reason)], ..Contribution::default() })
    }

    fn makes(&self) -> Option<String> {
        Some(format!("/dev/mapper/{}", self.name))
    }

    fn stages(&self) -> &'static [Stage] {
        STAGES
    }

    fn act(&self, moment: &Moment, machine: &mut dyn Machine) -> anyhow::Result<Next> {
        let limit = moment.limit;
        let what = || format!("cannot make the multipath device {}", self.name);
        for module in ["dm_multipath", "dm_service_time"] {
            load(machine, module);
        }
        let disk = DeviceSpec::Wwid(self.wwid.clone());
        machine.wait_for_members(&disk, Some(1), limit).with_context(what)?;
        let paths = machine.wait_for_members(&disk, Some(self.paths), MISSING.min(limit)).with_context(what)?;
        let whole = format!("/dev/mapper/{}", self.name);
        create(machine, &self.name, Some(&self.uuid), &self.table(&paths), limit).with_context(what)?;
        for Part { name, start, sectors } in &self.parts {
            let table = format!("0 {sectors} linear {whole} {start}");
            create(machine, name, None, &table, limit)
                .with_context(|| format!("cannot make the partition {name} of a multipath device"))?;
        }
        Ok(Next::GoOn)
    }
}

/// Makes a map and waits for its node.
fn create(
    machine: &mut dyn Machine,
    name: &str,
    uuid: Option<&str>,
    table: &str,
    limit: Duration,
) -> anyhow::Result<()> {
    let mut argv = vec!["dmsetup", "create", name];
    argv.extend(uuid.into_iter().flat_map(|uuid| ["--uuid", uuid]));
    argv.extend(["--table", table]);
    run(machine, &argv)?;
    let node = DeviceSpec::from(Path::new("/dev/mapper").join(name).as_path());
    machine.wait_for_device(&node, limit).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeHost, FakeMachine};

    #[test]
    fn the_paths_that_are_there_become_one_device() {
        let parts = vec![Part { name: "mpatha-part1".into(), start: 63, sectors: 100 }];
        let disk = Multipath {
            name: "mpatha".into(),
            uuid: "mpath-35000".into(),
            wwid: "naa.5000".into(),
            paths: 2,
            sectors: 2048,
            parts,
        };
        let mut machine = FakeMachine::default();
        machine.members.insert("WWID=naa.5000".into(), vec!["/dev/sda".into(), "/dev/sdb".into()]);
        machine.devices.insert("/dev/mapper/mpatha".into(), "/dev/dm-0".into());
        machine.devices.insert("/dev/mapper/mpatha-part1".into(), "/dev/dm-1".into());
        disk.act(&Moment::at(Stage::Devices, Duration::from_secs(90)), &mut machine).unwrap();
        assert_eq!(
            machine.journal[2..],
            [
                "wait 1 of WWID=naa.5000 90s",
                "wait 2 of WWID=naa.5000 10s",
                "run DM_DISABLE_UDEV=1 MDADM_NO_UDEV=1 LVM_SUPPRESS_FD_WARNINGS=1 dmsetup create mpatha --uuid mpath-35000 \
                 --table 0 2048 multipath 1 retain_attached_hw_handler 0 1 1 service-time 0 2 1 /dev/sda 1 /dev/sdb 1",
                "wait /dev/mapper/mpatha 90s",
                "run DM_DISABLE_UDEV=1 MDADM_NO_UDEV=1 LVM_SUPPRESS_FD_WARNINGS=1 dmsetup create mpatha-part1 --table \
                 0 100 linear /dev/mapper/mpatha 63",
                "wait /dev/mapper/mpatha-part1 90s"
            ]
        );
        assert_eq!(disk.gather(&FakeHost::default()).unwrap().programs[0].paths[0], Path::new("/usr/sbin/dmsetup"));
    }
}
