//! kpatch against a kernel that plays every state of a live patch.

#![allow(clippy::unwrap_used)]

use clap::Parser;
use kdump_hooks::fake::{FakeKernel, FakePatch, UntilTold, object, object_of_build};
use kdump_hooks::livepatch::cli::{self, Kpatch};
use kdump_hooks::livepatch::{Task, name_of, overlay};
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// A machine with a store and a kernel.
struct Rehearsal {
    root: tempfile::TempDir,
    kernel: FakeKernel,
    /// What was said beside the output of the last command.
    remarks: String,
}

impl Rehearsal {
    fn new() -> Rehearsal {
        let kernel = FakeKernel { release: "6.1".into(), transition: Duration::from_secs(3), ..FakeKernel::default() };
        Rehearsal { root: tempfile::tempdir().unwrap(), kernel, remarks: String::new() }
    }

    /// Writes a patch module and gives its path.
    fn module(&self, name: &str, more: &[&str]) -> String {
        let name_line = format!("name={}", name.replace('-', "_"));
        let mut info = vec![name_line.as_str(), "livepatch=Y"];
        if !more.iter().any(|line| line.starts_with("vermagic=")) {
            info.push("vermagic=6.1 SMP mod_unload ");
        }
        info.extend(more);
        let path = self.root.path().join(format!("{name}.ko"));
        fs::write(&path, object(&info)).unwrap();
        path.display().to_string()
    }

    fn loaded(mut self, name: &str, enabled: bool, moving: Option<u64>) -> Rehearsal {
        let moving = moving.map(Duration::from_secs);
        self.kernel.patches.push(FakePatch { name: name.into(), enabled, moving, replaces: false });
        self.kernel.modules.insert(name.into());
        self
    }

    fn stuck(mut self, name: &str) -> Rehearsal {
        let task = Task {
            pid: 4711,
            name: "sleeper".into(),
            stack: vec!["schedule_timeout+0x1".into(), "patched+0x2".into()],
        };
        self.kernel.stuck.insert(name.into(), vec![task]);
        self
    }

    fn run(&mut self, words: &str) -> Result<String, String> {
        let mut remarks = Vec::new();
        let outcome = self.run_telling(words, &mut remarks);
        self.remarks = String::from_utf8(remarks).unwrap();
        outcome
    }

    /// As [`Rehearsal::run`], with the remarks to somebody who hears them as they come.
    fn run_telling(&mut self, words: &str, remarks: &mut dyn Write) -> Result<String, String> {
        let typed = Kpatch::try_parse_from(format!("kpatch {words}").split(' ')).map_err(|error| error.to_string())?;
        let mut out = Vec::new();
        let outcome = cli::run(&typed, self.root.path(), &mut self.kernel, &mut out, remarks);
        let out = String::from_utf8(out).unwrap();
        outcome.map(|()| out).map_err(|error| format!("{error:#}"))
    }

    fn states(&mut self) -> Vec<String> {
        let list = self.run("list").unwrap();
        list.lines().skip(1).take_while(|line| !line.is_empty()).map(str::to_owned).collect()
    }
}

#[test]
fn the_list_is_kpatch_s_own() {
    let mut empty = Rehearsal::new();
    let nothing = "Loaded patch modules:\n<NO_RESULT>\n\nInstalled patch modules:\n<NO_RESULT>\n";
    assert_eq!(empty.run("list").unwrap(), nothing);

    let mut full = Rehearsal::new().loaded("kpatch_5928799", true, None);
    let file = full.module("kpatch-5928799", &["vermagic=5.10.23-5.al8.x86_64 SMP mod_unload "]);
    full.run(&format!("install --kernel-version 5.10.23-5.al8.x86_64 {file}")).unwrap();
    assert_eq!(
        full.run("list").unwrap(),
        "Loaded patch modules:\nkpatch_5928799 [enabled]\n\n\
         Installed patch modules:\nkpatch_5928799 (5.10.23-5.al8.x86_64)\n"
    );
    let json: serde_json::Value = serde_json::from_str(&full.run("list --json").unwrap()).unwrap();
    assert_eq!(json["loaded"][0]["functions"][0], "vmlinux/cmdline_proc_show");
    assert_eq!(json["installed"][0]["kernel"], "5.10.23-5.al8.x86_64");
}

#[test]
fn a_kernel_without_live_patching_has_none_loaded_and_is_told_beside_the_list() {
    let mut machine = Rehearsal::new();
    machine.kernel.has_no_patching = true;
    let file = machine.module("p", &[]);
    machine.run(&format!("install {file}")).unwrap();
    let list = "Loaded patch modules:\n<NO_RESULT>\n\nInstalled patch modules:\np (6.1)\n";
    assert_eq!(machine.run("list").unwrap(), list);
    assert!(machine.remarks.contains("built without live patching"), "{}", machine.remarks);
    assert!(machine.run(&format!("load {file}")).unwrap_err().contains("built without live patching"));
}

#[test]
fn each_state_has_its_word() {
    let mut kernel = Rehearsal::new()
        .loaded("a", true, None)
        .loaded("b", false, None)
        .loaded("c", true, Some(9))
        .loaded("d", false, Some(9));
    assert_eq!(kernel.states(), ["a [enabled]", "b [disabled]", "c [enabling]", "d [disabling]"]);
}

#[test]
fn a_patch_is_loaded_by_file_or_installed_and_loaded_by_any_of_its_names() {
    let mut machine = Rehearsal::new();
    let file = machine.module("kpatch-one", &[]);
    assert!(machine.run(&format!("load {file}")).unwrap().ends_with("kpatch_one is enabled\n"));
    assert_eq!(machine.states(), ["kpatch_one [enabled]"]);
    assert!(machine.run(&format!("load {file}")).unwrap().contains("already enabled"));
    machine.run("unload kpatch-one").unwrap();
    assert_eq!(machine.states(), ["<NO_RESULT>"]);
    assert!(machine.kernel.modules.is_empty());

    machine.run(&format!("install {file}")).unwrap();
    machine.run("load kpatch_one").unwrap();
    let said = machine.run("uninstall kpatch-one.ko").unwrap();
    assert!(said.contains("stays so until the next reboot"), "{said}");
    assert_eq!(machine.states(), ["kpatch_one [enabled]"]);
    assert_eq!(name_of("/var/lib/kpatch/6.1/livepatch-v1.2.ko").as_str(), "livepatch_v1_2");
}

#[test]
fn all_installed_patches_are_loaded_though_one_is_refused_and_unloaded_from_the_top() {
    let mut machine = Rehearsal::new();
    for name in ["p1", "p2", "p3"] {
        let file = machine.module(name, &[]);
        machine.run(&format!("install {file}")).unwrap();
    }
    machine.kernel.refused.insert("p2".into(), "ENOEXEC: it was built for another kernel".into());
    let error = machine.run("load --all").unwrap_err();
    assert!(error.starts_with("p2: the kernel refuses") && error.contains("another kernel"), "{error}");
    assert_eq!(machine.states(), ["p1 [enabled]", "p3 [enabled]"]);
    machine.kernel.journal.clear();
    machine.run("unload --all").unwrap();
    assert_eq!(machine.states(), ["<NO_RESULT>"]);
    assert_eq!(machine.kernel.journal[0], "enabled of p3 = 0");
}

#[test]
fn before_5_1_only_the_top_patch_can_be_disabled_and_one_can_be_enabled_again() {
    let mut machine = Rehearsal::new().loaded("z", true, None).loaded("a", true, None);
    machine.kernel.is_old = true;
    assert!(machine.run("unload z").unwrap_err().contains("another patch lies above it"));
    machine.run("unload --all").unwrap();
    assert!(machine.kernel.patches.is_empty());

    let mut machine = Rehearsal::new().loaded("p", false, None);
    machine.kernel.is_old = true;
    let file = machine.module("p", &[]);
    machine.run(&format!("load {file}")).unwrap();
    assert_eq!(machine.kernel.journal, ["enabled of p = 1"]);
}

#[test]
fn a_patch_that_was_disabled_is_taken_out_and_put_in_again() {
    // Its module is still there, its directory below /sys/kernel/livepatch is not.
    let mut machine = Rehearsal::new();
    machine.kernel.modules.insert("p".into());
    let file = machine.module("p", &[]);
    machine.run(&format!("load {file}")).unwrap();
    assert_eq!(machine.kernel.journal, ["remove p", "insert p"]);
}

#[test]
fn a_module_that_is_no_live_patch_is_neither_unloaded_nor_taken_out_for_a_patch_of_its_name() {
    let mut machine = Rehearsal::new();
    for name in ["driver", "printk"] {
        let file = machine.module(name, &[]);
        machine.run(&format!("install {file}")).unwrap();
    }
    machine.kernel.modules.insert("driver".into());
    machine.kernel.drivers.insert("driver".into());
    machine.kernel.built_in.insert("printk".into());
    for (word, name, expected) in [
        ("unload", "driver", "the module driver that is loaded is no live patch, and is left alone"),
        ("load", "driver", "the module driver that is loaded is no live patch, and is left alone"),
        ("unload", "printk", "printk is no live patch, but a part of the kernel itself"),
        ("load", "printk", "printk is no live patch, but a part of the kernel itself"),
    ] {
        let error = machine.run(&format!("{word} {name}")).unwrap_err();
        assert!(error.contains(expected), "{word} {name}: {error}");
    }
    assert_eq!(machine.kernel.journal, [""; 0]);
}

#[test]
fn a_module_that_brings_no_patch_is_taken_out_again() {
    let mut machine = Rehearsal::new();
    machine.kernel.mute.insert("p".into());
    let file = machine.module("p", &[]);
    let error = machine.run(&format!("load {file}")).unwrap_err();
    assert_eq!(error, "p was loaded, but the kernel knows no patch of that name");
    assert_eq!(machine.kernel.journal, ["insert p", "remove p"]);
    assert!(machine.kernel.modules.is_empty());
}

#[test]
fn what_waiting_does_not_change_is_not_waited_for() {
    let mut machine = Rehearsal::new().loaded("p", true, None);
    machine.kernel.keeps.insert("p".into(), "EPERM: removing modules is not allowed".into());
    let error = machine.run("unload p").unwrap_err();
    assert!(error.starts_with("the kernel keeps the module of p: EPERM") && !error.contains("forced"), "{error}");
    assert_eq!(machine.kernel.journal, ["enabled of p = 0", "remove p"]);
}

#[test]
fn what_is_installed_is_loaded_by_the_service_unless_the_command_line_says_no() {
    let mut machine = Rehearsal::new();
    let units = machine.root.path().join("usr/lib/systemd/system");
    fs::create_dir_all(&units).unwrap();
    let file = machine.module("p", &[]);
    let said = machine.run(&format!("install {file}")).unwrap();
    assert!(said.starts_with("installing p (6.1)\n") && said.contains("there is no kpatch.service"), "{said}");
    machine.run("uninstall p").unwrap();

    for unit in ["kpatch.service", "kpatch-booted.service"] {
        fs::write(units.join(unit), "").unwrap();
    }
    assert!(machine.run(&format!("install {file}")).unwrap().contains("kpatch.service is enabled: "));
    let wanted = machine.root.path().join("etc/systemd/system/multi-user.target.wants/kpatch.service");
    assert!(wanted.is_symlink());

    machine.kernel.files.insert("/proc/cmdline".into(), "quiet kpatch.enable=0".into());
    assert!(machine.run("load --all").unwrap().contains("kpatch.enable=0"));
    assert_eq!(machine.states(), ["<NO_RESULT>"]);
    // Who asks for one by name has it.
    machine.run("load p").unwrap();
    assert_eq!(machine.states(), ["p [enabled]"]);

    let said = machine.run("uninstall p").unwrap();
    assert!(said.starts_with("uninstalling p (6.1)\n") && wanted.is_symlink(), "{said}");
}

#[test]
fn a_barred_patch_is_told_by_the_service_and_loaded_by_name_which_clears_it() {
    let mut machine = Rehearsal::new();
    let file = machine.module("bad", &[]);
    machine.run(&format!("install {file}")).unwrap();
    let digest = fs::read_to_string(machine.root.path().join("var/lib/kpatch/6.1/bad.ko.sha256")).unwrap();
    machine.kernel.firmware = Some(format!("bad {} 3\n", &digest[..16]));
    assert!(machine.run("list --json").unwrap().contains("\"barred\": true"));
    assert!(machine.run("list").unwrap().ends_with("Installed patch modules:\nbad (6.1)\n"));
    assert!(machine.remarks.contains("kpatch: bad is not loaded: the machine did not finish"), "{}", machine.remarks);
    let error = machine.run("load --all").unwrap_err();
    assert!(error.contains("did not finish its last 2 boots") && error.contains("`kpatch load bad`"), "{error}");
    assert_eq!(machine.states(), ["<NO_RESULT>"]);
    assert_eq!(machine.run("booted").unwrap(), "");
    assert!(machine.run("load --all").is_err());
    machine.run("load bad").unwrap();
    assert_eq!(machine.kernel.firmware.as_deref(), Some(""));
    machine.run("load --all").unwrap();
}

#[test]
fn a_finished_boot_clears_the_patches_that_it_was_made_with_and_an_uninstalled_one_is_forgotten() {
    let mut machine = Rehearsal::new().loaded("one", true, None);
    let file = machine.module("two", &[]);
    machine.run(&format!("install {file}")).unwrap();
    let digest = "0123456789abcdef";
    machine.kernel.firmware = Some(format!("one {digest} 2\ntwo {digest} 3\n"));
    assert!(machine.run("booted").unwrap().starts_with("one: the boot is finished with it"));
    assert_eq!(machine.kernel.firmware, Some(format!("two {digest} 3\n")));
    machine.run("uninstall two").unwrap();
    assert_eq!(machine.kernel.firmware.as_deref(), Some(""));
    assert_eq!(Rehearsal::new().run("booted").unwrap(), "", "a machine without a marker");
}

#[test]
fn what_grub_has_counted_is_not_on_the_account_of_a_patch_that_is_installed_later() {
    let mut machine = Rehearsal::new();
    let old = machine.module("old", &[]);
    machine.run(&format!("install {old}")).unwrap();
    // Two boots were not finished with it, and this one has not been yet.
    (machine.kernel.firmware, machine.kernel.counted) = (Some(String::new()), Some(3));
    let new = machine.module("new", &[]);
    machine.run(&format!("install {new}")).unwrap();
    assert_eq!(machine.kernel.counted, Some(0));
    let error = machine.run("load --all").unwrap_err();
    assert!(error.starts_with("old is not loaded: the machine did not finish") && !error.contains("new"), "{error}");
    assert_eq!(machine.states(), ["new [enabled]"]);
    machine.run("load old").unwrap();
    assert_eq!(machine.kernel.firmware.as_deref(), Some(""));

    // What is uninstalled takes its part of the count along.
    machine.run("uninstall new").unwrap();
    machine.kernel.counted = Some(2);
    machine.run("uninstall old").unwrap();
    assert_eq!((machine.kernel.firmware.as_deref(), machine.kernel.counted), (Some(""), Some(0)));
    // Where the count has begun anew already, nothing is written.
    machine.kernel.journal.clear();
    machine.run(&format!("install {new}")).unwrap();
    assert_eq!(machine.kernel.journal, [""; 0]);
}

#[test]
fn the_service_begins_an_account_where_no_image_did_and_something_notes_that_the_boot_is_finished() {
    let mut machine = Rehearsal::new();
    machine.kernel.firmware = Some(String::new());
    machine.kernel.refused.insert("refused".into(), "EINVAL".into());
    let units = machine.root.path().join("usr/lib/systemd/system");
    fs::create_dir_all(&units).unwrap();
    let install = |machine: &mut Rehearsal| {
        for name in ["p", "refused"] {
            let file = machine.module(name, &[]);
            machine.run(&format!("install {file}")).unwrap();
        }
    };
    let restart = |machine: &mut Rehearsal| {
        let _ = fs::remove_dir_all(machine.root.path().join("run/kpatch"));
        machine.kernel.patches.clear();
        machine.kernel.modules.clear();
    };
    install(&mut machine);
    machine.run("load --all").unwrap_err();
    assert_eq!(machine.kernel.firmware.as_deref(), Some(""), "nobody would ever close it");

    for unit in ["kpatch.service", "kpatch-booted.service"] {
        fs::write(units.join(unit), "").unwrap();
    }
    machine.run("uninstall p").unwrap();
    machine.run("uninstall refused").unwrap();
    install(&mut machine);
    for boot in 1..=3 {
        restart(&mut machine);
        let error = machine.run("load --all").unwrap_err();
        assert_eq!(error.contains("p is not loaded: the machine did not finish"), boot > 2, "boot {boot}: {error}");
        let account = machine.kernel.firmware.clone().unwrap();
        assert!(account.starts_with("p ") && account.ends_with(&format!(" {boot}\n")), "{account:?}");
        assert!(account.lines().count() == 1, "what was refused is not blamed: {account:?}");
        // Once a boot is enough.
        machine.run("load --all").unwrap_err();
        assert_eq!(machine.kernel.firmware, Some(account));
    }
    machine.run("load p").unwrap();
    restart(&mut machine);
    machine.run("load --all").unwrap_err();
    assert!(machine.run("booted").unwrap().starts_with("p: the boot is finished with it"));
    machine.run("unload p").unwrap();
    machine.run("load --all").unwrap_err();
    assert_eq!(machine.kernel.firmware.as_deref(), Some(""), "that boot is finished");
}

#[test]
fn no_patch_is_loaded_in_a_capture_kernel() {
    let mut machine = Rehearsal::new();
    machine.kernel.is_capture = true;
    let file = machine.module("p", &[]);
    assert!(machine.run(&format!("load {file}")).unwrap_err().contains("this is a capture kernel"));
    assert_eq!(machine.states(), ["<NO_RESULT>"]);
}

#[test]
fn a_stalled_transition_is_reversed_and_the_task_named() {
    let mut machine = Rehearsal::new().stuck("p");
    let file = machine.module("p", &[]);
    let error = machine.run(&format!("load --timeout 20 {file}")).unwrap_err();
    assert!(error.contains("p was not enabled; its transition has been reversed"), "{error}");
    assert!(error.contains("not done within 20 s") && error.contains("sleeper (pid 4711)"), "{error}");
    assert!(error.contains("patched+0x2"), "{error}");
    assert_eq!(machine.states(), ["<NO_RESULT>"]);
    assert!(machine.kernel.modules.is_empty());
}

#[test]
fn who_gives_up_early_has_the_transition_reversed_all_the_same() {
    let mut machine = Rehearsal::new();
    let file = machine.module("p", &[]);
    assert!(machine.run(&format!("load --timeout 0 {file}")).unwrap_err().contains("invalid value '0'"));
    let error = machine.run(&format!("load --timeout 1 {file}")).unwrap_err();
    assert!(error.contains("p was not enabled; its transition has been reversed"), "{error}");
    assert!(error.contains("not done within 1 s") && machine.kernel.modules.is_empty(), "{error}");

    let mut machine = Rehearsal::new().loaded("slow", true, Some(5));
    machine.kernel.transition = Duration::ZERO;
    machine.run(&format!("load --timeout 1 {file}")).unwrap();
    assert_eq!(machine.states(), ["slow [enabled]", "p [enabled]"]);
}

#[test]
fn a_signal_in_a_transition_has_it_reversed_and_nothing_else_begun() {
    let mut machine = Rehearsal::new().stuck("p");
    machine.kernel.signal_at = Some(Duration::from_secs(2));
    let file = machine.module("p", &[]);
    let error = machine.run(&format!("load --force {file}")).unwrap_err();
    assert!(error.contains("p was not enabled; its transition has been reversed"), "{error}");
    assert!(error.contains("SIGTERM came before the transition of p was done; it is held up by"), "{error}");
    assert_eq!((machine.states(), machine.kernel.modules.len()), (vec!["<NO_RESULT>".to_owned()], 0));

    let mut machine = Rehearsal::new();
    for name in ["p1", "p2", "p3"] {
        let file = machine.module(name, &[]);
        machine.run(&format!("install {file}")).unwrap();
    }
    machine.kernel.signal_at = Some(Duration::from_secs(4));
    let error = machine.run("load --all").unwrap_err();
    assert!(error.starts_with("p2: p2 was not enabled") && error.ends_with("p3: SIGTERM came before it was loaded"));
    assert_eq!(machine.states(), ["p1 [enabled]"]);

    // One that cannot be had back may be enabled after all: whoever loads all later knows when.
    let mut machine = Rehearsal::new().stuck("p");
    (machine.kernel.irreversible, machine.kernel.signal_at) = (true, Some(Duration::from_secs(2)));
    assert!(machine.run(&format!("load {file}")).unwrap_err().contains("cannot be had back"));
    assert_eq!(fs::read_to_string(machine.root.path().join("run/kpatch/loaded")).unwrap(), "p\n");

    let mut machine = Rehearsal::new().loaded("p", true, None).loaded("q", true, None);
    machine.kernel.signal_at = Some(Duration::from_secs(2));
    let error = machine.run("unload --all").unwrap_err();
    assert!(error.contains("q was not disabled; its transition has been reversed"), "{error}");
    assert!(error.ends_with("p: SIGTERM came before it was unloaded"), "{error}");
    assert_eq!(machine.states(), ["p [enabled]", "q [enabled]"]);
}

#[test]
fn the_time_that_it_takes_to_look_at_all_tasks_counts() {
    let mut machine = Rehearsal::new().stuck("p");
    machine.kernel.look = Duration::from_secs(7);
    let file = machine.module("p", &[]);
    machine.run(&format!("load --timeout 20 {file}")).unwrap_err();
    // Three looks and a last one, and the way back.
    assert!(machine.kernel.clock < Duration::from_secs(40), "{:?}", machine.kernel.clock);
}

#[test]
fn what_cannot_be_reversed_is_said_and_a_forced_transition_ends() {
    let mut machine = Rehearsal::new().stuck("p");
    machine.kernel.irreversible = true;
    let file = machine.module("p", &[]);
    let error = machine.run(&format!("load {file}")).unwrap_err();
    assert!(error.contains("cannot be had back") && !error.contains("forced"), "{error}");
    assert!(!machine.kernel.journal.contains(&"remove p".to_owned()), "it is in use");

    let mut machine = Rehearsal::new().stuck("p");
    let file = machine.module("p", &[]);
    machine.run(&format!("load --force {file}")).unwrap();
    assert_eq!(machine.states(), ["p [enabled]"]);
    assert!(machine.kernel.journal.contains(&"force of p = 1".to_owned()));
}

#[test]
fn an_unloading_that_stalls_is_reversed_or_forced_and_then_the_module_stays() {
    let stalled = || {
        let mut machine = Rehearsal::new().loaded("p", true, None).stuck("p");
        machine.kernel.stuck_inside = true;
        machine
    };
    let mut machine = stalled();
    let error = machine.run("unload --timeout 20 p").unwrap_err();
    assert!(error.contains("p was not disabled; its transition has been reversed"), "{error}");
    assert!(error.contains("not done within 20 s") && error.contains("sleeper (pid 4711)"), "{error}");
    assert_eq!(machine.states(), ["p [enabled]"]);

    let mut machine = stalled();
    let said = machine.run("unload --force p").unwrap();
    assert!(said.contains("forcing the transition of p"), "{said}");
    assert!(
        said.ends_with("p is disabled; its module stays until the reboot, as its transition was forced\n"),
        "{said}"
    );
    assert_eq!(machine.states(), ["<NO_RESULT>"]);
    assert!(machine.kernel.modules.contains("p"));
    // It cannot be had back before that.
    let file = machine.module("p", &[]);
    let error = machine.run(&format!("load {file}")).unwrap_err();
    assert!(error.contains("if a transition of it was forced, it stays so until the reboot"), "{error}");
    machine.kernel.stuck.clear();
    let other = machine.module("other", &[]);
    machine.run(&format!("load {other}")).unwrap();
    machine.run("unload --force other").unwrap();
    assert!(!machine.kernel.modules.contains("other"), "what did not stall is taken out");
}

#[test]
fn the_module_of_a_replaced_patch_is_taken_out_unless_it_was_replaced_by_force() {
    let mut machine = Rehearsal::new().loaded("old", true, None);
    let file = machine.module("new", &["replace=Y"]);
    let said = machine.run(&format!("load {file}")).unwrap();
    assert!(said.contains("unloading patch module: old\n"), "{said}");
    assert_eq!(machine.kernel.modules.iter().collect::<Vec<_>>(), ["new"]);

    let mut machine = Rehearsal::new().loaded("old", true, None).stuck("new");
    let said = machine.run(&format!("load --force {file}")).unwrap();
    assert!(said.contains("old has been replaced, and its module stays until the reboot: EAGAIN"), "{said}");
    assert_eq!(machine.states(), ["new [enabled]"]);
    assert_eq!(machine.kernel.modules.iter().collect::<Vec<_>>(), ["new", "old"]);
}

#[test]
fn tasks_are_nudged_where_the_kernel_leaves_that_to_us() {
    let mut machine = Rehearsal::new().stuck("p");
    machine.kernel.is_old = true;
    let file = machine.module("p", &[]);
    machine.run(&format!("load {file}")).unwrap();
    assert!(machine.kernel.journal.contains(&"signal of p = 1".to_owned()));

    let mut settled = Rehearsal::new().loaded("p", true, None);
    assert_eq!(settled.run("signal").unwrap(), "no patch is in transition\n");
    let mut moving = Rehearsal::new().loaded("p", true, Some(9));
    assert!(moving.run("signal").unwrap().contains("by itself"));
}

#[test]
fn another_patch_in_transition_is_waited_for() {
    let mut machine = Rehearsal::new().loaded("slow", true, Some(5));
    let file = machine.module("p", &[]);
    let said = machine.run(&format!("load {file}")).unwrap();
    assert!(said.contains("waiting for the transition of slow"), "{said}");
    assert_eq!(machine.states(), ["slow [enabled]", "p [enabled]"]);
}

#[test]
fn a_kernel_that_is_busy_is_asked_again_but_not_for_ever() {
    let mut machine = Rehearsal::new();
    machine.kernel.busy = 4;
    let file = machine.module("p", &[]);
    let said = machine.run(&format!("load {file}")).unwrap();
    assert!(said.contains("p: EBUSY") && said.contains("once more in 2 s"), "{said}");
    assert_eq!(machine.states(), ["p [enabled]"]);
    machine.kernel.busy = 5;
    let file = machine.module("q", &[]);
    assert!(machine.run(&format!("load {file}")).unwrap_err().contains("EBUSY"));
}

#[test]
fn what_is_uninstalled_for_another_kernel_changes_nothing_of_the_running_one() {
    let mut machine = Rehearsal::new();
    let file = machine.module("p", &[]);
    machine.run(&format!("install {file}")).unwrap();
    machine.run("load p").unwrap();
    let other = machine.module("p", &["vermagic=6.2 SMP"]);
    machine.run(&format!("install -k 6.2 {other}")).unwrap();
    let sum = |machine: &Rehearsal, release: &str| {
        let file = machine.root.path().join(format!("var/lib/kpatch/{release}/p.ko.sha256"));
        fs::read_to_string(file).unwrap()[..16].to_owned()
    };
    let (ours, theirs) = (sum(&machine, "6.1"), sum(&machine, "6.2"));
    machine.kernel.firmware = Some(format!("p {ours} 1\np {theirs} 3\n"));
    let said = machine.run("uninstall -k 6.2 p").unwrap();
    assert_eq!(said, "uninstalling p (6.2)\n");
    assert_eq!(machine.kernel.firmware, Some(format!("p {ours} 1\n")));
    assert!(machine.run("uninstall p").unwrap().contains("stays so until the next reboot"));
    assert_eq!(machine.kernel.firmware.as_deref(), Some(""));
}

#[test]
fn a_patch_that_was_being_disabled_is_had_back() {
    let mut machine = Rehearsal::new().loaded("p", false, Some(9));
    let file = machine.module("p", &[]);
    machine.run(&format!("load {file}")).unwrap();
    assert_eq!(machine.states(), ["p [enabled]"]);
    assert_eq!(machine.kernel.journal, ["enabled of p = 1"]);
}

#[test]
fn a_patch_that_replaces_the_others_says_which() {
    let mut machine = Rehearsal::new().loaded("old", true, None);
    let file = machine.module("new", &["replace=Y"]);
    assert!(machine.run(&format!("load {file}")).unwrap().ends_with("new is enabled and has replaced old\n"));
    assert_eq!(machine.states(), ["new [enabled]"]);
}

#[test]
fn what_has_been_replaced_is_not_put_above_its_successor_by_loading_all_once_more() {
    let mut machine = Rehearsal::new();
    for (name, more) in [("p1", &[][..]), ("p2", &["replace=Y"][..]), ("p3", &[][..])] {
        let file = machine.module(name, more);
        machine.run(&format!("install {file}")).unwrap();
    }
    machine.run("load --all").unwrap();
    assert_eq!(machine.states(), ["p2 [enabled]", "p3 [enabled]"]);
    let said = machine.run("load --all").unwrap();
    assert!(said.contains("p1 has been loaded, and p2 after it, which has replaced it"), "{said}");
    assert_eq!(machine.states(), ["p2 [enabled]", "p3 [enabled]"]);
    // Once nothing is above it, it is loaded as at the first time.
    machine.run("unload --all").unwrap();
    machine.run("load --all").unwrap();
    assert_eq!(machine.states(), ["p2 [enabled]", "p3 [enabled]"]);
    machine.run("unload p2").unwrap();
    machine.run("unload p3").unwrap();
    machine.run("load p1").unwrap();
    assert_eq!(machine.states(), ["p1 [enabled]"]);
}

#[test]
fn a_patch_that_was_loaded_by_hand_is_known_to_have_replaced_the_installed_ones() {
    let mut machine = Rehearsal::new();
    let old = machine.module("old", &[]);
    machine.run(&format!("install {old}")).unwrap();
    machine.run("load old").unwrap();
    let cumulative = machine.module("cumulative", &["replace=Y"]);
    machine.run(&format!("load {cumulative}")).unwrap();
    // As `systemctl restart kpatch` does.
    let said = machine.run("load --all").unwrap();
    assert!(said.contains("old has been loaded, and cumulative after it, which has replaced it"), "{said}");
    assert_eq!(machine.states(), ["cumulative [enabled]"]);

    // One that was unloaded by hand has been replaced by none.
    let mut machine = Rehearsal::new();
    for name in ["a", "b"] {
        let file = machine.module(name, &[]);
        machine.run(&format!("install {file}")).unwrap();
    }
    machine.run("load --all").unwrap();
    machine.run("unload a").unwrap();
    machine.run("load --all").unwrap();
    assert_eq!(machine.states(), ["b [enabled]", "a [enabled]"]);
}

#[test]
fn patches_are_loaded_in_the_order_of_installing_and_those_of_packages_before_them_by_version() {
    let mut machine = Rehearsal::new();
    let newest = |machine: &mut Rehearsal| {
        machine.kernel.patches.clear();
        machine.run("load --all").unwrap();
        machine.states()
    };
    for name in ["kpatch-cum-v9", "kpatch-cum-v10"] {
        let file = machine.module(name, &["replace=Y"]);
        machine.run(&format!("install {file}")).unwrap();
    }
    assert_eq!(newest(&mut machine), ["kpatch_cum_v10 [enabled]"]);
    // Whoever installs the older one again wants it.
    machine.run("uninstall kpatch-cum-v9").unwrap();
    let file = machine.module("kpatch-cum-v9", &["replace=Y"]);
    machine.run(&format!("install {file}")).unwrap();
    assert_eq!(newest(&mut machine), ["kpatch_cum_v9 [enabled]"]);
    // A note is of the directory only as long as there is something in it.
    machine.run("uninstall kpatch-cum-v9").unwrap();
    machine.run("uninstall kpatch-cum-v10").unwrap();
    let store = machine.root.path().join("var/lib/kpatch/6.1");
    assert!(!store.exists());

    fs::create_dir_all(&store).unwrap();
    for name in ["cum-v10", "cum-v9"] {
        fs::copy(machine.module(name, &["replace=Y"]), store.join(format!("{name}.ko"))).unwrap();
    }
    assert_eq!(newest(&mut machine), ["cum_v10 [enabled]"]);
    let file = machine.module("a-hotfix", &[]);
    machine.run(&format!("install {file}")).unwrap();
    assert_eq!(newest(&mut machine), ["cum_v10 [enabled]", "a_hotfix [enabled]"]);
}

#[test]
fn a_patch_of_that_name_is_enabled_already_only_if_it_is_that_very_build_for_this_kernel() {
    let ours = ["name=p", "livepatch=Y", "vermagic=6.1 SMP"];
    let foreign = ["name=p", "livepatch=Y", "vermagic=6.2 SMP"];
    let sources = |version: &'static str| ["name=p", "livepatch=Y", "vermagic=6.1 SMP", version];
    let (one, two) = (sources("srcversion=1"), sources("srcversion=2"));
    let another = "another build of p is loaded";
    // What is loaded, what is then asked for, and what is said of that.
    for (loaded, asked, expected) in [
        (object_of_build(&ours, b"\x04note 1"), object_of_build(&ours, b"\x04note 1"), Ok("p is already enabled")),
        (object_of_build(&ours, b"\x04note 1"), object_of_build(&ours, b"\x04note 2"), Err(another)),
        // Sources say nothing where there are notes.
        (object_of_build(&one, b"\x04note 1"), object_of_build(&two, b"\x04note 1"), Ok("p is already enabled")),
        (object(&one), object(&one), Ok("p is already enabled")),
        (object(&one), object(&two), Err(another)),
        (object(&ours), object(&two), Ok("p is already enabled")),
        (object(&ours), object(&foreign), Err("built for kernel 6.2, and 6.1 is running")),
    ] {
        let mut machine = Rehearsal::new();
        let file = machine.root.path().join("p.ko");
        let words = format!("load {}", file.display());
        fs::write(&file, loaded).unwrap();
        machine.run(&words).unwrap();
        fs::write(&file, asked).unwrap();
        let said = machine.run(&words);
        match expected {
            Ok(expected) => assert!(said.unwrap().contains(expected)),
            Err(expected) => assert!(said.unwrap_err().contains(expected), "{expected}"),
        }
        assert_eq!(machine.states(), ["p [enabled]"]);
    }

    // Before 5.1 one that is disabled makes room for the other build.
    let mut machine = Rehearsal::new().loaded("p", false, None);
    machine.kernel.is_old = true;
    machine.kernel.files.insert("/sys/module/p/srcversion".into(), "1".into());
    let file = machine.module("p", &["srcversion=2"]);
    machine.run(&format!("load {file}")).unwrap();
    assert_eq!(machine.kernel.journal, ["remove p", "insert p"]);
}

#[test]
fn what_the_kernel_would_refuse_is_refused_before_it_is_asked() {
    let mut machine = Rehearsal::new();
    let file = machine.module("p", &["vermagic=6.2 SMP"]);
    let error = machine.run(&format!("load {file}")).unwrap_err();
    assert!(error.contains("built for kernel 6.2, and 6.1 is running"), "{error}");

    for (path, text) in [
        ("/sys/module/module/parameters/sig_enforce", "Y"),
        ("/sys/kernel/security/lockdown", "none [integrity] confidentiality"),
    ] {
        let mut machine = Rehearsal::new();
        let has = |path: &str, text: &str| (PathBuf::from(path), text.to_owned());
        machine.kernel.files.extend([has("/sys/module/module/parameters/sig_enforce", "N"), has(path, text)]);
        let file = machine.module("p", &[]);
        assert!(machine.run(&format!("load {file}")).unwrap_err().contains("has no signature"));
        assert_eq!(machine.kernel.journal, [""; 0]);
    }

    let mut machine = Rehearsal::new();
    let file = machine.module("p", &[]);
    machine.run(&format!("install {file}")).unwrap();
    let stored = machine.root.path().join("var/lib/kpatch/6.1/p.ko");
    let mut content = fs::read(&stored).unwrap();
    content.push(b'!');
    fs::write(&stored, content).unwrap();
    assert!(machine.run("load p").unwrap_err().contains("changed or is damaged"));
}

#[test]
fn what_is_typed_wrongly_is_answered_with_all_that_can_be_typed() {
    let mut machine = Rehearsal::new();
    for words in ["load", "unload"] {
        assert!(machine.run(words).unwrap_err().contains("NAME|--all>"), "{:?}", machine.run(words));
        assert!(machine.run(&format!("{words} p --all")).unwrap_err().contains("cannot be used with"));
    }
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(machine.run("version").unwrap(), format!("{version}\n"));
    assert_eq!(machine.run("--version").unwrap_err(), format!("kpatch {version}\n"));
    let file = machine.module("p", &[]);
    assert!(machine.run(&format!("install {file}")).unwrap().starts_with("installing p (6.1)\n"));
    assert!(machine.run(&format!("install {file}")).unwrap_err().starts_with("p is already installed"));
}

#[test]
fn names_that_are_nowhere_are_told_with_the_command_that_lists_them() {
    let mut machine = Rehearsal::new();
    for words in ["load nothing", "unload nothing", "info nothing", "uninstall nothing"] {
        assert!(machine.run(words).unwrap_err().contains("kpatch list"), "{words}");
    }
}

#[test]
fn a_patch_for_another_kernel_is_shown_too_and_where_it_is_looked_for_in_vain_its_kernels_are_named() {
    let mut machine = Rehearsal::new();
    let install = |machine: &mut Rehearsal, release: &str| {
        let file = machine.module("p", &[&format!("vermagic={release} SMP")]);
        machine.run(&format!("install -k {release} {file}")).unwrap()
    };
    let said = install(&mut machine, "6.2");
    assert!(said.contains("p: whether kernel 6.2 accepts its signature is only known when it runs"), "{said}");
    assert!(machine.run("info p").unwrap().contains("vermagic:       6.2 SMP"));
    let error = machine.run("load p").unwrap_err();
    assert!(error.starts_with("no patch p is installed for kernel 6.1") && error.contains(", but for 6.2;"), "{error}");
    install(&mut machine, "6.3");
    assert!(machine.run("info p").unwrap_err().contains(", but for 6.2 and 6.3;"));
    assert!(machine.run("info -k 6.3 p").unwrap().contains("vermagic:       6.3 SMP"));
    assert!(!install(&mut machine, "6.1").contains("only known"));
    assert!(machine.run("info p").unwrap().contains("vermagic:       6.1 SMP"));
}

#[test]
fn information_is_laid_out_as_modinfo_does() {
    let mut machine = Rehearsal::new();
    let file = machine.module("p", &["description=one"]);
    let info = machine.run(&format!("info {file}")).unwrap();
    assert!(info.starts_with("Patch information for p:\nfilename:       /"), "{info}");
    assert!(info.contains("\ndescription:    one\n") && info.contains("\nlivepatch:      Y\n"), "{info}");
}

#[test]
fn an_image_that_could_not_be_written_is_written_by_the_same_command_once_more() {
    let mut machine = Rehearsal::new();
    let boot = machine.root.path().join("boot");
    let (image, in_the_way) = (boot.join("normal.img"), boot.join(".normal.img.kpatch/full"));
    fs::create_dir(&boot).unwrap();
    let empty = overlay::archive("6.1", &[]).unwrap();
    fs::write(&image, &empty).unwrap();
    let has_patch = || fs::read(&image).unwrap().len() > empty.len();
    let file = machine.module("one", &[]);
    for (command, installs, done) in
        [(format!("install {file}"), true, "is already installed"), ("uninstall one".into(), false, "no patch one is")]
    {
        // It cannot be removed.
        fs::create_dir_all(&in_the_way).unwrap();
        let error = machine.run(&command).unwrap_err();
        assert!(error.contains("cannot write the live patches into") && error.contains("once more"), "{error}");
        let error = machine.run(&command).unwrap_err();
        assert!(error.contains(done) && error.contains("goes on loading those from before"), "{error}");
        assert_eq!(has_patch(), !installs);
        fs::remove_dir_all(boot.join(".normal.img.kpatch")).unwrap();
        let said = machine.run(&command).unwrap();
        assert!(said.contains("updated the live patches in") && said.contains(done), "{said}");
        assert_eq!(has_patch(), installs);
        assert!(machine.run(&command).unwrap_err().starts_with(if installs { "one is" } else { done }));
    }
}

#[test]
fn who_installs_a_patch_into_an_image_is_told_where_nothing_counts_the_boots() {
    for (firmware, image, expected) in [(None, true, true), (None, false, false), (Some(String::new()), true, false)] {
        let mut machine = Rehearsal::new();
        machine.kernel.firmware = firmware.clone();
        if image {
            let boot = machine.root.path().join("boot");
            fs::create_dir(&boot).unwrap();
            fs::write(boot.join("normal.img"), overlay::archive("6.1", &[]).unwrap()).unwrap();
        }
        let file = machine.module("one", &[]);
        let said = machine.run(&format!("install {file}")).unwrap();
        assert_eq!(said.contains("update-grub has it do so"), expected, "{firmware:?} {image}: {said}");
        assert_eq!(said.contains("whether kpatch.service is enabled or not"), image, "{said}");
    }
}

#[test]
fn a_second_kpatch_waits_for_the_first_unless_it_only_looks_or_nudges() {
    let mut machine = Rehearsal::new().loaded("a", true, None);
    let file = machine.module("p", &[]);
    machine.run(&format!("install {file}")).unwrap();
    assert_eq!(machine.remarks, "", "nobody was in the way");
    for words in [format!("load {file}"), "unload p".into(), "uninstall p".into(), format!("install {file}")] {
        let first = fs::File::options().write(true).open(machine.root.path().join("run/kpatch.lock")).unwrap();
        first.lock().unwrap();
        machine.states();
        machine.run("signal").unwrap();
        machine.run(&format!("info {file}")).unwrap();
        let mut told = UntilTold::holding(first);
        machine.run_telling(&words, &mut told).unwrap();
        assert_eq!(told.text, "Another kpatch is at work, waiting for it to end\n", "{words}");
    }
}
