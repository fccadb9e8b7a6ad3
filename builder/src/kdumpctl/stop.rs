//! Takes the capture kernel out of its reserved memory.

use super::{Machine, load};
use crate::kexec::{Guard, Purpose, explain};
use anyhow::Context;

/// Unloads; nothing to unload is fine.
pub(super) fn run(machine: &Machine) -> anyhow::Result<()> {
    let unloaded = machine.kexec.unload(Purpose::Crash);
    unloaded.map_err(|error| explain(error, &Guard::of(&machine.tree))).context("cannot unload the capture kernel")?;
    load::forget(&machine.tree);
    Ok(())
}
