//! What a kernel does about modules that it cannot trust.
//!
//! In: its configuration, the running kernel's parameters and lockdown, the firmware's secure boot. Out: [`Policy`].
//! May surprise: a capture kernel is started on the same machine with the same firmware, so what holds for the running
//! kernel is taken to hold for it.

use super::keys::is_secure_boot;
use crate::host::{SystemHost, Tree, kernel};
use kdump_hooks::cmdline::Cmdline;

const SIG_ENFORCE: &str = "sys/module/module/parameters/sig_enforce";
const LOCKDOWN: &str = "sys/kernel/security/lockdown";

/// Distributions whose kernels trust modules by the firmware's keys as well (`ID` and `ID_LIKE` of os-release).
const PLATFORM_COUNTS: [&str; 4] = ["debian", "rhel", "fedora", "suse"];

/// What a kernel does about modules that it cannot trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether it looks at signatures at all.
    pub checks: bool,
    /// What makes it refuse what it cannot trust, if anything does; else it is tainted.
    pub enforced: Option<String>,
    /// Whether keys of the firmware count.
    pub platform: bool,
}

impl Policy {
    /// Of the kernel that an image is for; of a machine that is not here nothing can be said.
    pub fn of(host: &SystemHost, cmdline: &Cmdline) -> Option<Policy> {
        let tree = &host.tree;
        if !tree.path("sys/module").is_dir() {
            return None;
        }
        let config = kernel::config_of(tree, &host.kernel.release, &host.kernel.modules_dir);
        let has = |option: &str| config.as_ref().map(|config| config.has(option));
        let is_running = tree.line("proc/sys/kernel/osrelease").as_deref() == Some(&host.kernel.release);
        let parameter = tree.line(SIG_ENFORCE).filter(|_| is_running);
        let checks = match is_running {
            // The parameter is there where signatures are.
            true => parameter.is_some(),
            false => has("CONFIG_MODULE_SIG").unwrap_or(true),
        };
        let theirs = Cmdline::parse(&tree.line("proc/cmdline").unwrap_or_default());
        let enforced = if parameter.as_deref() == Some("Y") || has("CONFIG_MODULE_SIG_FORCE") == Some(true) {
            Some("module.sig_enforce")
        } else if [cmdline, &theirs].iter().any(|cmdline| enforces(cmdline)) {
            Some("module.sig_enforce on its command line")
        } else {
            lockdown(tree, is_running)
        };
        Some(Policy { checks, enforced: enforced.map(str::to_owned), platform: platform_counts(tree) })
    }
}

fn enforces(cmdline: &Cmdline) -> bool {
    let last = cmdline.options().filter(|(name, _)| *name == "module.sig_enforce").last();
    last.is_some_and(|(_, value)| value.is_none_or(|value| matches!(value, "1" | "y" | "Y" | "on")))
}

/// A kernel that is locked down takes no module that it cannot trust.
fn lockdown(tree: &Tree, is_running: bool) -> Option<&'static str> {
    let told = tree.line(LOCKDOWN).filter(|_| is_running);
    match told {
        Some(text) => (text.contains("[integrity]") || text.contains("[confidentiality]")).then_some("lockdown"),
        None => is_secure_boot(tree).then_some("secure boot, under which it is locked down"),
    }
}

fn platform_counts(tree: &Tree) -> bool {
    let text = tree.line("etc/os-release").unwrap_or_default();
    let values = text.lines().filter_map(|line| line.strip_prefix("ID=").or(line.strip_prefix("ID_LIKE=")));
    let mut words = values.flat_map(|value| value.split(['"', ' ']));
    words.any(|word| PLATFORM_COUNTS.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Kernel;
    use std::fs;

    fn policy(files: &[(&str, &str)], append: &str) -> Option<Policy> {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path());
        let own = [("lib/modules/6.1/modules.dep", ""), ("proc/sys/kernel/osrelease", "6.1\n")];
        for (path, text) in own.iter().chain(files) {
            let path = tree.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let kernel = Kernel::find(&tree, Some("6.1"), None).unwrap();
        Policy::of(&SystemHost::new(tree, kernel).unwrap(), &Cmdline::parse(append))
    }

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
            let policy = policy(files, append).unwrap();
            assert!(policy.checks);
            assert_eq!(policy.enforced.as_deref(), expected, "{files:?}");
        }
        let file = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
        let secure = policy(&[lax, (file, "\x06\0\0\0\x01")], "").unwrap();
        assert!(secure.enforced.unwrap().starts_with("secure boot"));
    }

    #[test]
    fn a_kernel_without_signatures_checks_none_and_of_a_strange_machine_nothing_is_said() {
        assert!(!policy(&[("sys/module/loop/initstate", "live")], "").unwrap().checks);
        assert_eq!(policy(&[], ""), None);
    }

    #[test]
    fn keys_of_the_firmware_count_where_the_distribution_s_kernel_has_it_so() {
        for (text, expected) in
            [("ID=debian\n", true), ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", true), ("ID=arch\n", false)]
        {
            let policy = policy(&[(SIG_ENFORCE, "N\n"), ("etc/os-release", text)], "").unwrap();
            assert_eq!(policy.platform, expected, "{text}");
        }
    }
}
