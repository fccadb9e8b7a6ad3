//! `kdump.conf`, as RHEL writes it.
//!
//! One `name value` per line; a line whose first mark is `#` is skipped, a `#` inside a value starts a comment; one pair
//! of double quotes around the whole value is dropped. Every word that RHEL knows is known here too, if only to say
//! that this version cannot do it. `forbid_modules NAME…` is ours: these modules are not loaded for anybody, nor is what
//! cannot do without them, and none of them goes into the image.

use super::collector::Collector;
use super::{Given, Origin, Savedir, fence};
use anyhow::bail;
use kdump_hooks::DeviceSpec;
use kdump_hooks::cifs::Cifs;
use kdump_hooks::nfs::Nfs;
use kdump_hooks::notify::Notify;
use kdump_hooks::remote::{Protocol, Remote, is_host};
use kdump_init::config::{Ending, FailureAction, Limits, Measure};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// What `kdump.conf` asks for.
#[derive(Clone, Debug)]
pub struct KdumpConf {
    /// The directory of all dumps. Relative to the target if there is one, else a path of this host.
    pub path: Given<PathBuf>,
    /// Where the dump goes to, in the order in which it is tried.
    pub targets: Vec<Given<Wanted>>,
    /// `raw_force yes`, a word of ours: whatever is on the raw device is overwritten.
    pub raw_force: Option<Given<bool>>,
    /// What is done where there is too little room, if not everything that can be.
    pub when_short: Option<Vec<Measure>>,
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
    /// How long things may take.
    pub limits: Limits,
    /// Who is told of a dump.
    pub notify: Option<Notify>,
}

impl KdumpConf {
    /// The files of the host with secrets in them that the image holds.
    pub fn secrets(&self) -> impl Iterator<Item = &Path> {
        let targets = self.targets.iter().filter_map(|target| match &target.value.line {
            TargetLine::Cifs(cifs) => cifs.credentials.as_deref().filter(|_| cifs.given.is_none()),
            _ => None,
        });
        let mail = self.notify.iter().filter_map(|notify| notify.mail.as_ref()?.credentials.as_deref());
        let mail = mail.chain(self.notify.iter().filter_map(|notify| notify.authorities.as_deref()));
        targets.chain(mail)
    }
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
            limits: Limits::default(),
            notify: None,
        }
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

/// The directives that name a target on the network.
const NETWORK_TARGETS: [&str; 2] = ["nfs", "ssh"];

/// The directive that names a device without a file system.
const RAW: &str = "raw";

/// The directives that name a file system.
const FILESYSTEMS: [&str; 9] = ["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "vfat", "minix", "virtiofs"];

/// The other directives that are followed.
const FOLLOWED: [&str; 17] = [
    "path",
    RAW,
    "raw_force",
    "sshkey",
    "core_collector",
    "failure_action",
    "default",
    "final_action",
    "extra_modules",
    "forbid_modules",
    "extra_bins",
    "auto_reset_crashkernel",
    "kdump_pre",
    "kdump_post",
    "kdump_emergency",
    "fence_kdump_nodes",
    "fence_kdump_args",
];

/// What RHEL follows and this version does not, or no version does any more, and what to do instead.
const REFUSED: [(&str, &str); 10] = [
    ("force_rebuild", "is not supported by this version; run mkdumprd -f to build the image again"),
    ("force_no_rebuild", "is not supported by this version; kdumpctl start only builds what is missing or too old"),
    ("dracut_args", "is not supported: the image is not built by dracut; name a target, extra_modules or extra_bins"),
    ("net", "was removed from kdump.conf; this version needs a file system such as `ext4 UUID=…` in its place"),
    ("options", "was removed from kdump.conf; write a modprobe.d file with an `options` line instead"),
    ("link_delay", "was removed from kdump.conf; take the line out"),
    ("disk_timeout", "was removed from kdump.conf; put rd.timeout=SECONDS in KDUMP_COMMANDLINE_APPEND instead"),
    ("debug_mem_level", "was removed from kdump.conf; take the line out"),
    (
        "blacklist",
        "was removed from kdump.conf; write `forbid_modules MODULE`, or put rd.driver.blacklist=MODULE in KDUMP_COMMANDLINE_APPEND",
    ),
    ("override_resettable", "never had an effect; take the line out"),
];

const UNSUPPORTED_TARGET: &str = "is not supported by this version; write a file system instead, such as `ext4 UUID=…`";

impl KdumpConf {
    /// Parses the text of `file`.
    ///
    /// # Errors
    /// The first line that cannot be followed, as `FILE:LINE`, with the remedy.
    pub fn parse(text: &str, file: &Path, warnings: &mut Vec<String>) -> anyhow::Result<KdumpConf> {
        let mut conf = KdumpConf::default();
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let place = Origin::Line(file.to_owned(), index + 1);
            let key = match name {
                "default" => "failure_action",
                name if FILESYSTEMS.contains(&name) || NETWORK_TARGETS.contains(&name) || name == RAW => {
                    "a dump target"
                }
                name => name,
            };
            check_known(name, &place)?;
            let value = clean(value);
            if value.is_empty() {
                bail!("{place}: `{name}` has no value; give it one or take the line out");
            }
            if let Some(first) = seen.insert(key, index + 1) {
                match key {
                    "a dump target" => {
                        bail!("{place}: `{name}` is a second dump target, line {first} names the first; keep one")
                    }
                    _ => bail!("{place}: `{name}` repeats what line {first} says; keep one of the two"),
                }
            }
            conf.follow(name, value, &place, warnings).map_err(|error| error.context(format!("{place}: {name}")))?;
        }
        if let (Some(force), false) = (&conf.raw_force, conf.is_raw()) {
            warnings.push(format!("{}: raw_force has no effect without a raw target", force.origin));
        }
        if let (None, Some(args)) = (&conf.fence_nodes, &conf.fence_args) {
            warnings.push(format!("{}: fence_kdump_args has no effect without fence_kdump_nodes", args.origin));
        }
        Ok(conf)
    }

    /// Whether one of the targets is a raw device.
    pub fn is_raw(&self) -> bool {
        self.targets.iter().any(|target| matches!(target.value.line, TargetLine::Raw(_)))
    }

    fn follow(&mut self, name: &str, value: &str, place: &Origin, warnings: &mut Vec<String>) -> anyhow::Result<()> {
        match name {
            "path" => self.path = given(directory(value)?, place),
            "core_collector" => self.collector = given(Collector::parse(value)?, place),
            "failure_action" => self.failure_action = given(on_failure(value)?, place),
            "default" => {
                warnings.push(format!("{place}: `default` is the old name of `failure_action`; write that"));
                self.failure_action = given(on_failure(value)?, place);
            }
            "final_action" => self.final_action = given(value.parse().map_err(anyhow::Error::msg)?, place),
            "kdump_pre" => self.kdump_pre = Some(given(program(value)?, place)),
            "kdump_post" => self.kdump_post = Some(given(program(value)?, place)),
            "kdump_emergency" => self.kdump_emergency = Some(given(program(value)?, place)),
            "fence_kdump_nodes" => {
                self.fence_nodes = Some(given(value.split_whitespace().map(str::to_owned).collect(), place));
            }
            "fence_kdump_args" => self.fence_args = Some(given(fence::Options::parse(value)?, place)),
            "extra_modules" => {
                self.extra_modules = value.split_whitespace().map(|module| given(module.to_owned(), place)).collect();
            }
            "forbid_modules" => {
                self.forbid_modules = value.split_whitespace().map(|module| given(module.to_owned(), place)).collect();
            }
            "extra_bins" => {
                for path in value.split_whitespace() {
                    if !path.starts_with('/') || normal(path).is_none() {
                        bail!("`{path}` is not an absolute path; write it from / on");
                    }
                    self.extra_bins.push(given(path.into(), place));
                }
            }
            "auto_reset_crashkernel" => match value {
                "no" => {}
                _ => warnings.push(format!(
                    "{place}: crashkernel= is not reset by this version; write `auto_reset_crashkernel no`"
                )),
            },
            "virtiofs" => {
                self.targets = vec![given(TargetLine::Virtiofs(check_tag(value)?).into(), place)];
            }
            RAW => {
                self.targets = vec![given(TargetLine::Raw(raw_device(value)?).into(), place)];
            }
            "raw_force" => match value {
                "yes" => self.raw_force = Some(given(true, place)),
                "no" => self.raw_force = Some(given(false, place)),
                _ => bail!("`{value}` is neither yes nor no"),
            },
            "sshkey" => self.sshkey = Some(given(program(value)?, place)),
            "ssh" => self.targets = vec![given(TargetLine::Remote(ssh(value)?).into(), place)],
            "nfs" => {
                let export = value.parse().map_err(anyhow::Error::msg)?;
                self.targets = vec![given(TargetLine::Nfs(export).into(), place)];
            }
            fstype => {
                if !kdump_hooks::filesystem::Filesystem::is_known(fstype) {
                    bail!("{fstype} {UNSUPPORTED_TARGET}");
                }
                let device: DeviceSpec = value.parse().map_err(anyhow::Error::msg)?;
                if fstype == "minix" && !matches!(device, DeviceSpec::Path(_)) {
                    bail!("a minix file system has neither label nor UUID; write its device, such as /dev/sdb1");
                }
                let line = TargetLine::Filesystem { fstype: fstype.to_owned(), device };
                self.targets = vec![given(line.into(), place)];
            }
        }
        Ok(())
    }
}

impl KdumpConf {
    /// What SUSE says in one variable, if kdump.conf says nothing of it.
    ///
    /// # Errors
    /// It does.
    pub(super) fn follow_savedir(&mut self, savedir: &Given<Savedir>) -> anyhow::Result<()> {
        let target = self.targets.first().map(|given| &given.origin);
        let path = Some(&self.path.origin).filter(|origin| **origin != Origin::Default);
        if let Some(other) = target.or(path) {
            bail!(
                "{}: KDUMP_SAVEDIR says where dumps go, and {other} does so too; keep one of the two",
                savedir.origin
            );
        }
        self.path = given(savedir.value.path.clone(), &savedir.origin);
        self.targets =
            savedir.value.target.clone().map(|target| given(target.into(), &savedir.origin)).into_iter().collect();
        Ok(())
    }
}

/// `user@host`, as RHEL has it: an IPv6 address may stand without brackets.
fn ssh(value: &str) -> anyhow::Result<Remote> {
    let place = value.split_once('@').filter(|(user, _)| !user.is_empty() && !user.contains([' ', ':', '/']));
    let Some((user, host)) = place else { bail!("`{value}` is not USER@HOST; write such as `ssh dump@nas`") };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if !is_host(host) || (host.contains(':') && host.parse::<std::net::Ipv6Addr>().is_err()) {
        bail!("`{host}` is neither the name nor the address of a host");
    }
    Ok(Remote::new(Protocol::Ssh, Some(user), host, Path::new("/")))
}

fn given<T>(value: T, origin: &Origin) -> Given<T> {
    Given { value, origin: origin.clone() }
}

/// The value without its comment, its blanks and its quotes.
fn clean(value: &str) -> &str {
    let value = value.split('#').next().unwrap_or_default().trim();
    value.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(value)
}

fn check_known(name: &str, place: &Origin) -> anyhow::Result<()> {
    if [&FILESYSTEMS[..], &NETWORK_TARGETS, &FOLLOWED].iter().any(|words| words.contains(&name)) {
        return Ok(());
    }
    if let Some((_, what)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        bail!("{place}: `{name}` {what}");
    }
    let words = FILESYSTEMS
        .iter()
        .chain(&NETWORK_TARGETS)
        .chain(&FOLLOWED)
        .copied()
        .chain(REFUSED.iter().map(|(word, _)| *word));
    match words.map(|word| (distance(word, name), word)).min().filter(|(far, _)| *far <= 3) {
        Some((_, near)) => bail!("{place}: there is no directive `{name}`; was `{near}` meant?"),
        None => bail!("{place}: there is no directive `{name}`; take the line out or put a # in front of it"),
    }
}

pub(super) fn on_failure(value: &str) -> anyhow::Result<OnFailure> {
    match value {
        "shell" => Ok(OnFailure::Action(FailureAction::Shell)),
        "dump_to_rootfs" => Ok(OnFailure::DumpToRootfs),
        _ => match value.parse::<Ending>() {
            Ok(ending) => Ok(OnFailure::Action(ending.into())),
            Err(_) => bail!("`{value}` is none; write reboot, halt, poweroff, shell or dump_to_rootfs"),
        },
    }
}

/// A device whose content does not matter.
pub(super) fn raw_device(value: &str) -> anyhow::Result<DeviceSpec> {
    let device: DeviceSpec = value.parse().map_err(anyhow::Error::msg)?;
    if device.is_of_content() {
        bail!(
            "{device} is the name of what is on a device, and that will be overwritten; write its partition's \
             PARTUUID=…, or its node below /dev"
        );
    }
    Ok(device)
}

/// The name of a share.
pub(super) fn check_tag(value: &str) -> anyhow::Result<String> {
    match value.contains(char::is_whitespace) || value.contains('/') {
        true => bail!("`{value}` is not the tag of a share; write the tag that the hypervisor offers"),
        false => Ok(value.to_owned()),
    }
}

/// One executable; RHEL gives it no arguments either.
pub(super) fn program(value: &str) -> anyhow::Result<PathBuf> {
    if !value.starts_with('/') {
        bail!("`{value}` is not an absolute path; write it from / on");
    }
    normal(value).ok_or_else(|| anyhow::anyhow!("`{value}` has `..` in it; write the path without"))
}

/// An absolute directory without doubled slashes; a relative one is taken from the root of the target.
pub(super) fn directory(value: &str) -> anyhow::Result<PathBuf> {
    match normal(value) {
        Some(path) => Ok(path),
        None => bail!("`{value}` has `..` in it; write the directory without"),
    }
}

fn normal(path: &str) -> Option<PathBuf> {
    let mut whole = PathBuf::from("/");
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => whole.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(whole)
}

/// How many letters have to be changed, added or taken away to make one word the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for ((&y, pair), left) in b.iter().zip(row.windows(2)).zip(0..) {
            let (&diagonal, &up) = (pair.first().unwrap_or(&0), pair.get(1).unwrap_or(&0));
            let left = next.get(left).copied().unwrap_or(0);
            next.push((diagonal + usize::from(x != y)).min(up + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<(KdumpConf, Vec<String>)> {
        let mut warnings = Vec::new();
        KdumpConf::parse(text, Path::new("kdump.conf"), &mut warnings).map(|conf| (conf, warnings))
    }

    #[test]
    fn every_directive_finds_its_place() {
        let (conf, warnings) = parse(
            "# comment\n\n  path  /var//crash/ # here\next4 \"LABEL=crash\"\ncore_collector makedumpfile -l -d 31\n\
             failure_action halt\nfinal_action poweroff\nextra_modules e1000 nvme\nextra_bins /bin/a /bin/b\n",
        )
        .unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(conf.path.value, Path::new("/var/crash"));
        assert_eq!(conf.path.origin.to_string(), "kdump.conf:3");
        let ext4 = TargetLine::Filesystem { fstype: "ext4".into(), device: DeviceSpec::Label("crash".into()) };
        assert_eq!(conf.targets[0].value, ext4.into());
        assert_eq!(conf.collector.value.argv, ["kdump-capture", "-l", "-d", "31"]);
        assert_eq!(conf.failure_action.value, OnFailure::Action(Ending::Halt.into()));
        assert_eq!(conf.final_action.value, Ending::Poweroff);
        assert_eq!(conf.extra_modules.len(), 2);
        assert_eq!(conf.extra_bins[1].value, Path::new("/bin/b"));
    }

    #[test]
    fn an_nfs_export_is_a_target() {
        for (text, server, export) in
            [("nfs nas.example:/srv/crash", "nas.example", "/srv/crash"), ("nfs [fd00::7]:/x", "fd00::7", "/x")]
        {
            let TargetLine::Nfs(nfs) = parse(text).unwrap().0.targets.remove(0).value.line else { panic!("{text}") };
            assert_eq!((nfs.server.as_str(), nfs.export.as_str()), (server, export));
        }
    }

    #[test]
    fn a_raw_target_is_named_by_what_does_not_lie_on_it() {
        let (conf, warnings) = parse("raw PARTUUID=12-01\nraw_force yes\n").unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(conf.targets[0].value.line, TargetLine::Raw(DeviceSpec::PartUuid("12-01".into())));
        assert!(conf.raw_force.unwrap().value);
        assert!(parse("raw /dev/disk/by-id/virtio-dumps").is_ok());
        for name in ["UUID=12", "LABEL=crash", "/dev/disk/by-uuid/12"] {
            let error = format!("{:#}", parse(&format!("raw {name}")).unwrap_err());
            assert!(error.contains("is the name of what is on a device"), "{error}");
        }
        let (_, warnings) = parse("ext4 UUID=12\nraw_force no").unwrap();
        assert_eq!(warnings, ["kdump.conf:2: raw_force has no effect without a raw target"]);
        assert!(parse("raw_force maybe").is_err());
        let error = format!("{:#}", parse("raw /dev/a\next4 /dev/b").unwrap_err());
        assert!(error.contains("is a second dump target"), "{error}");
    }

    #[test]
    fn what_follows_a_failure_and_who_is_told_is_understood() {
        let (conf, warnings) = parse(
            "failure_action dump_to_rootfs\nkdump_pre /usr/bin/pre\nkdump_post /usr/bin/my post\n\
             kdump_emergency /usr/bin/help\nfence_kdump_nodes node1 192.0.2.2\nfence_kdump_args -p 7411 -i 5\n",
        )
        .unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(conf.failure_action.value, OnFailure::DumpToRootfs);
        assert_eq!(conf.kdump_pre.unwrap().value, Path::new("/usr/bin/pre"));
        assert_eq!(conf.kdump_post.unwrap().value, Path::new("/usr/bin/my post"));
        assert_eq!(conf.kdump_emergency.unwrap().origin.to_string(), "kdump.conf:4");
        assert_eq!(conf.fence_nodes.unwrap().value, ["node1", "192.0.2.2"]);
        assert_eq!(conf.fence_args.unwrap().value.port, 7411);
        let shell = parse("failure_action shell").unwrap().0;
        assert_eq!(shell.failure_action.value, OnFailure::Action(FailureAction::Shell));
        let (_, warnings) = parse("fence_kdump_args -i 5").unwrap();
        assert_eq!(warnings, ["kdump.conf:1: fence_kdump_args has no effect without fence_kdump_nodes"]);
    }

    #[test]
    fn the_old_name_of_the_failure_action_still_works_with_a_warning() {
        let (conf, warnings) = parse("default poweroff\n").unwrap();
        assert_eq!(conf.failure_action.value, OnFailure::Action(Ending::Poweroff.into()));
        assert_eq!(warnings, ["kdump.conf:1: `default` is the old name of `failure_action`; write that"]);
    }

    #[test]
    fn a_share_is_named_by_its_tag() {
        let target = |text| parse(text).map(|(conf, _)| conf.targets[0].value.line.clone());
        assert_eq!(target("virtiofs dumps").unwrap(), TargetLine::Virtiofs("dumps".into()));
        assert!(target("virtiofs /srv/dumps").is_err());
    }

    #[test]
    fn a_machine_that_is_sent_to_may_have_an_ipv6_address_without_brackets() {
        for (text, place) in [
            ("ssh me@nas", "ssh://me@nas/"),
            ("ssh me@fe80::1", "ssh://me@[fe80::1]/"),
            ("ssh me@[::1]", "ssh://me@[::1]/"),
        ] {
            let (mut conf, _) = parse(&format!("{text}\nsshkey /root/key\n")).unwrap();
            let TargetLine::Remote(remote) = conf.targets.remove(0).value.line else { panic!("no remote") };
            assert_eq!(remote.to_string(), place);
            assert_eq!(conf.sshkey.unwrap().value, Path::new("/root/key"));
        }
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_name_line_and_remedy() {
        for (text, message) in [
            ("pth /x", "kdump.conf:1: there is no directive `pth`; was `path` meant?"),
            ("corecollector x", "kdump.conf:1: there is no directive `corecollector`; was `core_collector` meant?"),
            (
                "\nabracadabra 1",
                "kdump.conf:2: there is no directive `abracadabra`; take the line out or put a # in front of it",
            ),
            ("path", "kdump.conf:1: `path` has no value; give it one or take the line out"),
            ("path # none", "kdump.conf:1: `path` has no value; give it one or take the line out"),
            ("path /a\npath /b", "kdump.conf:2: `path` repeats what line 1 says; keep one of the two"),
            (
                "failure_action halt\ndefault halt",
                "kdump.conf:2: `default` repeats what line 1 says; keep one of the two",
            ),
            (
                "ext4 /dev/a\nxfs /dev/b",
                "kdump.conf:2: `xfs` is a second dump target, line 1 names the first; keep one",
            ),
            ("ssh host", "kdump.conf:1: ssh: `host` is not USER@HOST; write such as `ssh dump@nas`"),
            ("ssh me@a:b", "kdump.conf:1: ssh: `a:b` is neither the name nor the address of a host"),
            ("ssh me@-oProxy", "kdump.conf:1: ssh: `-oProxy` is neither the name nor the address of a host"),
            (
                "nfs host",
                "kdump.conf:1: nfs: `host` is not an NFS export; write HOST:/EXPORT, an IPv6 address in brackets",
            ),
            (
                "ext4 /dev/a\nnfs host:/export",
                "kdump.conf:2: `nfs` is a second dump target, line 1 names the first; keep one",
            ),
            (
                "blacklist foo",
                "kdump.conf:1: `blacklist` was removed from kdump.conf; write `forbid_modules MODULE`, or put \
                 rd.driver.blacklist=MODULE in KDUMP_COMMANDLINE_APPEND",
            ),
            ("kdump_pre bin/x", "kdump.conf:1: kdump_pre: `bin/x` is not an absolute path; write it from / on"),
            ("kdump_post /bin/../x", "kdump.conf:1: kdump_post: `/bin/../x` has `..` in it; write the path without"),
            (
                "final_action shell",
                "kdump.conf:1: final_action: `shell` is not an ending; write reboot, halt or poweroff",
            ),
            (
                "failure_action explode",
                "kdump.conf:1: failure_action: `explode` is none; write reboot, halt, poweroff, shell or dump_to_rootfs",
            ),
            (
                "fence_kdump_args -z 1",
                "kdump.conf:1: fence_kdump_args: `-z` is not supported; -p PORT, -i SECONDS, -c COUNT and \
                 -f ipv4|ipv6|auto are",
            ),
            ("ext4 vda", "kdump.conf:1: ext4: `vda` is not a block device; write /dev/NAME, UUID=… or LABEL=…"),
            ("path /a/../b", "kdump.conf:1: path: `/a/../b` has `..` in it; write the directory without"),
            ("extra_bins a", "kdump.conf:1: extra_bins: `a` is not an absolute path; write it from / on"),
            (
                "core_collector scp",
                "kdump.conf:1: core_collector: `scp` is neither makedumpfile nor kdump-capture nor an absolute path; \
                 write where the program is",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(format!("{error:#}"), message, "{text}");
        }
    }

    #[test]
    fn every_word_of_rhel_is_known() {
        for name in "auto_reset_crashkernel raw nfs ssh sshkey virtiofs path core_collector kdump_pre kdump_post \
                     kdump_emergency extra_bins extra_modules failure_action default final_action force_rebuild \
                     force_no_rebuild dracut_args fence_kdump_args fence_kdump_nodes net options link_delay \
                     disk_timeout debug_mem_level blacklist"
            .split_whitespace()
        {
            if let Err(error) = parse(&format!("{name} something")) {
                assert!(!format!("{error:#}").contains("there is no directive"), "{error:#}");
            }
        }
    }
}
