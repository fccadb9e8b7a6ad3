//! A disk from which a machine without EFI starts GRUB, and GRUB a kernel.
//!
//! ```text
//!  sector 0      1 …            2048 …
//!  GRUB's boot │ GRUB's core  │ ext4: grub.cfg, grubenv, vmlinuz, initrd │ a partition that is not used
//! ```
//!
//! Surprising: what `grub-mkconfig` would make of our two files for it is put together here, for it looks at the disks of
//! the machine that it runs on. GRUB itself, its block and what it does with both are the real ones.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::disk::{FIRST, make_ext4_in_partition};
use crate::provision::{Kernel, grub};
use crate::{folders, tools};

/// In the partition table.
const SIGNATURE: u32 = 0x6b70_6174;
/// The partition, as fstab has it.
pub const PARTITION: &str = "PARTUUID=6b706174-01";
/// The system mounts it here: it is where Debian has GRUB's files.
pub const FOLDER: &str = "/boot/grub";

/// Where a partition table begins in the first sector.
const TABLE: usize = 440;

/// Makes one that boots `kernel` with the image and these words. `system` is the system's files, in whose place GRUB's
/// configuration is made.
pub fn make(disk: &Path, system: &Path, kernel: &Kernel, image: &Path, words: &str) -> Result<()> {
    let grub = grub()?;
    let tree = tempfile::tempdir().context("unable to make a temporary folder")?;
    let file = |name: &str| tree.path().join(name);
    tools::copy(&kernel.vmlinuz, &file("vmlinuz"))?;
    tools::copy(image, &file("initrd"))?;
    fs::write(file("grub.cfg"), configuration(system, words)?)?;
    tools::run(tools::command(&grub.editenv.display().to_string()).arg(file("grubenv")).arg("create"))?;
    make_ext4_in_partition(disk, tree.path(), 96, SIGNATURE)?;
    let (boot, core) = (fs::read(&grub.boot)?, fs::read(&grub.core)?);
    ensure!(512 + core.len() as u64 <= FIRST, "GRUB's core does not fit before the first partition");
    let disk = File::options().write(true).open(disk).context("unable to open the disk of GRUB")?;
    let write = || {
        disk.write_all_at(boot.get(..TABLE).unwrap_or_default(), 0)?;
        disk.write_all_at(&core, 512)
    };
    write().context("unable to write GRUB")
}

/// GRUB's configuration, with what our files for `grub-mkconfig` say.
fn configuration(system: &Path, words: &str) -> Result<String> {
    let ours = folders::workspace().join("hooks/grub");
    let places = ["etc/grub.d/09_kpatch", "etc/default/grub.d/kpatch.cfg"];
    for (name, place) in ["09_kpatch", "kpatch.cfg"].iter().zip(places) {
        tools::copy(&ours.join(name), &system.join(place))?;
    }
    let run = |script: &str| tools::text(tools::command("chroot").arg(system).args(["/bin/sh", "-c", script]));
    let counting = run("/etc/grub.d/09_kpatch")?;
    let line =
        run(&format!("GRUB_CMDLINE_LINUX='{words}'; . /etc/default/grub.d/kpatch.cfg; echo \"$GRUB_CMDLINE_LINUX\""))?;
    Ok(format!(
        "serial --unit=0 --speed=115200\nterminal_output serial\n{counting}\
         set default='0>0'\nset timeout=0\nsubmenu 'Older kernels' {{\nmenuentry 'The kernel' {{\n\
         echo \"GRUB: start $kpatch_boots\"\nlinux /vmlinuz {}\ninitrd /initrd\n}}\n}}\n",
        line.trim()
    ))
}

/// What GRUB's block holds, in the words of its own program.
pub fn block(disk: &Path) -> Result<String> {
    let folder = tempfile::tempdir().context("unable to make a temporary folder")?;
    let place = format!("{}?offset={FIRST}", disk.display());
    tools::run_accepting(tools::command("e2fsck").args(["-fy", &place]), &[0, 1, 2])?;
    let file = folder.path().join("grubenv");
    tools::run(tools::command("debugfs").args(["-R", &format!("dump /grubenv {}", file.display()), &place]))?;
    tools::text(tools::command(&grub()?.editenv.display().to_string()).arg(file).arg("list"))
}
