//! `kdumpctl dumps list`.

use super::{Dump, printable};
use crate::crashkernel::mib;
use std::io::Write;

/// One line for each: name, outcome, size, kernel, why it crashed.
pub(super) fn run(dumps: &[Dump], json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    if json {
        writeln!(out, "{:#}", serde_json::to_value(dumps)?)?;
        return Ok(());
    }
    if dumps.is_empty() {
        writeln!(out, "There is no dump")?;
    }
    let width = |column: fn(&Dump) -> String| dumps.iter().map(|dump| column(dump).chars().count()).max().unwrap_or(0);
    let path = |dump: &Dump| printable(&dump.path.display().to_string());
    let (paths, outcomes) = (width(path), width(|dump| printable(&dump.outcome)));
    for dump in dumps {
        let kernel = printable(dump.kernel.as_deref().unwrap_or("-"));
        let panic = printable(dump.panic.as_deref().unwrap_or("-"));
        let size = format!("{} MiB", mib(dump.bytes));
        writeln!(out, "{:paths$}  {:outcomes$}  {size:>9}  {kernel}  {panic}", path(dump), printable(&dump.outcome))?;
    }
    Ok(())
}
