//! What a kernel does about modules that it cannot trust.
//!
//! In: its configuration, the running kernel's policy, the firmware's secure boot. Out: [`Policy`].
//! May surprise: a capture kernel is started on the same machine with the same firmware, so what holds for the running
//! kernel is taken to hold for it.

use super::read;
use crate::host::{SystemHost, kernel};
use kdump_hooks::cmdline::Cmdline;
use kdump_hooks::signatures::{Policy, is_secure_boot, locked_down, platform_counts};

/// Of the kernel that an image is for; of a machine that is not here nothing can be said.
pub(super) fn policy(host: &SystemHost, cmdline: &Cmdline) -> Option<Policy> {
    let tree = &host.tree;
    if !tree.path("sys/module").is_dir() {
        return None;
    }
    let line = |path: &str| tree.line(path);
    let config = kernel::config_of(tree, &host.kernel.release, &host.kernel.modules_dir);
    let has = |option: &str| config.as_ref().map(|config| config.has(option));
    let is_running = tree.line("proc/sys/kernel/osrelease").as_deref() == Some(&host.kernel.release);
    let running = is_running.then(|| Policy::running(&line));
    let checks = match &running {
        Some(running) => running.checks,
        None => has("CONFIG_MODULE_SIG").unwrap_or(true),
    };
    let theirs = Cmdline::parse(&tree.line("proc/cmdline").unwrap_or_default());
    // A running kernel that tells whether it is locked down knows better than the firmware.
    let is_silent = running.is_none() || locked_down(&line).is_none();
    let enforced = if has("CONFIG_MODULE_SIG_FORCE") == Some(true) {
        Some("module.sig_enforce")
    } else if [cmdline, &theirs].iter().any(|cmdline| enforces(cmdline)) {
        Some("module.sig_enforce on its command line")
    } else {
        (is_silent && is_secure_boot(&read(tree))).then_some("secure boot, under which it is locked down")
    };
    let enforced = running.and_then(|running| running.enforced).or_else(|| enforced.map(str::to_owned));
    Some(Policy { checks, enforced, platform: platform_counts(&line) })
}

fn enforces(cmdline: &Cmdline) -> bool {
    let last = cmdline.options().filter(|(name, _)| *name == "module.sig_enforce").last();
    last.is_some_and(|(_, value)| value.is_none_or(|value| matches!(value, "1" | "y" | "Y" | "on")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Kernel, Tree};
    use std::fs;

    fn told(files: &[(&str, &str)], append: &str) -> Option<Policy> {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path());
        let own = [("lib/modules/6.1/modules.dep", ""), ("proc/sys/kernel/osrelease", "6.1\n")];
        for (path, text) in own.iter().chain(files) {
            let path = tree.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let kernel = Kernel::find(&tree, Some("6.1"), None).unwrap();
        policy(&SystemHost::new(tree, kernel).unwrap(), &Cmdline::parse(append))
    }

    const SIG_ENFORCE: &str = "sys/module/module/parameters/sig_enforce";
    const LOCKDOWN: &str = "sys/kernel/security/lockdown";

    #[test]
    fn whatever_enforces_signatures_is_named() {
        let lax = (SIG_ENFORCE, "N\n");
        for (files, append, expected) in [
            (&[lax][..], "", None),
            (&[lax, (LOCKDOWN, "[none] integrity confidentiality\n")], "", None),
            (&[(SIG_ENFORCE, "Y\n")], "", Some("module.sig_enforce")),
            (&[lax, ("boot/config-6.1", "CONFIG_MODULE_SIG_FORCE=y\n")], "", Some("module.sig_enforce")),
            (&[lax], "module.sig_enforce=1", Some("module.sig_enforce on its command line")),
            (&[lax], "module.sig_enforce=0", None),
            (
                &[lax, ("proc/cmdline", "quiet module.sig_enforce\n")],
                "",
                Some("module.sig_enforce on its command line"),
            ),
            (&[lax, (LOCKDOWN, "none [integrity] confidentiality\n")], "", Some("lockdown")),
        ] {
            let policy = told(files, append).unwrap();
            assert!(policy.checks);
            assert_eq!(policy.enforced.as_deref(), expected, "{files:?}");
        }
        let file = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
        let secure = told(&[lax, (file, "\x06\0\0\0\x01")], "").unwrap();
        assert!(secure.enforced.unwrap().starts_with("secure boot"));
    }

    #[test]
    fn a_kernel_without_signatures_checks_none_and_of_a_strange_machine_nothing_is_said() {
        assert!(!told(&[("sys/module/loop/initstate", "live")], "").unwrap().checks);
        assert_eq!(told(&[], ""), None);
    }
}
