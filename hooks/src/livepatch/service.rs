//! `kpatch.service`, which loads the installed patches at boot, and its companion that notes when a boot is finished.
//!
//! In: the root of a machine. Out: the links by which systemd wants them at the next boot, as `systemctl enable` makes
//! them. May surprise: the companion is enabled on its own, and stays so when `kpatch.service` is disabled, because an image
//! that brings patches along loads them all the same. No systemctl is run, so that it is the same in a chroot and for a system that is not running; a
//! unit that is masked stays so, and one that was disabled is enabled again by the next `kpatch install`.

use anyhow::Context;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::Path;

/// The one that loads patches.
pub const SERVICE: &str = "kpatch.service";
/// The one that notes that the boot is finished.
pub const BOOTED: &str = "kpatch-booted.service";

/// Where packages put units, and where the administrator's are.
const UNITS: [&str; 3] = ["etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];
/// What wants them.
const WANTS: &str = "etc/systemd/system/multi-user.target.wants";

/// How a unit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// There is no such unit.
    Missing,
    /// The administrator wants it never to be started.
    Masked,
    /// It is there, and nothing wants it.
    Disabled,
    /// It is started at each boot.
    Enabled,
}

/// How a unit of the machine below `root` stands.
pub fn state(root: &Path, unit: &str) -> Unit {
    let is_mask = |file: &Path| fs::read_link(file).is_ok_and(|target| target == Path::new("/dev/null"));
    match UNITS.map(|directory| root.join(directory).join(unit)).iter().find(|file| file.symlink_metadata().is_ok()) {
        None => Unit::Missing,
        Some(file) if is_mask(file) => Unit::Masked,
        Some(_) if root.join(WANTS).join(unit).symlink_metadata().is_ok() => Unit::Enabled,
        Some(_) => Unit::Disabled,
    }
}

/// Whether something notes on the machine below `root` that a boot was finished: the companion, which the service wants.
pub fn notes_boots(root: &Path) -> bool {
    match state(root, BOOTED) {
        Unit::Enabled => true,
        Unit::Disabled => state(root, SERVICE) == Unit::Enabled,
        Unit::Missing | Unit::Masked => false,
    }
}

/// Enables both units, as far as they are there; how the first one stands then, and whether it stood otherwise before.
///
/// # Errors
/// A link cannot be made.
pub fn enable(root: &Path) -> anyhow::Result<(Unit, bool)> {
    let before = state(root, SERVICE);
    for unit in [SERVICE, BOOTED].into_iter().filter(|unit| state(root, unit) == Unit::Disabled) {
        let wants = root.join(WANTS);
        fs::create_dir_all(&wants).with_context(|| format!("cannot make {}", wants.display()))?;
        let directory = UNITS.iter().find(|directory| root.join(directory).join(unit).is_file());
        let target = Path::new("/").join(directory.unwrap_or(&UNITS[1])).join(unit);
        match symlink(&target, wants.join(unit)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("cannot enable {unit} in {}", wants.display()));
            }
            _ => {}
        }
    }
    let now = state(root, SERVICE);
    Ok((now, now != before))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(units: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join(UNITS[0])).unwrap();
        fs::create_dir_all(root.path().join(UNITS[1])).unwrap();
        for unit in units {
            fs::write(root.path().join(UNITS[1]).join(unit), "").unwrap();
        }
        root
    }

    #[test]
    fn both_units_are_enabled_as_systemctl_does_it_and_only_once() {
        let root = machine(&[SERVICE, BOOTED]);
        assert_eq!(enable(root.path()).unwrap(), (Unit::Enabled, true));
        for unit in [SERVICE, BOOTED] {
            let link = fs::read_link(root.path().join(WANTS).join(unit)).unwrap();
            assert_eq!(link, Path::new("/usr/lib/systemd/system").join(unit));
        }
        assert_eq!(enable(root.path()).unwrap(), (Unit::Enabled, false));
    }

    #[test]
    fn a_masked_unit_stays_so_and_a_missing_one_is_told() {
        let root = machine(&[SERVICE, BOOTED]);
        symlink("/dev/null", root.path().join(UNITS[0]).join(SERVICE)).unwrap();
        assert_eq!(enable(root.path()).unwrap(), (Unit::Masked, false));
        assert_eq!(enable(machine(&[]).path()).unwrap(), (Unit::Missing, false));
    }

    #[test]
    fn what_the_units_run_and_when_they_do_not_is_what_kpatch_knows() {
        let units = [include_str!("../../systemd/kpatch.service"), include_str!("../../systemd/kpatch-booted.service")];
        for (text, words) in units.iter().zip(["load --all", "booted"]) {
            let line = text.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/sbin/")).unwrap();
            assert_eq!(line, format!("kpatch {words}"));
            let typed = <crate::livepatch::cli::Kpatch as clap::Parser>::try_parse_from(line.split(' '));
            assert!(typed.is_ok(), "{line}");
            assert!(text.contains("WantedBy=multi-user.target") && text.contains("ConditionPathExists=!/proc/vmcore"));
        }
        assert!(units[0].contains("ConditionKernelCommandLine=!kpatch.enable=0"));
        // Who disables the one has the other go on clearing the count of an image that loads patches.
        assert!(
            units.iter().all(|text| !text.contains("Also=")) && units[0].contains("\nWants=kpatch-booted.service\n")
        );
    }
}
