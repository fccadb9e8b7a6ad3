//! `mkdumprd --normal`: an image that boots the system itself.
//!
//! In: what the host says of its root, and what was asked for. Out: the image configuration with a `normal` section, and
//! what comes into the image for it. `kdump.conf` does not count: it is about another image.
//! May surprise: the root that is seen here is what the image takes if the kernel command line names none; the command
//! line wins. Where the root cannot be seen, the image gets the drivers of most machines and the usual file systems.

use crate::build::{self, Built};
use crate::config::{Config, Files, Given, KdumpConf, Sysconfig};
use crate::gather::{drivers, elf, programs::Programs, skeleton};
use crate::host::{SystemHost, mounts, sysfs};
use crate::kdumpctl::kernel::{self, OnDisk};
use crate::plan::{Entry, Plan};
use anyhow::{Context, bail};
use kdump_hooks::cmdline::Cmdline;
use kdump_hooks::early_kdump::{EarlyKdump, KDUMPCTL};
use kdump_hooks::{DeviceSpec, Host, ModuleNeed, Settings, sysctl};
use kdump_init::config::{ImageConfig, Normal};
use std::fs;
use std::path::{Path, PathBuf};

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The drivers of most machines, not of this one alone.
    pub generic: bool,
    /// Bring the capture kernel along.
    pub early_kdump: bool,
    /// Bring the host's sysctl files along.
    pub sysctl: bool,
}

/// The file systems of a root that cannot be seen.
const FILESYSTEMS: [&str; 4] = ["ext4", "xfs", "btrfs", "f2fs"];

/// systemd's tools ask for this file to know that they run in an initramfs.
const RELEASE_FILE: &str = "NAME=\"kdump-rs initramfs\"\nID=kdump-rs\nPRETTY_NAME=\"kdump-rs initramfs\"\n";

/// Makes the plan of an image for a normal boot. `files` name the configuration of the capture kernel.
///
/// # Errors
/// Why there can be none, with the remedy.
pub fn plan(options: Options, files: &Files, host: &SystemHost, ours: &Programs) -> anyhow::Result<Built> {
    let mut warnings = Vec::new();
    let config = Config {
        dump: KdumpConf::parse("", Path::new("kdump.conf"), &mut warnings)?,
        system: Sysconfig::default(),
        warnings: Vec::new(),
    };
    let root = root(host)?;
    let early_kdump = options.early_kdump.then(|| early_kdump(host, files)).transpose()?;

    let mut plan = Plan::default();
    plan.extend(skeleton::gather())?;
    plan.add(Entry::directory(kdump_init::normal::SYSROOT, "the root is mounted on it"))?;
    plan.add(Entry::file("etc/initrd-release", RELEASE_FILE.into(), "tells systemd's tools where they are"))?;
    plan.extend(ours.gather_init(&host.kernel.modprobe)?)?;
    if early_kdump.is_some() {
        plan.add(kdumpctl(ours)?)?;
    }
    if options.sysctl {
        plan.extend(sysctl_files(host)?)?;
    }
    // A root that is put together from other devices: LVM, RAID, LUKS, multipath.
    let storage = root.root.as_ref().map(|device| host.layers(device)).transpose()?.unwrap_or_default();
    let hooks = Settings { early_kdump, storage, ..Settings::default() };
    let path = config.dump.path.value.clone();
    let mut asked = build::contributions(&config, host, &hooks)?;
    asked.modules.extend(modules(&root, options.generic, host)?);
    let image = ImageConfig { normal: Some(root), ..build::image_config(&config, host, hooks, path)? };
    build::finish(plan, image, asked, &Cmdline::default(), host, warnings)
}

/// The root file system of this machine, by a name that is the same in every boot.
fn root(host: &SystemHost) -> anyhow::Result<Normal> {
    if !host.devices_are_here {
        return Ok(Normal::default());
    }
    let holder = mounts::holder(&host.tree, Path::new("/")).context("cannot tell what the root file system is")?;
    let node = match holder.source.starts_with("/dev/") && holder.source != "/dev/root" {
        true => Some(PathBuf::from(&holder.source)),
        false => sysfs::node_of_number(&host.tree, &holder.number).ok(),
    };
    // A root without a device, such as the tmpfs of a live system, has to be named when it is booted.
    let Some(node) = node else { return Ok(Normal::default()) };
    let device = sysfs::lasting_name(&host.tree, &node).unwrap_or(DeviceSpec::Path(node));
    let rootflags = match holder.fstype.as_str() {
        "btrfs" => Some(format!("subvol={}", holder.path.display())),
        _ => None,
    };
    Ok(Normal { root: Some(device), rootfstype: Some(holder.fstype), rootflags })
}

/// What is needed to mount the root.
fn modules(root: &Normal, generic: bool, host: &dyn Host) -> anyhow::Result<Vec<ModuleNeed>> {
    let need = |request: &str, reason: &str, required, by_device| ModuleNeed {
        request: request.to_owned(),
        reason: reason.to_owned(),
        required,
        by_device,
    };
    let mut modules: Vec<ModuleNeed> = match &root.rootfstype {
        Some(fstype) => vec![need(fstype, "file system of the root", true, false)],
        None => FILESYSTEMS.map(|fstype| need(fstype, "the root may be of that type", false, false)).to_vec(),
    };
    modules.push(need("crypto-crc32c", "file systems ask for it when mounted", false, false));
    let chain = match &root.root {
        Some(device) => host.device_chain(device).with_context(|| format!("cannot find the drivers of {device}"))?,
        None => None,
    };
    if generic || chain.is_none() {
        modules.extend(drivers::generic());
    }
    let of_root = |request: String| need(&request, "driver of the root's device", !request.contains(':'), true);
    modules.extend(chain.into_iter().flatten().map(of_root));
    Ok(modules)
}

/// The capture kernel and its image, as kdumpctl will look for them in the image.
fn early_kdump(host: &SystemHost, files: &Files) -> anyhow::Result<EarlyKdump> {
    let mut config = Config::read(files).context("rd.earlykdump needs the configuration of the capture kernel")?.system;
    config.kernelver.get_or_insert_with(|| Given::default(host.kernel.release.clone()));
    let OnDisk { kernel, image, .. } = kernel::find(&host.tree, &config)?;
    if !image.is_file() {
        bail!("there is no image of the capture kernel, {}; kdumpctl start or mkdumprd makes it", image.display());
    }
    let on_machine = |path: &Path| Path::new("/").join(path.strip_prefix(host.tree.root()).unwrap_or(path));
    Ok(EarlyKdump { kernel: on_machine(&kernel), image: on_machine(&image) })
}

fn kdumpctl(ours: &Programs) -> anyhow::Result<Entry> {
    let path = ours.init.with_file_name("kdumpctl");
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    if !elf::is_static(&bytes).with_context(|| format!("cannot use {}", path.display()))? {
        bail!("{} needs shared libraries, which an image does not have; build it static", path.display());
    }
    Ok(Entry::program(KDUMPCTL, bytes, "loads the capture kernel for rd.earlykdump"))
}

/// The host's sysctl files, at the paths where they are.
fn sysctl_files(host: &SystemHost) -> anyhow::Result<Vec<Entry>> {
    let root = host.tree.root();
    let entry = |path: PathBuf| {
        let name = path.strip_prefix(root).unwrap_or(&path).to_path_buf();
        let name = name.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?.to_owned();
        let is_mask = fs::read_link(&path).is_ok_and(|target| target == Path::new("/dev/null"));
        let bytes = if is_mask { Vec::new() } else { host.tree.read(Path::new(&name))? };
        Ok(Entry::file(&name, bytes, "a sysctl file of this machine"))
    };
    sysctl::files(root)?.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kdump_hooks::fake::FakeHost;

    fn requests(root: &Normal, generic: bool, host: &FakeHost) -> Vec<String> {
        modules(root, generic, host).unwrap().into_iter().map(|need| need.request).collect()
    }

    #[test]
    fn a_root_that_is_here_names_its_drivers_and_any_other_gets_those_of_most_machines() {
        let root =
            Normal { root: Some(DeviceSpec::Uuid("12".into())), rootfstype: Some("xfs".into()), rootflags: None };
        let chains = [("UUID=12".to_owned(), vec!["pci:v1".to_owned(), "nvme".to_owned()])].into();
        let here = FakeHost { chains, ..FakeHost::default() };
        assert_eq!(requests(&root, false, &here), ["xfs", "crypto-crc32c", "pci:v1", "nvme"]);
        let generic = requests(&root, true, &here);
        assert!(generic.contains(&"virtio_blk".to_owned()) && generic.contains(&"pci:v1".to_owned()));
        let elsewhere = requests(&Normal::default(), false, &FakeHost::default());
        assert!(elsewhere.contains(&"ext4".to_owned()) && elsewhere.contains(&"virtio_blk".to_owned()));
    }
}
