//! SUSE's variables in `/etc/sysconfig/kdump`.
//!
//! In: what the file sets. Out: the model that kdump.conf fills too; where both say the same thing differently, both
//! places are named.
//! May surprise: where there is no kdump.conf, KDUMP_COMMANDLINE_APPEND comes behind the usual options, since SUSE's
//! scripts have their own; elsewhere it takes their place.

mod savedir;

pub use savedir::Savedir;

use super::assignments::Variables;
use super::collector::{Collector, OURS};
use super::{Dialect, Given, KdumpConf, Origin, Sysconfig, append, fence, values};
use crate::crashkernel::Arch;
use anyhow::{Context, bail};
use kdump_hooks::cifs::Credentials;
use kdump_hooks::net::NetConfig;
use kdump_hooks::notify::Notify;
use kdump_hooks::notify::smtp::{self, Mail};
use kdump_hooks::notify::tls::Tls;
use kdump_hooks::ssh_key;

/// Those that no other dialect has.
pub(super) const VARIABLES: [&str; 32] = [
    "KDUMP_CRASHKERNEL",
    "KDUMP_UPDATE_BOOTLOADER",
    "KDUMP_CPUS",
    "KDUMP_AUTO_RESIZE",
    "KDUMP_FADUMP",
    "KDUMP_FADUMP_SHELL",
    "KEXEC_OPTIONS",
    "MAKEDUMPFILE_OPTIONS",
    "KDUMP_IMMEDIATE_REBOOT",
    "KDUMP_TRANSFER",
    "KDUMP_SAVEDIR",
    "KDUMP_KEEP_OLD_DUMPS",
    "KDUMP_FREE_DISK_SIZE",
    "KDUMP_VERBOSE",
    "KDUMP_DUMPLEVEL",
    "KDUMP_DUMPFORMAT",
    "KDUMP_CONTINUE_ON_ERROR",
    "KDUMP_REQUIRED_PROGRAMS",
    "KDUMP_PRESCRIPT",
    "KDUMP_POSTSCRIPT",
    "KDUMP_NETCONFIG",
    "KDUMP_NET_TIMEOUT",
    "KDUMP_SMTP_SERVER",
    "KDUMP_SMTP_USER",
    "KDUMP_SMTP_PASSWORD",
    "KDUMP_SMTP_TIMEOUT",
    "KDUMP_NOTIFICATION_TO",
    "KDUMP_NOTIFICATION_CC",
    "KDUMP_HOST_KEY",
    "KDUMP_SSH_IDENTITY",
    "KDUMPTOOL_FLAGS",
    "KDUMP_COPY_KERNEL",
];

/// Where an image has what the variables say of user and password of the mail server.
const CREDENTIALS: &str = "/etc/kdump/mail.credentials";

/// Bits of KDUMP_VERBOSE that make kdumpctl itself say more.
const TALKATIVE: u32 = 1 | 4 | 8 | 16;

/// Follows them. `alone` where there is no kdump.conf.
pub(super) fn follow(variables: &mut Variables, dump: &mut KdumpConf, system: &mut Sysconfig, alone: bool, arch: Arch) {
    loading(variables, system, alone, arch);
    saving(variables, dump, system);
    programs(variables, dump, system);
    others(variables, dump, system);
}

/// What is about the capture kernel and its reserved memory.
fn loading(variables: &mut Variables, system: &mut Sysconfig, alone: bool, arch: Arch) {
    if let Some(Given { value, origin }) = system.kernelver.take_if(|given| given.value.starts_with('/')) {
        system.kernel_file = variables.complaints.take("KDUMP_KERNELVER", &origin, values::program(&value));
    }
    let cpus = variables.number("KDUMP_CPUS", u32::MAX);
    let dialect = if alone { Dialect::Suse } else { Dialect::Rhel };
    system.append =
        append::compose((dialect, arch), system.append.take(), alone && system.commandline.is_none(), cpus.as_ref());
    if let Some(syscall) = variables.made("KEXEC_OPTIONS", values::kexec_args) {
        system.syscall = syscall.value.map(|value| Given { value, origin: syscall.origin });
    }
    system.crashkernel = variables.made("KDUMP_CRASHKERNEL", crashkernel);
    system.update_bootloader = variables.switch("KDUMP_UPDATE_BOOTLOADER");
    system.auto_resize = variables.switch("KDUMP_AUTO_RESIZE");
    let fadump = variables.switch("KDUMP_FADUMP");
    if let Some(fadump) = fadump.filter(|fadump| fadump.value) {
        variables.complaints.error(&fadump.origin, "KDUMP_FADUMP: only POWER has fadump; write KDUMP_FADUMP=false");
    }
    // It says what follows a dump by fadump.
    let _ = variables.switch("KDUMP_FADUMP_SHELL");
    if let Some(verbose) = variables.number("KDUMP_VERBOSE", 31).filter(|bits| bits.value & TALKATIVE != 0) {
        system.log_level = Some(verbose.map(|_| 4));
    }
    for (name, why) in [
        ("KDUMPTOOL_FLAGS", "has not had an effect since kdumptool was written anew; take the line out"),
        ("KDUMP_COPY_KERNEL", "has no effect any more: the kernel is loaded from where it is; take the line out"),
    ] {
        variables.warn(name, why);
    }
}

/// `auto`, or the options themselves.
pub(super) fn crashkernel(value: &str) -> anyhow::Result<String> {
    let words: Vec<&str> = value.split_whitespace().collect();
    let other = words.iter().find(|word| word.strip_prefix("crashkernel=").is_none_or(str::is_empty));
    match other {
        Some(_) if words == ["auto"] => {}
        Some(word) => bail!("`{word}` is not followed; write `auto`, or crashkernel=… as on the kernel command line"),
        None => {}
    }
    Ok(words.join(" "))
}

/// Where and how the dump is written.
fn saving(variables: &mut Variables, dump: &mut KdumpConf, system: &mut Sysconfig) {
    if let Some(savedir) = variables.made("KDUMP_SAVEDIR", Savedir::parse) {
        match dump.place_said() {
            Some(other) => variables.complaints.error(
                &savedir.origin,
                format!("KDUMP_SAVEDIR says where dumps go, and {other} does so too; keep one of the two"),
            ),
            None => {
                dump.path = Given::at(savedir.value.path, &savedir.origin);
                dump.targets =
                    savedir.value.target.map(|line| Given::at(line.into(), &savedir.origin)).into_iter().collect();
            }
        }
    }
    system.keep = variables
        .made("KDUMP_KEEP_OLD_DUMPS", values::keep_old)
        .and_then(|Given { value, origin }| Some(Given { value: value?, origin }));
    system.free = variables.number("KDUMP_FREE_DISK_SIZE", u32::MAX).map(|mib| mib.map(|mib| u64::from(mib) << 20));
    collector(variables, dump);
    variables.refuse(
        "KDUMP_TRANSFER",
        "is not supported: nothing but the collector takes the dump; write KDUMP_POSTSCRIPT for what is to be done \
         with it afterwards",
    );
}

/// What KDUMP_DUMPFORMAT, KDUMP_DUMPLEVEL and MAKEDUMPFILE_OPTIONS make of the collector.
fn collector(variables: &mut Variables, dump: &mut KdumpConf) {
    let format = variables.made("KDUMP_DUMPFORMAT", |format| match format {
        "ELF" | "elf" => Ok("-E"),
        "compressed" => Ok("-c"),
        "lzo" => Ok("-l"),
        "snappy" => Ok("-p"),
        "zstd" => Ok("-z"),
        // All of memory as it is: an ELF file without a filter.
        "raw" => Ok("-E -d 0"),
        "none" => Ok(""),
        other => bail!("`{other}` is not a format; write ELF, compressed, lzo, snappy, zstd, raw or none"),
    });
    let level = variables.number("KDUMP_DUMPLEVEL", 31);
    let options = variables.text("MAKEDUMPFILE_OPTIONS");
    if let Some(none) = format.as_ref().filter(|format| format.value.is_empty()) {
        // Levels and options stand in the file as shipped, too.
        dump.log_only = Some(Given::at(true, &none.origin));
        return;
    }
    let places = [
        format.as_ref().map(|given| &given.origin),
        level.as_ref().map(|given| &given.origin),
        options.as_ref().map(|given| &given.origin),
    ];
    let Some(origin) = places.into_iter().flatten().min().cloned() else { return };
    if let Origin::Line(..) = &dump.collector.origin {
        let place = &dump.collector.origin;
        variables.complaints.error(
            &origin,
            format!(
                "SUSE's variables say how the dump is written, and core_collector at {place} does so too; keep one"
            ),
        );
        return;
    }
    let is_raw = format.as_ref().is_some_and(|format| format.value.ends_with("-d 0"));
    let format = format.map_or("-z", |format| format.value);
    let level = match level.map_or(31, |level| level.value) {
        _ if is_raw => String::new(),
        level => format!("-d {level}"),
    };
    let options = options.map_or(String::new(), |options| options.value);
    let line = format!("{OURS} {format} --message-level 7 {level} {options}");
    if let Some(collector) = variables.complaints.take("MAKEDUMPFILE_OPTIONS", &origin, Collector::parse(&line)) {
        dump.collector = collector;
    }
}

/// What runs before and after, and how it ends.
fn programs(variables: &mut Variables, dump: &mut KdumpConf, system: &mut Sysconfig) {
    system.prescript = variables.made("KDUMP_PRESCRIPT", values::command);
    system.postscript = variables.made("KDUMP_POSTSCRIPT", values::command);
    // SUSE's documentation has the fence of a cluster there.
    let is_fence = |argv: &[String]| argv.first().is_some_and(|program| program.ends_with("/fence_kdump_send"));
    if let Some(Given { value, origin }) = system.postscript.take_if(|given| is_fence(&given.value)) {
        let arguments = value.get(1..).unwrap_or_default().join(" ");
        match fence::Options::with_nodes(&arguments).context("KDUMP_POSTSCRIPT") {
            Ok((_, nodes)) if nodes.is_empty() => {
                variables
                    .complaints
                    .error(&origin, "KDUMP_POSTSCRIPT: fence_kdump_send has nobody to tell; name nodes");
            }
            Ok(_) if dump.fence_nodes.is_some() => variables.complaints.error(
                &origin,
                "KDUMP_POSTSCRIPT: fence_kdump_send is run, and fence_kdump_nodes says so too; keep one of the two",
            ),
            Ok((options, nodes)) => {
                dump.fence_args = Some(Given::at(options, &origin));
                dump.fence_nodes = Some(Given { value: nodes, origin });
            }
            Err(problem) => variables.complaints.fail(&origin, problem),
        }
    }
    if let Some(Given { value, origin }) = variables.text("KDUMP_REQUIRED_PROGRAMS") {
        let mut program =
            |name: &str| variables.complaints.take("KDUMP_REQUIRED_PROGRAMS", &origin, values::program_or_name(name));
        system.required_programs = value.split_whitespace().filter_map(&mut program).collect();
    }
    system.immediate_reboot = variables.switch("KDUMP_IMMEDIATE_REBOOT");
    system.continue_on_error = variables.switch("KDUMP_CONTINUE_ON_ERROR");
}

/// The other machines: how they are reached, and who is told.
fn others(variables: &mut Variables, dump: &mut KdumpConf, system: &mut Sysconfig) {
    system.netconfig = variables.made("KDUMP_NETCONFIG", NetConfig::parse);
    system.ssh_identity = variables.text("KDUMP_SSH_IDENTITY");
    system.host_key = variables.made("KDUMP_HOST_KEY", host_key);
    system.net_timeout = variables.made("KDUMP_NET_TIMEOUT", |value| {
        value.parse().ok().with_context(|| format!("`{value}` is not a number of seconds"))
    });
    if let Some(notify) = mail(variables) {
        dump.notify = Some(notify);
    }
}

/// A kind and a key, or any.
pub(super) fn host_key(value: &str) -> anyhow::Result<String> {
    if value != "*" && value.split_whitespace().count() != 2 {
        bail!("write a kind and a key, such as `ssh-ed25519 AAAA…`, or `*`");
    }
    if value != "*" {
        ssh_key::check_host_key(value)?;
    }
    Ok(value.to_owned())
}

/// Who gets mail, if anybody does.
fn mail(variables: &mut Variables) -> Option<Given<Notify>> {
    let made = |text: &str| smtp::server(text).map_err(anyhow::Error::msg);
    let server = variables.made("KDUMP_SMTP_SERVER", made);
    let addresses = |text: &str| smtp::addresses(text).map_err(anyhow::Error::msg);
    let to = variables.made("KDUMP_NOTIFICATION_TO", addresses);
    let cc = variables.made("KDUMP_NOTIFICATION_CC", addresses);
    let (user, password) = (variables.text("KDUMP_SMTP_USER"), variables.text("KDUMP_SMTP_PASSWORD"));
    variables.note("KDUMP_SMTP_TIMEOUT", "mail has a limit of its own");
    if let (None, Some(cc)) = (&to, &cc) {
        let why = "KDUMP_NOTIFICATION_CC without KDUMP_NOTIFICATION_TO: nobody is told; name somebody there";
        variables.complaints.warn(&cc.origin, why);
    }
    let to = to?;
    // As SUSE has it, both together mean that the server is asked for TLS.
    let login = match (user, password) {
        (Some(user), Some(password)) => Some(Credentials { user: user.value, password: password.value, domain: None }),
        (None, None) => None,
        (Some(Given { origin, .. }), None) => {
            variables.complaints.error(&origin, "KDUMP_SMTP_USER needs KDUMP_SMTP_PASSWORD");
            None
        }
        (None, Some(Given { origin, .. })) => {
            variables.complaints.error(&origin, "KDUMP_SMTP_PASSWORD needs KDUMP_SMTP_USER");
            None
        }
    };
    let (host, port, tls) = match server {
        Some(server) => server.value,
        // As SUSE has it, whose mailx then hands it to the machine's own mail server.
        None => {
            variables.complaints.warn(
                &to.origin,
                "KDUMP_NOTIFICATION_TO without KDUMP_SMTP_SERVER: no mail leaves the capture kernel; kdumpctl start hands \
                 it to this machine's own mail server, at 127.0.0.1:25, after the reboot",
            );
            if login.is_some() {
                variables.complaints.error(&to.origin, "KDUMP_SMTP_USER needs KDUMP_SMTP_SERVER; name a mail server");
            }
            ("127.0.0.1".to_owned(), 25, Tls::Off)
        }
    };
    let mail = Mail {
        host,
        port,
        from: String::new(),
        to: to.value,
        cc: cc.map(|cc| cc.value).unwrap_or_default(),
        tls: if login.is_some() && tls.is_off() { Tls::Starttls } else { tls },
        credentials: login.is_some().then(|| CREDENTIALS.into()),
        login,
    };
    Some(Given { value: Notify { mail: Some(mail), ..Notify::default() }, origin: to.origin })
}

/// Whether the file is SUSE's.
pub(super) fn is_suse(variables: &Variables) -> bool {
    VARIABLES.iter().any(|name| variables.has(name))
}
