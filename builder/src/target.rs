//! Where the dump goes: from a directive, or from what holds `path` on this host.
//!
//! In: configuration and host. Out: targets with names that survive into the capture kernel, and the directory of all
//! dumps inside each. Device nodes are numbered as they are found, so a UUID is put in their place where one is known.

use crate::config::{Config, Given, KdumpConf, TargetLine, Wanted};
use crate::host::{SystemHost, Tree, mounts, sysfs};
use crate::raw;
use anyhow::{Context, bail};
use kdump_hooks::cifs::Cifs;
use kdump_hooks::filesystem::Filesystem;
use kdump_hooks::fstab::{self, Entry};
use kdump_hooks::kmod::ModuleName;
use kdump_hooks::nfs::Nfs;
use kdump_hooks::pstore::{BACKENDS, Pstore};
use kdump_hooks::rootfs::Rootfs;
use kdump_hooks::virtiofs::Virtiofs;
use kdump_hooks::{DeviceSpec, Host, Target};
use kdump_init::devices::probe;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The targets in their order, and where dumps are in them.
#[derive(Debug)]
pub struct Found {
    /// The targets.
    pub targets: Vec<Target>,
    /// The directory of all dumps of those that have one of their own, by the target's name.
    pub paths: BTreeMap<String, PathBuf>,
    /// The directory of all dumps in the others.
    pub path: PathBuf,
}

/// The targets and the directories of all dumps in them.
///
/// # Errors
/// There is no target directive and the host does not tell.
pub fn find(config: &Config, host: &SystemHost, warnings: &mut Vec<String>) -> anyhow::Result<Found> {
    let mut found = Found { targets: Vec::new(), paths: BTreeMap::new(), path: config.dump.path.value.clone() };
    for wanted in &config.dump.targets {
        let target = named(wanted, config, host, warnings)?;
        if found.targets.iter().any(|other| other.to_string() == target.to_string()) {
            bail!("{}: {target} is a target already, under another name; keep one of the two", wanted.origin);
        }
        found.paths.extend(wanted.value.path.clone().map(|path| (target.to_string(), path)));
        found.targets.push(target);
    }
    if found.targets.is_empty() {
        let (target, path) = holder(&config.dump, host).with_context(|| {
            format!(
                "cannot tell which file system holds {} ({})",
                config.dump.path.value.display(),
                config.dump.path.origin
            )
        })?;
        found = Found { targets: vec![target], path, ..found };
    }
    Ok(found)
}

fn named(
    line: &Given<Wanted>,
    config: &Config,
    host: &SystemHost,
    warnings: &mut Vec<String>,
) -> anyhow::Result<Target> {
    let options = &line.value.options;
    let (fstype, device) = match &line.value.line {
        TargetLine::Filesystem { fstype, device } => (fstype.clone(), device),
        TargetLine::Raw(device) => return raw::target(device, line, config.dump.raw_force.as_ref(), host, warnings),
        TargetLine::Pstore => return Ok(pstore(host, line, warnings)),
        TargetLine::Virtiofs(tag) => return Ok(Target::Virtiofs(Virtiofs { tag: tag.clone() })),
        TargetLine::Remote(remote) => {
            let path = line.value.path.as_ref().unwrap_or(&config.dump.path.value);
            return Ok(Target::Remote(crate::remote::complete(remote, path, config, &host.tree, warnings)));
        }
        TargetLine::Nfs(nfs) => {
            let options = if options.is_empty() { nfs_options(&host.tree, nfs) } else { options.clone() };
            let nfs = Nfs { options, ..nfs.clone() };
            nfs.check().with_context(|| format!("{}: the mount options of {nfs}", line.origin))?;
            return Ok(Target::Nfs(nfs));
        }
        TargetLine::Cifs(cifs) => {
            let cifs = Cifs { options: options.clone(), ..cifs.clone() };
            cifs.check().with_context(|| format!("{}: the options of {cifs}", line.origin))?;
            return Ok(Target::Cifs(cifs));
        }
    };
    // RHEL too takes the options of what is mounted, which may say which subvolume `path` is in.
    let names = if host.devices_are_here { sysfs::block_names(&host.tree, device) } else { Vec::new() };
    let node = names.first().map(|name| Path::new("/dev").join(name.replace('!', "/")));
    match &node {
        Some(node) => {
            holds(&host.tree, node, &fstype).with_context(|| format!("{}: {fstype} {device}", line.origin))?
        }
        None if host.devices_are_here && !matches!(device, DeviceSpec::Path(_)) => warnings
            .push(format!("{}: no device here is {device}; unless it comes, dumps have nowhere to go", line.origin)),
        None => {}
    }
    let mounted = mounts::options(&host.tree, device, node.as_deref());
    let device = match device {
        DeviceSpec::Path(path) => {
            match host.devices_are_here.then(|| sysfs::lasting_name(&host.tree, path)).flatten() {
                Some(name) => name,
                None => unnamed(path, line, "UUID=… or LABEL=…", warnings)?,
            }
        }
        other => other.clone(),
    };
    let options = if options.is_empty() { mounted } else { options.clone() };
    Ok(Target::Filesystem(Filesystem { fstype, device, options }))
}

/// Fails if something other than `fstype` is on a device. What cannot be read, or is nothing known, may be it.
fn holds(tree: &Tree, node: &Path, fstype: &str) -> anyhow::Result<()> {
    let is_ext = |fstype: &str| matches!(fstype, "ext" | "ext2" | "ext3" | "ext4");
    let mut device = match File::open(tree.path(node)) {
        Ok(device) => device,
        Err(error) => {
            log::debug!("what is on {} is not known: {error}", node.display());
            return Ok(());
        }
    };
    match probe(&mut device) {
        Ok(Some(found)) if found.fstype != fstype && !(is_ext(found.fstype) && is_ext(fstype)) => {
            bail!("{} holds {}, and no {fstype}; write what is there", node.display(), found.fstype)
        }
        _ => Ok(()),
    }
}

/// The options with which fstab mounts an export, or with which it is mounted now: kdump.conf has no place for them.
pub(crate) fn nfs_options(tree: &Tree, nfs: &Nfs) -> Vec<String> {
    /// Those of a running mount that its administrator chose; the others say how it came out.
    const CHOSEN: [&str; 8] = ["vers", "proto", "port", "sec", "mountport", "mountproto", "rsize", "wsize"];
    let options = |file: &str| -> Option<Vec<String>> {
        let text = std::fs::read_to_string(tree.path(file)).ok()?;
        let is_it = |entry: &Entry| entry.source.parse::<Nfs>().is_ok_and(|found| found.is_same(nfs));
        let mut entries = fstab::parse(&text).into_iter().filter(|entry| entry.fstype.starts_with("nfs"));
        entries.find(is_it).map(|entry| entry.for_the_kernel())
    };
    if let Some(options) = options("etc/fstab") {
        return options;
    }
    let running = options("proc/self/mounts").unwrap_or_default();
    let name = |option: &str| option.split('=').next().unwrap_or_default().to_owned();
    running.into_iter().filter(|option| CHOSEN.contains(&name(option).as_str())).collect()
}

/// A device of which nothing is known but its node; `better` is what had better be written.
pub(crate) fn unnamed(
    path: &Path,
    line: &Given<Wanted>,
    better: &str,
    warnings: &mut Vec<String>,
) -> anyhow::Result<DeviceSpec> {
    let (place, node) = (&line.origin, path.display());
    if path.starts_with("/dev/disk") {
        bail!("{place}: {node} is a name that only udev knows, and it is not on this machine; write {better}");
    }
    if path.starts_with("/dev/mapper") {
        bail!(
            "{place}: {node} is not on this machine, so that it cannot be told what it is put together from; build the \
             image on the machine itself, with the device in use"
        );
    }
    warnings.push(format!("{place}: {node} may be another device in the capture kernel; write {better} instead"));
    Ok(DeviceSpec::Path(path.to_owned()))
}

/// pstore; a kernel of which no backend is known may have one that is no module, such as ERST.
fn pstore(host: &SystemHost, line: &Given<Wanted>, warnings: &mut Vec<String>) -> Target {
    let index = host.index();
    let is_known = |name: &&str| {
        let name = ModuleName::new(name);
        index.get(&name).is_some() || index.is_builtin(&name)
    };
    if !BACKENDS.iter().any(is_known) {
        warnings.push(format!(
            "{}: pstore: kernel {} has neither of {}; unless it has another backend, the log is lost with the dump",
            line.origin,
            host.kernel.release,
            BACKENDS.join(" and ")
        ));
    }
    Target::Pstore(Pstore {})
}

/// The directory of all dumps in the root file system.
pub const ROOTFS_DIR: &str = "var/crash";

/// The root file system of this host as the last target, for `dump_to_rootfs`.
///
/// # Errors
/// The host does not tell where it is, or it is where no dump can go.
pub fn rootfs(host: &SystemHost) -> anyhow::Result<Target> {
    let (filesystem, root) = holder_of(Path::new("/"), host).context("cannot tell what the root file system is")?;
    Ok(Target::Rootfs(Rootfs { path: root.join(ROOTFS_DIR), filesystem }))
}

fn holder(conf: &KdumpConf, host: &SystemHost) -> anyhow::Result<(Target, PathBuf)> {
    if host.devices_are_here {
        let holder = mounts::holder(&host.tree, &conf.path.value)?;
        let path = Path::new("/").join(&holder.path);
        if holder.fstype == "virtiofs" {
            return Ok((Target::Virtiofs(Virtiofs { tag: holder.source }), path));
        }
        if holder.fstype.starts_with("nfs") {
            let nfs: Nfs = holder.source.parse().map_err(anyhow::Error::msg)?;
            let nfs = Nfs { options: nfs_options(&host.tree, &nfs), ..nfs };
            nfs.check()?;
            return Ok((Target::Nfs(nfs), path));
        }
    }
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
    let mut options = mounts::options(&host.tree, &DeviceSpec::Path(node.clone()), Some(&node));
    let device = sysfs::lasting_name(&host.tree, &node).unwrap_or(DeviceSpec::Path(node));
    // The path is told from the root of the whole file system, whichever subvolume is the default one.
    if holder.fstype == "btrfs" {
        options.retain(|option| !option.starts_with("subvol=") && !option.starts_with("subvolid="));
        options.push("subvolid=5".to_owned());
    }
    let path = Path::new("/").join(holder.path);
    Ok((Filesystem { fstype: holder.fstype, device, options }, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_to_hold_what_is_written_as_far_as_that_can_be_told() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path());
        std::fs::create_dir(tree.path("dev")).unwrap();
        let mut ext = vec![0; 8192];
        ext[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
        std::fs::write(tree.path("dev/vda1"), ext).unwrap();
        std::fs::write(tree.path("dev/vdb"), vec![0; 8192]).unwrap();
        let judge = |node: &str, fstype: &str| holds(&tree, Path::new(node), fstype).map_err(|error| error.to_string());
        for fstype in ["ext2", "ext4"] {
            judge("/dev/vda1", fstype).unwrap();
        }
        assert_eq!(judge("/dev/vda1", "xfs").unwrap_err(), "/dev/vda1 holds ext, and no xfs; write what is there");
        judge("/dev/vdb", "minix").unwrap();
        judge("/dev/absent", "xfs").unwrap();
    }

    #[test]
    fn an_export_gets_the_options_of_its_line_in_fstab_that_are_for_the_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path());
        std::fs::create_dir(tree.path("etc")).unwrap();
        let write = |line: &str| std::fs::write(tree.path("etc/fstab"), line).unwrap();
        let options = |export: &str| nfs_options(&tree, &export.parse().unwrap()).join(" ");
        write("10.0.0.1:/srv/ /mnt nfs4 rw,users,group,comment=dumps,x-systemd.automount,_netdev,v4.1,port=2050 0 0\n");
        assert_eq!(options("10.0.0.1:/srv"), "v4.1 port=2050");
        assert_eq!(options("10.0.0.1:/srv/deeper"), "");
        write("# nas:/x\nnas:/srv/my\\040dumps /mnt nfs timeo=50\n");
        assert_eq!(options("NAS:/srv/my dumps"), "timeo=50");
    }
}
