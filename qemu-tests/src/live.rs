//! The story of a guest that runs commands and does not crash: what each of them says, and how it ends.
//!
//! ```text
//!  programs, files, commands ─▶ disk ─▶ boot ─▶ each command ─▶ power off ─▶ answers taken off
//! ```
//!
//! Surprising: no shell runs the commands; words stand between blanks. busybox is there as `/bin/busybox`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::accel::accel_with_five_levels;
use crate::machine::{Disk, Ending, Machine};
use crate::programs::programs;
use crate::provision::{self, Kernel, busybox};
use crate::scenario::{LABEL, UUID};
use crate::stack::Bus;
use crate::{disk, emulation, folders, guest_image, tools};

/// The commands, one line each. Behind `&` one is not waited for.
pub const COMMANDS: &str = "/etc/guest/commands";
/// Where the guest keeps the answers.
pub const FOLDER: &str = "/answers";

/// What memory it has.
pub const MEMORY_MIB: u32 = 512;
const LIMIT: Duration = Duration::from_secs(300);

/// A guest that runs commands.
#[derive(Clone, Debug)]
pub struct Live {
    /// Its name, that of its folder below `target/qemu/runs`.
    pub name: &'static str,
    /// Its kernel.
    pub kernel: Kernel,
    /// More words for the kernel's command line.
    pub append: &'static str,
    /// More words for QEMU's command line.
    pub qemu: Vec<String>,
    /// Programs of ours, put into `/usr/sbin`.
    pub programs: Vec<&'static str>,
    /// Files: path and content.
    pub files: Vec<(String, Vec<u8>)>,
    /// What it runs.
    pub commands: Vec<String>,
}

/// What a command said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The command.
    pub command: String,
    /// Its exit code; 128 and the number of the signal that ended it.
    pub code: i64,
    /// What it printed.
    pub out: String,
    /// What it complained of.
    pub err: String,
}

impl Answer {
    /// Whether it ended with that code and said each of these words, on either output.
    pub fn expect(&self, code: i64, words: &[&str]) -> Result<()> {
        let said = format!("{}{}", self.out, self.err);
        ensure!(self.code == code, "`{}` ended with {}, not {code}: {said}", self.command, self.code);
        for word in words {
            ensure!(said.contains(word), "`{}` did not say {word:?}, but: {said}", self.command);
        }
        Ok(())
    }
}

/// Boots the guest and gives the answers in the order of the commands. A run that the emulator spoils is made again.
pub fn live(guest: &Live) -> Result<Vec<Answer>> {
    let folder = folders::qemu().join("runs").join(guest.name);
    let what = || format!("the run \"{}\" failed; see {}", guest.name, folder.display());
    emulation::survived(guest.name, &folder, || run(guest, &folder)).with_context(what)
}

/// The initramfs that a guest of this kernel boots with, for guests that boot another one by themselves.
pub fn initramfs(kernel: &Kernel) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir().context("unable to make a temporary folder")?;
    let image = folder.path().join("first.img");
    guest_image::write(kernel, &programs()?, &[], &image)?;
    fs::read(&image).context("unable to read an initramfs")
}

fn run(guest: &Live, folder: &Path) -> Result<Vec<Answer>> {
    folders::fresh(folder)?;
    provision::tools()?;
    let programs = programs()?;
    let (tree, image, initrd) = (folder.join("disk"), folder.join("vda.img"), folder.join("first.img"));
    for inside in ["dev", "proc", "sys", "tmp", "var", "etc/guest"] {
        fs::create_dir_all(tree.join(inside))?;
    }
    tools::copy(&busybox()?, &tree.join("bin/busybox"))?;
    for name in &guest.programs {
        tools::copy(&programs.path(name), &tree.join("usr/sbin").join(name))?;
    }
    let commands = (COMMANDS.to_owned(), guest.commands.join("\n").into_bytes());
    for (path, content) in guest.files.iter().chain([&commands]) {
        let path = tree.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap_or(&tree))?;
        fs::write(&path, content).with_context(|| format!("unable to write {}", path.display()))?;
    }
    disk::make_ext4(&image, &tree, 256, LABEL, UUID)?;
    guest_image::write(&guest.kernel, &programs, &[], &initrd)?;
    let append = format!("panic=-1 loglevel=5 guest.mode=commands {}", guest.append);
    let machine = Machine::new(&guest.kernel.vmlinuz, &initrd, &append, accel_with_five_levels()?)
        .memory_mib(MEMORY_MIB)
        .words(&guest.qemu)
        .disk(Disk { image: image.clone(), serial: "root".into(), bus: Bus::Virtio });
    let running = machine.start(folder)?;
    let (which, line) = running.console().wait_for_any(&["GUEST: failed", "GUEST: answered"], LIMIT)?;
    ensure!(which == 1, "{}", line.text);
    let ending = running.wait_for_ending(LIMIT)?;
    ensure!(ending == Ending::PowerOff, "the machine's ending was {ending:?}");

    disk::take_off(&image, FOLDER, folder)?;
    fs::remove_file(&image).context("unable to remove the guest's disk")?;
    let text = |number: usize, what: &str| {
        let path = folder.join(FOLDER.trim_start_matches('/')).join(format!("{number}.{what}"));
        fs::read_to_string(&path).with_context(|| format!("unable to read {}", path.display()))
    };
    let answer = |(number, command): (usize, &String)| {
        let code = text(number, "code")?.trim().parse().context("an exit code is not a number")?;
        Ok(Answer { command: command.clone(), code, out: text(number, "out")?, err: text(number, "err")? })
    };
    guest.commands.iter().enumerate().map(answer).collect()
}
