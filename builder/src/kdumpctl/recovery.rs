//! What is said and done around [`recover`](super::recover): which device, which directory, which exit code.

use super::{Machine, recover, waiting};
use crate::config::{Config, TargetLine};
use crate::host::{mounts, sysfs};
use anyhow::{Context, bail};
use kdump_hooks::DeviceSpec;
use recover::{Recovered, Room};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The exit if there is no dump on the device.
const NO_DUMP: u8 = 3;

/// `kdumpctl recover`.
pub(super) fn run(
    machine: &Machine,
    device: Option<&Path>,
    to: Option<&Path>,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let config = match (device, to) {
        (Some(_), Some(_)) => None,
        _ => Some(Config::read(&machine.files)?),
    };
    let devices = match (device, &config) {
        (Some(device), _) => vec![Ok(device.to_owned())],
        (None, Some(config)) => configured(machine, config),
        (None, None) => bail!("no device is named"),
    };
    if devices.is_empty() {
        let read = config.iter().flat_map(|config| &config.sources).map(|file| file.display().to_string());
        bail!(
            "{} names no raw target; name the device, as in `kdumpctl recover /dev/sdb1`",
            read.collect::<Vec<_>>().join(", ")
        );
    }
    let base = match (to, &config) {
        (Some(to), _) => to.to_owned(),
        (None, Some(config)) => machine.tree.path(&config.dump.path.value),
        (None, None) => bail!("no directory is named"),
    };
    let room = match (to, &config) {
        (None, Some(config)) => room(machine, config, &base),
        _ => Room::default(),
    };
    let (mut complete, mut incomplete, mut errors, mut document) = (false, false, Vec::new(), Vec::new());
    for device in devices {
        let recovered = match &device {
            Ok(device) => recover::recover(device, &base, room, machine.programs.as_deref()),
            Err(error) => Err(anyhow::anyhow!("{error:#}")),
        };
        let device = device.unwrap_or_default();
        match (json, &recovered) {
            (true, _) => document.push(told(&device, &recovered)),
            (false, Ok(Some(recovered))) => say(&device, recovered, out)?,
            (false, Ok(None)) => writeln!(out, "There is no dump on {}", device.display())?,
            (false, Err(_)) => {}
        }
        match recovered {
            Ok(Some(recovered)) if recovered.outcome == "complete" => complete = true,
            Ok(Some(_)) => incomplete = true,
            Ok(None) => {}
            Err(error) => errors.push(error),
        }
    }
    match document.as_slice() {
        [] => {}
        [one] => writeln!(out, "{one:#}")?,
        // Several are one document as well.
        several => writeln!(out, "{:#}", Value::from(several))?,
    }
    let mut errors = errors.into_iter();
    match (errors.next(), complete, incomplete) {
        (Some(first), ..) => Err(errors.fold(first, |first, also| anyhow::anyhow!("{first:#}; and {also:#}"))),
        (None, _, true) => Ok(ExitCode::FAILURE),
        (None, true, false) => Ok(ExitCode::SUCCESS),
        (None, false, false) => Ok(ExitCode::from(NO_DUMP)),
    }
}

/// Recovers what is on the configured raw targets, before the next crash could overwrite it. That it cannot be done is no
/// reason to leave the machine without kdump.
pub(super) fn before_start(machine: &Machine, config: &Config, out: &mut dyn Write) -> anyhow::Result<()> {
    let base = machine.tree.path(&config.dump.path.value);
    let room = room(machine, config, &base);
    for device in configured(machine, config) {
        let recovered = device.and_then(|device| {
            let what = format!("saving what is on {}", device.display());
            let recover = || recover::recover(&device, &base, room, machine.programs.as_deref());
            let recovered = waiting::while_saying(&what, recover)?;
            Ok(recovered.map(|recovered| (device, recovered)))
        });
        match recovered {
            Ok(Some((device, recovered))) => say(&device, &recovered, out)?,
            Ok(None) => {}
            Err(error) => {
                log::error!("nothing was recovered from the raw target, and the next crash overwrites it: {error:#}");
            }
        }
    }
    Ok(())
}

/// What is on the configured raw targets still.
pub(super) fn waiting(machine: &Machine, config: &Config) -> Vec<String> {
    let waits = |device: anyhow::Result<PathBuf>| match device {
        Ok(device) if matches!(recover::has_dump(&device), Ok(false)) => None,
        Ok(device) => Some(format!("what is on {} has not been recovered", device.display())),
        Err(error) => Some(format!("{error:#}")),
    };
    configured(machine, config).into_iter().filter_map(waits).collect()
}

/// What `[room]` says of the directory that dumps are recovered to. Old ones are only removed from a disk of this machine:
/// a share may have those of another one.
fn room(machine: &Machine, config: &Config, base: &Path) -> Room {
    let path = Path::new("/").join(base.strip_prefix(machine.tree.path("/")).unwrap_or(base));
    let is_disk = mounts::holder(&machine.tree, &path).is_ok_and(|holder| holder.source.starts_with("/dev/"));
    let keep = config.system.keep.as_ref().map(|given| given.value);
    Room { keep: keep.filter(|_| is_disk), free: config.system.free.as_ref().map_or(0, |given| given.value) }
}

fn say(device: &Path, recovered: &Recovered, out: &mut dyn Write) -> anyhow::Result<()> {
    let Recovered { directory, outcome, reason } = recovered;
    let why = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    writeln!(out, "Recovered the dump on {} into {} ({outcome}{why})", device.display(), directory.display())?;
    Ok(())
}

fn told(device: &Path, recovered: &anyhow::Result<Option<Recovered>>) -> Value {
    match recovered {
        Ok(Some(Recovered { directory, outcome, reason })) => json!({
            "device": device, "result": "recovered", "directory": directory, "outcome": outcome, "reason": reason,
        }),
        Ok(None) => json!({ "device": device, "result": "no dump" }),
        Err(error) => json!({ "device": device, "result": "failed", "error": format!("{error:#}") }),
    }
}

/// The nodes of the configured raw targets, or why there is none.
fn configured(machine: &Machine, config: &Config) -> Vec<anyhow::Result<PathBuf>> {
    let raw = config.dump.targets.iter().filter_map(|target| match &target.value.line {
        TargetLine::Raw(device) => Some((target, device)),
        _ => None,
    });
    let node = |device: &DeviceSpec| match device {
        DeviceSpec::Path(path) => Some(machine.tree.path(path)),
        _ => sysfs::block_names(&machine.tree, device)
            .first()
            .map(|name| machine.tree.path("dev").join(name.replace('!', "/"))),
    };
    raw.map(|(target, device)| {
        let node = node(device).filter(|node| node.exists());
        node.with_context(|| format!("{}: {device} is not here", target.origin))
    })
    .collect()
}
