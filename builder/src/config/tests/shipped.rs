//! The files as distributions ship them, reduced to what they set. Debian's own is read in qemu-tests, from its package.

use super::super::rhel::Rhel;
use super::*;

/// RHEL's and Fedora's kdump.conf, and the one of s390x.
const KDUMP_CONF: &str =
    "auto_reset_crashkernel yes\npath /var/crash\ncore_collector makedumpfile -l --message-level 7 -d 31\n";
const KDUMP_CONF_S390X: &str =
    "auto_reset_crashkernel yes\npath /var/crash\ncore_collector makedumpfile -c --message-level 7 -d 31\n";

/// What their /etc/sysconfig/kdump has on each architecture in KEXEC_ARGS, KDUMP_COMMANDLINE_REMOVE,
/// KDUMP_COMMANDLINE_APPEND and FADUMP_COMMANDLINE_APPEND.
const SYSCONFIGS: [(&str, [&str; 4]); 7] = [
    (
        "x86_64",
        [
            "-s",
            "hugepages hugepagesz slub_debug quiet log_buf_len swiotlb cma hugetlb_cma ignition.firstboot",
            "irqpoll nr_cpus=1 reset_devices cgroup_disable=memory mce=off numa=off udev.children-max=2 panic=10 \
             acpi_no_memhotplug transparent_hugepage=never nokaslr hest_disable novmcoredd cma=0 hugetlb_cma=0 \
             pcie_ports=compat",
            "",
        ],
    ),
    (
        "aarch64",
        [
            "-s",
            "hugepages hugepagesz slub_debug quiet log_buf_len swiotlb cma hugetlb_cma ignition.firstboot",
            "irqpoll nr_cpus=1 reset_devices cgroup_disable=memory udev.children-max=2 panic=10 swiotlb=noforce \
             novmcoredd cma=0 hugetlb_cma=0",
            "",
        ],
    ),
    (
        "i386",
        [
            "",
            "hugepages hugepagesz slub_debug quiet log_buf_len swiotlb cma hugetlb_cma ignition.firstboot",
            "irqpoll nr_cpus=1 reset_devices numa=off udev.children-max=2 panic=10 transparent_hugepage=never \
             novmcoredd cma=0 hugetlb_cma=0",
            "",
        ],
    ),
    (
        "ppc64",
        [
            "--dt-no-old-root",
            "hugepages hugepagesz slub_debug quiet log_buf_len swiotlb hugetlb_cma ignition.firstboot",
            "irqpoll maxcpus=1 noirqdistrib reset_devices cgroup_disable=memory numa=off udev.children-max=2 \
             ehea.use_mcs=0 panic=10 kvm_cma_resv_ratio=0 transparent_hugepage=never novmcoredd hugetlb_cma=0",
            "",
        ],
    ),
    (
        "ppc64le",
        [
            "-s",
            "hugepages hugepagesz slub_debug quiet log_buf_len swiotlb hugetlb_cma ignition.firstboot",
            "irqpoll nr_cpus=1 noirqdistrib reset_devices cgroup_disable=memory numa=off udev.children-max=2 \
             ehea.use_mcs=0 panic=10 kvm_cma_resv_ratio=0 transparent_hugepage=never novmcoredd hugetlb_cma=0",
            "nr_cpus=16 numa=off cgroup_disable=memory cma=0 kvm_cma_resv_ratio=0 hugetlb_cma=0 \
             transparent_hugepage=never novmcoredd udev.children-max=2",
        ],
    ),
    (
        "s390x",
        [
            "-s",
            "hugepages hugepagesz slub_debug quiet log_buf_len swiotlb vmcp_cma cma hugetlb_cma prot_virt \
             ignition.firstboot zfcp.allow_lun_scan",
            "nr_cpus=1 cgroup_disable=memory numa=off udev.children-max=2 panic=10 transparent_hugepage=never \
             novmcoredd vmcp_cma=0 cma=0 hugetlb_cma=0",
            "",
        ],
    ),
    (
        "any other",
        [
            "",
            "hugepages hugepagesz slub_debug quiet log_buf_len swiotlb cma hugetlb_cma ignition.firstboot",
            "irqpoll maxcpus=1 reset_devices novmcoredd cma=0 hugetlb_cma=0",
            "",
        ],
    ),
];

/// The whole of such a file.
fn sysconfig([kexec_args, remove, append, fadump]: [&str; 4]) -> String {
    format!(
        "KDUMP_KERNELVER=\"\"\nKDUMP_COMMANDLINE=\"\"\nKDUMP_COMMANDLINE_REMOVE=\"{remove}\"\n\
         KDUMP_COMMANDLINE_APPEND=\"{append}\"\nFADUMP_COMMANDLINE_APPEND=\"{fadump}\"\nKEXEC_ARGS=\"{kexec_args}\"\n\
         KDUMP_IMG=\"vmlinuz\"\nKDUMP_IMG_EXT=\"\"\nVMCORE_CREATION_NOTIFICATION=\"yes\"\n"
    )
}

/// What dracut's own dracut.conf.d sets, by the names under which distributions install it.
const DRACUT_CONFS: [(&str, &str); 13] = [
    (
        "opensuse/01-dist",
        "hostonly=\"yes\"\nhostonly_cmdline=\"yes\"\ninitrdname=\"initrd-$kernel\"\ncompress=\"zstd -3 -T0 -q\"\n\
         i18n_vars=\"/etc/sysconfig/language:RC_LANG-LANG,RC_LC_ALL-LC_ALL /etc/sysconfig/keyboard:KEYTABLE-KEYMAP\"\n\
         omit_drivers+=\" i2o_scsi \"\n",
    ),
    (
        "fedora/01-dist",
        "i18n_vars=\"/etc/sysconfig/keyboard:KEYTABLE-KEYMAP\"\ni18n_default_font=\"eurlatgr\"\n\
         i18n_install_all=\"yes\"\nstdloglvl=3\nsysloglvl=5\n\
         install_optional_items+=\" vi /usr/libexec/vi /etc/virc ps grep cat rm chroot \"\nhostonly=\"yes\"\n\
         hostonly_cmdline=\"yes\"\nearly_microcode=\"yes\"\nreproducible=\"yes\"\n",
    ),
    ("debian/01-debian", "initrdname=\"initrd.img-${kernel}\"\n"),
    ("debian/10-debian", "hostonly=\"yes\"\nhostonly_cmdline=\"no\"\ninitrdname=\"initrd.img-${kernel}\"\n"),
    (
        "gentoo/01-gentoo",
        "hostonly=\"yes\"\nhostonly_mode=\"sloppy\"\nhostonly_cmdline=\"no\"\nukify=\"no\"\nuefi=\"no\"\n\
         early_microcode=\"no\"\n",
    ),
    ("default/10-default", "hostonly=\"yes\"\nhostonly_cmdline=no\nstdloglvl=3\n"),
    ("hostonly/10-hostonly", "hostonly=\"yes\"\nhostonly_cmdline=no\n"),
    ("generic/11-generic", "hostonly=\"no\"\n"),
    ("ima/10-ima", "add_dracutmodules+=\" integrity \"\n"),
    ("no-network/50-no-network", "omit_dracutmodules+=\" net-lib systemd-networkd \"\n"),
    ("no-xattr/50-no-xattr", "export DRACUT_NO_XATTR=1\n"),
    (
        "rescue/10-rescue",
        "dracut_rescue_image=\"yes\"\nhostonly=\"no\"\nadd_dracutmodules+=\" rescue \"\nuefi=\"no\"\n\
         kernel_cmdline=\" rd.auto=1 \"\n",
    ),
    (
        "uki-virt/10-uki-virt",
        "hostonly=\"no\"\nuefi=\"yes\"\nearly_microcode=\"no\"\ndracutmodules+=\" dracut-systemd shutdown \"\n\
         drivers+=\" virtio-pci virtio-mmio \"      # of a kind\ndrivers+=\" dm_crypt \"\n\
         filesystems+=\" vfat ext4 xfs overlay \"\n",
    ),
];

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
    let (root, _) = crate::fake::tree(files).unwrap();
    let mut complaints = Complaints::default();
    let config = Config::examine(&Files::new(root.path(), None, None), &mut complaints).unwrap();
    (config, complaints)
}

#[test]
fn the_files_of_rhel_are_read_without_a_complaint() {
    for (arch, variables) in SYSCONFIGS {
        let conf = if arch == "s390x" { KDUMP_CONF_S390X } else { KDUMP_CONF };
        let (config, complaints) = machine(&[("etc/kdump.conf", conf), ("etc/sysconfig/kdump", &sysconfig(variables))]);
        assert!(complaints.errors().is_empty() && complaints.warnings.is_empty(), "{arch}: {complaints:?}");
        assert_eq!((config.dialect, config.sources.len()), (Dialect::Rhel, 2));
        let packing = if arch == "s390x" { "-c" } else { "-l" };
        let collector = format!("kdump-capture {packing} --message-level 7 -d 31");
        assert_eq!(config.dump.collector.value.argv.join(" "), collector);
        let [kexec_args, remove, append, _] = variables;
        let syscall = config.system.syscall.map(|given| given.value);
        assert_eq!(syscall, (kexec_args == "-s").then_some(Syscall::File), "{arch}");
        assert_eq!(config.system.remove.unwrap().value, remove, "{arch}");
        assert_eq!(config.system.append.unwrap().value, append, "{arch}");
    }
}

#[test]
fn the_files_of_dracut_are_read_without_a_complaint_and_what_they_ask_for_is_there() {
    for (name, text) in DRACUT_CONFS {
        let path = format!("usr/lib/dracut/dracut.conf.d/{}.conf", name.rsplit('/').next().unwrap());
        let own = ("etc/dracut.conf.d/99-own.conf", "add_drivers+=\" nbd \"\n");
        let (config, complaints) = machine(&[("etc/kdump.conf", KDUMP_CONF), (&path, text), own]);
        assert!(complaints.errors().is_empty() && complaints.warnings.is_empty(), "{name}: {complaints:?}");
        assert_eq!(config.dump.image.add_drivers[0].value, "nbd", "{name}");
        let image = config.dump.image;
        let (omitted, optional) = (image.omit_drivers.len(), image.install_optional.len());
        let expected = match name {
            "opensuse/01-dist" => (1, 0, true, 0),
            "fedora/01-dist" => (0, 8, false, 0),
            "uki-virt/10-uki-virt" => (0, 0, false, 4),
            _ => (0, 0, false, 0),
        };
        assert_eq!((omitted, optional, image.compress.is_some(), image.filesystems.len()), expected, "{name}");
        assert_eq!(image.integrity.is_some(), name == "ima/10-ima", "{name}");
        let asks = ["opensuse/01-dist", "fedora/01-dist", "uki-virt/10-uki-virt", "ima/10-ima"].contains(&name);
        assert!(asks || !complaints.notes.is_empty(), "{name}: {complaints:?}");
    }
}

#[test]
fn comments_blanks_and_line_ends_of_every_kind_change_nothing() {
    let plain = machine(&[("etc/kdump.conf", KDUMP_CONF), ("etc/sysconfig/kdump", &sysconfig(SYSCONFIGS[0].1))]).0;
    let (name, dracut) = ("etc/dracut.conf.d/1.conf", "add_drivers+=\" a b \"\nomit_drivers+=\" c \"\n");
    let plain_dracut = machine(&[("etc/kdump.conf", ""), (name, dracut)]).0.dump.image;
    let shapes: [fn(&str) -> String; 6] = [
        |text| format!("# what follows\n#\n#path /not/here\n\n{text}\n# and ends\n#core_collector scp"),
        |text| format!("\u{feff}{text}"),
        |text| text.lines().map(|line| format!("{line}   \n\n\t\n")).collect(),
        |text| text.lines().map(|line| format!("  \t{line}\n# it's \"open\n")).collect(),
        |text| text.lines().map(|line| format!("{line} # behind it\n")).collect(),
        |text| text.trim_end().to_owned(),
    ];
    for (number, shape) in shapes.into_iter().enumerate() {
        let files = [shape(KDUMP_CONF), shape(&sysconfig(SYSCONFIGS[0].1))];
        let (config, complaints) = machine(&[("etc/kdump.conf", &files[0]), ("etc/sysconfig/kdump", &files[1])]);
        assert!(complaints.errors().is_empty() && complaints.warnings.is_empty(), "{number}: {complaints:?}");
        let value = |config: &Config| {
            let (dump, system) = (&config.dump, &config.system);
            let values = [&system.append, &system.remove].map(|given| given.as_ref().unwrap().value.clone());
            (dump.path.value.clone(), dump.collector.value.clone(), values)
        };
        assert_eq!(value(&config), value(&plain), "{number}");
        let (config, complaints) = machine(&[("etc/kdump.conf", ""), (name, &shape(dracut))]);
        assert!(complaints.errors().is_empty() && complaints.warnings.is_empty(), "{number}: {complaints:?}");
        let names = |image: &Image| -> Vec<String> {
            image.add_drivers.iter().chain(&image.omit_drivers).map(|given| given.value.clone()).collect()
        };
        assert_eq!(names(&config.dump.image), names(&plain_dracut), "{number}");
    }
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
    for words in [
        "was `path` meant?",
        "`scp` would copy all",
        "`vda` is not a block",
        "`many`",
        "was KDUMP_NETCONFIG meant?",
        "`$`",
    ] {
        assert!(errors.iter().any(|error| error.contains(words)), "{words}: {errors:?}");
    }
    let first = complaints.check().unwrap_err().to_string();
    assert!(first.ends_with("(and 5 more; `kdumpctl config check` tells all of them)"), "{first}");
}
