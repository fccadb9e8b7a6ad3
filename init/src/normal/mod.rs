//! The normal boot: what happens in an image until the system's own init takes over.
//!
//! ```text
//!   worker:      early ▶ modules ▶ devices ▶ network ▶ root: wait, mount on /sysroot, /usr in it, its init ─▶ `ready INIT`
//!   supervisor:  ◀── the same beats and limits as in a capture boot ──────────────────────────────────────────┘
//!                └▶ PID 1: /dev /proc /sys /run move ▶ the image's files go ▶ /sysroot becomes / ▶ exec INIT
//! ```
//!
//! In: the kernel command line and the `normal` section of the image configuration. Out: a mounted root and the path of
//! an init in it ([`prepare`]); PID 1 does the rest ([`switch`]), since the real init has to be PID 1 as well.
//! May surprise: file systems are not checked. That needs the file system's own tools, and systemd does it for every
//! file system, the root included, from the root mounted read-only.

mod init_program;
pub mod pause;
mod request;
mod root;
pub mod switch;
mod udev;
mod usr;

pub use kdump_hooks::machine::SYSROOT;
pub use request::{Request, endings, flag};
pub use root::Root;

use crate::config::Normal;
use anyhow::{Context, bail};
use kdump_hooks::cmdline::Cmdline;
use kdump_hooks::net::Network;
use kdump_hooks::nfs::{Nfs, Use};
use kdump_hooks::{Machine, MountPlan};
use log::{debug, info, warn};
use std::fs;
use std::path::Path;

/// Which of the two boots this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A kernel has crashed, and this one has its memory.
    Capture,
    /// A system is to be booted.
    Normal,
}

impl Mode {
    /// Decided by the one file that only a capture kernel has.
    pub fn of(vmcore: &Path) -> Mode {
        if vmcore.exists() { Mode::Capture } else { Mode::Normal }
    }

    /// What has come of such a boot when it has failed, in the words that a console is searched for.
    pub fn failure(self) -> &'static str {
        match self {
            Mode::Capture => "NO COMPLETE DUMP",
            Mode::Normal => "THE SYSTEM CANNOT BE BOOTED",
        }
    }
}

/// The settings of a capture kernel alone, if its image has any.
pub fn settings() {
    let file = Path::new(kdump_hooks::sysctl::CAPTURE);
    if file.is_file() {
        tell(&kdump_hooks::sysctl::apply_files(&[file.to_owned()], Path::new("/proc/sys")));
    }
}

fn tell((made, problems): &(usize, Vec<String>)) {
    if *made > 0 {
        info!("{made} sysctl settings made");
    }
    for problem in problems {
        warn!("sysctl: {problem}");
    }
}

/// What comes before anything else: `rd.debug`, the image's sysctl files, and a word on what cannot be done.
pub fn begin(cmdline: &Cmdline, has_shell: bool) {
    if flag(cmdline, "rd.debug") {
        log::set_max_level(log::LevelFilter::Debug);
    }
    tell(&kdump_hooks::sysctl::apply(Path::new("/"), Path::new("/proc/sys")));
    if let Some(device) = cmdline.last("resume") {
        warn!("resume={device} is not followed by this version: a system that was hibernated is started anew");
    }
    pause::complain(cmdline, has_shell);
}

/// Mounts the root at `sysroot` and gives the path of its init. `probe` tells the types of file system that a device may
/// hold.
///
/// # Errors
/// Why there is no root, or no init in it.
pub fn prepare(
    request: &Request,
    machine: &mut dyn Machine,
    sysroot: &Path,
    probe: &dyn Fn(&Path) -> Vec<String>,
) -> anyhow::Result<String> {
    match &request.root {
        Root::Device { device, offset } => {
            let source = Root::wait(device, *offset, machine, request.limit)?;
            mount_device(request, &source, machine, sysroot, probe)?;
        }
        Root::Export(export) => mount_export(request, export, machine, sysroot)?,
    }
    usr::mount(machine, sysroot, request.is_read_only(), request.limit, probe)?;
    let init = init_program::find(sysroot, request.init.as_deref())?;
    info!("the root is mounted, its init is {init}");
    Ok(init)
}

/// Whether this boot has a use for the network that the image can bring up: the root is on a server, or the command line
/// asks for one.
pub fn wants_network(cmdline: &Cmdline, known: &Normal) -> bool {
    let root = cmdline.last("root").map(|root| Root::named(root, cmdline).ok()).unwrap_or_else(|| Root::known(known));
    // A word that cannot be followed is told where it is followed.
    matches!(root, Some(Root::Export(_))) || Network::from_cmdline(cmdline).map_or(true, |network| network.is_some())
}

/// Leaves what the system's udev has to know of the devices that are there.
pub fn hand_over_devices() {
    match udev::note(Path::new("/sys/class/block"), Path::new(udev::DATA)) {
        Ok(0) => {}
        Ok(count) => debug!("{count} volumes noted for udev"),
        Err(error) => warn!("{error:#}; the system may wait in vain for its volumes"),
    }
}

fn mount_device(
    request: &Request,
    source: &Path,
    machine: &mut dyn Machine,
    sysroot: &Path,
    probe: &dyn Fn(&Path) -> Vec<String>,
) -> anyhow::Result<()> {
    let (root, node) = (&request.root, source.display());
    let fstypes = if request.fstypes.is_empty() { probe(source) } else { request.fstypes.clone() };
    if fstypes.is_empty() {
        bail!("nothing known is on {root} ({node}), and rootfstype= names no file system");
    }
    let fstype = mount_as_one_of(machine, source, sysroot, &fstypes, &request.options)
        .with_context(|| format!("cannot mount the root {root} ({node}); look at root=, rootfstype= and rootflags="))?;
    info!("root {root} ({node}) is mounted as {fstype} {}", request.options.join(","));
    Ok(())
}

/// Mounts a device as the first of several types that will do, and gives that one.
fn mount_as_one_of(
    machine: &mut dyn Machine,
    source: &Path,
    point: &Path,
    fstypes: &[String],
    options: &[String],
) -> anyhow::Result<String> {
    let mut refusals = Vec::new();
    for fstype in fstypes {
        // A file system that is built in is no module; whatever is wrong shows when it is mounted.
        if let Err(error) = machine.load_module(fstype) {
            debug!("{error:#}");
        }
        let plan = MountPlan {
            source: source.to_owned(),
            point: point.to_owned(),
            fstype: fstype.clone(),
            options: options.to_vec(),
        };
        match machine.mount(&plan) {
            Ok(()) => return Ok(fstype.clone()),
            Err(error) => refusals.push(format!("as {fstype}: {error:#}")),
        }
    }
    bail!("{}", refusals.join("; "))
}

fn mount_export(request: &Request, export: &Nfs, machine: &mut dyn Machine, sysroot: &Path) -> anyhow::Result<()> {
    let mut export = export.clone();
    let flags = request.options.iter().filter(|option| *option != "ro");
    export.options.extend(flags.cloned());
    let read_only = request.is_read_only();
    export.mount(machine, sysroot, Use::System { read_only }, request.limit).with_context(|| {
        format!(
            "cannot mount the root {export}; it needs an image with a network (mkdumprd --normal --network) and, if not              every card is to be asked for an address by DHCP, ip="
        )
    })
}

/// The types that the file system on a device may have, likeliest first: as its superblock says, else all that the
/// kernel knows.
pub fn types_on(node: &Path) -> Vec<String> {
    let superblock = fs::File::open(node).ok().and_then(|mut device| crate::devices::probe(&mut device).ok().flatten());
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    candidates(superblock.map(|superblock| superblock.fstype), &known)
}

fn candidates(superblock: Option<&str>, filesystems: &str) -> Vec<String> {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    match superblock {
        Some("ext") => owned(&["ext4", "ext3", "ext2"]),
        Some(fstype) => owned(&[fstype]),
        None => {
            filesystems.lines().filter(|line| !line.starts_with("nodev")).map(|line| line.trim().to_owned()).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kdump_hooks::fake::{FakeMachine, FakeNet};
    use kdump_hooks::net::Net;
    use std::time::Duration;

    fn request(line: &str) -> Request {
        Request::of(&Cmdline::parse(line), &Normal::default(), Duration::from_secs(9)).unwrap()
    }

    fn machine() -> FakeMachine {
        let mut machine = FakeMachine::default();
        machine.devices.insert("LABEL=root".into(), "/dev/vda1".into());
        machine
    }

    fn mounted(line: &str, machine: &mut FakeMachine) -> anyhow::Result<()> {
        let probe = |_: &Path| candidates(Some("ext"), "");
        let request = request(line);
        let Root::Device { device, offset } = &request.root else { panic!("no device") };
        let source = Root::wait(device, *offset, machine, request.limit)?;
        mount_device(&request, &source, machine, Path::new("/sysroot"), &probe)
    }

    #[test]
    fn the_root_is_awaited_and_mounted_as_what_it_is() {
        let mut machine = machine();
        mounted("root=LABEL=root", &mut machine).unwrap();
        assert_eq!(machine.journal, ["wait LABEL=root 9s", "load ext4", "mount /dev/vda1 /sysroot ext4 ro"]);
    }

    #[test]
    fn the_types_of_rootfstype_are_tried_in_order_and_every_refusal_is_told() {
        let mut machine = machine();
        machine.unmountable.insert("xfs".into());
        mounted("root=LABEL=root rootfstype=xfs,btrfs rootflags=subvol=@ rw", &mut machine).unwrap();
        assert_eq!(machine.journal.last().unwrap(), "mount /dev/vda1 /sysroot btrfs subvol=@");
        machine.unmountable.insert("btrfs".into());
        let error = mounted("root=LABEL=root rootfstype=xfs,btrfs", &mut machine).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("as xfs: ") && error.contains("as btrfs: ") && error.contains("(/dev/vda1)"), "{error}");
    }

    #[test]
    fn a_root_that_does_not_appear_is_named_with_the_limit() {
        let error = mounted("root=LABEL=nowhere rootdelay=12", &mut FakeMachine::default()).unwrap_err();
        assert!(format!("{error:#}").ends_with("LABEL=nowhere did not appear within 12 s"), "{error:#}");
    }

    #[test]
    fn a_root_on_a_server_is_mounted_with_the_flags_of_the_command_line() {
        let mut machine = FakeMachine { net: FakeNet::with_cards(&["eth0"]), ..FakeMachine::default() };
        machine.net.add_address(2, "10.0.2.15/24".parse().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let line = "root=nfs:10.0.2.2:/srv:port=2050 rootflags=noatime rw";
        let error = prepare(&request(line), &mut machine, dir.path(), &|_| Vec::new()).unwrap_err();
        assert!(error.to_string().contains("the root has no init"));
        let mount = machine.journal.last().unwrap();
        assert!(mount.starts_with("mount 10.0.2.2:/srv ") && mount.ends_with("port=2050,noatime"), "{mount}");
        let lost = prepare(&request(line), &mut FakeMachine::default(), dir.path(), &|_| Vec::new()).unwrap_err();
        let lost = format!("{lost:#}");
        assert!(lost.contains("mkdumprd --normal --network") && lost.contains("there is no route"), "{lost}");
    }

    #[test]
    fn a_network_is_for_a_root_on_a_server_or_for_who_asks_for_one() {
        let wants = |line: &str, known: &Normal| wants_network(&Cmdline::parse(line), known);
        let (disk, server) = (Normal::default(), Normal { export: "nas:/srv".parse().ok(), ..Normal::default() });
        for line in
            ["root=nfs:nas:/srv", "root=/dev/vda ip=dhcp", "root=/dev/vda rd.neednet=1", "root=/dev/vda ip=ibft"]
        {
            assert!(wants(line, &disk), "{line}");
        }
        assert!(wants("quiet", &server) && !wants("root=/dev/vda", &server) && !wants("quiet", &disk));
    }

    #[test]
    fn the_mode_is_decided_by_the_old_kernel_s_memory() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Mode::of(&dir.path().join("vmcore")), Mode::Normal);
        fs::write(dir.path().join("vmcore"), "").unwrap();
        assert_eq!(Mode::of(&dir.path().join("vmcore")), Mode::Capture);
    }

    #[test]
    fn a_root_without_an_init_is_not_handed_over() {
        let dir = tempfile::tempdir().unwrap();
        let error = prepare(&request("root=LABEL=root"), &mut machine(), dir.path(), &|_| vec!["ext4".into()]);
        assert!(error.unwrap_err().to_string().contains("the root has no init"));
    }

    #[test]
    fn without_a_superblock_every_file_system_of_the_kernel_is_tried() {
        assert_eq!(candidates(Some("xfs"), "\text3\n"), ["xfs"]);
        assert_eq!(candidates(None, "nodev\tsysfs\n\text3\nnodev\ttmpfs\n\tvfat\n"), ["ext3", "vfat"]);
    }
}
