//! The image configuration: what the builder tells init, in `/etc/kdump/image.toml`.
//!
//! This is the one place that types it; both sides use it, so they cannot drift. An unknown version or field is an
//! error that is shown, never a guess. Secrets are separate files.
//!
//! ```toml
//! version = 1
//! kernel_release = "6.1.0-18-amd64"
//! built_by = "kdump-rs 0.1.0"
//!
//! [dump]
//! path = "/var/crash"
//! collector = ["kdump-capture", "-z", "-d", "31"]
//! keep = 3
//! free = 67108864
//! when_short = ["remove", "level", "codec", "incomplete"]
//!
//! [endings]
//! failure_action = "reboot"
//! final_action = "reboot"
//! shell_first = false
//!
//! [limits]
//! device = 90
//! stall = 120
//! stage = 300
//! driver = 30
//!
//! [hooks.modules]
//! forbid = ["floppy"]
//!
//! [[hooks.targets]]
//! kind = "filesystem"
//! fstype = "ext4"
//! device = "LABEL=crash"
//!
//! [[hooks.storage]]
//! layer = "crypt"
//! name = "secret"
//! device = "UUID=6b64756d-7072-7364-8969-736b00000001"
//! key = { file = { path = "/root/key" } }
//! on = ["/dev/sdb"]
//!
//! [[hooks.storage]]
//! layer = "lvm"
//! group = "vg"
//! volume = "crash"
//! physical = ["UUID=AbCdEf-0123-4567-89ab-cdef-GHIJ-KLMNOP"]
//! on = ["/dev/mapper/secret"]
//!
//! [[hooks.targets]]
//! kind = "nfs"
//! server = "nas.example"
//! export = "/srv/crash"
//! address = "10.0.2.7"
//! options = ["vers=4.2"]
//!
//! [[hooks.targets]]
//! kind = "raw"
//! device = "PARTUUID=6b64756d-01"
//! force = true
//!
//! [[hooks.network.interfaces]]
//! name = "eno1"
//! acquire = ["dhcp"]
//!
//! [hooks.network.names]
//! eno1 = "52:54:00:12:34:56"
//!
//! [[hooks.network_storage]]
//! layer = "iscsi"
//! target = "iqn.2026-01.example:crash"
//! address = "10.0.2.7"
//! port = 3260
//! group = 1
//! initiator = "iqn.2026-01.example:host"
//! interface = "default"
//! session = "session1"
//!
//! [[hooks.network_storage]]
//! layer = "nvme_tcp"
//! subsystem = "nqn.2026-01.example:crash"
//! address = "10.0.2.7"
//! port = 4420
//! host = "nqn.2026-01.example:host"
//!
//! [[hooks.targets]]
//! kind = "cifs"
//! server = "files.example"
//! share = "crash"
//! credentials = "/etc/kdump/files.credentials"
//! options = ["vers=3.1.1"]
//!
//! [hooks.paths]
//! "cifs //files.example/crash" = "/web1"
//!
//! [[hooks.targets]]
//! kind = "rootfs"
//! path = "/var/crash"
//! filesystem = { fstype = "ext4", device = "UUID=0b5c2ff4-8d7f-4a4e-9d0c-1f2a3b4c5d6e" }
//!
//! [[hooks.user.pre]]
//! argv = ["/usr/local/sbin/before-the-dump"]
//! named_by = "/etc/kdump.conf:7: kdump_pre"
//! decides = true
//!
//! [hooks.watchdog]
//! drivers = ["pci:v00008086d000025AB*", "i6300esb"]
//!
//! [hooks.fence]
//! nodes = ["192.0.2.7"]
//! port = 7410
//! interval = 10
//! count = 0
//!
//! [hooks.integrity]
//! master = { kind = "user", path = "/etc/keys/kmk-user.blob" }
//! evm_key = "/etc/keys/evm-trusted.blob"
//! ima_certificates = ["/etc/keys/ima/company.der"]
//! policy = "/etc/sysconfig/ima-policy"
//!
//! [hooks.modsign]
//! certificates = ["/etc/keys/modsign/company.der"]
//!
//! [hooks.notify]
//! host = "web1"
//! webhook = "http://monitor.example:8080/kdump"
//! mail = { host = "mail.example", port = 25, tls = "starttls", from = "root@web1", to = ["root@example.com"] }
//! ```
//!
//! Layers of storage stand in the order in which they are put together; `mdraid` and `multipath` are the others. Those
//! that need the network, and all above them, stand in `network_storage`.
//!
//! An image that also, or only, boots a system has a section for that. Each of its fields may be missing: the kernel
//! command line says the same things (`root=`, `rootfstype=`, `rootflags=`) and wins.
//!
//! ```toml
//! [normal]
//! root = "UUID=6b64756d-7072-7364-8969-736b00000001"
//! rootfstype = "ext4"
//! rootflags = "noatime"
//! ```
//!
//! A root on a server has `export`, a table as a target of kind `nfs` is one, in place of `root`. With an empty table
//! `[hooks.livepatch]` the live patches at the end of the image are loaded before the drivers.

use anyhow::{Context, bail};
use kdump_hooks::cmdline::Cmdline;
use kdump_hooks::nfs::Nfs;
use kdump_hooks::{DeviceSpec, Settings};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Where the image configuration is in an image.
pub const PATH: &str = "/etc/kdump/image.toml";

/// The version of this contract.
pub const VERSION: u32 = 1;

/// What the builder tells init.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageConfig {
    /// [`VERSION`] of the builder.
    pub version: u32,
    /// The kernel whose modules are in the image, as `uname -r` prints it.
    pub kernel_release: String,
    /// The program that made the image, with its version.
    pub built_by: String,
    /// What is collected, and how it is named.
    pub dump: Dump,
    /// How it ends.
    pub endings: Endings,
    /// How long things may take.
    pub limits: Limits,
    /// What a normal boot needs to know; an image without it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normal: Option<Normal>,
    /// What the hooks are asked for.
    pub hooks: Settings,
}

/// What the builder saw of the system that is to be booted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normal {
    /// The device of its root file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<DeviceSpec>,
    /// The export that it is, if it is on no device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<Nfs>,
    /// Its type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootfstype: Option<String>,
    /// How it is mounted, as fstab writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootflags: Option<String>,
}

/// What is collected, and how it is named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dump {
    /// The directory of all dumps, relative to the root of the target.
    pub path: PathBuf,
    /// The collector and its arguments. `/proc/vmcore` and the dump's file name are put behind them.
    pub collector: Vec<String>,
    /// The log is all that is saved: no pages.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub log_only: bool,
    /// How many complete dumps stay on a disk of this machine, the new one among them; all, if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<NonZeroU32>,
    /// Bytes of the target that a dump leaves free.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub free: u64,
    /// What is done where there is too little room, in this order; with nothing left to do the target has failed.
    #[serde(default = "Measure::all")]
    pub when_short: Vec<Measure>,
}

impl Dump {
    /// A dump into `path` with `collector`, of which all stay.
    pub fn new(path: PathBuf, collector: Vec<String>) -> Dump {
        Dump { path, collector, log_only: false, keep: None, free: 0, when_short: Measure::all() }
    }
}

/// What can be done where there is too little room for a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// Old dumps go that would go anyway, once the new one is complete: those that `keep` does not keep. As many as
    /// needed, oldest first, and never the newest complete one.
    Remove,
    /// More kinds of pages are left out: those of zeros, free ones, cache, private cache, and user memory, until it fits.
    Level,
    /// Pages are packed by zstd, then by zstd that tries harder.
    Codec,
    /// What fits is written, the most useful pages first (an ELF dump: in the order of memory), with what the measures
    /// before this one have changed: after `level` no room goes to pages of zeros, caches, user memory or free ones.
    Incomplete,
}

impl Measure {
    /// All, in the order that costs the dump least.
    pub fn all() -> Vec<Measure> {
        vec![Measure::Remove, Measure::Level, Measure::Codec, Measure::Incomplete]
    }
}

/// As serde wants it.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endings {
    /// After anything but a complete dump.
    pub failure_action: FailureAction,
    /// After a complete dump, when a shell is left, and when `kdump_pre` wants no dump.
    pub final_action: Ending,
    /// After a complete dump, and when none is wanted, a shell comes before the final action.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shell_first: bool,
}

impl Endings {
    /// What follows where nothing has failed.
    pub fn after_dump(&self) -> FailureAction {
        if self.shell_first { FailureAction::Shell } else { self.final_action.into() }
    }
}

/// What follows a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureAction {
    /// A shell on every console, and the final action when it is left. It waits for as long as nobody comes.
    Shell,
    /// The machine ends.
    #[serde(untagged)]
    End(Ending),
}

impl fmt::Display for FailureAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FailureAction::Shell => f.write_str("shell"),
            FailureAction::End(ending) => ending.fmt(f),
        }
    }
}

impl From<Ending> for FailureAction {
    fn from(ending: Ending) -> FailureAction {
        FailureAction::End(ending)
    }
}

/// The last thing that the capture kernel does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// Restart the machine.
    Reboot,
    /// Stop the processors, power stays on.
    Halt,
    /// Switch the power off.
    Poweroff,
}

impl Ending {
    /// The word that configurations use.
    pub fn name(self) -> &'static str {
        match self {
            Ending::Reboot => "reboot",
            Ending::Halt => "halt",
            Ending::Poweroff => "poweroff",
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Ending {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        [Ending::Reboot, Ending::Halt, Ending::Poweroff]
            .into_iter()
            .find(|ending| ending.name() == word)
            .ok_or_else(|| format!("`{word}` is not an ending; write reboot, halt or poweroff"))
    }
}

/// How long things may take, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Until the target's device is there. `rd.timeout=` on the kernel command line overrides it.
    pub device: u64,
    /// The collector may write nothing for that long before it counts as stuck. `rd.kdump.stall=` overrides it.
    pub stall: u64,
    /// For any other stage.
    pub stage: u64,
    /// For a driver to start; then the others go on without it. `rd.kdump.driver=` overrides it.
    pub driver: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { device: 90, stall: 120, stage: 300, driver: 30 }
    }
}

impl Limits {
    /// Takes the limits that the kernel command line sets: from one second to a day. 0, which is for ever elsewhere, is
    /// a day: nothing here waits for ever.
    pub fn follow(&mut self, cmdline: &Cmdline) {
        const DAY: u64 = 86_400;
        let seconds = |name| cmdline.last(name).and_then(|value| value.parse::<u64>().ok());
        let limit = |seconds: u64| if seconds == 0 { DAY } else { seconds.min(DAY) };
        self.device = seconds("rd.timeout").map_or(self.device, limit);
        self.stall = seconds("rd.kdump.stall").map_or(self.stall, limit);
        self.driver = seconds("rd.kdump.driver").map_or(self.driver, limit);
    }

    /// The limit for the target's device.
    pub fn device(&self) -> Duration {
        Duration::from_secs(self.device)
    }

    /// The longest silence of the collector.
    pub fn stall(&self) -> Duration {
        Duration::from_secs(self.stall)
    }

    /// The limit for the start of a driver.
    pub fn driver(&self) -> Duration {
        Duration::from_secs(self.driver)
    }

    /// The limit of an ordinary stage.
    pub fn stage(&self) -> Duration {
        Duration::from_secs(self.stage)
    }
}

impl ImageConfig {
    /// Reads the configuration at `path`.
    ///
    /// # Errors
    /// The file cannot be read, is of another version, or has a field that this version does not know.
    pub fn read(path: &Path) -> anyhow::Result<ImageConfig> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the image configuration {}", path.display()))?;
        ImageConfig::parse(&text).with_context(|| {
            format!("cannot use the image configuration {}; rebuild the image with mkdumprd", path.display())
        })
    }

    /// Parses a configuration.
    ///
    /// # Errors
    /// As [`ImageConfig::read`].
    pub fn parse(text: &str) -> anyhow::Result<ImageConfig> {
        #[derive(Deserialize)]
        struct OnlyVersion {
            version: u32,
        }
        let OnlyVersion { version } = toml::from_str(text)?;
        if version != VERSION {
            bail!("it is of version {version}, this init knows version {VERSION}");
        }
        Ok(toml::from_str(text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kdump_hooks::livepatch::AtBoot;

    fn example() -> ImageConfig {
        ImageConfig::parse(&kdump_hooks::fake::example(include_str!("config.rs"))).unwrap()
    }

    #[test]
    fn the_example_of_the_documentation_is_a_configuration() {
        let hooks = example().hooks;
        assert_eq!(hooks.targets[0].to_string(), "ext4 LABEL=crash");
        let names: Vec<_> = hooks.hooks().iter().map(|hook| hook.name()).collect();
        let first = ["modsign", "watchdog", "crypt", "lvm", "net", "iscsi", "nvme_tcp"];
        let targets = ["filesystem", "nfs", "raw", "cifs", "rootfs"];
        let rest = ["user", "fence", "notify", "integrity"];
        assert_eq!(names, [&first[..], &targets, &rest].concat());
    }

    #[test]
    fn what_is_written_is_read_back() {
        let config = example();
        assert_eq!(ImageConfig::parse(&toml::to_string(&config).unwrap()).unwrap(), config);
        let normal = Normal {
            root: Some(DeviceSpec::Label("root".into())),
            rootfstype: Some("xfs".into()),
            rootflags: Some("noatime".into()),
            export: Some("nas:/srv/root".parse().unwrap()),
        };
        let mut config = ImageConfig { normal: Some(normal), ..config };
        config.hooks.livepatch = Some(AtBoot {});
        assert_eq!(ImageConfig::parse(&toml::to_string(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn the_kernel_command_line_overrides_limits_within_reason() {
        let mut limits = Limits::default();
        limits.follow(&Cmdline::parse("quiet rd.timeout=7 rd.kdump.stall=soon rd.kdump.driver=9"));
        assert_eq!(limits, Limits { device: 7, driver: 9, ..Limits::default() });
        limits.follow(&Cmdline::parse("rd.timeout=18446744073709551615 rd.kdump.stall=0"));
        assert_eq!(limits, Limits { device: 86_400, stall: 86_400, driver: 9, ..Limits::default() });
    }

    #[test]
    fn a_shell_or_any_ending_can_follow_a_failure() {
        for action in [FailureAction::Shell, Ending::Reboot.into(), Ending::Halt.into(), Ending::Poweroff.into()] {
            let mut config = example();
            config.endings.failure_action = action;
            let text = toml::to_string(&config).unwrap();
            assert!(text.contains(&format!("failure_action = \"{action}\"")), "{text}");
            assert_eq!(ImageConfig::parse(&text).unwrap(), config);
        }
        let text = toml::to_string(&example()).unwrap();
        assert!(ImageConfig::parse(&text.replace("final_action = \"reboot\"", "final_action = \"shell\"")).is_err());
    }

    #[test]
    fn another_version_and_an_unknown_field_are_refused() {
        let text = toml::to_string(&example()).unwrap();
        let newer = text.replace("version = 1", "version = 2\nsurprise = true");
        assert!(format!("{:#}", ImageConfig::parse(&newer).unwrap_err()).contains("version 2"));
        let unknown = text.replace("[dump]", "[dump]\nsurprise = true");
        assert!(format!("{:#}", ImageConfig::parse(&unknown).unwrap_err()).contains("surprise"));
    }
}
