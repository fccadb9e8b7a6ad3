//! `kdumpctl get-default-crashkernel`: what the distribution would write behind `crashkernel=`.

use super::Machine;
use crate::cli::Way;
use crate::crashkernel::{Facts, default_value};
use std::io::Write;

/// Prints it.
pub(super) fn run(machine: &Machine, way: Way, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "{}", default_value(&Facts::of(&machine.tree), way)?)?;
    Ok(())
}
