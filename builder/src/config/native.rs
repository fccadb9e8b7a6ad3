//! `/etc/kdump/kdump.toml`, the native configuration: all that kdump.conf can say, and more.
//!
//! ```toml
//! path = "/var/crash"                     # in every target that has no path of its own
//! sshkey = "/root/.ssh/kdump_id_ed25519"   # for all targets by ssh and sftp
//! collector = "kdump-capture -z -d 31"
//! failure_action = "reboot"
//! final_action = "reboot"
//!
//! [[target]]                              # tried in this order until one has a complete dump
//! kind = "nfs"
//! export = "nas.example:/srv/crash"
//! options = ["vers=4.2"]
//! path = "/web1"
//!
//! [[target]]
//! kind = "cifs"
//! share = "//files.example/crash"
//! credentials = "/etc/kdump/files.credentials"
//!
//! [[target]]
//! kind = "filesystem"
//! type = "ext4"
//! device = "LABEL=crash"
//!
//! [[target]]
//! kind = "remote"                         # ssh, sftp, ftp or ftps; the key is the first that root has, or sshkey
//! url = "sftp://dump@nas.example/srv/crash"
//!
//! [[target]]
//! kind = "virtiofs"
//! tag = "dumps"
//!
//! [[target]]
//! kind = "raw"                            # overwritten by the next dump
//! device = "PARTUUID=0b5c2ff4-01"         # refused while it holds something, unless raw_force = true stands at the top
//!
//! [[target]]                              # the last one: the end of the log alone, which the next boot finds
//! kind = "pstore"
//!
//! [room]                                  # on disks of this machine
//! keep = 3                                # dumps; the oldest go when there is a new one
//! free = 64                               # MiB that no dump takes
//! when_short = ["remove", "level", "codec", "incomplete"]
//!
//! [limits]                                # seconds
//! device = 90
//! stall = 120
//! stage = 300
//! driver = 30
//!
//! [programs]
//! pre = "/usr/local/sbin/before-the-dump"
//! post = "/usr/local/sbin/after-the-dump"
//! emergency = "/usr/local/sbin/no-dump"
//!
//! [image]
//! modules = ["mlx5_core"]
//! files = ["/usr/bin/lspci"]
//! forbid = ["floppy"]
//!
//! [fence]
//! nodes = ["node2", "192.0.2.3"]
//! args = "-p 7410 -i 10"
//!
//! [notify]
//! webhook = "https://monitor.example/kdump"
//! authorities = "/etc/kdump/authorities.pem"   # who vouches for servers, if not whom this machine believes
//!
//! [notify.mail]
//! server = "mail.example:25"
//! to = ["root@example.com"]
//! cc = ["oncall@example.com"]
//! from = "kdump@web1.example"
//! credentials = "/etc/kdump/mail.credentials"  # only sent over TLS, for which the server is asked (STARTTLS)
//! # starttls = true, without credentials; or smtps:// before the server; or clear = true, without any TLS
//!
//! [kernel]                                # each in the place of its variable of /etc/sysconfig/kdump
//! release = "6.1.0-18-amd64"
//! command_line = "console=ttyS0"
//! remove = "quiet splash"
//! append = "nr_cpus=1 irqpoll reset_devices"
//! network = "eth0:dhcp"
//! ```
//!
//! In: its text. Out: the same model that the other files fill. Every refusal names file and line.
//!
//! May surprise: where this file is, `/etc/kdump.conf` is not read, and that is said. `/etc/sysconfig/kdump` is, since it
//! is about loading too.

use super::collector::Collector;
use super::kdump_conf::{check_tag, directory, on_failure, program, raw_device};
use super::{Given, KdumpConf, Origin, Savedir, Sysconfig, TargetLine, Wanted, fence};
use anyhow::{Context, anyhow, bail};
use kdump_hooks::cifs::Cifs;
use kdump_hooks::filesystem::Filesystem;
use kdump_hooks::net::NetConfig;
use kdump_hooks::nfs::Nfs;
use kdump_hooks::notify::smtp::{self, Mail};
use kdump_hooks::notify::tls::Tls;
use kdump_hooks::remote::Remote;
use kdump_init::config::{Limits, Measure};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// Where it is, below the root.
pub const PATH: &str = "etc/kdump/kdump.toml";

/// The longest limit: a day.
const LONGEST: u64 = 86_400;

/// The kinds of targets, what each must have, and what it may have.
const KINDS: [(&str, &[&str], &[&str]); 7] = [
    ("filesystem", &["type", "device"], &["path", "options"]),
    ("virtiofs", &["tag"], &["path"]),
    ("raw", &["device"], &[]),
    ("nfs", &["export"], &["path", "options"]),
    ("cifs", &["share"], &["path", "options", "credentials"]),
    ("remote", &["url"], &[]),
    ("pstore", &[], &[]),
];

type Text = Option<Spanned<String>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    path: Text,
    sshkey: Text,
    raw_force: Option<Spanned<bool>>,
    collector: Text,
    failure_action: Text,
    final_action: Text,
    target: Vec<Spanned<Table>>,
    room: Room,
    limits: BTreeMap<String, Spanned<u64>>,
    programs: Programs,
    image: Image,
    fence: Option<Fence>,
    notify: Notify,
    kernel: Kernel,
}

/// One target: which fields it may have depends on its kind.
type Table = BTreeMap<Spanned<String>, Spanned<Value>>;

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Value {
    Text(String),
    List(Vec<String>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Room {
    keep: Option<Spanned<NonZeroU32>>,
    free: Option<Spanned<u32>>,
    when_short: Option<Vec<Measure>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Programs {
    pre: Text,
    post: Text,
    emergency: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Image {
    modules: Vec<Spanned<String>>,
    files: Vec<Spanned<String>>,
    forbid: Vec<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fence {
    nodes: Spanned<Vec<String>>,
    args: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Notify {
    webhook: Text,
    authorities: Text,
    mail: Option<MailTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MailTable {
    server: Spanned<String>,
    to: Vec<Spanned<String>>,
    #[serde(default)]
    cc: Vec<Spanned<String>>,
    from: Text,
    credentials: Text,
    #[serde(default)]
    clear: bool,
    #[serde(default)]
    starttls: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Kernel {
    release: Text,
    command_line: Text,
    remove: Text,
    append: Text,
    network: Text,
}

/// What the file asks for.
#[derive(Debug)]
pub struct Native {
    /// All but what is about loading.
    pub dump: KdumpConf,
    kernel: Sysconfig,
}

impl Native {
    /// Parses the text of `file`.
    ///
    /// # Errors
    /// The first thing that cannot be followed, as `FILE:LINE`, with the remedy.
    pub fn parse(text: &str, file: &Path) -> anyhow::Result<Native> {
        let reader = Reader { text, file };
        let parsed: File = toml::from_str(text).map_err(|error| {
            let line = reader.line(error.span().map_or(0, |span| span.start));
            anyhow!("{}:{line}: {}", file.display(), error.message().replace('\n', " "))
        })?;
        Ok(Native { dump: reader.dump(&parsed)?, kernel: reader.system(&parsed)? })
    }

    /// Puts what the file says about loading in the place of what `system` says; where both do, `warnings` tell.
    pub fn override_system(&self, system: &mut Sysconfig, warnings: &mut Vec<String>) {
        fn one<T: Clone>(
            name: &str,
            ours: Option<&Given<T>>,
            theirs: &mut Option<Given<T>>,
            warnings: &mut Vec<String>,
        ) {
            let Some(ours) = ours else { return };
            if let Some(theirs) = theirs {
                warnings.push(format!("{}: {name} has no effect: {} says otherwise", theirs.origin, ours.origin));
            }
            *theirs = Some(ours.clone());
        }
        let ours = &self.kernel;
        one("KDUMP_KERNELVER", ours.kernelver.as_ref(), &mut system.kernelver, warnings);
        one("KDUMP_COMMANDLINE", ours.commandline.as_ref(), &mut system.commandline, warnings);
        one("KDUMP_COMMANDLINE_REMOVE", ours.remove.as_ref(), &mut system.remove, warnings);
        one("KDUMP_COMMANDLINE_APPEND", ours.append.as_ref(), &mut system.append, warnings);
        one("KDUMP_KEEP_OLD_DUMPS", ours.keep.as_ref(), &mut system.keep, warnings);
        one("KDUMP_FREE_DISK_SIZE", ours.free.as_ref(), &mut system.free, warnings);
        one("KDUMP_NETCONFIG", ours.netconfig.as_ref(), &mut system.netconfig, warnings);
    }
}

/// The text, for lines.
struct Reader<'a> {
    text: &'a str,
    file: &'a Path,
}

impl Reader<'_> {
    fn line(&self, offset: usize) -> usize {
        self.text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count() + 1
    }

    fn origin<T>(&self, value: &Spanned<T>) -> Origin {
        Origin::Line(self.file.to_owned(), self.line(value.span().start))
    }

    /// A value made of a text that is given.
    fn made<T>(
        &self,
        name: &str,
        value: &Spanned<String>,
        make: impl FnOnce(&str) -> anyhow::Result<T>,
    ) -> anyhow::Result<Given<T>> {
        let origin = self.origin(value);
        let text = value.get_ref();
        if text.trim().is_empty() {
            bail!("{origin}: `{name}` has no value; give it one or take the line out");
        }
        Ok(Given { value: make(text).with_context(|| format!("{origin}: {name}"))?, origin })
    }

    fn optional<T>(
        &self,
        name: &str,
        value: &Text,
        make: impl FnOnce(&str) -> anyhow::Result<T>,
    ) -> anyhow::Result<Option<Given<T>>> {
        value.as_ref().map(|value| self.made(name, value, make)).transpose()
    }

    fn dump(&self, file: &File) -> anyhow::Result<KdumpConf> {
        let mut conf = KdumpConf::default();
        if let Some(path) = self.optional("path", &file.path, directory)? {
            conf.path = path;
        }
        if let Some(collector) = self.optional("collector", &file.collector, Collector::parse)? {
            conf.collector = collector;
        }
        if let Some(action) = self.optional("failure_action", &file.failure_action, on_failure)? {
            conf.failure_action = action;
        }
        let ending = |text: &str| text.parse().map_err(anyhow::Error::msg);
        if let Some(action) = self.optional("final_action", &file.final_action, ending)? {
            conf.final_action = action;
        }
        conf.raw_force = file.raw_force.as_ref().map(|force| self.given(force, *force.get_ref()));
        conf.when_short = file.room.when_short.clone();
        conf.sshkey = self.optional("sshkey", &file.sshkey, program)?;
        conf.kdump_pre = self.optional("pre", &file.programs.pre, program)?;
        conf.kdump_post = self.optional("post", &file.programs.post, program)?;
        conf.kdump_emergency = self.optional("emergency", &file.programs.emergency, program)?;
        for module in &file.image.modules {
            conf.extra_modules.push(self.made("modules", module, module_name)?);
        }
        for path in &file.image.files {
            conf.extra_bins.push(self.made("files", path, program)?);
        }
        for module in &file.image.forbid {
            conf.forbid_modules.push(self.made("forbid", module, module_name)?);
        }
        if let Some(fence) = &file.fence {
            let origin = self.origin(&fence.nodes);
            if fence.nodes.get_ref().is_empty() {
                bail!("{origin}: `nodes` names none; name one or take [fence] out");
            }
            conf.fence_nodes = Some(Given { value: fence.nodes.get_ref().clone(), origin });
            conf.fence_args = self.optional("args", &fence.args, fence::Options::parse)?;
        }
        conf.limits = self.limits(&file.limits)?;
        conf.notify = self.notify(&file.notify)?;
        for table in &file.target {
            let target = self.target(table)?;
            if let Some(first) = conf.targets.iter().find(|first| first.value.line == target.value.line) {
                bail!("{}: this is the target of {} once more; keep one of the two", target.origin, first.origin);
            }
            if let Some(last) = conf.targets.iter().find(|other| other.value.line == TargetLine::Pstore) {
                bail!("{}: pstore takes the log alone; put it behind all other targets", last.origin);
            }
            conf.targets.push(target);
        }
        Ok(conf)
    }

    fn notify(&self, table: &Notify) -> anyhow::Result<Option<kdump_hooks::notify::Notify>> {
        let webhook = self.optional("webhook", &table.webhook, from_str)?.map(|given| given.value);
        let mail = table.mail.as_ref().map(|mail| self.mail(mail)).transpose()?;
        let is_some = webhook.is_some() || mail.is_some();
        let authorities = self.optional("authorities", &table.authorities, program)?;
        let notify = kdump_hooks::notify::Notify { host: String::new(), mail, webhook, authorities: None };
        if let Some(given) = authorities.as_ref().filter(|_| !notify.needs_tls()) {
            bail!("{}: `authorities` is for servers with TLS, and none is told so; take the line out", given.origin);
        }
        let authorities = authorities.map(|given| given.value);
        Ok(is_some.then_some(kdump_hooks::notify::Notify { authorities, ..notify }))
    }

    fn mail(&self, table: &MailTable) -> anyhow::Result<Mail> {
        let server = self.made("server", &table.server, |text| smtp::server(text).map_err(anyhow::Error::msg))?;
        let (host, port, tls) = server.value;
        let address = |name: &str, text: &Spanned<String>| {
            let made = self.made(name, text, |text| smtp::addresses(text).map_err(anyhow::Error::msg));
            made.map(|given| given.value)
        };
        let all = |name: &str, list: &[Spanned<String>]| -> anyhow::Result<Vec<String>> {
            Ok(list.iter().map(|text| address(name, text)).collect::<anyhow::Result<Vec<_>>>()?.concat())
        };
        let from = table.from.as_ref().map(|from| address("from", from)).transpose()?.unwrap_or_default();
        let credentials = self.optional("credentials", &table.credentials, program)?;
        if table.clear && (table.starttls || tls == Tls::On) {
            bail!("{}: clear = true is without TLS, and smtps:// or starttls with it; keep one", server.origin);
        }
        if table.starttls && tls == Tls::On {
            bail!("{}: smtps:// has TLS from the start; take starttls out", server.origin);
        }
        let asks = tls.is_off() && !table.clear && (table.starttls || credentials.is_some());
        let tls = if asks { Tls::Starttls } else { tls };
        let to = all("to", &table.to)?;
        if to.is_empty() {
            bail!("{}: `to` names nobody; name somebody or take [notify.mail] out", server.origin);
        }
        let from = from.into_iter().next().unwrap_or_default();
        let (cc, credentials) = (all("cc", &table.cc)?, credentials.map(|file| file.value));
        Ok(Mail { host, port, from, to, cc, tls, credentials, login: None })
    }

    fn limits(&self, table: &BTreeMap<String, Spanned<u64>>) -> anyhow::Result<Limits> {
        let mut limits = Limits::default();
        for (name, seconds) in table {
            let origin = self.origin(seconds);
            let limit = match name.as_str() {
                "device" => &mut limits.device,
                "stall" => &mut limits.stall,
                "stage" => &mut limits.stage,
                "driver" => &mut limits.driver,
                _ => bail!("{origin}: there is no limit `{name}`; write device, stall, stage or driver"),
            };
            if !(1..=LONGEST).contains(seconds.get_ref()) {
                bail!("{origin}: {name}: write seconds from 1 to {LONGEST}: nothing waits for ever");
            }
            *limit = *seconds.get_ref();
        }
        Ok(limits)
    }

    fn target(&self, table: &Spanned<Table>) -> anyhow::Result<Given<Wanted>> {
        let origin = self.origin(table);
        let fields = Fields { reader: self, table: table.get_ref(), origin: &origin };
        let kind = fields.text("kind")?;
        let kinds = KINDS.map(|(kind, ..)| kind).join(", ");
        let Some(kind) = kind else { bail!("{origin}: the target has no `kind`; write one of {kinds}") };
        let Some((_, must, may)) = KINDS.iter().find(|(known, ..)| *known == kind.value) else {
            bail!("{}: there is no kind of target `{}`; write one of {kinds}", kind.origin, kind.value);
        };
        let named = |name: &str| name == "kind" || must.contains(&name) || may.contains(&name);
        if let Some(name) = table.get_ref().keys().find(|name| !named(name.get_ref())) {
            let all = [*must, *may].concat().join(", ");
            bail!("{}: a target of kind {} has no `{}`; it has {all}", self.origin(name), kind.value, name.get_ref());
        }
        let need = |name: &str| {
            fields.text(name)?.with_context(|| format!("{origin}: a target of kind {} needs `{name}`", kind.value))
        };
        let options = fields.list("options")?;
        let mut path = fields.text("path")?.map(|path| parsed("path", &path, directory)).transpose()?;
        let line = match kind.value.as_str() {
            "filesystem" => {
                let fstype = parsed("type", &need("type")?, |fstype| match Filesystem::is_known(fstype) {
                    true => Ok(fstype.to_owned()),
                    false => bail!("{fstype} is not a file system that a dump can go to"),
                })?;
                let device = need("device")?;
                TargetLine::Filesystem { fstype, device: parsed("device", &device, from_str)? }
            }
            "virtiofs" => TargetLine::Virtiofs(parsed("tag", &need("tag")?, check_tag)?),
            "pstore" => TargetLine::Pstore,
            "raw" => TargetLine::Raw(parsed("device", &need("device")?, raw_device)?),
            "nfs" => TargetLine::Nfs(parsed("export", &need("export")?, from_str::<Nfs>)?),
            "remote" => {
                let savedir = parsed("url", &need("url")?, remote)?;
                path = Some(savedir.path.clone());
                TargetLine::Remote(savedir)
            }
            _ => {
                let share = parsed("share", &need("share")?, from_str::<Cifs>)?;
                let credentials = fields.text("credentials")?;
                let credentials = credentials.map(|file| parsed("credentials", &file, program)).transpose()?;
                TargetLine::Cifs(Cifs { credentials, ..share })
            }
        };
        Ok(Given { value: Wanted { line, path, options }, origin: kind.origin })
    }

    fn given<S, T>(&self, place: &Spanned<S>, value: T) -> Given<T> {
        Given { value, origin: self.origin(place) }
    }

    /// What other dialects say in `/etc/sysconfig/kdump`.
    fn system(&self, file: &File) -> anyhow::Result<Sysconfig> {
        let (kernel, room) = (&file.kernel, &file.room);
        let text = |name: &str, value: &Text| self.optional(name, value, |text| Ok(text.to_owned()));
        // Nothing to remove or to append is a choice, too.
        let even_empty = |value: &Text| {
            let given = |value: &Spanned<String>| Given { value: value.get_ref().clone(), origin: self.origin(value) };
            value.as_ref().map(given)
        };
        Ok(Sysconfig {
            kernelver: text("release", &kernel.release)?,
            commandline: text("command_line", &kernel.command_line)?,
            remove: even_empty(&kernel.remove),
            append: even_empty(&kernel.append),
            netconfig: self.optional("network", &kernel.network, NetConfig::parse)?,
            keep: room.keep.as_ref().map(|keep| self.given(keep, *keep.get_ref())),
            free: room.free.as_ref().map(|mib| self.given(mib, u64::from(*mib.get_ref()) << 20)),
            ..Sysconfig::default()
        })
    }
}

/// A machine that is sent to.
fn remote(url: &str) -> anyhow::Result<Remote> {
    match Savedir::parse(url)?.target {
        Some(TargetLine::Remote(remote)) => Ok(remote),
        _ => bail!("write an address such as sftp://dump@nas/srv/crash, by ssh, sftp, ftp or ftps"),
    }
}

/// The fields of one target.
struct Fields<'a> {
    reader: &'a Reader<'a>,
    table: &'a Table,
    origin: &'a Origin,
}

impl Fields<'_> {
    fn field(&self, name: &str) -> Option<(&Value, Origin)> {
        let (_, value) = self.table.iter().find(|(key, _)| key.get_ref() == name)?;
        let origin = self.reader.origin(value);
        Some((value.get_ref(), origin))
    }

    fn text(&self, name: &str) -> anyhow::Result<Option<Given<String>>> {
        match self.field(name) {
            None => Ok(None),
            Some((Value::Text(text), origin)) if !text.trim().is_empty() => {
                Ok(Some(Given { value: text.clone(), origin }))
            }
            Some((_, origin)) => bail!("{origin}: write {name} = \"…\", or take the line out"),
        }
    }

    fn list(&self, name: &str) -> anyhow::Result<Vec<String>> {
        match self.field(name) {
            None => Ok(Vec::new()),
            Some((Value::List(list), origin)) => match list.iter().find(|word| !is_option(word)) {
                Some(word) => bail!("{origin}: {name}: `{word}` is not one option; write each for itself"),
                None => Ok(list.clone()),
            },
            Some((Value::Text(_), origin)) => {
                bail!("{origin}: write {name} = [\"…\", \"…\"] (target of {})", self.origin)
            }
        }
    }
}

/// One mount option.
fn is_option(word: &str) -> bool {
    !word.is_empty() && !word.contains(|c: char| c == ',' || c.is_whitespace() || c.is_control())
}

fn parsed<T>(name: &str, given: &Given<String>, make: impl FnOnce(&str) -> anyhow::Result<T>) -> anyhow::Result<T> {
    make(&given.value).with_context(|| format!("{}: {name}", given.origin))
}

fn from_str<T: std::str::FromStr<Err = String>>(text: &str) -> anyhow::Result<T> {
    text.parse().map_err(anyhow::Error::msg)
}

fn module_name(text: &str) -> anyhow::Result<String> {
    match text.contains(|c: char| c.is_whitespace() || c == '/') {
        true => bail!("`{text}` is not the name of a module"),
        false => Ok(text.to_owned()),
    }
}

/// The first directive of a kdump.conf that is not read.
pub(super) fn unread(text: &str, file: &Path) -> Option<String> {
    let is_directive = |line: &str| !line.is_empty() && !line.starts_with('#');
    let (number, line) = (1..).zip(text.lines().map(str::trim)).find(|(_, line)| is_directive(line))?;
    let word = line.split_whitespace().next()?;
    Some(format!("{}:{number}: `{word}` and all of this file has no effect", file.display()))
}

/// The file of this machine, if it has one.
pub(super) fn path(root: &Path) -> PathBuf {
    root.join(PATH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OnFailure;
    use kdump_hooks::DeviceSpec;
    use kdump_init::config::Ending;
    use proptest::prelude::*;

    fn parse(text: &str) -> anyhow::Result<Native> {
        Native::parse(text, Path::new("kdump.toml"))
    }

    fn example() -> String {
        let lines: Vec<&str> = include_str!("native.rs")
            .lines()
            .skip_while(|line| *line != "//! ```toml")
            .skip(1)
            .take_while(|line| *line != "//! ```")
            .map(|line| line.trim_start_matches("//!"))
            .collect();
        lines.join("\n")
    }

    #[test]
    fn the_example_of_the_documentation_finds_its_places() {
        let native = parse(&example()).unwrap();
        let dump = &native.dump;
        assert_eq!(dump.path.origin.to_string(), "kdump.toml:1");
        assert_eq!(dump.collector.value.argv, ["kdump-capture", "-z", "-d", "31"]);
        assert_eq!(dump.failure_action.value, OnFailure::Action(Ending::Reboot.into()));
        let [nfs, cifs, ext4, remote, share, raw, last] = &dump.targets[..] else { panic!("{:?}", dump.targets) };
        let TargetLine::Nfs(export) = &nfs.value.line else { panic!() };
        assert_eq!(
            (export.server.as_str(), nfs.value.options.as_slice()),
            ("nas.example", &["vers=4.2".to_owned()][..])
        );
        assert_eq!(nfs.value.path.as_deref(), Some(Path::new("/web1")));
        let TargetLine::Cifs(files) = &cifs.value.line else { panic!() };
        assert_eq!(files.credentials.as_deref(), Some(Path::new("/etc/kdump/files.credentials")));
        assert!(matches!(&ext4.value.line, TargetLine::Filesystem { fstype, .. } if fstype == "ext4"));
        let TargetLine::Remote(far) = &remote.value.line else { panic!() };
        assert_eq!((far.server.as_str(), remote.value.path.as_deref()), ("nas.example", Some(Path::new("/srv/crash"))));
        assert_eq!(dump.sshkey.as_ref().unwrap().value, Path::new("/root/.ssh/kdump_id_ed25519"));
        assert_eq!(share.value, TargetLine::Virtiofs("dumps".into()).into());
        assert!(matches!(&raw.value.line, TargetLine::Raw(DeviceSpec::PartUuid(_))));
        assert_eq!(dump.when_short, Some(Measure::all()));
        assert_eq!(last.value, TargetLine::Pstore.into());
        assert_eq!(dump.limits, Limits::default());
        let mail = dump.notify.as_ref().unwrap().mail.as_ref().unwrap();
        assert_eq!((mail.host.as_str(), mail.to.len(), mail.cc.len()), ("mail.example", 1, 1));
        assert_eq!((mail.tls, dump.notify.as_ref().unwrap().needs_tls()), (Tls::Starttls, true));
        assert_eq!(dump.kdump_post.as_ref().unwrap().value, Path::new("/usr/local/sbin/after-the-dump"));
        assert_eq!((dump.extra_modules.len(), dump.extra_bins.len(), dump.forbid_modules.len()), (1, 1, 1));
        assert_eq!(dump.fence_nodes.as_ref().unwrap().value.len(), 2);
        assert_eq!(dump.fence_args.as_ref().unwrap().value.interval, 10);
        let mut warnings = Vec::new();
        let mut system = Sysconfig::parse("KDUMP_COMMANDLINE_APPEND=x", Path::new("kdump"), &mut warnings).unwrap();
        native.override_system(&mut system, &mut warnings);
        assert_eq!(system.append.unwrap().value, "nr_cpus=1 irqpoll reset_devices");
        assert_eq!(system.kernelver.unwrap().value, "6.1.0-18-amd64");
        assert_eq!((system.keep.unwrap().value.get(), system.free.unwrap().value), (3, 64 << 20));
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        assert!(warning.starts_with("kdump:1: KDUMP_COMMANDLINE_APPEND has no effect: kdump.toml:"), "{warning}");
    }

    #[test]
    fn an_empty_file_asks_for_the_defaults() {
        let dump = parse("").unwrap().dump;
        assert!(dump.targets.is_empty() && dump.path.value == Path::new("/var/crash"));
    }

    #[test]
    fn every_refusal_names_file_line_and_remedy() {
        let target = |rest: &str| format!("\n[[target]]\n{rest}\n");
        for (text, message) in [
            ("pth = \"/x\"".to_owned(), "kdump.toml:1: unknown field `pth`, expected one of `path`"),
            ("path = 3".to_owned(), "kdump.toml:1: invalid type: integer"),
            ("a =\n".to_owned(), "kdump.toml:1: "),
            ("path = \"\"".to_owned(), "kdump.toml:1: `path` has no value; give it one or take the line out"),
            ("\npath = \"/a/../b\"".to_owned(), "kdump.toml:2: path: `/a/../b` has `..` in it"),
            ("failure_action = \"sleep\"".to_owned(), "kdump.toml:1: failure_action: `sleep` is none; write reboot"),
            ("[limits]\nstal = 3".to_owned(), "kdump.toml:2: there is no limit `stal`; write device"),
            ("[limits]\nstall = 0".to_owned(), "kdump.toml:2: stall: write seconds from 1 to 86400"),
            (
                target("kind = \"pstore\"") + &target("kind = \"virtiofs\"\ntag = \"dumps\""),
                "kdump.toml:3: pstore takes the log alone; put it behind all other targets",
            ),
            (target("kind = \"pstore\"\npath = \"/x\""), "kdump.toml:4: a target of kind pstore has no `path`"),
            ("[programs]\npre = \"x\"".to_owned(), "kdump.toml:2: pre: `x` is not an absolute path"),
            ("[image]\nmodules = [\n\"a b\"]".to_owned(), "kdump.toml:3: modules: `a b` is not the name of a module"),
            (
                "[room]\nwhen_short = [\"pray\"]".to_owned(),
                "kdump.toml:2: unknown variant `pray`, expected one of `remove`",
            ),
            (target("kind = \"remote\"\nurl = \"nfs://nas/x\""), "kdump.toml:4: url: write an address such as"),
            ("[fence]\nnodes = []".to_owned(), "kdump.toml:2: `nodes` names none"),
            (
                "[notify]\nwebhook = \"http://h/\"\nauthorities = \"/ca\"".to_owned(),
                "kdump.toml:3: `authorities` is for servers with TLS",
            ),
            (
                "[notify.mail]\nserver = \"smtps://h\"\nto = [\"a@x\"]\nclear = true".to_owned(),
                "kdump.toml:2: clear = true is without TLS",
            ),
            (
                "[notify.mail]\nserver = \"smtps://h\"\nto = [\"a@x\"]\nstarttls = true".to_owned(),
                "kdump.toml:2: smtps:// has TLS from the start",
            ),
            (target("tag = \"x\""), "kdump.toml:2: the target has no `kind`; write one of filesystem, virtiofs"),
            (target("kind = \"tape\""), "kdump.toml:3: there is no kind of target `tape`; write one of"),
            (target("kind = \"nfs\""), "kdump.toml:2: a target of kind nfs needs `export`"),
            (
                target("kind = \"nfs\"\nexport = \"h:/e\"\nshare = \"//a/b\""),
                "kdump.toml:5: a target of kind nfs has no `share`; it has export, path, options",
            ),
            (target("kind = \"nfs\"\nexport = \"h\""), "kdump.toml:4: export: `h` is not an NFS export; write HOST"),
            (
                target("kind = \"nfs\"\nexport = \"h:/e\"\noptions = \"rw\""),
                "kdump.toml:5: write options = [\"…\", \"…\"] (target of kdump.toml:2)",
            ),
            (
                target("kind = \"nfs\"\nexport = \"h:/e\"\noptions = [\"rw,ro\"]"),
                "kdump.toml:5: options: `rw,ro` is not one option; write each for itself",
            ),
            (
                target("kind = \"filesystem\"\ntype = \"zfs\"\ndevice = \"UUID=1\""),
                "kdump.toml:4: type: zfs is not a file system that a dump can go to",
            ),
            (
                target("kind = \"cifs\"\nshare = \"//h/s/d\""),
                "kdump.toml:4: share: `//h/s/d` names a directory inside a share",
            ),
            (
                target("kind = \"virtiofs\"\ntag = \"a\"\n[[target]]\nkind = \"virtiofs\"\ntag = \"a\""),
                "kdump.toml:6: this is the target of kdump.toml:3 once more; keep one of the two",
            ),
        ] {
            let error = format!("{:#}", parse(&text).unwrap_err());
            assert!(error.starts_with(message), "{text}\n{error}\n{message}");
        }
    }

    #[test]
    fn a_kdump_conf_that_is_not_read_is_named_by_its_first_directive() {
        assert_eq!(unread("# nothing\n\n", Path::new("k")), None);
        assert_eq!(
            unread("# x\n path /a\n", Path::new("k")).unwrap(),
            "k:2: `path` and all of this file has no effect"
        );
    }

    proptest! {
        #[test]
        fn targets_are_read_in_the_order_in_which_they_are_written(names in proptest::collection::btree_set("[a-z]{1,8}", 1..6)) {
            let names: Vec<String> = names.into_iter().rev().collect();
            let text: String = names.iter().map(|name| format!("[[target]]\nkind = \"virtiofs\"\ntag = \"{name}\"\n")).collect();
            let targets = parse(&text).unwrap().dump.targets;
            let found: Vec<TargetLine> = targets.into_iter().map(|target| target.value.line).collect();
            prop_assert_eq!(found, names.into_iter().map(TargetLine::Virtiofs).collect::<Vec<_>>());
        }

        #[test]
        fn any_text_ends_in_a_result(text in "[a-z=\"\\[\\]\n 0-9.]{0,60}") {
            if let Err(error) = parse(&text) {
                let error = format!("{error:#}");
                prop_assert!(error.starts_with("kdump.toml:"), "{}", error);
            }
        }
    }
}
