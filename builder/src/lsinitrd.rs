//! The command `lsinitrd`: from what was typed to what is done.

use crate::cli::Lsinitrd;
use crate::host::Tree;
use crate::inspect::{self, Extract, Order};
use anyhow::{Context, bail};
use kdump_hooks::kernel_image::unified;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Lists, prints, unpacks or compares.
///
/// # Errors
/// An image cannot be read, or what is wanted is not in it.
pub fn run(typed: &Lsinitrd, tree: &Tree, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let image = match &typed.image {
        Some(image) => image.clone(),
        None => inspect::image_of(tree, typed.kver.as_deref())?,
    };
    one(typed, &image, out).with_context(|| format!("cannot read the image {}", image.display()))
}

fn one(typed: &Lsinitrd, image: &Path, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let file = read(image)?;
    let bytes = unified::initrd(&file);
    if typed.diff {
        let [other] = typed.files.as_slice() else { bail!("--diff takes two images") };
        let differ = inspect::diff(&bytes, &unified::initrd(&read(Path::new(other))?), typed.json, out)?;
        return Ok(ExitCode::from(u8::from(differ)));
    }
    let only = [typed.print.as_slice(), typed.files.as_slice()].concat();
    if typed.unpack || typed.unpack_early {
        let how = Extract { only, early: typed.unpack_early, preserve: typed.preserve };
        let done = inspect::extract(&bytes, &typed.directory, &how)?;
        if done.left_out > 0 {
            log::warn!("device nodes, pipes and sockets are left out: {}; --preserve makes them", done.left_out);
        }
        if typed.verbose {
            writeln!(out, "{} entries in {}", done.done, typed.directory.display())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    match only.as_slice() {
        [] if typed.modules => inspect::modules(&bytes, typed.json, out)?,
        [] if typed.json => inspect::describe(&bytes, out)?,
        [] => inspect::list(&bytes, if typed.size { Order::Size } else { Order::Image }, out)?,
        files => files.iter().try_for_each(|file| inspect::print(&bytes, file, out))?,
    }
    Ok(ExitCode::SUCCESS)
}
