//! A Debian system into which the package is installed: its files, and a chroot in which packages run their scripts.
//!
//! ```text
//!  debian-root ─▶ System ─▶ install, upgrade, remove … (chroot, nothing boots)
//!                        └▶ boots(): disk ─▶ systemd ─▶ kdump.service ─▶ guest-probe … ─▶ the same disk once more
//! ```
//!
//! Surprising: a chroot is for root alone, and has no /proc and no systemd that runs; scripts of packages know both.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::accel::accel_with_five_levels;
use crate::machine::{Disk, Ending, Machine, Running};
use crate::programs::programs;
use crate::provision::Kernel;
use crate::scenario::{LABEL, UUID};
use crate::stack::Bus;
use crate::{console, disk, emulation, folders, provision, tools};

/// Emulated, systemd takes its time.
const LIMIT: Duration = Duration::from_secs(400);

/// A system that does not run, or not yet.
#[derive(Debug)]
pub struct System {
    folder: PathBuf,
}

impl System {
    /// A fresh one, kept as `target/qemu/runs/NAME`.
    pub fn new(name: &str) -> Result<System> {
        let folder = folders::qemu().join("runs").join(name);
        folders::fresh(&folder)?;
        let system = System { folder };
        provision::debian_system(&system.tree())?;
        Ok(system)
    }

    fn tree(&self) -> PathBuf {
        self.folder.join("disk")
    }

    /// Where a file of the system is.
    pub fn path(&self, path: &str) -> PathBuf {
        self.tree().join(path.trim_start_matches('/'))
    }

    /// Whether it has a file, be it a link that leads nowhere.
    pub fn has(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    /// The text of a file.
    pub fn text(&self, path: &str) -> Result<String> {
        let path = self.path(path);
        fs::read_to_string(&path).with_context(|| format!("unable to read {}", path.display()))
    }

    /// Writes a file, executable as scripts are.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        fs::write(&path, text).with_context(|| format!("unable to write {}", path.display()))?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?)
    }

    /// Runs a command in it; what it prints.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        tools::text(&mut self.command(words))
    }

    /// A command in it.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = tools::command("chroot");
        command.arg(self.tree()).args(words).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Installs a Debian package, as `apt install ./FILE` does once it has what the package depends on.
    pub fn install(&self, deb: &Path) -> Result<String> {
        tools::copy(deb, &self.path("/root/package.deb"))?;
        self.run(&["dpkg", "--install", "--force-confold", "/root/package.deb"])
    }

    /// Puts a kernel where packages put it. No hook is run.
    pub fn add_kernel(&self, kernel: &Kernel) -> Result<()> {
        let boot = |name: &str| self.path(&format!("/boot/{name}-{}", kernel.release));
        tools::copy(&kernel.vmlinuz, &boot("vmlinuz"))?;
        let config = kernel.vmlinuz.with_file_name(format!("config-{}", kernel.release));
        if config.exists() {
            tools::copy(&config, &boot("config"))?;
        }
        fs::create_dir_all(self.path("/usr/lib/modules"))?;
        let mut copy = tools::command("cp");
        copy.arg("-a").arg(&kernel.modules).arg(self.path("/usr/lib/modules"));
        tools::run(&mut copy)?;
        // systemd has kmod read it, which this system lacks.
        let names = self.path(&format!("/usr/lib/modules/{}/modules.devname", kernel.release));
        fs::remove_file(&names).with_context(|| format!("unable to remove {}", names.display()))
    }

    /// Has a script run when the system is up, on the console and by its own service.
    pub fn add_probe(&self, script: &str) -> Result<()> {
        self.write("/usr/local/sbin/guest-probe", &format!("{PROBE}{script}"))?;
        self.write("/etc/systemd/system/guest-probe.service", UNIT)?;
        let wants = self.path("/etc/systemd/system/multi-user.target.wants");
        fs::create_dir_all(&wants)?;
        symlink("../guest-probe.service", wants.join("guest-probe.service"))?;
        self.write("/etc/fstab", &format!("LABEL={LABEL} / ext4 defaults 0 1\n"))
    }

    /// Makes a disk of it, with an image that boots it; the files are gone then.
    pub fn into_disk(self, kernel: &Kernel, memory_mib: u32) -> Result<Bootable> {
        provision::tools()?;
        let (tree, initrd, image) = (self.tree(), self.folder.join("normal.img"), self.folder.join("vda.img"));
        let mut command = Command::new(programs()?.path("mkdumprd"));
        command.args(["--normal", "--kver", &kernel.release, "--modules-dir"]).arg(&kernel.modules);
        tools::run(command.arg("--sysroot").arg(&tree).arg(&initrd))?;
        disk::make_ext4(&image, &tree, 1200, LABEL, UUID)?;
        fs::remove_dir_all(&tree).context("unable to remove the files that are on the disk")?;
        let append = format!("root=LABEL={LABEL} ro crashkernel=160M panic=-1 loglevel=5 systemd.show_status=1");
        let machine = Machine::new(&kernel.vmlinuz, &initrd, &append, accel_with_five_levels()?)
            .memory_mib(memory_mib)
            .disk(Disk { image, serial: "root".into(), bus: Bus::Virtio });
        Ok(Bootable { machine, folder: self.folder })
    }
}

/// What begins every probe.
const PROBE: &str = "#!/bin/sh
say() { echo \"GUEST: $1=$2\" > /dev/console; }
systemctl is-system-running --wait > /dev/null
";

const UNIT: &str =
    "[Unit]\nDescription=Says what it sees\n[Service]\nType=simple\nExecStart=/usr/local/sbin/guest-probe\n";

/// A system on a disk.
#[derive(Debug)]
pub struct Bootable {
    /// The machine that it boots on.
    pub machine: Machine,
    folder: PathBuf,
}

/// What a boot said.
#[derive(Debug)]
pub struct Said {
    console: String,
    /// How it ended.
    pub ending: Ending,
}

impl Said {
    /// What the probe says of something.
    pub fn of(&self, what: &str) -> Result<&str> {
        let tail = || format!("nothing is said of {what}; the console said last:\n{}", tools::tail(&self.console, 60));
        console::said(&self.console, &format!("GUEST: {what}=")).with_context(tail)
    }

    /// Fails unless the probe says this of something.
    pub fn expect(&self, what: &str, value: &str) -> Result<()> {
        let said = self.of(what)?;
        ensure!(said == value, "{what} is {said:?}, not {value:?}; the console:\n{}", tools::tail(&self.console, 60));
        Ok(())
    }
}

impl Bootable {
    /// Boots; `meanwhile` is what is done to the machine.
    pub fn boot(&self, meanwhile: impl Fn(&Running) -> Result<()>) -> Result<Said> {
        emulation::survived("a system with the package", &self.folder, || {
            let running = self.machine.start(&self.folder)?;
            let console = running.console().clone();
            meanwhile(&running)?;
            let ending = running.wait_for_ending(LIMIT)?;
            Ok(Said { console: console.text(), ending })
        })
    }

    /// Takes a folder off the disk.
    pub fn take_off(&self, inside: &str) -> Result<PathBuf> {
        disk::take_off(&self.folder.join("vda.img"), inside, &self.folder)?;
        Ok(self.folder.join(Path::new(inside).file_name().unwrap_or_default()))
    }

    /// Removes the disk, which is large.
    pub fn done(self) -> Result<()> {
        fs::remove_file(self.folder.join("vda.img")).context("unable to remove the guest's disk")
    }
}
