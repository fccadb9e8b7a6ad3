//! The other story: a normal image boots a small Debian system, which may crash then.
//!
//! ```text
//!  debian-root + programs + capture image ─▶ disk ─▶ mkdumprd --normal ─▶ boot ─▶ systemd ─▶ multi-user.target
//!                                                      ─▶ guest-probe says what it sees, then crashes or powers off
//! ```

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::accel::accel_with_five_levels;
use crate::console::Echo;
use crate::crash::{fill_disk, make_image, take_dump};
use crate::machine::{Disk, Ending, Machine};
use crate::programs::{Programs, programs};
use crate::scenario::{LABEL, Scenario, UUID};
use crate::stack::Bus;
use crate::{disk, folders, progress, provision, tools};

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

/// One normal boot.
#[derive(Clone, Debug)]
pub struct NormalBoot {
    /// What else there is to be said: kernel, name, memory, the capture image's configuration.
    pub scenario: Scenario,
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
    /// From the start of the machine to `multi-user.target`, if it got there.
    pub booted_after: Option<Duration>,
    /// The directory of a dump.
    pub dump: Option<PathBuf>,
}

impl Outcome {
    /// What the system's own probe says of something.
    pub fn said(&self, what: &str) -> Result<&str> {
        let line = self.console.lines().find_map(|line| line.split_once(&format!("GUEST: {what}=")));
        line.map(|(_, value)| value.trim()).with_context(|| {
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
say pid1 \"$(cat /proc/1/comm)\"
say arguments \"$(tr '\\0' ' ' < /proc/1/cmdline)\"
say root \"$(findmnt --noheadings --output FSTYPE,OPTIONS /)\"
say loaded \"$(cat /sys/kernel/kexec_crash_loaded)\"
say swappiness \"$(cat /proc/sys/vm/swappiness)\"
say unevictable \"$(grep ^Unevictable: /proc/meminfo | tr -dc 0-9)\"
say mounts \"$(findmnt --noheadings --list --output TARGET | sort | tr '\\n' ' ')\"
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
    tools::run(tools::command("cp").arg("-a").arg(provision::debian_root()?).arg(&tree))?;
    fill_disk(scenario, &programs, &tree)?;
    fill_system(boot, &tree)?;
    make_image(scenario, &programs, &tree)?;
    let initrd = folder.join("normal.img");
    tools::run(&mut mkdumprd(boot, &programs, &tree, &initrd))?;
    let image = folder.join("vda.img");
    disk::make_ext4(&image, &tree, 768, LABEL, UUID)?;
    fs::remove_dir_all(&tree).context("unable to remove the files that are on the disk")?;

    let running = Machine::new(&scenario.kernel.vmlinuz, &initrd, &boot.append, accel)
        .memory_mib(scenario.memory_mib)
        .echo(Echo::Silent)
        .disk(Disk { image: image.clone(), serial: "root".into(), bus: Bus::Virtio })
        .start(folder)?;
    let console = running.console().clone();
    let ending = running.wait_for_ending(LIMIT)?;
    let booted_after = console.find("Reached target multi-user.target").map(|line| line.at);
    if let Some(after) = booted_after {
        progress::note(&format!("{}: multi-user.target after {:.0} s", scenario.name, after.as_secs_f64()));
    }
    let dump = take_dump(folder)?;
    fs::remove_file(image).context("unable to remove the guest's disk")?;
    Ok(Outcome { console: console.text(), ending, booted_after, dump })
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
    fs::write(tree.join("etc/fstab"), format!("LABEL={LABEL} / ext4 defaults 0 1\n"))?;
    // systemd does not read this file, so that what comes of it was done by the image.
    fs::write(tree.join("etc/sysctl.conf"), "vm.swappiness = 37\n-no.such = 1\n")?;
    Ok(())
}

fn mkdumprd(boot: &NormalBoot, programs: &Programs, tree: &Path, image: &Path) -> Command {
    let mut command = Command::new(programs.path("mkdumprd"));
    command.arg("--normal").args(&boot.options).args(["--kver", &boot.scenario.kernel.release]);
    command.arg("--modules-dir").arg(&boot.scenario.kernel.modules).arg("--sysroot").arg(tree).arg(image);
    command
}
