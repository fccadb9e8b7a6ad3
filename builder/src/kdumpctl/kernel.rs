//! Where the capture kernel and its image are.
//!
//! In: configuration and the machine's boot directories. Out: two paths.

use super::kernel_file;
use crate::config::Sysconfig;
use crate::host::{Tree, kernel::running_release};
use anyhow::Context;
use kdump_hooks::kernel_image::Naming;
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

/// Where an image goes if the boot directory cannot be written to, or has no room for it.
const STATE_DIR: &str = "var/lib/kdump";

/// Finds the kernel and says where its image belongs.
pub(crate) fn find(tree: &Tree, config: &Sysconfig) -> anyhow::Result<OnDisk> {
    let release = match kernel_file::release(tree, config)? {
        Some(release) => release,
        None => running_release(tree)?,
    };
    let mut naming = Naming::default();
    if let Some(img) = &config.img {
        naming.name.clone_from(&img.value);
    }
    if let Some(extension) = &config.img_ext {
        naming.extension.clone_from(&extension.value);
    }
    if let Some(directory) = &config.bootdir {
        naming.directories = vec![directory.value.clone()];
    }
    let kernel = match &config.kernel_file {
        Some(given) => tree.resolve(&given.value).with_context(|| format!("{}: the kernel", given.origin))?,
        None => naming.find(tree.root(), &release).context(
            "say where it is: boot_dir and name of [kernel] in kdump.toml, KDUMP_BOOTDIR and KDUMP_IMG in \
             /etc/sysconfig/kdump",
        )?,
    };
    let first = naming.directories.first().map(|directory| tree.path(directory));
    let boot_dir = kernel.parent().map(PathBuf::from).filter(|dir| dir.ends_with("boot")).or(first);
    if let Some(given) = &config.image_file {
        // A link stays one: what it names is the image.
        let image = tree.resolve(&given.value).unwrap_or_else(|_| tree.path(&given.value));
        return Ok(OnDisk { release, kernel, image });
    }
    let name = image_name(&release);
    let state = tree.path(STATE_DIR).join(&name);
    let image = match boot_dir {
        Some(dir) if dir.join(&name).is_file() || (!state.is_file() && access(&dir, AccessFlags::W_OK).is_ok()) => {
            dir.join(&name)
        }
        _ => state,
    };
    Ok(OnDisk { release, kernel, image })
}

fn image_name(release: &str) -> String {
    format!("initramfs-{release}kdump.img")
}

/// Where the image goes when there is no room for it where it belongs; `None` if it was asked for by name, or belongs there.
pub(crate) fn where_room_is(tree: &Tree, config: &Sysconfig, disk: &OnDisk) -> Option<OnDisk> {
    let image = tree.path(STATE_DIR).join(image_name(&disk.release));
    (config.image_file.is_none() && image != disk.image).then(|| OnDisk { image, ..disk.clone() })
}
