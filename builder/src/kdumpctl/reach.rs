//! Whether the machines that dumps go to let this one in.
//!
//! In: the configured targets by ssh, sftp, ftp and ftps. Out: for each, whether kdump-send can log in and make the
//! directory of all dumps there, with the keys and passwords that the image has.
//!
//! May surprise: it is asked after loading, without the lock: the network may come up later than the capture kernel is
//! wanted, and what is wrong there is no reason to be without one here.

use super::Machine;
use crate::config::{Config, TargetLine};
use crate::gather::programs::Programs;
use crate::remote;
use anyhow::{Context, bail};
use kdump_hooks::net::dns;
use kdump_hooks::remote::{AUTHORITIES, PROGRAM, Protocol, Remote};
use kdump_init::sys::LinuxNet;
use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long kdump.service waits for a network that is not up yet, as RHEL's does, and for a machine that does not answer
/// though the network is up.
const NETWORK: Duration = Duration::from_secs(180);
const ANSWER: Duration = Duration::from_secs(20);
const BETWEEN_TRIES: Duration = Duration::from_secs(2);
/// How often it is said that it waits.
const BETWEEN_LINES: Duration = Duration::from_secs(10);
/// Without progress for so many seconds kdump-send has failed, and after this limit in any case.
const PATIENCE: &str = "20";
const LIMIT: Duration = Duration::from_secs(90);
/// Its exit if nobody answers.
const NOBODY: i32 = 2;

/// A target, and whether it lets this machine in.
pub(super) type Answer = (Remote, anyhow::Result<()>);

/// How long a start waits: only systemd starts it before the network may be there.
pub(super) fn patience() -> Duration {
    if is_by_systemd() { NETWORK } else { Duration::ZERO }
}

/// Whether a unit runs this.
pub(super) fn is_by_systemd() -> bool {
    std::env::var_os("INVOCATION_ID").is_some()
}

/// Warns of the targets to which no dump would get. Those where nobody answers are tried again for so long.
pub(super) fn warn(machine: &Machine, wait: Duration) {
    for (target, answer) in of(machine, wait) {
        match answer {
            Ok(()) => log::debug!("{target} lets this machine in"),
            Err(error) if target.protocol.is_ssh() => log::warn!(
                "a dump would not get to {target}: {error:#}; where it is the key that is missing there, `kdumpctl propagate` \
                 brings it"
            ),
            Err(error) => log::warn!("a dump would not get to {target}: {error:#}"),
        }
    }
}

/// Asks all of them.
pub(super) fn of(machine: &Machine, wait: Duration) -> Vec<Answer> {
    // What is wrong with the configuration is told elsewhere.
    let Ok(config) = Config::read(&machine.files) else { return Vec::new() };
    let mut answers = Vec::new();
    for wanted in &config.dump.targets {
        let TargetLine::Remote(remote) = &wanted.value.line else { continue };
        let path = wanted.value.path.as_ref().unwrap_or(&config.dump.path.value);
        let remote = remote::complete(remote, path, &config, &machine.tree, &mut Vec::new());
        let answer = patiently(machine, &remote, wait);
        answers.push((remote, answer));
    }
    answers
}

fn patiently(machine: &Machine, remote: &Remote, wait: Duration) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut said = Duration::ZERO;
    loop {
        let (silence, wait) = match once(machine, remote)? {
            Answered::Well => return Ok(()),
            Answered::Nobody(why) => (why, wait.min(ANSWER)),
            Answered::NoWay(why) => (why, wait),
        };
        let waited = began.elapsed();
        if waited + BETWEEN_TRIES > wait {
            bail!("{silence}");
        }
        if waited >= said + BETWEEN_LINES {
            said = waited;
            log::info!("waiting for {remote}, {} of {} s: {silence}", waited.as_secs(), wait.as_secs());
        }
        thread::sleep(BETWEEN_TRIES);
    }
}

enum Answered {
    Well,
    /// There is a way to it, and nobody is there.
    Nobody(String),
    /// The network may not be up yet.
    NoWay(String),
}

fn once(machine: &Machine, remote: &Remote) -> anyhow::Result<Answered> {
    let tree = &machine.tree;
    let address = match tree.is_this_machine() {
        true => dns::resolve(&mut LinuxNet::default(), &remote.server),
        false => remote
            .server
            .parse::<IpAddr>()
            .with_context(|| format!("nobody here knows the address of {}", remote.server)),
    };
    let address = match address {
        Ok(address) => address,
        Err(error) => return Ok(Answered::NoWay(format!("{error:#}"))),
    };
    let secrets = tempfile::tempdir().context("cannot make a directory for secrets")?;
    let mut command = Command::new(Programs::find(machine.programs.as_deref())?.place(PROGRAM)?);
    command.args(["--message-level", "4", "--timeout", PATIENCE, "--host-name", &remote.server]);
    log_in(machine, remote, secrets.path(), &mut command)?;
    command.arg(Remote { server: address.to_string(), ..remote.clone() }.to_string()).arg("check");
    let (code, text) = ended(&mut command)?;
    match code {
        Some(0) => Ok(Answered::Well),
        Some(NOBODY) if has_way(address) => Ok(Answered::Nobody(text)),
        Some(NOBODY) => Ok(Answered::NoWay(text)),
        _ => bail!("{text}"),
    }
}

/// Whether the kernel knows a way there. Nothing is sent.
fn has_way(address: IpAddr) -> bool {
    let here: IpAddr = if address.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    UdpSocket::bind((here, 0)).and_then(|socket| socket.connect((address, 9))).is_ok()
}

/// The options by which kdump-send logs in, with what it reads in `dir`.
fn log_in(machine: &Machine, remote: &Remote, dir: &Path, command: &mut Command) -> anyhow::Result<()> {
    let tree = &machine.tree;
    let file = |path: &Path| tree.path(path.strip_prefix("/").unwrap_or(path));
    let write = |name: &str, text: String| -> anyhow::Result<PathBuf> {
        let path = dir.join(name);
        let opened = fs::File::options().write(true).create_new(true).mode(0o600).open(&path);
        let written = opened.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
        written.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    };
    if remote.protocol.is_ssh() {
        let identity = remote.login.identity.as_deref().context("no private key is known")?;
        command.arg("--identity").arg(file(identity));
        if remote.any_host {
            command.arg("--any-host");
        } else {
            let lines = remote.login.host_keys.iter().map(|key| format!("{} {key}\n", remote.known_as()));
            command.arg("--known-hosts").arg(write("hosts", lines.collect())?);
        }
    } else if remote.user.is_some() {
        let password = match (&remote.login.password.0, &remote.login.password_file) {
            (None, Some(path)) => {
                let text = fs::read_to_string(file(path)).with_context(|| format!("cannot read {}", path.display()))?;
                text.lines().next().unwrap_or_default().to_owned()
            }
            (password, _) => password.clone().unwrap_or_default(),
        };
        command.arg("--password-file").arg(write("password", format!("{password}\n"))?);
    }
    if remote.protocol == Protocol::Ftps {
        let authorities = AUTHORITIES.iter().map(|name| file(Path::new(name))).find(|path| path.is_file());
        command.arg("--ca-file").arg(authorities.context("no file says who vouches for servers")?);
    }
    Ok(())
}

/// How a program ended, and what it said last.
fn ended(command: &mut Command) -> anyhow::Result<(Option<i32>, String)> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {PROGRAM}"))?;
    let began = Instant::now();
    let status = loop {
        match child.try_wait().with_context(|| format!("cannot wait for {PROGRAM}"))? {
            Some(status) => break status,
            None if began.elapsed() > LIMIT => {
                let _ = child.kill();
                let _ = child.wait();
                bail!("{PROGRAM} did not end within {} s", LIMIT.as_secs());
            }
            None => thread::sleep(Duration::from_millis(50)),
        }
    };
    let mut text = Vec::new();
    if let Some(mut errors) = child.stderr.take() {
        errors.read_to_end(&mut text).with_context(|| format!("cannot read what {PROGRAM} says"))?;
    }
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    Ok((status.code(), last.map_or_else(|| format!("{PROGRAM} ended with {status}"), str::to_owned)))
}
