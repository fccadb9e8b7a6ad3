//! The words of `kdumpctl` beside start and stop, on a machine made of files.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use clap::{CommandFactory, Parser};
use common::Machine;
use kdump_builder::cli::Kdumpctl;
use kdump_builder::fake::RELEASE;
use kdump_hooks::fake::{UntilTold, unified_image};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;
use std::process::ExitCode;

impl Machine {
    fn run(&self, words: &str) -> (anyhow::Result<ExitCode>, String) {
        self.kdumpctl(words.split(' '))
    }

    fn says(&self, words: &str) -> String {
        let (result, out) = self.run(words);
        assert_eq!(result.unwrap(), ExitCode::SUCCESS, "{words}: {out}");
        out
    }

    /// Has the root, which holds `/var/crash`, on a disk that the machine shows.
    fn holds_dumps(&self) {
        self.write("etc/kdump.conf", "path /var/crash\n");
        self.write("proc/self/mountinfo", "1 0 8:1 / / rw - ext4 /dev/vda1 rw\n");
        self.write("sys/class/block/vda1/dev", "8:1\n");
        self.write("dev/vda1", "");
    }

    fn json(&self, words: &str) -> Value {
        serde_json::from_str(&self.run(words).1).unwrap()
    }

    fn fails(&self, words: &str) -> String {
        format!("{:#}", self.run(words).0.unwrap_err())
    }

    fn write(&self, path: &str, text: &str) {
        self.system.write(path, text.as_bytes()).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.system.root.join(path)).unwrap()
    }

    fn journal(&self) -> Vec<String> {
        std::mem::take(&mut *self.kexec.journal.borrow_mut())
    }

    /// A dump as the capture environment leaves it.
    fn dump(&self, name: &str, outcome: &str, log: &str) {
        let core = "core";
        let sha256: String = Sha256::digest(core).iter().map(|byte| format!("{byte:02x}")).collect();
        let status = format!(
            "{{\"outcome\":\"{outcome}\",\"capture_kernel\":\"6.1\",\"stages\":[{{\"name\":\"early\",\"seconds\":0.5,\
             \"outcome\":\"ok\"}}],\"vmcore\":{{\"panic_line\":\"Kernel panic - not syncing: x\",\"bytes\":4}},\
             \"files\":[{{\"name\":\"vmcore\",\"bytes\":4,\"sha256\":\"{sha256}\"}}]}}"
        );
        for (file, text) in [("vmcore", core), ("vmcore-dmesg.txt", log), ("status.json", &status)] {
            self.write(&format!("var/crash/{name}/{file}"), text);
        }
    }
}

#[test]
fn the_definitions_of_all_words_hold_together() {
    Kdumpctl::command().debug_assert();
    let help = Kdumpctl::command().render_long_help().to_string();
    for word in [
        "start",
        "stop",
        "restart",
        "reload",
        "rebuild",
        "status",
        "propagate",
        "showmem",
        "estimate",
        "get-default-crashkernel",
        "reset-crashkernel",
        "test",
        "rehearse",
        "dumps",
        "kexec",
        "recover",
    ] {
        assert!(help.contains(&format!("  {word} ")), "{word}: {help}");
    }
    let offered = Kdumpctl::offered();
    offered.clone().debug_assert();
    assert!(
        offered.find_subcommand("recover").is_some() && offered.get_arguments().any(|arg| arg.get_id() == "sysroot")
    );
    assert!(Kdumpctl::command().find_subcommand("_notify").is_some(), "systemd asks for it");
    for hidden in ["_notify", "generator", "setup-crypttab", "_reset-crashkernel-after-update"] {
        assert!(offered.find_subcommand(hidden).is_none() && !help.contains(hidden), "{hidden}: {help}");
    }
    assert!(help.starts_with("Loads, unloads and reports the capture kernel"), "{help}");
    for (word, about) in [("status", "Say whether a capture kernel is loaded"), ("showmem", "Say how much memory")] {
        let mut command = Kdumpctl::command();
        let help = command.find_subcommand_mut(word).unwrap().render_long_help().to_string();
        assert!(help.starts_with(about), "{help}");
    }
}

#[test]
fn a_value_that_the_kernel_would_misread_is_refused_with_what_to_write_instead() {
    let error = Kdumpctl::try_parse_from(["kdumpctl", "reset-crashkernel", "1.5G"]).unwrap_err().to_string();
    assert!(error.contains("write 1536M"), "{error}");
}

#[test]
fn what_takes_the_place_of_setup_crypttab_is_said() {
    let error = Machine::new().fails("setup-crypttab");
    assert!(error.contains("/etc/crypttab") && error.contains("link-volume-key=@u::%logon:"), "{error}");
}

#[test]
fn restart_unloads_and_loads_and_says_both() {
    let machine = Machine::new();
    assert_eq!(machine.says("restart").lines().filter(|line| line.ends_with("[OK]")).count(), 2);
    let journal = machine.journal();
    assert_eq!((journal.len(), journal[0].as_str()), (2, "unload"));
    assert!(journal[1].starts_with("load kernel "));
}

#[test]
fn reload_takes_what_was_loaded_and_looks_at_nothing_else() {
    let machine = Machine::new();
    assert!(machine.fails("reload").contains("kdumpctl start builds it"));
    machine.says("start");
    let first = machine.journal();
    machine.write("etc/kdump.conf", "nonsense\n");
    machine.write("sys/kernel/kexec_crash_loaded", "1\n");
    assert!(machine.says("reload").ends_with("Reloading kdump: [OK]\n"));
    assert_eq!(machine.journal(), first);
}

#[test]
fn a_reload_that_can_be_tried_again_says_so_by_its_exit_and_no_other_is_tried_again() {
    let mut machine = Machine::new();
    machine.says("start");
    machine.kexec.refuse = Some(libc::EBUSY);
    let (code, said) = machine.run("reload");
    assert_eq!((code.unwrap(), said.as_str()), (ExitCode::from(75), "Reloading kdump: [FAILED]\n"));
    machine.kexec.refuse = Some(libc::EKEYREJECTED);
    assert!(machine.fails("reload").contains("is not signed"));
    machine.kexec.refuse = None;
    machine.write("proc/sys/kernel/kexec_load_disabled", "1\n");
    assert!(machine.fails("reload").contains("kexec_load_disabled is 1"));
    let unit = include_str!("../dist/systemd/kdump-hotplug.service");
    assert!(unit.contains("[ \"$$EXIT_STATUS\" != 75 ] || { sleep 30; touch /run/kdump/hotplug; }"), "{unit}");
}

#[test]
fn rebuild_builds_what_is_new_enough_and_loads_nothing() {
    let machine = Machine::new();
    machine.says("start");
    machine.journal();
    let image = machine.system.root.join(format!("boot/initramfs-{RELEASE}kdump.img"));
    let before = fs::metadata(&image).unwrap().modified().unwrap();
    assert!(machine.says("rebuild").contains("1 modules") || !machine.says("rebuild").is_empty());
    assert!(fs::metadata(&image).unwrap().modified().unwrap() > before);
    assert!(machine.journal().is_empty());
}

#[test]
fn a_kernel_that_cannot_be_loaded_by_file_is_laid_out_in_memory_unless_signatures_are_asked_for() {
    let mut machine = Machine::new();
    machine.kexec.refuse_files = Some(libc::ENOSYS);
    assert!(machine.fails("start").contains("this is no bzImage"), "the fake kernel is none");
    machine.write("sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
    let error = machine.fails("start");
    assert!(error.contains("locked down (integrity), so that kexec_load cannot take its place"), "{error}");
    let error = machine.fails("start --syscall load");
    assert!(error.contains("kexec_load checks no signatures"), "{error}");
    machine.kexec.refuse_files = Some(libc::EKEYREJECTED);
    assert!(machine.fails("start").contains("not signed with a key that this kernel trusts"));
}

#[test]
fn every_distribution_configures_the_command_line_as_its_own_scripts_do() {
    for (conf, sysconfig, words) in [
        (Some(""), "", " pcie_ports=compat "),
        (None, "KDUMP_SAVEDIR=/var/crash\n", " sysrq=yes reset_devices acpi_no_memhotplug "),
    ] {
        let machine = Machine::new();
        machine.holds_dumps();
        if conf.is_none() {
            fs::remove_file(machine.system.root.join("etc/kdump.conf")).unwrap();
        }
        machine.write("etc/sysconfig/kdump", sysconfig);
        machine.says("start");
        assert!(machine.journal()[0].contains(words), "{words}");
    }
}

#[test]
fn showmem_and_the_default_are_said_in_rhels_words() {
    let machine = Machine::new();
    assert_eq!(machine.says("showmem"), "Reserved 80MB memory for crash kernel\n");
    assert_eq!(machine.json("showmem --json")["bytes"], 80 << 20);
    assert_eq!(machine.json("showmem --json")["crashkernel"], "80M");
    assert_eq!(machine.says("get-default-crashkernel"), "2G-64G:256M,64G-:512M\n");
    assert_eq!(machine.says("get-default-crashkernel kdump"), "2G-64G:256M,64G-:512M\n");
    machine.write("etc/os-release", "ID=debian\n");
    assert_eq!(machine.says("get-default-crashkernel"), "384M-:128M\n");
    assert!(machine.fails("get-default-crashkernel fadump").contains("POWER"));
}

#[test]
fn an_estimate_is_for_the_image_that_would_be_loaded_and_leaves_the_one_that_is_there() {
    let machine = Machine::new();
    let estimate = machine.json("estimate --json");
    assert_eq!(estimate["reserved"], 80 << 20);
    assert!(estimate["sum"].as_u64().unwrap() < estimate["recommended"].as_u64().unwrap());
    let image = machine.system.root.join(format!("boot/initramfs-{RELEASE}kdump.img"));
    assert!(!image.exists());
    machine.write("proc/modules", "big 2097152 0 - Live 0x0\nsmall 4096 1 big, Live 0x0\n");
    machine.write("sys/kernel/kexec_crash_size", "16777216\n");
    let said = machine.says("estimate");
    assert!(said.starts_with("Reserved crashkernel:    16M\nRecommended crashkernel: "), "{said}");
    assert!(said.contains("Large modules:\n    big: 2097152\n"), "{said}");
    assert!(said.contains("WARNING: Current crashkernel size is lower than recommended size"), "{said}");
}

#[test]
fn what_is_reserved_beyond_the_need_is_given_back_when_that_is_asked_for() {
    let machine = Machine::new();
    machine.write("sys/kernel/kexec_crash_size", "536870912\n");
    let said = machine.says("start --shrink");
    let left: u64 = machine.read("sys/kernel/kexec_crash_size").trim().parse().unwrap();
    assert!(left < 536_870_912 && left.is_multiple_of(1 << 20), "{left}");
    assert!(said.contains(&format!("Gave back {} MiB of the 512 MiB", 512 - (left >> 20))), "{said}");
    let journal = machine.journal();
    assert_eq!((journal[0].as_str(), journal.len()), ("unload", 2));
}

#[test]
fn reset_crashkernel_changes_the_boot_loader_or_shows_what_it_would_change() {
    let machine = Machine::new();
    machine.write("etc/default/grub", "GRUB_CMDLINE_LINUX=\"quiet crashkernel=auto\"\n");
    machine.write("usr/sbin/update-grub", "");
    let said = machine.says("reset-crashkernel --dry-run 256M");
    assert!(
        said.contains("+ GRUB_CMDLINE_LINUX=\"quiet crashkernel=256M\"\nThen: update-grub\n")
            && said.ends_with("Nothing was changed\n")
    );
    assert!(machine.read("etc/default/grub").contains("auto"));
    let said = machine.says("reset-crashkernel --kernel=ALL");
    assert!(said.ends_with("crashkernel=2G-64G:256M,64G-:512M is in force after a reboot\n"), "{said}");
    assert!(machine.read("etc/default/grub").contains("crashkernel=2G-64G:256M,64G-:512M\""));
    assert!(machine.read("etc/default/grub.before-kdump").contains("auto"));
    machine.says("start");
    let told = machine.json("reset-crashkernel auto --json");
    assert_eq!(told["changed"], true);
    assert_eq!(told["commands"], json!([["update-grub"]]));
    assert_eq!(told["left"], json!([]));
    let value = told["crashkernel"].as_str().unwrap().to_owned();
    assert!(value.ends_with('M') && machine.read("etc/default/grub").contains(&format!("crashkernel={value}\"")));
    // The files say it, but whether the boot loader has heard of it only a kernel that runs with it can tell.
    for (line, commands) in
        [("quiet".to_owned(), json!([["update-grub"]])), (format!("crashkernel={value}"), json!([]))]
    {
        machine.write("proc/cmdline", &line);
        let told = machine.json(&format!("reset-crashkernel {value} --json"));
        assert_eq!((&told["changed"], &told["commands"]), (&json!(false), &commands));
    }
    assert!(machine.fails("reset-crashkernel --fadump=on").contains("POWER machines"));
    assert!(machine.fails("reset-crashkernel --kernel=/boot/vmlinuz-6.1").contains("for all kernels alike"));
}

#[test]
fn status_tells_everything_in_one_place() {
    let machine = Machine::new();
    machine.holds_dumps();
    machine.says("start");
    machine.write("sys/kernel/kexec_crash_loaded", "1\n");
    machine.dump("127.0.0.1-2026-01-01-00:00:00", "complete", "");
    machine.write("proc/sys/kernel/panic_on_oops", "0\n");
    assert!(machine.says("status -v").contains("An oops:       leaves no dump: kernel.panic_on_oops is 0\n"));
    let report = machine.json("status --json");
    assert_eq!(report["oops_is_panic"], false);
    assert_eq!(report["operational"], true);
    assert_eq!(report["loaded"]["release"], RELEASE);
    assert!(report["loaded"]["cmdline"].as_str().unwrap().contains("nr_cpus=1"));
    assert_eq!(report["last_dump"]["outcome"], "complete");
    assert_eq!(report["stale"].as_array().unwrap().len(), 0, "{report:#}");
    assert_eq!(report["last_test"], Value::Null);
    let image = machine.system.root.join(format!("boot/initramfs-{RELEASE}kdump.img"));
    fs::remove_file(&image).unwrap();
    fs::create_dir(&image).unwrap();
    let report = machine.json("status --json");
    assert!(
        report["stale"][0].as_str().unwrap().ends_with("kdump.img: it cannot be read: Is a directory (os error 21)")
    );
    machine.write("etc/kdump.conf", "path /var/crash\nnonsense\n");
    let said = machine.says("status -v");
    assert!(said.starts_with("Kdump is operational\n") && said.contains("there is no directive `nonsense`"), "{said}");
}

#[test]
fn what_is_done_can_be_told_as_json_as_well() {
    let machine = Machine::new();
    let started = machine.json("start --json");
    assert_eq!((&started["ok"], &started["steps"][0]["step"]), (&true.into(), &"Starting".into()));
    let said = started["steps"][0]["said"].as_array().unwrap();
    assert!(said.last().unwrap().as_str().unwrap().starts_with("Loaded "), "{said:?}");
    assert_eq!(machine.json("restart --json")["steps"].as_array().unwrap().len(), 2);
    for words in ["reload --json", "rebuild --json", "stop --json"] {
        assert_eq!(machine.json(words)["ok"], true, "{words}");
    }
    machine.write(&format!("boot/initrd.img-{RELEASE}"), "initrd");
    assert_eq!(machine.json("kexec --reuse-cmdline --json")["ok"], true);
    assert!(
        machine.json("propagate --json")["steps"][0]["error"].as_str().unwrap().contains("nobody to give a key to")
    );
    let default = machine.says("get-default-crashkernel");
    assert_eq!(machine.json("get-default-crashkernel --json")["crashkernel"], default.trim_end());
    machine.write("sys/kernel/kexec_crash_size", "0\n");
    let failed = machine.json("start --json");
    assert!(failed["steps"][0]["error"].as_str().unwrap().contains("No memory reserved"), "{failed}");
    for words in ["list", "verify", "prune --keep 1"] {
        assert!(
            machine.fails(&format!("dumps {words} --dir /nonexistent")).contains("there is no directory /nonexistent")
        );
    }
}

#[test]
fn status_asks_the_far_side_whether_it_would_let_a_dump_in() {
    let machine = Machine::new();
    machine.write("etc/kdump.conf", "path /srv\nssh dump@10.9.8.7\nsshkey /root/key\n");
    machine.write("root/key", "KEY");
    machine.write("root/.ssh/known_hosts", "10.9.8.7 ssh-ed25519 AAAA\n");
    let send = machine.system.programs().join("kdump-send");
    let asked = machine.system.root.join("asked");
    let keep = format!(
        "#!/bin/sh\nfor word; do [ -f \"$word\" ] && cat \"$word\"; done > {0}\necho \"$@\" >> {0}\n",
        asked.display()
    );
    kdump_hooks::fake::program(&send, keep.as_bytes()).unwrap();
    let said = machine.run("status -v").1;
    assert!(said.contains("Asked:         ssh://dump@10.9.8.7/srv: it lets us in\n"), "{said}");
    let told = &machine.json("status -v --json")["asked"][0];
    assert_eq!((&told["target"], &told["ok"]), (&"ssh://dump@10.9.8.7/srv".into(), &true.into()), "{told}");
    let asked = machine.read("asked");
    assert!(asked.starts_with("KEY10.9.8.7 ssh-ed25519 AAAA\n"), "{asked}");
    assert!(asked.ends_with(" ssh://dump@10.9.8.7/srv check\n"), "{asked}");
    for code in [1, 2] {
        let refuse = format!("#!/bin/sh\necho beginning >&2\necho no such key >&2\nexit {code}\n");
        kdump_hooks::fake::program(&send, refuse.as_bytes()).unwrap();
        let said = machine.run("status -v").1;
        assert!(said.contains("/srv: no dump would get there: no such key\n"), "{said}");
        let told = &machine.json("status -v --json")["asked"][0];
        assert_eq!((&told["ok"], &told["error"]), (&false.into(), &"no such key".into()), "{told}");
    }
}

#[test]
fn a_test_leaves_a_mark_in_the_log_by_which_its_dump_is_known_after_the_reboot() {
    let machine = Machine::new();
    machine.holds_dumps();
    machine.write("proc/sys/kernel/random/boot_id", "first\n");
    assert!(machine.fails("test --force").contains("no capture kernel is loaded"));
    assert_eq!(machine.run("test --result").0.unwrap(), ExitCode::from(3));
    machine.says("start");
    machine.write("sys/kernel/kexec_crash_loaded", "1\n");
    for path in ["dev/kmsg", "proc/sysrq-trigger"] {
        machine.write(path, "");
    }
    assert!(machine.fails("test").contains("--force does without"), "nobody is asked here");
    assert_eq!(machine.read("proc/sysrq-trigger"), "");
    assert_eq!(machine.json("test --force --json")["state"], "pending");
    assert_eq!(machine.read("proc/sysrq-trigger"), "c");
    machine.write("proc/sysrq-trigger", "");
    machine.says("test --force");
    assert_eq!(machine.read("proc/sysrq-trigger"), "c");
    assert!(machine.run("test --result").1.contains("is under way"));

    machine.write("proc/sys/kernel/random/boot_id", "second\n");
    let mark = machine.read("dev/kmsg");
    machine.dump("127.0.0.1-2026-01-01-00:00:00", "complete", "[    1.0] another crash\n");
    let (result, said) = machine.run("test --result");
    assert_eq!(result.unwrap(), ExitCode::FAILURE);
    assert!(said.ends_with("failed: no dump\n"), "{said}");
    machine.dump("127.0.0.1-2026-01-02-00:00:00", "complete", &format!("[    1.0] {mark}\n[    2.0] panic\n"));
    let said = machine.says("test --result");
    assert!(said.contains("succeeded: ") && said.contains("2026-01-02"), "{said}");
    machine.write("sys/kernel/kexec_crash_loaded", "0\n");
    assert!(machine.says("start").contains("succeeded: "), "a start says it once");
    assert!(!machine.says("start").contains("succeeded: "));
    assert_eq!(machine.json("status --json")["last_test"]["state"], "success");
    fs::remove_dir_all(machine.system.root.join("var/crash")).unwrap();
    machine.says("test --result");
}

#[test]
fn a_test_whose_target_is_not_mounted_has_not_failed_and_is_looked_for_again() {
    let machine = Machine::new();
    machine.holds_dumps();
    machine.write("proc/sys/kernel/random/boot_id", "first\n");
    machine.says("start");
    machine.write("sys/kernel/kexec_crash_loaded", "1\n");
    for path in ["dev/kmsg", "proc/sysrq-trigger", "dev/vdb1"] {
        machine.write(path, "");
    }
    machine.says("test --force");
    machine.write("proc/sys/kernel/random/boot_id", "second\n");
    machine.write("etc/kdump.conf", "path /crash\next4 /dev/vdb1\n");
    machine.write("sys/class/block/vdb1/dev", "8:17\n");
    let said = machine.run("start").1;
    assert!(said.contains("(/dev/vdb1 is not mounted here)"), "{said}");
    assert_eq!(machine.json("test --result --json")["state"], "manual");
    let mount = "2 1 8:17 / /mnt/my\\040disk rw - ext4 /dev/vdb1 rw\n3 1 8:17 /crash /bound rw - ext4 /dev/vdb1 rw\n";
    machine.write("proc/self/mountinfo", mount);
    let log = format!("[    1.0] {}\n", machine.read("dev/kmsg"));
    for (name, text) in [("vmcore-dmesg.txt", &*log), ("status.json", "{\"outcome\": \"complete\"}")] {
        machine.write(&format!("mnt/my disk/crash/127.0.0.1-2026-01-02-00:00:00/{name}"), text);
    }
    let bound = machine.system.root.join("bound");
    std::os::unix::fs::symlink("mnt/my disk/crash", bound).unwrap();
    assert!(machine.says("test --result").contains("succeeded: "));
    assert_eq!(machine.json("dumps list --json").as_array().unwrap().len(), 1);
}

#[test]
fn dumps_are_listed_shown_verified_and_pruned() {
    let machine = Machine::new();
    machine.write("etc/kdump.conf", "path /var/crash\n");
    machine.dump("127.0.0.1-2026-01-02-00:00:00", "complete", "");
    machine.dump("127.0.0.1-2026-01-01-00:00:00", "complete", "");
    machine.dump("127.0.0.1-2026-01-03-00:00:00", "incomplete", "");
    machine.write("var/crash/2025-01-01-00:00/vmcore", "of somebody else");
    machine.write("var/crash/notes.txt", "no dump");
    let listed = machine.json("dumps list --json");
    let outcomes: Vec<&str> = listed.as_array().unwrap().iter().map(|dump| dump["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["incomplete", "complete", "complete", "foreign"]);
    assert!(machine.says("dumps list").lines().nth(1).unwrap().ends_with("Kernel panic - not syncing: x"));
    let shown = machine.says("dumps show 127.0.0.1-2026-01-01-00:00:00");
    assert!(shown.contains("Outcome:   complete") && shown.contains("sha256"), "{shown}");
    assert!(machine.fails("dumps show x").contains("kdumpctl dumps list"));
    let there = machine.system.root.join("elsewhere/127.0.0.1-2026-01-04-00:00:00");
    machine.write("elsewhere/127.0.0.1-2026-01-04-00:00:00/vmcore", "another");
    let shown = machine.says(&format!("dumps show {}/.", there.display()));
    assert!(shown.starts_with("Dump:      ") && shown.contains("elsewhere/127.0.0.1-2026-01-04-00:00:00\n"), "{shown}");
    assert!(machine.fails(&format!("dumps show {}", machine.system.root.display())).contains("there is no dump"));

    let sound = machine.json("dumps verify 127.0.0.1-2026-01-02-00:00:00 --json");
    assert_eq!((&sound[0]["sound"], &sound[0]["files"]), (&Value::Bool(true), &Value::from(1)), "{sound:#}");
    machine.write("var/crash/127.0.0.1-2026-01-02-00:00:00/vmcore", "cope");
    let (result, said) = machine.run("dumps verify");
    assert_eq!(result.unwrap(), ExitCode::FAILURE);
    assert!(said.contains("vmcore is not what was written") && said.contains("it was incomplete when"), "{said}");

    assert!(machine.fails("dumps prune").contains("say it with --keep"));
    let said = machine.says("dumps prune --keep 1 --dry-run");
    assert!(said.starts_with("Would remove ") && said.contains("2026-01-01"), "{said}");
    let unfinished = "127.0.0.1-2026-01-05-00:00:00";
    machine.write(&format!("var/crash/{unfinished}/vmcore-incomplete"), "cut off");
    let said = machine.says("dumps prune --keep 1 --dry-run");
    assert!(said.contains(&format!("/{unfinished} is unfinished (1 MiB) and stays")), "{said}");
    let removed = machine.json("dumps prune --keep 1 --json");
    assert!(removed["unfinished"][0].as_str().unwrap().ends_with(unfinished), "{removed:#}");
    assert_eq!(removed["removed"].as_array().unwrap().len(), 1, "{removed:#}");
    let left = |name: &str| machine.system.root.join("var/crash").join(name).exists();
    assert!(
        left("127.0.0.1-2026-01-02-00:00:00") && left("2025-01-01-00:00") && !left("127.0.0.1-2026-01-01-00:00:00")
    );
}

#[test]
fn the_next_kernel_waits_for_a_reboot_or_is_booted_at_once() {
    let machine = Machine::new();
    machine.write(&format!("boot/initrd.img-{RELEASE}"), "initrd");
    assert!(machine.says("kexec --reuse-cmdline --append=x=1").contains("waits for the next reboot"));
    let line = "root=/dev/vda1 ro crashkernel=80M console=ttyS0 x=1";
    assert_eq!(machine.journal(), [format!("load for a reboot kernel 6 `{line}`")]);
    // No kernel takes a unified image: its parts are handed over.
    fs::remove_file(machine.system.root.join(format!("boot/vmlinuz-{RELEASE}"))).unwrap();
    fs::remove_file(machine.system.root.join(format!("boot/initrd.img-{RELEASE}"))).unwrap();
    let unified = machine.system.root.join(format!("boot/efi/EFI/Linux/debian-{RELEASE}+3.efi"));
    fs::create_dir_all(unified.parent().unwrap()).unwrap();
    fs::write(unified, unified_image(&[(".linux", b"inner"), (".initrd", b"070701..")])).unwrap();
    machine.says("kexec --reuse-cmdline --append=x=1");
    assert_eq!(machine.journal(), [format!("load for a reboot inner 8 `{line}`")]);
    assert!(machine.fails("kexec --now").contains("no kernel is loaded"));
    machine.write("sys/kernel/kexec_loaded", "1\n");
    machine.says("kexec --now");
    assert_eq!(machine.journal(), ["boot"]);
    machine.says("kexec --unload");
    assert_eq!(machine.journal(), ["unload for a reboot"]);
    let kernel = machine.system.root.join("mine");
    fs::write(&kernel, "mine").unwrap();
    machine.says(&format!("kexec --kernel {} --append=quiet --now", kernel.display()));
    assert_eq!(machine.journal(), ["load for a reboot mine 0 `quiet`", "boot"]);
    // What was loaded before would be booted in its place.
    for words in ["kexec --now --kernel /mine", "kexec --now --initrd /mine"] {
        let refused =
            Kdumpctl::try_parse_from(["kdumpctl"].into_iter().chain(words.split(' '))).unwrap_err().to_string();
        assert!(refused.contains("--append <LINE>|--reuse-cmdline"), "{refused}");
    }
}

#[test]
fn no_kernel_is_loaded_while_another_kdumpctl_is_at_work() {
    let machine = Machine::new();
    machine.write(&format!("boot/initrd.img-{RELEASE}"), "initrd");
    machine.write("run/kdump.lock", "");
    let lock = fs::File::options().write(true).open(machine.system.root.join("run/kdump.lock")).unwrap();
    lock.lock().unwrap();
    let mut said = UntilTold::holding(lock);
    machine.kdumpctl_to("kexec --reuse-cmdline".split(' '), &mut said).unwrap();
    assert!(said.held.is_none() && said.text.contains("Another kdumpctl is at work"), "{}", said.text);
}

#[test]
fn a_rehearsal_says_what_it_lacks() {
    let machine = Machine::new();
    if !Path::new("/usr/bin/qemu-system-x86_64").exists() {
        assert!(machine.fails("rehearse").contains("install QEMU"));
        return;
    }
    assert!(machine.fails("rehearse").contains("kdumpctl start builds it"));
    machine.says("start");
    machine.write("sys/kernel/kexec_crash_size", "0\n");
    assert!(machine.fails("rehearse").contains("say with --memory how much would be"));
}
