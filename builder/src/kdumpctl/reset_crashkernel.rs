//! `kdumpctl reset-crashkernel`: what the next boots reserve.
//!
//! In: a value, else the distribution's default; whose boot entry. Out: changed boot loader files with copies beside them,
//! or what would be changed.

use super::{Machine, kernel, kernel_file, lock, status};
use crate::bootloader::{self, Edit, Plan, Which};
use crate::cli::{Reset, Way};
use crate::config::{Config, Given};
use crate::crashkernel::{Arch, Crashkernel, Facts, Value, default_value, mib};
use crate::host::{Tree, kernel::running_release};
use crate::{estimate, inspect};
use anyhow::{Context, bail};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::process::Command;

/// Does it, or shows it.
pub(super) fn run(machine: &Machine, what: &Reset, out: &mut dyn Write) -> anyhow::Result<()> {
    let tree = &machine.tree;
    let facts = Facts::of(tree);
    let mut edit = Edit::default();
    let way = fadump(what.fadump.as_deref(), &facts, &mut edit)?;
    let value = match what.value.clone().map_or_else(|| configured(machine), |value| Ok(Some(value)))? {
        Some(value) if value.words.contains(&Value::Auto) => fitting(machine, &value)?,
        Some(value) => value,
        None => default_value(&facts, way)?,
    };
    value.check(facts.memory)?;
    if value.reserves(facts.memory) == Some(0) {
        log::warn!("with {} MiB of memory, this machine reserves nothing by crashkernel={value}", mib(facts.memory));
    }
    edit = edit.set("crashkernel", &value.on_command_line());
    let which = Which::typed(what.kernel.as_deref(), || captured(machine), tree)?;
    let mut plan = bootloader::plan(tree, &which, &edit)?;
    // Files may say what no program of the boot loader has heard of yet. Who asks for it by name wants it in force.
    plan.again = !is_in_force(machine, &value);
    if !what.dry_run {
        let _lock = lock::take(tree, &mut std::io::stderr())?;
        plan.apply(tree)?;
    }
    match what.how.json {
        true => writeln!(out, "{:#}", told(tree, &value, &plan, what.dry_run))?,
        false => {
            plan.show(tree, out)?;
            say(machine, &value, &plan, what, out)?;
        }
    }
    if what.reboot && !what.dry_run && !plan.is_settled() {
        if !tree.is_this_machine() {
            bail!("these are not the files of this machine, which is not rebooted");
        }
        let status = Command::new("systemctl").arg("reboot").status().context("cannot run systemctl reboot")?;
        if !status.success() {
            bail!("systemctl reboot ended with {status}; reboot the machine yourself");
        }
    }
    Ok(())
}

/// Whether the kernel that runs was given this value.
fn is_in_force(machine: &Machine, value: &Crashkernel) -> bool {
    let line = machine.tree.line("proc/cmdline").unwrap_or_default();
    Crashkernel::of_command_line(&line).ok().flatten().as_ref() == Some(value)
}

fn say(machine: &Machine, value: &Crashkernel, plan: &Plan, what: &Reset, out: &mut dyn Write) -> anyhow::Result<()> {
    match (what.dry_run, plan.is_settled()) {
        (true, _) => writeln!(out, "Nothing was changed")?,
        (false, true) if is_in_force(machine, value) => writeln!(out, "crashkernel={value} is in force already")?,
        (false, _) => writeln!(out, "crashkernel={value} is in force after a reboot")?,
    }
    Ok(())
}

fn told(tree: &Tree, value: &Crashkernel, plan: &Plan, dry_run: bool) -> serde_json::Value {
    let changes = plan
        .changes
        .iter()
        .map(|change| json!({ "path": change.path, "before": change.before, "after": change.after }));
    // In the order in which they run.
    let commands: Vec<&[String]> = plan.first.iter().map(Vec::as_slice).chain(plan.runs(tree)).collect();
    json!({
        "crashkernel": value.to_string(), "changed": !dry_run && !plan.is_settled(),
        "changes": changes.collect::<Vec<_>>(), "settled": plan.settled, "left": plan.left, "commands": commands,
        "notes": plan.notes,
    })
}

/// What `--fadump` asks for: which way of dumping the value is for, and the word on the command line.
fn fadump(how: Option<&str>, facts: &Facts, edit: &mut Edit) -> anyhow::Result<Way> {
    let Some(how) = how else { return Ok(Way::Kdump) };
    if facts.arch != Arch::Ppc64le {
        bail!("--fadump is a matter of POWER machines (ppc64le) alone; leave it out");
    }
    let words = match how {
        "on" | "nocma" => vec![format!("fadump={how}")],
        "off" => Vec::new(),
        _ => bail!("--fadump={how} is none of on, off and nocma"),
    };
    let way = if words.is_empty() { Way::Kdump } else { Way::Fadump };
    *edit = std::mem::take(edit).set("fadump", &words);
    Ok(way)
}

/// The release of the kernel for which there is a capture kernel: what `KDUMP_KERNELVER` names, else the one that runs.
fn captured(machine: &Machine) -> anyhow::Result<String> {
    let config = Config::read(&machine.files).ok();
    let named = config.map_or(Ok(None), |config| kernel_file::release(&machine.tree, &config.system))?;
    named.map_or_else(|| running_release(&machine.tree), Ok)
}

/// What SUSE's `KDUMP_CRASHKERNEL` says, if it says something. A machine that is not configured has a default all the same.
fn configured(machine: &Machine) -> anyhow::Result<Option<Crashkernel>> {
    let Ok(config) = Config::read(&machine.files) else { return Ok(None) };
    let Some(Given { value, origin }) = config.system.crashkernel else { return Ok(None) };
    let value = value.parse();
    value.map(Some).with_context(|| format!("{origin}: KDUMP_CRASHKERNEL"))
}

/// What this machine takes, in the place of `auto`.
pub(super) fn fitting(machine: &Machine, asked: &Crashkernel) -> anyhow::Result<Crashkernel> {
    let config = Config::read(&machine.files)?;
    let disk = kernel::find(&machine.tree, &config.system)?;
    let image = fs::read(&disk.image).with_context(|| {
        format!("auto is made to fit the image, and {} cannot be read; kdumpctl rebuild makes it", disk.image.display())
    })?;
    let estimate = estimate::for_image(&machine.tree, &inspect::config(&image)?, &disk.kernel, &disk.image)?;
    let bytes = estimate.recommended();
    log::info!("this machine takes {} MiB; {} MiB are reserved now", mib(bytes), mib(status::reserved(&machine.tree)));
    let words = asked.words.iter().map(|word| match word {
        Value::Auto => Value::Size { size: bytes, at: None },
        other => other.clone(),
    });
    Ok(Crashkernel { words: words.collect() })
}
