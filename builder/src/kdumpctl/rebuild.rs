//! `kdumpctl rebuild`: the image anew, whether or not it is out of date. What is loaded stays loaded.

use super::{Machine, boot_loader, kernel, start};
use crate::config::Config;
use std::io::Write;

/// Builds it.
pub(super) fn run(machine: &Machine, out: &mut dyn Write) -> anyhow::Result<()> {
    let config = Config::read(&machine.files)?;
    let disk = kernel::find(&machine.tree, &config.system)?;
    let built = start::build(machine, &disk)?;
    for warning in &built.warnings {
        log::warn!("{warning}");
    }
    start::write(machine, &config, &built, &disk, out)?;
    boot_loader::at_start(machine, out);
    Ok(())
}
