//! Debian's `/etc/default/kdump-tools`.
//!
//! In: what the file sets. Out: the model that kdump.conf fills too. What is not set is as here, not as there: the
//! collector, for one, packs with zstd.
//! May surprise: Debian does each of FTP, SSH and NFS, in that order; here they are targets, and the first that has the
//! dump is the last that is tried. The two links of which the file as shipped speaks are kept by kdump-config; who has
//! not changed these lines gets the running kernel, and an image beside it.

use super::assignments::Variables;
use super::collector::{Collector, OURS};
use super::values::{self, directory, from_str, program};
use super::{Complaints, Given, KdumpConf, Origin, Sysconfig, TargetLine, Wanted};
use anyhow::{Context, bail};
use kdump_hooks::nfs::Nfs;
use kdump_hooks::remote::{Login, Password, Protocol, Remote, is_host};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

/// Where it is, below the root.
pub const PATH: &str = "etc/default/kdump-tools";

/// Settings of the capture kernel alone, below the root.
const SYSCTL: &str = "etc/kdump/sysctl.conf";

/// The links that kdump-config keeps.
const LINKS: [&str; 2] = ["/var/lib/kdump/vmlinuz", "/var/lib/kdump/initrd.img"];

/// Debian waits that long between two tries to reach a machine by SSH.
const BETWEEN_TRIES: u64 = 3;

/// All variables.
pub(super) const VARIABLES: [&str; 24] = [
    "USE_KDUMP",
    "KDUMP_KERNEL",
    "KDUMP_INITRD",
    "KDUMP_COREDIR",
    "KDUMP_FAIL_CMD",
    "KDUMP_DUMP_DMESG",
    "KDUMP_NUM_DUMPS",
    "KDUMP_COMPRESSION",
    "MAKEDUMP_ARGS",
    "KDUMP_KEXEC_ARGS",
    "KDUMP_CMDLINE",
    "KDUMP_CMDLINE_APPEND",
    "HOSTTAG",
    "NFS",
    "NFS_TIMEO",
    "NFS_RETRANS",
    "NFS_MOUNT_RETRY",
    "FTP",
    "FTP_USER",
    "FTP_PASSWORD",
    "FTP_PORT",
    "SSH",
    "SSH_KEY",
    "SSH_KDUMP_RETRY",
];

/// Those that `/etc/sysconfig/kdump` may have, too.
pub(super) const ENDING: [&str; 2] = ["KDUMP_FAIL_CMD", "KDUMP_NUM_DUMPS"];

/// What the text of `file` asks for, on the machine at `root`.
pub fn parse(text: &str, file: &Path, root: &Path, complaints: &mut Complaints) -> (KdumpConf, Sysconfig) {
    let (mut dump, mut system) = (KdumpConf::default(), Sysconfig::default());
    let mut variables = Variables::read(text, file, complaints);
    loading(&mut variables, &mut system, file);
    if let Some(path) = variables.made("KDUMP_COREDIR", absolute) {
        dump.path = path;
    }
    if let Some(collector) = variables.made("MAKEDUMP_ARGS", |args| Collector::parse(&format!("{OURS} {args}"))) {
        dump.collector = collector;
    }
    variables.refuse(
        "KDUMP_COMPRESSION",
        "is not supported: a dump that is packed as a whole cannot be opened; its pages are packed each for itself \
         instead, take the line out or write MAKEDUMP_ARGS=\"-z -d 31\"",
    );
    if let Some(dmesg) = variables.switch("KDUMP_DUMP_DMESG").filter(|dmesg| !dmesg.value) {
        let why = "the log is saved before anything else; take the line out";
        variables.complaints.warn(&dmesg.origin, format!("KDUMP_DUMP_DMESG=0 has no effect: {why}"));
    }
    ending(&mut variables, &mut system);
    ftp(&mut variables, &mut dump);
    ssh(&mut variables, &mut dump, &mut system);
    nfs(&mut variables, &mut dump);
    if let [first, second, ..] = dump.targets.as_slice() {
        variables.complaints.warn(
            &second.origin,
            format!("the dump goes here only if {} does not get it; Debian sends it to both", first.origin),
        );
    }
    host_tag(&mut variables, dump.targets.is_empty());
    let sysctl = root.join(SYSCTL);
    system.sysctl = sysctl.is_file().then(|| Given::at(Path::new("/").join(SYSCTL), &Origin::file(&sysctl)));
    variables.finish(&VARIABLES);
    (dump, system)
}

/// What is about the capture kernel.
fn loading(variables: &mut Variables, system: &mut Sysconfig, file: &Path) {
    // As Debian has it, what is not set is 0.
    let off = Given::at(false, &Origin::file(file));
    let asked = variables.has("USE_KDUMP");
    let enabled = variables.switch("USE_KDUMP");
    system.enabled = if asked { enabled } else { None }.or(Some(off));
    let [kernel, initrd] = LINKS;
    for (name, link, place) in
        [("KDUMP_KERNEL", kernel, &mut system.kernel_file), ("KDUMP_INITRD", initrd, &mut system.image_file)]
    {
        match variables.made(name, program) {
            Some(path) if path.value == Path::new(link) => {
                variables.complaints.note(&path.origin, format!("{name}: it is found without the link {link}"));
            }
            path => *place = path,
        }
    }
    system.commandline = variables.text("KDUMP_CMDLINE");
    system.append = variables.text("KDUMP_CMDLINE_APPEND");
    if let Some(syscall) = variables.made("KDUMP_KEXEC_ARGS", values::kexec_args) {
        system.syscall = syscall.value.map(|value| Given { value, origin: syscall.origin });
    }
}

/// What follows a dump that failed, and how many stay: [`ENDING`].
pub(super) fn ending(variables: &mut Variables, system: &mut Sysconfig) {
    if let Some(command) = variables.made("KDUMP_FAIL_CMD", values::fail_command) {
        system.fail_command = Some(command);
    }
    if let Some(number) = variables.number("KDUMP_NUM_DUMPS", u32::MAX)
        && let Some(keep) = NonZeroU32::new(number.value)
    {
        system.keep = Some(Given { value: keep, origin: number.origin });
    }
}

/// `HOST[:PATH]`.
fn ftp(variables: &mut Variables, dump: &mut KdumpConf) {
    let user = variables.text("FTP_USER");
    let password = variables.text("FTP_PASSWORD");
    let port = variables.made("FTP_PORT", |port| {
        port.parse::<u16>().ok().filter(|port| *port > 0).with_context(|| format!("`{port}` is not a port"))
    });
    let Some(place) = variables.made("FTP", server) else {
        for (name, origin) in [("FTP_USER", user.map(|user| user.origin)), ("FTP_PORT", port.map(|port| port.origin))] {
            if let Some(origin) = origin.filter(|_| !variables.has("FTP")) {
                variables.complaints.warn(&origin, format!("{name} has no effect without FTP"));
            }
        }
        return;
    };
    let Given { value: (host, path), origin } = place;
    if let (None, Some(password)) = (&user, &password) {
        variables.complaints.error(&password.origin, "FTP_PASSWORD is of no use without FTP_USER; name the user");
    }
    let user = user.map(|user| user.value);
    let remote = Remote {
        port: port.map(|port| port.value).filter(|port| *port != Protocol::Ftp.port()),
        login: Login { password: Password(password.map(|given| given.value)), ..Login::default() },
        ..Remote::new(Protocol::Ftp, user.as_deref(), &host, &path)
    };
    let line = Wanted { path: Some(path), ..Wanted::from(TargetLine::Remote(remote)) };
    dump.targets.push(Given { value: line, origin });
}

fn server(text: &str) -> anyhow::Result<(String, PathBuf)> {
    let (host, path) = text.split_once(':').unwrap_or((text, "/"));
    if !is_host(host) {
        bail!("`{host}` is neither the name nor the address of a host; write HOST or HOST:PATH");
    }
    Ok((host.to_owned(), directory(path)?))
}

/// `USER@HOST`; the path is KDUMP_COREDIR.
fn ssh(variables: &mut Variables, dump: &mut KdumpConf, system: &mut Sysconfig) {
    let key = variables.made("SSH_KEY", program);
    let retries = variables.number("SSH_KDUMP_RETRY", 10_000);
    let Some(remote) = variables.made("SSH", values::ssh) else {
        if let Some(key) = key.filter(|_| !variables.has("SSH")) {
            variables.complaints.warn(&key.origin, "SSH_KEY has no effect without SSH");
        }
        return;
    };
    dump.sshkey = key;
    system.net_timeout = retries.map(|given| given.map(|retries| u64::from(retries) * BETWEEN_TRIES));
    dump.targets.push(remote.map(|remote| TargetLine::Remote(remote).into()));
}

/// `HOST:/EXPORT`; dumps are at its top.
fn nfs(variables: &mut Variables, dump: &mut KdumpConf) {
    let options: Vec<(&str, Given<u32>)> = [("timeo", "NFS_TIMEO"), ("retrans", "NFS_RETRANS")]
        .into_iter()
        .filter_map(|(option, name)| Some((option, variables.number(name, u32::MAX)?)))
        .collect();
    if let Some(retry) = variables.number("NFS_MOUNT_RETRY", u32::MAX) {
        let why =
            "the server is tried until the target's time is over; write rd.timeout=SECONDS into KDUMP_CMDLINE_APPEND";
        variables.complaints.warn(&retry.origin, format!("NFS_MOUNT_RETRY has no effect: {why}"));
    }
    let Some(Given { value: export, origin }) = variables.made("NFS", from_str::<Nfs>) else {
        if let Some((option, given)) = options.first().filter(|_| !variables.has("NFS")) {
            variables.complaints.warn(&given.origin, format!("{option}= has no effect without NFS"));
        }
        return;
    };
    let options = options.into_iter().map(|(option, given)| format!("{option}={}", given.value)).collect();
    let value = Wanted { line: TargetLine::Nfs(export), path: Some("/".into()), options };
    dump.targets.push(Given { value, origin });
}

/// By what a dump's directory on another machine is named.
fn host_tag(variables: &mut Variables, is_local: bool) {
    let tag = variables.made("HOSTTAG", |tag| match tag {
        "ip" => Ok(false),
        "hostname" => Ok(true),
        _ => bail!("`{tag}` is neither ip nor hostname"),
    });
    let Some(tag) = tag.filter(|tag| tag.value) else { return };
    match is_local {
        true => variables.complaints.note(&tag.origin, "HOSTTAG counts for dumps to other machines alone"),
        false => variables.complaints.error(
            &tag.origin,
            "HOSTTAG=hostname is not supported: a dump is named after the address that the server sees; write \
             HOSTTAG=ip, and this machine's name at the end of KDUMP_COREDIR",
        ),
    }
}

fn absolute(path: &str) -> anyhow::Result<PathBuf> {
    if !path.starts_with('/') {
        bail!("`{path}` is not an absolute path; write it from / on");
    }
    directory(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (KdumpConf, Sysconfig, Complaints) {
        let mut complaints = Complaints::default();
        let (dump, system) = parse(text, Path::new("kdump-tools"), Path::new("/nowhere"), &mut complaints);
        (dump, system, complaints)
    }

    fn good(text: &str) -> (KdumpConf, Sysconfig) {
        let (dump, system, complaints) = read(text);
        assert!(complaints.errors().is_empty() && complaints.warnings.is_empty(), "{complaints:?}");
        (dump, system)
    }

    #[test]
    fn what_is_not_switched_on_is_off() {
        for (text, enabled) in [("", false), ("USE_KDUMP=", false), ("USE_KDUMP=0", false), ("USE_KDUMP=1", true)] {
            assert_eq!(good(text).1.enabled.unwrap().value, enabled, "{text}");
        }
    }

    #[test]
    fn other_machines_are_targets_in_debian_s_order() {
        let text = "NFS=nas:/srv/crash\nNFS_TIMEO=50\nSSH=dump@far\nSSH_KEY=/root/key\nSSH_KDUMP_RETRY=4\n\
                    FTP=drop:/in\nFTP_USER=me\nFTP_PASSWORD=secret\nFTP_PORT=2121\nKDUMP_COREDIR=/srv\n";
        let (dump, system, complaints) = read(text);
        assert!(complaints.errors().is_empty(), "{complaints:?}");
        assert!(!format!("{dump:?}{complaints:?}").contains("secret"));
        let [ftp, ssh, nfs] = &dump.targets[..] else { panic!("{:?}", dump.targets) };
        let TargetLine::Remote(remote) = &ftp.value.line else { panic!() };
        assert_eq!(remote.to_string(), "ftp://me@drop:2121/in");
        assert_eq!(remote.login.password.0.as_deref(), Some("secret"));
        assert_eq!(ftp.value.path.as_deref(), Some(Path::new("/in")));
        let TargetLine::Remote(remote) = &ssh.value.line else { panic!() };
        assert_eq!((remote.server.as_str(), &ssh.value.path), ("far", &None));
        assert_eq!(dump.sshkey.unwrap().value, Path::new("/root/key"));
        assert_eq!(system.net_timeout.unwrap().value, 12);
        assert_eq!((nfs.value.options.as_slice(), &nfs.value.path), (&["timeo=50".to_owned()][..], &Some("/".into())));
        let [both] = &complaints.warnings[..] else { panic!("{complaints:?}") };
        assert!(both.starts_with("kdump-tools:3: the dump goes here only if kdump-tools:6 does not get it"), "{both}");
    }

    #[test]
    fn the_links_of_kdump_config_are_not_needed_and_other_files_are_taken() {
        let (_, system) = good("KDUMP_KERNEL=/var/lib/kdump/vmlinuz\nKDUMP_INITRD=/var/lib/kdump/initrd.img\n");
        assert_eq!((system.kernel_file, system.image_file), (None, None));
        let (_, system) = good("KDUMP_KERNEL=/boot/vmlinuz-6.1\nKDUMP_INITRD=/boot/dump.img\n");
        assert_eq!(system.kernel_file.unwrap().value, Path::new("/boot/vmlinuz-6.1"));
        assert_eq!(system.image_file.unwrap().value, Path::new("/boot/dump.img"));
    }

    #[test]
    fn what_cannot_be_followed_is_told_with_its_line_and_the_remedy() {
        for (text, message) in [
            ("SSH=far", "kdump-tools:1: SSH: `far` is not USER@HOST; write such as `ssh dump@nas`"),
            (
                "FTP=-x",
                "kdump-tools:1: FTP: `-x` is neither the name nor the address of a host; write HOST or HOST:PATH",
            ),
            (
                "KDUMP_COREDIR=crash",
                "kdump-tools:1: KDUMP_COREDIR: `crash` is not an absolute path; write it from / on",
            ),
            ("\nNFS_TIMO=5", "kdump-tools:2: there is no variable NFS_TIMO; was NFS_TIMEO meant?"),
            ("USE_KDUMP=maybe", "kdump-tools:1: USE_KDUMP: `maybe` is neither true nor false"),
            ("FTP=nas\nFTP_PASSWORD=x", "kdump-tools:2: FTP_PASSWORD is of no use without FTP_USER; name the user"),
            ("KDUMP_KEXEC_ARGS=--elf64-core-headers", "kdump-tools:1: KDUMP_KEXEC_ARGS: `--elf64-core-headers` is not"),
            ("KDUMP_COMPRESSION=xz", "kdump-tools:1: KDUMP_COMPRESSION is not supported: a dump that is packed as a"),
            ("HOSTTAG=hostname\nNFS=nas:/x", "kdump-tools:1: HOSTTAG=hostname is not supported"),
            // Debian gives this to no shell either, so that it never did what its documentation says.
            ("KDUMP_FAIL_CMD=\"/bin/bash; reboot -f\"", "kdump-tools:1: KDUMP_FAIL_CMD: a chain of commands asks for"),
        ] {
            let (.., complaints) = read(text);
            let errors = complaints.errors();
            assert!(errors.len() == 1 && errors[0].starts_with(message), "{text}: {errors:?}");
        }
    }
}
