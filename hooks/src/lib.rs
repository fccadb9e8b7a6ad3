//! What an image can do: one module per capability, its two sides next to each other.
//!
//! # Nouns
//!
//! - **Hook**: one capability of an image. Its builder side answers *what goes into the image for it*
//!   ([`Hook::gather`]); its boot side does the work in the capture environment, at the stages that it names
//!   ([`Hook::stages`], [`Hook::act`]). A dump target is a hook that is opened and closed instead ([`TargetHook`]).
//! - **Settings**: what the configuration asks of the hooks; it travels from builder to init inside `image.toml`.
//! - **Target**: where a dump goes. A **destination** is an opened target.
//! - **Stage**: a step of the capture boot. **Moment**: how things stand when a hook acts at one.
//! - **Host**: what the builder knows of the machine that it builds for. **Machine**: what a hook may do to the machine
//!   that has just crashed. Both are traits; both have fakes ([`fake`]) that tests of any crate use.
//!
//! # Flow
//!
//! ```text
//!   builder:  Settings ─▶ hooks() ─▶ gather(host) ─▶ Contribution { modules, files, each with its reason }
//!   init:     Settings ─▶ hooks() ─▶ act(moment, machine) ─▶ Next: go on, or stop
//!             Settings ─▶ targets ─▶ open(machine) ─▶ Destination ─▶ close(machine)
//! ```
//!
//! # Where to look
//!
//! | module | is |
//! |---|---|
//! | [`filesystem`] | the hook for a dump target that is a local file system |
//! | [`storage`] | the hooks for what lies between a target and the disks: LVM, RAID, LUKS, multipath; and disks by iSCSI and NVMe over TCP |
//! | [`raw`] | the hook for a dump target that is a device without a file system; what is where on it |
//! | [`pstore`] | the hook for the last target of all: the firmware or the memory that keeps the log |
//! | [`virtiofs`] | the hook for a directory that the hypervisor shares |
//! | [`nfs`], [`cifs`] | the hooks for a dump target that is an NFS export, or a share of Samba or Windows |
//! | [`remote`] | the hook for a dump target that is sent to: SSH, SFTP, FTP |
//! | [`ssh_key`] | whether a private key, or a key of a host, can be used at all |
//! | [`net`] | the hook that brings a network up, for targets that need one |
//! | [`rootfs`] | `dump_to_rootfs`: the host's root file system as the last target |
//! | [`user`] | `kdump_pre`, `kdump_post`, `kdump_emergency` and their directories |
//! | [`shell`] | a shell on the console, when all else has failed |
//! | [`watchdog`] | the watchdog of the running system, kept alive while dumping |
//! | [`notify`] | a mail and a request that say that the machine has crashed |
//! | [`fence`] | fence_kdump messages: the cluster waits while the dump is taken |
//! | [`early_kdump`] | the hook that loads the capture kernel in a normal boot, before the system does |
//! | [`integrity`] | the hook for IMA and EVM: keys, certificates, the policy |
//! | [`modsign`] | certificates by which modules are trusted, besides the kernel's own |
//! | [`signatures`] | whether a kernel would accept a module, by who has signed it |
//! | [`sysctl`] | sysctl.conf and sysctl.d |
//! | [`kmod`] | what modprobe knows: indexes, modprobe.d, aliases, order of loading; both sides need it |
//! | [`kernel_image`] | a kernel's file: where it is, the kernel in it, and what is in a unified image besides |
//! | [`kernel`] | the few calls of the kernel that programs of several crates make |
//! | [`keys`] | the kernel's keyrings |
//! | [`calendar`] | dates |
//! | [`livepatch`] | live patches: kpatch's user space, and the hook that loads them in a normal boot |
//! | [`unpack`] | the decoders of what a kernel unpacks |
//! | [`newc`] | the header of an entry of an image |
//! | [`cmdline`] | the kernel command line |
//! | [`lock`] | one program of a kind at a time |
//! | [`reader`] | what is printed, to a reader who may go away |
//! | [`links`] | symbolic links below a root that is not `/` |
//! | [`fstab`] | what a system mounts where |
//! | [`device`] | how a configuration names a block device |
//! | [`mod@stage`], [`moment`] | the stages and their order; how things stand at one |
//!
//! A new capability is one module here and one line in [`Settings::hooks`] (and, for a target, one in [`Target`]).
//! PID 1 links this crate: nothing heavy that only the builder needs belongs here.

pub mod calendar;
pub mod cifs;
pub mod cmdline;
pub mod device;
pub mod early_kdump;
pub mod fake;
pub mod fence;
pub mod filesystem;
pub mod fstab;
pub mod host;
pub mod integrity;
pub mod kernel;
pub mod kernel_image;
pub mod keys;
pub mod kmod;
pub mod links;
pub mod livepatch;
pub mod lock;
pub mod machine;
pub mod modsign;
pub mod moment;
pub mod net;
pub mod newc;
pub mod nfs;
pub mod notify;
pub mod pstore;
pub mod raw;
pub mod reader;
pub mod remote;
pub mod rootfs;
pub mod shell;
pub mod signatures;
pub mod ssh_key;
pub mod stage;
pub mod storage;
pub mod sysctl;
pub mod unpack;
pub mod user;
pub mod virtiofs;
pub mod watchdog;

pub use device::DeviceSpec;
pub use host::{Contribution, FileNeed, Host, ModuleNeed, ProgramNeed};
pub use machine::{Ended, Machine, MountPlan, Program, Refused};
pub use moment::{Moment, Next, Outcome};
pub use stage::Stage;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One capability of an image.
pub trait Hook: fmt::Debug + Sync {
    /// The hook's name as logs and plans show it, such as `filesystem`.
    fn name(&self) -> &'static str;

    /// Builder side: what the image must hold for this capability on that host.
    ///
    /// # Errors
    /// What is missing on the host, and what to do about it. An image is not built with a hole in it.
    fn gather(&self, host: &dyn Host) -> anyhow::Result<Contribution>;

    /// What it puts together for other hooks, such as `/dev/mapper/secret`.
    fn makes(&self) -> Option<String> {
        None
    }

    /// The devices that it is made of, by the names that [`Hook::makes`] gives where another hook makes them. Once all of
    /// them have failed it has no use for acting.
    fn stands_on(&self) -> &[String] {
        &[]
    }

    /// Boot side: the stages at which it acts, before what the boot itself does there.
    fn stages(&self) -> &'static [Stage] {
        &[]
    }

    /// Boot side: what it does at one of its stages, and what is to follow.
    ///
    /// # Errors
    /// What could not be done. The log has it and `status.json` too; the boot goes on.
    fn act(&self, _moment: &Moment, _machine: &mut dyn Machine) -> anyhow::Result<Next> {
        Ok(Next::GoOn)
    }
}

/// A hook that is a place for dumps.
pub trait TargetHook: Hook {
    /// Makes the target ready for writing, waiting for its device at most `limit`.
    ///
    /// # Errors
    /// Why the target cannot be used; the next target is tried then.
    fn open(&self, machine: &mut dyn Machine, limit: Duration) -> anyhow::Result<Destination>;

    /// Puts everything written on stable storage and lets go of the target.
    ///
    /// # Errors
    /// Why the data may not be safe.
    fn close(&self, machine: &mut dyn Machine) -> anyhow::Result<()>;

    /// The address under which an opened target sees this machine: dumps are named after it. `None` if the target is on
    /// this machine.
    fn client(&self, _machine: &mut dyn Machine) -> Option<IpAddr> {
        None
    }

    /// The directory of all dumps in it, if it is not the one that is configured for all targets.
    fn path(&self) -> Option<&Path> {
        None
    }

    /// Whether it is tried only after everything that belongs to a failure has been done.
    fn is_last_resort(&self) -> bool {
        false
    }
}

/// An opened target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Files are created below this directory, the root of the target.
    Directory(PathBuf),
    /// Bytes are written to this device, as [`raw::layout`] says.
    Device {
        /// Its node.
        node: PathBuf,
        /// Whether a file system on it is overwritten.
        force: bool,
    },
    /// The end of the kernel log, which the kernel itself keeps for the next boot when this one ends.
    Pstore {
        /// Who keeps it, by the kernel's name for it.
        backend: String,
        /// How much of the log it asks for at most.
        bytes: u64,
    },
    /// Files are given to this program, the words of its command line but for its verb.
    Sender(Vec<String>),
}

/// Where a dump goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Target {
    /// A file system on a local block device.
    Filesystem(filesystem::Filesystem),
    /// A device without a file system.
    Raw(raw::Raw),
    /// A directory that the hypervisor shares.
    Virtiofs(virtiofs::Virtiofs),
    /// An NFS export.
    Nfs(nfs::Nfs),
    /// A share of Samba or Windows.
    Cifs(cifs::Cifs),
    /// A directory on another machine, which is sent to.
    Remote(remote::Remote),
    /// The host's root file system, when all other targets have failed.
    Rootfs(rootfs::Rootfs),
    /// What keeps the end of the log over a reboot, when all other targets have failed.
    Pstore(pstore::Pstore),
}

impl Target {
    /// The block device that it is on, if it is on one.
    pub fn device(&self) -> Option<&DeviceSpec> {
        match self {
            Target::Filesystem(filesystem) => Some(&filesystem.device),
            Target::Raw(raw) => Some(&raw.device),
            Target::Rootfs(rootfs) => Some(&rootfs.filesystem.device),
            Target::Virtiofs(_) | Target::Nfs(_) | Target::Cifs(_) | Target::Remote(_) | Target::Pstore(_) => None,
        }
    }

    /// The server that it is on, if it is on one, and the place for what its name means when the image is built.
    pub fn server(&mut self) -> Option<(&str, &mut Option<IpAddr>)> {
        match self {
            Target::Nfs(nfs) => Some((&nfs.server, &mut nfs.address)),
            Target::Cifs(cifs) => Some((&cifs.server, &mut cifs.address)),
            Target::Remote(remote) => Some((&remote.server, &mut remote.address)),
            Target::Filesystem(_) | Target::Rootfs(_) | Target::Virtiofs(_) | Target::Raw(_) | Target::Pstore(_) => {
                None
            }
        }
    }

    /// The hook that serves this target.
    pub fn hook(&self) -> &dyn TargetHook {
        match self {
            Target::Filesystem(filesystem) => filesystem,
            Target::Raw(raw) => raw,
            Target::Virtiofs(share) => share,
            Target::Nfs(nfs) => nfs,
            Target::Cifs(cifs) => cifs,
            Target::Remote(remote) => remote,
            Target::Rootfs(rootfs) => rootfs,
            Target::Pstore(pstore) => pstore,
        }
    }
}

/// `ext4 LABEL=crash`: as kdump.conf writes it.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Filesystem(filesystem) => filesystem.fmt(f),
            Target::Raw(raw) => raw.fmt(f),
            Target::Virtiofs(share) => share.fmt(f),
            Target::Nfs(nfs) => nfs.fmt(f),
            Target::Cifs(cifs) => cifs.fmt(f),
            Target::Remote(remote) => remote.fmt(f),
            Target::Rootfs(rootfs) => rootfs.fmt(f),
            Target::Pstore(pstore) => pstore.fmt(f),
        }
    }
}

/// What the configuration asks of the hooks. Part of the image configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Dump targets in the order in which they are tried.
    pub targets: Vec<Target>,
    /// The directory of all dumps in a target, by the target's name, where it is not the one that is configured for all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub paths: BTreeMap<String, PathBuf>,
    /// What must not be loaded.
    #[serde(default)]
    pub modules: kmod::Settings,
    /// What is put together before the targets are looked for, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub storage: Vec<storage::Layer>,
    /// What is put together once the network is up: disks of other machines, and the layers above them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network_storage: Vec<storage::OverNetwork>,
    /// The network, if something needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<net::Network>,
    /// The administrator's programs.
    #[serde(default, skip_serializing_if = "user::User::is_empty")]
    pub user: user::User,
    /// A shell, if the failure action is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<shell::Shell>,
    /// The watchdog that was at work when the image was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<watchdog::Watchdog>,
    /// Nodes of a cluster that are told that a dump is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<fence::Fence>,
    /// Who is told of the dump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<notify::Notify>,
    /// The capture kernel that a normal boot loads early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_kdump: Option<early_kdump::EarlyKdump>,
    /// Keys and policy of IMA and EVM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrity: Option<integrity::Integrity>,
    /// Certificates by which modules are trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modsign: Option<modsign::Modsign>,
    /// Live patches, which a normal boot loads before its drivers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub livepatch: Option<livepatch::AtBoot>,
}

impl Settings {
    /// The directory of all dumps in that target, if it has one of its own.
    pub fn path_of(&self, target: &Target) -> Option<&Path> {
        self.paths.get(&target.to_string()).map(PathBuf::as_path)
    }

    /// The hooks that these settings call for.
    pub fn hooks(&self) -> Vec<&dyn Hook> {
        let network = self.network.iter().map(|network| network as &dyn Hook);
        let storage = self.storage.iter().map(storage::Layer::hook);
        let network_storage = self.network_storage.iter().map(|layer| layer as &dyn Hook);
        let targets = self.targets.iter().map(|target| target.hook() as &dyn Hook);
        let user = (!self.user.is_empty()).then_some(&self.user as &dyn Hook);
        let shell = self.shell.as_ref().map(|shell| shell as &dyn Hook);
        let watchdog = self.watchdog.as_ref().map(|watchdog| watchdog as &dyn Hook);
        let fence = self.fence.as_ref().map(|fence| fence as &dyn Hook);
        let notify = self.notify.as_ref().map(|notify| notify as &dyn Hook);
        let early_kdump = self.early_kdump.as_ref().map(|early| early as &dyn Hook);
        let integrity = self.integrity.as_ref().map(|integrity| integrity as &dyn Hook);
        let modsign = self.modsign.as_ref().map(|modsign| modsign as &dyn Hook);
        let livepatch = self.livepatch.as_ref().map(|patches| patches as &dyn Hook);
        // Early kdump before all: whatever crashes after it is dumped. A live patch may be signed by one of modsign's keys.
        let first = early_kdump.into_iter().chain(modsign).chain(livepatch);
        // The watchdog: its time runs. The fence after whatever brings up the network.
        let ways = first.chain(watchdog).chain(storage).chain(network).chain(network_storage);
        ways.chain(targets).chain(user).chain(shell).chain(fence).chain(notify).chain(integrity).collect()
    }
}
