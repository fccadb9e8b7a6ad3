//! The other story: a normal image boots a small Debian system, which may crash then.
//!
//! ```text
//!  debian-root + programs + capture image ─▶ disk ─▶ mkdumprd --normal ─▶ boot ─▶ systemd ─▶ multi-user.target
//!                                                      ─▶ guest-probe says what it sees, then crashes or powers off
//! ```
//!
//! The root may also be a partition, an export of the host, or a stack of layers. What a stack is made of is known to a
//! running system alone: a first guest puts it together, copies the system to it and makes the image there, in a chroot.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::accel::accel_with_five_levels;
use crate::console::{self, Echo};
use crate::crash::{fill_disk, make_image, take_dump};
use crate::machine::{Disk, Ending, Machine};
use crate::programs::{Programs, programs};
use crate::scenario::{LABEL, Scenario, UUID};
use crate::stack::{Bus, Stack};
use crate::{disk, emulation, folders, guest_image, progress, provision, tools};

/// Emulated, systemd takes its time.
const LIMIT: Duration = Duration::from_secs(400);

/// What the system does once it is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It panics.
    Crash,
    /// It switches itself off.
    PowerOff,
}

/// Where the system is.
#[derive(Clone, Debug)]
pub enum Place {
    /// On the whole of the first disk.
    Disk,
    /// In the first of two partitions, the disk's MBR having this signature.
    Partition(u32),
    /// Where the commands of this stack have mounted it: at `/mnt`.
    Stack(Stack),
    /// In the folder that the host exports.
    Export(PathBuf),
}

/// One normal boot.
#[derive(Clone, Debug)]
pub struct NormalBoot {
    /// What else there is to be said: kernel, name, memory, the capture image's configuration.
    pub scenario: Scenario,
    /// Where the system is.
    pub place: Place,
    /// Options of mkdumprd besides `--normal`.
    pub options: Vec<String>,
    /// The kernel command line besides the console.
    pub append: String,
    /// What the system does in the end.
    pub then: Then,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// What was printed.
    pub console: String,
    /// How it ended.
    pub ending: Ending,
    /// From the start of the machine to when the system said that it is at `multi-user.target`, if it did. systemd's own
    /// line about it can get lost when a getty takes the console over.
    pub booted_after: Option<Duration>,
    /// The directory of a dump.
    pub dump: Option<PathBuf>,
}

impl Outcome {
    /// What the system's own probe says of something.
    pub fn said(&self, what: &str) -> Result<&str> {
        console::said(&self.console, &format!("GUEST: {what}=")).with_context(|| {
            format!(
                "the system does not say what {what} is; the console said last:\n{}",
                tools::tail(&self.console, 60)
            )
        })
    }
}

/// What runs when the system is up. It has no more than a minimal Debian.
const PROBE: &str = "#!/bin/sh
i=0
while [ $i -lt 300 ] && ! systemctl --quiet is-active multi-user.target; do sleep 1; i=$((i+1)); done
say() { echo \"GUEST: $1=$2\" > /dev/console; }
say target \"$(systemctl is-active multi-user.target)\"
say pid1 \"$(cat /proc/1/comm)\"
say arguments \"$(tr '\\0' ' ' < /proc/1/cmdline)\"
say root \"$(findmnt --noheadings --output FSTYPE,OPTIONS /)\"
say loaded \"$(cat /sys/kernel/kexec_crash_loaded)\"
say swappiness \"$(cat /proc/sys/vm/swappiness)\"
say unevictable \"$(grep ^Unevictable: /proc/meminfo | tr -dc 0-9)\"
say mounts \"$(findmnt --noheadings --list --output TARGET | sort | tr '\\n' ' ')\"
say usr \"$(findmnt --noheadings --output SOURCE,OPTIONS /usr)\"
say links \"$(ls /dev/disk/by-uuid /dev/disk/by-label | tr '\\n' ' ')\"
say failed \"$(systemctl --failed --no-legend --plain | tr '\\n' ' ')\"
sync
sleep 1
echo WORD > /proc/sysrq-trigger
";

/// An init of another make, which takes over and says so.
const OWN_INIT: &str = "#!/bin/sh
say() { echo \"GUEST: $1=$2\"; }
say pid \"$$\"
say arguments \"$*\"
say root \"$(findmnt --noheadings --output FSTYPE,OPTIONS /)\"
say proc \"$(cat /proc/1/comm)\"
sleep 1
echo o > /proc/sysrq-trigger
sleep 60
";

/// Where it is on the disk.
pub const OWN_INIT_PATH: &str = "/usr/local/sbin/own-init";

const UNIT: &str =
    "[Unit]\nDescription=Says what it sees\n[Service]\nType=simple\nExecStart=/usr/local/sbin/guest-probe\n";

/// Boots, and waits for the end.
pub fn boot(boot: &NormalBoot) -> Result<Outcome> {
    let folder = boot.scenario.folder();
    run(boot, &folder).with_context(|| format!("the run \"{}\" failed; see {}", boot.scenario.name, folder.display()))
}

fn run(boot: &NormalBoot, folder: &Path) -> Result<Outcome> {
    let scenario = &boot.scenario;
    folders::fresh(folder)?;
    provision::tools()?;
    let programs = programs()?;
    let accel = accel_with_five_levels()?;
    let tree = folder.join("disk");
    provision::debian_system(&tree)?;
    fill_disk(scenario, &programs, &tree)?;
    fill_system(boot, &tree)?;
    make_image(scenario, &programs, &tree)?;
    let mut initrd = folder.join("normal.img");
    let image = folder.join("vda.img");
    if let Place::Stack(stack) = &boot.place {
        stack.fill_disk(&scenario.kernel, &tree)?;
        fs::write(tree.join("root/install"), install(boot))?;
        disk::make_ext4(&image, &tree, 1200, LABEL, UUID)?;
    } else {
        tools::run(&mut mkdumprd(boot, &programs, &tree, &initrd))?;
    }
    match &boot.place {
        Place::Stack(_) => {}
        Place::Disk => disk::make_ext4(&image, &tree, 768, LABEL, UUID)?,
        Place::Partition(signature) => disk::make_ext4_in_partition(&image, &tree, 768, *signature)?,
        Place::Export(folder) => {
            tools::run(tools::command("cp").arg("-a").arg(tree.join(".")).arg(folder)).map(drop)?
        }
    }
    fs::remove_dir_all(&tree).context("unable to remove the files that are on the disk")?;

    let machine = |initrd: &Path, append: &str| -> Result<Machine> {
        let mut machine = Machine::new(&scenario.kernel.vmlinuz, initrd, append, accel)
            .memory_mib(scenario.memory_mib)
            .words(&scenario.qemu)
            .echo(Echo::Silent);
        if image.exists() {
            machine = machine.disk(Disk { image: image.clone(), serial: "root".into(), bus: Bus::Virtio });
        }
        if let Place::Stack(stack) = &boot.place {
            for spare in &stack.disks {
                machine = machine.disk(spare.make(folder)?);
            }
        }
        Ok(machine)
    };
    if let Place::Stack(stack) = &boot.place {
        let first = folder.join("first.img");
        guest_image::write(&scenario.kernel, &programs, &stack.modules, &first)?;
        let prepare = folder.join("prepare");
        fs::create_dir_all(&prepare)?;
        emulation::survived(&scenario.name, &prepare, || {
            let running = machine(&first, "loglevel=5 guest.mode=prepare")?.start(&prepare)?;
            let (which, line) = running.console().wait_for_any(&["GUEST: failed", "GUEST: prepared"], LIMIT)?;
            ensure!(which == 1, "the root could not be put together: {}", line.text);
            running.wait_for_ending(LIMIT)
        })?;
        progress::note(&format!("{}: the root is put together", scenario.name));
        disk::take_off(&image, INSTALLED, folder)?;
        initrd = folder.join("installed/normal.img");
    }

    let (console, ending) = emulation::survived(&scenario.name, folder, || {
        let mut running = machine(&initrd, &boot.append)?.start(folder)?;
        let console = running.console().clone();
        for (words, keys) in &scenario.dialogue {
            console.wait_for(words, LIMIT)?;
            running.press(keys)?;
        }
        let ending = running.wait_for_ending(LIMIT)?;
        Ok((console, ending))
    })?;
    let booted_after = console.find("GUEST: target=active").map(|line| line.at);
    if let Some(after) = booted_after {
        progress::note(&format!("{}: multi-user.target after {:.0} s", scenario.name, after.as_secs_f64()));
    }
    let has_dumps = matches!(boot.place, Place::Disk | Place::Stack(_));
    let dump = if has_dumps { take_dump(folder)? } else { None };
    if image.exists() {
        fs::remove_file(image).context("unable to remove the guest's disk")?;
    }
    Ok(Outcome { console: console.text(), ending, booted_after, dump })
}

/// Where the first guest leaves the image.
const INSTALLED: &str = "/installed";

/// Copies the system to where the stack is mounted, and makes the image from there. The modules stay where they are.
fn install(boot: &NormalBoot) -> String {
    format!(
        "set -e\nexport PATH=/usr/sbin:/usr/bin:/sbin:/bin\n\
         mkdir -p /mnt/usr\n\
         for name in /*; do case $name in /dev|/proc|/sys|/run|/mnt|/tmp|/usr|/lost+found) ;; *) cp -a $name /mnt;; esac; done\n\
         for name in /usr/*; do case $name in /usr/lib) ;; *) cp -a $name /mnt/usr;; esac; done\n\
         mkdir -p /mnt/usr/lib/modules\n\
         for name in /usr/lib/*; do case $name in /usr/lib/modules) ;; *) cp -a $name /mnt/usr/lib;; esac; done\n\
         for name in dev proc sys run mnt tmp; do mkdir -p /mnt/$name; done\n\
         for name in dev proc sys usr/lib/modules; do mount --bind /$name /mnt/$name; done\n\
         mkdir {INSTALLED}\n\
         chroot /mnt /usr/sbin/mkdumprd --normal {} --kver {} /boot/normal.img\n\
         mv /mnt/boot/normal.img {INSTALLED}\n\
         for name in dev proc sys usr/lib/modules; do umount /mnt/$name; done\n\
         if mountpoint -q /mnt/usr; then umount /mnt/usr; fi\n\
         umount /mnt\n",
        boot.options.join(" "),
        boot.scenario.kernel.release,
    )
}

fn fill_system(boot: &NormalBoot, tree: &Path) -> Result<()> {
    let word = if boot.then == Then::Crash { "c" } else { "o" };
    let probe = PROBE.replace("WORD", word);
    for (path, script) in [("/usr/local/sbin/guest-probe", probe.as_str()), (OWN_INIT_PATH, OWN_INIT)] {
        let path = tree.join(path.trim_start_matches('/'));
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    let units = tree.join("etc/systemd/system");
    fs::create_dir_all(units.join("multi-user.target.wants"))?;
    fs::write(units.join("guest-probe.service"), UNIT)?;
    symlink("../guest-probe.service", units.join("multi-user.target.wants/guest-probe.service"))?;
    fs::write(tree.join("etc/fstab"), fstab(&boot.place))?;
    // systemd does not read this file, so that what comes of it was done by the image.
    fs::write(tree.join("etc/sysctl.conf"), "vm.swappiness = 37\n-no.such = 1\n")?;
    Ok(())
}

fn fstab(place: &Place) -> String {
    match place {
        Place::Disk => format!("LABEL={LABEL} / ext4 defaults 0 1\n"),
        // A stack brings its own; an export and a partition are named on the kernel command line.
        Place::Partition(_) | Place::Stack(_) | Place::Export(_) => String::new(),
    }
}

fn mkdumprd(boot: &NormalBoot, programs: &Programs, tree: &Path, image: &Path) -> Command {
    let mut command = Command::new(programs.path("mkdumprd"));
    command.arg("--normal").args(&boot.options).args(["--kver", &boot.scenario.kernel.release]);
    command.arg("--modules-dir").arg(&boot.scenario.kernel.modules).arg("--sysroot").arg(tree).arg(image);
    command
}
