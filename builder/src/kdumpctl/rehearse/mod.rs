//! placeholder
use super::Machine;
use crate::cli::Rehearsal;
use std::io::Write;
use std::process::ExitCode;
pub(super) fn run(_machine: &Machine, _what: &Rehearsal, _out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
