//! A machine made of a few files, for tests.
//!
//! It has one kernel with a handful of modules, our programs, and an empty configuration. Nothing of it can run, except
//! that its collector agrees with every argument but `--refuse`.

pub mod described;

use crate::host::Tree;
pub use kdump_hooks::fake::object;
use kdump_hooks::fake::program;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The kernel of a fake machine.
pub const RELEASE: &str = "6.1-test";

/// A tree with nothing but these files, each a path and a text. It is gone with the directory that comes with it.
///
/// # Errors
/// There is no room for it.
pub fn tree(files: &[(&str, &str)]) -> io::Result<(TempDir, Tree)> {
    let dir = tempfile::tempdir()?;
    let system = FakeSystem { root: dir.path().to_owned() };
    files.iter().try_for_each(|(path, text)| system.write(path, text.as_bytes()))?;
    let tree = Tree::new(dir.path());
    Ok((dir, tree))
}

/// The files of a machine.
#[derive(Clone, Debug)]
pub struct FakeSystem {
    /// Where they are.
    pub root: PathBuf,
}

const DEP: &str = "kernel/fs/ext4.ko: kernel/lib/jbd2.ko kernel/lib/crc16.ko\nkernel/lib/jbd2.ko: kernel/lib/crc16.ko\n\
    kernel/lib/crc16.ko:\nkernel/lib/crc32c.ko:\nkernel/lib/gcm.ko:\nkernel/block/virtio_blk.ko.xz: \
    kernel/virtio/virtio.ko\nkernel/virtio/virtio.ko:\nkernel/net/unrelated.ko:\nkernel/net/foreign.ko:\nkernel/fs/nfs.ko: kernel/net/sunrpc.ko\n\
    kernel/fs/nfsv4.ko: kernel/fs/nfs.ko kernel/net/sunrpc.ko\nkernel/net/sunrpc.ko:\nkernel/net/virtio_net.ko:\n\
    kernel/net/8021q.ko:\n";

impl FakeSystem {
    /// Makes one below `root`, which is there and empty.
    ///
    /// # Errors
    /// `root` cannot be written to.
    pub fn new(root: &Path) -> io::Result<FakeSystem> {
        let system = FakeSystem { root: root.to_owned() };
        system.programs_and_release()?;
        system.write("etc/kdump.conf", b"path /var/crash\next4 LABEL=crash\n")?;
        system.write("proc/cmdline", b"BOOT_IMAGE=/vmlinuz root=/dev/vda1 ro crashkernel=80M console=ttyS0\n")?;
        system.write("proc/cpuinfo", b"processor\t: 0\ninitial apicid\t: 0\n\n")?;
        system.write("sys/kernel/kexec_crash_loaded", b"0\n")?;
        system.write("sys/kernel/kexec_crash_size", b"83886080\n")?;
        system.write(&format!("boot/vmlinuz-{RELEASE}"), b"kernel")?;
        system.module_file("modules.dep", DEP.as_bytes())?;
        system.module_file(
            "modules.alias",
            b"alias crypto-crc32c crc32c\nalias virtio:d2v* virtio_blk\nalias net unrelated\n",
        )?;
        system.module_file("modules.softdep", b"softdep ext4 gcm\nsoftdep unrelated pre: gcm\n")?;
        system.module_file("modules.builtin", b"kernel/drivers/ahci.ko\n")?;
        system.module_file("modules.builtin.modinfo", b"ahci.license=GPL\0ahci.alias=pci:v8086*\0")?;
        let local = ["fs/ext4", "lib/jbd2", "lib/crc16", "lib/crc32c", "lib/gcm", "virtio/virtio", "net/unrelated"];
        let remote = ["fs/nfs", "fs/nfsv4", "net/sunrpc", "net/virtio_net", "net/8021q"];
        for module in local.into_iter().chain(remote) {
            system.module_file(&format!("kernel/{module}.ko"), &object(&["vermagic=6.1-test SMP", "license=GPL"]))?;
        }
        system.module_file("kernel/net/foreign.ko", &object(&["vermagic=6.2-other SMP"]))?;
        let mut packed = xz2::write::XzEncoder::new(Vec::new(), 1);
        packed.write_all(&object(&["vermagic=6.1-test SMP", "firmware=vendor/disk.bin"]))?;
        system.module_file("kernel/block/virtio_blk.ko.xz", &packed.finish()?)?;
        system.write("lib/firmware/vendor/disk.bin", b"firmware")?;
        Ok(system)
    }

    /// What every one has: our programs, and a kernel that runs.
    fn programs_and_release(&self) -> io::Result<()> {
        self.write("proc/sys/kernel/osrelease", format!("{RELEASE}\n").as_bytes())?;
        self.write("programs/kdump-init", &object(&[]))?;
        self.write("programs/kdump-send", &object(&[]))?;
        let agree =
            b"#!/bin/sh\nfor word; do [ \"$word\" != --refuse ] || { echo \"no $word here\" >&2; exit 1; }; done\n";
        program(&self.programs().join("kdump-capture"), agree)
    }

    /// Where our programs are.
    pub fn programs(&self) -> PathBuf {
        self.root.join("programs")
    }

    /// Writes a file of the machine.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.root.join(path.trim_start_matches('/'));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, bytes)
    }

    fn module_file(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.write(&format!("lib/modules/{RELEASE}/{name}"), bytes)
    }
}
