//! The image that is meant when none is named.

use crate::host::{Tree, kernel::running_release};
use anyhow::Context;
use kdump_hooks::kernel_image::Naming;
use std::path::PathBuf;

/// Where the image of a kernel is: that which boots the system, else that of its capture kernel.
///
/// # Errors
/// There is none.
pub fn image_of(tree: &Tree, kver: Option<&str>) -> anyhow::Result<PathBuf> {
    let kver = match kver {
        Some(kver) => kver.to_owned(),
        None => running_release(tree)?,
    };
    let capture = || {
        let places = [
            format!("boot/initramfs-{kver}kdump.img"),
            format!("boot/initrd-{kver}-kdump"),
            format!("var/lib/kdump/initrd.img-{kver}"),
        ];
        places.iter().map(|place| tree.path(place)).find(|path| path.is_file())
    };
    let there = boot_image_of(tree, &kver).or_else(capture);
    there.with_context(|| format!("there is no image of kernel {kver} in any of the usual places; name one"))
}

/// Where the image is with which that kernel boots the system; a unified image is one.
pub fn boot_image_of(tree: &Tree, kver: &str) -> Option<PathBuf> {
    let machine = tree.line("etc/machine-id").unwrap_or_default();
    let in_loader = |top: &str| format!("{top}/{machine}/{kver}/initrd");
    let in_unified = |top: &str| format!("{top}/EFI/Linux/{machine}-{kver}.efi");
    let places = [
        in_loader("efi"),
        in_loader("boot"),
        in_loader("boot/efi"),
        in_unified("efi"),
        in_unified("boot"),
        in_unified("boot/efi"),
        format!("lib/modules/{kver}/initrd"),
        format!("usr/lib/modules/{kver}/initrd"),
        format!("boot/initramfs-{kver}.img"),
        format!("boot/initrd.img-{kver}"),
        format!("boot/initrd-{kver}"),
    ];
    // Where the kernel has another token than the machine's own.
    let kernel = Naming::default().find(tree.root(), kver).ok();
    let beside = kernel.iter().map(|kernel| kernel.with_file_name("initrd"));
    let unified = kernel.iter().filter(|kernel| kernel.extension().is_some_and(|extension| extension == "efi"));
    let named = places.iter().map(|place| tree.path(place));
    named.chain(beside).chain(unified.cloned()).find(|path| path.is_file())
}
