//! Unified kernel images, as distributions make them: systemd's stub with sections behind it.

use std::fs;

use anyhow::{Context, Result};

use crate::provision::{self, Kernel};
use crate::tools;

/// One of that kernel, without an initramfs.
pub fn unified(kernel: &Kernel) -> Result<Vec<u8>> {
    let place = tempfile::tempdir().context("unable to make a temporary folder")?;
    let (uname, image) = (place.path().join("uname"), place.path().join("linux.efi"));
    fs::write(&uname, &kernel.release)?;
    let mut objcopy = tools::command("objcopy");
    // Where systemd's own example has them, well behind the stub and each other.
    for (section, file, address) in [(".uname", &uname, "0x20000"), (".linux", &kernel.vmlinuz, "0x2000000")] {
        objcopy.arg("--add-section").arg(format!("{section}={}", file.display()));
        objcopy.arg("--change-section-vma").arg(format!("{section}={address}"));
    }
    tools::run(objcopy.arg(provision::stub()?).arg(&image))?;
    fs::read(&image).with_context(|| format!("unable to read {}", image.display()))
}
