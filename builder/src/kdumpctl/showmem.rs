//! `kdumpctl showmem`: how much memory is reserved for the capture kernel.

use super::{Machine, status};
use crate::crashkernel::{Crashkernel, mib};
use serde_json::json;
use std::io::Write;

/// Says it. RHEL's words; nothing reserved is no error.
pub(super) fn run(machine: &Machine, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let bytes = status::reserved(&machine.tree);
    let line = machine.tree.line("proc/cmdline").unwrap_or_default();
    let asked = Crashkernel::of_command_line(&line).unwrap_or_else(|error| {
        log::warn!("{error:#}");
        None
    });
    if json {
        let asked = asked.map(|asked| asked.to_string());
        writeln!(out, "{:#}", json!({ "bytes": bytes, "crashkernel": asked }))?;
    } else {
        writeln!(out, "Reserved {}MB memory for crash kernel", mib(bytes))?;
    }
    Ok(())
}
