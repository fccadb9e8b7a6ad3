//! An array of the md driver (Linux software RAID).
//!
//! In: the array's UUID, level and number of members. At boot: waits for the members, a while longer for those that are
//! missing, and starts the array with what is there; a dump on a degraded array is better than none.

use super::{STAGES, load, module, run, tool};
use crate::device::DeviceSpec;
use crate::host::{Contribution, Host};
use crate::machine::Machine;
use crate::{Hook, Moment, Next, Stage};
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// How long members are awaited that may never come.
const MISSING: Duration = Duration::from_secs(15);

/// The driver of each level.
const PERSONALITIES: [(&str, &str); 8] = [
    ("linear", "linear"),
    ("raid0", "raid0"),
    ("raid1", "raid1"),
    ("raid4", "raid456"),
    ("raid5", "raid456"),
    ("raid6", "raid456"),
    ("raid10", "raid10"),
    ("multipath", "multipath"),
];

/// An array.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mdraid {
    /// The kernel's name of it, such as `md127`.
    pub name: String,
    /// The UUID in the superblock of each member.
    pub members: DeviceSpec,
    /// How many members there were on the host.
    pub count: u64,
    /// As sysfs names it, such as `raid1`.
    pub level: String,
    /// The devices that it is made of, as the host named them; what puts one of them together may have failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<String>,
}

impl Mdraid {
    /// Whether the kernel's word for a level is known.
    pub fn personality(level: &str) -> Option<&'static str> {
        PERSONALITIES.iter().find(|(known, _)| *known == level).map(|(_, module)| *module)
    }

    /// The node to make: mdadm takes numbered ones everywhere, and named ones below `/dev/md`.
    fn node(&self) -> String {
        match self.name.strip_prefix("md_") {
            Some(name) => format!("/dev/md/{name}"),
            None => format!("/dev/{}", self.name),
        }
    }
}

impl Hook for Mdraid {
    fn name(&self) -> &'static str {
        "mdraid"
    }

    fn gather(&self, _host: &dyn Host) -> anyhow::Result<Contribution> {
        let reason = format!("the target is on the RAID {}", self.name);
        let Some(personality) = Mdraid::personality(&self.level) else {
            bail!("{} is of the RAID level {}, which this version does not know", self.name, self.level);
        };
        let modules = vec![module("md_mod", &reason, true), module(personality, &reason, true)];
        Ok(Contribution { modules, programs: vec![tool("mdadm", &reason)], ..Contribution::default() })
    }

    fn makes(&self) -> Option<String> {
        Some(format!("/dev/{}", self.name))
    }

    fn stands_on(&self) -> &[String] {
        &self.on
    }

    fn stages(&self) -> &'static [Stage] {
        STAGES
    }

    fn act(&self, moment: &Moment, machine: &mut dyn Machine) -> anyhow::Result<Next> {
        let limit = moment.limit;
        let what = || format!("cannot start the RAID {}", self.node());
        load(machine, "md_mod");
        load(machine, Mdraid::personality(&self.level).unwrap_or(&self.level));
        machine.wait_for_members(&self.members, Some(1), limit).with_context(what)?;
        let members =
            machine.wait_for_members(&self.members, Some(self.count), MISSING.min(limit)).with_context(what)?;
        let node = self.node();
        let members: Vec<_> = members.iter().map(|path: &std::path::PathBuf| path.to_string_lossy()).collect();
        let mut argv = vec!["mdadm", "--assemble", "--config=none", "--run", node.as_str()];
        argv.extend(members.iter().map(|member| &**member));
        run(machine, &argv).with_context(what)?;
        machine.wait_for_device(&DeviceSpec::from(Path::new(&node)), limit).with_context(what)?;
        Ok(Next::GoOn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeHost, FakeMachine};
    use crate::machine::Ended;

    fn mirror() -> Mdraid {
        Mdraid {
            name: "md127".into(),
            members: DeviceSpec::Uuid("ab".into()),
            count: 2,
            level: "raid1".into(),
            on: Vec::new(),
        }
    }

    fn machine(members: &[&str]) -> FakeMachine {
        let mut machine = FakeMachine::default();
        machine.members.insert("UUID=ab".into(), members.iter().map(Into::into).collect());
        machine.devices.insert("/dev/md127".into(), "/dev/md127".into());
        machine
    }

    #[test]
    fn members_are_awaited_and_an_array_is_started_with_what_is_there() {
        for members in [&["/dev/vdb", "/dev/vdc"] as &[_], &["/dev/vdc"]] {
            let mut machine = machine(members);
            mirror().act(&Moment::at(Stage::Devices, Duration::from_secs(90)), &mut machine).unwrap();
            let run = format!(
                "run DM_DISABLE_UDEV=1 MDADM_NO_UDEV=1 LVM_SUPPRESS_FD_WARNINGS=1 mdadm --assemble --config=none --run \
                 /dev/md127 {}",
                members.join(" ")
            );
            assert_eq!(
                machine.journal,
                [
                    "load md_mod",
                    "load raid1",
                    "wait 1 of UUID=ab 90s",
                    "wait 2 of UUID=ab 15s",
                    &run,
                    "wait /dev/md127 90s"
                ]
            );
        }
    }

    #[test]
    fn an_array_without_members_or_with_a_refusal_says_so() {
        let error =
            mirror().act(&Moment::at(Stage::Devices, Duration::from_secs(3)), &mut FakeMachine::default()).unwrap_err();
        assert_eq!(format!("{error:#}"), "cannot start the RAID /dev/md127: UUID=ab did not appear within 3 s");
        let mut machine = machine(&["/dev/vdb"]);
        machine.programs.insert("mdadm".into(), Ended { code: 1, said: "not enough drives".into() });
        let error = mirror().act(&Moment::at(Stage::Devices, Duration::from_secs(3)), &mut machine).unwrap_err();
        let expected = "cannot start the RAID /dev/md127: mdadm failed: exit code 1 (not enough drives)";
        assert_eq!(format!("{error:#}"), expected);
    }

    #[test]
    fn the_image_gets_mdadm_and_the_driver_of_the_level() {
        let contribution = mirror().gather(&FakeHost::default()).unwrap();
        assert_eq!(contribution.modules[1].request, "raid1");
        assert_eq!(contribution.programs[0].paths[0], Path::new("/usr/sbin/mdadm"));
        assert!(Mdraid { level: "container".into(), ..mirror() }.gather(&FakeHost::default()).is_err());
    }

    #[test]
    fn a_named_array_gets_a_node_below_dev_md() {
        assert_eq!(Mdraid { name: "md_home".into(), ..mirror() }.node(), "/dev/md/home");
    }
}
