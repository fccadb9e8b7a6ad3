//! `/etc/kdump/kdump.toml`, the native configuration: all that kdump.conf can say, and more.
//!
//! ```toml
//! path = "/var/crash"                     # in every target that has no path of its own
//! sshkey = "/root/.ssh/kdump_id_ed25519"   # for all targets by ssh and sftp
//! collector = "kdump-capture -z -d 31"
//! log_only = false                        # true: the kernel's log, and no dump
//! failure_action = "reboot"
//! final_action = "reboot"
//! shell_first = false                     # true: a shell before the final action
//! rebuild = "never"                       # at start, or "always"; without it whenever the image has to be
//! auto_reset_crashkernel = true           # false: no upgrade and no new kernel changes crashkernel= in the boot loader
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
//!                                         # with ftp and a user: password_file = "/etc/kdump/ftp.password"
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
//! before = ["/usr/local/sbin/lights", "on"]   # with arguments; how these two end does not matter
//! after = ["/usr/local/sbin/lights", "off"]
//!
//! [image]
//! modules = ["mlx5_core"]                 # must be there
//! drivers = ["nvidia"]                    # if the kernel has them; `first` are loaded before all others
//! first = ["vfio_pci"]
//! forbid = ["floppy"]                     # not loaded for anybody, and not there
//! filesystems = ["xfs"]
//! files = ["/usr/bin/lspci"]              # must be there, with what they need; `optional` if the machine has them
//! programs = ["ip"]
//! optional = ["/usr/bin/strace"]
//! include = [["/etc/kdump/extra", "/etc/extra"]]
//! firmware = ["/opt/firmware"]            # looked at before /lib/firmware
//! allow_missing_firmware = true           # of drivers that the target needs: the devices do without
//! compress = "zstd"
//! hostonly = true                         # false: with the drivers of most machines, network cards among them if dumps go there
//! watchdog = true                         # false: that of the running system is left alone
//! integrity = true                        # keys and policy of IMA and EVM, as /etc/sysconfig/{ima,evm,masterkey} name them
//! modsign = true                          # the certificates in /etc/keys/modsign, by which modules are trusted
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
//! boot_dir = "/boot"                      # where the kernel is, and how its file is called
//! name = "vmlinuz"
//! syscall = "file"                        # or "load", or "auto"
//! crashkernel = "auto"                    # what the boot loader is to have, which start and rebuild see to
//! update_bootloader = true                # false: they only say when it has something else
//! panic_on_oops = true                    # what a start sets kernel.panic_on_oops to; false leaves it alone, as elsewhere
//!                                         # than on Debian and SUSE is done anyway
//!
//! [remote]                                # for targets by ssh and sftp
//! identities = "id_ed25519 id_rsa"        # relative to root's; the first that is there
//! host_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
//! wait = 30                               # seconds
//! ```
//!
//! In: its text. Out: the same model that the other files fill. Every refusal names file and line.
//!
//! May surprise: where this file is, `/etc/kdump.conf`, `/etc/default/kdump-tools` and dracut.conf are not read, and of
//! the first two that is said. `/etc/sysconfig/kdump` is, since it is about loading too. `kdumpctl config convert` writes
//! this file from the others, and knows a few more words than stand here, for variables that few set.

mod file;
mod targets;

use super::collector::Collector;
use super::values::{
    check_tag, directory, fail_command, from_str, module_name, on_failure, program, program_or_name, raw_device,
};
use super::words::nearest;
use super::{Complaints, Given, KdumpConf, Origin, Rebuild, Savedir, Syscall, Sysconfig, TargetLine, Wanted, fence};
use crate::cpio::write::Packing;
use anyhow::{Context, anyhow, bail};
use clap::ValueEnum;
use file::{File, MailTable, Text};
use kdump_hooks::net::NetConfig;
use kdump_hooks::notify::Notify;
use kdump_hooks::notify::smtp::{self, Mail};
use kdump_hooks::notify::tls::Tls;
use kdump_init::config::Limits;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use toml::Spanned;

/// Where it is, below the root.
pub const PATH: &str = "etc/kdump/kdump.toml";

/// The longest limit: a day.
const LONGEST: u64 = 86_400;

/// What the file asks for.
#[derive(Debug, Default)]
pub struct Native {
    /// What is done about a dump.
    pub dump: KdumpConf,
    /// What is known of the capture kernel, and the rest.
    pub system: Sysconfig,
}

impl Native {
    /// Parses the text of `file`.
    ///
    /// # Errors
    /// The first thing that cannot be followed, as `FILE:LINE`, with the remedy.
    pub fn parse(text: &str, file: &Path) -> anyhow::Result<Native> {
        let mut complaints = Complaints::default();
        let native = Native::examine(text, file, &mut complaints);
        complaints.check()?;
        Ok(native)
    }

    /// Parses the text of `file` as far as it can be followed.
    pub fn examine(text: &str, file: &Path, complaints: &mut Complaints) -> Native {
        let reader = Reader { text, file, complaints: RefCell::default() };
        let native = reader.native();
        reader.complaints.take().into_iter().for_each(|problem| complaints.stop(problem));
        native
    }

    /// Puts what the file says in the place of what `system` says; where both do, that is told.
    pub fn override_system(&self, system: &mut Sysconfig, complaints: &mut Complaints) {
        macro_rules! each {
            ($($field:ident)*) => { $(
                if let Some(ours) = &self.system.$field {
                    if let Some(theirs) = system.$field.replace(ours.clone()) {
                        let words = format!("what it says has no effect: {} says otherwise", ours.origin);
                        complaints.warn(&theirs.origin, words);
                    }
                }
            )* };
        }
        each! {
            enabled kernelver kernel_file image_file commandline remove append bootdir img img_ext syscall crashkernel
            update_bootloader auto_resize panic_on_oops creation_notification log_level netconfig ssh_identity host_key
            net_timeout prescript postscript immediate_reboot continue_on_error fail_command keep free sysctl
        }
        system.required_programs.extend(self.system.required_programs.iter().cloned());
    }
}

/// The text, for lines, and what is wrong with it.
struct Reader<'a> {
    text: &'a str,
    file: &'a Path,
    /// What cannot be followed.
    complaints: RefCell<Vec<anyhow::Error>>,
}

impl Reader<'_> {
    fn native(&self) -> Native {
        match toml::from_str::<File>(self.text) {
            Ok(file) => Native { dump: self.dump(&file), system: self.system(&file) },
            Err(error) => {
                let line = self.line(error.span().map_or(0, |span| span.start));
                let problem = explained(error.message());
                self.tell(anyhow!("{}:{line}: {problem}", self.file.display()));
                Native::default()
            }
        }
    }

    fn tell(&self, problem: anyhow::Error) {
        self.complaints.borrow_mut().push(problem);
    }

    /// The value, or one complaint more.
    fn keep<T>(&self, result: anyhow::Result<T>) -> Option<T> {
        result.map_err(|problem| self.tell(problem)).ok()
    }

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

    fn optional<T>(&self, name: &str, value: &Text, make: impl FnOnce(&str) -> anyhow::Result<T>) -> Option<Given<T>> {
        self.keep(self.made(name, value.as_ref()?, make))
    }

    fn given<S, T>(&self, place: &Spanned<S>, value: T) -> Given<T> {
        Given { value, origin: self.origin(place) }
    }

    /// A value as it stands there.
    fn plain<T: Clone>(&self, value: &Option<Spanned<T>>) -> Option<Given<T>> {
        value.as_ref().map(|value| self.given(value, value.get_ref().clone()))
    }

    fn each<T>(&self, name: &str, list: &[Spanned<String>], make: impl Fn(&str) -> anyhow::Result<T>) -> Vec<Given<T>> {
        list.iter().filter_map(|text| self.keep(self.made(name, text, &make))).collect()
    }

    fn dump(&self, file: &File) -> KdumpConf {
        let mut conf = KdumpConf::default();
        if let Some(path) = self.optional("path", &file.path, directory) {
            conf.path = path;
        }
        if let Some(collector) = self.optional("collector", &file.collector, Collector::parse) {
            conf.collector = collector;
        }
        if let Some(action) = self.optional("failure_action", &file.failure_action, on_failure) {
            conf.failure_action = action;
        }
        if let Some(action) = self.optional("final_action", &file.final_action, from_str) {
            conf.final_action = action;
        }
        conf.rebuild = self.optional("rebuild", &file.rebuild, |when| match when {
            "always" => Ok(Rebuild::Always),
            "never" => Ok(Rebuild::Never),
            _ => bail!("`{when}` is neither always nor never"),
        });
        conf.auto_reset_crashkernel = self.plain(&file.auto_reset_crashkernel);
        conf.log_only = self.plain(&file.log_only);
        conf.raw_force = self.plain(&file.raw_force);
        conf.when_short = self.plain(&file.room.when_short);
        conf.sshkey = self.optional("sshkey", &file.sshkey, program);
        conf.kdump_pre = self.optional("pre", &file.programs.pre, program);
        conf.kdump_post = self.optional("post", &file.programs.post, program);
        conf.kdump_emergency = self.optional("emergency", &file.programs.emergency, program);
        self.image(&file.image, &mut conf);
        if let Some(fence) = &file.fence {
            let origin = self.origin(&fence.nodes);
            if fence.nodes.get_ref().is_empty() {
                self.tell(anyhow!("{origin}: `nodes` names none; name one or take [fence] out"));
            }
            conf.fence_nodes = Some(Given { value: fence.nodes.get_ref().clone(), origin });
            conf.fence_args = self.optional("args", &fence.args, fence::Options::parse);
        }
        conf.limits = self.limits(&file.limits);
        conf.notify = self.keep(self.notify(&file.notify)).flatten();
        for table in &file.target {
            let Some(target) = self.keep(self.target(table)) else { continue };
            let origin = target.origin.clone();
            if let Some(last) = conf.targets.iter().find(|other| other.value.line == TargetLine::Pstore) {
                self.tell(anyhow!("{}: pstore takes the log alone; put it behind all other targets", last.origin));
            }
            self.keep(conf.add_target(target).with_context(|| origin.to_string()));
        }
        conf
    }

    /// What is in the image.
    fn image(&self, file: &file::Image, conf: &mut KdumpConf) {
        conf.extra_modules = self.each("modules", &file.modules, module_name);
        conf.extra_bins = self.each("files", &file.files, program);
        conf.forbid_modules = self.each("forbid", &file.forbid, module_name);
        let image = &mut conf.image;
        image.add_drivers = self.each("drivers", &file.drivers, module_name);
        image.force_drivers = self.each("first", &file.first, module_name);
        image.omit_drivers = self.each("omit", &file.omit, module_name);
        image.filesystems = self.each("filesystems", &file.filesystems, module_name);
        image.install = self.each("install", &file.install, program_or_name);
        image.install_optional = self.each("optional", &file.optional, program_or_name);
        image.firmware = self.each("firmware", &file.firmware, program);
        for pair in &file.include {
            let origin = self.origin(pair);
            let [from, to] = pair.get_ref();
            let path = |text: &str| program(text).with_context(|| format!("{origin}: include"));
            if let (Some(from), Some(to)) = (self.keep(path(from)), self.keep(path(to))) {
                image.include.push(Given::at(super::Include { from, to }, &origin));
            }
        }
        image.compress = self.optional("compress", &file.compress, |name| {
            Packing::from_str(name, false).map_err(|_| anyhow!("an image is not packed with `{name}` here"))
        });
        image.allow_missing_firmware = self.plain(&file.allow_missing_firmware);
        image.hostonly = self.plain(&file.hostonly);
        image.watchdog = self.plain(&file.watchdog);
        image.integrity = self.plain(&file.integrity);
        image.modsign = self.plain(&file.modsign);
    }

    fn notify(&self, table: &file::Notify) -> anyhow::Result<Option<Given<Notify>>> {
        let webhook = self.optional("webhook", &table.webhook, from_str);
        let mail = table.mail.as_ref().map(|mail| self.mail(mail)).transpose()?;
        let origins = [mail.as_ref().map(|given| &given.origin), webhook.as_ref().map(|given| &given.origin)];
        let Some(origin) = origins.into_iter().flatten().min().cloned() else { return Ok(None) };
        let (mail, webhook) = (mail.map(|given| given.value), webhook.map(|given| given.value));
        let authorities = self.optional("authorities", &table.authorities, program);
        let notify = Notify { host: String::new(), mail, webhook, authorities: None };
        if let Some(given) = authorities.as_ref().filter(|_| !notify.needs_tls()) {
            bail!("{}: `authorities` is for servers with TLS, and none is told so; take the line out", given.origin);
        }
        let authorities = authorities.map(|given| given.value);
        Ok(Some(Given { value: Notify { authorities, ..notify }, origin }))
    }

    fn mail(&self, table: &MailTable) -> anyhow::Result<Given<Mail>> {
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
        let credentials = self.optional("credentials", &table.credentials, program);
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
        let value = Mail { host, port, from, to, cc, tls, credentials, login: None };
        Ok(Given { value, origin: server.origin })
    }

    fn limits(&self, table: &BTreeMap<String, Spanned<u64>>) -> Given<Limits> {
        let mut limits = Given::default(Limits::default());
        for (name, seconds) in table {
            let origin = self.origin(seconds);
            let limit = match name.as_str() {
                "device" => &mut limits.value.device,
                "stall" => &mut limits.value.stall,
                "stage" => &mut limits.value.stage,
                "driver" => &mut limits.value.driver,
                _ => {
                    self.tell(anyhow!("{origin}: there is no limit `{name}`; write device, stall, stage or driver"));
                    continue;
                }
            };
            if !(1..=LONGEST).contains(seconds.get_ref()) {
                self.tell(anyhow!("{origin}: {name}: write seconds from 1 to {LONGEST}: nothing waits for ever"));
            }
            *limit = *seconds.get_ref();
            limits.origin = origin;
        }
        limits
    }

    /// What other dialects say in variables.
    fn system(&self, file: &File) -> Sysconfig {
        let (kernel, room, remote) = (&file.kernel, &file.room, &file.remote);
        let text = |name: &str, value: &Text| self.optional(name, value, |text| Ok(text.to_owned()));
        let path = |name: &str, value: &Text| self.optional(name, value, program);
        // How much is said, and whether something is done, is said by no more than a word.
        let not = |value: &Option<Spanned<bool>>| self.plain(value).map(|given| given.map(|value| !value));
        Sysconfig {
            enabled: self.plain(&file.enabled),
            kernelver: text("release", &kernel.release),
            kernel_file: path("file", &kernel.file),
            image_file: path("image", &kernel.image),
            commandline: text("command_line", &kernel.command_line),
            // Nothing to remove or to append is a choice, too.
            remove: self.plain(&kernel.remove),
            append: self.plain(&kernel.append),
            bootdir: path("boot_dir", &kernel.boot_dir),
            img: text("name", &kernel.name),
            img_ext: text("suffix", &kernel.suffix),
            syscall: self.optional("syscall", &kernel.syscall, |word| match word {
                "file" => Ok(Syscall::File),
                "load" => Ok(Syscall::Load),
                "auto" => Ok(Syscall::Auto),
                _ => bail!("`{word}` is none; write file, load or auto"),
            }),
            crashkernel: self.optional("crashkernel", &kernel.crashkernel, super::suse::crashkernel),
            update_bootloader: self.plain(&kernel.update_bootloader),
            auto_resize: self.plain(&kernel.auto_resize),
            panic_on_oops: self.plain(&kernel.panic_on_oops),
            creation_notification: self.plain(&file.tell_test_result),
            log_level: self.plain(&file.log_level).filter(|given| {
                if given.value > 4 {
                    self.tell(anyhow!("{}: log_level: write 0 to 4", given.origin));
                }
                given.value <= 4
            }),
            netconfig: self.optional("network", &kernel.network, NetConfig::parse),
            ssh_identity: text("identities", &remote.identities),
            host_key: self.optional("host_key", &remote.host_key, super::suse::host_key),
            net_timeout: self.plain(&remote.wait),
            prescript: self.argv("before", &file.programs.before),
            postscript: self.argv("after", &file.programs.after),
            required_programs: self.each("programs", &file.image.programs, program_or_name),
            immediate_reboot: not(&file.shell_first),
            continue_on_error: not(&file.shell_on_failure),
            fail_command: self.optional("fail_command", &file.fail_command, fail_command),
            keep: self.plain(&room.keep),
            free: self.plain(&room.free).map(|given| given.map(|mib| u64::from(mib) << 20)),
            sysctl: path("sysctl", &kernel.sysctl),
        }
    }

    /// A program and its arguments.
    fn argv(&self, name: &str, value: &Option<Spanned<Vec<String>>>) -> Option<Given<Vec<String>>> {
        let given = self.plain(value)?;
        let place = || format!("{}: {name}", given.origin);
        let first = given.value.first().context("it names no program").with_context(place);
        self.keep(first.and_then(|first| program(first).with_context(place)))?;
        Some(given)
    }
}

/// What TOML's reader says, and the word that was meant.
fn explained(message: &str) -> String {
    let message = message.replace('\n', " ");
    let Some((typed, expected)) = message.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`')) else {
        return message;
    };
    match nearest(typed, expected.split('`').skip(1).step_by(2)) {
        Some(near) => format!("{message}; was `{near}` meant?"),
        None => message,
    }
}

/// The first directive of another configuration that is not read.
pub(super) fn unread(text: &str, file: &Path) -> Option<String> {
    let is_directive = |line: &str| !line.is_empty() && !line.starts_with('#');
    let (number, line) = (1..).zip(text.lines().map(str::trim)).find(|(_, line)| is_directive(line))?;
    let word = line.split([' ', '\t', '=']).next()?;
    Some(format!("{}:{number}: `{word}` and all of this file has no effect", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OnFailure;
    use kdump_hooks::DeviceSpec;
    use kdump_init::config::{Ending, Measure};
    use proptest::prelude::*;

    fn parse(text: &str) -> anyhow::Result<Native> {
        Native::parse(text, Path::new("kdump.toml"))
    }

    #[test]
    fn the_example_of_the_documentation_finds_its_places() {
        let native = parse(&kdump_hooks::fake::example(include_str!("mod.rs"))).unwrap();
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
        assert_eq!(dump.when_short.as_ref().unwrap().value, Measure::all());
        assert_eq!(last.value, TargetLine::Pstore.into());
        assert_eq!(dump.limits.value, Limits::default());
        let mail = dump.notify.as_ref().unwrap().value.mail.as_ref().unwrap();
        assert_eq!((mail.host.as_str(), mail.to.len(), mail.cc.len()), ("mail.example", 1, 1));
        assert_eq!((mail.tls, dump.notify.as_ref().unwrap().value.needs_tls()), (Tls::Starttls, true));
        assert_eq!(dump.kdump_post.as_ref().unwrap().value, Path::new("/usr/local/sbin/after-the-dump"));
        assert_eq!((dump.extra_modules.len(), dump.extra_bins.len(), dump.forbid_modules.len()), (1, 1, 1));
        assert!(dump.image.integrity.as_ref().unwrap().value && dump.image.modsign.as_ref().unwrap().value);
        assert!(dump.image.allow_missing_firmware.as_ref().unwrap().value);
        assert_eq!(dump.fence_nodes.as_ref().unwrap().value.len(), 2);
        assert_eq!(dump.fence_args.as_ref().unwrap().value.interval, 10);
        let given = Given { value: "x".to_owned(), origin: Origin::Line("kdump".into(), 1) };
        let mut system = Sysconfig { append: Some(given), ..Sysconfig::default() };
        let mut complaints = Complaints::default();
        native.override_system(&mut system, &mut complaints);
        assert_eq!(system.append.unwrap().value, "nr_cpus=1 irqpoll reset_devices");
        assert_eq!(system.kernelver.unwrap().value, "6.1.0-18-amd64");
        assert_eq!((system.keep.unwrap().value.get(), system.free.unwrap().value), (3, 64 << 20));
        let [warning] = &complaints.warnings[..] else { panic!("{complaints:?}") };
        assert!(warning.starts_with("kdump:1: what it says has no effect: kdump.toml:"), "{warning}");
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
                target("kind = \"nfs\"\nexport = \"h:/e\"\noptions = [\"rw\", \"sec=krb5\"]"),
                "kdump.toml:5: options: sec=krb5 needs tickets and a daemon that no image has; export to this machine with \
                 sec=sys",
            ),
            (
                target("kind = \"cifs\"\nshare = \"//h/s\"\noptions = [\"_netdev\", \"credentials=/x\"]"),
                "kdump.toml:5: options: the option `credentials` belongs into a file that only root can read; name it with \
                 `credentials`",
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
    fn everything_that_is_wrong_is_told_at_once_and_a_misspelt_word_is_known() {
        let text = "path = \"/a/../b\"\nlog_level = 9\n[[target]]\nkind = \"tape\"\n[limits]\nstall = 0\n[kernel]\nsyscall = \"x\"\n";
        let mut complaints = Complaints::default();
        Native::examine(text, Path::new("kdump.toml"), &mut complaints);
        let lines: Vec<String> = complaints.errors();
        let places: Vec<&str> = lines.iter().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(
            places,
            ["kdump.toml:1:", "kdump.toml:6:", "kdump.toml:4:", "kdump.toml:8:", "kdump.toml:2:"],
            "{lines:?}"
        );
        let error = parse("failure_acton = \"halt\"").unwrap_err().to_string();
        assert!(error.ends_with("; was `failure_action` meant?"), "{error}");
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
