//! The capture environment over system calls.

use super::{LinuxNet, mounts};
use crate::beat::{Beat, Pulse, ToSupervisor};
use crate::config::Ending;
use crate::devices::Devices;
use crate::modules::Loader;
use crate::program;
use crate::within::{Late, within};
use anyhow::Context;
use kdump_hooks::kernel::{KernelLog, LinuxKeys};
use kdump_hooks::keys::Keys;
use kdump_hooks::livepatch::{self, LinuxKernel};
use kdump_hooks::machine::MOUNT_POINT;
use kdump_hooks::net::Net;
use kdump_hooks::{DeviceSpec, Ended, Machine, MountPlan, Program};
use log::warn;
use nix::errno::Errno;
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long it may take to leave a file system behind.
const GIVING_UP: Duration = Duration::from_secs(10);

/// The machine that has just crashed.
#[derive(Debug)]
pub struct CaptureMachine {
    /// Loads its modules.
    pub loader: Loader,
    /// Knows its devices.
    pub devices: Devices,
    /// Knows its network.
    pub net: LinuxNet,
    /// Its kernel's keys.
    pub keys: LinuxKeys,
    /// Knows its live patches.
    pub live: LinuxKernel,
    /// How long a stage may take beside the programs that are run in it.
    pub patience: Duration,
    /// How many targets have been left behind, each at a mount point of its own.
    pub left_behind: u32,
}

impl CaptureMachine {
    /// How long mount(2), a flush or umount(2) may take: less than the stage in which it is called.
    fn call_limit(&self) -> Duration {
        self.patience * 2 / 3
    }

    fn mount_within(&mut self, plan: &MountPlan, secret: &[String]) -> anyhow::Result<()> {
        let (theirs, secret) = (plan.clone(), secret.to_owned());
        let mounted = within(self.call_limit(), move || mounts::mount(&theirs, &secret));
        if mounted.as_ref().is_err_and(|error| error.is::<Late>()) {
            // It may yet be mounted there.
            self.left_behind += 1;
        }
        mounted
    }
}

impl Machine for CaptureMachine {
    fn load_module(&mut self, request: &str) -> anyhow::Result<()> {
        self.loader.load(request, "the boot").map_err(anyhow::Error::msg)
    }

    fn wait_for_device(&mut self, device: &DeviceSpec, limit: Duration) -> anyhow::Result<PathBuf> {
        self.devices.wait_for(device, limit)
    }

    fn wait_for_members(
        &mut self,
        device: &DeviceSpec,
        count: Option<u64>,
        limit: Duration,
    ) -> anyhow::Result<Vec<PathBuf>> {
        self.devices.wait_for_members(device, count, limit)
    }

    fn tell_kernel(&mut self, file: &Path, text: &str) -> anyhow::Result<()> {
        let mut log = KernelLog::from_now().ok();
        std::fs::write(file, text).map_err(|error| {
            let words: Vec<String> = std::iter::from_fn(|| log.as_mut()?.next_line()).take(4).collect();
            let first = text.lines().next().unwrap_or_default();
            let more = if text.trim_end() == first { "" } else { " …" };
            let what = format!("cannot write `{first}{more}` to {}", file.display());
            anyhow::Error::new(error).context(match words.is_empty() {
                true => what,
                false => format!("{what}; the kernel says: {}", words.join(" | ")),
            })
        })
    }

    fn ask_kernel(&mut self, file: &Path) -> anyhow::Result<String> {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(text.trim_end().to_owned())
    }

    fn mount(&mut self, plan: &MountPlan) -> anyhow::Result<()> {
        self.mount_within(plan, &[])
    }

    fn mount_with_secret(&mut self, plan: &MountPlan, secret: &[String]) -> anyhow::Result<()> {
        self.mount_within(plan, secret)
    }

    fn mount_point(&self) -> PathBuf {
        match self.left_behind {
            0 => MOUNT_POINT.into(),
            number => format!("{MOUNT_POINT}.{number}").into(),
        }
    }

    fn run(&mut self, program: &Program) -> anyhow::Result<Ended> {
        let limit = program.limit;
        // Each program has its own time; the stage that runs several of them has the sum.
        ToSupervisor.beat(Beat::Still(limit + self.patience));
        let late = || format!("it was not done within {} s and has been killed", limit.as_secs());
        let ended = program::run(&program.argv, &program.env, &mut |life| (life.age > limit).then(late))?;
        Ok(Ended { code: ended.code(), said: ended.said })
    }

    fn unmount(&mut self, point: &Path) -> anyhow::Result<()> {
        let theirs = point.to_owned();
        let unmounted = within(self.call_limit(), move || mounts::unmount(&theirs));
        if unmounted.as_ref().is_err_and(|error| error.is::<Late>()) {
            self.give_up();
            return unmounted.with_context(|| format!("cannot flush {}", point.display()));
        }
        unmounted
    }

    fn give_up(&mut self) {
        let point = self.mount_point();
        self.left_behind += 1;
        warn!("leaving {} behind, which does not answer any more", point.display());
        if let Err(error) = within(GIVING_UP, move || mounts::give_up(&point)) {
            warn!("{error:#}");
        }
    }

    fn network(&mut self) -> &mut dyn Net {
        &mut self.net
    }

    fn keys(&mut self) -> &mut dyn Keys {
        &mut self.keys
    }

    fn has_file(&self, path: &Path) -> bool {
        path.exists()
    }

    fn read_file(&mut self, path: &Path) -> anyhow::Result<Vec<u8>> {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    }

    fn live_patches(&mut self) -> &mut dyn livepatch::Kernel {
        &mut self.live
    }
}

/// Restarts, halts or switches off. Comes back only with an error.
pub fn end(ending: Ending) -> Errno {
    let mode = match ending {
        Ending::Reboot => RebootMode::RB_AUTOBOOT,
        Ending::Halt => RebootMode::RB_HALT_SYSTEM,
        Ending::Poweroff => RebootMode::RB_POWER_OFF,
    };
    match reboot(mode) {
        Err(errno) => errno,
        Ok(never) => match never {},
    }
}

/// Makes a panic of this kernel, such as the death of PID 1, a restart, if the command line has not said otherwise.
pub fn restart_on_panic() {
    const FILE: &str = "/proc/sys/kernel/panic";
    if std::fs::read_to_string(FILE).is_ok_and(|seconds| seconds.trim() == "0") {
        let _ = std::fs::write(FILE, "10");
    }
}

/// Makes the keys that restart a machine (Ctrl-Alt-Del) a signal to PID 1, which does not listen.
pub fn ignore_restart_keys() {
    let _ = std::fs::write("/proc/sys/kernel/ctrl-alt-del", "0");
}

/// The kernel is to spare this process when memory runs out: it is the one that can tell what happened.
pub fn spare_this_process() {
    let _ = std::fs::write("/proc/self/oom_score_adj", "-900");
}

/// Where memory runs out, the kernel is to take it from this process first.
pub fn offer_process(pid: u32) {
    let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), "500");
}

/// Kills every process but PID 1, which must be the caller.
pub fn kill_everything() {
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
}

/// `MemAvailable` in KiB.
pub fn memory_available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
