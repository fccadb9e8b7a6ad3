//! `kdumpctl estimate`: what the capture kernel of this machine takes, part by part, and whether that is reserved.
//!
//! In: the image that is there, else one that is built beside it and thrown away. Out: RHEL's table, or JSON. Exit 0 even
//! where too little is reserved, as RHEL has it; the warning says so.

use super::{Machine, kernel, start, status};
use crate::config::Config;
use crate::crashkernel::{Facts, default_value, mib};
use crate::estimate::{self, Calibrated, Estimate};
use crate::{build, cli, inspect};
use serde_json::json;
use std::fs;
use std::io::Write;

/// Modules from here on are named.
const LARGE: u64 = 1 << 20;

/// Says it.
pub(super) fn run(machine: &Machine, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let config = Config::read(&machine.files)?;
    let tree = &machine.tree;
    let mut disk = kernel::find(tree, &config.system)?;
    // An image that is out of date would be built again by `start`; it is left as it is here.
    let scratch = tempfile::tempdir()?;
    if let Some(lack) = start::lacking(machine, &config, &disk) {
        log::info!("{}: {lack}; the estimate is for the image that would be built", disk.image.display());
        let built = start::build(machine, &disk)?;
        disk.image = scratch.path().join("image");
        build::write(&built, &disk.image, true)?;
    }
    let image = inspect::config(&fs::read(&disk.image)?)?;
    let estimate = estimate::for_image(tree, &image, &disk.kernel, &disk.image)?;
    let facts = Facts::of(tree);
    let default = default_value(&facts, cli::Way::Kdump)?;
    let reserved = status::reserved(tree);
    let recommended = estimate.recommended();
    let large = large_modules(machine);
    let warning = (reserved < recommended).then(|| {
        format!(
            "WARNING: Current crashkernel size is lower than recommended size {}M; set it with `kdumpctl \
             reset-crashkernel {}M` and reboot.",
            mib(recommended),
            mib(recommended)
        )
    });
    if json {
        let parts = json!({
            "reserved": reserved, "recommended": recommended, "enough": warning.is_none(), "sum": estimate.sum(),
            "parts": estimate, "default": default.to_string(), "calibrate": estimate.calibrated(facts.memory),
            "large_modules": large.iter().map(|(name, size)| json!({ "name": name, "bytes": size })).collect::<Vec<_>>(),
        });
        writeln!(out, "{parts:#}")?;
        return Ok(());
    }
    table(&estimate, reserved, out)?;
    writeln!(out, "{:<24} {default}", "Default crashkernel:")?;
    let Calibrated { low, high, min_low, max_low, min_high, max_high, .. } = estimate.calibrated(facts.memory);
    for (name, mib, least, most) in [("Low:", low, min_low, max_low), ("High:", high, min_high, max_high)] {
        writeln!(out, "{name:<24} {mib}M ({least}M to {most}M)")?;
    }
    match large.is_empty() {
        true => writeln!(out, "Large modules: <none>")?,
        false => {
            writeln!(out, "Large modules:")?;
            for (name, size) in large {
                writeln!(out, "    {name}: {size}")?;
            }
        }
    }
    if let Some(warning) = warning {
        writeln!(out, "{warning}")?;
    }
    Ok(())
}

fn table(estimate: &Estimate, reserved: u64, out: &mut dyn Write) -> anyhow::Result<()> {
    for (name, bytes) in [
        ("Reserved crashkernel:", reserved),
        ("Recommended crashkernel:", estimate.recommended()),
        ("", 0),
        ("Kernel image size:", estimate.kernel),
        ("Kernel modules size:", estimate.modules),
        ("Initramfs size:", estimate.image),
        ("Initramfs unpacked:", estimate.unpacked),
        ("Runtime reservation:", estimate.kernel_besides),
        ("Collector budget:", estimate.collector),
        ("Network:", estimate.network),
        ("LUKS required size:", estimate.luks),
    ] {
        match name {
            "" => writeln!(out)?,
            name => writeln!(out, "{name:<24} {}M", mib(bytes))?,
        }
    }
    Ok(())
}

/// Modules that the running kernel has loaded and that take much memory.
fn large_modules(machine: &Machine) -> Vec<(String, u64)> {
    let text = machine.tree.line("proc/modules").unwrap_or_default();
    let module = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, size) = (words.next()?, words.next()?.parse::<u64>().ok()?);
        (size >= LARGE).then(|| (name.to_owned(), size))
    };
    let mut modules: Vec<(String, u64)> = text.lines().filter_map(module).collect();
    modules.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    modules
}
