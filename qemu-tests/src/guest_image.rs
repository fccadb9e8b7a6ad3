//! The first kernel's own initramfs: `guest-init` as `/init`, and the modules for its disk in the order of loading.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::programs::Programs;
use crate::provision::Kernel;
use crate::{initramfs, tools};

/// What the first kernel needs to reach its disk.
const MODULES: [&str; 3] = ["virtio_pci", "virtio_blk", "ext4"];

/// Writes the image, uncompressed; `more` names modules that are loaded too.
pub(crate) fn write(kernel: &Kernel, programs: &Programs, more: &[&str], image: &Path) -> Result<()> {
    let tree = tempfile::tempdir().context("unable to make a temporary folder")?;
    let root = tree.path();
    tools::copy(&programs.path("guest-init"), &root.join("init"))?;
    for folder in ["modules", "dev", "proc", "sys", "sysroot"] {
        fs::create_dir(root.join(folder))?;
    }
    let mut order = Vec::new();
    for name in MODULES.iter().chain(more) {
        for file in kernel.load_order(name)? {
            let name = unpacked_name(&file);
            if !order.contains(&name) {
                fs::write(root.join("modules").join(&name), unpacked(&file)?)?;
                order.push(name);
            }
        }
    }
    fs::write(root.join("modules/order"), order.join("\n"))?;
    archive(root, image)
}

/// Puts files into an image that is there already: of two archives in one image the later one wins.
pub(crate) fn lay_over(files: &[(String, Vec<u8>)], image: &Path) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let tree = tempfile::tempdir().context("unable to make a temporary folder")?;
    let root = tree.path().join("root");
    for (name, bytes) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&root))?;
        fs::write(&path, bytes)?;
        // A program keeps its place in the image only if it can still be run.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    let second = tree.path().join("second.img");
    archive(&root, &second)?;
    let mut whole = fs::read(image)?;
    // An archive begins at a multiple of four.
    whole.resize(whole.len().next_multiple_of(4), 0);
    whole.extend(fs::read(&second)?);
    fs::write(image, whole).with_context(|| format!("unable to write {}", image.display()))
}

/// Packs a folder with GNU cpio, the incumbent.
fn archive(root: &Path, image: &Path) -> Result<()> {
    let listing = tools::run(tools::command("find").arg(".").current_dir(root))?.stdout;
    let names = root.with_extension("names");
    fs::write(&names, listing)?;
    let mut cpio = tools::command("cpio");
    cpio.args(["-o", "-H", "newc", "--quiet"]).current_dir(root).stdin(File::open(&names)?);
    cpio.stdout(File::create(image).with_context(|| format!("unable to write {}", image.display()))?);
    let status = cpio.stderr(Stdio::inherit()).status().context("unable to start cpio")?;
    fs::remove_file(&names)?;
    if !status.success() {
        bail!("cpio ended with {status}");
    }
    Ok(())
}

fn unpacked_name(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let packed = [".xz", ".zst", ".gz"].into_iter().find_map(|suffix| name.strip_suffix(suffix));
    packed.unwrap_or(&name).to_owned()
}

/// A module's content, whatever the distribution packs it with.
fn unpacked(file: &Path) -> Result<Vec<u8>> {
    let content = fs::read(file).with_context(|| format!("unable to read {}", file.display()))?;
    if content.starts_with(b"\x7fELF") {
        return Ok(content);
    }
    initramfs::unpack(&content).with_context(|| format!("unable to unpack {}", file.display()))
}
