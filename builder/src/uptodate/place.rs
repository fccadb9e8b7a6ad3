//! Whether dumps would still go where an image puts them, and the same way.
//!
//! In: what the image says of itself, and the machine as it is now. Out: a line per difference: another target, other layers
//! below it, a driver that is asked for now, another content of a file that a hook makes, such as the keys of a host.
//!
//! May surprise: what cannot be found out now, such as while a disk is not plugged in, is no change, and neither is a
//! driver that is no longer needed. What means another thing at each boot, such as `/dev/sda`, is not compared.

use crate::build::{Places, asked_by_hooks, places};
use crate::config::Config;
use crate::cpio::read::Archive;
use crate::host::SystemHost;
use crate::plan::Entry;
use crate::target::{self, Found};
use kdump_hooks::storage::{Layer, OverNetwork};
use kdump_hooks::{Contribution, FileNeed, ModuleNeed, Settings, Target};
use kdump_init::config::ImageConfig;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// Where it is in the image which drivers were asked for.
pub const PATH: &str = "etc/kdump/requests";

/// What of a layer the kernel numbers anew at each boot.
const NUMBERED: [&str; 2] = ["on", "session"];

/// The drivers that the hooks ask for, as they are written into an image.
///
/// # Errors
/// One of the hooks cannot say what it needs.
pub fn requests(host: &SystemHost, settings: &Settings) -> anyhow::Result<Entry> {
    let asked = asked_by_hooks(host, settings)?;
    let requests = needed(&asked);
    let text: String = requests.iter().map(|request| format!("{request}\n")).collect();
    Ok(Entry::file(PATH, text.into_bytes(), "the drivers that its way to the dumps takes"))
}

/// Those requests that say something of this machine: drivers that must be there, and devices that ask for one.
fn needed(asked: &Contribution) -> BTreeSet<&str> {
    let says = |need: &&ModuleNeed| need.required || need.request.contains(':');
    asked.modules.iter().filter(says).map(|need| need.request.as_str()).collect()
}

/// What has changed since the image was built; nothing, if nothing can be told.
pub fn changes(config: &Config, host: &SystemHost, image: &ImageConfig, archive: &Archive) -> Vec<String> {
    compared(config, host, image, archive).unwrap_or_else(|error| {
        log::info!("where the image's dumps go cannot be compared with the machine: {error:#}");
        Vec::new()
    })
}

fn compared(config: &Config, host: &SystemHost, image: &ImageConfig, archive: &Archive) -> anyhow::Result<Vec<String>> {
    let then = &image.hooks;
    let mut warnings = Vec::new();
    let Found { targets, path, .. } = target::find(config, host, &mut warnings)?;
    let Places { mut targets, storage, network_storage } = places(config, host, targets, &mut warnings)?;
    for (target, was) in targets.iter_mut().zip(&then.targets) {
        keep_what_is_unknown(target, was);
    }
    let mut lines = Vec::new();
    if facts(&targets)? != facts(&then.targets)? {
        let (was, is) = (told(&then.targets), told(&targets));
        lines.push(match was == is {
            true => format!("what is known of {is} has changed"),
            false => format!("dumps went to {was}, and go to {is}"),
        });
    }
    if path != image.dump.path {
        lines.push(format!("dumps were in {} there, and are in {}", image.dump.path.display(), path.display()));
    }
    let (was, is) = (layers(then), layers_of(&storage, &network_storage));
    if sorted_facts(&was)? != sorted_facts(&is)? {
        lines.push(format!("the target was on {}, and is on {}", names(&was), names(&is)));
    }
    if !lines.is_empty() {
        return Ok(lines);
    }
    let asked = asked_by_hooks(host, &Settings { targets, storage, network_storage, ..then.clone() })?;
    let files = archive.files();
    let before = files.get(PATH).map(|entry| String::from_utf8_lossy(archive.data(entry))).unwrap_or_default();
    let before: BTreeSet<&str> = before.lines().collect();
    let new: Vec<&str> = needed(&asked).difference(&before).copied().collect();
    if !new.is_empty() {
        lines.push(format!("the way to the dumps takes {} now", new.join(" and ")));
    }
    for FileNeed { path, bytes, reason, .. } in &asked.files {
        let path = path.strip_prefix("/").ok().and_then(Path::to_str).filter(|path| path.starts_with(super::ITSELF));
        if path.and_then(|path| files.get(path)).is_some_and(|entry| content(archive.data(entry)) != content(bytes)) {
            lines.push(format!("{reason}: not what is in the image"));
        }
    }
    Ok(lines)
}

/// The lines of a file that a hook makes; the order of what is known of a host may be any.
fn content(bytes: &[u8]) -> BTreeSet<&[u8]> {
    bytes.split(|byte| *byte == b'\n').collect()
}

/// Takes over what the machine tells only at times: a server's address, which is compared with the network, and the
/// options of a mount.
fn keep_what_is_unknown(target: &mut Target, was: &Target) {
    if target.to_string() != was.to_string() {
        return;
    }
    let mut was = was.clone();
    if let (Some((_, is)), Some((_, was))) = (target.server(), was.server()) {
        *is = *was;
    }
    if let (Some(is), Some(was)) = (options(target), options(&mut was))
        && is.is_empty()
    {
        *is = std::mem::take(was);
    }
}

fn options(target: &mut Target) -> Option<&mut Vec<String>> {
    match target {
        Target::Filesystem(filesystem) => Some(&mut filesystem.options),
        Target::Rootfs(rootfs) => Some(&mut rootfs.filesystem.options),
        Target::Nfs(nfs) => Some(&mut nfs.options),
        Target::Cifs(_) | Target::Remote(_) | Target::Virtiofs(_) | Target::Raw(_) | Target::Pstore(_) => None,
    }
}

fn layers(settings: &Settings) -> Vec<&Layer> {
    layers_of(&settings.storage, &settings.network_storage)
}

fn layers_of<'l>(storage: &'l [Layer], network_storage: &'l [OverNetwork]) -> Vec<&'l Layer> {
    storage.iter().chain(network_storage.iter().map(|OverNetwork(layer)| layer)).collect()
}

/// What an image is told, without what says nothing.
fn facts<T: Serialize>(things: &[T]) -> anyhow::Result<Vec<String>> {
    things.iter().map(|thing| Ok(steady(serde_json::to_value(thing)?).to_string())).collect()
}

/// The same of things that may come in any order.
fn sorted_facts<T: Serialize>(things: &[T]) -> anyhow::Result<Vec<String>> {
    let mut facts = facts(things)?;
    facts.sort();
    Ok(facts)
}

/// Lists are in the order of the kernel's names.
fn steady(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(name, _)| !NUMBERED.contains(&name.as_str()))
            .map(|(name, value)| (name, steady(value)))
            .collect(),
        Value::Array(values) => {
            let mut values: Vec<Value> = values.into_iter().map(steady).collect();
            values.sort_by_key(Value::to_string);
            values.into()
        }
        other => other,
    }
}

fn told(targets: &[Target]) -> String {
    targets.iter().map(Target::to_string).collect::<Vec<_>>().join(", then ")
}

fn names(layers: &[&Layer]) -> String {
    let name = |layer: &&Layer| match layer {
        Layer::Mdraid(array) => format!("the RAID {} of {} devices", array.name, array.count),
        Layer::Crypt(volume) => format!("the LUKS volume {} of {}", volume.name, volume.device),
        Layer::Lvm(volume) => format!("the logical volume {}/{}", volume.group, volume.volume),
        Layer::Multipath(map) => format!("the multipath device {} ({} paths)", map.name, map.paths),
        Layer::Iscsi(session) => format!("the iSCSI disks of {} at {}", session.target, session.address),
        Layer::NvmeTcp(way) => format!("the NVMe subsystem {} at {}", way.subsystem, way.address),
    };
    match layers.is_empty() {
        true => "plain disks".to_owned(),
        false => layers.iter().map(name).collect::<Vec<_>>().join(" and "),
    }
}
