//! What is done about a dump: where it goes, what writes it, what follows.

use super::collector::Collector;
use super::{Given, Image, Origin, Rebuild, fence};
use anyhow::bail;
use kdump_hooks::DeviceSpec;
use kdump_hooks::cifs::Cifs;
use kdump_hooks::nfs::Nfs;
use kdump_hooks::notify::Notify;
use kdump_hooks::remote::Remote;
use kdump_init::config::{Ending, FailureAction, Limits, Measure};
use std::path::{Path, PathBuf};

/// What `kdump.conf` asks for, or another dialect in its place.
#[derive(Clone, Debug)]
pub struct KdumpConf {
    /// The directory of all dumps. Relative to the target if there is one, else a path of this host.
    pub path: Given<PathBuf>,
    /// Where the dump goes to, in the order in which it is tried.
    pub targets: Vec<Given<Wanted>>,
    /// `raw_force yes`, a word of ours: whatever is on the raw device is overwritten.
    pub raw_force: Option<Given<bool>>,
    /// What is done where there is too little room, if not everything that can be.
    pub when_short: Option<Given<Vec<Measure>>>,
    /// The private key for a target by SSH.
    pub sshkey: Option<Given<PathBuf>>,
    /// The program that writes the dump.
    pub collector: Given<Collector>,
    /// After anything but a complete dump.
    pub failure_action: Given<OnFailure>,
    /// After a complete dump.
    pub final_action: Given<Ending>,
    /// Run before the dump; its exit status can call it off.
    pub kdump_pre: Option<Given<PathBuf>>,
    /// Run after the dump; its exit status can call it failed.
    pub kdump_post: Option<Given<PathBuf>>,
    /// Run when there is no complete dump.
    pub kdump_emergency: Option<Given<PathBuf>>,
    /// Nodes of a cluster that are told that a dump is taken.
    pub fence_nodes: Option<Given<Vec<String>>>,
    /// How they are told.
    pub fence_args: Option<Given<fence::Options>>,
    /// Modules that must not be loaded for anybody, and stay out of the image. A word of ours.
    pub forbid_modules: Vec<Given<String>>,
    /// Modules that must be in the image.
    pub extra_modules: Vec<Given<String>>,
    /// Programs and files that must be in the image.
    pub extra_bins: Vec<Given<PathBuf>>,
    /// What else is in the image.
    pub image: Image,
    /// When the image is built again, if not whenever it has to be.
    pub rebuild: Option<Given<Rebuild>>,
    /// Whether a new default of `crashkernel=` takes the place of what is on the kernel command line.
    pub auto_reset_crashkernel: Option<Given<bool>>,
    /// How long things may take.
    pub limits: Given<Limits>,
    /// Who is told of a dump.
    pub notify: Option<Given<Notify>>,
}

impl Default for KdumpConf {
    fn default() -> KdumpConf {
        KdumpConf {
            path: Given::default("/var/crash".into()),
            targets: Vec::new(),
            raw_force: None,
            when_short: None,
            sshkey: None,
            collector: Given::default(Collector::default()),
            failure_action: Given::default(OnFailure::Action(Ending::Reboot.into())),
            final_action: Given::default(Ending::Reboot),
            kdump_pre: None,
            kdump_post: None,
            kdump_emergency: None,
            fence_nodes: None,
            fence_args: None,
            extra_modules: Vec::new(),
            extra_bins: Vec::new(),
            forbid_modules: Vec::new(),
            image: Image::default(),
            rebuild: None,
            auto_reset_crashkernel: None,
            limits: Given::default(Limits::default()),
            notify: None,
        }
    }
}

impl KdumpConf {
    /// Whether one of the targets is a raw device.
    pub fn is_raw(&self) -> bool {
        self.targets.iter().any(|target| matches!(target.value.line, TargetLine::Raw(_)))
    }

    /// The files of the host with secrets in them that the image holds.
    pub fn secrets(&self) -> impl Iterator<Item = &Path> {
        let targets = self.targets.iter().filter_map(|target| match &target.value.line {
            TargetLine::Cifs(cifs) => cifs.credentials.as_deref().filter(|_| cifs.given.is_none()),
            TargetLine::Remote(remote) => remote.login.password_file.as_deref(),
            _ => None,
        });
        let mail = self.notify.iter().filter_map(|notify| notify.value.mail.as_ref()?.credentials.as_deref());
        targets.chain(mail)
    }

    /// Where something says already where dumps go.
    pub(super) fn place_said(&self) -> Option<&Origin> {
        let target = self.targets.first().map(|given| &given.origin);
        target.or(Some(&self.path.origin).filter(|origin| **origin != Origin::Default))
    }

    /// A target behind those that are there.
    ///
    /// # Errors
    /// It is there already, or one that has to be the last is.
    pub(super) fn add_target(&mut self, target: Given<Wanted>) -> anyhow::Result<()> {
        if let Some(first) = self.targets.iter().find(|first| first.value.line == target.value.line) {
            bail!("this is the target of {} once more; keep one of the two", first.origin);
        }
        self.targets.push(target);
        Ok(())
    }
}

/// A target that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What and where it is.
    pub line: TargetLine,
    /// The directory of all dumps in it, if it has one of its own.
    pub path: Option<PathBuf>,
    /// Mount options.
    pub options: Vec<String>,
}

impl From<TargetLine> for Wanted {
    fn from(line: TargetLine) -> Wanted {
        Wanted { line, path: None, options: Vec::new() }
    }
}

/// What `failure_action` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// The capture kernel does this.
    Action(FailureAction),
    /// A dump to the root file system of this host; then the final action.
    DumpToRootfs,
}

/// A target directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetLine {
    /// A file system on a block device, such as `ext4 LABEL=crash`.
    Filesystem {
        /// The file system's type.
        fstype: String,
        /// The device.
        device: DeviceSpec,
    },
    /// `virtiofs TAG`.
    Virtiofs(String),
    /// `raw DEVICE`.
    Raw(DeviceSpec),
    /// An export, such as `nfs nas:/srv/crash`.
    Nfs(Nfs),
    /// A share of Samba or Windows.
    Cifs(Cifs),
    /// A machine that is sent to, such as `ssh dump@nas`; its path is the directive of that name.
    Remote(Remote),
    /// What keeps the end of the log over a reboot; kdump.conf has no word for it.
    Pstore,
}
