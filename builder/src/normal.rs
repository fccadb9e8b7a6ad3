//! `mkdumprd --normal`: an image that boots the system itself.
//!
//! In: what the host says of its root, what was asked for, and what the files of dracut and of initramfs-tools ask of every
//! such image. Out: the image configuration with a `normal` section, and what comes into the image for it. `kdump.conf`
//! does not count: it is about another image.
//! May surprise: a `/usr` of its own is mounted as the root's fstab says at boot; here only what that takes is looked for.
//! The root that is seen here is what the image takes if the kernel command line names none; the command
//! line wins. Where the root cannot be seen, the image gets the drivers of most machines and the usual file systems.

use crate::build::{self, Built};
use crate::config::{Config, Files, Given};
use crate::gather::{asked, drivers, elf, microcode, programs::Programs, skeleton};
use crate::host::{SystemHost, mounts, sysfs};
use crate::kdumpctl::kernel::{self, OnDisk};
use crate::plan::{Entry, Plan};
use crate::problems::Problems;
use crate::{integrity, network, target};
use anyhow::{Context, bail};
use kdump_hooks::cmdline::Cmdline;
use kdump_hooks::early_kdump::{EarlyKdump, KDUMPCTL};
use kdump_hooks::kmod;
use kdump_hooks::livepatch::{AtBoot, Identity, Store, overlay, service};
use kdump_hooks::net::model::EVERY;
use kdump_hooks::net::{Method, Network};
use kdump_hooks::nfs::{self, Nfs};
use kdump_hooks::shell::Shell;
use kdump_hooks::storage::{Crypt, Key, Layer};
use kdump_hooks::{DeviceSpec, Host, ModuleNeed, Settings, Target, sysctl};
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
    /// Bring a network and NFS along.
    pub network: bool,
    /// Bring microcode along.
    pub early_microcode: bool,
    /// Bring a shell along.
    pub shell: bool,
    /// Bring keys and policy of IMA and EVM along.
    pub integrity: bool,
    /// Bring certificates for modules along.
    pub modsign: bool,
    /// Bring the installed live patches along.
    pub livepatch: bool,
    /// Its devices do without firmware that is missing.
    pub allow_missing_firmware: bool,
}

/// What the host says of itself.
#[derive(Debug, Default)]
struct Seen {
    /// Its root.
    root: Normal,
    /// The device of its `/usr`, if that is a file system of its own, and the file system's type.
    usr: Option<(DeviceSpec, String)>,
}

/// The file systems of a root that cannot be seen.
const FILESYSTEMS: [&str; 4] = ["ext4", "xfs", "btrfs", "f2fs"];

/// systemd's tools ask for this file to know that they run in an initramfs.
const RELEASE_FILE: &str = "NAME=\"kdump-rs initramfs\"\nID=kdump-rs\nPRETTY_NAME=\"kdump-rs initramfs\"\n";

/// Makes the plan of an image for a normal boot, as `config` has it. `files` name the configuration of the capture kernel.
///
/// # Errors
/// Why there can be none, with the remedy.
pub fn plan(
    options: Options,
    config: &Config,
    files: &Files,
    host: &SystemHost,
    ours: &Programs,
) -> anyhow::Result<Built> {
    let (mut warnings, mut lacking, mut problems) = (config.warnings.clone(), Vec::new(), Problems::default());
    let more = &config.dump.image;
    let generic = options.generic || more.hostonly.as_ref().is_some_and(|given| !given.value);
    let seen = look(host)?;
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
        plan.extend(sysctl_files(host, &mut warnings)?)?;
    }
    plan.extend(asked::entries(more, &host.tree, &mut warnings)?)?;
    // What is put together from other devices: LVM, RAID, LUKS, multipath.
    let mut storage = Vec::new();
    for device in seen.devices() {
        for layer in host.layers(device)? {
            if !storage.contains(&layer) {
                storage.push(layer);
            }
        }
    }
    if let Some(server) = storage.iter().find_map(Layer::server) {
        bail!(
            "the root is on a disk of {server}, and this version boots no system from a disk of another machine; boot it \
             with the image of the distribution"
        );
    }
    keys_are_files(&storage)?;
    let network = network(&seen.root, options.network, config, host, &mut warnings)?;
    let shell = options.shell.then(Shell::default);
    let is_asked = |module: &Option<Given<bool>>| module.as_ref().is_some_and(|asked| asked.value);
    let (integrity, modsign) =
        (options.integrity || is_asked(&more.integrity), options.modsign || is_asked(&more.modsign));
    let integrity = integrity.then(|| integrity::find(&host.tree, &host.kernel.release)).transpose();
    let integrity = integrity.context("--integrity")?;
    let modsign = modsign.then(|| integrity::certificates(&host.tree)).transpose().context("--modsign")?;
    let livepatch = options.livepatch.then(AtBoot::default);
    let modules = kmod::Settings { forbid: build::bans(config).into_keys().collect() };
    let hooks = Settings {
        modules,
        early_kdump,
        storage,
        network,
        shell,
        integrity,
        modsign,
        livepatch,
        ..Settings::default()
    };
    let path = config.dump.path.value.clone();
    let mut wanted = build::contributions(config, host, &hooks)?;
    wanted.modules.extend(needed(&seen, generic, host)?);
    wanted.modules.extend(asked::modules(more, false, host.index(), &mut warnings, &mut lacking));
    problems.add(lacking);
    if let Some(export) = &seen.root.export {
        export.check().context("the root")?;
        wanted.modules.extend(nfs::all_modules("file system of the root"));
    } else if options.network {
        wanted.modules.extend(nfs::all_modules("the root may be on an NFS server (--network)"));
    }
    let mut overlay = Vec::new();
    if options.livepatch {
        let (patches, needs) = live_patches(host, &mut warnings)?;
        (overlay, wanted.modules) = (patches, [wanted.modules, needs].concat());
    }
    let image = ImageConfig { normal: Some(seen.root), ..build::image_config(config, host, hooks, path)? };
    let may_lack_firmware = options.allow_missing_firmware;
    let firmware: Vec<PathBuf> = more.firmware.iter().map(|given| given.value.clone()).collect();
    let (cmdline, bans) = (Cmdline::default(), build::bans(config));
    let wanted =
        build::Wanted { asked: wanted, cmdline: &cmdline, firmware: &firmware, may_lack_firmware, bans, old: None };
    let built = build::finish(plan, image, wanted, host, warnings, problems)?;
    let mut early = Plan::default();
    if options.early_microcode {
        early.extend(microcode::gather(&host.tree, generic)?)?;
    }
    Ok(Built { early, overlay, ..built })
}

/// The installed live patches of the kernel as they are put behind an image, and the modules that they need.
fn live_patches(host: &SystemHost, warnings: &mut Vec<String>) -> anyhow::Result<(Vec<u8>, Vec<ModuleNeed>)> {
    let (root, release) = (host.tree.root(), &host.kernel.release);
    let store = Store::below(root);
    let mut needs = Vec::new();
    for installed in store.of(release)? {
        let patch = Identity::read(&installed.file)?;
        store.verify(&patch)?;
        if patch.release != *release {
            bail!("{} was built for kernel {}; uninstall it", installed.file.display(), patch.release);
        }
        let depends = patch.info.values("depends").flat_map(|names| names.split(',')).filter(|name| !name.is_empty());
        needs.extend(depends.map(|name| ModuleNeed {
            request: name.to_owned(),
            reason: format!("the live patch {} needs it", patch.name),
            required: true,
            by_device: false,
        }));
    }
    // As kpatch finds out where the marker is.
    let has_variables = host.tree.path("sys/firmware/efi/efivars").read_dir().is_ok_and(|mut all| all.next().is_some());
    let cmdline = Cmdline::parse(&host.tree.line("proc/cmdline").unwrap_or_default());
    let is_counted = cmdline.last("kpatch.boots").is_some_and(|boots| boots.parse::<u32>().is_ok());
    if host.devices_are_here && !has_variables && !is_counted {
        warnings.push(
            "nothing keeps the marker of the boot-loop guard: no variables of the firmware can be used (no EFI, or \
             efi=noruntime), and GRUB does not count the boots (kpatch.boots= on the kernel command line): a live patch with \
             which this machine cannot be booted is not passed over by itself; kpatch.enable=0 on the kernel command line \
             passes over all"
                .to_owned(),
        );
    }
    if service::state(root, service::BOOTED) != service::Unit::Enabled {
        warnings.push(format!(
            "{} is not enabled: nothing notes that a boot is finished, and so the live patches are passed over from the \
             third one on, unless {} is; `systemctl enable {}`",
            service::BOOTED,
            service::SERVICE,
            service::BOOTED
        ));
    }
    Ok((overlay::of_store(root, &store, release)?, needs))
}

/// Only a kernel that has crashed hands keys over to the next one.
fn keys_are_files(storage: &[Layer]) -> anyhow::Result<()> {
    for layer in storage {
        if let Layer::Crypt(Crypt { name, key: Key::Kernel(_), .. }) = layer {
            bail!(
                "{name} is encrypted, and nobody is asked for its passphrase in a normal boot of this version; add a \
                 key file with `cryptsetup luksAddKey` and name it in /etc/crypttab"
            );
        }
    }
    Ok(())
}

impl Seen {
    /// The devices that have to be there before the system's init is.
    fn devices(&self) -> impl Iterator<Item = &DeviceSpec> {
        self.root.root.iter().chain(self.usr.iter().map(|(device, _)| device))
    }
}

/// The root file system of this machine and its `/usr`, by names that are the same in every boot.
fn look(host: &SystemHost) -> anyhow::Result<Seen> {
    if !host.devices_are_here {
        return Ok(Seen::default());
    }
    let holder = mounts::holder(&host.tree, Path::new("/")).context("cannot tell what the root file system is")?;
    let usr = mounts::holder(&host.tree, Path::new("/usr")).ok().filter(|usr| usr.number != holder.number);
    let usr = usr.and_then(|usr| Some((device_of(host, &usr)?, usr.fstype)));
    if holder.fstype.starts_with("nfs") {
        let export: Nfs = holder.source.parse().map_err(anyhow::Error::msg).context("cannot follow the root")?;
        let export = Nfs { options: target::nfs_options(&host.tree, &export), ..export };
        return Ok(Seen { root: Normal { export: Some(export), ..Normal::default() }, usr });
    }
    // A root without a device, such as the tmpfs of a live system, has to be named when it is booted.
    let Some(device) = device_of(host, &holder) else { return Ok(Seen { root: Normal::default(), usr }) };
    let rootflags = match holder.fstype.as_str() {
        "btrfs" => Some(format!("subvol={}", holder.path.display())),
        _ => None,
    };
    let root = Normal { root: Some(device), export: None, rootfstype: Some(holder.fstype), rootflags };
    Ok(Seen { root, usr })
}

/// The device of a mounted file system, if it is on one.
fn device_of(host: &SystemHost, holder: &mounts::Holder) -> Option<DeviceSpec> {
    let node = match holder.source.starts_with("/dev/") && holder.source != "/dev/root" {
        true => PathBuf::from(&holder.source),
        false => sysfs::node_of_number(&host.tree, &holder.number).ok()?,
    };
    Some(sysfs::lasting_name(&host.tree, &node).unwrap_or(DeviceSpec::Path(node)))
}

/// The network that leads to the root, or one that asks every card for an address; `ip=` and its kin on the kernel
/// command line take its place.
fn network(
    root: &Normal,
    asked: bool,
    config: &Config,
    host: &SystemHost,
    warnings: &mut Vec<String>,
) -> anyhow::Result<Option<Network>> {
    match &root.export {
        Some(export) => Ok(network::find(config, host, vec![Target::Nfs(export.clone())], &[], warnings)?.1),
        None if asked => {
            let mut any = Network::default();
            any.interface(EVERY).acquire = vec![Method::Any];
            Ok(Some(any))
        }
        None => Ok(None),
    }
}

/// What is needed to mount the root.
fn needed(seen: &Seen, generic: bool, host: &dyn Host) -> anyhow::Result<Vec<ModuleNeed>> {
    let need = |request: &str, reason: &str, required, by_device| ModuleNeed {
        request: request.to_owned(),
        reason: reason.to_owned(),
        required,
        by_device,
    };
    let mut modules: Vec<ModuleNeed> = match &seen.root.rootfstype {
        Some(fstype) => vec![need(fstype, "file system of the root", true, false)],
        None if seen.root.export.is_some() => Vec::new(),
        None => FILESYSTEMS.map(|fstype| need(fstype, "the root may be of that type", false, false)).to_vec(),
    };
    modules.push(need("crypto-crc32c", "file systems ask for it when mounted", false, false));
    modules.extend(seen.usr.iter().map(|(_, fstype)| need(fstype, "file system of /usr", true, false)));
    let mut unknown = seen.root.root.is_none() && seen.root.export.is_none();
    for device in seen.devices() {
        let chain = host.device_chain(device).with_context(|| format!("cannot find the drivers of {device}"))?;
        unknown |= chain.is_none();
        for request in chain.unwrap_or_default() {
            if !modules.iter().any(|need| need.request == request) {
                modules.push(need(&request, &format!("driver of {device}"), !request.contains(':'), true));
            }
        }
    }
    if generic || unknown {
        modules.extend(drivers::generic());
    }
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
fn sysctl_files(host: &SystemHost, warnings: &mut Vec<String>) -> anyhow::Result<Vec<Entry>> {
    let root = host.tree.root();
    let entry = |path: PathBuf| {
        let name = path.strip_prefix(root).unwrap_or(&path).to_path_buf();
        let name = name.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?.to_owned();
        let is_mask = fs::read_link(&path).is_ok_and(|target| target == Path::new("/dev/null"));
        let bytes = if is_mask { Vec::new() } else { host.tree.read(Path::new(&name))? };
        Ok(Entry::file(&name, bytes, "a sysctl file of this machine"))
    };
    let (there, dangling): (Vec<_>, Vec<_>) = sysctl::files(root)?.into_iter().partition(|path| {
        let name = Path::new("/").join(path.strip_prefix(root).unwrap_or(path));
        fs::read_link(path).is_err() || host.tree.canonical(&name).is_ok()
    });
    // systemd brings a link to the file that procps brings.
    warnings.extend(dangling.iter().map(|path| format!("{} leads nowhere; it is passed over", path.display())));
    there.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kdump_hooks::fake::FakeHost;

    fn requests(seen: &Seen, generic: bool, host: &FakeHost) -> Vec<String> {
        needed(seen, generic, host).unwrap().into_iter().map(|need| need.request).collect()
    }

    fn on(device: &str, fstype: &str) -> Normal {
        Normal { root: device.parse().ok(), rootfstype: Some(fstype.into()), ..Normal::default() }
    }

    #[test]
    fn a_root_that_is_here_names_its_drivers_and_any_other_gets_those_of_most_machines() {
        let seen = Seen { root: on("UUID=12", "xfs"), usr: None };
        let chains = [("UUID=12".to_owned(), vec!["pci:v1".to_owned(), "nvme".to_owned()])].into();
        let here = FakeHost { chains, ..FakeHost::default() };
        assert_eq!(requests(&seen, false, &here), ["xfs", "crypto-crc32c", "pci:v1", "nvme"]);
        let generic = requests(&seen, true, &here);
        assert!(generic.contains(&"virtio_blk".to_owned()) && generic.contains(&"pci:v1".to_owned()));
        let elsewhere = requests(&Seen::default(), false, &FakeHost::default());
        assert!(elsewhere.contains(&"ext4".to_owned()) && elsewhere.contains(&"virtio_blk".to_owned()));
    }

    #[test]
    fn a_usr_of_its_own_brings_its_file_system_and_drivers() {
        let usr = Some((DeviceSpec::Label("usr".into()), "btrfs".to_owned()));
        let seen = Seen { root: on("UUID=12", "xfs"), usr };
        let chain = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let chains = [("UUID=12".to_owned(), chain(&["nvme"])), ("LABEL=usr".to_owned(), chain(&["nvme", "ahci"]))];
        let here = FakeHost { chains: chains.into(), ..FakeHost::default() };
        assert_eq!(requests(&seen, false, &here), ["xfs", "crypto-crc32c", "btrfs", "nvme", "ahci"]);
    }

    #[test]
    fn a_key_that_only_a_crashed_kernel_hands_over_is_none() {
        let device = DeviceSpec::Uuid("12".into());
        let layer = |key| [Layer::Crypt(Crypt { name: "secret".into(), device: device.clone(), key, on: Vec::new() })];
        keys_are_files(&layer(Key::File { path: "/root/key".into(), offset: 0, size: None })).unwrap();
        let error = keys_are_files(&layer(Key::Kernel("key".into()))).unwrap_err().to_string();
        assert!(error.starts_with("secret is encrypted") && error.contains("luksAddKey"), "{error}");
    }

    #[test]
    fn a_root_on_a_server_needs_no_driver_of_a_disk() {
        let root = Normal { export: "nas:/srv".parse().ok(), ..Normal::default() };
        assert_eq!(requests(&Seen { root, usr: None }, false, &FakeHost::default()), ["crypto-crc32c"]);
    }
}
