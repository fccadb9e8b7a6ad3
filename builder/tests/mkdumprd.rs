//! The commands `mkdumprd` and `lsinitrd` as they are run, on a machine made of files.
#![allow(clippy::unwrap_used, reason = "tests")]

use kdump_builder::fake::{FakeSystem, RELEASE, object};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

fn system() -> (TempDir, FakeSystem) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("out")).unwrap();
    let system = FakeSystem::new(dir.path()).unwrap();
    (dir, system)
}

fn command(system: &FakeSystem, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mkdumprd"));
    command.args(["--kver", RELEASE, "--sysroot"]).arg(&system.root).arg("--programs").arg(system.programs());
    command.args(arguments).current_dir(&system.root).env_remove("SOURCE_DATE_EPOCH");
    command
}

fn mkdumprd(system: &FakeSystem, arguments: &[&str]) -> Output {
    command(system, arguments).output().unwrap()
}

fn built(system: &FakeSystem, arguments: &[&str]) -> Vec<u8> {
    let output = mkdumprd(system, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read(system.root.join("out/image")).unwrap()
}

fn lsinitrd(arguments: &[&Path]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_mkdumprd")).arg0("lsinitrd").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Path and reason of every entry.
fn reasons(system: &FakeSystem) -> BTreeMap<String, String> {
    let manifest = lsinitrd(&[&system.root.join("out/image"), Path::new("/etc/kdump/manifest")]);
    manifest.lines().map(|line| line.split_once('\t').unwrap()).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

#[test]
fn an_image_for_an_nfs_target_has_its_file_system_network_and_drivers() {
    let (_dir, system) = system();
    system.write("etc/kdump.conf", b"path /dumps\nnfs nas.example:/srv/crash\n").unwrap();
    system.write("etc/fstab", b"nas.example:/srv/crash /mnt nfs4 defaults,port=2050 0 0\n").unwrap();
    system.write("etc/sysconfig/kdump", b"KDUMP_COMMANDLINE_APPEND=\"vlan=v7:eno1 ip=v7:dhcp\"\n").unwrap();
    built(&system, &["out/image"]);
    let reasons = reasons(&system);
    let module = |path: &str| reasons.get(&format!("lib/modules/{RELEASE}/kernel/{path}")).map(String::as_str);
    assert_eq!(module("fs/nfsv4.ko"), Some("file system of the target nfs nas.example:/srv/crash"));
    assert_eq!(module("net/virtio_net.ko"), Some("driver of virtual machines: eno1 is not here"));
    assert_eq!(module("net/8021q.ko"), Some("the interface v7 is a vlan"));
    assert_eq!(module("fs/ext4.ko"), None);
    let config = lsinitrd(&[&system.root.join("out/image"), Path::new("etc/kdump/image.toml")]);
    assert!(config.contains("options = [\"port=2050\"]") && config.contains("parent = \"eno1\""), "{config}");

    system.write("etc/sysconfig/kdump", b"KDUMP_COMMANDLINE_APPEND=\"ip=ibft\"\n").unwrap();
    let output = mkdumprd(&system, &["-f", "out/image"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("cannot follow `ip=ibft`"), "{error}");
}

#[test]
fn an_image_that_sends_its_dump_has_the_program_a_key_and_the_host_s_keys() {
    let (_dir, system) = system();
    built(&system, &["out/image"]);
    assert!(!reasons(&system).contains_key("usr/bin/kdump-send"), "it is in the image of a local target");
    system.write("etc/kdump.conf", b"path /srv/crash\nssh dump@10.9.8.7\nsshkey /root/key\n").unwrap();
    let refused = |words: &str| {
        let output = mkdumprd(&system, &["-f", "out/image"]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(words), "{error}");
    };
    refused("`kdumpctl propagate` makes and installs one");
    system
        .write("root/key", b"-----BEGIN RSA PRIVATE KEY-----\nAAAAKEYKEYKE\n-----END RSA PRIVATE KEY-----\n")
        .unwrap();
    refused("no key of the host 10.9.8.7 is known");
    system.write("etc/ssh/ssh_known_hosts", b"10.9.8.7 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5\n").unwrap();
    built(&system, &["-f", "out/image"]);
    let all = reasons(&system);
    assert_eq!(all["usr/bin/kdump-send"], "delivers to the target ssh://dump@10.9.8.7/srv/crash");
    let image = system.root.join("out/image");
    let file = |name: &str| lsinitrd(&[&image, Path::new(name)]);
    assert_eq!(
        file("etc/kdump/send/ssh-10.9.8.7.key"),
        "-----BEGIN RSA PRIVATE KEY-----\nAAAAKEYKEYKE\n-----END RSA PRIVATE KEY-----\n"
    );
    assert_eq!(file("etc/kdump/send/ssh-10.9.8.7.hosts"), "10.9.8.7 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5\n");
    assert!(!file("etc/kdump/image.toml").contains("KEYKEY"));
    let list = lsinitrd(&[&image]);
    let line = list.lines().find(|line| line.contains("ssh-10.9.8.7.key")).unwrap();
    assert!(line.starts_with("-rw-------"), "{line}");

    let two = "[[target]]\nkind = \"remote\"\nurl = \"ftp://a:one@10.9.8.7/x\"\n[[target]]\nkind = \"remote\"\n\
               url = \"ftp://b:two@10.9.8.7/x\"\n";
    system.write("etc/kdump/kdump.toml", two.as_bytes()).unwrap();
    built(&system, &["-f", "out/image"]);
    assert_eq!(file("etc/kdump/send/ftp-a@10.9.8.7.password"), "one\n");
    assert_eq!(file("etc/kdump/send/ftp-b@10.9.8.7.password"), "two\n");
}

#[test]
fn a_module_that_the_kernel_would_refuse_is_as_good_as_missing() {
    let (_dir, system) = system();
    let enforce = |word: &str| system.write("sys/module/module/parameters/sig_enforce", word.as_bytes()).unwrap();
    enforce("N\n");
    let output = mkdumprd(&system, &["out/image"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("tainted by them: it has no signature") && said.contains("crc16, crc32c, ext4"), "{said}");
    enforce("Y\n");
    let output = mkdumprd(&system, &["-f", "out/image"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    for expected in
        ["would refuse the module", "ext4", "no signature", "module.sig_enforce", "install the signed package"]
    {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[test]
fn keys_and_policy_come_along_on_demand_and_secrets_are_for_root_alone() {
    let (_dir, system) = system();
    let certificate = include_bytes!("../../hooks/tests/data/module-signer.der");
    for (path, bytes) in [
        ("etc/sysconfig/masterkey", &b"MASTERKEYTYPE=user\n"[..]),
        ("etc/keys/kmk-user.blob", b"master"),
        ("etc/keys/evm-trusted.blob", b"default user:kmk-user 64 00"),
        ("etc/keys/ima/ours.der", certificate),
        ("etc/keys/modsign/ours.der", certificate),
        ("etc/sysconfig/ima-policy", b"measure func=BPRM_CHECK\n"),
    ] {
        system.write(path, bytes).unwrap();
    }
    for (conf, options) in [
        ("", &["--normal", "--integrity", "--modsign", "out/image"][..]),
        // dracut's words for them, for either image.
        ("", &["--normal", "-f", "--add", "integrity modsign", "out/image"]),
        ("", &["-f", "--add", "masterkey modsign", "out/image"]),
        (
            "[[target]]\nkind = \"filesystem\"\ntype = \"ext4\"\ndevice = \"LABEL=crash\"\n[image]\nintegrity = true\nmodsign = true\n",
            &["-f", "out/image"],
        ),
    ] {
        if !conf.is_empty() {
            system.write("etc/kdump/kdump.toml", conf.as_bytes()).unwrap();
        }
        built(&system, options);
        let image = system.root.join("out/image");
        let list = lsinitrd(&[&image]);
        for (mode, name) in [
            ("-rw-------", "etc/keys/kmk-user.blob"),
            ("-rw-------", "etc/keys/evm-trusted.blob"),
            ("-rw-r--r--", "etc/keys/ima/ours.der"),
            ("-rw-r--r--", "etc/keys/modsign/ours.der"),
        ] {
            assert!(list.lines().any(|line| line.starts_with(mode) && line.contains(name)), "{mode} {name}: {list}");
        }
        let toml = lsinitrd(&[&image, Path::new("etc/kdump/image.toml")]);
        assert!(toml.contains("policy = \"/etc/sysconfig/ima-policy\""), "{toml}");
        assert!(!toml.contains("master\""), "{toml}");
        assert_eq!(fs::metadata(&image).unwrap().permissions().mode() & 0o777, 0o600);
    }
    system.write("etc/sysconfig/ima", b"IMAPOLICY=/none\n").unwrap();
    let output = mkdumprd(&system, &["-f", "out/image"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("kdump.toml:6: integrity") && said.contains("ima:1: IMAPOLICY: there is no file /none"),
        "{said}"
    );
}

#[test]
fn an_image_has_what_its_target_needs_and_says_why() {
    let (_dir, system) = system();
    built(&system, &["out/image"]);
    let reasons = reasons(&system);
    let module = |path: &str| reasons.get(&format!("lib/modules/{RELEASE}/kernel/{path}")).map(String::as_str);
    assert_eq!(module("fs/ext4.ko"), Some("file system of the target ext4 LABEL=crash"));
    assert_eq!(module("lib/jbd2.ko"), Some("needed by ext4"));
    assert_eq!(module("lib/crc32c.ko"), Some("ext4 asks for it when mounted"));
    assert_eq!(module("lib/gcm.ko"), Some("ext4 may ask for it"));
    assert!(module("block/virtio_blk.ko").unwrap().contains("not on this machine; unpacked, because"));
    assert_eq!(module("net/unrelated.ko"), None);
    assert_eq!(reasons["lib/firmware/vendor/disk.bin"], "firmware of virtio_blk");
    assert_eq!(reasons["init"], "PID 1");
    let image = system.root.join("out/image");
    let file = |name: &str| lsinitrd(&[&image, Path::new(name)]);
    assert!(file("etc/kdump/image.toml").contains("device = \"LABEL=crash\""));
    let dep = file(&format!("lib/modules/{RELEASE}/modules.dep"));
    assert!(
        dep.contains("kernel/block/virtio_blk.ko: kernel/virtio/virtio.ko\n") && !dep.contains("unrelated"),
        "{dep}"
    );
    assert_eq!(file(&format!("lib/modules/{RELEASE}/modules.softdep")), "softdep ext4 gcm\n");
    assert_eq!(file(&format!("lib/modules/{RELEASE}/modules.builtin.modinfo")), "ahci.alias=pci:v8086*\0");
    let list = lsinitrd(&[&image]);
    assert!(list.contains("lrwxrwxrwx         5 sbin/modprobe -> /init"), "{list}");
    assert!(list.contains("crw-------       5,1 dev/console"), "{list}");
}

#[test]
fn two_runs_give_the_same_bytes() {
    let (_dir, system) = system();
    let first = built(&system, &["out/image"]);
    assert_eq!(first, built(&system, &["-f", "out/image"]));
}

#[test]
fn an_image_is_compressed_for_a_kernel_that_unpacks_it_unless_told_otherwise() {
    let (_dir, system) = system();
    let plain = built(&system, &["out/image"]);
    let list = |system: &FakeSystem| {
        let list = lsinitrd(&[&system.root.join("out/image")]);
        let mut lines: Vec<String> =
            list.lines().filter(|line| line.contains('/') || !line.contains("bytes")).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let plain_list = list(&system);
    system.write(&format!("boot/config-{RELEASE}"), b"CONFIG_RD_ZSTD=y\n").unwrap();
    let packed = built(&system, &["-f", "--compress", "zstd", "out/image"]);
    assert!(built(&system, &["-f", "out/image"]) == packed, "two runs differ");
    assert!(packed.len() * 2 < plain.len(), "{} {}", packed.len(), plain.len());
    assert_eq!(list(&system), plain_list);
    assert!(built(&system, &["-f", "--compress", "none", "out/image"]) == plain, "two runs differ");
}

#[test]
fn every_packing_is_read_back_and_refused_for_a_kernel_that_lacks_it() {
    let (_dir, system) = system();
    let words =
        |option: &str| system.write(&format!("boot/config-{RELEASE}"), format!("{option}=y\n").as_bytes()).unwrap();
    let toml = |how: &str, option: &str| {
        words(option);
        let image = built(&system, &["-f", "--compress", how, "out/image"]);
        assert!(built(&system, &["-f", "--compress", how, "out/image"]) == image, "{how}: two runs differ");
        lsinitrd(&[&system.root.join("out/image"), Path::new("etc/kdump/image.toml")])
    };
    let plain = toml("none", "CONFIG_X");
    for (how, option) in [("gzip", "CONFIG_RD_GZIP"), ("xz", "CONFIG_RD_XZ"), ("lz4", "CONFIG_RD_LZ4")] {
        assert_eq!(toml(how, option), plain, "{how}");
        words("CONFIG_RD_ZSTD");
        let output = mkdumprd(&system, &["-f", "--compress", how, "out/image"]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(&format!("cannot unpack {how} ({option} is not set), only zstd")), "{error}");
    }
}

#[test]
fn a_plan_says_what_would_be_in_the_image_and_writes_nothing() {
    let (_dir, system) = system();
    let output = mkdumprd(&system, &["--plan"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    for line in ["      329 ext4: file system of the target ext4 LABEL=crash", " /init: PID 1", "crashkernel="] {
        assert!(text.contains(line), "{text}");
    }
    let output = mkdumprd(&system, &["--plan", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["targets"][0], "ext4 LABEL=crash");
    assert!(json["modules"].as_array().unwrap().iter().any(|module| module["name"] == "ext4"), "{json}");
    assert!(
        json["memory"]["image"].as_u64().unwrap() > 1000 && json["crashkernel"].as_u64().unwrap() > 64 << 20,
        "{json}"
    );
    assert_eq!(fs::read_dir(system.root.join("out")).unwrap().count(), 0);
}

#[test]
fn who_has_seen_enough_of_a_plan_is_no_error() {
    let (_dir, system) = system();
    for how in [&["--plan"][..], &["--plan", "--json"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command(&system, how).stdout(writer).output().unwrap();
        assert!(output.status.success(), "{how:?}: {output:?}");
    }
}

#[test]
fn all_that_is_in_the_way_of_a_plan_is_told_at_once() {
    let (_dir, system) = system();
    let conf = b"xfs LABEL=x\nextra_modules nosuch\nextra_bins /opt/none\ncore_collector makedumpfile --refuse\n";
    system.write("etc/kdump.conf", conf).unwrap();
    system.write(&format!("boot/config-{RELEASE}"), b"CONFIG_RD_GZIP=y\n").unwrap();
    let output = mkdumprd(&system, &["--plan", "--compress", "xz"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    let words = ["CONFIG_RD_XZ", "module xfs is missing", "module nosuch is missing", "/opt/none", "core_collector"];
    for problem in words {
        assert!(error.contains(problem), "`{problem}` is not in: {error}");
    }
}

#[test]
fn an_image_above_its_budget_is_not_written() {
    let (_dir, system) = system();
    for (option, words) in [("--max-size=1K", "--max-size is 1024"), ("--max-memory=8M", "--max-memory is 8388608")] {
        let output = mkdumprd(&system, &[option, "out/image"]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(words), "{error}");
    }
    assert_eq!(fs::read_dir(system.root.join("out")).unwrap().count(), 0);
    built(&system, &["--max-size", "50M", "--max-memory", "1G", "out/image"]);
}

#[test]
fn dracut_s_words_ask_modules_and_files_into_an_image_and_others_are_refused_by_name() {
    let (_dir, system) = system();
    system.write("opt/data/b", b"hello").unwrap();
    system.write("opt/tool", b"a program").unwrap();
    let words = [
        "-N",
        "--gzip",
        "--add-drivers",
        " unrelated  gcm ",
        "-I",
        "/opt/tool",
        "-i",
        "/opt/data",
        "/else",
        "-o",
        "out/image",
    ];
    built(&system, &words);
    let all = reasons(&system);
    assert_eq!(all[&format!("lib/modules/{RELEASE}/kernel/net/unrelated.ko")], "--add-drivers asks for it");
    assert_eq!((all["opt/tool"].as_str(), all["else/b"].as_str()), ("--install asks for it", "--include includes it"));
    // The link stays.
    std::os::unix::fs::symlink("image", system.root.join("out/link")).unwrap();
    built(&system, &["-f", "--omit-drivers", "gcm", "out/link"]);
    assert!(system.root.join("out/link").is_symlink());
    assert!(!reasons(&system).contains_key(&format!("lib/modules/{RELEASE}/kernel/lib/gcm.ko")));
    // Those of dracut's that are none of ours are followed as dracut_args is.
    system.write("etc/kdump.conf", b"ext4 LABEL=crash\n").unwrap();
    let dracut =
        ["-f", "--xz", "-q", "--stdlog", "3", "--force-drivers=gcm", "--filesystems", "nfs", "--no-hostonly-i18n"];
    built(&system, &[&dracut[..], &["--install-optional", "/opt/tool", "out/image"]].concat());
    let all = reasons(&system);
    assert_eq!(all[&format!("lib/modules/{RELEASE}/kernel/fs/nfs.ko")], "--filesystems asks for it");
    assert_eq!(all["opt/tool"], "--install-optional asks for it");
    let first = lsinitrd(&[&system.root.join("out/image"), Path::new("etc/modules-load.d/kdump-first.conf")]);
    assert_eq!(first, "gcm\n");
    let said = String::from_utf8_lossy(&mkdumprd(&system, &["--xz", "--plan", "--json"]).stdout).into_owned();
    assert!(said.contains("\"compress\": \"xz\""), "{said}");
    built(&system, &["-f", "--mount", "nas.example:/other /mnt nfs4 defaults", "out/image"]);
    let toml = lsinitrd(&[&system.root.join("out/image"), Path::new("etc/kdump/image.toml")]);
    assert!(toml.contains("export = \"/other\"") && !toml.contains("LABEL=crash"), "{toml}");
    for (words, expected) in [
        (&["--add", "fips", "out/image"][..], "--add: dracut's module `fips` is not supported: no self-test"),
        (
            &["--drivers", "x", "out/image"],
            "--drivers is not followed: an image has what its target needs; use --add-drivers",
        ),
        (&["--lzo", "out/image"], "--lzo: an image is not packed with `lzo` here"),
        (&["--confdir", "/x", "out/image"], "--confdir is not followed"),
        (&["--uefi"], "--uefi is not followed: make the unified image of kernel and image with ukify"),
        (&["-o", "plymouth"], "-o names the image here, and `plymouth` looks like none; write --omit plymouth"),
        (&["-o", "a.img", "6.1", "6.2"], "-o names the image, a.img, and two other words stand behind it"),
        (&["-o", "a.img", "6.1"], "two kernels are named, 6.1-test and 6.1; keep one"),
    ] {
        let output = mkdumprd(&system, &[&["-f"], words].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(expected), "{words:?}: {error}");
    }
    let kmoddir = Command::new(env!("CARGO_BIN_EXE_mkdumprd")).args(["-k", "/lib/modules/6.1", "x.img"]).output();
    let error = String::from_utf8_lossy(&kmoddir.unwrap().stderr).into_owned();
    assert!(error.contains("write --kmoddir /lib/modules/6.1"), "{error}");
}

#[test]
fn what_a_command_line_asks_for_and_cannot_have_is_told_by_the_name_of_the_option() {
    let (_dir, system) = system();
    for (words, expected) in [
        (["--add-drivers", "gcm nosuch"], "--add-drivers: this kernel has no module nosuch; take it out"),
        (["--omit-drivers", "ext4"], "ext4 is forbidden by --omit-drivers, so there can be no ext4"),
        (["--install", "nosuch"], "--install: install: nosuch is in none of"),
    ] {
        let output = mkdumprd(&system, &[words[0], words[1], "out/image"]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(expected), "{error}");
    }
}

#[test]
fn modules_stay_packed_for_a_kernel_that_unpacks_them() {
    let (_dir, system) = system();
    let config = b"CONFIG_MODULE_COMPRESS_XZ=y\nCONFIG_MODULE_DECOMPRESS=y\n";
    system.write(&format!("boot/config-{RELEASE}"), config).unwrap();
    built(&system, &["out/image"]);
    let path = format!("lib/modules/{RELEASE}/kernel/block/virtio_blk.ko.xz");
    assert!(!reasons(&system)[&path].contains("unpacked"));
    let dep = lsinitrd(&[&system.root.join("out/image"), Path::new(&format!("lib/modules/{RELEASE}/modules.dep"))]);
    assert!(dep.contains("virtio_blk.ko.xz:"), "{dep}");
}

#[test]
fn a_program_comes_with_its_interpreter_and_libraries() {
    let (_dir, system) = system();
    system
        .write(
            "etc/kdump.conf",
            b"ext4 LABEL=x\nextra_bins /opt/tool /etc/motd\ncore_collector /opt/tool makedumpfile -d 1\n",
        )
        .unwrap();
    system.write("opt/tool", b"#!/opt/runner -x\n").unwrap();
    system.write("opt/runner", &kdump_builder::fake::object(&[])).unwrap();
    system.write("etc/motd", b"hello").unwrap();
    built(&system, &["out/image"]);
    let reasons = reasons(&system);
    assert_eq!(reasons["opt/runner"], "interpreter of /opt/tool");
    assert_eq!(reasons["etc/motd"], "extra_bins names it");
    let toml = lsinitrd(&[&system.root.join("out/image"), Path::new("etc/kdump/image.toml")]);
    assert!(toml.contains("[\"/opt/tool\", \"kdump-capture\", \"-d\", \"1\"]"), "{toml}");
}

#[test]
fn the_administrators_module_options_come_along_and_count() {
    let (_dir, system) = system();
    system.write("etc/modprobe.d/a.conf", b"install gcm /sbin/special\nblacklist crc32c\n").unwrap();
    system.write("usr/lib/modprobe.d/a.conf", b"install ext4 /bin/false\n").unwrap();
    let output = mkdumprd(&system, &["out/image"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("`install gcm /sbin/special`: an image has no shell"), "{said}");
    let reasons = reasons(&system);
    assert!(reasons.contains_key("etc/modprobe.d/a.conf"));
    for module in ["crc32c", "gcm"] {
        assert!(!reasons.contains_key(&format!("lib/modules/{RELEASE}/kernel/lib/{module}.ko")), "{module}");
    }
    system.write("etc/modprobe.d/a.conf", b"install crc16 /bin/false\n").unwrap();
    let output = mkdumprd(&system, &["-f", "out/image"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("modprobe.d has `install crc16 /bin/false`, so there can be no ext4"), "{said}");
}

#[test]
fn what_the_system_loads_at_boot_comes_along_and_so_does_what_may_be_asked_for_later() {
    let (_dir, system) = system();
    system.write("etc/modules-load.d/a.conf", b"# why\nunrelated\nnosuch\n").unwrap();
    system.write("etc/sysconfig/kdump", b"KDUMP_COMMANDLINE_APPEND=\"irqpoll rd.driver.pre=early,nosuch\"\n").unwrap();
    system.write("usr/lib/modules-load.d/a.conf", b"shadowed\n").unwrap();
    system.write("etc/modprobe.d/a.conf", b"weakdep jbd2 crypto-crc32c\nalias nosuch off\ninclude b\n").unwrap();
    let dep = format!("lib/modules/{RELEASE}/modules.dep");
    let lines = fs::read_to_string(system.root.join(&dep)).unwrap() + "kernel/lib/early.ko:\n";
    system.write(&dep, lines.as_bytes()).unwrap();
    system.write(&format!("lib/modules/{RELEASE}/kernel/lib/early.ko"), &object(&["vermagic=6.1-test SMP"])).unwrap();
    let output = mkdumprd(&system, &["out/image"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("etc/modprobe.d/a.conf:3: is no longer a directive"), "{said}");
    let reasons = reasons(&system);
    let module = |path: &str| reasons.get(&format!("lib/modules/{RELEASE}/kernel/{path}")).map(String::as_str);
    assert!(module("net/unrelated.ko").unwrap().ends_with("etc/modules-load.d/a.conf names it"));
    assert!(module("lib/crc32c.ko").is_some());
    assert_eq!(module("lib/early.ko"), Some("rd.driver.pre= in KDUMP_COMMANDLINE_APPEND names it"));
    let image = system.root.join("out/image");
    assert_eq!(lsinitrd(&[&image, Path::new("etc/modules-load.d/kdump.conf")]), "unrelated\nnosuch\n");
}

#[test]
fn what_is_forbidden_or_damaged_stays_out_with_its_reason_and_stops_nothing_that_can_do_without() {
    let (_dir, system) = system();
    let module = |path: &str| format!("lib/modules/{RELEASE}/kernel/{path}.ko");
    // unrelated is damaged, top needs it, and gcm is a soft dependency.
    system.write("etc/modules-load.d/a.conf", b"top\nnfs\nnet\nvirtio_net\n").unwrap();
    let dep = format!("lib/modules/{RELEASE}/modules.dep");
    let lines = fs::read_to_string(system.root.join(&dep)).unwrap() + "kernel/lib/top.ko: kernel/net/unrelated.ko\n";
    system.write(&dep, lines.as_bytes()).unwrap();
    system.write(&module("lib/top"), &object(&["vermagic=6.1-test SMP"])).unwrap();
    system.write(&module("net/unrelated"), b"not a module").unwrap();
    system.write("etc/kdump.conf", b"ext4 LABEL=crash\nforbid_modules gcm nothing\n").unwrap();
    let append = b"KDUMP_COMMANDLINE_APPEND=\"rd.kdump.forbid=sunrpc rd.driver.blacklist=virtio-net,unrelated\"\n";
    system.write("etc/sysconfig/kdump", append).unwrap();
    let output = mkdumprd(&system, &["out/image"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for words in [
        "module unrelated is not in the image: ",
        "unrelated.ko is damaged: ",
        "module top is not in the image: it needs unrelated, which is left out",
        "module sunrpc is not in the image: sunrpc is forbidden (rd.kdump.forbid= or forbid_modules)",
        "module nfs is not in the image: it needs sunrpc, which is left out",
    ] {
        assert!(said.contains(words), "`{words}` is not in: {said}");
    }
    let reasons = reasons(&system);
    for out in ["net/unrelated", "lib/top", "net/sunrpc", "fs/nfs", "lib/gcm"] {
        assert!(!reasons.contains_key(&module(out)), "{out} is in the image");
    }
    // A blacklist keeps no module from who calls it by its name.
    assert!(reasons.contains_key(&module("net/virtio_net")) && reasons.contains_key(&module("fs/ext4")));
    let toml = lsinitrd(&[&system.root.join("out/image"), Path::new("etc/kdump/image.toml")]);
    assert!(toml.contains("forbid = [\"gcm\", \"nothing\"]"), "{toml}");

    system.write("etc/kdump.conf", b"ext4 LABEL=crash\nextra_modules nfs\n").unwrap();
    let output = mkdumprd(&system, &["-f", "out/image"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("sunrpc is forbidden") && said.contains("there can be no nfs (extra_modules"), "{said}");
}

#[test]
fn the_target_is_what_holds_the_path_where_that_can_be_told() {
    let (_dir, system) = system();
    system.write("etc/kdump.conf", b"path /var/crash\n").unwrap();
    system
        .write(
            "proc/self/mountinfo",
            b"1 0 254:1 / / rw - ext4 /dev/vda1 rw\n2 1 254:2 / /var rw - ext4 /dev/root rw\n",
        )
        .unwrap();
    system.write("sys/dev/block/254:2/uevent", b"DEVNAME=vda2\n").unwrap();
    system.write("sys/class/block/vda2/modalias", b"").unwrap();
    system.write("dev/vda2", b"").unwrap();
    fs::create_dir_all(system.root.join("dev/disk/by-uuid")).unwrap();
    std::os::unix::fs::symlink("../../vda2", system.root.join("dev/disk/by-uuid/12-34")).unwrap();
    built(&system, &["out/image"]);
    let toml = lsinitrd(&[&system.root.join("out/image"), Path::new("etc/kdump/image.toml")]);
    assert!(toml.contains("path = \"/crash\"") && toml.contains("device = \"UUID=12-34\""), "{toml}");
}

/// A machine whose root can be seen.
fn with_a_root(system: &FakeSystem) {
    system.write("proc/self/mountinfo", b"1 0 254:1 / / rw - ext4 /dev/vda1 rw\n").unwrap();
    system.write("sys/class/block/vda1/modalias", b"").unwrap();
    system.write("dev/vda1", b"").unwrap();
    fs::create_dir_all(system.root.join("dev/disk/by-uuid")).unwrap();
    std::os::unix::fs::symlink("../../vda1", system.root.join("dev/disk/by-uuid/12-34")).unwrap();
}

#[test]
fn an_image_for_a_normal_boot_has_what_the_root_needs_and_no_collector() {
    let (_dir, system) = system();
    with_a_root(&system);
    system.write("etc/kdump.conf", b"this line counts for another image\n").unwrap();
    system.write("etc/sysctl.conf", b"kernel.panic = 9\n").unwrap();
    let output = mkdumprd(&system, &["--normal", "out/image"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("boots UUID=12-34"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let reasons = reasons(&system);
    assert_eq!(reasons[&format!("lib/modules/{RELEASE}/kernel/fs/ext4.ko")], "file system of the root");
    for path in ["init", "sysroot", "etc/initrd-release", "sbin/modprobe"] {
        assert!(reasons.contains_key(path), "{path}");
    }
    for path in ["usr/bin/kdump-capture", "usr/bin/kdumpctl", "etc/sysctl.conf"] {
        assert!(!reasons.contains_key(path), "{path}");
    }
    let toml = lsinitrd(&[&system.root.join("out/image"), Path::new("etc/kdump/image.toml")]);
    assert!(toml.contains("[normal]\nroot = \"UUID=12-34\"\nrootfstype = \"ext4\"\n"), "{toml}");
}

#[test]
fn an_image_for_a_normal_boot_has_what_dracut_and_initramfs_tools_put_into_every_image() {
    let (_dir, system) = system();
    with_a_root(&system);
    system.write("etc/kdump.conf", b"dracut_args --add-drivers nfs\n").unwrap();
    let conf =
        b"add_drivers+=\" unrelated \"\nomit_drivers+=\" floppy \"\ninitrdname=\"initrd-$kernel\"\ncompress=xz\n";
    system.write("etc/dracut.conf.d/own.conf", conf).unwrap();
    system.write("etc/initramfs-tools/modules", b"# these\n8021q\n").unwrap();
    system.write("opt/tool", b"a program").unwrap();
    let words =
        ["--normal", "-I", "/opt/tool", "--force-drivers", "gcm", "--add-drivers", "gcm", "-f", "-o", "out/image"];
    built(&system, &words);
    // As mkinitramfs is called: the image in front and the kernel behind.
    let output = Command::new(env!("CARGO_BIN_EXE_mkdumprd"))
        .args(["--normal", "-r", ".", "-f", "-o", "out/second", RELEASE, "--programs"])
        .arg(system.programs())
        .current_dir(&system.root)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&mkdumprd(&system, &["--normal", "--plan", "--json"]).stdout).into_owned();
    assert!(said.contains("\"compress\": \"xz\""), "dracut.conf says how it is packed: {said}");
    let all = reasons(&system);
    let module = |path: &str| all.get(&format!("lib/modules/{RELEASE}/kernel/{path}")).map(String::as_str);
    assert!(module("net/unrelated.ko").unwrap().ends_with("etc/dracut.conf.d/own.conf:1 asks for it"), "{all:#?}");
    assert!(module("net/8021q.ko").unwrap().ends_with("etc/initramfs-tools/modules:2 asks for it"), "{all:#?}");
    assert_eq!((module("fs/nfs.ko"), all["opt/tool"].as_str()), (None, "--install asks for it"));
    let file = |path: &str| lsinitrd(&[&system.root.join("out/image"), Path::new(path)]);
    assert_eq!(file("etc/modules-load.d/kdump-first.conf"), "8021q\ngcm\n");
    assert!(file("etc/kdump/image.toml").contains("forbid = [\"floppy\"]"), "{}", file("etc/kdump/image.toml"));
    built(&system, &["--normal", "-N", "-f", "out/image"]);
    for (words, expected) in [
        (["--mount", "a:/b /c nfs"], "--mount is about a dump, and an image for a normal boot saves none"),
        (["--add-drivers", "nosuch"], "--add-drivers: this kernel has no module nosuch"),
    ] {
        let output = mkdumprd(&system, &["--normal", "-f", words[0], words[1], "out/image"]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(expected), "{error}");
    }
    system.write("etc/dracut.conf.d/own.conf", b"add_drivers+=\" $(x) \"\n").unwrap();
    let output = mkdumprd(&system, &["--normal", "-f", "out/image"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("own.conf:1: add_drivers: `$` asks a shell"), "{error}");
}

#[test]
fn a_normal_image_brings_the_installed_live_patches_along_and_kpatch_keeps_them_up_to_date() {
    use kdump_hooks::livepatch::{Identity, Store, overlay};
    let (_dir, system) = system();
    let patch = ["name=kpatch_1", "livepatch=Y", "vermagic=6.1-test SMP", "depends=virtio"];
    system.write("root/kpatch-1.ko", &object(&patch)).unwrap();
    let store = Store::below(&system.root);
    let installed = store.install(&Identity::read(&system.root.join("root/kpatch-1.ko")).unwrap(), RELEASE).unwrap();
    fs::create_dir_all(system.root.join("boot/efi")).unwrap();
    let image = system.root.join("boot/efi/normal.img");
    let arguments = ["--normal", "--livepatch", "--compress", "zstd", "boot/efi/normal.img"];
    let output = mkdumprd(&system, &arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("kpatch-booted.service is not enabled"), "{said}");
    let list = lsinitrd(&[&image]);
    let path = format!("var/lib/kpatch/{RELEASE}/kpatch-1.ko");
    assert!(list.contains(&path) && list.contains("kernel/virtio/virtio.ko"), "{list}");
    let toml = lsinitrd(&[&image, Path::new("etc/kdump/image.toml")]);
    assert!(toml.contains("[hooks.livepatch]"), "{toml}");

    let (before, plain) = (fs::read(&image).unwrap(), lsinitrd(&[&image, Path::new("etc/kdump/manifest")]));
    store.uninstall(&installed).unwrap();
    assert_eq!(overlay::refresh(&system.root, &store, RELEASE).unwrap().written, std::slice::from_ref(&image));
    assert!(!lsinitrd(&[&image]).contains("kpatch-1") && fs::read(&image).unwrap().len() < before.len());
    assert_eq!(lsinitrd(&[&image, Path::new("etc/kdump/manifest")]), plain);

    let foreign = ["name=kpatch_1", "livepatch=Y", "vermagic=6.2-other SMP"];
    system.write(&path, &object(&foreign)).unwrap();
    let output = mkdumprd(&system, &["--normal", "--livepatch", "out/image"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("was built for kernel 6.2-other; uninstall it"), "{error}");
    let output = mkdumprd(&system, &["--livepatch", "out/image"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("--normal"));
}

#[test]
fn a_normal_image_brings_the_capture_kernel_and_sysctl_files_along_on_demand() {
    let (_dir, system) = system();
    system.write("etc/sysctl.d/10-x.conf", b"kernel.panic = 9\n").unwrap();
    // As on a Debian with systemd and without procps.
    std::os::unix::fs::symlink("../sysctl.conf", system.root.join("etc/sysctl.d/99-sysctl.conf")).unwrap();
    system.write("programs/kdumpctl", &kdump_builder::fake::object(&[])).unwrap();
    let arguments = ["--normal", "--early-kdump", "--sysctl", "out/image"];
    let error = String::from_utf8(mkdumprd(&system, &arguments).stderr).unwrap();
    assert!(error.contains("there is no image of the capture kernel") && error.contains("kdumpctl start"), "{error}");
    let image = format!("boot/initramfs-{RELEASE}kdump.img");
    system.write(&image, b"image").unwrap();
    built(&system, &arguments);
    let reasons = reasons(&system);
    let kernel = format!("boot/vmlinuz-{RELEASE}");
    for path in ["usr/bin/kdumpctl", "etc/kdump.conf", "etc/sysctl.d/10-x.conf", &kernel, &image] {
        assert!(reasons.contains_key(path), "{path}");
    }
    // The root is not on a machine made of files.
    assert!(reasons[&format!("lib/modules/{RELEASE}/kernel/block/virtio_blk.ko")].contains("not on this machine"));
    let toml = lsinitrd(&[&system.root.join("out/image"), Path::new("etc/kdump/image.toml")]);
    assert!(toml.contains(&format!("[hooks.early_kdump]\nkernel = \"/{kernel}\"")), "{toml}");
    let error = String::from_utf8(mkdumprd(&system, &["--sysctl", "out/image2"]).stderr).unwrap();
    assert!(error.contains("--normal"), "{error}");
}

#[test]
fn bad_input_gives_one_error_with_place_and_remedy_and_leaves_nothing() {
    type Spoil = fn(&FakeSystem) -> std::io::Result<()>;
    let cases: [(&str, Spoil, &[&str], &[&str]); 16] = [
        (
            "unknown directive",
            |s| s.write("etc/kdump.conf", b"\npth /x\n"),
            &["out/image"],
            &["etc/kdump.conf:2:", "was `path` meant?"],
        ),
        (
            "no configuration",
            |s| fs::remove_file(s.root.join("etc/kdump.conf")),
            &["out/image"],
            &["etc/kdump.conf", "--config names another"],
        ),
        (
            "unreadable configuration",
            |s| {
                fs::remove_file(s.root.join("etc/kdump.conf"))
                    .and_then(|()| fs::create_dir(s.root.join("etc/kdump.conf")))
            },
            &["out/image"],
            &["cannot read the configuration", "etc/kdump.conf", "Is a directory"],
        ),
        (
            "no such kernel",
            |s| fs::rename(s.root.join("lib/modules/6.1-test"), s.root.join("lib/modules/5.0")),
            &["out/image"],
            &["there is no kernel 6.1-test", "installed are 5.0", "--modules-dir"],
        ),
        (
            "no index",
            |s| fs::remove_file(s.root.join("lib/modules/6.1-test/modules.dep")),
            &["out/image"],
            &["modules.dep", "`depmod` makes it"],
        ),
        (
            "missing module",
            |s| s.write("etc/kdump.conf", b"ext4 LABEL=x\nextra_modules nvme nowhere\n"),
            &["out/image"],
            &["module nvme is missing", "etc/kdump.conf:2", "6.1-test", "install the package"],
        ),
        (
            "missing module file",
            |s| fs::remove_file(s.root.join("lib/modules/6.1-test/kernel/lib/jbd2.ko")),
            &["out/image"],
            &["module jbd2 (needed by ext4) is missing", "install kernel 6.1-test again"],
        ),
        (
            "foreign module",
            |s| s.write("etc/kdump.conf", b"ext4 LABEL=x\nextra_modules foreign\n"),
            &["out/image"],
            &["foreign.ko is for kernel 6.2-other", "--kver"],
        ),
        (
            "live patch",
            |s| {
                let patch = ["livepatch=Y", "vermagic=6.1-test SMP"];
                s.write("lib/modules/6.1-test/kernel/net/unrelated.ko", &object(&patch))?;
                s.write("etc/kdump.conf", b"ext4 LABEL=x\nextra_modules unrelated\n")
            },
            &["out/image"],
            &["unrelated (extra_modules", "etc/kdump.conf:2", "is a live patch", "a capture kernel never does"],
        ),
        (
            "damaged module",
            |s| s.write("lib/modules/6.1-test/kernel/lib/jbd2.ko", b"not a module"),
            &["out/image"],
            &["jbd2.ko is damaged", "not an ELF object"],
        ),
        (
            "no target",
            |s| s.write("etc/kdump.conf", b"path /x\n"),
            &["out/image"],
            &["cannot tell which file system holds /x (", "kdump.conf:1", "name the target"],
        ),
        (
            "refused collector",
            |s| s.write("etc/kdump.conf", b"ext4 LABEL=x\ncore_collector makedumpfile --refuse\n"),
            &["out/image"],
            &["etc/kdump.conf:2: core_collector", "no --refuse here"],
        ),
        (
            "missing program",
            |s| s.write("etc/kdump.conf", b"ext4 LABEL=x\nextra_bins /opt/none\n"),
            &["out/image"],
            &["etc/kdump.conf:2: extra_bins", "cannot find", "opt/none"],
        ),
        (
            "no programs",
            |s| fs::remove_file(s.programs().join("kdump-init")),
            &["out/image"],
            &["kdump-init is missing", "--programs"],
        ),
        (
            "shell in sysconfig",
            |s| s.write("etc/sysconfig/kdump", b"A=1\nB=$A\n"),
            &["out/image"],
            &["etc/sysconfig/kdump:2: `$`"],
        ),
        ("no directory", |_| Ok(()), &["out/none/image"], &["cannot write out/none/image", "make the directory first"]),
    ];
    for (name, spoil, arguments, expected) in cases {
        let (_dir, system) = system();
        spoil(&system).unwrap();
        let output = mkdumprd(&system, arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert_eq!(said.lines().filter(|line| line.starts_with("mkdumprd: ")).count(), 1, "{name}: {said}");
        for words in expected {
            assert!(said.contains(words), "{name}: `{words}` is not in: {said}");
        }
        assert_eq!(fs::read_dir(system.root.join("out")).unwrap().count(), 0, "{name}");
    }
}

#[test]
fn an_image_that_is_there_stays_unless_forced() {
    let (_dir, system) = system();
    system.write("out/image", b"precious").unwrap();
    let output = mkdumprd(&system, &["out/image"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("is already there; -f overwrites it"));
    system.write("etc/kdump.conf", b"nonsense x\n").unwrap();
    assert!(!mkdumprd(&system, &["-f", "out/image"]).status.success());
    assert_eq!(fs::read(system.root.join("out/image")).unwrap(), b"precious");
}

/// Puts a virtio disk into the machine; virtio_blk drives it.
fn add_virtio_disk(system: &FakeSystem) {
    let virtio = "sys/devices/pci0000:00/0000:00:05.0/virtio1";
    let link = |target: &str, path: &str| {
        let path = system.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
    };
    for dir in [&format!("{virtio}/block/vda"), "sys/bus/drivers/virtio_blk", "sys/module/virtio_blk"] {
        fs::create_dir_all(system.root.join(dir)).unwrap();
    }
    system.write(&format!("{virtio}/modalias"), b"virtio:d2v1\n").unwrap();
    system.write("dev/vda", b"").unwrap();
    link("/sys/bus/drivers/virtio_blk", &format!("{virtio}/driver"));
    link("/sys/module/virtio_blk", "sys/bus/drivers/virtio_blk/module");
    link(&format!("/{virtio}/block/vda"), "sys/class/block/vda");
    link("../../vda", "dev/disk/by-uuid/abcd-12");
}

#[test]
fn an_image_without_the_driver_of_its_target_is_not_built() {
    type Spoil = fn(&FakeSystem) -> std::io::Result<()>;
    let cases: [(Spoil, &str); 3] = [
        (|s| s.write("etc/modprobe.d/x.conf", b"blacklist virtio_blk # why\n"), "is blacklisted, by modprobe.d"),
        (|s| s.write("etc/modprobe.d/x.conf", b"install virtio_* /bin/false\n"), "`install virtio_blk /bin/false`"),
        (
            |s| {
                let index = s.root.join("lib/modules/6.1-test/modules.dep");
                let lines = fs::read_to_string(&index)?;
                let others: Vec<&str> = lines.lines().filter(|line| !line.contains("virtio_blk")).collect();
                fs::write(index, others.join("\n"))
            },
            "module virtio_blk is missing (driver of the target device UUID=abcd-12)",
        ),
    ];
    for (spoil, words) in cases {
        let (_dir, system) = system();
        system.write("etc/kdump.conf", b"ext4 UUID=abcd-12\n").unwrap();
        add_virtio_disk(&system);
        built(&system, &["out/image"]);
        let list = lsinitrd(&[&system.root.join("out/image")]);
        assert!(list.contains("virtio_blk.ko"), "{list}");
        fs::remove_file(system.root.join("out/image")).unwrap();

        spoil(&system).unwrap();
        let output = mkdumprd(&system, &["out/image"]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(words), "{error}");
        assert_eq!(fs::read_dir(system.root.join("out")).unwrap().count(), 0);
    }
}

/// A virtio disk that can hold raw dumps, and only them.
fn with_raw_disk() -> (TempDir, FakeSystem) {
    let (dir, system) = system();
    add_virtio_disk(&system);
    // As the kernel's own links are: relative.
    let link = system.root.join("sys/class/block/vda");
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("../../devices/pci0000:00/0000:00:05.0/virtio1/block/vda", link).unwrap();
    system.write("etc/kdump.conf", b"raw /dev/vda\n").unwrap();
    system.write("sys/devices/pci0000:00/0000:00:05.0/virtio1/block/vda/dev", b"254:0\n").unwrap();
    system.write("sys/devices/pci0000:00/0000:00:05.0/virtio1/block/vda/serial", b"dumps\n").unwrap();
    system.write("sys/dev/block/254:0/uevent", b"DEVNAME=vda\n").unwrap();
    system.write("dev/vda", &vec![0; 1 << 20]).unwrap();
    (dir, system)
}

#[test]
fn a_raw_target_is_named_by_its_disk_and_brings_its_drivers_alone() {
    let (_dir, system) = with_raw_disk();
    built(&system, &["out/image"]);
    let reasons = reasons(&system);
    let module = |path: &str| reasons.get(&format!("lib/modules/{RELEASE}/kernel/{path}")).map(String::as_str);
    assert_eq!(module("fs/ext4.ko"), None);
    let reason = module("block/virtio_blk.ko").unwrap();
    assert!(reason.starts_with("driver of the target device WWID=dumps"), "{reason}");
    let config = lsinitrd(&[&system.root.join("out/image"), Path::new("etc/kdump/image.toml")]);
    assert!(config.contains("kind = \"raw\"\ndevice = \"WWID=dumps\""), "{config}");
    assert!(!config.contains("force"), "{config}");
}

#[test]
fn a_raw_target_that_holds_something_or_is_in_use_is_refused_unless_forced() {
    type Use = fn(&FakeSystem) -> std::io::Result<()>;
    let cases: [(Use, &str); 6] = [
        (
            |s| {
                let mut ext = vec![0; 1 << 20];
                ext[1080..1082].copy_from_slice(&[0x53, 0xef]);
                s.write("dev/vda", &ext)
            },
            "vda holds ext",
        ),
        (
            |s| {
                let mut gpt = vec![0; 1 << 20];
                gpt[512..520].copy_from_slice(b"EFI PART");
                s.write("dev/vda", &gpt)
            },
            "vda holds a partition table",
        ),
        (|s| s.write("proc/self/mountinfo", b"27 1 254:0 / /srv rw - ext4 /dev/vda rw\n"), "vda is mounted at /srv"),
        (|s| s.write("proc/swaps", b"Filename Type\n/dev/vda partition 1 0 -2\n"), "vda is in use as swap"),
        (|s| s.write("sys/devices/pci0000:00/0000:00:05.0/virtio1/block/vda/holders/dm-0", b""), "vda is part of dm-0"),
        (
            |s| s.write("sys/devices/pci0000:00/0000:00:05.0/virtio1/block/vda/vda1/partition", b"1\n"),
            "vda has partitions",
        ),
    ];
    for (occupy, words) in cases {
        let (_dir, system) = with_raw_disk();
        occupy(&system).unwrap();
        let output = mkdumprd(&system, &["out/image"]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(words) && error.contains("raw_force yes"), "{error}");
        assert!(error.contains("kdump.conf:1: raw /dev/vda: "), "{error}");
        system.write("etc/kdump.conf", b"raw /dev/vda\nraw_force yes\n").unwrap();
        let output = mkdumprd(&system, &["out/image"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("the next dump overwrites it"), "{said}");
        let config = lsinitrd(&[&system.root.join("out/image"), Path::new("etc/kdump/image.toml")]);
        assert!(config.contains("force = true"), "{config}");
    }
}

/// An encrypted disk of the machine, opened as `secret`, with a file system on it.
fn with_encrypted_disk(system: &FakeSystem) {
    use std::os::unix::fs::symlink;
    const UUID: &str = "aa010203-0405-0607-0809-0a0b0c0d0e0f";
    let device = |name: &str, place: &str| {
        fs::create_dir_all(system.root.join("sys").join(place)).unwrap();
        fs::create_dir_all(system.root.join("sys/class/block")).unwrap();
        symlink(format!("../../{place}"), system.root.join("sys/class/block").join(name)).unwrap();
    };
    device("vdb", "devices/pci0/virtio1/block/vdb");
    device("dm-0", "devices/virtual/block/dm-0");
    let dm = "sys/devices/virtual/block/dm-0";
    fs::create_dir_all(system.root.join(dm).join("slaves/vdb")).unwrap();
    let crypt = format!("CRYPT-LUKS2-{}-secret\n", UUID.replace('-', ""));
    system.write(&format!("{dm}/dm/uuid"), crypt.as_bytes()).unwrap();
    system.write(&format!("{dm}/dm/name"), b"secret\n").unwrap();
    system.write("sys/devices/pci0/virtio1/modalias", b"virtio:d2v1\n").unwrap();
    let mut ext4 = vec![0; 4096];
    ext4[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
    ext4[0x478..0x47d].copy_from_slice(b"crash");
    system.write("dev/dm-0", &ext4).unwrap();
    fs::create_dir_all(system.root.join("dev/mapper")).unwrap();
    symlink("../dm-0", system.root.join("dev/mapper/secret")).unwrap();
    let mut luks = vec![0; 8192];
    luks[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
    luks[8..16].copy_from_slice(&8192_u64.to_be_bytes());
    let json = br#"{"keyslots":{"0":{"kdf":{"type":"argon2id","memory":1048576}}}}"#;
    luks[4096..4096 + json.len()].copy_from_slice(json);
    system.write("dev/vdb", &luks).unwrap();
    system.write("usr/sbin/cryptsetup", b"a program").unwrap();
}

#[test]
fn an_encrypted_target_brings_its_tool_and_its_key_which_nobody_else_can_read() {
    let (_dir, system) = system();
    with_encrypted_disk(&system);
    let refused = mkdumprd(&system, &["out/image"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("cannot put LABEL=crash together in the image: secret is encrypted"), "{said}");
    assert!(said.contains("add a key file with `cryptsetup luksAddKey`"), "{said}");

    system.write("etc/crypttab", b"secret /dev/vdb /root/key\n").unwrap();
    system.write("root/key", b"hush").unwrap();
    let modules = format!("lib/modules/{RELEASE}/modules.builtin");
    system.write(&modules, b"kernel/drivers/md/dm-mod.ko\nkernel/drivers/md/dm-crypt.ko\n").unwrap();
    let output = mkdumprd(&system, &["out/image"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("opening secret takes 1024 MiB of memory, and crashkernel= reserves 80 MiB"), "{said}");
    let reasons = reasons(&system);
    assert_eq!(reasons["usr/sbin/cryptsetup"], "the target is on the encrypted volume secret");
    assert_eq!(reasons["etc/kdump/keys/secret"], "/root/key, the key of secret");
    let image = system.root.join("out/image");
    let list = lsinitrd(&[&image]);
    assert!(
        list.lines().any(|line| line.starts_with("-rw-------") && line.contains(" etc/kdump/keys/secret ")),
        "{list}"
    );
    assert_eq!(fs::metadata(&image).unwrap().permissions().mode() & 0o777, 0o600);
    let config = lsinitrd(&[&image, Path::new("etc/kdump/image.toml")]);
    assert!(config.contains("layer = \"crypt\"") && !config.contains("hush"), "{config}");
}
