//! `kdumpctl dumps prune`: removes old dumps by the rules of the capture environment.
//!
//! In: directories and how many dumps stay. Out: fewer dumps. The rules are `kdump_init::dump::retention`'s: only what is
//! certainly ours, only whole directories, and never the newest complete dump of a host. What a power loss has left without
//! a status may be anybody's: it is named, and stays.

use crate::config::Config;
use crate::crashkernel::mib;
use crate::kdumpctl::{Machine, lock};
use anyhow::{Context, bail};
use kdump_init::dump::retention::{self, OldDump};
use serde_json::json;
use std::io::Write;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;

/// Removes them, or says which.
pub(super) fn run(
    machine: &Machine,
    dirs: &[PathBuf],
    keep: Option<NonZeroU32>,
    dry_run: bool,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let keep = match keep {
        Some(keep) => keep,
        None => {
            let config = Config::read(&machine.files)?;
            let keep = config.system.keep.context(
                "nothing is configured of how many dumps stay; say it with --keep, KDUMP_KEEP_OLD_DUMPS, KDUMP_NUM_DUMPS or \
                 `keep` in [room] of kdump.toml",
            )?;
            keep.value
        }
    };
    let _lock = (!dry_run).then(|| lock::take(&machine.tree, &mut std::io::stderr())).transpose()?;
    let (mut removed, mut errors) = (Vec::new(), Vec::new());
    for hosts in dirs.iter().map(|dir| retention::within(dir)) {
        for dumps in &hosts {
            // No new one comes: as many stay as are kept beside one.
            let beside = keep.saturating_add(1);
            for dump in retention::removable(dumps, beside, false) {
                match if dry_run { Ok(()) } else { OldDump::remove(dump) } {
                    Ok(()) => removed.push(dump.path.clone()),
                    Err(error) => errors.push(format!("{error:#}")),
                }
            }
        }
    }
    let unfinished: Vec<_> = super::below(dirs).into_iter().filter(|dump| dump.outcome == "unfinished").collect();
    match json {
        true => {
            let paths: Vec<&PathBuf> = unfinished.iter().map(|dump| &dump.path).collect();
            let told = json!({ "removed": removed, "dry_run": dry_run, "unfinished": paths, "errors": errors });
            writeln!(out, "{told:#}")?;
        }
        false => {
            let word = if dry_run { "Would remove" } else { "Removed" };
            for path in &removed {
                writeln!(out, "{word} {}", path.display())?;
            }
            if removed.is_empty() {
                writeln!(out, "There is nothing to remove")?;
            }
            for dump in &unfinished {
                let (path, mib) = (dump.path.display(), mib(dump.bytes));
                writeln!(out, "{path} is unfinished ({mib} MiB) and stays; remove it by hand")?;
            }
        }
    }
    match errors.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => bail!("{}", errors.join("; ")),
    }
}
