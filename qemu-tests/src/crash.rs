//! The story: from a scenario to what came of it.
//!
//! ```text
//!  files of the guest ─▶ mkdumprd ─▶ disks ─▶ boot ─▶ kdumpctl start ─▶ panic ─▶ capture ─▶ ending ─▶ files taken off
//! ```
//!
//! Surprising: everything stays in the run's folder when something fails. After a success the guest's disk is removed,
//! and the raw source once the dump has been judged against it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::accel::{Accel, accel, accel_with_five_levels};
use crate::console::Console;
use crate::machine::{Disk, Ending, Machine, Running};
use crate::programs::{Programs, programs};
use crate::scenario::{COLLECTORS, CRASH_FOLDER, Filling, LABEL, PageTables, RAW_SERIAL, Scenario, UUID};
use crate::stack::Bus;
use crate::status::Status;
use crate::{disk, emulation, folders, guest_image, progress, provision, tools};

/// Each part of a run ends within this; emulation on a busy machine is slow, and nothing may wait for ever.
const LIMIT: Duration = Duration::from_secs(300);
const MIB: u64 = 1 << 20;
/// The native configuration, in the guest's tree.
const NATIVE: &str = "etc/kdump/kdump.toml";

/// How long a part of the run took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// What was done.
    pub name: &'static str,
    /// How long it took.
    pub took: Duration,
}

/// What came of a scenario.
#[derive(Debug)]
pub struct Outcome {
    /// The run's folder, with console.log.
    pub folder: PathBuf,
    /// What both kernels printed.
    pub console: String,
    /// How the capture kernel ended.
    pub ending: Ending,
    /// Parts of the run, as seen from outside.
    pub stages: Vec<Stage>,
    /// The dump's directory, if there is one.
    pub dump: Option<PathBuf>,
    /// The whole source, if it was asked for.
    pub raw: Option<PathBuf>,
    /// What was written into the kernel log before the crash.
    pub marker: String,
}

impl Outcome {
    /// The dump's directory; an error that shows the console when there is none.
    pub fn dump(&self) -> Result<&Path> {
        self.dump.as_deref().with_context(|| {
            format!("no dump is on the guest's disk; the console said last:\n{}", tools::tail(&self.console, 40))
        })
    }

    /// What the capture environment reports.
    pub fn status(&self) -> Result<Status> {
        Status::read(&self.dump()?.join("status.json"))
    }
}

/// Crashes a kernel as the scenario says. A run whose first kernel the emulator killed before its init, and no other, is
/// made again.
pub fn crash(scenario: &Scenario) -> Result<Outcome> {
    let folder = scenario.folder();
    let what = || format!("the run \"{}\" failed; see {}", scenario.name, folder.display());
    emulation::survived(&scenario.name, &folder, || run(scenario)).with_context(what)
}

/// The machine of a scenario, the marker that it writes into its log, and its folder.
fn prepared(scenario: &Scenario, stages: &mut Vec<Stage>) -> Result<(Machine, String, PathBuf)> {
    folders::fresh(&scenario.folder())?;
    provision::tools()?;
    let programs = programs()?;
    let accel = match scenario.page_tables {
        PageTables::Four => accel()?,
        PageTables::Five => accel_with_five_levels()?,
    };
    let folder = scenario.folder();
    let tree = folder.join("disk");
    fill_disk(scenario, &programs, &tree)?;
    match &scenario.stack {
        None => stage(stages, "mkdumprd", || make_image(scenario, &programs, &tree))?,
        // What the target is made of is known in the guest alone: kdumpctl makes the image there.
        Some(stack) => stack.fill_disk(&scenario.kernel, &tree)?,
    }
    let (marker, machine) = stage(stages, "disks", || make_machine(scenario, &programs, &folder, accel))?;
    Ok((machine, marker, folder))
}

fn run(scenario: &Scenario) -> Result<Outcome> {
    let mut stages = Vec::new();
    let (machine, marker, folder) = prepared(scenario, &mut stages)?;
    let mut running = machine.clone().append("guest.mode=crash").start(&folder)?;
    stages.extend(follow_to_the_panic(scenario, &running)?);
    for (words, keys) in &scenario.dialogue {
        running.console().wait_for(words, LIMIT)?;
        running.press(keys)?;
    }
    let console = running.console().clone();
    let ending = running.wait_for_ending(LIMIT)?;
    progress::note(&format!("{}: the capture kernel's ending: {ending:?}", scenario.name));
    stages.push(Stage { name: "panic to ending", took: time_between(&console, PANIC, "reboot: ") });

    if scenario.stack.as_ref().is_some_and(|stack| !stack.fetch.is_empty()) {
        stage(&mut stages, "fetching the dump", || fetch(&machine, &folder.join("fetch")))?;
    }

    let dump = stage(&mut stages, "taking the dump off the disk", || take_dump(&folder))?;
    let raw = scenario.keep_raw.then(|| take_raw(&folder)).transpose()?;
    if scenario.by_test {
        disk::take_off(&folder.join("vda.img"), "/var/lib/kdump", &folder)?;
    }
    fs::remove_file(folder.join("vda.img")).context("unable to remove the guest's disk")?;
    Ok(Outcome { folder, console: console.text(), ending, stages, dump, raw, marker })
}

fn stage<T>(stages: &mut Vec<Stage>, name: &'static str, step: impl FnOnce() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    let result = step()?;
    stages.push(Stage { name, took: began.elapsed() });
    Ok(result)
}

/// What the first kernel goes through: the words that begin each part, what it is called, and what is said of it.
const PARTS: [(&str, &str, &str); 4] = [
    ("GUEST: ", "first kernel, to its init", "booting"),
    ("GUEST: kdumpctl start", "modules and disk", "kdumpctl start"),
    ("GUEST: filling memory", "kdumpctl start", "the crash kernel is loaded; filling memory"),
    (PANIC, "filling memory", "panicked; the capture kernel is at work"),
];
const PANIC: &str = "Kernel panic - not syncing: sysrq";

/// What the loader says when it is the machine's turn.
const WAITS_FOR_BALLOON: &str = "GUEST: waiting for the balloon";

fn follow_to_the_panic(scenario: &Scenario, running: &Running) -> Result<Vec<Stage>> {
    let console = running.console();
    let mut stages = Vec::new();
    let mut before = Duration::ZERO;
    for (words, name, note) in PARTS {
        if let (PANIC, Filling::EveryKind { balloon_mib, .. }) = (words, scenario.filling) {
            console.wait_for_any(&["GUEST: failed", WAITS_FOR_BALLOON], LIMIT)?;
            running.balloon(scenario.memory_mib - balloon_mib)?;
        }
        let (which, line) = console.wait_for_any(&["GUEST: failed", words], LIMIT)?;
        ensure!(which == 1, "the first kernel did not get as far as the crash; it said last:\n{}", console.tail());
        stages.push(Stage { name, took: line.at.saturating_sub(before) });
        before = line.at;
        progress::note(&format!("{}: {note}", scenario.name));
    }
    Ok(stages)
}

fn time_between(console: &Console, from: &str, to: &str) -> Duration {
    let at = |words| console.find(words).map(|line| line.at).unwrap_or_default();
    at(to).saturating_sub(at(from))
}

/// Makes the files of the guest's disk below `tree`, all but the capture image.
pub fn fill_disk(scenario: &Scenario, programs: &Programs, tree: &Path) -> Result<()> {
    for folder in ["boot", "dev", "etc/sysconfig", "proc", "sys", "tmp", CRASH_FOLDER.trim_start_matches('/')] {
        fs::create_dir_all(tree.join(folder))?;
    }
    let vmlinuz = tree.join("boot").join(format!("vmlinuz-{}", scenario.kernel.release));
    tools::copy(&scenario.kernel.vmlinuz, &vmlinuz)?;
    let config = scenario.kernel.vmlinuz.with_file_name(format!("config-{}", scenario.kernel.release));
    if config.exists() {
        tools::copy(&config, &vmlinuz.with_file_name(config.file_name().unwrap_or_default()))?;
    }
    for name in ["kdumpctl", "mkdumprd", "kdump-init", "kdump-capture", "kdump-send"] {
        tools::copy(&programs.path(name), &tree.join("usr/sbin").join(name))?;
    }
    for name in ["keep-raw", "page-kinds", "saboteur"] {
        tools::copy(&programs.path(name), &tree.join(COLLECTORS.trim_start_matches('/')).join(name))?;
    }
    if scenario.busybox {
        tools::copy(&provision::busybox()?, &tree.join("bin/busybox"))?;
    }
    for file in &scenario.files {
        file.make(tree).with_context(|| format!("unable to make the guest's {}", file.path))?;
    }
    match scenario.kdump_toml() {
        Some(native) => {
            fs::create_dir_all(tree.join("etc/kdump"))?;
            fs::write(tree.join(NATIVE), native)?;
        }
        None => fs::write(tree.join("etc/kdump.conf"), scenario.kdump_conf())?,
    }
    fs::write(tree.join("etc/sysconfig/kdump"), scenario.sysconfig_text())?;
    Ok(())
}

/// The command line by which the scenario's capture image is made; `image` is where it goes.
pub fn mkdumprd(scenario: &Scenario, programs: &Programs, tree: &Path, image: &Path) -> Command {
    let mut command = Command::new(programs.path("mkdumprd"));
    command.args(["--kver", &scenario.kernel.release]).arg("--modules-dir").arg(&scenario.kernel.modules);
    command.arg("--sysroot").arg(tree).arg("--config").arg(tree.join(match scenario.native {
        Some(_) => NATIVE,
        None => "etc/kdump.conf",
    }));
    if let Some(packing) = scenario.packing {
        command.args(["--compress", packing]);
    }
    command.arg("--sysconfig").arg(tree.join("etc/sysconfig/kdump")).arg(image);
    command
}

pub(crate) fn make_image(scenario: &Scenario, programs: &Programs, tree: &Path) -> Result<()> {
    let image = tree.join("boot").join(format!("initramfs-{}kdump.img", scenario.kernel.release));
    tools::run(&mut mkdumprd(scenario, programs, tree, &image))?;
    guest_image::lay_over(&scenario.overlay, &image)?;
    let size = fs::metadata(&image).context("mkdumprd reported success, yet wrote no image")?.len();
    progress::note(&format!("{}: capture image of {:.1} MiB", scenario.name, size as f64 / MIB as f64));
    Ok(())
}

fn make_machine(scenario: &Scenario, programs: &Programs, folder: &Path, accel: Accel) -> Result<(String, Machine)> {
    let (disk, raw, initrd) = (folder.join("vda.img"), folder.join("raw"), folder.join("first.img"));
    disk::make_ext4(&disk, &folder.join("disk"), u64::from(scenario.memory_mib) + 256, LABEL, UUID)?;
    let mut modules: Vec<&str> = if scenario.filling.has_balloon() { vec!["virtio_balloon"] } else { Vec::new() };
    modules.extend(scenario.stack.iter().flat_map(|stack| &stack.modules));
    guest_image::write(&scenario.kernel, programs, &modules, &initrd)?;
    let random = fs::read_to_string("/proc/sys/kernel/random/uuid").context("unable to get a random marker")?;
    let marker = format!("kdump-marker-{}", random.trim());
    let append = format!(
        "crashkernel={}M panic=-1 loglevel=5 {} guest.marker={marker} guest.start={} guest.crash={}",
        scenario.crashkernel_mib,
        scenario.filling.words(),
        scenario.start.replace(' ', ","),
        if scenario.by_test { "test" } else { "sysrq" },
    );
    let cpu = match scenario.page_tables {
        PageTables::Four => "Haswell",
        PageTables::Five => "max",
    };
    let mut machine = Machine::new(&scenario.kernel.vmlinuz, &initrd, &append, accel)
        .cpu(cpu)
        .memory_mib(scenario.memory_mib)
        .words(&scenario.qemu)
        .echo(scenario.echo)
        .disk(Disk { image: disk, serial: "root".into(), bus: Bus::Virtio });
    if scenario.keep_raw {
        disk::empty(&raw, u64::from(scenario.memory_mib) * MIB + 64 * MIB)?;
        machine = machine.disk(Disk { image: raw, serial: RAW_SERIAL.into(), bus: Bus::Virtio });
    }
    for disk in scenario.stack.iter().flat_map(|stack| &stack.disks).map(|spare| spare.make(folder)) {
        machine = machine.disk(disk?);
    }
    for device in &scenario.devices {
        machine = machine.device(device);
    }
    Ok((marker, machine))
}

/// Boots the guest once more to copy the dump from a target that it puts together to its own disk.
fn fetch(machine: &Machine, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    fetched(&machine.clone().append("guest.mode=fetch"), folder)
}

/// Boots a guest that copies dumps to its own disk.
pub(crate) fn fetched(machine: &Machine, folder: &Path) -> Result<()> {
    emulation::survived("fetching the dump", folder, || {
        let running = machine.start(folder)?;
        let (which, line) = running.console().wait_for_any(&["GUEST: failed", "GUEST: fetched"], LIMIT)?;
        ensure!(which == 1, "the dump could not be fetched: {}", line.text);
        running.wait_for_ending(LIMIT).map(drop)
    })
}

/// Crashes a kernel as the scenario says, and cuts the power so long after the capture kernel has said `words`. Gives
/// what the console has said.
pub fn cut_off(scenario: &Scenario, words: &str, after: Duration) -> Result<String> {
    emulation::survived(&scenario.name, &scenario.folder(), || {
        let (machine, _, _) = prepared(scenario, &mut Vec::new())?;
        let running = machine.append("guest.mode=crash").start(&scenario.folder())?;
        follow_to_the_panic(scenario, &running)?;
        running.console().wait_for(words, LIMIT)?;
        std::thread::sleep(after);
        let console = running.console().text();
        drop(running);
        fs::remove_file(scenario.folder().join("vda.img")).context("unable to remove the guest's disk")?;
        Ok(console)
    })
}

/// Takes the crash folder off the disk and returns the dump in it.
pub(crate) fn take_dump(folder: &Path) -> Result<Option<PathBuf>> {
    disk::take_off(&folder.join("vda.img"), CRASH_FOLDER, folder)?;
    let crash = folder.join("crash");
    let mut dumps = Vec::new();
    for entry in fs::read_dir(&crash).with_context(|| format!("unable to list {}", crash.display()))? {
        dumps.push(entry?.path());
    }
    ensure!(dumps.len() <= 1, "one crash left {} directories: {dumps:?}", dumps.len());
    Ok(dumps.pop())
}

/// Cuts the raw disk to the length that its trailer tells.
fn take_raw(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("raw");
    let file = File::options().read(true).write(true).open(&path).context("unable to open the raw disk")?;
    let mut trailer = [0; 16];
    file.read_exact_at(&mut trailer, file.metadata()?.len() - 4096)?;
    let (magic, length) = trailer.split_at(8);
    ensure!(magic == b"KEEP-RAW", "the source was not kept to its end");
    file.set_len(u64::from_le_bytes(length.try_into()?))?;
    Ok(path)
}
