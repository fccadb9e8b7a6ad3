//! A machine and a host that exist only in memory, for the tests of every crate.

use crate::device::DeviceSpec;
use crate::host::Host;
use crate::keys::Keys;
use crate::kmod::Index;
use crate::machine::{Ended, MOUNT_POINT, Machine, MountPlan, Program, Refused};
use crate::net::Net;
use crate::net::model::Cidr;
use anyhow::{anyhow, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod example;
pub mod fuzz;
mod keys;
mod livepatch;
mod net;
mod object;
mod program;
mod unified;
mod until_told;

pub use example::example;
pub use keys::FakeKeys;
pub use livepatch::{FakeKernel, FakePatch};
pub use net::{FakeNet, dhcp_reply};
pub use object::{object, object_of_build};
pub use program::program;
pub use unified::unified_image;
pub use until_told::UntilTold;

/// A machine that records what it is asked to do.
#[derive(Clone, Debug, Default)]
pub struct FakeMachine {
    /// The devices it has: how they are asked for, and their node.
    pub devices: BTreeMap<String, PathBuf>,
    /// The devices of which it has several.
    pub members: BTreeMap<String, Vec<PathBuf>>,
    /// File system types and options that mount(2) refuses.
    pub unmountable: BTreeSet<String>,
    /// With which errno it does so; `EPROTONOSUPPORT` if it is 0.
    pub mount_errno: i32,
    /// Modules it does not have.
    pub missing_modules: BTreeSet<String>,
    /// The errnos with which the kernel refuses what is written to a file, one for each time.
    pub refused_writes: BTreeMap<PathBuf, Vec<i32>>,
    /// What it says in files of proc and sysfs.
    pub files: BTreeMap<PathBuf, String>,
    /// How programs end, by their first argument's file name; well, if nothing is said.
    pub programs: BTreeMap<String, Ended>,
    /// Programs, by file name, that are killed because their time is over.
    pub stuck: BTreeSet<String>,
    /// Everything that was asked, one line each.
    pub journal: Vec<String>,
    /// Its network.
    pub net: FakeNet,
    /// Its kernel's keys.
    pub keys: FakeKeys,
    /// Its live patches.
    pub live: FakeKernel,
    /// What was mounted with and nobody may see.
    pub secrets: Vec<String>,
    /// How many targets have been left behind.
    pub given_up: u32,
}

impl FakeMachine {
    /// One with a card and an address, whose name server knows `nas.example`.
    pub fn near_a_server() -> FakeMachine {
        let mut net = FakeNet::with_cards(&["eth0"]);
        // In memory nothing refuses an address.
        let _ = net.add_address(2, Cidr { address: Ipv4Addr::new(10, 0, 2, 15).into(), prefix: 24 });
        net.files.insert("/etc/resolv.conf".into(), "nameserver 10.0.2.3\n".into());
        net.dns.insert("nas.example".into(), Ipv4Addr::new(10, 0, 2, 7).into());
        FakeMachine { net, ..FakeMachine::default() }
    }
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

    fn wait_for_members(
        &mut self,
        device: &DeviceSpec,
        count: Option<u64>,
        limit: Duration,
    ) -> anyhow::Result<Vec<PathBuf>> {
        let count = count.map_or("all".to_owned(), |count| count.to_string());
        self.journal.push(format!("wait {count} of {device} {}s", limit.as_secs()));
        let one = || self.devices.get(&device.to_string()).map(|node| vec![node.clone()]);
        self.members
            .get(&device.to_string())
            .cloned()
            .or_else(one)
            .ok_or_else(|| anyhow!("{device} did not appear within {} s", limit.as_secs()))
    }

    fn tell_kernel(&mut self, file: &Path, text: &str) -> anyhow::Result<()> {
        self.journal.push(format!("write {text} to {}", file.display()));
        match self.refused_writes.get_mut(file).and_then(Vec::pop) {
            Some(errno) => Err(anyhow!(std::io::Error::from_raw_os_error(errno)).context("refused")),
            None => Ok(()),
        }
    }

    fn ask_kernel(&mut self, file: &Path) -> anyhow::Result<String> {
        self.files.get(file).cloned().ok_or_else(|| anyhow!("cannot read {}", file.display()))
    }

    fn mount(&mut self, plan: &MountPlan) -> anyhow::Result<()> {
        let MountPlan { source, point, fstype, options } = plan;
        self.journal.push(format!("mount {} {} {fstype} {}", source.display(), point.display(), options.join(",")));
        if self.unmountable.contains(fstype) || options.iter().any(|option| self.unmountable.contains(option)) {
            let errno = if self.mount_errno == 0 { 93 } else { self.mount_errno };
            return Err(Refused { errno, reason: "unknown file system type".to_owned() }.into());
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

    fn mount_with_secret(&mut self, plan: &MountPlan, secret: &[String]) -> anyhow::Result<()> {
        self.secrets.extend(secret.iter().cloned());
        self.mount(plan)
    }

    fn mount_point(&self) -> PathBuf {
        match self.given_up {
            0 => MOUNT_POINT.into(),
            number => format!("{MOUNT_POINT}.{number}").into(),
        }
    }

    fn give_up(&mut self) {
        self.journal.push(format!("give up {}", self.mount_point().display()));
        self.given_up += 1;
    }

    fn network(&mut self) -> &mut dyn Net {
        &mut self.net
    }

    fn keys(&mut self) -> &mut dyn Keys {
        &mut self.keys
    }

    fn has_file(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }

    fn read_file(&mut self, path: &Path) -> anyhow::Result<Vec<u8>> {
        self.ask_kernel(path).map(String::into_bytes)
    }

    fn live_patches(&mut self) -> &mut dyn crate::livepatch::Kernel {
        &mut self.live
    }
}

/// A host that has what it is told to have.
#[derive(Clone, Debug, Default)]
pub struct FakeHost {
    /// The kernel's module indexes.
    pub index: Index,
    /// The chains of the devices that are there, by how they are asked for.
    pub chains: BTreeMap<String, Vec<String>>,
    /// The files that hooks read.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// The chains of its network cards, by name.
    pub cards: BTreeMap<String, Vec<String>>,
}

impl Host for FakeHost {
    fn index(&self) -> &Index {
        &self.index
    }

    fn device_chain(&self, device: &DeviceSpec) -> anyhow::Result<Option<Vec<String>>> {
        Ok(self.chains.get(&device.to_string()).cloned())
    }

    fn read(&self, path: &Path) -> anyhow::Result<Vec<u8>> {
        self.files.get(path).cloned().ok_or_else(|| anyhow!("cannot read {}", path.display()))
    }

    fn interface_chain(&self, name: &str) -> anyhow::Result<Option<Vec<String>>> {
        Ok(self.cards.get(name).cloned())
    }

    fn has_file(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }
}
