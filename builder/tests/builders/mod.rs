//! A small Debian with dracut, initramfs-tools and a kernel, made once by debootstrap and kept in `target/builders-root`.

#![allow(unreachable_pub, reason = "it is a part of each test that has it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const PACKAGES: &str = "dracut-core,initramfs-tools,linux-image-cloud-amd64,zstd,xz-utils,lz4,lzop,bzip2,cpio,kmod,udev,\
    file,busybox,systemd,nfs-common,openssh-client,e2fsprogs,dmsetup,bsdmainutils,less,gawk,iproute2,mdadm,lvm2,cryptsetup,\
    systemd-boot-efi,binutils";

/// What systemd makes unified images with.
pub const STUB: &str = "usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// Other people's builders.
pub struct Builders {
    /// Where the small Debian is.
    pub root: PathBuf,
    /// Its kernel.
    pub kver: String,
}

impl Builders {
    /// Finds or makes them; `program` is one of ours in the target directory.
    pub fn new(program: &str) -> Result<Builders> {
        let target = Path::new(program).ancestors().nth(3).ok_or("the program has no target directory")?;
        let root = target.join("builders-root");
        if !root.is_dir() {
            eprintln!("making {} (debootstrap, once)", root.display());
            let pending = root.with_extension("pending");
            if pending.exists() {
                fs::remove_dir_all(&pending)?;
            }
            let mut command = Command::new("debootstrap");
            command.args(["--variant=minbase", &format!("--include={PACKAGES}"), "bookworm"]).arg(&pending);
            run(&mut command).map_err(|error| format!("{error}; as root: apt-get install debootstrap"))?;
            fs::rename(&pending, &root)?;
        }
        // One that was made before had fewer packages.
        if !root.join(STUB).is_file() {
            let line = "apt-get update && apt-get install -y --no-install-recommends systemd-boot-efi binutils";
            run(&mut inside(&root, line))?;
        }
        let mut kernels = fs::read_dir(root.join("lib/modules"))?;
        let kver = kernels.next().ok_or("the small Debian has no kernel")??.file_name().to_string_lossy().into_owned();
        Ok(Builders { root, kver })
    }

    /// A line for its shell, in mounts of its own.
    pub fn inside(&self, line: &str) -> Command {
        inside(&self.root, line)
    }
}

fn inside(root: &Path, line: &str) -> Command {
    let mounts = "mount -t proc proc proc && mount -t sysfs sysfs sys && mount --rbind /dev dev";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &format!("cd \"$0\" && {mounts} && exec chroot . sh -c \"$1\"")]);
    command.arg(root).arg(line);
    command
}

/// Runs to the end; what it said.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => {
            Err(format!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into())
        }
    }
}
