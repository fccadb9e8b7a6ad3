//! A device without a file system as the target.
//!
//! In: the `raw` directive and the machine. Out: a target with a name that lasts even though everything on the device is
//! overwritten; or a refusal, since what is on the device now may be somebody's.
//!
//! May surprise: with `raw_force yes` in kdump.conf nothing is refused, not even what is in use.

use crate::config::{Given, Wanted};
use crate::host::{SystemHost, Tree, sysfs};
use crate::target;
use anyhow::{Context, bail};
use kdump_hooks::raw::Raw;
use kdump_hooks::{DeviceSpec, Target};
use kdump_init::devices;
use std::fs::{self, File};
use std::path::Path;

/// The target of a `raw` directive.
///
/// # Errors
/// The device holds something or is in use, and `raw_force` does not say yes.
pub fn target(
    device: &DeviceSpec,
    line: &Given<Wanted>,
    force: Option<&Given<bool>>,
    host: &SystemHost,
    warnings: &mut Vec<String>,
) -> anyhow::Result<Target> {
    let force = force.is_some_and(|given| given.value);
    let tree = &host.tree;
    let names = if host.devices_are_here { sysfs::block_names(tree, device) } else { Vec::new() };
    for name in &names {
        if let Some(what) = occupied(tree, name).with_context(|| format!("{}: raw {device}", line.origin))? {
            if !force {
                bail!(
                    "{}: raw {device}: {name} {what}, which a dump would overwrite; name another device, or write \
                     `raw_force yes` if it may be lost",
                    line.origin
                );
            }
            warnings.push(format!("{}: {name} {what}; the next dump overwrites it", line.origin));
        }
    }
    let device = match device {
        DeviceSpec::Path(path) if host.devices_are_here => match sysfs::lasting_name_of_place(tree, path) {
            Some(name) => name,
            None => target::unnamed(path, line, BETTER, warnings)?,
        },
        DeviceSpec::Path(path) => target::unnamed(path, line, BETTER, warnings)?,
        other => other.clone(),
    };
    Ok(Target::Raw(Raw { device, force }))
}

/// How a raw device is named so that it is the same one in the capture kernel.
const BETTER: &str = "PARTUUID=… or WWID=…";

/// What would be lost on the device with that name in sysfs, or who would be disturbed.
fn occupied(tree: &Tree, name: &str) -> anyhow::Result<Option<String>> {
    let place = tree.canonical(&Path::new("/sys/class/block").join(name))?;
    let class = place.to_string_lossy();
    let number = tree.line(&format!("{class}/dev")).unwrap_or_default();
    if let Some(point) = mounted_at(tree, &number) {
        return Ok(Some(format!("is mounted at {point}")));
    }
    if is_swap(tree, &number) {
        return Ok(Some("is in use as swap".to_owned()));
    }
    let mut holders = entries(tree, &format!("{class}/holders"));
    holders.sort();
    if let Some(holder) = holders.first() {
        return Ok(Some(format!("is part of {holder}")));
    }
    let is_partition = |entry: &String| tree.path(&place).join(entry).join("partition").is_file();
    if entries(tree, &class).iter().any(is_partition) {
        return Ok(Some("has partitions".to_owned()));
    }
    let node = tree.path("dev").join(name.replace('!', "/"));
    let mut device = File::open(&node).with_context(|| format!("cannot look at what is on {}", node.display()))?;
    let content = devices::content(&mut device).with_context(|| format!("cannot read {}", node.display()))?;
    Ok(content.map(|it| format!("holds {it}")))
}

fn mounted_at(tree: &Tree, number: &str) -> Option<String> {
    let text = fs::read_to_string(tree.path("proc/self/mountinfo")).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(2);
        (fields.next() == Some(number)).then(|| fields.nth(1).unwrap_or_default().to_owned())
    })
}

fn is_swap(tree: &Tree, number: &str) -> bool {
    let text = fs::read_to_string(tree.path("proc/swaps")).unwrap_or_default();
    let nodes = text.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let known = sysfs::node_of_number(tree, number).ok();
    nodes.filter_map(|node| tree.canonical(Path::new(node)).ok()).any(|node| Some(&node) == known.as_ref())
}

fn entries(tree: &Tree, dir: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(tree.path(dir)) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
