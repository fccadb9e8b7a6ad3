//! `kdumpctl get-default-crashkernel`: what the distribution would write behind `crashkernel=`.

use super::Machine;
use crate::cli::Way;
use crate::crashkernel::{Facts, default_value};
use serde_json::json;
use std::io::Write;

/// Prints it.
pub(super) fn run(machine: &Machine, way: Way, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let value = default_value(&Facts::of(&machine.tree), way)?;
    match json {
        true => writeln!(out, "{:#}", json!({ "crashkernel": value.to_string() }))?,
        false => writeln!(out, "{value}")?,
    }
    Ok(())
}
