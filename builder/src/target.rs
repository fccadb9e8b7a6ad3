//! Where the dump goes: from a directive, or from what holds `path` on this host.
//!
//! In: configuration and host. Out: a target with a name that survives into the capture kernel, and the directory of all
//! dumps inside it. Device nodes are numbered as they are found, so a UUID is put in their place where one is known.

use crate::config::{Config, Given, KdumpConf, TargetLine};
use crate::host::{SystemHost, mounts, sysfs};
use anyhow::{Context, bail};
use kdump_hooks::filesystem::Filesystem;
use kdump_hooks::rootfs::Rootfs;
use kdump_hooks::{DeviceSpec, Target};
use std::path::{Path, PathBuf};

/// The target and the directory of all dumps in it.
///
/// # Errors
/// There is no target directive and the host does not tell.
pub fn find(config: &Config, host: &SystemHost, warnings: &mut Vec<String>) -> anyhow::Result<(Target, PathBuf)> {
    match &config.dump.target {
        Some(line) => Ok((named(line, host, warnings), config.dump.path.value.clone())),
        None => holder(&config.dump, host).with_context(|| {
            format!(
                "cannot tell which file system holds {} ({})",
                config.dump.path.value.display(),
                config.dump.path.origin
            )
        }),
    }
}

fn named(line: &Given<TargetLine>, host: &SystemHost, warnings: &mut Vec<String>) -> Target {
    let TargetLine { fstype, device } = &line.value;
    let device = match device {
        DeviceSpec::Path(path) => match host.devices_are_here.then(|| sysfs::uuid_of(&host.tree, path)).flatten() {
            Some(uuid) => DeviceSpec::Uuid(uuid),
            None => {
                warnings.push(format!(
                    "{}: {} may be another device in the capture kernel; write UUID=… or LABEL=… instead",
                    line.origin,
                    path.display()
                ));
                device.clone()
            }
        },
        other => other.clone(),
    };
    Target::Filesystem(Filesystem { fstype: fstype.clone(), device, options: Vec::new() })
}

/// The root file system of this host as the last target, for `dump_to_rootfs`.
///
/// # Errors
/// The host does not tell where it is, or it is where no dump can go.
pub fn rootfs(host: &SystemHost) -> anyhow::Result<Target> {
    let (filesystem, root) = holder_of(Path::new("/"), host).context("cannot tell what the root file system is")?;
    Ok(Target::Rootfs(Rootfs { path: root.join("var/crash"), filesystem }))
}

fn holder(conf: &KdumpConf, host: &SystemHost) -> anyhow::Result<(Target, PathBuf)> {
    let (filesystem, path) = holder_of(&conf.path.value, host)?;
    Ok((Target::Filesystem(filesystem), path))
}

fn holder_of(path: &Path, host: &SystemHost) -> anyhow::Result<(Filesystem, PathBuf)> {
    let remedy = "name the target in kdump.conf, such as `ext4 UUID=…`";
    if !host.devices_are_here {
        bail!("the image is for another machine or kernel; {remedy}");
    }
    let holder = mounts::holder(&host.tree, path)?;
    if !Filesystem::is_known(&holder.fstype) {
        bail!("it is on {}, where this version cannot put a dump; {remedy}", holder.fstype);
    }
    let node = match holder.source.starts_with("/dev/") && holder.source != "/dev/root" {
        true => PathBuf::from(&holder.source),
        false => sysfs::node_of_number(&host.tree, &holder.number)
            .with_context(|| format!("cannot find the device of {}; {remedy}", holder.source))?,
    };
    let device = sysfs::uuid_of(&host.tree, &node).map_or(DeviceSpec::Path(node), DeviceSpec::Uuid);
    // The path is told from the root of the whole file system, whichever subvolume is the default one.
    let options = match holder.fstype.as_str() {
        "btrfs" => vec!["subvolid=5".to_owned()],
        _ => Vec::new(),
    };
    let path = Path::new("/").join(holder.path);
    Ok((Filesystem { fstype: holder.fstype, device, options }, path))
}
