//! The normal boot: what happens in an image until the system's own init takes over.
//!
//! ```text
//!   worker:      early ▶ modules ▶ devices ▶ network ▶ root: wait, mount on /sysroot, look for its init ─▶ `ready INIT`
//!   supervisor:  ◀── the same beats and limits as in a capture boot ──────────────────────────────────────────┘
//!                └▶ PID 1: /dev /proc /sys /run move ▶ the image's files go ▶ /sysroot becomes / ▶ exec INIT
//! ```
//!
//! In: the kernel command line and the `normal` section of the image configuration. Out: a mounted root and the path of
//! an init in it ([`prepare`]); PID 1 does the rest ([`switch`]), since the real init has to be PID 1 as well.
//! May surprise: file systems are not checked. That needs the file system's own tools, and systemd does it for every
//! file system, the root included, from the root mounted read-only.

mod init_program;
mod request;
pub mod switch;

pub use request::{Request, failure_action, flag};

use anyhow::{Context, bail};
use kdump_hooks::cmdline::Cmdline;
use kdump_hooks::{Machine, MountPlan};
use log::{debug, info, warn};
use std::fs;
use std::path::Path;

/// Where the root is mounted before it is one.
pub const SYSROOT: &str = "/sysroot";

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

/// What comes before anything else: `rd.debug`, the image's sysctl files, and a word on what cannot be done.
pub fn begin(cmdline: &Cmdline) {
    if flag(cmdline, "rd.debug") {
        log::set_max_level(log::LevelFilter::Debug);
    }
    let (made, problems) = kdump_hooks::sysctl::apply(Path::new("/"), Path::new("/proc/sys"));
    if made > 0 {
        info!("{made} sysctl settings made");
    }
    for problem in problems {
        warn!("sysctl: {problem}");
    }
    for word in wants_of_a_shell(cmdline) {
        warn!("{word} is asked for, but this image has no shell; the boot goes on without");
    }
}

/// The words of the command line that only a shell could follow.
fn wants_of_a_shell(cmdline: &Cmdline) -> Vec<&'static str> {
    ["rd.break", "rd.shell"].into_iter().filter(|word| flag(cmdline, word)).collect()
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
    mount(request, machine, sysroot, probe)?;
    let init = init_program::find(sysroot, request.init.as_deref())?;
    info!("the root is mounted, its init is {init}");
    Ok(init)
}

fn mount(
    request: &Request,
    machine: &mut dyn Machine,
    sysroot: &Path,
    probe: &dyn Fn(&Path) -> Vec<String>,
) -> anyhow::Result<()> {
    let device = &request.device;
    let source = machine.wait_for_device(device, request.limit).context("the root does not appear (root=)")?;
    let fstypes = if request.fstypes.is_empty() { probe(&source) } else { request.fstypes.clone() };
    let mut refusals = Vec::new();
    for fstype in &fstypes {
        // A file system that is built in is no module; whatever is wrong shows when it is mounted.
        if let Err(error) = machine.load_module(fstype) {
            debug!("{error:#}");
        }
        let plan = MountPlan {
            source: source.clone(),
            point: sysroot.to_owned(),
            fstype: fstype.clone(),
            options: request.options.clone(),
        };
        match machine.mount(&plan) {
            Ok(()) => {
                info!("root {device} ({}) is mounted as {fstype} {}", source.display(), request.options.join(","));
                return Ok(());
            }
            Err(error) => refusals.push(format!("as {fstype}: {error:#}")),
        }
    }
    if refusals.is_empty() {
        bail!("nothing known is on {device} ({}), and rootfstype= names no file system", source.display());
    }
    bail!(
        "cannot mount the root {device} ({}): {}; look at root=, rootfstype= and rootflags=",
        source.display(),
        refusals.join("; ")
    )
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
    use crate::config::Normal;
    use kdump_hooks::fake::FakeMachine;
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
        mount(&request(line), machine, Path::new("/sysroot"), &probe)
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
        let error = mounted("root=LABEL=root rootfstype=xfs,btrfs", &mut machine).unwrap_err().to_string();
        assert!(error.contains("as xfs: ") && error.contains("as btrfs: ") && error.contains("(/dev/vda1)"), "{error}");
    }

    #[test]
    fn a_root_that_does_not_appear_is_named_with_the_limit() {
        let error = mounted("root=LABEL=nowhere rootdelay=12", &mut FakeMachine::default()).unwrap_err();
        assert!(format!("{error:#}").ends_with("LABEL=nowhere did not appear within 12 s"), "{error:#}");
    }

    #[test]
    fn whoever_asks_for_a_shell_is_told_that_there_is_none() {
        let wants = |line: &str| wants_of_a_shell(&Cmdline::parse(line));
        assert_eq!(wants("rd.break=pre-mount rd.shell"), ["rd.break", "rd.shell"]);
        assert_eq!(wants("rd.shell=0 rd.debug"), [""; 0]);
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
