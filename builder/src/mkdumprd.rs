//! The command `mkdumprd`: from what was typed to what is done.

use crate::build::{self, Request};
use crate::cli::Mkdumprd;
use crate::config::Files;
use crate::image;
use crate::normal::Options;

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
            integrity: typed.integrity,
            modsign: typed.modsign,
            livepatch: typed.livepatch,
        }),
    })?;
    for warning in &built.warnings {
        log::warn!("{warning}");
    }
    for entry in built.plan.entries() {
        log::debug!("{:>8} /{}: {}", entry.size(), entry.path, entry.reason);
    }
    build::write(&built, &typed.output, typed.force)
}
