//! A machine and a host that exist only in memory, for the tests of every crate.

use crate::device::DeviceSpec;
use crate::host::Host;
use crate::kmod::Index;
use crate::machine::{Ended, Machine, MountPlan, Program};
use anyhow::{anyhow, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A machine that records what it is asked to do.
#[derive(Clone, Debug, Default)]
pub struct FakeMachine {
    /// The devices it has: how they are asked for, and their node.
    pub devices: BTreeMap<String, PathBuf>,
    /// File system types that mount(2) refuses.
    pub unmountable: BTreeSet<String>,
    /// Modules it does not have.
    pub missing_modules: BTreeSet<String>,
    /// How programs end, by their first argument's file name; well, if nothing is said.
    pub programs: BTreeMap<String, Ended>,
    /// Programs, by file name, that are killed because their time is over.
    pub stuck: BTreeSet<String>,
    /// Everything that was asked, one line each.
    pub journal: Vec<String>,
}

impl Machine for FakeMachine {
    fn load_module(&mut self, request: &str) -> anyhow::Result<()> {
        self.journal.push(format!("load {request}"));
        if self.missing_modules.contains(request) {
            bail!("module {request} is not in this image");
        }
        Ok(())
    }

    fn wait_for_device(&mut self, device: &DeviceSpec, limit: Duration) -> anyhow::Result<PathBuf> {
        self.journal.push(format!("wait {device} {}s", limit.as_secs()));
        self.devices
            .get(&device.to_string())
            .cloned()
            .ok_or_else(|| anyhow!("{device} did not appear within {} s", limit.as_secs()))
    }

    fn mount(&mut self, plan: &MountPlan) -> anyhow::Result<()> {
        let MountPlan { source, point, fstype, options } = plan;
        self.journal.push(format!("mount {} {} {fstype} {}", source.display(), point.display(), options.join(",")));
        if self.unmountable.contains(fstype) {
            bail!("unknown file system type");
        }
        Ok(())
    }

    fn run(&mut self, program: &Program) -> anyhow::Result<Ended> {
        let env: String = program.env.iter().map(|(name, value)| format!("{name}={value} ")).collect();
        self.journal.push(format!("run {env}{}", program.argv.join(" ")));
        let name = program.argv.first().and_then(|path| Path::new(path).file_name()).unwrap_or_default();
        let name = name.to_string_lossy();
        if self.stuck.contains(&*name) {
            bail!("{name} was not done within {} s and has been killed", program.limit.as_secs());
        }
        Ok(self.programs.get(&*name).cloned().unwrap_or_default())
    }

    fn unmount(&mut self, point: &Path) -> anyhow::Result<()> {
        self.journal.push(format!("unmount {}", point.display()));
        Ok(())
    }
}

/// A host that has what it is told to have.
#[derive(Clone, Debug, Default)]
pub struct FakeHost {
    /// The kernel's module indexes.
    pub index: Index,
    /// The chains of the devices that are there, by how they are asked for.
    pub chains: BTreeMap<String, Vec<String>>,
    /// The files that are there.
    pub files: BTreeSet<PathBuf>,
}

impl Host for FakeHost {
    fn index(&self) -> &Index {
        &self.index
    }

    fn device_chain(&self, device: &DeviceSpec) -> anyhow::Result<Option<Vec<String>>> {
        Ok(self.chains.get(&device.to_string()).cloned())
    }

    fn has_file(&self, path: &Path) -> bool {
        self.files.contains(path)
    }
}
