//! What init and its hooks are told, and what they ask for in return.
//!
//! In: the configuration, with the target that was found for it, and the host. Out: [`ImageConfig`] with the [`Settings`] of
//! the hooks; and all that these hooks, and the administrator, want into the image, as one [`Contribution`].

use super::BUILT_BY;
use crate::config::{Config, Given, OnFailure, Origin, dracut, fence, notify};
use crate::gather::drivers;
use crate::host::{SystemHost, watchdog};
use crate::{endings, integrity, network, scripts, target};
use anyhow::Context;
use kdump_hooks::kmod::{self, ModuleName};
use kdump_hooks::shell::Shell;
use kdump_hooks::storage::{Layer, OverNetwork};
use kdump_hooks::{Contribution, Host, ModuleNeed, Settings, Target};
use kdump_init::config::{self as contract, Dump, ImageConfig, Measure};
use std::net::IpAddr;
use std::path::PathBuf;

/// Where dumps go, and what has to be put together for it before and after the network is up.
#[derive(Debug)]
pub(crate) struct Places {
    /// The targets in their order.
    pub(crate) targets: Vec<Target>,
    /// As [`Settings::storage`].
    pub(crate) storage: Vec<Layer>,
    /// As [`Settings::network_storage`].
    pub(crate) network_storage: Vec<OverNetwork>,
}

/// The targets with that of `dump_to_rootfs`, and the layers that they are on.
pub(crate) fn places(
    config: &Config,
    host: &SystemHost,
    mut targets: Vec<Target>,
    warnings: &mut Vec<String>,
) -> anyhow::Result<Places> {
    let on_failure = &config.dump.failure_action;
    if on_failure.value == OnFailure::DumpToRootfs {
        let rootfs = target::rootfs(host).with_context(|| format!("{}: dump_to_rootfs", on_failure.origin))?;
        match targets.iter().any(|target| target.device() == rootfs.device()) {
            true => warnings.push(format!("{}: dumps go to the root file system anyway", on_failure.origin)),
            false => {
                // What takes the log alone stays the last.
                let end = targets.iter().position(|target| matches!(target, Target::Pstore(_)));
                targets.insert(end.unwrap_or(targets.len()), rootfs);
            }
        }
    }
    let (mut storage, mut network_storage) = (Vec::new(), Vec::new());
    for device in targets.iter().filter_map(Target::device) {
        divide(host.layers(device)?, &mut storage, &mut network_storage);
    }
    Ok(Places { targets, storage, network_storage })
}

/// What the hooks are told.
pub(super) fn settings(
    config: &Config,
    host: &SystemHost,
    target::Found { targets, paths, .. }: target::Found,
    warnings: &mut Vec<String>,
) -> anyhow::Result<Settings> {
    let dump = &config.dump;
    let Places { targets, storage, network_storage } = places(config, host, targets, warnings)?;
    let waits = endings::waits(config, &endings::find(config)?);
    let shell = (!waits.is_empty()).then(Shell::default);
    warnings.extend(waits);
    let own_name = host.tree.line("proc/sys/kernel/hostname").unwrap_or_default();
    let layers: Vec<Layer> =
        storage.iter().chain(network_storage.iter().map(|OverNetwork(layer)| layer)).cloned().collect();
    warnings.extend(host.warnings_of(&layers));
    let fence = fence::resolve(dump.fence_nodes.as_ref(), dump.fence_args.as_ref(), &own_name)?;
    let mut others: Vec<IpAddr> = network_storage.iter().filter_map(|layer| layer.0.server()).collect();
    others.extend(fence.iter().flat_map(|fence| &fence.nodes));
    let (targets, network) = network::find(config, host, targets, &others, warnings)?;
    let (release, wanted) = (&host.kernel.release, |word: &Option<Given<bool>>| word.clone().filter(|word| word.value));
    let integrity = match wanted(&dump.image.integrity) {
        Some(word) => kept(integrity::find(&host.tree, release), "integrity", &word.origin, warnings)?,
        None => None,
    };
    let modsign = match wanted(&dump.image.modsign) {
        Some(word) => kept(integrity::certificates(&host.tree), "modsign", &word.origin, warnings)?,
        None => None,
    };
    Ok(Settings {
        targets,
        paths,
        storage,
        network_storage,
        network,
        user: scripts::find(config, &host.tree)?,
        shell,
        watchdog: (host.devices_are_here && dump.image.watchdog.as_ref().is_none_or(|given| given.value))
            .then(|| watchdog::active(&host.tree))
            .flatten(),
        notify: notify::resolve(config, &own_name),
        fence,
        integrity,
        modsign,
        modules: kmod::Settings {
            forbid: dump
                .forbid_modules
                .iter()
                .chain(&dump.image.omit_drivers)
                .map(|given| ModuleName::new(&given.value))
                .collect(),
        },
        ..Settings::default()
    })
}

/// Adds the layers of a device, lowest first, to those that come before the network and to those that come after it.
fn divide(layers: Vec<Layer>, before: &mut Vec<Layer>, after: &mut Vec<OverNetwork>) {
    let mut needs_network = false;
    for layer in layers {
        needs_network |= layer.server().is_some();
        let layer = OverNetwork(layer);
        if before.contains(&layer.0) || after.contains(&layer) {
            continue;
        }
        match needs_network {
            true => after.push(layer),
            false => before.push(layer.0),
        }
    }
}

/// What init is told.
pub(crate) fn image_config(
    config: &Config,
    host: &SystemHost,
    hooks: Settings,
    path: PathBuf,
) -> anyhow::Result<ImageConfig> {
    let endings = endings::find(config)?;
    Ok(ImageConfig {
        version: contract::VERSION,
        kernel_release: host.kernel.release.clone(),
        built_by: BUILT_BY.to_owned(),
        dump: Dump {
            log_only: config.dump.log_only.as_ref().is_some_and(|given| given.value),
            keep: config.system.keep.as_ref().map(|given| given.value),
            free: config.system.free.as_ref().map_or(0, |given| given.value),
            when_short: config.dump.when_short.as_ref().map_or_else(Measure::all, |given| given.value.clone()),
            ..Dump::new(path, config.dump.collector.value.argv.clone())
        },
        endings,
        limits: config.dump.limits.value,
        normal: None,
        hooks,
    })
}

/// What the hooks ask for.
pub(crate) fn asked_by_hooks(host: &dyn Host, settings: &Settings) -> anyhow::Result<Contribution> {
    let mut all = Contribution::default();
    for hook in settings.hooks() {
        let Contribution { modules, programs, files, ours } = hook.gather(host).context(hook.name())?;
        all.modules.extend(modules);
        all.programs.extend(programs);
        all.files.extend(files);
        all.ours.extend(ours);
    }
    Ok(all)
}

/// What the hooks and the configuration ask for.
pub(crate) fn contributions(config: &Config, host: &dyn Host, settings: &Settings) -> anyhow::Result<Contribution> {
    let mut all = asked_by_hooks(host, settings)?;
    let mut unknown_device = false;
    for device in settings.targets.iter().filter_map(Target::device) {
        unknown_device |= host.device_chain(device)?.is_none();
    }
    if unknown_device {
        all.modules.extend(drivers::generic());
    }
    all.modules.extend(config.dump.extra_modules.iter().map(|module| ModuleNeed {
        request: module.value.clone(),
        reason: format!("extra_modules, {}", module.origin),
        required: true,
        by_device: false,
    }));
    Ok(all)
}

/// What was found of a setting. What dracut.conf asks of every image of the machine is left out of this one if it is not
/// there, as dracut does.
fn kept<T>(
    found: anyhow::Result<T>,
    name: &str,
    origin: &Origin,
    warnings: &mut Vec<String>,
) -> anyhow::Result<Option<T>> {
    match found.with_context(|| format!("{origin}: {name}")) {
        Ok(found) => Ok(Some(found)),
        Err(error) if dracut::is_of_every_image(origin) => {
            warnings.push(format!("{error:#}; this image goes without"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Files, TargetLine};
    use kdump_hooks::fake::FakeHost;

    fn requests(chains: &[(&str, &str)], conf: &str) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/kdump.conf"), conf).unwrap();
        let config = Config::read(&Files::new(root.path(), None, None)).unwrap();
        let TargetLine::Filesystem { fstype, device } = config.dump.targets[0].value.line.clone() else {
            panic!("no file system")
        };
        let target = kdump_hooks::filesystem::Filesystem { fstype, device, options: Vec::new() };
        let settings = Settings { targets: vec![Target::Filesystem(target)], ..Settings::default() };
        let chains = chains.iter().map(|(device, alias)| ((*device).to_owned(), vec![(*alias).to_owned()])).collect();
        let host = FakeHost { chains, ..FakeHost::default() };
        contributions(&config, &host, &settings).unwrap().modules.into_iter().map(|need| need.request).collect()
    }

    #[test]
    fn what_lies_above_a_disk_of_another_machine_comes_after_the_network_too() {
        use kdump_hooks::storage::{Lvm, Mdraid, NvmeTcp};
        let local = Layer::Mdraid(Mdraid {
            name: "md0".into(),
            members: "UUID=1".parse().unwrap(),
            count: 2,
            level: "raid1".into(),
            on: Vec::new(),
        });
        let remote = Layer::NvmeTcp(NvmeTcp {
            subsystem: "nqn.x".into(),
            address: "10.0.2.2".parse().unwrap(),
            port: 4420,
            host: None,
            host_id: None,
        });
        let (group, volume) = ("vg".into(), "lv".into());
        let above = Layer::Lvm(Lvm { group, volume, physical: Vec::new(), segments: Vec::new(), on: Vec::new() });
        let (mut before, mut after) = (Vec::new(), Vec::new());
        divide(vec![local.clone(), remote.clone(), above.clone()], &mut before, &mut after);
        divide(vec![local.clone(), remote.clone()], &mut before, &mut after);
        assert_eq!(before, [local]);
        assert_eq!(after, [OverNetwork(remote), OverNetwork(above)]);
    }

    #[test]
    fn a_device_that_is_here_names_its_drivers_and_any_other_gets_those_of_most_machines() {
        let conf = "xfs UUID=12\nextra_modules dummy\n";
        assert_eq!(requests(&[("UUID=12", "pci:v1")], conf), ["xfs", "crypto-crc32c", "pci:v1", "dummy"]);
        let generic = requests(&[("UUID=34", "pci:v1")], conf);
        assert!(generic.contains(&"virtio_blk".to_owned()) && generic.contains(&"nvme".to_owned()));
        assert_eq!(generic.last().map(String::as_str), Some("dummy"));
    }

    #[test]
    fn what_dracut_conf_asks_of_every_image_is_left_out_of_this_one_where_it_is_not_there() {
        let missing = || Err::<u8, _>(anyhow::anyhow!("there is no key"));
        let line = |file: &str| Origin::Line(file.into(), 3);
        let mut warnings = Vec::new();
        for file in ["/etc/dracut.conf", "/usr/lib/dracut/dracut.conf.d/20-ima.conf"] {
            assert_eq!(kept(missing(), "integrity", &line(file), &mut warnings).unwrap(), None);
            assert!(warnings.pop().unwrap().starts_with(&format!("{file}:3: integrity: there is no key; this image")));
        }
        let error = kept(missing(), "integrity", &line("/etc/kdump.conf"), &mut warnings).unwrap_err();
        assert_eq!(format!("{error:#}"), "/etc/kdump.conf:3: integrity: there is no key");
        assert_eq!(kept(Ok(1), "integrity", &line("/etc/dracut.conf"), &mut warnings).unwrap(), Some(1));
        assert!(warnings.is_empty());
    }
}
