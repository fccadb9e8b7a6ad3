//! What the boot loader has behind `crashkernel=` after packages and kernels came, and after a start.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::Machine;
use std::fs;
use std::os::unix::fs::symlink;

const AFTER_UPDATE: &str = "_reset-crashkernel-after-update";
const FOR_KERNEL: &str = "_reset-crashkernel-for-installed_kernel";
const OLD: &str = "1G-4G:192M,4G-:256M";
const NOW: &str = "2G-64G:256M,64G-:512M";
const KNOWN: &str = "var/lib/kdump/crashkernel-defaults";
const GRUB: &str = "etc/default/grub.d/kdump-rs.cfg";

impl Machine {
    /// One whose package was upgraded from a version with another default, and on which kdump.service is enabled.
    fn upgraded() -> Machine {
        let machine = Machine::new();
        machine.system.write(KNOWN, format!("{OLD}\n").as_bytes()).unwrap();
        machine.enable();
        machine
    }

    fn enable(&self) {
        let wants = self.system.root.join("etc/systemd/system/multi-user.target.wants");
        fs::create_dir_all(&wants).unwrap();
        symlink("/usr/lib/systemd/system/kdump.service", wants.join("kdump.service")).unwrap();
    }

    /// Gives a kernel a boot entry that ends in these words.
    fn entry(&self, release: &str, words: &str) {
        let text = format!("version {release}\nlinux /ab12/{release}/linux\noptions root=/dev/vda1{words}\n");
        self.system.write(&format!("boot/loader/entries/{release}.conf"), text.as_bytes()).unwrap();
    }

    /// What a boot entry has behind its root.
    fn words(&self, release: &str) -> String {
        let text = self.text(&format!("boot/loader/entries/{release}.conf"));
        text.trim_end().rsplit_once("root=/dev/vda1").unwrap().1.to_owned()
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.system.root.join(path)).unwrap()
    }

    fn does(&self, words: &[&str]) -> String {
        let (result, out) = self.kdumpctl(words.iter().copied());
        result.unwrap();
        out
    }
}

#[test]
fn an_upgrade_replaces_an_older_default_and_nothing_else() {
    let machine = Machine::upgraded();
    machine.entry("6.1", &format!(" crashkernel={OLD} quiet"));
    machine.entry("6.2", " crashkernel=300M");
    machine.entry("6.3", "");
    machine.entry("6.4", &format!(" crashkernel={NOW}"));
    machine.system.write("etc/kernel/cmdline", format!("quiet crashkernel={OLD}\n").as_bytes()).unwrap();
    let out = machine.does(&[AFTER_UPDATE]);
    assert_eq!(out.lines().count(), 2, "{out}");
    assert!(out.contains(&format!("entries/6.1.conf: crashkernel={NOW} from the next boot on")), "{out}");
    assert_eq!(machine.words("6.1"), format!(" crashkernel={NOW} quiet"));
    assert_eq!(machine.words("6.2"), " crashkernel=300M");
    assert_eq!(machine.words("6.3"), "");
    assert_eq!(machine.text("etc/kernel/cmdline"), format!("quiet crashkernel={NOW}\n"));
    assert_eq!(machine.text(KNOWN), format!("{OLD}\n{NOW}\n"));
    assert_eq!(machine.does(&[AFTER_UPDATE]), "");
}

#[test]
fn the_first_installation_gives_the_default_to_what_says_nothing_yet() {
    let machine = Machine::new();
    machine.enable();
    machine.entry("6.1", &format!(" crashkernel={OLD}"));
    assert_eq!(machine.does(&[AFTER_UPDATE]), "");
    assert_eq!(machine.words("6.1"), format!(" crashkernel={OLD}"));
    assert_eq!(machine.text(KNOWN), format!("{NOW}\n"));

    let machine = Machine::new();
    machine.enable();
    machine.system.write("proc/cmdline", b"root=/dev/vda1\n").unwrap();
    machine.entry("6.1", " quiet");
    assert!(machine.does(&[AFTER_UPDATE]).contains(&format!("6.1.conf: crashkernel={NOW} from the next boot on")));
    assert_eq!(machine.words("6.1"), format!(" quiet crashkernel={NOW}"));
    assert_eq!(machine.does(&[AFTER_UPDATE]), "");
}

#[test]
fn on_debian_the_first_installation_has_a_file_for_it_in_grub_d_or_says_what_to_run() {
    let debian = || {
        let machine = Machine::new();
        for (path, text) in [
            ("proc/cmdline", "root=/dev/vda1\n"),
            ("etc/os-release", "ID=debian\n"),
            ("etc/default/grub", "GRUB_CMDLINE_LINUX=\"\"\n"),
            ("etc/default/grub.d/init-select.cfg", ""),
        ] {
            machine.system.write(path, text.as_bytes()).unwrap();
        }
        machine
    };
    let machine = debian();
    machine.enable();
    assert!(machine.does(&[AFTER_UPDATE]).contains("crashkernel=384M-:128M from the next boot on"));
    let ours = "GRUB_CMDLINE_LINUX_DEFAULT=\"$GRUB_CMDLINE_LINUX_DEFAULT crashkernel=384M-:128M\"\n";
    assert_eq!(machine.text(GRUB), ours);
    // Who takes it away is not asked again.
    fs::remove_file(machine.system.root.join(GRUB)).unwrap();
    assert_eq!(machine.does(&[AFTER_UPDATE]), "");

    type Spoil = fn(&Machine);
    let cases: [Spoil; 3] = [
        |_| {},
        |machine| {
            machine.enable();
            machine.entry("6.1", "");
        },
        |machine| {
            machine.enable();
            fs::remove_file(machine.system.root.join("etc/default/grub")).unwrap();
        },
    ];
    for spoil in cases {
        let machine = debian();
        spoil(&machine);
        let said = machine.does(&[AFTER_UPDATE]);
        assert!(said.contains("No memory is reserved") && said.contains("`kdumpctl reset-crashkernel`"), "{said}");
        assert!(!machine.system.root.join(GRUB).exists());
    }
}

#[test]
fn a_new_kernel_gets_the_default_unless_it_has_a_value_of_the_administrators() {
    let machine = Machine::upgraded();
    for (words, expected) in [
        ("", format!(" crashkernel={NOW}")),
        // kernel-install takes the line of the kernel that runs.
        (&format!(" crashkernel={OLD}"), format!(" crashkernel={NOW}")),
        (" crashkernel=300M", " crashkernel=300M".to_owned()),
        (" crashkernel=auto", " crashkernel=auto".to_owned()),
        (" $kernelopts", " $kernelopts".to_owned()),
    ] {
        machine.entry("6.5", words);
        machine.entry("6.1", &format!(" crashkernel={OLD}"));
        machine.does(&[FOR_KERNEL, "6.5"]);
        assert_eq!(machine.words("6.5"), expected, "{words}");
        assert_eq!(machine.words("6.1"), format!(" crashkernel={OLD}"), "another kernel is changed");
        let entries = fs::read_dir(machine.system.root.join("boot/loader/entries")).unwrap().count();
        assert_eq!(entries, 2, "what is left beside an entry stays when the kernel goes");
    }
    // One that has no entry yet, as Debian's postinst.d may come before the entry is made.
    assert_eq!(machine.does(&[FOR_KERNEL, "6.6"]), "");
}

#[test]
fn where_all_kernels_have_one_command_line_a_new_one_has_the_default_put_there_once() {
    let machine = Machine::upgraded();
    machine.system.write("etc/default/grub", b"GRUB_CMDLINE_LINUX=\"\"\n").unwrap();
    machine.system.write("etc/default/grub.d/other.cfg", b"").unwrap();
    machine.does(&[FOR_KERNEL, "6.5"]);
    let ours = format!("GRUB_CMDLINE_LINUX_DEFAULT=\"$GRUB_CMDLINE_LINUX_DEFAULT crashkernel={NOW}\"\n");
    assert_eq!(machine.text(GRUB), ours);
    assert_eq!(machine.does(&[FOR_KERNEL, "6.6"]), "");
    let own = ours.replace(NOW, "300M");
    machine.system.write(GRUB, own.as_bytes()).unwrap();
    machine.does(&[FOR_KERNEL, "6.6"]);
    machine.does(&[AFTER_UPDATE]);
    assert_eq!(machine.text(GRUB), own);
    machine.system.write(GRUB, ours.replace(NOW, OLD).as_bytes()).unwrap();
    machine.does(&[AFTER_UPDATE]);
    assert_eq!(machine.text(GRUB), ours);
}

#[test]
fn debians_kdump_tools_has_a_file_for_it_and_no_new_kernel_brings_that_back() {
    let machine = Machine::upgraded();
    fs::remove_file(machine.system.root.join("etc/kdump.conf")).unwrap();
    machine.system.write("etc/default/kdump-tools", b"USE_KDUMP=1\n").unwrap();
    machine.system.write("etc/os-release", b"ID=debian\n").unwrap();
    machine.system.write("etc/default/grub", b"GRUB_CMDLINE_LINUX=\"\"\n").unwrap();
    assert_eq!(machine.does(&[FOR_KERNEL, "6.5"]), "");
    assert_eq!(machine.text("etc/default/grub"), "GRUB_CMDLINE_LINUX=\"\"\n");
}

#[test]
fn on_debian_no_new_kernel_brings_back_what_was_taken_away() {
    let machine = Machine::upgraded();
    fs::remove_file(machine.system.root.join("etc/kdump.conf")).unwrap();
    for (path, text) in [
        ("etc/kdump/kdump.toml", "path = \"/var/crash\"\n"),
        ("etc/os-release", "ID=debian\n"),
        ("etc/default/grub", "GRUB_CMDLINE_LINUX=\"\"\n"),
        ("etc/default/grub.d/other.cfg", ""),
    ] {
        machine.system.write(path, text.as_bytes()).unwrap();
    }
    assert_eq!(machine.does(&[FOR_KERNEL, "6.5"]), "");
    assert!(!machine.system.root.join(GRUB).exists());
    // An entry of its own never had it.
    fs::remove_file(machine.system.root.join("etc/default/grub")).unwrap();
    machine.entry("6.6", " quiet");
    machine.does(&[FOR_KERNEL, "6.6"]);
    assert!(machine.words("6.6").starts_with(" quiet crashkernel="), "{}", machine.words("6.6"));
}

#[test]
fn in_a_chroot_the_command_line_of_another_system_decides_nothing() {
    for changed in [true, false] {
        let machine = Machine::new();
        machine.enable();
        machine.entry("6.1", " quiet");
        // The kernel that runs has a crashkernel=; it is this system's if the first process has its root.
        let first = machine.system.root.join("proc/1");
        fs::create_dir_all(&first).unwrap();
        symlink(if changed { "/".into() } else { machine.system.root.clone() }, first.join("root")).unwrap();
        machine.does(&[AFTER_UPDATE]);
        let expected = if changed { format!(" quiet crashkernel={NOW}") } else { " quiet".to_owned() };
        assert_eq!(machine.words("6.1"), expected);
    }
}

#[test]
fn what_could_not_be_done_is_done_as_at_first_the_next_time() {
    let machine = Machine::new();
    machine.enable();
    machine.system.write("proc/cmdline", b"root=/dev/vda1\n").unwrap();
    machine.entry("6.1", " quiet");
    machine.system.write("etc/kdump.conf", b"what is that\n").unwrap();
    machine.kdumpctl([AFTER_UPDATE]).0.unwrap_err();
    assert!(!machine.system.root.join(KNOWN).exists(), "a first time that failed is over");
    machine.system.write("etc/kdump.conf", b"path /var/crash\n").unwrap();
    machine.does(&[AFTER_UPDATE]);
    assert_eq!(machine.words("6.1"), format!(" quiet crashkernel={NOW}"));
    assert_eq!(machine.text(KNOWN), format!("{NOW}\n"));
}

#[test]
fn nothing_is_changed_where_that_is_forbidden_or_kdump_is_not_wanted() {
    type Spoil = fn(&Machine);
    let cases: [(&str, Spoil); 5] = [
        ("auto_reset_crashkernel no", |machine| {
            let conf = b"path /var/crash\next4 LABEL=crash\nauto_reset_crashkernel no\n";
            machine.system.write("etc/kdump.conf", conf).unwrap();
        }),
        ("the native word for it", |machine| {
            machine.system.write("etc/kdump/kdump.toml", b"auto_reset_crashkernel = false\n").unwrap();
        }),
        ("USE_KDUMP=0", |machine| {
            fs::remove_file(machine.system.root.join("etc/kdump.conf")).unwrap();
            machine.system.write("etc/default/kdump-tools", b"USE_KDUMP=0\n").unwrap();
        }),
        ("not enabled", |machine| {
            fs::remove_dir_all(machine.system.root.join("etc/systemd")).unwrap();
        }),
        ("masked", |machine| {
            symlink("/dev/null", machine.system.root.join("etc/systemd/system/kdump.service")).unwrap();
        }),
    ];
    for (what, spoil) in cases {
        let machine = Machine::upgraded();
        machine.entry("6.1", &format!(" crashkernel={OLD}"));
        machine.entry("6.5", &format!(" crashkernel={OLD}"));
        spoil(&machine);
        assert_eq!(machine.does(&[AFTER_UPDATE]) + &machine.does(&[FOR_KERNEL, "6.5"]), "", "{what}");
        for release in ["6.1", "6.5"] {
            assert_eq!(machine.words(release), format!(" crashkernel={OLD}"), "{what}");
        }
        // Once it is allowed, this one is an older default as well.
        assert!(machine.text(KNOWN).starts_with(OLD), "{what}");
    }
}

/// SUSE's machine, with these variables, and what its boot loader has.
fn suse(variables: &str, words: &str) -> Machine {
    let machine = Machine::new();
    fs::remove_file(machine.system.root.join("etc/kdump.conf")).unwrap();
    let text = format!("KDUMP_SAVEDIR=/var/crash\nKDUMP_DUMPLEVEL=31\n{variables}\n");
    machine.system.write("etc/sysconfig/kdump", text.as_bytes()).unwrap();
    machine.system.write("proc/meminfo", b"MemTotal: 2000000 kB\n").unwrap();
    machine.entry("6.1", words);
    machine
}

#[test]
fn suses_boot_loader_has_what_is_asked_for_after_a_start_that_could_load_nothing() {
    for (variables, before, after) in [
        ("KDUMP_CRASHKERNEL=\"crashkernel=300M\"", " crashkernel=128M quiet", " crashkernel=300M quiet"),
        ("KDUMP_CRASHKERNEL=\"crashkernel=300M\"", "", " crashkernel=300M"),
        ("KDUMP_CRASHKERNEL=\"crashkernel=300M\"\nKDUMP_UPDATE_BOOTLOADER=false", " quiet", " quiet"),
        // There is no image to measure, so that it is the usual size; one that is near it stays.
        ("KDUMP_UPDATE_BOOTLOADER=true", " crashkernel=64M", " crashkernel=192M"),
        ("KDUMP_CRASHKERNEL=auto", " crashkernel=200M", " crashkernel=200M"),
        ("KDUMP_CRASHKERNEL=auto", " crashkernel=187M", " crashkernel=192M"),
    ] {
        let machine = suse(variables, before);
        machine.system.write("etc/os-release", b"ID=sles\n").unwrap();
        machine.system.write("sys/kernel/kexec_crash_size", b"0\n").unwrap();
        machine.kdumpctl(["start"]).0.unwrap_err();
        assert_eq!(machine.words("6.1"), after, "{variables}");
    }
}

#[test]
fn suses_auto_fits_the_image_after_a_rebuild_and_other_distributions_are_left_alone() {
    let machine = Machine::new();
    machine.system.write("proc/meminfo", b"MemTotal: 2000000 kB\n").unwrap();
    machine.entry("6.1", " crashkernel=1G");
    machine.does(&["start"]);
    assert_eq!(machine.words("6.1"), " crashkernel=1G");

    machine.system.write("etc/sysconfig/kdump", b"KDUMP_CRASHKERNEL=auto\n").unwrap();
    let out = machine.does(&["rebuild"]);
    let words = machine.words("6.1");
    let size: u64 = words.strip_prefix(" crashkernel=").unwrap().strip_suffix('M').unwrap().parse().unwrap();
    assert!((16..192).contains(&size), "the image of a machine without anything takes {size} MiB");
    assert!(out.contains("from the next boot on"), "{out}");
    assert!(!machine.does(&["rebuild"]).contains("from the next boot on"));
    // What is asked for by SUSE's words holds for new kernels, too.
    machine.enable();
    machine.entry("6.5", " crashkernel=1G");
    machine.does(&[FOR_KERNEL, "6.5"]);
    assert_eq!(machine.words("6.5"), words);
}
