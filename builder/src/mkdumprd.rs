//! The commands `mkdumprd` and `lsinitrd`: from what was typed to what is done.

use crate::build::{self, Request};
use crate::cli::{Lsinitrd, Mkdumprd};
use crate::config::Files;
use crate::normal::Options;
use crate::{image, inspect};
use anyhow::Context;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

/// Builds an image; the line to print about it.
///
/// # Errors
/// Why there is no image; nothing is left behind then.
pub fn run(typed: &Mkdumprd) -> anyhow::Result<String> {
    image::check_output(&typed.output, typed.force)?;
    let built = build::plan(&Request {
        kver: typed.kver.clone(),
        files: Files::new(&typed.sysroot, typed.config.as_deref(), typed.sysconfig.as_deref()),
        sysroot: typed.sysroot.clone(),
        modules_dir: typed.modules_dir.clone(),
        programs: typed.programs.clone(),
        packing: typed.compress,
        normal: typed.normal.then_some(Options {
            generic: typed.generic,
            early_kdump: typed.early_kdump,
            sysctl: typed.sysctl,
            network: typed.network,
            shell: typed.shell,
            livepatch: typed.livepatch,
        }),
    })?;
    for warning in &built.warnings {
        log::warn!("{warning}");
    }
    let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = canonical(typed.output.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new(".")));
    if typed.livepatch && !folder.starts_with(canonical(&typed.sysroot.join("boot"))) {
        log::warn!(
            "{} is not below /boot: kpatch will not find it there, and its live patches stay those of today",
            typed.output.display()
        );
    }
    for entry in built.plan.entries() {
        log::debug!("{:>8} /{}: {}", entry.size(), entry.path, entry.reason);
    }
    build::write(&built, &typed.output, typed.force)
}

/// Lists an image or prints a file of it.
///
/// # Errors
/// The image cannot be read.
pub fn list(typed: &Lsinitrd, out: &mut dyn Write) -> anyhow::Result<()> {
    let image = fs::read(&typed.image).with_context(|| format!("cannot read {}", typed.image.display()))?;
    let done = match &typed.file {
        Some(file) => inspect::print(&image, file, out),
        None => inspect::list(&image, out),
    };
    match done {
        // `lsinitrd IMAGE | head` has seen enough.
        Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe) => {
            Ok(())
        }
        done => done.with_context(|| format!("cannot list {}", typed.image.display())),
    }
}
