//! What the boot loader has behind `crashkernel=`, kept right without anybody typing it.
//!
//! In: the default, or what SUSE's `KDUMP_CRASHKERNEL` asks for, and what the boot loader says. Out: a changed boot loader,
//! or the word that changes it. There are three occasions:
//!
//! | occasion | what is changed |
//! |---|---|
//! | the package came | command lines that have none get the default: on Debian those that GRUB makes for all kernels |
//! | it was upgraded | command lines that have an older default get the new one |
//! | a kernel was installed | its command line, if that has an older default or none; on Debian GRUB's one for all kernels only if that has an older default |
//! | `kdumpctl start`, `rebuild` | with `KDUMP_UPDATE_BOOTLOADER` all command lines get what is asked for |
//!
//! Which defaults there have been on this machine is kept in [`DEFAULTS`], a line for each, the newest last. A value that
//! was never one is the administrator's and stays.
//!
//! May surprise: packages and kernels change it only where kdump.service is enabled, which is told by links alone, so that
//! it works in a chroot, where the kernel that runs is not asked either. Where nothing reserves memory after the package
//! came, it is said what does. Where SUSE's words say what the boot loader is to have, they hold on all three occasions.

use super::{Machine, reset_crashkernel};
use crate::bootloader::{self, Edit, Only, Plan, Which};
use crate::cli::Way;
use crate::config::{Config, Dialect, Given};
use crate::crashkernel::{Crashkernel, Facts, Value, default_value};
use crate::host::Tree;
use anyhow::Context;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Where the defaults are kept that there have been.
pub(super) const DEFAULTS: &str = "var/lib/kdump/crashkernel-defaults";

const UNIT: &str = "kdump.service";
/// How much more and how much less than this machine takes is right for SUSE's `auto`.
const MORE: u64 = 16 << 20;
const LESS: u64 = 4 << 20;

/// After the package was installed or upgraded.
pub(super) fn after_update(machine: &Machine, out: &mut dyn Write) -> anyhow::Result<()> {
    let defaults = Defaults::of(machine)?;
    bring_up_to_date(machine, &defaults, out)?;
    // Not before it is done: what failed is tried again the next time, and the first time is still the first.
    defaults.remember(&machine.tree)
}

fn bring_up_to_date(machine: &Machine, defaults: &Defaults, out: &mut dyn Write) -> anyhow::Result<()> {
    let config = Config::read(&machine.files)?;
    if !may_change(&machine.tree, &config) {
        if defaults.all.is_empty() {
            hint(machine, "", out)?;
        }
        return Ok(());
    }
    if follows_suse(&config) {
        return asked_for(machine, &config, out);
    }
    if defaults.all.is_empty() {
        return at_first(machine, defaults, out);
    }
    let older = defaults.older();
    if older.is_empty() {
        return Ok(());
    }
    let edit = defaults.edit().only(Only::Saying(older));
    change(machine, &Which::All, &edit, &defaults.now, out)
}

/// After the first installation: what says nothing yet gets the default.
fn at_first(machine: &Machine, defaults: &Defaults, out: &mut dyn Write) -> anyhow::Result<()> {
    if has_word(&machine.tree) {
        return Ok(());
    }
    let edit = defaults.edit().only(Only::Saying(vec![Vec::new()]));
    let plan = match bootloader::plan(&machine.tree, &Which::All, &edit) {
        Ok(plan) => plan,
        Err(error) => return hint(machine, &format!(": {error:#}"), out),
    };
    // As kdump-tools does it there, which knows of no other boot loader.
    let is_debian = Facts::of(&machine.tree).distribution.is_debian();
    if is_debian && !(plan.first.is_empty() && plan.changes.iter().all(is_of_grub)) {
        return hint(machine, "", out);
    }
    change(machine, &Which::All, &edit, &defaults.now, out)
}

/// Says what reserves memory, where nothing does.
fn hint(machine: &Machine, why: &str, out: &mut dyn Write) -> anyhow::Result<()> {
    if !has_word(&machine.tree) {
        writeln!(
            out,
            "No memory is reserved for a capture kernel{why}. Run `kdumpctl reset-crashkernel`, then reboot; kdump.service \
             has to be enabled"
        )?;
    }
    Ok(())
}

/// Whether the kernel that runs was asked to reserve memory, by whatever boots it. In a chroot, the kernel is that of another
/// system, so that only boot loaders can tell.
fn has_word(tree: &Tree) -> bool {
    if is_chroot(tree) {
        return false;
    }
    let line = tree.line("proc/cmdline").unwrap_or_default();
    line.split_whitespace().any(|word| word.starts_with("crashkernel="))
}

/// Whether the first process has another root than these files, of which /proc tells root alone.
fn is_chroot(tree: &Tree) -> bool {
    let of = |path: &Path| fs::metadata(path).ok().map(|root| (root.dev(), root.ino()));
    let first = of(&tree.path("proc/1/root"));
    first.is_some() && first != of(tree.root())
}

/// After a kernel of that release was installed.
pub(super) fn for_kernel(machine: &Machine, release: &str, out: &mut dyn Write) -> anyhow::Result<()> {
    let config = Config::read(&machine.files)?;
    if !may_change(&machine.tree, &config) {
        return Ok(());
    }
    if follows_suse(&config) {
        return asked_for(machine, &config, out);
    }
    let defaults = Defaults::of(machine)?;
    let which = Which::New(release.to_owned());
    let older = defaults.older();
    let or_none = [older.clone(), vec![Vec::new()]].concat();
    let mut edit = defaults.edit().only(Only::Saying(or_none));
    // Debian's first installation has put a file for it into grub.d, be it ours or that of kdump-tools. Where that is gone,
    // somebody took it away.
    let is_for_all = |plan: Plan| plan.changes.iter().any(is_of_grub);
    if Facts::of(&machine.tree).distribution.is_debian()
        && bootloader::plan(&machine.tree, &which, &edit).is_ok_and(is_for_all)
    {
        edit = defaults.edit().only(Only::Saying(older));
    }
    change(machine, &which, &edit, &defaults.now, out)
}

/// Whether it is of the files that GRUB makes all command lines of.
fn is_of_grub(change: &bootloader::Change) -> bool {
    change.path.starts_with("/etc/default")
}

/// At `start` and `rebuild`, which come out as they do whatever the boot loader says.
pub(super) fn at_start(machine: &Machine, out: &mut dyn Write) {
    let Ok(config) = Config::read(&machine.files) else { return };
    if is_off(&config) || !follows_suse(&config) {
        return;
    }
    if let Err(error) = asked_for(machine, &config, out) {
        log::warn!("cannot tell whether the boot loader's crashkernel= is what KDUMP_CRASHKERNEL asks for: {error:#}");
    }
}

/// Has the boot loader say what `KDUMP_CRASHKERNEL` asks for, or says what does that.
fn asked_for(machine: &Machine, config: &Config, out: &mut dyn Write) -> anyhow::Result<()> {
    let facts = Facts::of(&machine.tree);
    let asked: Crashkernel = match &config.system.crashkernel {
        Some(Given { value, origin }) => value.parse().with_context(|| format!("{origin}: KDUMP_CRASHKERNEL"))?,
        None => Crashkernel { words: vec![Value::Auto] },
    };
    if let Some(given) = &config.system.crashkernel {
        asked.check(facts.memory).with_context(|| format!("{}: KDUMP_CRASHKERNEL", given.origin))?;
    }
    let is_auto = asked.words.contains(&Value::Auto);
    let value = match is_auto {
        // Before there is an image there is nothing to measure.
        true => reset_crashkernel::fitting(machine, &asked).or_else(|_| default_value(&facts, Way::Kdump))?,
        false => asked,
    };
    let mut edit = Edit::default().set("crashkernel", &value.on_command_line());
    if let (true, Some(need)) = (is_auto, value.reserves(facts.memory)) {
        let (from, to) = (need.saturating_sub(LESS), need.saturating_add(MORE));
        edit = edit.only(Only::Reserving { memory: facts.memory, from, to });
    }
    if config.system.update_bootloader.as_ref().is_none_or(|given| given.value) {
        return change(machine, &Which::All, &edit, &value, out);
    }
    if !bootloader::plan(&machine.tree, &Which::All, &edit)?.is_settled() {
        log::warn!(
            "the boot loader does not have crashkernel={value}, which is asked for, and KDUMP_UPDATE_BOOTLOADER is not \
             true; run kdumpctl reset-crashkernel, which sets it"
        );
    }
    Ok(())
}

/// Does it, and says what will be.
fn change(
    machine: &Machine,
    which: &Which,
    edit: &Edit,
    value: &Crashkernel,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let plan = bootloader::plan(&machine.tree, which, edit)?;
    if plan.is_settled() {
        log::debug!("the boot loader stays as it is: {plan:?}");
        return Ok(());
    }
    plan.apply(&machine.tree)?;
    let Plan { changes, first, .. } = &plan;
    for path in changes.iter().map(|change| change.path.display()) {
        writeln!(out, "{path}: crashkernel={value} from the next boot on")?;
    }
    for words in first {
        writeln!(out, "{}: crashkernel={value} from the next boot on", words.get(1).unwrap_or(&"grubby".to_owned()))?;
    }
    Ok(())
}

/// Whether the boot loader may be changed by nobody's word.
fn may_change(tree: &Tree, config: &Config) -> bool {
    let forbidden = config.dump.auto_reset_crashkernel.as_ref().is_some_and(|given| !given.value);
    !forbidden && !is_off(config) && is_enabled(tree)
}

fn is_off(config: &Config) -> bool {
    config.system.enabled.as_ref().is_some_and(|enabled| !enabled.value)
}

/// Whether SUSE's words say what the boot loader has.
fn follows_suse(config: &Config) -> bool {
    let system = &config.system;
    config.dialect == Dialect::Suse || system.update_bootloader.is_some() || system.crashkernel.is_some()
}

/// Whether kdump.service is enabled: something wants it, and it is not masked.
fn is_enabled(tree: &Tree) -> bool {
    let masked = fs::read_link(tree.path("etc/systemd/system").join(UNIT)).is_ok_and(|to| to == Path::new("/dev/null"));
    let folders = ["etc/systemd/system", "usr/lib/systemd/system"].map(|folder| tree.path(folder));
    let mut entries = folders.iter().flat_map(fs::read_dir).flatten().flatten();
    !masked
        && entries.any(|entry| {
            let name = entry.file_name();
            let wants = name.to_str().is_some_and(|name| name.ends_with(".wants") || name.ends_with(".requires"));
            wants && entry.path().join(UNIT).is_symlink()
        })
}

/// The default now, and those that there have been, as text.
struct Defaults {
    now: Crashkernel,
    all: Vec<String>,
}

impl Defaults {
    fn of(machine: &Machine) -> anyhow::Result<Defaults> {
        let now = default_value(&Facts::of(&machine.tree), Way::Kdump)?;
        let text = machine.tree.line(DEFAULTS).unwrap_or_default();
        Ok(Defaults {
            now,
            all: text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect(),
        })
    }

    /// Notes the one that holds now, as the last.
    fn remember(&self, tree: &Tree) -> anyhow::Result<()> {
        let now = self.now.to_string();
        if self.all.last() == Some(&now) {
            return Ok(());
        }
        let lines = self.all.iter().filter(|line| **line != now).chain([&now]).map(|line| format!("{line}\n"));
        let path = tree.path(DEFAULTS);
        let write = |path: &Path, text: String| {
            path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, text))
        };
        write(&path, lines.collect())
            .with_context(|| format!("cannot note the default of crashkernel= in {}", path.display()))
    }

    /// The words of those that no longer hold.
    fn older(&self) -> Vec<Vec<String>> {
        let older =
            self.all.iter().filter_map(|line| line.parse::<Crashkernel>().ok()).filter(|value| *value != self.now);
        older.map(|value| value.on_command_line()).collect()
    }

    fn edit(&self) -> Edit {
        Edit::default().set("crashkernel", &self.now.on_command_line())
    }
}
