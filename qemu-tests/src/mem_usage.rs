//! The story of counting a running kernel's pages: a guest with memory in use, and what two collectors say of it.
//!
//! ```text
//!  programs, oracle ─▶ disk ─▶ boot ─▶ fill memory ─▶ kdump-capture, makedumpfile ─▶ power off ─▶ files taken off
//! ```
//!
//! Surprising: nothing crashes here and no crash kernel is loaded; memory for one is reserved, on which makedumpfile
//! insists.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::accel::accel_with_five_levels;
use crate::machine::{Disk, Ending, Machine};
use crate::programs::programs;
use crate::provision::{self, Kernel, makedumpfile};
use crate::scenario::{LABEL, UUID};
use crate::stack::Bus;
use crate::{disk, emulation, folders, guest_image, tools};

/// Where the guest keeps the answers, and their names.
pub const FOLDER: &str = "/mem-usage";
/// Our answer in JSON.
pub const OURS: &str = "ours.json";
/// Our table.
pub const TABLE: &str = "ours.txt";
/// makedumpfile's table.
pub const MAKEDUMPFILE: &str = "makedumpfile.txt";
/// /proc/iomem.
pub const IOMEM: &str = "iomem";

const MEMORY_MIB: u32 = 512;
const CRASHKERNEL_MIB: u32 = 96;
const LIMIT: Duration = Duration::from_secs(300);

/// What was said.
#[derive(Debug)]
pub struct Answers {
    /// Our answer in JSON.
    pub ours: serde_json::Value,
    /// Our table.
    pub table: String,
    /// makedumpfile's table.
    pub makedumpfile: String,
    /// /proc/iomem.
    pub iomem: String,
}

/// Boots `kernel` and has its pages counted. A run that the emulator spoils is made again.
pub fn mem_usage(kernel: &Kernel, name: &str) -> Result<Answers> {
    let folder = folders::qemu().join("runs").join(name);
    let what = || format!("the run \"{name}\" failed; see {}", folder.display());
    emulation::survived(name, &folder, || run(kernel, &folder)).with_context(what)
}

fn run(kernel: &Kernel, folder: &Path) -> Result<Answers> {
    folders::fresh(folder)?;
    provision::tools()?;
    let programs = programs()?;
    let (tree, image, initrd) = (folder.join("disk"), folder.join("vda.img"), folder.join("first.img"));
    for inside in ["dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(tree.join(inside))?;
    }
    tools::copy(&programs.path("kdump-capture"), &tree.join("usr/sbin/kdump-capture"))?;
    makedumpfile()?.install(&tree)?;
    disk::make_ext4(&image, &tree, 256, LABEL, UUID)?;
    guest_image::write(kernel, &programs, &[], &initrd)?;
    let append =
        format!("crashkernel={CRASHKERNEL_MIB}M panic=-1 loglevel=5 guest.mode=mem-usage guest.load=16 guest.huge=8");
    let machine = Machine::new(&kernel.vmlinuz, &initrd, &append, accel_with_five_levels()?)
        .memory_mib(MEMORY_MIB)
        .disk(Disk { image: image.clone(), serial: "root".into(), bus: Bus::Virtio });
    let running = machine.start(folder)?;
    let (which, line) = running.console().wait_for_any(&["GUEST: failed", "GUEST: counted"], LIMIT)?;
    ensure!(which == 1, "{}", line.text);
    let ending = running.wait_for_ending(LIMIT)?;
    ensure!(ending == Ending::PowerOff, "the machine's ending was {ending:?}");

    disk::take_off(&image, FOLDER, folder)?;
    fs::remove_file(&image).context("unable to remove the guest's disk")?;
    let text = |name: &str| {
        let path = folder.join(FOLDER.trim_start_matches('/')).join(name);
        fs::read_to_string(&path).with_context(|| format!("unable to read {}", path.display()))
    };
    Ok(Answers {
        ours: serde_json::from_str(&text(OURS)?).context("our answer is not JSON")?,
        table: text(TABLE)?,
        makedumpfile: text(MAKEDUMPFILE)?,
        iomem: text(IOMEM)?,
    })
}
