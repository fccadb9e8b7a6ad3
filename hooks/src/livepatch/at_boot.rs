//! The hook that loads live patches in a normal boot, before the drivers: those at the end of the image.
//!
//! *Into the image*: what the guard's marker needs, and a place at its end for the installed patches ([`super::overlay`]).
//! *At boot*: every installed patch is loaded as `kpatch load --all` does it, once the modules are known and before the
//! first driver is; there are so few tasks then that a transition is over at once.
//! May surprise: what is refused or passed over stops nothing, and kpatch.service tells it once more. `kpatch.enable=0` on
//! the kernel command line passes over all. Nothing of this is ever done in a capture kernel.

use super::actions::Actions;
use super::store::Store;
use super::transition::Limits;
use super::trust::by_marker;
use super::variable;
use crate::host::{Contribution, Host, ModuleNeed};
use crate::machine::{Machine, MountPlan};
use crate::{Hook, Moment, Next, Stage};
use log::{debug, info};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// There is hardly a task that could hold a transition up.
const TRANSITION: Duration = Duration::from_secs(15);

/// Its file system.
const EFIVARFS: &str = "efivarfs";

/// Live patches are loaded before the drivers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AtBoot {}

impl Hook for AtBoot {
    fn name(&self) -> &'static str {
        "livepatch"
    }

    fn gather(&self, _host: &dyn Host) -> anyhow::Result<Contribution> {
        let modules = vec![ModuleNeed {
            request: EFIVARFS.to_owned(),
            reason: "the guard of the live patches keeps its marker there".to_owned(),
            required: false,
            by_device: false,
        }];
        Ok(Contribution { modules, ..Contribution::default() })
    }

    fn stages(&self) -> &'static [Stage] {
        &[Stage::Modules]
    }

    fn act(&self, _moment: &Moment, machine: &mut dyn Machine) -> anyhow::Result<Next> {
        load(Path::new("/"), machine)?;
        Ok(Next::GoOn)
    }
}

/// Loads what is installed below `root`.
fn load(root: &Path, machine: &mut dyn Machine) -> anyhow::Result<()> {
    // The firmware says so before the file system is there.
    if machine.ask_kernel(Path::new("/sys/firmware/efi/fw_platform_size")).is_ok() {
        if let Err(error) = machine.load_module(EFIVARFS) {
            debug!("{error:#}");
        }
        let plan = MountPlan {
            source: EFIVARFS.into(),
            point: variable::DIRECTORY.into(),
            fstype: EFIVARFS.into(),
            options: ["nosuid", "nodev", "noexec"].map(str::to_owned).into(),
        };
        if let Err(error) = machine.mount(&plan) {
            debug!("{error:#}");
        }
    }
    let mut tell = |line: &str| info!("livepatch: {line}");
    let limits = Limits { transition: TRANSITION, ..Limits::default() };
    let store = Store::below(root);
    let kernel = machine.live_patches();
    Actions { kernel, store, limits, force: false, judge: &by_marker, tell: &mut tell }.load_at_boot()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeKernel, FakeMachine, object};
    use crate::livepatch::Identity;
    use std::fs;

    /// A machine with EFI and an image that has these patches.
    fn booting(names: &[&str]) -> (tempfile::TempDir, FakeMachine) {
        let root = tempfile::tempdir().unwrap();
        for name in names {
            let file = root.path().join(format!("{name}.ko"));
            fs::write(&file, object(&[&format!("name={name}"), "livepatch=Y", "vermagic=6.1 SMP"])).unwrap();
            Store::below(root.path()).install(&Identity::read(&file).unwrap(), "6.1").unwrap();
        }
        let live = FakeKernel { release: "6.1".into(), firmware: Some(String::new()), ..FakeKernel::default() };
        let files = [("/sys/firmware/efi/fw_platform_size".into(), "64".into())].into();
        (root, FakeMachine { files, live, ..FakeMachine::default() })
    }

    /// The same machine after a restart.
    fn restart(machine: &FakeMachine) -> FakeMachine {
        let live = FakeKernel { patches: Vec::new(), modules: [].into(), journal: Vec::new(), ..machine.live.clone() };
        FakeMachine { live, journal: Vec::new(), ..machine.clone() }
    }

    #[test]
    fn the_marker_is_written_before_the_first_patch_is_loaded() {
        let (root, mut machine) = booting(&["a", "b"]);
        load(root.path(), &mut machine).unwrap();
        assert_eq!(machine.journal[0], "load efivarfs");
        assert!(machine.journal[1].starts_with("mount efivarfs /sys/firmware/efi/efivars efivarfs"));
        let journal = &machine.live.journal;
        assert!(journal[0].starts_with("remember a ") && journal[0].contains("\nb "), "{journal:?}");
        assert_eq!(journal[1..], ["insert a", "insert b"]);
    }

    #[test]
    fn a_patch_with_which_two_boots_were_not_finished_is_passed_over_and_one_that_is_refused_is_not_blamed() {
        let (root, mut machine) = booting(&["bad", "refused"]);
        machine.live.refused.insert("refused".into(), "EKEYREJECTED".into());
        for boot in 1..=4 {
            machine = restart(&machine);
            let error = format!("{:#}", load(root.path(), &mut machine).unwrap_err());
            assert!(error.contains("refused: the kernel refuses"), "{error}");
            assert_eq!(machine.live.journal.contains(&"insert bad".to_owned()), boot <= 2, "boot {boot}");
            assert_eq!(error.contains("did not finish its last 2 boots"), boot > 2, "boot {boot}: {error}");
        }
    }

    #[test]
    fn where_grub_counts_nothing_is_written_and_the_third_boot_passes_over_what_two_did_not_survive() {
        let (root, mut machine) = booting(&["bad"]);
        machine.files.clear();
        for boot in 1..=3 {
            machine = restart(&machine);
            machine.live.counted = machine.live.counted.map_or(Some(1), |boots| Some(boots + 1));
            let loaded = load(root.path(), &mut machine);
            let expected: &[&str] = if boot <= 2 { &["insert bad"] } else { &[] };
            assert_eq!(machine.live.journal, expected, "boot {boot}");
            assert_eq!(loaded.is_err(), boot > 2);
        }
        // That boot is finished: the patch stays barred while the count begins anew, until it is loaded by name.
        let act = |machine: &mut FakeMachine, what: &dyn Fn(&mut Actions<'_>)| {
            let (limits, store) = (Limits::default(), Store::below(root.path()));
            let kernel = machine.live_patches();
            what(&mut Actions { kernel, store, limits, force: false, judge: &by_marker, tell: &mut |_| {} });
        };
        act(&mut machine, &|actions| assert!(actions.boot_is_finished().unwrap().is_empty()));
        assert_eq!(machine.live.counted, Some(0));
        machine = restart(&machine);
        machine.live.counted = Some(1);
        assert!(load(root.path(), &mut machine).unwrap_err().to_string().contains("did not finish its last 2 boots"));
        act(&mut machine, &|actions| actions.forget(&"bad".into()).unwrap());
        machine = restart(&machine);
        machine.live.counted = Some(1);
        load(root.path(), &mut machine).unwrap();
        act(&mut machine, &|actions| assert_eq!(actions.boot_is_finished().unwrap(), ["bad".into()]));
        assert_eq!((machine.live.firmware.as_deref(), machine.live.counted), (Some(""), Some(0)));
    }

    #[test]
    fn without_a_place_for_the_marker_patches_are_loaded_and_it_is_told() {
        let (root, mut machine) = booting(&["a"]);
        (machine.live.firmware, machine.files) = (None, [].into());
        let error = load(root.path(), &mut machine).unwrap_err().to_string();
        assert!(error.contains("no place for its marker") && error.contains("kpatch.enable=0"), "{error}");
        assert_eq!(machine.live.journal.last().unwrap(), "insert a");
        assert!(machine.journal.is_empty());
    }

    #[test]
    fn nothing_is_loaded_or_marked_where_it_is_switched_off_or_a_crash_is_dumped() {
        let (root, mut machine) = booting(&["a"]);
        machine.live.files.insert("/proc/cmdline".into(), "quiet kpatch.enable=0".into());
        load(root.path(), &mut machine).unwrap();
        assert!(machine.live.journal.is_empty() && machine.live.firmware == Some(String::new()));
        let (root, mut machine) = booting(&["a"]);
        machine.live.is_capture = true;
        let error = format!("{:#}", load(root.path(), &mut machine).unwrap_err());
        assert!(error.contains("this is a capture kernel"), "{error}");
        assert!(machine.live.patches.is_empty());
    }
}
