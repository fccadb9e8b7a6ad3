//! Values that several dialects write in the same way.
//!
//! In: the text of one value. Out: what it means, or what to write instead; the caller knows the place.

use super::{FailCommand, OnFailure, Syscall};
use anyhow::bail;
use kdump_hooks::DeviceSpec;
use kdump_hooks::filesystem::Filesystem;
use kdump_hooks::remote::{Protocol, Remote, is_host};
use kdump_init::config::{Ending, FailureAction};
use std::num::NonZeroU32;
use std::path::{Component, Path, PathBuf};

const UNSUPPORTED_TARGET: &str = "is not supported by this version; write a file system instead, such as `ext4 UUID=…`";

/// As the hooks make them of text.
pub(super) fn from_str<T: std::str::FromStr<Err = String>>(text: &str) -> anyhow::Result<T> {
    text.parse().map_err(anyhow::Error::msg)
}

/// `failure_action`.
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

/// A file system on a device.
pub(super) fn filesystem(fstype: &str, device: &str) -> anyhow::Result<(String, DeviceSpec)> {
    if !Filesystem::is_known(fstype) {
        bail!("{fstype} {UNSUPPORTED_TARGET}");
    }
    let device: DeviceSpec = from_str(device)?;
    if fstype == "minix" && !matches!(device, DeviceSpec::Path(_)) {
        bail!("a minix file system has neither label nor UUID; write its device, such as /dev/sdb1");
    }
    Ok((fstype.to_owned(), device))
}

/// `user@host`, as RHEL has it: an IPv6 address may stand without brackets.
pub(super) fn ssh(value: &str) -> anyhow::Result<Remote> {
    let place = value.split_once('@').filter(|(user, _)| !user.is_empty() && !user.contains([' ', ':', '/']));
    let Some((user, host)) = place else { bail!("`{value}` is not USER@HOST; write such as `ssh dump@nas`") };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if !is_host(host) || (host.contains(':') && host.parse::<std::net::Ipv6Addr>().is_err()) {
        bail!("`{host}` is neither the name nor the address of a host");
    }
    Ok(Remote::new(Protocol::Ssh, Some(user), host, Path::new("/")))
}

/// A device whose content does not matter.
pub(super) fn raw_device(value: &str) -> anyhow::Result<DeviceSpec> {
    let device: DeviceSpec = from_str(value)?;
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

/// A program by its path, or by its name alone.
pub(super) fn program_or_name(value: &str) -> anyhow::Result<PathBuf> {
    match value.contains('/') {
        true => program(value),
        false => Ok(value.into()),
    }
}

/// An absolute directory without doubled slashes; a relative one is taken from the root of the target.
pub(super) fn directory(value: &str) -> anyhow::Result<PathBuf> {
    match normal(value) {
        // Nor could the address of a server have one.
        Some(_) if value.chars().any(char::is_control) => {
            bail!("`{}` has a control character in it; write the directory without", value.escape_debug())
        }
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

/// The name of a module, not of its file.
pub(super) fn module_name(text: &str) -> anyhow::Result<String> {
    match text.is_empty() || text.contains(|c: char| c.is_whitespace() || c == '/') {
        true => bail!("`{text}` is not the name of a module"),
        false => Ok(text.to_owned()),
    }
}

/// A switch, in the words that SUSE's own scripts take.
pub(super) fn switch(value: &str) -> anyhow::Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        _ => bail!("`{value}` is neither true nor false"),
    }
}

/// A number of at most `most`.
pub(super) fn number(value: &str, most: u32) -> anyhow::Result<u32> {
    match value.parse() {
        Ok(number) if number <= most => Ok(number),
        _ if most == u32::MAX => bail!("`{value}` is not a number that can be followed; write 0 or more"),
        _ => bail!("`{value}` is not a number from 0 to {most}"),
    }
}

/// How many dumps stay with the new one: SUSE counts those before it, 0 is all of them, -1 none.
pub(super) fn keep_old(value: &str) -> anyhow::Result<Option<NonZeroU32>> {
    if value == "-1" {
        return Ok(Some(NonZeroU32::MIN));
    }
    Ok(NonZeroU32::new(number(value, u32::MAX)?).map(|old| old.saturating_add(1)))
}

/// A command, which other programs would give to a shell and which is run without one here.
pub(super) fn command(value: &str) -> anyhow::Result<Vec<String>> {
    if let Some(mark) = value.chars().find(|mark| "|&;<>()$`\\\"'*?[]~{}#!\n".contains(*mark)) {
        bail!("`{mark}` asks for a shell, and none is run here; write a script and name it instead");
    }
    let argv: Vec<String> = value.split_whitespace().map(str::to_owned).collect();
    match argv.first() {
        Some(first) => program(first).map(|_| argv),
        None => bail!("it names no program"),
    }
}

/// The words by which Debian's documentation ends a machine, or one program.
pub(super) fn fail_command(value: &str) -> anyhow::Result<FailCommand> {
    if value.contains([';', '&', '|']) {
        bail!(
            "a chain of commands asks for a shell, and none is run here; put programs into /etc/kdump/emergency.d, and \
             write the last command alone: reboot -f, halt -f or poweroff -f"
        );
    }
    let words: Vec<&str> = value.split_whitespace().collect();
    if let [program, rest @ ..] = words.as_slice()
        && rest.iter().all(|word| matches!(*word, "-f" | "--force"))
    {
        let name = program.strip_prefix("/sbin/").or(program.strip_prefix("/usr/sbin/")).unwrap_or(program);
        if let Ok(ending) = name.parse::<Ending>() {
            return Ok(FailCommand::End(ending));
        }
    }
    command(value).map(FailCommand::Run)
}

/// What is said to kexec; only how it loads can be chosen here.
pub(super) fn kexec_args(value: &str) -> anyhow::Result<Option<Syscall>> {
    let mut syscall = None;
    for word in value.split_whitespace() {
        syscall = Some(match word {
            "-s" | "--kexec-file-syscall" => Syscall::File,
            "-c" | "--kexec-syscall" => Syscall::Load,
            "-a" | "--kexec-syscall-auto" => Syscall::Auto,
            "-p" | "--load-panic" => continue,
            // The command line is never taken from POWER's device tree.
            "--dt-no-old-root" => continue,
            word => bail!(
                "`{word}` is not supported: nothing of a kernel's loading can be chosen but the system call; write \
                 -s, -c or -a, or take it out"
            ),
        });
    }
    Ok(syscall)
}
