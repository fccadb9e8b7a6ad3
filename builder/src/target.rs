//! Where the dump goes: from a directive, or from what holds `path` on this host.
//!
//! In: configuration and host. Out: a target with a name that survives into the capture kernel, and the directory of all
//! dumps inside it. Device nodes are numbered as they are found, so a UUID is put in their place where one is known.

use crate::config::{Config, Given, KdumpConf, TargetLine};
use crate::host::{SystemHost, mounts, sysfs};
use anyhow::{Context, bail};
use kdump_hooks::filesystem::Filesystem;
use kdump_hooks::virtiofs::Virtiofs;
use kdump_hooks::{DeviceSpec, Target};
use std::path::{Path, PathBuf};

/// The target and the directory of all dumps in it.
///
/// # Errors
/// There is no target directive and the host does not tell.
pub fn find(config: &Config, host: &SystemHost, warnings: &mut Vec<String>) -> anyhow::Result<(Target, PathBuf)> {
    match &config.dump.target {
        Some(line) => Ok((named(line, host, warnings)?, config.dump.path.value.clone())),
        None => holder(&config.dump, host).with_context(|| {
            format!(
                "cannot tell which file system holds {} ({})",
                config.dump.path.value.display(),
                config.dump.path.origin
            )
        }),
    }
}

fn named(line: &Given<TargetLine>, host: &SystemHost, warnings: &mut Vec<String>) -> anyhow::Result<Target> {
    let (fstype, device) = match &line.value {
        TargetLine::Filesystem { fstype, device } => (fstype.clone(), device),
        TargetLine::Virtiofs(tag) => return Ok(Target::Virtiofs(Virtiofs { tag: tag.clone() })),
    };
    let device = match device {
        DeviceSpec::Path(path) => {
            match host.devices_are_here.then(|| sysfs::lasting_name(&host.tree, path)).flatten() {
                Some(name) => name,
                None => unnamed(path, line, warnings)?,
            }
        }
        other => other.clone(),
    };
    Ok(Target::Filesystem(Filesystem { fstype, device, options: Vec::new() }))
}

/// A device of which nothing is known but its node.
fn unnamed(path: &Path, line: &Given<TargetLine>, warnings: &mut Vec<String>) -> anyhow::Result<DeviceSpec> {
    let (place, node) = (&line.origin, path.display());
    if path.starts_with("/dev/disk") {
        bail!("{place}: {node} is a name that only udev knows, and it is not on this machine; write UUID=… or LABEL=…");
    }
    if path.starts_with("/dev/mapper") {
        bail!(
            "{place}: {node} is not on this machine, so that it cannot be told what it is put together from; build the \
             image on the machine itself, with the device in use"
        );
    }
    warnings
        .push(format!("{place}: {node} may be another device in the capture kernel; write UUID=… or LABEL=… instead"));
    Ok(DeviceSpec::Path(path.to_owned()))
}

fn holder(conf: &KdumpConf, host: &SystemHost) -> anyhow::Result<(Target, PathBuf)> {
    let remedy = "name the target in kdump.conf, such as `ext4 UUID=…`";
    if !host.devices_are_here {
        bail!("the image is for another machine or kernel; {remedy}");
    }
    let holder = mounts::holder(&host.tree, &conf.path.value)?;
    if holder.fstype == "virtiofs" {
        let path = Path::new("/").join(holder.path);
        return Ok((Target::Virtiofs(Virtiofs { tag: holder.source }), path));
    }
    if !Filesystem::is_known(&holder.fstype) {
        bail!("it is on {}, where this version cannot put a dump; {remedy}", holder.fstype);
    }
    let node = match holder.source.starts_with("/dev/") && holder.source != "/dev/root" {
        true => PathBuf::from(&holder.source),
        false => sysfs::node_of_number(&host.tree, &holder.number)
            .with_context(|| format!("cannot find the device of {}; {remedy}", holder.source))?,
    };
    let device = sysfs::lasting_name(&host.tree, &node).unwrap_or(DeviceSpec::Path(node));
    // The path is told from the root of the whole file system, whichever subvolume is the default one.
    let options = match holder.fstype.as_str() {
        "btrfs" => vec!["subvolid=5".to_owned()],
        _ => Vec::new(),
    };
    let path = Path::new("/").join(holder.path);
    Ok((Target::Filesystem(Filesystem { fstype: holder.fstype, device, options }), path))
}
