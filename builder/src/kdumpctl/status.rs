//! Whether a capture kernel is loaded, whether one can be, and everything else that there is to know.

mod report;

use super::{Machine, kernel, reach, start};
use crate::cli::Way;
use crate::config::Config;
use crate::crashkernel::{Facts, default_value};
use crate::host::Tree;
use crate::kexec::Guard;
use crate::kexec::guard::PANIC_LIMIT;
use anyhow::bail;
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// The exit of `kdumpctl status` if no capture kernel is loaded.
const NOT_OPERATIONAL: u8 = 3;

/// Says whether a capture kernel is loaded.
pub(super) fn run(machine: &Machine, verbose: bool, json: bool, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let is_loaded = is_loaded(&machine.tree);
    match json {
        true => {
            let mut report = serde_json::to_value(report::of(machine))?;
            if verbose {
                report["asked"] = asked(reach::of(machine, Duration::ZERO));
            }
            writeln!(out, "{report:#}")?;
        }
        false => {
            writeln!(out, "Kdump is {}operational", if is_loaded { "" } else { "not " })?;
            if verbose {
                report::of(machine).say(out)?;
                for (target, answer) in reach::of(machine, Duration::ZERO) {
                    let said = answer.map_or_else(
                        |error| format!("no dump would get there: {error:#}"),
                        |()| "it lets us in".into(),
                    );
                    writeln!(out, "{:<14} {target}: {said}", "Asked:")?;
                }
            } else if let Some(line) = report::last_test(machine) {
                writeln!(out, "{line}")?;
            }
        }
    }
    if is_loaded {
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(reason) = obstacle(machine) {
        log::warn!("{reason}");
    }
    Ok(ExitCode::from(NOT_OPERATIONAL))
}

/// What the machines that dumps go to say, one by one.
fn asked(answers: Vec<reach::Answer>) -> serde_json::Value {
    let told = |(target, answer): reach::Answer| {
        let error = answer.as_ref().err().map(|error| format!("{error:#}"));
        json!({ "target": target.to_string(), "ok": answer.is_ok(), "error": error })
    };
    answers.into_iter().map(told).collect()
}

/// Why no capture kernel could be loaded, by the kernel that runs or by the configuration.
fn obstacle(machine: &Machine) -> Option<String> {
    let configured = || {
        let config = Config::read(&machine.files)?;
        start::switched_on(&config)?;
        kernel::find(&machine.tree, &config.system).map(drop)
    };
    let asked = feasible(&machine.tree).and_then(|()| may_load(&machine.tree)).and_then(|()| configured());
    asked.err().map(|error| format!("{error:#}"))
}

/// Whether the kernel says that a capture kernel is loaded.
pub(super) fn is_loaded(tree: &Tree) -> bool {
    fact(tree, "loaded").as_deref() == Some("1")
}

/// How many bytes are reserved.
pub(super) fn reserved(tree: &Tree) -> u64 {
    fact(tree, "size").and_then(|size| size.parse().ok()).unwrap_or(0)
}

/// Whether loading is not switched off until the next boot.
///
/// # Errors
/// It is.
pub(super) fn may_load(tree: &Tree) -> anyhow::Result<()> {
    let guard = Guard::of(tree);
    if guard.load_disabled {
        bail!(
            "kernel.kexec_load_disabled is 1: no capture kernel can be loaded until the next boot; start kdump before it is set"
        );
    }
    if guard.spent == Some(PANIC_LIMIT) {
        bail!(
            "kernel.{PANIC_LIMIT} is 0: no capture kernel can be loaded until the next boot; raise it where it is set, in \
             /etc/sysctl.d"
        );
    }
    Ok(())
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
    if reserved(tree) == 0 {
        let asked = tree.line("proc/cmdline").unwrap_or_default();
        let default = default_value(&Facts::of(tree), Way::Kdump).map(|value| value.to_string()).unwrap_or_default();
        match asked.split_whitespace().find(|word| word.starts_with("crashkernel=")) {
            Some(word) => bail!(
                "No memory reserved for crash kernel, though {word} is on the kernel command line: it fits nowhere, or this \
                 machine has less memory than it is for; see `dmesg | grep -i crashkernel`, or set another value with \
                 `kdumpctl reset-crashkernel 256M` and reboot."
            ),
            None => bail!(
                "No memory reserved for crash kernel. Put crashkernel=256M on the kernel command line and reboot. `kdumpctl \
                 reset-crashkernel` does it with crashkernel={default}"
            ),
        }
    }
    Ok(())
}

/// A file that is called `kexec_crash_X` in older kernels and `kexec/crash_X` in newer ones.
fn fact(tree: &Tree, name: &str) -> Option<String> {
    tree.line(&format!("sys/kernel/kexec_crash_{name}"))
        .or_else(|| tree.line(&format!("sys/kernel/kexec/crash_{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Files;
    use crate::fake::FakeSystem;
    use crate::kexec::fake::FakeKexec;

    #[test]
    fn a_machine_without_kdump_says_why_whatever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let system = FakeSystem::new(dir.path()).unwrap();
        let (tree, kexec) = (Tree::new(dir.path()), FakeKexec::default());
        let files = Files::new(dir.path(), None, None);
        let machine = Machine { tree, files, programs: None, kexec: &kexec };
        assert_eq!(obstacle(&machine), None);
        for (path, text, reason) in [
            ("etc/kdump.conf", "nonsense", "etc/kdump.conf:1: there is no directive `nonsense`"),
            ("etc/kdump/kdump.toml", "enabled = false", "kdump is switched off: "),
            ("etc/kdump/kdump.toml", "[kernel]\nboot_dir = \"/x\"", "say where it is: boot_dir and name of [kernel]"),
            ("proc/sys/kernel/kexec_load_limit_panic", "0\n", "kernel.kexec_load_limit_panic is 0"),
            ("sys/kernel/kexec_crash_size", "0\n", "No memory reserved for crash kernel"),
        ] {
            system.write(path, text.as_bytes()).unwrap();
            let said = obstacle(&machine).unwrap_or_default();
            assert!(said.contains(reason), "{text}: {said}");
        }
    }

    #[test]
    fn without_any_configuration_all_that_could_be_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = format!("{:#}", Config::read(&Files::new(dir.path(), None, None)).unwrap_err());
        for name in ["kdump/kdump.toml,", "kdump.conf,", "sysconfig/kdump,", "default/kdump-tools;", "an empty /"] {
            assert!(error.contains(name), "{error}");
        }
    }
}
