//! A second disk of the guest, for dumps: made before the run, looked at after it, and in between as faulty as wanted.
//!
//! In: a file system, what is on it, how QEMU is to treat it. Out: words for QEMU's command line; the dumps that are on
//! it in the end.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::accel::accel;
use crate::machine::{Disk, Machine};
use crate::programs::programs;
use crate::provision::{self, Kernel};
use crate::scenario::CRASH_FOLDER;
use crate::stack::{Bus, FETCH};
use crate::{disk, folders, guest_image, tools};

/// Its label, on every file system that has labels.
pub const LABEL: &str = "DUMPS";
const UUID: &str = "6b64756d-7072-7364-8969-736b00000002";
const MIB: u64 = 1 << 20;

/// The disk.
#[derive(Clone, Debug)]
pub struct TargetDisk {
    /// Its image.
    pub image: PathBuf,
    folder: PathBuf,
}

impl TargetDisk {
    /// The target that a disk without a file system is.
    pub const RAW: &str = "raw WWID=target";

    /// An ext4 on which `fill` has put files below a folder.
    pub fn ext4(name: &str, mib: u64, fill: impl FnOnce(&Path) -> Result<()>) -> Result<TargetDisk> {
        let disk = TargetDisk::empty(name)?;
        let tree = disk.folder.join("tree");
        fs::create_dir(&tree)?;
        fill(&tree)?;
        provision::tools()?;
        disk::make_ext4(&disk.image, &tree, mib, LABEL, UUID)?;
        Ok(disk)
    }

    /// An ext2 or ext3 with nothing on it; the driver of ext4 has both.
    pub fn older_ext(fstype: &str, name: &str, mib: u64) -> Result<TargetDisk> {
        let disk = TargetDisk::empty(name)?;
        disk::empty(&disk.image, mib * MIB)?;
        provision::tools()?;
        let mut mkfs = tools::command(&format!("mkfs.{fstype}"));
        tools::run(mkfs.args(["-q", "-F", "-L", LABEL]).arg(&disk.image))?;
        Ok(disk)
    }

    /// An xfs with nothing on it.
    pub fn xfs(name: &str, mib: u64) -> Result<TargetDisk> {
        let disk = TargetDisk::empty(name)?;
        disk::empty(&disk.image, mib * MIB)?;
        let mut mkfs = provision::storage::program("mkfs.xfs")?;
        tools::run(mkfs.args(["-q", "-L", LABEL]).arg(&disk.image))?;
        Ok(disk)
    }

    /// One without a file system, for a raw target that [`TargetDisk::RAW`] names.
    pub fn raw(name: &str, mib: u64) -> Result<TargetDisk> {
        let disk = TargetDisk::empty(name)?;
        disk::empty(&disk.image, mib * MIB)?;
        Ok(disk)
    }

    /// What `kdumpctl recover` makes of a raw target, or a copy of it: what it says of that.
    pub fn recovered(image: &Path, to: &Path) -> Result<serde_json::Value> {
        folders::fresh(to)?;
        let mut command = std::process::Command::new(programs()?.path("kdumpctl"));
        command.arg("recover").arg(image).arg("--to").arg(to).arg("--json");
        let output = tools::run_accepting(&mut command, &[0, 1, 3])?;
        serde_json::from_slice(&output.stdout).context("kdumpctl recover said no JSON")
    }

    /// A vfat with nothing on it.
    pub fn vfat(name: &str, mib: u64) -> Result<TargetDisk> {
        let disk = TargetDisk::empty(name)?;
        disk::empty(&disk.image, mib * MIB)?;
        let mut mkfs = provision::small_filesystems::program("mkfs.vfat")?;
        tools::run(mkfs.args(["-F", "32", "-n", LABEL]).arg(&disk.image))?;
        Ok(disk)
    }

    /// An f2fs with nothing on it.
    pub fn f2fs(name: &str, mib: u64) -> Result<TargetDisk> {
        let disk = TargetDisk::empty(name)?;
        disk::empty(&disk.image, mib * MIB)?;
        let mut mkfs = provision::small_filesystems::program("mkfs.f2fs")?;
        tools::run(mkfs.args(["-q", "-l", LABEL]).arg(&disk.image))?;
        Ok(disk)
    }

    /// A minix with nothing on it, its names no longer than 30 letters.
    pub fn minix(name: &str, mib: u64) -> Result<TargetDisk> {
        let disk = TargetDisk::empty(name)?;
        disk::empty(&disk.image, mib * MIB)?;
        tools::run(tools::command("mkfs.minix").args(["-n", "30"]).arg(&disk.image))?;
        Ok(disk)
    }

    fn empty(name: &str) -> Result<TargetDisk> {
        let folder = folders::qemu().join("runs").join(format!("{name}-target"));
        folders::fresh(&folder)?;
        Ok(TargetDisk { image: folder.join("disk.img"), folder })
    }

    /// A place for files about it.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// It works.
    pub fn plain(&self) -> Vec<String> {
        self.words(&format!("file={},format=raw,cache=unsafe", self.image.display()))
    }

    /// It cannot be written to.
    pub fn read_only(&self) -> Vec<String> {
        self.words(&format!("file={},format=raw,readonly=on", self.image.display()))
    }

    /// It works, and all that is done to it is recorded in `log`.
    pub fn logged(&self, log: &Path) -> Result<Vec<String>> {
        fs::File::create(log).with_context(|| format!("unable to make {}", log.display()))?;
        Ok(self.words(&format!(
            "driver=blklogwrites,file.driver=raw,file.file.driver=file,file.file.filename={},log.driver=raw,\
             log.file.driver=file,log.file.filename={},log-super-update-interval=1,cache.direct=off,cache.no-flush=off",
            self.image.display(),
            log.display()
        )))
    }

    /// It fails as the rules say, in the words of QEMU's blkdebug.
    pub fn failing(&self, rules: &str) -> Result<Vec<String>> {
        let file = self.beside("blkdebug.conf");
        fs::write(&file, rules).with_context(|| format!("unable to write {}", file.display()))?;
        let drive = format!("file=blkdebug:{}:{},format=raw,cache=writeback", file.display(), self.image.display());
        Ok(self.words(&drive))
    }

    fn words(&self, drive: &str) -> Vec<String> {
        ["-drive", &format!("{drive},if=none,id=target"), "-device", "virtio-blk-pci,drive=target,serial=target"]
            .map(str::to_owned)
            .to_vec()
    }

    /// The dump directories of an ext4, after a file system check, by name.
    pub fn dumps(&self) -> Result<Vec<PathBuf>> {
        dumps_on_ext4(&self.image, &self.beside("taken"))
    }

    /// Makes empty directories beside the dumps of an ext2, ext3 or ext4; those that are there stay as they are.
    pub fn take_names(&self, names: impl Iterator<Item = String>) -> Result<()> {
        let requests = self.beside("requests");
        let text: String = names.map(|name| format!("mkdir \"{CRASH_FOLDER}/{name}\"\n")).collect();
        fs::write(&requests, text).with_context(|| format!("unable to write {}", requests.display()))?;
        tools::run(tools::command("debugfs").arg("-w").arg("-f").arg(&requests).arg(&self.image)).map(drop)
    }

    /// The dump directories of a vfat, by name.
    pub fn dumps_on_vfat(&self) -> Result<Vec<PathBuf>> {
        let folder = self.beside("taken");
        folders::fresh(&folder)?;
        let mut copy = provision::small_filesystems::program("mcopy")?;
        tools::run(copy.args(["-s", "-n", "-i"]).arg(&self.image).arg(format!("::{CRASH_FOLDER}")).arg(&folder))?;
        listed(&folder.join("crash"))
    }
}

/// Checks an ext4, and takes its dumps off.
pub fn dumps_on_ext4(image: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    folders::fresh(folder)?;
    // Before the first dump there may be no folder for them.
    tools::run_accepting(tools::command("e2fsck").arg("-fy").arg(image), &[0, 1, 2])?;
    let there = tools::run(tools::command("debugfs").arg("-R").arg(format!("stat {CRASH_FOLDER}")).arg(image))?;
    if String::from_utf8_lossy(&there.stderr).contains("File not found") {
        return Ok(Vec::new());
    }
    disk::take_off(image, CRASH_FOLDER, folder)?;
    listed(&folder.join("crash"))
}

/// Boots a guest that mounts each image, as after a power loss, and copies the dumps that are on it; gives, for each
/// image, its dump directories.
pub fn dumps_by_mounting(
    kernel: &Kernel,
    options: &str,
    images: &[(&'static str, PathBuf)],
    folder: &Path,
) -> Result<Vec<Vec<PathBuf>>> {
    folders::fresh(folder)?;
    let tree = folder.join("disk");
    for inside in ["dev", "proc", "sys", "mnt", "etc/guest", CRASH_FOLDER.trim_start_matches('/')] {
        fs::create_dir_all(tree.join(inside))?;
    }
    let line = |(number, (fstype, _)): (usize, &(&str, PathBuf))| {
        let device = char::from(b'b' + u8::try_from(number).unwrap_or(0));
        format!("mount {fstype} /dev/vd{device} /mnt/var/crash/{number} {options}\n")
    };
    fs::write(tree.join(FETCH.trim_start_matches('/')), images.iter().enumerate().map(line).collect::<String>())?;
    let (root, initrd) = (folder.join("vda.img"), folder.join("first.img"));
    provision::tools()?;
    disk::make_ext4(&root, &tree, 1500, "guest-disk", UUID)?;
    let modules: Vec<&str> = images.iter().map(|(fstype, _)| *fstype).collect();
    guest_image::write(kernel, &programs()?, &modules, &initrd)?;
    let mut machine = Machine::new(&kernel.vmlinuz, &initrd, "panic=-1 loglevel=5 guest.mode=fetch", accel()?)
        .disk(Disk { image: root, serial: "root".into(), bus: Bus::Virtio });
    for (_, image) in images {
        machine = machine.disk(Disk { image: image.clone(), serial: "image".into(), bus: Bus::Virtio });
    }
    crate::crash::fetched(&machine, folder)?;
    disk::take_off(&folder.join("vda.img"), CRASH_FOLDER, folder)?;
    fs::remove_file(folder.join("vda.img"))?;
    let below = |number: usize| {
        let dumps = folder.join("crash").join(number.to_string()).join(CRASH_FOLDER.trim_start_matches('/'));
        if dumps.exists() { listed(&dumps) } else { Ok(Vec::new()) }
    };
    (0..images.len()).map(below).collect()
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("unable to list {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.sort();
    Ok(paths)
}
