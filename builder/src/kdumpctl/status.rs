//! Whether a capture kernel is loaded, and whether one can be.

use super::Machine;
use crate::host::Tree;
use anyhow::bail;
use std::io::Write;
use std::process::ExitCode;

/// The exit of `kdumpctl status` if no capture kernel is loaded.
const NOT_OPERATIONAL: u8 = 3;

/// Says whether a capture kernel is loaded.
pub(super) fn run(machine: &Machine, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    if is_loaded(&machine.tree) {
        writeln!(out, "Kdump is operational")?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "Kdump is not operational")?;
    if let Err(error) = feasible(&machine.tree) {
        log::warn!("{error:#}");
    }
    Ok(ExitCode::from(NOT_OPERATIONAL))
}

/// Whether the kernel says that a capture kernel is loaded.
pub(super) fn is_loaded(tree: &Tree) -> bool {
    fact(tree, "loaded").as_deref() == Some("1")
}

/// Whether loading is switched off until the next boot.
pub(super) fn load_disabled(tree: &Tree) -> bool {
    tree.line("proc/sys/kernel/kexec_load_disabled").as_deref() == Some("1")
}

/// Whether a capture kernel can be loaded here at all.
///
/// # Errors
/// What is missing, and how to get it.
pub(super) fn feasible(tree: &Tree) -> anyhow::Result<()> {
    if fact(tree, "loaded").is_none() {
        bail!(
            "this kernel cannot load a capture kernel; boot one that was built with CONFIG_CRASH_DUMP and CONFIG_KEXEC_FILE"
        );
    }
    let size: u64 = fact(tree, "size").and_then(|size| size.parse().ok()).unwrap_or(0);
    if size == 0 {
        bail!("No memory reserved for crash kernel. Put crashkernel=256M on the kernel command line and reboot.");
    }
    Ok(())
}

/// A file that is called `kexec_crash_X` in older kernels and `kexec/crash_X` in newer ones.
fn fact(tree: &Tree, name: &str) -> Option<String> {
    tree.line(&format!("sys/kernel/kexec_crash_{name}"))
        .or_else(|| tree.line(&format!("sys/kernel/kexec/crash_{name}")))
}
