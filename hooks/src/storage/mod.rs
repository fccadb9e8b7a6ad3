//! What lies between a target and the disks: LVM, RAID, encryption, several paths; and disks of other machines.
//!
//! In: the [`Layer`]s of a target, lowest first, as the builder found them on the host. *Into the image*: the
//! distribution's own tool for each, with its libraries, and the kernel's part of it. *At boot*: once the drivers are
//! loaded, each layer waits for the devices that it is made of and has its tool put them together; what appears is what
//! the next layer, or the target, waits for.
//!
//! A layer that stands on nothing but layers that have failed fails at once, for their reason; where one of several has
//! failed, it waits for the missing one no longer than an array does.
//!
//! A disk of another machine ([`Iscsi`], [`NvmeTcp`]) is there only after the network. It, and what lies above it, is
//! [`OverNetwork`] and acts at a stage of its own, [`Stage::Storage`].
//!
//! May surprise: there is no udev, so the tools are told to make their nodes themselves. Nothing is taken apart at the
//! end: the target's flush goes through all layers to the disks.

mod crypt;
pub mod iscsi;
mod lvm;
mod mdraid;
mod multipath;
mod nvme_tcp;

pub use crypt::{Crypt, Key};
pub use iscsi::Iscsi;
pub use lvm::{Lvm, Segment};
pub use mdraid::Mdraid;
pub use multipath::{Multipath, Part};
pub use nvme_tcp::NvmeTcp;

use crate::host::{Contribution, Host, ModuleNeed, ProgramNeed};
use crate::machine::{Machine, Program};
use crate::{Hook, Moment, Next, Stage};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;

/// One layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "layer", rename_all = "snake_case")]
pub enum Layer {
    /// An array of the md driver.
    Mdraid(Mdraid),
    /// A LUKS volume.
    Crypt(Crypt),
    /// A logical volume.
    Lvm(Lvm),
    /// Several paths to one disk.
    Multipath(Multipath),
    /// A session with an iSCSI target.
    Iscsi(Iscsi),
    /// A path to an NVMe subsystem, by TCP.
    NvmeTcp(NvmeTcp),
}

impl Layer {
    /// The hook that puts it together.
    pub fn hook(&self) -> &dyn Hook {
        match self {
            Layer::Mdraid(layer) => layer,
            Layer::Crypt(layer) => layer,
            Layer::Lvm(layer) => layer,
            Layer::Multipath(layer) => layer,
            Layer::Iscsi(layer) => layer,
            Layer::NvmeTcp(layer) => layer,
        }
    }

    /// The machine that it is on, if it is on another one.
    pub fn server(&self) -> Option<IpAddr> {
        match self {
            Layer::Iscsi(layer) => Some(layer.address),
            Layer::NvmeTcp(layer) => Some(layer.address),
            Layer::Mdraid(_) | Layer::Crypt(_) | Layer::Lvm(_) | Layer::Multipath(_) => None,
        }
    }
}

/// A disk of another machine, or a layer that may be on one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OverNetwork(pub Layer);

impl Hook for OverNetwork {
    fn name(&self) -> &'static str {
        self.0.hook().name()
    }

    fn gather(&self, host: &dyn Host) -> anyhow::Result<Contribution> {
        self.0.hook().gather(host)
    }

    fn makes(&self) -> Option<String> {
        self.0.hook().makes()
    }

    fn stands_on(&self) -> &[String] {
        self.0.hook().stands_on()
    }

    fn stages(&self) -> &'static [Stage] {
        OVER_NETWORK
    }

    fn act(&self, moment: &Moment, machine: &mut dyn Machine) -> anyhow::Result<Next> {
        self.0.hook().act(moment, machine)
    }
}

/// When layers act: the drivers of the disks are loaded by then.
const STAGES: &[Stage] = &[Stage::Devices];

/// When they do so that need the network.
const OVER_NETWORK: &[Stage] = &[Stage::Storage];

/// How long a tool may take once its devices are there.
const TOOL: Duration = Duration::from_secs(60);

/// What tells libdevmapper, LVM and mdadm that nobody else makes their nodes.
const WITHOUT_UDEV: [(&str, &str); 3] =
    [("DM_DISABLE_UDEV", "1"), ("MDADM_NO_UDEV", "1"), ("LVM_SUPPRESS_FD_WARNINGS", "1")];

/// Runs a tool of the image; it must end well.
fn run(machine: &mut dyn Machine, argv: &[&str]) -> anyhow::Result<()> {
    let env = WITHOUT_UDEV.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let program = Program { env, ..Program::new(argv, TOOL) };
    machine.run(&program)?.well(argv.first().unwrap_or(&"the tool"))
}

/// Loads a module that may be built in, or not be needed.
fn load(machine: &mut dyn Machine, module: &str) {
    if let Err(error) = machine.load_module(module) {
        log::debug!("{error:#}");
    }
}

/// A tool that distributions have in one of two directories.
fn tool(name: &str, reason: &str) -> ProgramNeed {
    let paths = ["/usr/sbin", "/sbin"].map(|dir| format!("{dir}/{name}").into());
    ProgramNeed { paths: paths.into(), reason: reason.to_owned(), required: true }
}

fn module(request: &str, reason: &str, required: bool) -> ModuleNeed {
    ModuleNeed { request: request.to_owned(), reason: reason.to_owned(), required, by_device: false }
}
