//! The model as a list, each value with its native name and the place it was written at.
//!
//! In: [`Config`]. Out: [`Setting`]s, in the order of `kdump.toml`. `kdumpctl config show` prints them, and `convert`
//! writes them as a `kdump.toml` that reads back as the same list.
//! May surprise: every field of the model is named here once, without `..`, so that a new one that cannot be shown and
//! converted does not compile.

mod write;

pub use write::{Secret, convert};

use super::{
    Config, FailCommand, Given, Image, Include, KdumpConf, OnFailure, Origin, Rebuild, Sysconfig, TargetLine, Wanted,
};
use clap::ValueEnum;
use kdump_hooks::net::{Method, NetConfig, Source};
use kdump_hooks::notify::Notify;
use kdump_hooks::notify::smtp::Mail;
use kdump_hooks::notify::tls::Tls;
use kdump_hooks::remote::Remote;
use kdump_init::config::Limits;
use std::path::Path;
use toml::Value;

/// One value of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Its table in `kdump.toml`; none for what stands at the top. `target` is there once for each of them.
    pub table: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// What it is.
    pub value: Value,
    /// Where it was written.
    pub origin: Origin,
    /// Whether it is not for everybody's eyes.
    pub secret: bool,
}

/// All values, those that nobody set among them where there is a default.
pub fn settings(config: &Config) -> Vec<Setting> {
    let Config { dialect: _, arch: _, dump, system, sources: _, warnings: _ } = config;
    let mut list = List::default();
    top(&mut list, dump, system);
    for target in &dump.targets {
        list.targets(target, &dump.path.value);
    }
    tables(&mut list, dump, system);
    list.settings
}

/// A path as text. Configuration is UTF-8, so that nothing is lost.
fn text(path: &Path) -> Value {
    Value::String(path.to_string_lossy().into_owned())
}

fn string<T: ToString + ?Sized>(value: &T) -> Value {
    Value::String(value.to_string())
}

fn strings<T: ToString>(values: &[T]) -> Value {
    Value::Array(values.iter().map(string).collect())
}

fn number(value: u64) -> Value {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

/// The address as it is read: nothing in it is encoded.
fn url(remote: &Remote, path: &Path) -> String {
    let user = remote.user.as_ref().map_or(String::new(), |user| format!("{user}@"));
    let host = if remote.server.contains(':') { format!("[{}]", remote.server) } else { remote.server.clone() };
    let port = remote.port.map_or(String::new(), |port| format!(":{port}"));
    format!("{}://{user}{host}{port}{}", remote.protocol, path.display())
}

#[derive(Default)]
struct List {
    settings: Vec<Setting>,
}

impl List {
    fn push(&mut self, table: &'static str, name: &'static str, value: Value, origin: &Origin) {
        self.settings.push(Setting { table, name, value, origin: origin.clone(), secret: false });
    }

    fn one<T>(
        &mut self,
        table: &'static str,
        name: &'static str,
        given: Option<&Given<T>>,
        value: impl FnOnce(&T) -> Value,
    ) {
        if let Some(Given { value: inner, origin }) = given {
            self.push(table, name, value(inner), origin);
        }
    }

    /// A list whose values may come from several places; the first counts.
    fn many<T>(&mut self, table: &'static str, name: &'static str, given: &[Given<T>], value: impl Fn(&T) -> Value) {
        if let Some(Given { origin, .. }) = given.first() {
            self.push(table, name, Value::Array(given.iter().map(|one| value(&one.value)).collect()), origin);
        }
    }

    /// The fields of one target.
    fn targets(&mut self, target: &Given<Wanted>, path: &Path) {
        const TARGET: &str = "target";
        let Given { value: Wanted { line, path: own, options }, origin } = target;
        let mut push = |name, value| self.push(TARGET, name, value, origin);
        match line {
            TargetLine::Filesystem { fstype, device } => {
                push("kind", string("filesystem"));
                push("type", string(fstype));
                push("device", string(device));
            }
            TargetLine::Virtiofs(tag) => {
                push("kind", string("virtiofs"));
                push("tag", string(tag));
            }
            TargetLine::Raw(device) => {
                push("kind", string("raw"));
                push("device", string(device));
            }
            TargetLine::Nfs(nfs) => {
                push("kind", string("nfs"));
                push("export", string(nfs.to_string().trim_start_matches("nfs ")));
            }
            TargetLine::Cifs(cifs) => {
                push("kind", string("cifs"));
                push("share", string(cifs.to_string().trim_start_matches("cifs ")));
                if let Some(credentials) = &cifs.credentials {
                    push("credentials", text(credentials));
                }
            }
            TargetLine::Remote(remote) => {
                push("kind", string("remote"));
                let path = own.as_deref().unwrap_or(path);
                push("url", string(&url(remote, path)));
                if let Some(file) = &remote.login.password_file {
                    push("password_file", text(file));
                }
            }
            TargetLine::Pstore => push("kind", string("pstore")),
        }
        if let Some(own) = own.as_ref().filter(|_| !matches!(line, TargetLine::Remote(_) | TargetLine::Raw(_))) {
            push("path", text(own));
        }
        if !options.is_empty() {
            push("options", strings(options));
        }
        match line {
            TargetLine::Remote(remote) if remote.login.password.0.is_some() => {
                self.secret(TARGET, "password", origin);
            }
            TargetLine::Cifs(cifs) if cifs.given.is_some() => self.secret(TARGET, "password", origin),
            _ => {}
        }
    }

    /// Something that is there and is not told.
    fn secret(&mut self, table: &'static str, name: &'static str, origin: &Origin) {
        self.push(table, name, string("(set)"), origin);
        if let Some(last) = self.settings.last_mut() {
            last.secret = true;
        }
    }
}

/// What stands at the top.
fn top(list: &mut List, dump: &KdumpConf, system: &Sysconfig) {
    let KdumpConf { path, raw_force, sshkey, collector, failure_action, final_action, .. } = dump;
    list.one("", "enabled", system.enabled.as_ref(), |enabled| Value::Boolean(*enabled));
    list.one("", "path", Some(path), |path| text(path));
    list.one("", "raw_force", raw_force.as_ref(), |force| Value::Boolean(*force));
    list.one("", "sshkey", sshkey.as_ref(), |key| text(key));
    list.one("", "collector", Some(collector), |collector| string(&collector.argv.join(" ")));
    list.one("", "log_only", dump.log_only.as_ref(), |log| Value::Boolean(*log));
    list.one("", "failure_action", Some(failure_action), |action| match action {
        OnFailure::Action(action) => string(action),
        OnFailure::DumpToRootfs => string("dump_to_rootfs"),
    });
    list.one("", "final_action", Some(final_action), string);
    list.one("", "shell_first", system.immediate_reboot.as_ref(), |immediate| Value::Boolean(!immediate));
    list.one("", "shell_on_failure", system.continue_on_error.as_ref(), |go_on| Value::Boolean(!go_on));
    list.one("", "fail_command", system.fail_command.as_ref(), |command: &FailCommand| string(command));
    list.one("", "rebuild", dump.rebuild.as_ref(), |when| match when {
        Rebuild::Always => string("always"),
        Rebuild::Never => string("never"),
    });
    list.one("", "auto_reset_crashkernel", dump.auto_reset_crashkernel.as_ref(), |reset| Value::Boolean(*reset));
    list.one("", "log_level", system.log_level.as_ref(), |level| number(u64::from(*level)));
    list.one("", "tell_test_result", system.creation_notification.as_ref(), |tell| Value::Boolean(*tell));
}

/// What stands in tables of its own.
fn tables(list: &mut List, dump: &KdumpConf, system: &Sysconfig) {
    // Every field, so that none is forgotten.
    let KdumpConf {
        path: _,
        targets: _,
        raw_force: _,
        when_short,
        sshkey: _,
        collector: _,
        log_only: _,
        failure_action: _,
        final_action: _,
        kdump_pre,
        kdump_post,
        kdump_emergency,
        fence_nodes,
        fence_args,
        forbid_modules,
        extra_modules,
        extra_bins,
        image,
        rebuild: _,
        auto_reset_crashkernel: _,
        limits,
        notify,
    } = dump;
    let Sysconfig {
        enabled: _,
        kernelver,
        kernel_file,
        image_file,
        commandline,
        remove,
        append,
        bootdir,
        img,
        img_ext,
        syscall,
        crashkernel,
        update_bootloader,
        auto_resize,
        panic_on_oops,
        creation_notification: _,
        log_level: _,
        netconfig,
        ssh_identity,
        host_key,
        net_timeout,
        prescript,
        postscript,
        required_programs,
        immediate_reboot: _,
        continue_on_error: _,
        fail_command: _,
        keep,
        free,
        sysctl,
    } = system;
    list.one("room", "keep", keep.as_ref(), |keep| number(u64::from(keep.get())));
    list.one("room", "free", free.as_ref(), |free| number(free >> 20));
    list.one("room", "when_short", when_short.as_ref(), |measures| {
        Value::Array(measures.iter().filter_map(|measure| Value::try_from(measure).ok()).collect())
    });
    let Limits { device, stall, stage, driver } = limits.value;
    for (name, seconds) in [("device", device), ("stall", stall), ("stage", stage), ("driver", driver)] {
        list.push("limits", name, number(seconds), &limits.origin);
    }
    list.one("programs", "pre", kdump_pre.as_ref(), |path| text(path));
    list.one("programs", "post", kdump_post.as_ref(), |path| text(path));
    list.one("programs", "emergency", kdump_emergency.as_ref(), |path| text(path));
    list.one("programs", "before", prescript.as_ref(), |argv| strings(argv));
    list.one("programs", "after", postscript.as_ref(), |argv| strings(argv));
    list.many("image", "modules", extra_modules, string);
    list.many("image", "forbid", forbid_modules, string);
    list.many("image", "files", extra_bins, |path| text(path));
    list.many("image", "programs", required_programs, |path| text(path));
    of_image(list, image);
    list.one("fence", "nodes", fence_nodes.as_ref(), |nodes| strings(nodes));
    list.one("fence", "args", fence_args.as_ref().filter(|_| fence_nodes.is_some()), string);
    if let Some(Given { value, origin }) = notify {
        of_notify(list, value, origin);
    }
    list.one("kernel", "release", kernelver.as_ref(), string);
    list.one("kernel", "file", kernel_file.as_ref(), |path| text(path));
    list.one("kernel", "image", image_file.as_ref(), |path| text(path));
    list.one("kernel", "command_line", commandline.as_ref(), string);
    list.one("kernel", "remove", remove.as_ref(), string);
    list.one("kernel", "append", append.as_ref(), string);
    list.one("kernel", "network", netconfig.as_ref(), of_netconfig);
    list.one("kernel", "boot_dir", bootdir.as_ref(), |path| text(path));
    list.one("kernel", "name", img.as_ref(), string);
    list.one("kernel", "suffix", img_ext.as_ref(), string);
    list.one("kernel", "syscall", syscall.as_ref(), string);
    list.one("kernel", "crashkernel", crashkernel.as_ref(), string);
    list.one("kernel", "update_bootloader", update_bootloader.as_ref(), |update| Value::Boolean(*update));
    list.one("kernel", "auto_resize", auto_resize.as_ref(), |resize| Value::Boolean(*resize));
    list.one("kernel", "panic_on_oops", panic_on_oops.as_ref(), |panics| Value::Boolean(*panics));
    list.one("kernel", "sysctl", sysctl.as_ref(), |path| text(path));
    list.one("remote", "identities", ssh_identity.as_ref(), string);
    list.one("remote", "host_key", host_key.as_ref(), string);
    list.one("remote", "wait", net_timeout.as_ref(), |seconds| number(*seconds));
}

fn of_image(list: &mut List, image: &Image) {
    let Image {
        add_drivers,
        force_drivers,
        omit_drivers,
        filesystems,
        install,
        install_optional,
        include,
        firmware,
        allow_missing_firmware,
        compress,
        hostonly,
        watchdog,
        integrity,
        modsign,
    } = image;
    list.many("image", "drivers", add_drivers, string);
    list.many("image", "first", force_drivers, string);
    list.many("image", "omit", omit_drivers, string);
    list.many("image", "filesystems", filesystems, string);
    list.many("image", "install", install, |path| text(path));
    list.many("image", "optional", install_optional, |path| text(path));
    list.many("image", "include", include, |Include { from, to }| Value::Array(vec![text(from), text(to)]));
    list.many("image", "firmware", firmware, |path| text(path));
    list.one("image", "allow_missing_firmware", allow_missing_firmware.as_ref(), |allowed| Value::Boolean(*allowed));
    list.one("image", "compress", compress.as_ref(), |packing| {
        string(&packing.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned()))
    });
    list.one("image", "hostonly", hostonly.as_ref(), |hostonly| Value::Boolean(*hostonly));
    list.one("image", "watchdog", watchdog.as_ref(), |watchdog| Value::Boolean(*watchdog));
    list.one("image", "integrity", integrity.as_ref(), |wanted| Value::Boolean(*wanted));
    list.one("image", "modsign", modsign.as_ref(), |wanted| Value::Boolean(*wanted));
}

fn of_notify(list: &mut List, notify: &Notify, origin: &Origin) {
    let Notify { host: _, mail, webhook, authorities } = notify;
    if let Some(webhook) = webhook {
        // Who knows the path of such an address may post to it.
        list.push("notify", "webhook", string(&format!("{webhook}{}", webhook.path)), origin);
        if let Some(last) = list.settings.last_mut() {
            last.secret = webhook.path.len() > 1;
        }
    }
    if let Some(authorities) = authorities {
        list.push("notify", "authorities", text(authorities), origin);
    }
    let Some(Mail { host, port, from, to, cc, tls, credentials, login }) = mail else { return };
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let scheme = if *tls == Tls::On { "smtps://" } else { "" };
    list.push("notify.mail", "server", string(&format!("{scheme}{host}:{port}")), origin);
    list.push("notify.mail", "to", strings(to), origin);
    if !cc.is_empty() {
        list.push("notify.mail", "cc", strings(cc), origin);
    }
    if !from.is_empty() {
        list.push("notify.mail", "from", string(from), origin);
    }
    match (login, credentials) {
        (Some(_), _) => list.secret("notify.mail", "password", origin),
        (None, Some(credentials)) => list.push("notify.mail", "credentials", text(credentials), origin),
        (None, None) => {}
    }
    match tls {
        Tls::Starttls => list.push("notify.mail", "starttls", Value::Boolean(true), origin),
        Tls::Off if credentials.is_some() => list.push("notify.mail", "clear", Value::Boolean(true), origin),
        Tls::Off | Tls::On => {}
    }
}

/// As KDUMP_NETCONFIG has it.
fn of_netconfig(netconfig: &NetConfig) -> Value {
    let source = match &netconfig.source {
        Source::Auto => "auto".to_owned(),
        Source::Static(device) => format!("{device}:static"),
        Source::Device(device, method) => {
            let mode = match method {
                Method::Dhcp6 => "dhcp6",
                Method::Auto6 => "auto6",
                Method::Any => "auto",
                _ => "dhcp",
            };
            format!("{device}:{mode}")
        }
    };
    string(&if netconfig.force { format!("{source}:force") } else { source })
}
