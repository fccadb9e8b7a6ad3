//! Where the capture kernel and its image are.
//!
//! In: configuration and the machine's boot directories. Out: two paths. Kernels are named in a few ways; those of RHEL
//! and of systemd's kernel-install are tried, then the copy that some distributions keep beside the modules.

use super::kernel_file;
use crate::config::Sysconfig;
use crate::host::{Tree, kernel::running_release};
use anyhow::{Context, bail};
use nix::unistd::{AccessFlags, access};
use std::path::PathBuf;

/// A capture kernel on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OnDisk {
    /// As `uname -r` will print it.
    pub(crate) release: String,
    /// The kernel.
    pub(crate) kernel: PathBuf,
    /// Its image, which may not be there yet.
    pub(crate) image: PathBuf,
}

/// Where an image goes if the boot directory cannot be written to.
const STATE_DIR: &str = "var/lib/kdump";

/// Finds the kernel and says where its image belongs.
pub(crate) fn find(tree: &Tree, config: &Sysconfig) -> anyhow::Result<OnDisk> {
    let release = match kernel_file::release(tree, config)? {
        Some(release) => release,
        None => running_release(tree)?,
    };
    let img = config.img.as_ref().map_or("vmlinuz", |given| given.value.as_str());
    let extension = config.img_ext.as_ref().map_or("", |given| given.value.as_str());
    let mut boot_dirs: Vec<PathBuf> = match &config.bootdir {
        Some(given) => vec![tree.path(&given.value)],
        None => ["boot", "boot/efi", "efi", ""].map(|dir| tree.path(dir)).to_vec(),
    };
    let mut places: Vec<PathBuf> =
        boot_dirs.iter().map(|dir| dir.join(format!("{img}-{release}{extension}"))).collect();
    // A kernel by itself needs no second reading; a unified image has one as well.
    let unified =
        |id: &str| boot_dirs.iter().map(|dir| dir.join(format!("EFI/Linux/{id}-{release}.efi"))).collect::<Vec<_>>();
    let mut last = vec![];
    if let Some(machine_id) = tree.line("etc/machine-id").filter(|id| !id.is_empty()) {
        places.extend(boot_dirs.iter().map(|dir| dir.join(&machine_id).join(&release).join("vmlinuz")));
        last = unified(&machine_id);
    }
    places.extend(["lib/modules", "usr/lib/modules"].map(|dir| tree.path(dir).join(&release).join("vmlinuz")));
    places.extend(last);
    if let Some(given) = &config.kernel_file {
        places = vec![tree.resolve(&given.value).with_context(|| format!("{}: the kernel", given.origin))?];
    }
    let Some(kernel) = places.iter().find(|place| place.is_file()).cloned() else {
        let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        bail!("there is no kernel {release}: none of {} is there; set KDUMP_BOOTDIR and KDUMP_IMG", places.join(", "));
    };
    boot_dirs.truncate(1);
    let boot_dir = kernel.parent().map(PathBuf::from).filter(|dir| dir.ends_with("boot")).or_else(|| boot_dirs.pop());
    if let Some(given) = &config.image_file {
        // A link stays one: what it names is the image.
        let image = tree.resolve(&given.value).unwrap_or_else(|_| tree.path(&given.value));
        return Ok(OnDisk { release, kernel, image });
    }
    let name = format!("initramfs-{release}kdump.img");
    let state = tree.path(STATE_DIR).join(&name);
    let image = match boot_dir {
        Some(dir) if dir.join(&name).is_file() || (!state.is_file() && access(&dir, AccessFlags::W_OK).is_ok()) => {
            dir.join(&name)
        }
        _ => state,
    };
    Ok(OnDisk { release, kernel, image })
}
