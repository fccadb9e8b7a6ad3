//! What forbids a load before it is tried, or explains a refusal afterwards.
//!
//! In: sysfs, securityfs and the firmware's variables. Out: facts; `None` or `false` where the kernel does not tell.

use crate::host::Tree;
use std::fs;

/// The firmware's variables on Secure Boot, with the GUID of all that the UEFI specification names.
const SECURE_BOOT: &str = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
const SETUP_MODE: &str = "sys/firmware/efi/efivars/SetupMode-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// How many more kernels may be loaded, since Linux 6.3. The one for crashes first, which is what mostly is loaded.
const LIMITS: [&str; 2] = [PANIC_LIMIT, "kexec_load_limit_reboot"];
/// That for kernels of a crash.
pub(crate) const PANIC_LIMIT: &str = "kexec_load_limit_panic";

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// `kernel.kexec_load_disabled`: no kernel is loaded until the next boot.
    pub load_disabled: bool,
    /// `kernel.kexec_load_limit_panic` or `_reboot`, whichever has come to 0 and allows no load until the next boot.
    pub spent: Option<&'static str>,
    /// The level of lockdown, if there is one: `integrity` or `confidentiality`.
    pub lockdown: Option<String>,
    /// The firmware boots signed kernels alone.
    pub secure_boot: bool,
    /// There is firmware whose keys a kernel takes: it is EFI's.
    pub firmware_has_keys: bool,
    /// The kernel line asks for a signature, Secure Boot or not.
    pub signatures_enforced: bool,
}

impl Guard {
    /// What is in force on a machine.
    pub fn of(tree: &Tree) -> Guard {
        let lockdown = tree.line("sys/kernel/security/lockdown").and_then(|line| {
            let level = line.split('[').nth(1)?.split(']').next()?.to_owned();
            (level != "none").then_some(level)
        });
        // Four bytes of attributes come before the value.
        let variable = |path| fs::read(tree.path(path)).ok().and_then(|bytes| bytes.get(4).copied());
        let firmware = variable(SECURE_BOOT) == Some(1) && variable(SETUP_MODE) != Some(1);
        let secure_ipl = tree.line("sys/firmware/ipl/secure").as_deref() == Some("1");
        Guard {
            load_disabled: tree.line("proc/sys/kernel/kexec_load_disabled").as_deref() == Some("1"),
            spent: LIMITS
                .into_iter()
                .find(|name| tree.line(&format!("proc/sys/kernel/{name}")).as_deref() == Some("0")),
            lockdown,
            secure_boot: firmware || secure_ipl,
            firmware_has_keys: tree.path("sys/firmware/efi").exists() || secure_ipl,
            signatures_enforced: has_option(tree, "CONFIG_KEXEC_SIG_FORCE"),
        }
    }

    /// Why kexec_load, which checks no signature, is not to be used; `None` if it may.
    pub fn forbids_unsigned(&self) -> Option<String> {
        match self {
            Guard { lockdown: Some(level), .. } => Some(format!("the kernel is locked down ({level})")),
            Guard { secure_boot: true, .. } => Some("Secure Boot is on".to_owned()),
            Guard { signatures_enforced: true, .. } => {
                Some("this kernel only loads signed kernels (CONFIG_KEXEC_SIG_FORCE)".to_owned())
            }
            _ => None,
        }
    }
}

fn has_option(tree: &Tree, option: &str) -> bool {
    let release = tree.line("proc/sys/kernel/osrelease").unwrap_or_default();
    let places = [format!("boot/config-{release}"), format!("lib/modules/{release}/config")];
    let text = places.iter().find_map(|place| fs::read_to_string(tree.path(place)).ok()).unwrap_or_default();
    text.lines().any(|line| line.strip_prefix(option) == Some("=y"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_force_is_read_off_the_machine() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path());
        assert_eq!(Guard::of(&tree), Guard::default());
        let write = |path: &str, bytes: &[u8]| {
            fs::create_dir_all(tree.path(path).parent().unwrap()).unwrap();
            fs::write(tree.path(path), bytes).unwrap();
        };
        write("sys/kernel/security/lockdown", b"[none] integrity confidentiality\n");
        write(SECURE_BOOT, &[6, 0, 0, 0, 1]);
        write(SETUP_MODE, &[6, 0, 0, 0, 1]);
        assert_eq!(Guard::of(&tree).forbids_unsigned(), None);
        write(SETUP_MODE, &[6, 0, 0, 0, 0]);
        assert_eq!(Guard::of(&tree).forbids_unsigned().unwrap(), "Secure Boot is on");
        assert!(Guard::of(&tree).firmware_has_keys);
        write("sys/kernel/security/lockdown", b"none [integrity] confidentiality\n");
        write("proc/sys/kernel/kexec_load_disabled", b"1\n");
        let guard = Guard::of(&tree);
        assert!(guard.load_disabled);
        assert_eq!(guard.spent, None);
        write("proc/sys/kernel/kexec_load_limit_panic", b"-1\n");
        write("proc/sys/kernel/kexec_load_limit_reboot", b"1\n");
        assert_eq!(Guard::of(&tree).spent, None);
        write("proc/sys/kernel/kexec_load_limit_panic", b"0\n");
        assert_eq!(Guard::of(&tree).spent, Some("kexec_load_limit_panic"));
        assert!(guard.forbids_unsigned().unwrap().contains("locked down (integrity)"));
    }

    #[test]
    fn a_kernel_that_was_built_for_signatures_alone_says_so_in_its_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path());
        for (path, text) in [("proc/sys/kernel/osrelease", "6.1\n"), ("boot/config-6.1", "CONFIG_KEXEC_SIG_FORCE=y\n")]
        {
            fs::create_dir_all(tree.path(path).parent().unwrap()).unwrap();
            fs::write(tree.path(path), text).unwrap();
        }
        assert!(Guard::of(&tree).forbids_unsigned().unwrap().contains("CONFIG_KEXEC_SIG_FORCE"));
    }
}
