//! `kdumpctl config`, and what configured words do to an image, on a machine made of files.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::Machine;
use kdump_builder::fake::{RELEASE, object};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use std::process::{Command, ExitCode};

impl Machine {
    fn with(files: &[(&str, &str)]) -> Self {
        let machine = Machine::new();
        fs::create_dir(machine.system.root.join("out")).unwrap();
        for (path, text) in files {
            machine.system.write(path, text.as_bytes()).unwrap();
        }
        machine
    }

    /// A machine whose only configuration is Debian's.
    fn of_debian(text: &str) -> Self {
        let machine = Machine::with(&[("etc/default/kdump-tools", text)]);
        fs::remove_file(machine.system.root.join("etc/kdump.conf")).unwrap();
        machine
    }

    fn run(&self, words: &[&str]) -> (anyhow::Result<ExitCode>, String) {
        self.kdumpctl(words.iter().copied())
    }

    fn says(&self, words: &[&str]) -> String {
        let (result, out) = self.run(words);
        assert_eq!(result.unwrap(), ExitCode::SUCCESS, "{out}");
        out
    }

    /// Builds an image; what is in it, each line as `lsinitrd` has it, and what was warned of.
    fn image(&self) -> (Vec<String>, String) {
        let (done, warnings) = self.build();
        assert!(done, "{warnings}");
        let manifest = self.file("etc/kdump/manifest");
        (manifest.lines().map(str::to_owned).collect(), warnings)
    }

    fn build(&self) -> (bool, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_mkdumprd"))
            .args(["-f", "--kver", RELEASE, "--sysroot"])
            .arg(&self.system.root)
            .arg("--programs")
            .arg(self.system.programs())
            .arg("out/image")
            .current_dir(&self.system.root)
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    }

    fn file(&self, name: &str) -> String {
        let image = fs::read(self.system.root.join("out/image")).unwrap();
        let mut out = Vec::new();
        kdump_builder::inspect::print(&image, name, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }
}

#[test]
fn check_tells_all_that_is_wrong_and_its_exit_says_whether_anything_is() {
    let machine = Machine::with(&[
        ("etc/kdump.conf", "pth /x\nnfs nas:/x\nfailure_action halt\ncore_collector makedumpfile --refuse\n"),
        ("etc/sysconfig/kdump", "KDUMP_CONTINUE_ON_ERROR=false\nMINE=1\n"),
        ("etc/dracut.conf.d/10-a.conf", "early_microcode=yes\n"),
    ]);
    let (result, out) = machine.run(&["config", "check"]);
    assert_eq!(result.unwrap(), ExitCode::FAILURE);
    for words in [
        "kdump.conf:1: there is no directive `pth`; was `path` meant?\n",
        "kdump.conf:4: the collector: the collector does not take `--refuse`: no --refuse here\n",
        "kdump:1: KDUMP_CONTINUE_ON_ERROR asks for shell, and failure_action at ",
        "kdump:2: MINE has no effect; take the line out\n",
        "10-a.conf:1: early_microcode: only an image for a normal boot has microcode\n",
    ] {
        assert!(out.contains(words), "{words}\n{out}");
    }
    assert!(out.ends_with("3 lines cannot be followed\n"), "{out}");
    let (result, out) = machine.run(&["config", "check", "--json"]);
    assert_eq!(result.unwrap(), ExitCode::FAILURE);
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((found["errors"].as_array().unwrap().len(), found["dialect"].as_str()), (3, Some("RHEL")));

    let good = Machine::with(&[]);
    let out = good.says(&["config", "check"]);
    assert!(out.starts_with("The configuration (RHEL: ") && out.ends_with("kdump.conf) can be followed\n"), "{out}");
    good.system.write("etc/default/kdump-tools", b"USE_KDUMP=1\n").unwrap();
    let (result, out) = good.run(&["config", "check"]);
    assert_eq!(result.unwrap(), ExitCode::FAILURE);
    assert!(out.contains("kdump-tools:1 (`USE_KDUMP`) and ") && out.contains("kdump.conf:1 (`path`)"), "{out}");
}

#[test]
fn show_says_where_each_value_was_written_and_hides_secrets() {
    let machine =
        Machine::of_debian("USE_KDUMP=1\nFTP=nas:/in\nFTP_USER=me\nFTP_PASSWORD=hunter2\nKDUMP_NUM_DUMPS=3\n");
    let out = machine.says(&["config", "show"]);
    let line = |key: &str| out.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key}: {out}"));
    assert!(line("target[1].url = \"ftp://me@nas/in\"").ends_with("etc/default/kdump-tools:2"));
    assert!(line("target[1].password = (set)").ends_with("kdump-tools:2"));
    assert!(line("room.keep = 3").ends_with("kdump-tools:5"));
    assert!(line("path = \"/var/crash\"").ends_with("# the default"));
    let json: Value = serde_json::from_str(&machine.says(&["config", "show", "--json"])).unwrap();
    let all = json["settings"].as_array().unwrap();
    let keep = all.iter().find(|setting| setting["key"] == "room.keep").unwrap();
    assert_eq!((keep["value"].as_u64(), keep["line"].as_u64()), (Some(3), Some(5)));
    assert!(!out.contains("hunter2") && !json.to_string().contains("hunter2"));
}

#[test]
fn convert_writes_what_asks_for_the_same_and_secrets_for_root_alone() {
    let machine = Machine::of_debian("USE_KDUMP=1\nFTP=10.9.8.7:/in\nFTP_USER=me\nFTP_PASSWORD=hunter2\n");
    let (refused, _) = machine.run(&["config", "convert"]);
    assert!(refused.unwrap_err().to_string().contains("name a directory with --secrets DIR"));
    let before = machine.image().0;
    let password = || machine.file("etc/kdump/send/ftp-me@10.9.8.7.password");
    assert_eq!(password(), "hunter2\n");

    let secrets = machine.system.root.join("secrets");
    let to = machine.system.root.join("kdump.toml");
    let words = ["config", "convert", "--to", to.to_str().unwrap(), "--secrets", secrets.to_str().unwrap()];
    machine.says(&words);
    let file = secrets.join("target1.password");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&secrets).unwrap().permissions().mode() & 0o777, 0o700);
    let (again, _) = machine.run(&words);
    assert!(again.unwrap_err().to_string().ends_with("is there already; -f overwrites it"));
    machine.says(&[&words[..], &["-f"]].concat());

    // The file is named as this process sees it, and the image is built below the machine's root.
    let text = fs::read_to_string(&to).unwrap().replace(machine.system.root.to_str().unwrap(), "");
    assert!(!text.contains("hunter2") && text.contains("password_file = \"/secrets/target1.password\""), "{text}");
    machine.system.write("etc/kdump/kdump.toml", text.as_bytes()).unwrap();
    let (after, warnings) = machine.image();
    assert_eq!(after, before, "{warnings}");
    assert_eq!(password(), "hunter2\n");
}

#[test]
fn what_dracut_was_asked_for_is_in_the_image() {
    let conf = "ext4 LABEL=crash\ndracut_args --add-drivers \"unrelated nosuch\" --force-drivers 8021q --install tool \
                --install-optional /nowhere --include /opt/extra /etc/extra --fwdir /opt/firmware --no-compress \
                --kernel-cmdline rd.x=1 --filesystems nfs\n";
    let machine = Machine::with(&[
        ("etc/kdump.conf", conf),
        ("usr/bin/tool", "text"),
        ("opt/extra/sub/file", "text"),
        ("opt/firmware/vendor/disk.bin", "other firmware"),
    ]);
    let (manifest, warnings) = machine.image();
    let reason = |path: &str| {
        let line = manifest.iter().find_map(|line| line.strip_prefix(path)?.strip_prefix('\t'));
        line.unwrap_or_else(|| panic!("{path}: {manifest:#?}"))
    };
    let module = |path: &str| reason(&format!("lib/modules/{RELEASE}/kernel/{path}")).to_owned();
    for path in ["net/unrelated.ko", "net/8021q.ko", "fs/nfs.ko"] {
        assert!(module(path).ends_with("etc/kdump.conf:2 asks for it"), "{}", module(path));
    }
    assert!(reason("usr/bin/tool").ends_with("kdump.conf:2 asks for it"));
    assert!(reason("etc/extra/sub/file").ends_with("kdump.conf:2 includes it"));
    assert_eq!(machine.file("etc/modules-load.d/kdump-first.conf"), "8021q\n");
    assert_eq!(machine.file("lib/firmware/vendor/disk.bin"), "other firmware");
    assert!(warnings.contains("kdump.conf:2: this kernel has no module nosuch; it is left out"), "{warnings}");
    assert!(fs::read(machine.system.root.join("out/image")).unwrap().starts_with(b"070701"));
}

#[test]
fn a_driver_that_is_omitted_is_not_there_and_one_that_the_target_needs_cannot_be() {
    let machine = Machine::with(&[("etc/dracut.conf.d/90-kdump.conf", "omit_drivers+=\" virtio_blk \"\n")]);
    let (manifest, _) = machine.image();
    assert!(!manifest.iter().any(|line| line.contains("virtio_blk")), "{manifest:#?}");
    machine.system.write("etc/kdump.conf", b"ext4 LABEL=crash\ndracut_args --omit-drivers jbd2\n").unwrap();
    let (done, error) = machine.build();
    assert!(!done && error.contains("jbd2"), "{error}");
    machine.system.write("etc/kdump.conf", b"ext4 LABEL=crash\ndracut_conf no\n").unwrap();
    let (manifest, _) = machine.image();
    assert!(manifest.iter().any(|line| line.contains("virtio_blk")), "{manifest:#?}");
}

#[test]
fn debian_s_settings_of_the_capture_kernel_are_in_the_image() {
    let machine = Machine::of_debian("USE_KDUMP=1\nNFS=10.9.8.7:/x\n");
    machine.system.write("etc/kdump/sysctl.conf", b"vm.nr_hugepages=0\n").unwrap();
    machine.image();
    assert_eq!(machine.file("etc/kdump/sysctl.conf"), "vm.nr_hugepages=0\n");
}

#[test]
fn debian_s_switch_kernel_and_image_are_followed() {
    let machine = Machine::of_debian("USE_KDUMP=0\n");
    let (off, _) = machine.run(&["start"]);
    let error = format!("{:#}", off.unwrap_err());
    assert!(
        error.starts_with("kdump is switched off: ") && error.ends_with("kdump-tools:1 does not say USE_KDUMP=1"),
        "{error}"
    );

    let text = "USE_KDUMP=1\nKDUMP_KERNEL=/boot/other-6.1-test\nKDUMP_INITRD=/boot/dump.img\nNFS=10.9.8.7:/x\n\
                KDUMP_CMDLINE_APPEND=\"nr_cpus=1 ip=eth0:dhcp\"\n";
    let machine = Machine::of_debian(text);
    machine.system.write("boot/other-6.1-test", b"another kernel").unwrap();
    machine
        .system
        .write(&format!("lib/modules/{RELEASE}/kernel/net/virtio_net.ko"), &object(&["vermagic=6.1-test SMP"]))
        .unwrap();
    let out = machine.says(&["start"]);
    let loaded = "boot/other-6.1-test with ";
    assert!(out.contains(loaded) && machine.system.root.join("boot/dump.img").is_file(), "{out}");
    let journal = machine.kexec.journal.borrow();
    assert!(
        journal[0].starts_with("load another kernel ") && journal[0].contains("nr_cpus=1 ip=eth0:dhcp"),
        "{journal:?}"
    );
}

#[test]
fn options_for_dracut_s_command_line_are_on_the_capture_kernel_s() {
    let machine =
        Machine::with(&[("etc/kdump.conf", "ext4 LABEL=crash\ndracut_args --kernel-cmdline 'rd.timeout=5'\n")]);
    machine.says(&["start"]);
    let journal = machine.kexec.journal.borrow();
    assert!(journal[0].contains(" irqpoll ") && journal[0].contains(" rd.timeout=5"), "{journal:?}");
}
