//! `kdumpctl` on a machine made of files, with a reserved memory that only records.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::Machine;
use kdump_builder::config::{Config, Files};
use kdump_builder::fake::{FakeSystem, RELEASE};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::time::SystemTime;

impl Machine {
    fn run(&self, words: &str) -> (anyhow::Result<ExitCode>, String) {
        self.kdumpctl(words.split(' '))
    }

    fn fails(&self, word: &str) -> String {
        let (result, out) = self.run(word);
        assert!(out.ends_with("ing kdump: [FAILED]\n"), "{out}");
        format!("{:#}", result.unwrap_err())
    }

    fn image(&self) -> std::path::PathBuf {
        self.system.root.join(format!("boot/initramfs-{RELEASE}kdump.img"))
    }
}

#[test]
fn modules_says_of_each_what_the_kernel_would_make_of_it() {
    let machine = Machine::new();
    let (result, out) = machine.run("modules");
    result.unwrap();
    assert!(out.contains("ext4: ") && out.contains("the machine that it runs on is not here"), "{out}");
    let json: serde_json::Value = serde_json::from_str(&machine.run("modules --json").1).unwrap();
    assert!(json["modules"].as_array().unwrap().iter().all(|module| module["verdict"] == "unknown"), "{json}");
    machine.system.write("sys/module/module/parameters/sig_enforce", b"N\n").unwrap();
    let (result, out) = machine.run("modules");
    result.unwrap();
    assert!(out.contains("ext4: taints the kernel: it has no signature\n"), "{out}");
    machine.system.write("sys/module/module/parameters/sig_enforce", b"Y\n").unwrap();
    let (result, _) = machine.run("modules");
    let error = format!("{:#}", result.unwrap_err());
    assert!(error.contains("would refuse the module") && error.contains("signatures are enforced"), "{error}");
    assert!(!machine.image().exists() && machine.kexec.journal.borrow().is_empty());
}

#[test]
fn start_builds_what_is_missing_and_loads_it() {
    let machine = Machine::new();
    machine
        .system
        .write("etc/sysconfig/kdump", b"KDUMP_COMMANDLINE_APPEND=\"nr_cpus=1 modprobe.blacklist=e1000\"\n")
        .unwrap();
    let (result, out) = machine.run("start");
    assert_eq!(result.unwrap(), ExitCode::SUCCESS);
    assert!(out.ends_with("Starting kdump: [OK]\n"), "{out}");
    let size = fs::metadata(machine.image()).unwrap().len();
    let line = "BOOT_IMAGE=/vmlinuz ro console=ttyS0 nr_cpus=1 modprobe.blacklist=e1000 disable_cpu_apicid=0";
    assert_eq!(*machine.kexec.journal.borrow(), [format!("load kernel {size} `{line}`")]);
}

#[test]
fn an_image_that_is_new_enough_is_loaded_as_it_is() {
    let machine = Machine::new();
    machine.run("start").0.unwrap();
    let first = fs::metadata(machine.image()).unwrap().modified().unwrap();
    machine.run("start").0.unwrap();
    assert_eq!(fs::metadata(machine.image()).unwrap().modified().unwrap(), first);
    assert_eq!(machine.kexec.journal.borrow().len(), 2);
}

#[test]
fn force_rebuild_builds_at_every_start_and_force_no_rebuild_only_what_is_missing() {
    for (words, for_nothing, for_a_change) in [("force_rebuild 1", true, true), ("force_no_rebuild 1", false, false)] {
        let machine = Machine::new();
        let inode = || fs::metadata(machine.image()).unwrap().ino();
        let conf = |path: &str| format!("path {path}\next4 LABEL=crash\n{words}\n");
        machine.system.write("etc/kdump.conf", conf("/var/crash").as_bytes()).unwrap();
        machine.run("start").0.unwrap();
        let first = inode();
        machine.run("start").0.unwrap();
        assert_eq!(inode() != first, for_nothing, "{words}");
        let second = inode();
        machine.system.write("etc/kdump.conf", conf("/var/other").as_bytes()).unwrap();
        machine.run("start").0.unwrap();
        assert_eq!(inode() != second, for_a_change, "{words}");
    }
}

#[test]
fn an_image_of_another_builder_or_kernel_is_not_loaded() {
    let machine = Machine::new();
    fs::write(machine.image(), "an image of somebody else").unwrap();
    machine.run("start").0.unwrap();
    assert!(fs::metadata(machine.image()).unwrap().len() > 1000);

    let machine = Machine::new();
    fs::write(machine.image(), "an image of somebody else").unwrap();
    fs::remove_dir_all(machine.system.root.join("lib/modules")).unwrap();
    let error = machine.fails("start");
    assert!(error.contains("it was not built by this version of mkdumprd"), "{error}");
    assert!(machine.kexec.journal.borrow().is_empty());
}

#[test]
fn an_image_is_built_again_when_its_configuration_has_changed_if_the_modules_are_here() {
    for (modules_are_here, built_again) in [(true, true), (false, false)] {
        let machine = Machine::new();
        machine.run("start").0.unwrap();
        let built = fs::metadata(machine.image()).unwrap().ino();
        machine.system.write("etc/kdump.conf", b"path /var/other\next4 LABEL=crash\n").unwrap();
        if !modules_are_here {
            fs::remove_dir_all(machine.system.root.join("lib/modules")).unwrap();
        }
        machine.run("start").0.unwrap();
        assert_eq!(fs::metadata(machine.image()).unwrap().ino() != built, built_again);
        assert_eq!(machine.kexec.journal.borrow().len(), 2);
    }
}

#[test]
fn an_image_is_built_again_for_whatever_it_is_made_of_but_not_for_what_was_only_touched() {
    type Change = fn(&FakeSystem) -> std::io::Result<()>;
    let cases: [(&str, Change); 13] = [
        ("a new program of the administrator", |s| s.write("etc/kdump/post.d/10", b"")),
        ("a configuration that wins", |s| {
            s.write(
                "etc/kdump/kdump.toml",
                b"[[target]]\nkind = \"filesystem\"\ntype = \"ext4\"\ndevice = \"LABEL=x\"\n",
            )
        }),
        ("dracut.conf", |s| s.write("etc/dracut.conf", b"omit_drivers+=\" gcm \"\n")),
        ("the first file of dracut's", |s| s.write("etc/dracut.conf.d/a.conf", b"omit_drivers+=\" gcm \"\n")),
        ("another of them", |s| s.write("run/initramfs/dracut.conf.d/a.conf", b"omit_drivers+=\" gcm \"\n")),
        ("one of a package", |s| s.write("usr/lib/dracut/dracut.conf.d/a.conf", b"omit_drivers+=\" gcm \"\n")),
        ("a file in an included directory", |s| s.write("opt/extra/sub/a", b"two")),
        ("another file there", |s| s.write("opt/extra/sub/b", b"")),
        ("options of modules", |s| s.write("etc/modprobe.d/a.conf", b"options ext4 a=1\n")),
        ("a module", |s| {
            let info = ["vermagic=6.1-test SMP", "license=GPL", "description=another"];
            s.write("lib/modules/6.1-test/kernel/fs/ext4.ko", &kdump_builder::fake::object(&info))
        }),
        ("firmware", |s| s.write("lib/firmware/vendor/disk.bin", b"newer")),
        ("the kernel", |s| s.write("boot/vmlinuz-6.1-test", b"kernal")),
        ("a program of ours", |s| s.write("programs/kdump-init", &kdump_builder::fake::object(&["version=2"]))),
    ];
    for (what, change) in cases {
        let machine = Machine::new();
        machine.system.write("opt/extra/sub/a", b"one").unwrap();
        machine.system.write("etc/kdump.conf", b"ext4 LABEL=crash\ndracut_args --include /opt/extra /extra\n").unwrap();
        machine.run("start").0.unwrap();
        let inode = || fs::metadata(machine.image()).unwrap().ino();
        let built = inode();
        for file in ["etc/kdump.conf", "boot/vmlinuz-6.1-test", "lib/modules/6.1-test/modules.dep"] {
            File::open(machine.system.root.join(file)).unwrap().set_modified(SystemTime::now()).unwrap();
        }
        machine.system.write("root/unrelated", b"").unwrap();
        machine.run("start").0.unwrap();
        assert_eq!(inode(), built, "it was built for nothing");
        change(&machine.system).unwrap();
        machine.run("start").0.unwrap();
        assert_ne!(inode(), built, "{what}");
    }
}

#[test]
fn start_says_what_stands_in_its_way() {
    type Spoil = fn(&FakeSystem) -> std::io::Result<()>;
    let cases: [(Spoil, &str); 6] = [
        (
            |s| s.write("sys/kernel/kexec_crash_size", b"0\n"),
            "No memory reserved for crash kernel, though crashkernel=80M is on the kernel command line",
        ),
        (|s| fs::remove_file(s.root.join("sys/kernel/kexec_crash_loaded")), "CONFIG_CRASH_DUMP"),
        (|s| s.write("proc/sys/kernel/kexec_load_disabled", b"1\n"), "kernel.kexec_load_disabled is 1"),
        (|s| s.write("etc/kdump.conf", b"nonsense 1\n"), "kdump.conf:1: there is no directive `nonsense`"),
        (|s| fs::remove_file(s.root.join("boot/vmlinuz-6.1-test")), "there is no kernel 6.1-test: neither"),
        (|s| fs::remove_dir_all(s.root.join("lib/modules")), "cannot build"),
    ];
    for (spoil, words) in cases {
        let machine = Machine::new();
        spoil(&machine.system).unwrap();
        let error = machine.fails("start");
        assert!(error.contains(words), "{error}");
        assert!(machine.kexec.journal.borrow().is_empty());
    }
}

#[test]
fn a_refusal_of_the_kernel_is_explained() {
    let mut machine = Machine::new();
    machine.kexec.refuse = Some(libc::EADDRNOTAVAIL);
    let error = machine.fails("start");
    assert!(error.contains("cannot load the capture kernel") && error.contains("raise crashkernel="), "{error}");
    assert!(machine.fails("stop").starts_with("cannot unload the capture kernel"));
}

#[test]
fn a_kernel_that_is_loaded_stays_and_status_says_so() {
    let machine = Machine::new();
    assert_eq!(machine.run("status").0.unwrap(), ExitCode::from(3));
    assert_eq!(machine.run("status").1, "Kdump is not operational\n");
    machine.system.write("sys/kernel/kexec_crash_loaded", b"1\n").unwrap();
    assert_eq!(machine.run("status").0.unwrap(), ExitCode::SUCCESS);
    assert_eq!(machine.run("status").1, "Kdump is operational\n");
    machine.run("start").0.unwrap();
    assert!(machine.kexec.journal.borrow().is_empty());
    assert_eq!(machine.run("stop").1, "Stopping kdump: [OK]\n");
    assert_eq!(*machine.kexec.journal.borrow(), ["unload"]);
}

#[test]
fn a_kernel_that_was_loaded_early_is_replaced_without_being_unloaded_first() {
    let machine = Machine::new();
    machine.system.write("sys/kernel/kexec_crash_loaded", b"1\n").unwrap();
    machine.run("start --replace").0.unwrap();
    let journal = machine.kexec.journal.borrow();
    assert!(matches!(&journal[..], [load] if load.starts_with("load kernel ")), "{journal:?}");
    drop(journal);
    // One that cannot be built leaves the other where it is, or loads it once more, and fails.
    machine.system.write("etc/kdump.conf", b"path /var/crash\next4 LABEL=crash\nextra_bins /nowhere\n").unwrap();
    let error = machine.fails("start --replace");
    assert!(error.contains("kdump.img was loaded, which is not up to date: cannot build"), "{error}");
    let journal = machine.kexec.journal.take();
    assert!(journal.len() == 2 && journal[0] == journal[1], "{journal:?}");
    fs::write(machine.image(), "an image of somebody else").unwrap();
    machine.fails("start --replace");
    assert!(machine.kexec.journal.borrow().is_empty(), "what is of no use is not loaded");
    let unit = include_str!("../dist/systemd/kdump.service");
    assert!(unit.contains("\nExecStart=/usr/bin/kdumpctl start --replace\n") && !unit.contains("ExecStartPre"));
}

#[test]
fn a_kdump_that_is_switched_off_is_not_reloaded_either() {
    let machine = Machine::new();
    let say = |text: &str| {
        let text = format!("{text}\n[[target]]\nkind = \"filesystem\"\ntype = \"ext4\"\ndevice = \"LABEL=crash\"\n");
        machine.system.write("etc/kdump/kdump.toml", text.as_bytes()).unwrap();
    };
    say("enabled = true");
    machine.run("start").0.unwrap();
    assert_eq!(machine.kexec.journal.borrow().len(), 1);
    say("enabled = false");
    assert!(machine.fails("reload").contains("kdump.toml:1 does not say USE_KDUMP=1"));
    // Nor is it when nothing has been loaded, as it is early in a boot.
    fs::remove_file(machine.system.root.join("run/kdump/loaded.json")).unwrap();
    assert!(machine.fails("reload").contains("kdump.toml:1 does not say USE_KDUMP=1"));
    assert_eq!(machine.kexec.journal.borrow().len(), 1);
    // What cannot be followed any more does not take a capture kernel away.
    say("enabled = true");
    machine.run("start").0.unwrap();
    say("nonsense = true");
    machine.run("reload").0.unwrap();
    assert_eq!(machine.kexec.journal.borrow().len(), 3);
}

#[test]
fn the_image_goes_where_it_can_be_written_and_the_kernel_is_found_by_its_configured_name() {
    let machine = Machine::new();
    machine.system.write("opt/kernels/bzImage-6.1-test.efi", b"other").unwrap();
    machine
        .system
        .write("etc/sysconfig/kdump", b"KDUMP_BOOTDIR=/opt/kernels\nKDUMP_IMG=bzImage\nKDUMP_IMG_EXT=.efi\n")
        .unwrap();
    machine.run("start").0.unwrap();
    assert!(machine.kexec.journal.borrow()[0].starts_with("load other "));
    assert!(machine.system.root.join(format!("opt/kernels/initramfs-{RELEASE}kdump.img")).is_file());
}

#[test]
fn a_machine_whose_configuration_went_with_another_package_has_the_default() {
    let machine = Machine::new();
    let root = &machine.system.root;
    fs::remove_file(root.join("etc/kdump.conf")).unwrap();
    let read = || Config::read(&Files::new(root, None, None));
    let error = read().unwrap_err().to_string();
    assert!(error.contains("there is no configuration"), "{error}");
    machine.system.write("usr/share/kdump/kdump.toml", b"path = \"/srv/crash\"\n").unwrap();
    let (result, said) = machine.kdumpctl(["config", "show"]);
    result.unwrap();
    assert!(said.contains("/srv/crash"), "{said}");
    let config = read().unwrap();
    let [warning] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
    assert!(
        warning.contains("usr/share/kdump/kdump.toml holds") && warning.contains("/etc/kdump/kdump.toml"),
        "{warning}"
    );
    // Whatever is configured, be it as all defaults, takes its place.
    machine.system.write("etc/kdump.conf", b"path /other\n").unwrap();
    assert!(machine.kdumpctl(["config", "show"]).1.contains("/other"));
}
