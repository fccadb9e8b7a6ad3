//! What the image is told for a rehearsal: the same, but for where the dump goes and what leaves the machine.
//!
//! In: the image, and the file systems that can be made here. Out: the image with a second archive behind it, whose
//! configuration wins, and a scratch disk. The target is replaced by a file system of the same type where it is one; what
//! needs other machines, keys or a network is left out, and named.

use crate::build::{self, Request};
use crate::config::Files;
use crate::cpio::read::Archive;
use crate::cpio::write::{self, Packing};
use crate::inspect;
use crate::kdumpctl::Machine;
use crate::plan::{Entry, Kind, Plan};
use anyhow::{Context, bail};
use kdump_hooks::filesystem::Filesystem;
use kdump_hooks::{DeviceSpec, Target};
use kdump_init::config::{self as contract, Ending, Endings, ImageConfig};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The files of a rehearsal, in its folder.
pub(super) const IMAGE: &str = "image";
/// The scratch disk.
pub(super) const DISK: &str = "disk";

/// The label of the scratch disk.
const LABEL: &str = "rehearsal";
/// How large it is; most of it is a hole.
const DISK_SIZE: u64 = 1 << 30;

/// What hangs in the virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bus {
    Virtio,
    Nvme,
    Ahci,
    VirtioScsi,
}

/// Each with the modules that it takes.
const BUSES: [(Bus, &[&str]); 4] = [
    (Bus::Virtio, &["virtio_pci", "virtio_blk"]),
    (Bus::Nvme, &["nvme"]),
    (Bus::Ahci, &["ahci", "sd_mod"]),
    (Bus::VirtioScsi, &["virtio_pci", "virtio_scsi", "sd_mod"]),
];

/// The programs that make a file system, and how they are told its label.
const MAKERS: [(&str, &str, &[&str]); 8] = [
    ("ext4", "mkfs.ext4", &["-q", "-F", "-L"]),
    ("ext3", "mkfs.ext3", &["-q", "-F", "-L"]),
    ("ext2", "mkfs.ext2", &["-q", "-F", "-L"]),
    ("xfs", "mkfs.xfs", &["-q", "-f", "-L"]),
    ("btrfs", "mkfs.btrfs", &["-q", "-f", "-L"]),
    ("f2fs", "mkfs.f2fs", &["-q", "-f", "-l"]),
    ("vfat", "mkfs.vfat", &["-n"]),
    ("minix", "mkfs.minix", &["-3"]),
];

/// A stage that is set.
#[derive(Debug)]
pub(super) struct Stage {
    /// What the image is told.
    pub(super) config: ImageConfig,
    /// What the disk hangs on.
    pub(super) bus: Bus,
    /// The type of the disk's file system.
    pub(super) fstype: String,
    /// What is not rehearsed.
    pub(super) left_out: Vec<String>,
}

/// Sets it: writes the image for the rehearsal and makes the disk.
pub(super) fn set(machine: &Machine, image: &Path, folder: &Path) -> anyhow::Result<Stage> {
    let mut bytes = fs::read(image).with_context(|| format!("cannot read the image {}", image.display()))?;
    let mut config = inspect::config(&bytes).with_context(|| format!("{} is no image of ours", image.display()))?;
    let modules = modules(machine, &config.kernel_release, &bytes)?;
    let has = |name: &str| modules.contains(&name.replace('-', "_"));
    let mut left_out = Vec::new();
    let fstype = replace_target(&mut config, &mut left_out)?;
    let bus = BUSES.iter().find(|(_, needed)| needed.iter().all(|name| has(name))).map(|(bus, _)| *bus);
    let (bus, mut plan) = match bus {
        Some(bus) if has(&fstype) => (bus, Plan::default()),
        _ => {
            left_out.push("the drivers of the target: those of a virtual disk are laid over them".to_owned());
            (Bus::Virtio, drivers(machine, &config.kernel_release, &fstype)?)
        }
    };
    for folder in ["etc", "etc/kdump"] {
        if plan.get(folder).is_none() {
            plan.add(Entry::directory(folder, "the rehearsal"))?;
        }
    }
    let text = toml::to_string(&config).context("cannot write the configuration of the rehearsal")?;
    plan.replace(Entry::file(contract::PATH, text.into_bytes(), "the rehearsal"));
    // An archive begins at a multiple of four.
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    write::write(&plan, 0, Packing::None, &mut bytes)?;
    // The image may hold keys.
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(folder.join(IMAGE))?;
    file.write_all(&bytes).context("cannot write the image of the rehearsal")?;
    make_disk(&fstype, &folder.join(DISK))?;
    Ok(Stage { config, bus, fstype, left_out })
}

/// The modules that the image has, and those that are built into its kernel: the image knows of some, the machine of all.
fn modules(machine: &Machine, release: &str, image: &[u8]) -> anyhow::Result<BTreeSet<String>> {
    let archive = Archive::read(image)?;
    let files = archive.files();
    let mut names: BTreeSet<String> = files.keys().filter_map(|path| module_name(path)).collect();
    for (_, entry) in files.iter().filter(|(path, _)| path.ends_with("/modules.builtin")) {
        names.extend(String::from_utf8_lossy(archive.data(entry)).lines().filter_map(module_name));
    }
    for dir in ["lib/modules", "usr/lib/modules"] {
        let builtin = machine.tree.line(&format!("{dir}/{release}/modules.builtin")).unwrap_or_default();
        names.extend(builtin.lines().filter_map(module_name));
    }
    Ok(names)
}

/// `virtio_blk` of `kernel/drivers/block/virtio-blk.ko.xz`.
fn module_name(path: &str) -> Option<String> {
    let (name, _) = path.rsplit('/').next()?.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

/// Puts a scratch file system in the place of all targets, and takes out what leaves the machine; its type.
fn replace_target(config: &mut ImageConfig, left_out: &mut Vec<String>) -> anyhow::Result<String> {
    let hooks = &mut config.hooks;
    let wanted = hooks.targets.iter().find_map(|target| match target {
        Target::Filesystem(filesystem) => Some(filesystem.fstype.clone()),
        Target::Rootfs(rootfs) => Some(rootfs.filesystem.fstype.clone()),
        _ => None,
    });
    let fstype = choose(wanted.as_deref(), left_out)?;
    if let Some(path) = hooks.targets.first().and_then(|target| hooks.path_of(target)) {
        config.dump.path = path.to_owned();
    }
    let hooks = &mut config.hooks;
    for target in &hooks.targets {
        left_out.push(format!("the target {target}: a scratch disk takes its place"));
    }
    let scratch =
        Filesystem { fstype: fstype.clone(), device: DeviceSpec::Label(LABEL.to_owned()), options: Vec::new() };
    hooks.targets = vec![Target::Filesystem(scratch)];
    hooks.paths.clear();
    for (what, is_there) in [
        ("the layers of storage below the target", !hooks.storage.is_empty() || !hooks.network_storage.is_empty()),
        ("the network", hooks.network.is_some()),
        ("the watchdog", hooks.watchdog.is_some()),
        ("telling the cluster", hooks.fence.is_some()),
        ("telling people", hooks.notify.is_some()),
    ] {
        left_out.extend(is_there.then(|| what.to_owned()));
    }
    hooks.storage.clear();
    hooks.network_storage.clear();
    (hooks.network, hooks.watchdog, hooks.fence, hooks.notify) = (None, None, None, None);
    // A scratch disk has no old dumps, and whoever waits in a shell waits for nobody.
    config.dump.keep = None;
    config.endings =
        Endings { failure_action: Ending::Poweroff.into(), final_action: Ending::Poweroff, shell_first: false };
    Ok(fstype)
}

/// The type of the scratch file system: the target's, if it can be made here.
fn choose(wanted: Option<&str>, left_out: &mut Vec<String>) -> anyhow::Result<String> {
    let can = |fstype: &str| MAKERS.iter().any(|(name, program, _)| *name == fstype && on_path(program));
    match wanted {
        Some(wanted) if can(wanted) => return Ok(wanted.to_owned()),
        Some(wanted) => left_out.push(format!("{wanted}: there is no program here that makes one")),
        None => {}
    }
    match MAKERS.iter().find(|(name, _, _)| can(name)) {
        Some((name, _, _)) => Ok((*name).to_owned()),
        None => bail!("no file system can be made for the scratch disk: install e2fsprogs"),
    }
}

/// Whether there is such a program.
pub(super) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).any(|dir| dir.join(program).is_file())
}

/// The program, wherever it is.
pub(super) fn command(program: &str) -> Command {
    let place = ["/usr/sbin", "/sbin"].iter().map(|dir| Path::new(dir).join(program)).find(|path| path.is_file());
    Command::new(place.unwrap_or_else(|| program.into()))
}

/// The modules of most disks, virtual ones among them, and of the file system, with indexes of their own: this machine has
/// no disk of that label, so that none of its own drivers is looked for.
fn drivers(machine: &Machine, release: &str, fstype: &str) -> anyhow::Result<Plan> {
    let folder = tempfile::tempdir()?;
    let (conf, sysconfig) = (folder.path().join("kdump.conf"), folder.path().join("sysconfig"));
    fs::write(&conf, format!("{fstype} LABEL={LABEL}\n"))?;
    fs::write(&sysconfig, "")?;
    let request = Request {
        kver: Some(release.to_owned()),
        sysroot: machine.tree.root().to_owned(),
        modules_dir: None,
        files: Files::new(machine.tree.root(), Some(&conf), Some(&sysconfig)),
        programs: machine.programs.clone(),
        packing: Some(Packing::None),
        asked: crate::asked::Asked::default(),
        normal: None,
        old: None,
    };
    let whole = build::plan(&request).context("the drivers of a virtual disk cannot be laid over the image")?.plan;
    let mut plan = Plan::default();
    let entries = whole.entries().filter(|entry| ["lib", "usr"].iter().any(|top| entry.path.starts_with(top)));
    let modules = entries.filter(|entry| entry.kind == Kind::Directory || entry.path.contains("/modules/"));
    plan.extend(modules.cloned())?;
    Ok(plan)
}

fn make_disk(fstype: &str, disk: &Path) -> anyhow::Result<()> {
    File::create_new(disk).and_then(|file| file.set_len(DISK_SIZE)).context("cannot make the scratch disk")?;
    let maker = MAKERS.iter().find(|(name, _, _)| *name == fstype);
    let (_, program, options) = maker.with_context(|| format!("nobody knows how to make {fstype}"))?;
    let mut command = command(program);
    command.args(*options);
    if options.last().is_some_and(|option| option.to_ascii_lowercase().ends_with(['l', 'n'])) {
        command.arg(LABEL);
    }
    let output = command.arg(disk).stdin(Stdio::null()).output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeSystem, RELEASE};
    use crate::host::Tree;
    use crate::kexec::fake::FakeKexec;

    fn config(hooks: &str) -> ImageConfig {
        let text = format!(
            "version = 1\nkernel_release = '6.1'\nbuilt_by = 'test'\n[dump]\npath = '/var/crash'\ncollector = []\nkeep = 2\n\
             [endings]\nfailure_action = 'shell'\nfinal_action = 'halt'\n[limits]\n[hooks]\n{hooks}"
        );
        ImageConfig::parse(&text).unwrap()
    }

    #[test]
    fn a_rehearsal_takes_the_place_of_targets_and_of_all_that_leaves_the_machine() {
        let mut config = config(
            "[[hooks.targets]]\nkind = 'filesystem'\nfstype = 'ext4'\ndevice = 'UUID=1'\noptions = []\n\
             [[hooks.targets]]\nkind = 'nfs'\nserver = 'nas'\nexport = '/srv'\n[hooks.paths]\n'ext4 UUID=1' = '/dumps'\n\
             [[hooks.storage]]\nlayer = 'crypt'\nname = 'b'\ndevice = 'UUID=cd'\nkey = { file = { path = '/k' } }\n\
             [hooks.watchdog]\ndrivers = ['x']\n",
        );
        let mut left_out = Vec::new();
        assert_eq!(replace_target(&mut config, &mut left_out).unwrap(), "ext4");
        let targets: Vec<String> = config.hooks.targets.iter().map(Target::to_string).collect();
        assert_eq!(targets, ["ext4 LABEL=rehearsal"]);
        assert_eq!((config.dump.path.as_path(), config.dump.keep), (Path::new("/dumps"), None));
        assert!(config.hooks.storage.is_empty() && config.hooks.watchdog.is_none());
        assert_eq!(config.endings.failure_action, Ending::Poweroff.into());
        assert_eq!(left_out.len(), 4, "{left_out:?}");
    }

    #[test]
    fn an_image_without_a_driver_of_a_virtual_disk_gets_one_laid_over_it() {
        let dir = tempfile::tempdir().unwrap();
        let system = FakeSystem::new(dir.path()).unwrap();
        let kexec = FakeKexec::default();
        let machine = Machine {
            tree: Tree::new(dir.path()),
            files: Files::new(dir.path(), None, None),
            programs: Some(system.programs()),
            kexec: &kexec,
        };
        let mut plan = Plan::default();
        for folder in ["etc", "etc/kdump"] {
            plan.add(Entry::directory(folder, "test")).unwrap();
        }
        let hooks = "[[hooks.targets]]\nkind = 'filesystem'\nfstype = 'ext4'\ndevice = 'UUID=1'\noptions = []\n";
        let told = ImageConfig { kernel_release: RELEASE.into(), ..config(hooks) };
        plan.add(Entry::file(contract::PATH, toml::to_string(&told).unwrap().into_bytes(), "test")).unwrap();
        let (image, folder) = (dir.path().join("kdump.img"), dir.path().join("folder"));
        fs::create_dir(&folder).unwrap();
        write::write(&plan, 0, Packing::None, &mut File::create(&image).unwrap()).unwrap();
        let stage = set(&machine, &image, &folder).unwrap();
        assert_eq!((stage.bus, stage.fstype.as_str()), (Bus::Virtio, "ext4"));
        assert!(stage.left_out.iter().any(|line| line.contains("laid over")), "{:?}", stage.left_out);
        let made = fs::read(folder.join(IMAGE)).unwrap();
        assert!(modules(&machine, RELEASE, &made).unwrap().contains("virtio_blk"));
        assert_eq!(inspect::config(&made).unwrap(), stage.config);
        assert!(fs::metadata(folder.join(DISK)).unwrap().len() == DISK_SIZE);
    }

    #[test]
    fn a_file_system_that_cannot_be_made_here_is_named_and_another_one_taken() {
        let mut left_out = Vec::new();
        assert_eq!(choose(Some("nosuchfs"), &mut left_out).unwrap(), "ext4");
        assert!(left_out[0].contains("nosuchfs"), "{left_out:?}");
    }

    #[test]
    fn modules_are_known_by_their_files_whatever_packs_them() {
        assert_eq!(module_name("lib/modules/6.1/kernel/drivers/virtio/virtio-pci.ko.xz").unwrap(), "virtio_pci");
        assert_eq!(module_name("kernel/fs/ext4/ext4.ko").unwrap(), "ext4");
        assert_eq!(module_name("lib/modules/6.1/modules.dep"), None);
    }
}
