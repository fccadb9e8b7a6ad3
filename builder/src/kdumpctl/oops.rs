//! `kernel.panic_on_oops`: without it most bugs of a kernel kill the process that met them, and leave no dump.
//!
//! In: the configuration, and where it says nothing, whose it is: Debian's and SUSE's scripts set it whenever they have
//! loaded a capture kernel, RHEL's leave it to sysctl. Out: the setting, once there is a kernel that takes the dump.
//!
//! May surprise: nothing takes it back, not unloading either, as there.

use crate::config::{Config, Dialect};
use crate::crashkernel::Facts;
use crate::host::Tree;
use std::fs;

const SETTING: &str = "proc/sys/kernel/panic_on_oops";

/// Has every oops be a panic, if that is wanted. A dump of what panics anyway is better than none, so a refusal is told and
/// no more.
pub(super) fn make_a_panic(tree: &Tree, config: &Config) {
    if !is_wanted(tree, config) || is_one(tree) != Some(false) {
        return;
    }
    match fs::write(tree.path(SETTING), "1\n") {
        Ok(()) => log::info!("kernel.panic_on_oops is 1 now, so that there is a dump of an oops"),
        Err(error) => log::warn!("there is no dump of an oops: kernel.panic_on_oops cannot be set to 1: {error}"),
    }
}

/// Whether an oops is a panic now, if the kernel says.
pub(super) fn is_one(tree: &Tree) -> Option<bool> {
    tree.line(SETTING).map(|value| value != "0")
}

fn is_wanted(tree: &Tree, config: &Config) -> bool {
    config.system.panic_on_oops.as_ref().map_or_else(|| is_usual(tree, config.dialect), |given| given.value)
}

fn is_usual(tree: &Tree, dialect: Dialect) -> bool {
    let distribution = || Facts::of(tree).distribution;
    match dialect {
        Dialect::Debian | Dialect::Suse => true,
        Dialect::Rhel => false,
        Dialect::Native => distribution().is_debian() || distribution().is_suse(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Given;
    use crate::fake;

    #[test]
    fn an_oops_is_a_panic_where_the_distribution_or_the_administrator_has_it_so() {
        use Dialect::{Debian, Native, Rhel, Suse};
        let cases = [
            (Debian, "debian", None, "1\n"),
            (Suse, "opensuse-leap", None, "1\n"),
            (Rhel, "fedora", None, "0\n"),
            (Native, "debian", None, "1\n"),
            (Native, "sles", None, "1\n"),
            (Native, "rhel", None, "0\n"),
            (Native, "rhel", Some(true), "1\n"),
            (Debian, "debian", Some(false), "0\n"),
        ];
        for (dialect, id, said, value) in cases {
            let (_dir, tree) = fake::tree(&[("etc/os-release", &format!("ID={id}\n")), (SETTING, "0\n")]).unwrap();
            let mut config = Config { dialect, ..Config::default() };
            config.system.panic_on_oops = said.map(Given::default);
            make_a_panic(&tree, &config);
            assert_eq!(fs::read_to_string(tree.path(SETTING)).unwrap(), value, "{dialect:?} {id} {said:?}");
        }
    }

    #[test]
    fn a_kernel_without_the_setting_gets_no_such_file() {
        let (_dir, tree) = fake::tree(&[("proc/cmdline", "")]).unwrap();
        make_a_panic(&tree, &Config { dialect: Dialect::Debian, ..Config::default() });
        assert!(!tree.path(SETTING).exists());
    }
}
