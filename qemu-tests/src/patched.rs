//! The story of a system with live patches that boots again and again: one disk, one firmware, an image that kpatch
//! writes.
//!
//! ```text
//!  debian-root + programs + units ─▶ mkdumprd --normal --livepatch ─▶ kpatch install, in a chroot ─▶ disk
//!                                        └▶ bare image     └▶ image with patches
//!  boot(image, words) ─▶ EFI ─▶ kernel ─▶ systemd ─▶ the commands of this boot ─▶ answers taken off ┐
//!    ▲──────────────────────── the same disk and variables, the image as it is on the disk now ─────┘
//! ```
//!
//! Surprising: the firmware boots the kernel and image that QEMU hands it, so that no boot loader is needed; what is on
//! the disk has to be taken off to be booted. A machine without EFI has GRUB on a disk of its own, which always boots the
//! same: it is there to be booted again and again.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::accel::{Accel, accel_with_five_levels};
use crate::crash::{fill_disk, make_image, take_dump};
use crate::live::Answer;
use crate::machine::{Disk, Ending, Machine, Running};
use crate::programs::{Programs, programs};
use crate::scenario::{LABEL, Scenario, UUID};
use crate::stack::Bus;
use crate::{disk, emulation, folders, grub_disk, progress, provision, tools};

/// Emulated, firmware and systemd take their time.
const LIMIT: Duration = Duration::from_secs(500);

/// Where kpatch finds the image.
const IMAGE: &str = "boot/normal.img";
/// Where patches wait to be installed.
pub const PATCHES: &str = "/root/patches";
/// Where each boot has its commands, one line each, and leaves what they said.
const BOOTS: &str = "root/boots";

/// What starts the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Starter {
    /// The firmware of an EFI machine.
    Efi,
    /// GRUB, on a machine that has none.
    Grub,
}

/// A system and its firmware, between two boots.
#[derive(Debug)]
pub struct System {
    scenario: Scenario,
    folder: PathBuf,
    starter: Starter,
    accel: Accel,
    /// An image without any patch.
    pub bare: PathBuf,
}

/// What one boot is.
#[derive(Clone, Debug)]
pub struct Boot {
    /// Its name.
    pub name: &'static str,
    /// Further words of the kernel command line.
    pub append: &'static str,
    /// What is run when the system is up; in the end it switches itself off, or panics.
    pub commands: Vec<&'static str>,
    /// Whether it panics in the end.
    pub crashes: bool,
}

/// What came of a boot.
#[derive(Debug)]
pub struct Outcome {
    /// What was printed.
    pub console: String,
    /// What the commands said.
    pub answers: Vec<Answer>,
}

/// Runs when the system is up. It has no more than a minimal Debian.
const PROBE: &str = r#"#!/bin/sh
systemctl is-system-running --wait > /dev/null
boot=$(sed 's/.*guest.boot=\([a-z]*\).*/\1/' /proc/cmdline)
cd /root/boots
mkdir -p "$boot.answers"
number=0
while read -r command; do
    sh -c "$command" > "$boot.answers/$number.out" 2> "$boot.answers/$number.err"
    echo $? > "$boot.answers/$number.code"
    number=$((number+1))
done < "$boot"
echo "GUEST: $boot is done" > /dev/console
sync
sleep 1
case $(cat "$boot.end") in
    crash) echo c > /proc/sysrq-trigger ;;
    *) systemctl --no-block poweroff ;;
esac
"#;

const UNIT: &str = "[Unit]\nDescription=Runs what is asked of this boot\n[Service]\nType=simple\nExecStart=/usr/local/sbin/guest-probe\n";

impl System {
    /// Makes a system that has `patches` at hand and those that are named in `installed` installed, and knows what it is to
    /// do in each of its boots.
    pub fn new(
        scenario: Scenario,
        starter: Starter,
        patches: &[&str],
        installed: &[&str],
        boots: &[Boot],
    ) -> Result<System> {
        let folder = scenario.folder();
        folders::fresh(&folder)?;
        provision::tools()?;
        let (programs, accel) = (programs()?, accel_with_five_levels()?);
        let tree = folder.join("disk");
        provision::debian_system(&tree)?;
        fill_disk(&scenario, &programs, &tree)?;
        make_image(&scenario, &programs, &tree)?;
        fill(&scenario, &programs, &tree, patches, boots)?;
        let bare = folder.join("bare.img");
        tools::run(
            Command::new(programs.path("mkdumprd"))
                .args(["--normal", "--livepatch", "--early-kdump", "--kver", &scenario.kernel.release, "--modules-dir"])
                .arg(&scenario.kernel.modules)
                .arg("--sysroot")
                .arg(&tree)
                .arg(tree.join(IMAGE)),
        )?;
        tools::copy(&tree.join(IMAGE), &bare)?;
        for name in installed {
            let mut command = tools::command("chroot");
            command.arg(&tree).args(["/usr/sbin/kpatch", "install", "--kernel-version", &scenario.kernel.release]);
            let said = tools::text(command.arg(format!("{PATCHES}/{name}.ko")))?;
            for words in
                ["installing live_patch_", "kpatch.service is enabled", "updated the live patches in /boot/normal.img"]
            {
                ensure!(said.contains(words), "kpatch install did not say {words:?}, but: {said}");
            }
        }
        match (starter, boots) {
            (Starter::Efi, _) => tools::copy(&provision::firmware()?.variables, &folder.join("variables"))?,
            (Starter::Grub, [boot]) => {
                let words = format!("console=ttyS0 {} {}", emulation::KERNEL_WORDS, words(boot.name, boot.append));
                let disk = folder.join("grub.img");
                grub_disk::make(&disk, &tree, &scenario.kernel, &tree.join(IMAGE), &words)?;
                let line = format!("{} {} ext4 defaults 0 0\n", grub_disk::PARTITION, grub_disk::FOLDER);
                let fstab = tree.join("etc/fstab");
                fs::write(&fstab, fs::read_to_string(&fstab)? + &line)?;
                fs::create_dir_all(tree.join(grub_disk::FOLDER.trim_start_matches('/')))?;
            }
            (Starter::Grub, boots) => anyhow::bail!("GRUB always boots the same, and not {} boots", boots.len()),
        }
        disk::make_ext4(&folder.join("vda.img"), &tree, 768, LABEL, UUID)?;
        fs::remove_dir_all(&tree).context("unable to remove the files that are on the disk")?;
        Ok(System { scenario, folder, starter, accel, bare })
    }

    /// The disk that GRUB is on.
    pub fn grub(&self) -> PathBuf {
        self.folder.join("grub.img")
    }

    /// The image as it is on the disk now.
    pub fn image(&self) -> Result<PathBuf> {
        let folder = self.folder.join("taken-off");
        folders::fresh(&folder)?;
        disk::take_off(&self.folder.join("vda.img"), "/boot", &folder)?;
        Ok(folder.join(IMAGE))
    }

    /// Boots, lets the commands run, and waits for the end.
    pub fn boot(&self, boot: &Boot, image: &Path) -> Result<Outcome> {
        let what = || format!("the boot \"{}\" failed; see {}", boot.name, self.folder.display());
        let folder = self.folder.join(boot.name);
        let (console, ending) = self.run(boot.name, image, boot.append, &folder, &mut |running| {
            let console = running.console().clone();
            let ending = running.wait_for_ending(LIMIT);
            ending.with_context(|| format!("the console said last:\n{}", tools::tail(&console.text(), 40)))
        })?;
        let expected = if boot.crashes { Ending::Reboot } else { Ending::PowerOff };
        ensure!(ending == expected, "{}: its ending was {ending:?}", what());
        disk::take_off(&self.folder.join("vda.img"), &format!("/{BOOTS}"), &folder)?;
        let answers = folder.join("boots").join(format!("{}.answers", boot.name));
        let answer = |(number, command): (usize, &&str)| {
            let text = |kind: &str| {
                let file = answers.join(format!("{number}.{kind}"));
                fs::read_to_string(&file).with_context(|| format!("{}: no {}", what(), file.display()))
            };
            let code = text("code")?.trim().parse().context("an exit code is not a number")?;
            Ok(Answer { command: (*command).to_owned(), code, out: text("out")?, err: text("err")? })
        };
        let answers = boot.commands.iter().enumerate().map(answer).collect::<Result<_>>()?;
        Ok(Outcome { console, answers })
    }

    /// Boots until these words are said, before the system is up, and gives what was printed.
    pub fn boot_until(&self, name: &'static str, image: &Path, words: &str) -> Result<String> {
        let folder = self.folder.join(name);
        let (console, ()) = self.run(name, image, "", &folder, &mut |running| {
            let (which, line) = running.console().wait_for_any(&[words, "GUEST: "], LIMIT)?;
            ensure!(which == 0, "the system came up: {}", line.text);
            Ok(())
        })?;
        Ok(console)
    }

    /// The dump that the crash has left.
    pub fn dump(&self) -> Result<PathBuf> {
        take_dump(&self.folder)?.context("the crash left no dump")
    }

    fn run<T>(
        &self,
        name: &str,
        image: &Path,
        append: &str,
        folder: &Path,
        follow: &mut dyn FnMut(Running) -> Result<T>,
    ) -> Result<(String, T)> {
        let machine = match self.starter {
            Starter::Efi => {
                let code = provision::firmware()?.code;
                let variables = self.folder.join("variables");
                Machine::new(&self.scenario.kernel.vmlinuz, image, &words(name, append), self.accel).words(&[
                    "-drive".to_owned(),
                    format!("if=pflash,format=raw,unit=0,readonly=on,file={}", code.display()),
                    "-drive".to_owned(),
                    format!("if=pflash,format=raw,unit=1,file={}", variables.display()),
                ])
            }
            Starter::Grub => {
                let disk = Disk { image: self.grub(), serial: "grub".into(), bus: Bus::Virtio };
                Machine::from_disk(self.accel).disk(disk)
            }
        };
        let root = Disk { image: self.folder.join("vda.img"), serial: "root".into(), bus: Bus::Virtio };
        let machine = machine.memory_mib(self.scenario.memory_mib).disk(root);
        let booted = emulation::survived(name, folder, || {
            folders::fresh(folder)?;
            let running = machine.start(folder)?;
            let console = running.console().clone();
            let value = follow(running)?;
            Ok((console.text(), value))
        });
        let booted = booted.with_context(|| format!("the boot \"{name}\" failed; see {}", folder.display()))?;
        progress::note(&format!("{}: the boot \"{name}\" is over", self.scenario.name));
        Ok(booted)
    }
}

/// The kernel command line of that boot, besides the console.
fn words(name: &str, append: &str) -> String {
    format!("root=LABEL={LABEL} ro panic=-1 loglevel=5 guest.boot={name} {append}")
}

/// What a system with live patches has beside its capture kernel.
fn fill(scenario: &Scenario, programs: &Programs, tree: &Path, patches: &[&str], boots: &[Boot]) -> Result<()> {
    tools::copy(&programs.path("kpatch"), &tree.join("usr/sbin/kpatch"))?;
    for unit in ["kpatch.service", "kpatch-booted.service"] {
        let source = folders::workspace().join("hooks/systemd").join(unit);
        tools::copy(&source, &tree.join("usr/lib/systemd/system").join(unit))?;
    }
    for name in patches {
        let place = tree.join(PATCHES.trim_start_matches('/')).join(format!("{name}.ko"));
        tools::copy(&provision::own_module(&scenario.kernel, name)?, &place)?;
    }
    let folder = tree.join(BOOTS);
    fs::create_dir_all(&folder)?;
    for boot in boots {
        fs::write(folder.join(boot.name), boot.commands.join("\n") + "\n")?;
        fs::write(folder.join(format!("{}.end", boot.name)), if boot.crashes { "crash" } else { "poweroff" })?;
    }
    let probe = tree.join("usr/local/sbin/guest-probe");
    fs::write(&probe, PROBE)?;
    fs::set_permissions(&probe, fs::Permissions::from_mode(0o755))?;
    let units = tree.join("etc/systemd/system");
    fs::create_dir_all(units.join("multi-user.target.wants"))?;
    fs::write(units.join("guest-probe.service"), UNIT)?;
    symlink("../guest-probe.service", units.join("multi-user.target.wants/guest-probe.service"))?;
    fs::write(tree.join("etc/fstab"), format!("LABEL={LABEL} / ext4 defaults 0 1\n"))?;
    Ok(())
}
