//! The files as distributions ship them, reduced to what they set. Debian's own is read in qemu-tests, from its package.

use super::super::rhel::Rhel;
use super::*;

/// RHEL's and Fedora's kdump.conf.
const KDUMP_CONF: &str =
    "auto_reset_crashkernel yes\npath /var/crash\ncore_collector makedumpfile -l --message-level 7 -d 31\n";

/// Their /etc/sysconfig/kdump on x86_64.
const SYSCONFIG: &str = r#"
KDUMP_KERNELVER=""
KDUMP_COMMANDLINE=""
KDUMP_COMMANDLINE_REMOVE="hugepages hugepagesz slub_debug quiet log_buf_len swiotlb cma hugetlb_cma ignition.firstboot"
KDUMP_COMMANDLINE_APPEND="irqpoll nr_cpus=1 reset_devices cgroup_disable=memory mce=off numa=off udev.children-max=2 panic=10 acpi_no_memhotplug transparent_hugepage=never nokaslr hest_disable novmcoredd cma=0 hugetlb_cma=0 pcie_ports=compat"
FADUMP_COMMANDLINE_APPEND=""
KEXEC_ARGS="-s"
KDUMP_IMG="vmlinuz"
KDUMP_IMG_EXT=""
VMCORE_CREATION_NOTIFICATION="yes"
"#;

/// SUSE's /etc/sysconfig/kdump.
const SUSE: &str = r#"
KDUMP_KERNELVER=""
KDUMP_CPUS=32
KDUMP_COMMANDLINE=""
KDUMP_COMMANDLINE_APPEND=""
KDUMP_CRASHKERNEL="auto"
KDUMP_UPDATE_BOOTLOADER="true"
KDUMP_AUTO_RESIZE="false"
KDUMP_FADUMP="false"
KDUMP_FADUMP_SHELL="false"
KEXEC_OPTIONS=""
KDUMP_IMMEDIATE_REBOOT="true"
KDUMP_TRANSFER=""
KDUMP_SAVEDIR="/var/crash"
KDUMP_KEEP_OLD_DUMPS=0
KDUMP_FREE_DISK_SIZE=64
KDUMP_VERBOSE=0
KDUMP_DUMPLEVEL=31
KDUMP_DUMPFORMAT="compressed"
KDUMP_CONTINUE_ON_ERROR="true"
KDUMP_REQUIRED_PROGRAMS=""
KDUMP_PRESCRIPT=""
KDUMP_POSTSCRIPT=""
KDUMP_NETCONFIG="auto"
KDUMP_NET_TIMEOUT=30
KDUMP_SMTP_SERVER=""
KDUMP_SMTP_USER=""
KDUMP_SMTP_PASSWORD=""
KDUMP_NOTIFICATION_TO=""
KDUMP_NOTIFICATION_CC=""
KDUMP_HOST_KEY=""
KDUMP_SSH_IDENTITY=""
"#;

/// The machine whose files these are, and what is said of them.
fn machine(files: &[(&str, &str)]) -> (Config, Complaints) {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let mut complaints = Complaints::default();
    let config = Config::examine(&Files::new(root.path(), None, None), &mut complaints).unwrap();
    (config, complaints)
}

#[test]
fn the_files_of_rhel_are_read_without_a_complaint() {
    let (config, complaints) = machine(&[("etc/kdump.conf", KDUMP_CONF), ("etc/sysconfig/kdump", SYSCONFIG)]);
    assert!(complaints.errors().is_empty() && complaints.warnings.is_empty(), "{complaints:?}");
    assert_eq!((config.dialect, config.sources.len()), (Dialect::Rhel, 2));
    assert_eq!(config.dump.collector.value.argv.join(" "), "kdump-capture -l --message-level 7 -d 31");
    assert_eq!(config.system.syscall.unwrap().value, Syscall::File);
}

#[test]
fn the_file_of_suse_is_read_without_a_complaint() {
    let (config, complaints) = machine(&[("etc/sysconfig/kdump", SUSE)]);
    assert!(complaints.errors().is_empty() && complaints.warnings.is_empty(), "{complaints:?}");
    assert_eq!(config.dialect, Dialect::Suse);
    assert_eq!(config.dump.collector.value.argv.join(" "), "kdump-capture -c --message-level 7 -d 31");
    let append = config.system.append.unwrap().value;
    assert!(append.contains("reset_devices") && append.ends_with("nr_cpus=32"), "{append}");
    assert_eq!((config.system.keep, config.system.free.unwrap().value), (None, 64 << 20));
}

#[test]
fn the_example_lines_of_rhel_can_be_switched_on() {
    for line in [
        "raw /dev/vg/lv_kdump",
        "ext4 /dev/vg/lv_kdump",
        "ext4 LABEL=/boot",
        "virtiofs myfs",
        "nfs my.server.com:/export/tmp",
        "nfs [2001:db8::1:2:3:4]:/export/tmp",
        "ssh user@my.server.com",
        "ssh user@2001:db8::1:2:3:4",
        "kdump_post /var/crash/scripts/kdump-post.sh",
        "extra_bins /usr/bin/lftp",
        "extra_modules gfs2",
        "failure_action shell",
        "force_rebuild 1",
        "force_no_rebuild 1",
        "dracut_args --omit-drivers \"cfg80211 snd\" --add-drivers \"ext2 ext3\"",
        "fence_kdump_nodes node1 node2\nfence_kdump_args -p 7410 -f auto -c 0 -i 10",
    ] {
        let mut complaints = Complaints::default();
        Rhel::parse(line, Path::new("kdump.conf"), &mut complaints);
        assert!(complaints.errors().is_empty() && complaints.warnings.is_empty(), "{line}: {complaints:?}");
    }
}

#[test]
fn a_collector_that_is_not_told_to_flatten_is_good_for_every_target() {
    // RHEL's mkdumprd refuses its own template with a target by ssh or a raw one.
    for target in ["ssh me@nas", "raw /dev/vdb", "nfs nas:/x"] {
        let mut complaints = Complaints::default();
        Rhel::parse(&format!("{target}\n{KDUMP_CONF}"), Path::new("kdump.conf"), &mut complaints);
        assert!(complaints.errors().is_empty() && complaints.warnings.is_empty(), "{target}: {complaints:?}");
    }
}

#[test]
fn two_dialects_on_one_machine_are_both_named_unless_one_says_nothing() {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("etc/default/kdump-tools", "# Debian's\nUSE_KDUMP=1\nKDUMP_COREDIR=/d\n");
    let read = || Config::read(&Files::new(root.path(), None, None));
    assert_eq!(read().unwrap().dialect, Dialect::Debian);
    write("etc/kdump.conf", "# nothing\n");
    assert_eq!(read().unwrap().dump.path.value, Path::new("/d"), "an empty file contradicts nobody");
    write("etc/kdump.conf", "\npath /r\n");
    let error = read().unwrap_err().to_string();
    assert!(error.contains("kdump-tools:2 (`USE_KDUMP`) and ") && error.contains("kdump.conf:2 (`path`)"), "{error}");
    let named = Files::new(root.path(), Some(&root.path().join("etc/kdump.conf")), None);
    assert_eq!(Config::read(&named).unwrap().dump.path.value, Path::new("/r"));
    let named = Files::new(root.path(), Some(&root.path().join("etc/default/kdump-tools")), None);
    assert_eq!(Config::read(&named).unwrap().dialect, Dialect::Debian);
    write("etc/kdump/kdump.toml", "path = \"/n\"\n");
    let config = read().unwrap();
    assert_eq!((config.dialect, config.dump.path.value.as_path()), (Dialect::Native, Path::new("/n")));
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
}

#[test]
fn every_complaint_of_every_file_is_told_at_once() {
    let (_, complaints) = machine(&[
        ("etc/kdump.conf", "pth /x\ncore_collector scp\n\next4 vda\n"),
        ("etc/sysconfig/kdump", "KDUMP_CPUS=many\nKDUMP_NETCONFG=auto\n"),
        ("etc/dracut.conf.d/10.conf", "compress=\"$(which zstd)\"\n"),
    ]);
    let errors = complaints.errors();
    assert_eq!(errors.len(), 6, "{errors:?}");
    for words in
        ["was `path` meant?", "`scp` would copy all", "`vda` is not a block", "`many`", "was KDUMP_NETCONFIG meant?", "`$`"]
    {
        assert!(errors.iter().any(|error| error.contains(words)), "{words}: {errors:?}");
    }
    let first = complaints.check().unwrap_err().to_string();
    assert!(first.ends_with("(and 5 more; `kdumpctl config check` tells all of them)"), "{first}");
}
