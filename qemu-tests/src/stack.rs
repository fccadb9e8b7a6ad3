//! A target that the guest puts together itself: from spare disks, with the distribution's tools, in its first boot.
//!
//! The image is then made in the guest, whose sysfs alone knows what the target is made of. After the crash the guest is
//! booted once more to put the target together again and to copy the dump to its own disk, from where it is taken off.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::machine::Disk;
use crate::provision::{self, Kernel};
use crate::{disk, tools};

/// The commands by which the guest makes the target.
pub const PREPARE: &str = "/etc/guest/prepare";
/// The commands by which it puts the target together again, mounted at `/mnt`.
pub const FETCH: &str = "/etc/guest/fetch";

const MIB: u64 = 1 << 20;

/// A target from several disks.
#[derive(Clone, Debug, Default)]
pub struct Stack {
    /// Modules that the first kernel needs for it.
    pub modules: Vec<&'static str>,
    /// Further packages whose programs it needs.
    pub packages: Vec<&'static str>,
    /// The disks, behind the guest's own.
    pub disks: Vec<Spare>,
    /// Files of the guest: path and text.
    pub files: Vec<(&'static str, &'static str)>,
    /// Commands that make it; `mount TYPE DEVICE FOLDER [OPTIONS]` is one too.
    pub prepare: Vec<&'static str>,
    /// Commands that put it together again and mount it at `/mnt`; none, if somebody else takes the dump off.
    pub fetch: Vec<&'static str>,
}

/// What a disk hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// virtio-blk: vda, vdb …
    Virtio,
    /// virtio-scsi: sda …
    Scsi,
    /// virtio-scsi, once for each path: all disks with this number are one.
    Paths(u64),
    /// NVMe on PCI: nvme0n1 …
    Nvme,
}

/// A disk that is empty at first.
#[derive(Clone, Copy, Debug)]
pub struct Spare {
    /// Its size.
    pub mib: u64,
    /// Where it hangs.
    pub bus: Bus,
    /// Its name.
    pub name: &'static str,
}

impl Stack {
    /// Puts tools, modules, files and commands on the guest's disk.
    pub(crate) fn fill_disk(&self, kernel: &Kernel, tree: &Path) -> Result<()> {
        provision::storage::install(tree, &self.packages)?;
        let modules = tree.join("lib/modules");
        for folder in [&modules, &tree.join("run"), &tree.join("mnt")] {
            fs::create_dir_all(folder)?;
        }
        tools::run(tools::command("cp").arg("-a").arg(&kernel.modules).arg(&modules))?;
        let write = |path: &str, text: &str| {
            let path = tree.join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap_or(tree))?;
            fs::write(&path, text).with_context(|| format!("unable to write {}", path.display()))
        };
        for (path, text) in &self.files {
            write(path, text)?;
        }
        write(PREPARE, &self.prepare.join("\n"))?;
        write(FETCH, &self.fetch.join("\n"))
    }
}

impl Spare {
    /// The disk, its image made if there is none of that name.
    pub(crate) fn make(&self, folder: &Path) -> Result<Disk> {
        let image = folder.join(format!("spare-{}.img", self.name));
        if !image.exists() {
            disk::empty(&image, self.mib * MIB)?;
        }
        Ok(Disk { image, serial: self.name.into(), bus: self.bus })
    }
}
