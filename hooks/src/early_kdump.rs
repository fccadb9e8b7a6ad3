//! `rd.earlykdump`: the capture kernel is loaded before the system's own services are there.
//!
//! *Into the image*: the capture kernel, its image and the configuration of kdumpctl, each where the system has it.
//! *At boot*: `kdumpctl reload`, which loads what was built and builds nothing: what images are made of is not in this one.
//! The system's own `kdumpctl start` then finds that it has been done.
//! May surprise: what is loaded is as old as the image; after a change of the capture image this one has to be built
//! again. Only a kernel whose command line says `rd.earlykdump` does it, and only where crashkernel= reserved memory.

use crate::host::{Contribution, Host, ProgramNeed};
use crate::machine::{Machine, Program};
use crate::{Hook, Moment, Next, Stage};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where kdumpctl is in the image.
pub const KDUMPCTL: &str = "/usr/bin/kdumpctl";

/// What kdumpctl reads, besides kernel and image: whichever of them the machine has.
const CONFIGURATION: [&str; 4] =
    ["/etc/kdump/kdump.toml", "/etc/kdump.conf", "/etc/sysconfig/kdump", "/etc/default/kdump-tools"];

/// A capture kernel that the image brings along.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyKdump {
    /// The capture kernel.
    pub kernel: PathBuf,
    /// Its image.
    pub image: PathBuf,
}

impl Hook for EarlyKdump {
    fn name(&self) -> &'static str {
        "early_kdump"
    }

    fn gather(&self, _host: &dyn Host) -> anyhow::Result<Contribution> {
        let need = |path: &Path, reason: &str, required| ProgramNeed {
            paths: vec![path.to_owned()],
            reason: reason.to_owned(),
            required,
        };
        let mut programs = vec![
            need(&self.kernel, "the capture kernel, loaded for rd.earlykdump", true),
            need(&self.image, "the image of the capture kernel", true),
        ];
        programs.extend(CONFIGURATION.map(|path| need(Path::new(path), "kdumpctl loads as it says", false)));
        Ok(Contribution { programs, ..Contribution::default() })
    }

    fn stages(&self) -> &'static [Stage] {
        &[Stage::Early]
    }

    fn act(&self, moment: &Moment, machine: &mut dyn Machine) -> anyhow::Result<Next> {
        machine.run(&Program::new(&[KDUMPCTL, "reload"], moment.limit))?.well("kdumpctl")?;
        Ok(Next::GoOn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeHost, FakeMachine};
    use crate::machine::Ended;
    use std::time::Duration;

    fn early() -> EarlyKdump {
        EarlyKdump { kernel: "/boot/vmlinuz-6.1".into(), image: "/boot/initramfs-6.1kdump.img".into() }
    }

    #[test]
    fn kernel_image_and_configuration_come_along_where_they_are() {
        let programs = early().gather(&FakeHost::default()).unwrap().programs;
        let paths: Vec<_> = programs.iter().map(|need| (need.paths[0].to_str().unwrap(), need.required)).collect();
        assert_eq!(
            paths,
            [
                ("/boot/vmlinuz-6.1", true),
                ("/boot/initramfs-6.1kdump.img", true),
                ("/etc/kdump/kdump.toml", false),
                ("/etc/kdump.conf", false),
                ("/etc/sysconfig/kdump", false),
                ("/etc/default/kdump-tools", false)
            ]
        );
    }

    #[test]
    fn kdumpctl_loads_them_and_its_refusal_is_told() {
        let mut machine = FakeMachine::default();
        early().act(&Moment::at(Stage::Early, Duration::from_secs(9)), &mut machine).unwrap();
        assert_eq!(machine.journal, ["run /usr/bin/kdumpctl reload"]);
        machine.programs.insert("kdumpctl".into(), Ended { code: 1, said: "No memory reserved".into() });
        let error = early().act(&Moment::at(Stage::Early, Duration::from_secs(9)), &mut machine).unwrap_err();
        assert_eq!(error.to_string(), "kdumpctl failed: exit code 1 (No memory reserved)");
    }
}
