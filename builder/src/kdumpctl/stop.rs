//! Takes the capture kernel out of its reserved memory.

use super::{Machine, status};
use crate::kexec::explain;
use anyhow::Context;

/// Unloads; nothing to unload is fine.
pub(super) fn run(machine: &Machine) -> anyhow::Result<()> {
    machine
        .kexec
        .unload()
        .map_err(|error| explain(error, status::load_disabled(&machine.tree)))
        .context("cannot unload the capture kernel")
}
