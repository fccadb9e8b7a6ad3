//! What is said and done around [`recover`](super::recover): which device, which directory, which exit code.

use super::{Machine, recover, waiting};
use crate::config::{Config, TargetLine};
use crate::host::sysfs;
use anyhow::{Context, bail};
use kdump_hooks::DeviceSpec;
use recover::Recovered;
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
    let device = match (device, &config) {
        (Some(device), _) => device.to_owned(),
        (None, Some(config)) => configured(machine, config)?
            .context("kdump.conf names no raw target; name the device, as in `kdumpctl recover /dev/sdb1`")?,
        (None, None) => bail!("no device is named"),
    };
    let base = match (to, &config) {
        (Some(to), _) => to.to_owned(),
        (None, Some(config)) => machine.tree.path(&config.dump.path.value),
        (None, None) => bail!("no directory is named"),
    };
    let recovered = recover::recover(&device, &base, machine.programs.as_deref());
    if json {
        writeln!(out, "{:#}", told(&device, &recovered))?;
    }
    match recovered? {
        Some(recovered) => {
            if !json {
                say(&device, &recovered, out)?;
            }
            Ok(if recovered.outcome == "complete" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        None => {
            if !json {
                writeln!(out, "There is no dump on {}", device.display())?;
            }
            Ok(ExitCode::from(NO_DUMP))
        }
    }
}

/// Recovers what is on the configured raw target, before the next crash could overwrite it. That it cannot be done is no
/// reason to leave the machine without kdump.
pub(super) fn before_start(machine: &Machine, config: &Config, out: &mut dyn Write) -> anyhow::Result<()> {
    if !config.dump.is_raw() {
        return Ok(());
    }
    let base = machine.tree.path(&config.dump.path.value);
    let recovered = configured(machine, config).and_then(|device| {
        let device = device.context("kdump.conf names no raw target")?;
        let what = format!("saving what is on {}", device.display());
        let recovered = waiting::while_saying(&what, || recover::recover(&device, &base, machine.programs.as_deref()));
        Ok(recovered?.map(|recovered| (device, recovered)))
    });
    match recovered {
        Ok(Some((device, recovered))) => say(&device, &recovered, out)?,
        Ok(None) => {}
        Err(error) => {
            log::error!("nothing was recovered from the raw target, and the next crash overwrites it: {error:#}");
        }
    }
    Ok(())
}

/// What is on the configured raw target still.
pub(super) fn waiting(machine: &Machine, config: &Config) -> Option<String> {
    match configured(machine, config) {
        Ok(Some(device)) if matches!(recover::has_dump(&device), Ok(false)) => None,
        Ok(Some(device)) => Some(format!("what is on {} has not been recovered", device.display())),
        Ok(None) => None,
        Err(error) => Some(format!("{error:#}")),
    }
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

/// The node of the configured raw target.
fn configured(machine: &Machine, config: &Config) -> anyhow::Result<Option<PathBuf>> {
    let raw = config.dump.targets.iter().find_map(|target| match &target.value.line {
        TargetLine::Raw(device) => Some((target, device)),
        _ => None,
    });
    let Some((target, device)) = raw else { return Ok(None) };
    let node = match device {
        DeviceSpec::Path(path) => Some(machine.tree.path(path)),
        _ => sysfs::block_names(&machine.tree, device)
            .first()
            .map(|name| machine.tree.path("dev").join(name.replace('!', "/"))),
    };
    node.filter(|node| node.exists()).map(Some).with_context(|| format!("{}: {device} is not here", target.origin))
}
