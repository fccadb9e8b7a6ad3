//! A converted configuration asks for the same as the one that it was made of.

use super::super::settings::{Setting, convert, settings};
use super::*;
use proptest::sample::{select, subsequence};

/// Everything but where it was written. A password is in another place afterwards.
fn values(config: &Config) -> Vec<(String, String)> {
    let told = |setting: &Setting| {
        setting.name != "password" && setting.name != "password_file" && setting.name != "credentials"
    };
    let all = settings(config);
    all.iter()
        .filter(|one| told(one))
        .map(|one| (format!("{}.{}", one.table, one.name), one.value.to_string()))
        .collect()
}

fn comes_back(config: &Config) -> String {
    let (text, _) = convert(config, Some(Path::new("/etc/kdump/secrets"))).unwrap();
    let native = Native::parse(&text, Path::new("kdump.toml")).unwrap_or_else(|error| panic!("{error:#}\n{text}"));
    let back = Config { dump: native.dump, system: native.system, ..Config::default() };
    assert_eq!(values(config), values(&back), "{text}");
    text
}

const DIRECTIVES: [&str; 24] = [
    "path /srv/\"dumps\"",
    "core_collector makedumpfile -l -d 17",
    "failure_action dump_to_rootfs",
    "final_action halt",
    "extra_modules a b",
    "forbid_modules c",
    "extra_bins /bin/a /bin/b",
    "auto_reset_crashkernel yes",
    "kdump_pre /opt/a b",
    "kdump_post /opt/'c'",
    "kdump_emergency /opt/\\d",
    "fence_kdump_nodes n1 192.0.2.1",
    "fence_kdump_args -p 1 -c 2 -f ipv6",
    "force_rebuild 1",
    "sshkey /root/k",
    "raw_force yes",
    "dracut_args --add-drivers 'a b' --force-drivers c --omit-drivers d --filesystems xfs --fwdir /f --zstd",
    "dracut_conf no",
    "#",
    "kdump_post /b",
    "path /a\\b",
    "extra_modules \"x\"",
    "failure_action shell",
    "final_action poweroff",
];

const TARGETS: [&str; 10] = [
    "",
    "ext4 LABEL=a\"b",
    "xfs /dev/vg/lv",
    "raw PARTUUID=12",
    "virtiofs tag",
    "nfs [fd00::1]:/x y",
    "ssh me@fd00::1",
    "ssh me@nas",
    "minix /dev/vdb",
    "dracut_args --mount \"//h/s /m cifs credentials=/c,vers=3\" --install 'x /y' --include /a /b --no-hostonly -o watchdog",
];

const VARIABLES: [&str; 34] = [
    "KDUMP_KERNELVER=6.1",
    "KDUMP_KERNELVER=/boot/vmlinuz-6.1",
    "KDUMP_COMMANDLINE='a \"b\"'",
    "KDUMP_COMMANDLINE_REMOVE=",
    "KDUMP_COMMANDLINE_APPEND='x=\\1'",
    "KEXEC_ARGS=-a",
    "KDUMP_BOOTDIR=/b",
    "KDUMP_IMG=Image",
    "KDUMP_IMG_EXT=.gz",
    "VMCORE_CREATION_NOTIFICATION=",
    "KDUMP_STDLOGLVL=1",
    "KDUMP_CRASHKERNEL=auto",
    "KDUMP_UPDATE_BOOTLOADER=false",
    "KDUMP_CPUS=3",
    "KDUMP_AUTO_RESIZE=true",
    "KDUMP_IMMEDIATE_REBOOT=false",
    "KDUMP_CONTINUE_ON_ERROR=true",
    "KDUMP_KEEP_OLD_DUMPS=-1",
    "KDUMP_FREE_DISK_SIZE=7",
    "KDUMP_DUMPLEVEL=1",
    "KDUMP_DUMPFORMAT=raw",
    "KDUMP_DUMPFORMAT=none",
    "MAKEDUMPFILE_OPTIONS=-X",
    "KDUMP_REQUIRED_PROGRAMS='a /b'",
    "KDUMP_PRESCRIPT='/a -b'",
    "KDUMP_POSTSCRIPT='/usr/lib/fence_kdump_send -p 9 n1'",
    "KDUMP_NETCONFIG=eth0:dhcp6",
    "KDUMP_NET_TIMEOUT=0",
    "KDUMP_HOST_KEY='*'",
    "KDUMP_SSH_IDENTITY='a b'",
    "KDUMP_SMTP_SERVER='[fd00::1]:26'",
    "KDUMP_FAIL_CMD='/bin/x y'",
    "KDUMP_FAIL_CMD='reboot -f'",
    "KDUMP_VERBOSE=8",
];

const SAVEDIRS: [&str; 7] = [
    "/c",
    "nfs://nas/x",
    "cifs://me:pass@nas/s/d",
    "sftp://me@nas:2222/x",
    "ftp://me:pa:ss@[fd00::1]/x",
    "ftps://nas/x%20y",
    "ssh://nas/a b",
];

const OF_DEBIAN: [&str; 16] = [
    "USE_KDUMP=1",
    "KDUMP_KERNEL=/boot/k",
    "KDUMP_INITRD=/boot/i",
    "KDUMP_COREDIR=/c",
    "KDUMP_FAIL_CMD='poweroff -f'",
    "KDUMP_NUM_DUMPS=3",
    "MAKEDUMP_ARGS='-E -d 1'",
    "KDUMP_KEXEC_ARGS=-c",
    "KDUMP_CMDLINE=a",
    "KDUMP_CMDLINE_APPEND='a b'",
    "NFS=nas:/x",
    "NFS_TIMEO=4",
    "SSH=me@nas",
    "SSH_KEY=/k",
    "SSH_KDUMP_RETRY=2",
    "FTP=nas:x",
];

proptest! {
    #[test]
    fn any_kdump_conf_is_read_back(lines in subsequence(DIRECTIVES.to_vec(), 0..DIRECTIVES.len()), target in select(TARGETS.to_vec())) {
        let text = format!("{}\n{target}\n", lines.join("\n"));
        let mut complaints = Complaints::default();
        let rhel = Rhel::parse(&text, Path::new("kdump.conf"), &mut complaints);
        let mut config = Config { dump: rhel.dump, ..Config::default() };
        rhel.dracut.apply((Dialect::Rhel, Arch::ours()), &mut config.dump, &mut config.system);
        comes_back(&config);
    }

    #[test]
    fn any_file_of_suse_is_read_back(lines in subsequence(VARIABLES.to_vec(), 0..VARIABLES.len()), savedir in select(SAVEDIRS.to_vec()), alone: bool) {
        let text = format!("{}\nKDUMP_NOTIFICATION_TO='a@x b@y'\nKDUMP_SAVEDIR=\"{savedir}\"\n", lines.join("\n"));
        let config = Config::of_sysconfig(&text, Path::new("kdump"), alone, &mut Complaints::default());
        let text = comes_back(&config);
        prop_assert!(!text.contains("pass") || text.contains("password_file") || !text.contains("pa:ss"), "{}", text);
        prop_assert!(!text.contains("me:pa"), "{}", text);
    }

    #[test]
    fn any_file_of_debian_is_read_back(lines in subsequence(OF_DEBIAN.to_vec(), 0..OF_DEBIAN.len()), password: bool) {
        let secret = if password { "FTP=nas:/y\nFTP_USER=me\nFTP_PASSWORD=secret\n" } else { "" };
        let text = format!("{}\n{secret}", lines.join("\n"));
        let (dump, system) = debian::parse(&text, Path::new("kdump-tools"), Path::new("/nowhere"), &mut Complaints::default());
        let text = comes_back(&Config { dump, system, ..Config::default() });
        prop_assert!(!text.contains("secret\""), "{}", text);
    }
}

/// Every error names the file; what has none comes back.
fn holds(config: &Config, complaints: &Complaints, text: &str) {
    let errors = complaints.errors();
    assert!(errors.iter().all(|error| error.starts_with("file:")), "{text}\n{errors:?}");
    if errors.is_empty() {
        comes_back(config);
    }
}

proptest! {
    #[test]
    fn any_value_of_any_variable_is_refused_with_its_place_or_read_back(
        lines in proptest::collection::vec((any::<proptest::sample::Index>(), "[a-z0-9/:@.,=\\[\\]%é -]{0,14}"), 0..6),
        alone: bool,
    ) {
        let file = Path::new("file");
        let names: Vec<&str> = super::super::rhel::VARIABLES.iter().chain(&super::super::suse::VARIABLES).copied().collect();
        let write = |names: &[&str]| -> String {
            lines.iter().map(|(name, value)| format!("{}=\"{value}\"\n", name.get(names))).collect()
        };
        let (text, mut complaints) = (write(&names), Complaints::default());
        let config = Config::of_sysconfig(&text, file, alone, &mut complaints);
        holds(&config, &complaints, &text);
        let (text, mut complaints) = (write(&super::super::debian::VARIABLES), Complaints::default());
        let (dump, system) = debian::parse(&text, file, Path::new("/nowhere"), &mut complaints);
        holds(&Config { dump, system, ..Config::default() }, &complaints, &text);
    }

    #[test]
    fn any_value_of_any_directive_is_refused_with_its_place_or_read_back(
        lines in proptest::collection::vec((any::<proptest::sample::Index>(), "[a-z0-9/:@.,=\\[\\]%é\"' -]{0,16}"), 0..6),
    ) {
        let words: Vec<&str> = super::super::rhel::words::all().collect();
        let text: String = lines.iter().map(|(word, value)| format!("{} {value}\n", word.get(&words))).collect();
        let mut complaints = Complaints::default();
        let rhel = Rhel::parse(&text, Path::new("file"), &mut complaints);
        let mut config = Config { dump: rhel.dump, ..Config::default() };
        rhel.dracut.apply((Dialect::Rhel, Arch::ours()), &mut config.dump, &mut config.system);
        holds(&config, &complaints, &text);
    }
}

#[test]
fn a_secret_goes_nowhere_unless_a_directory_is_named_for_it() {
    let mut complaints = Complaints::default();
    let config =
        Config::of_sysconfig("KDUMP_SAVEDIR=cifs://me:hunter2@nas/s\n", Path::new("kdump"), true, &mut complaints);
    let error = convert(&config, None).unwrap_err().to_string();
    assert!(error.starts_with("kdump:1: there is a password; name a directory with --secrets DIR"), "{error}");
    let (text, files) = convert(&config, Some(Path::new("/etc/kdump"))).unwrap();
    assert!(!text.contains("hunter2") && text.contains("credentials = \"/etc/kdump/target1.credentials\""), "{text}");
    assert_eq!(files[0].bytes, b"username=me\npassword=hunter2\n");
    assert!(!format!("{files:?}{config:?}").contains("hunter2"));
}

#[test]
fn the_native_example_is_read_back() {
    let text = kdump_hooks::fake::example(include_str!("../native/mod.rs"));
    let native = Native::parse(&text, Path::new("kdump.toml")).unwrap();
    comes_back(&Config { dump: native.dump, system: native.system, ..Config::default() });
}
