//! Every directive and every variable of the three dialects takes effect, or is refused by name.

use super::super::rhel::words;
use super::*;
use crate::config::settings::settings;

/// What a line comes to.
enum To {
    /// This native value is that.
    Is(&'static str, &'static str),
    /// It is refused with these words.
    No(&'static str),
    /// It is warned of with these words.
    Warns(&'static str),
    /// It changes nothing, for this reason.
    Notes(&'static str),
    /// It changes nothing, because it asks for what is done anyway.
    Usual,
}

use To::{Is, No, Notes, Usual, Warns};

/// The text of a directive or of variables, and what the last line comes to.
type Row = (&'static str, To);

const RHEL: &[Row] = &[
    ("path /srv", Is("path", "\"/srv\"")),
    ("raw PARTUUID=12-01", Is("target.device", "\"PARTUUID=12-01\"")),
    ("nfs [fd00::1]:/x", Is("target.export", "\"[fd00::1]:/x\"")),
    ("ssh me@nas", Is("target.url", "\"ssh://me@nas/var/crash\"")),
    ("ext2 UUID=1", Is("target.type", "\"ext2\"")),
    ("ext3 LABEL=a", Is("target.device", "\"LABEL=a\"")),
    ("ext4 UUID=1", Is("target.type", "\"ext4\"")),
    ("xfs UUID=1", Is("target.type", "\"xfs\"")),
    ("btrfs UUID=1", Is("target.type", "\"btrfs\"")),
    ("f2fs UUID=1", Is("target.type", "\"f2fs\"")),
    ("vfat UUID=1", Is("target.type", "\"vfat\"")),
    ("minix /dev/vdb", Is("target.device", "\"/dev/vdb\"")),
    ("virtiofs tag", Is("target.tag", "\"tag\"")),
    ("raw /dev/vdb\nraw_force yes", Is("raw_force", "true")),
    ("ssh me@nas\nsshkey /root/k", Is("sshkey", "\"/root/k\"")),
    ("core_collector makedumpfile -F -l -d 1", Is("collector", "\"kdump-capture -l -d 1\"")),
    ("failure_action shell", Is("failure_action", "\"shell\"")),
    ("failure_action dump_to_rootfs", Is("failure_action", "\"dump_to_rootfs\"")),
    ("default halt", Is("failure_action", "\"halt\"")),
    ("final_action poweroff", Is("final_action", "\"poweroff\"")),
    ("extra_modules a b", Is("image.modules", "[\"a\", \"b\"]")),
    ("forbid_modules a", Is("image.forbid", "[\"a\"]")),
    ("extra_bins /bin/a", Is("image.files", "[\"/bin/a\"]")),
    ("auto_reset_crashkernel no", Is("auto_reset_crashkernel", "false")),
    ("auto_reset_crashkernel whatever", Is("auto_reset_crashkernel", "true")),
    ("kdump_pre /a", Is("programs.pre", "\"/a\"")),
    ("kdump_post /a", Is("programs.post", "\"/a\"")),
    ("kdump_emergency /a", Is("programs.emergency", "\"/a\"")),
    ("fence_kdump_nodes a b", Is("fence.nodes", "[\"a\", \"b\"]")),
    ("fence_kdump_nodes a\nfence_kdump_args -p 7 -f ipv4", Is("fence.args", "\"-p 7 -i 10 -c 0 -f ipv4\"")),
    ("force_rebuild 1", Is("rebuild", "\"always\"")),
    ("force_rebuild 0", Usual),
    ("force_no_rebuild 1", Is("rebuild", "\"never\"")),
    ("dracut_args --omit-drivers a", Is("image.omit", "[\"a\"]")),
    ("dracut_args --mount \"nas:/x /m nfs vers=4\"", Is("target.options", "[\"vers=4\"]")),
    ("dracut_args --install-optional 'a /b'", Is("image.optional", "[\"a\", \"/b\"]")),
    ("dracut_args --include /a /b", Is("image.include", "[[\"/a\", \"/b\"]]")),
    ("dracut_args --force-drivers a", Is("image.first", "[\"a\"]")),
    ("dracut_args --filesystems xfs", Is("image.filesystems", "[\"xfs\"]")),
    ("dracut_args --fwdir /a", Is("image.firmware", "[\"/a\"]")),
    ("dracut_args --no-compress", Is("image.compress", "\"none\"")),
    ("dracut_args --no-hostonly", Is("image.hostonly", "false")),
    ("dracut_args -o watchdog", Is("image.watchdog", "false")),
    ("dracut_conf no", Usual),
];

const RHEL_VARIABLES: &[Row] = &[
    ("KDUMP_KERNELVER=6.1", Is("kernel.release", "\"6.1\"")),
    ("KDUMP_COMMANDLINE=a", Is("kernel.command_line", "\"a\"")),
    ("KDUMP_COMMANDLINE_REMOVE=\"a b\"", Is("kernel.remove", "\"a b\"")),
    ("KDUMP_COMMANDLINE_APPEND=", Is("kernel.append", "\"\"")),
    ("FADUMP_COMMANDLINE_APPEND=a", Notes("FADUMP_COMMANDLINE_APPEND: it counts for fadump alone")),
    ("KEXEC_ARGS=-s", Is("kernel.syscall", "\"file\"")),
    ("KEXEC_ARGS=\"-p -a\"", Is("kernel.syscall", "\"auto\"")),
    ("KEXEC_ARGS=--dt-no-old-root", No("KEXEC_ARGS: `--dt-no-old-root` is not supported")),
    ("KDUMP_BOOTDIR=/b", Is("kernel.boot_dir", "\"/b\"")),
    ("KDUMP_IMG=Image", Is("kernel.name", "\"Image\"")),
    ("KDUMP_IMG_EXT=.gz", Is("kernel.suffix", "\".gz\"")),
    ("VMCORE_CREATION_NOTIFICATION=", Is("tell_test_result", "false")),
    ("KDUMP_STDLOGLVL=4", Is("log_level", "4")),
    ("KDUMP_STDLOGLVL=5", No("KDUMP_STDLOGLVL: `5` is not a number from 0 to 4")),
    ("KDUMP_SYSLOGLVL=3", Warns("KDUMP_SYSLOGLVL has no effect: what is told goes to stderr")),
    ("KDUMP_KMSGLOGLVL=0", Usual),
];

const SUSE: &[Row] = &[
    ("KDUMP_KERNELVER=/boot/vmlinuz-6.4", Is("kernel.file", "\"/boot/vmlinuz-6.4\"")),
    (
        "KDUMP_CRASHKERNEL=\"crashkernel=1M,high  crashkernel=1M,low\"",
        Is("kernel.crashkernel", "\"crashkernel=1M,high crashkernel=1M,low\""),
    ),
    ("KDUMP_CRASHKERNEL=auto", Is("kernel.crashkernel", "\"auto\"")),
    ("KDUMP_CRASHKERNEL=256M", No("KDUMP_CRASHKERNEL: `256M` is not followed; write `auto`, or crashkernel=…")),
    ("KDUMP_UPDATE_BOOTLOADER=no", Is("kernel.update_bootloader", "false")),
    ("KDUMP_COMMANDLINE_APPEND=x\nKDUMP_CPUS=0", Is("kernel.append", "\"… x\"")),
    ("KDUMP_CPUS=4", Is("kernel.append", "\"… nr_cpus=4\"")),
    ("KDUMP_SAVEDIR=/c\nKDUMP_COMMANDLINE_APPEND=x", Is("kernel.append", "\"… x\"")),
    ("KDUMP_SAVEDIR=/c\nKDUMP_COMMANDLINE=y\nKDUMP_COMMANDLINE_APPEND=x", Is("kernel.append", "\"x\"")),
    ("KDUMP_AUTO_RESIZE=true", Is("kernel.auto_resize", "true")),
    ("KDUMP_FADUMP=true", No("KDUMP_FADUMP: only POWER has fadump")),
    ("KDUMP_FADUMP_SHELL=no", Usual),
    ("KEXEC_OPTIONS=-c", Is("kernel.syscall", "\"load\"")),
    ("MAKEDUMPFILE_OPTIONS=-X", Is("collector", "\"kdump-capture -z --message-level 7 -d 31 -X\"")),
    ("KDUMP_DUMPFORMAT=lzo\nKDUMP_DUMPLEVEL=3", Is("collector", "\"kdump-capture -l --message-level 7 -d 3\"")),
    ("KDUMP_DUMPFORMAT=ELF", Is("collector", "\"kdump-capture -E --message-level 7 -d 31\"")),
    ("KDUMP_DUMPFORMAT=raw", Is("collector", "\"kdump-capture -E -d 0 --message-level 7\"")),
    ("KDUMP_DUMPFORMAT=none", No("KDUMP_DUMPFORMAT: none: the log is never saved alone")),
    // SUSE's own message on that names a format that it does not take then.
    (
        "KDUMP_DUMPFORMAT=gz",
        No("KDUMP_DUMPFORMAT: `gz` is not a format; write ELF, compressed, lzo, snappy, zstd or raw"),
    ),
    ("KDUMP_DUMPLEVEL=32", No("KDUMP_DUMPLEVEL: `32` is not a number from 0 to 31")),
    ("KDUMP_IMMEDIATE_REBOOT=no", Is("shell_first", "true")),
    ("KDUMP_TRANSFER=/bin/x", No("KDUMP_TRANSFER is not supported")),
    ("KDUMP_SAVEDIR=file:///c", Is("path", "\"/c\"")),
    ("KDUMP_SAVEDIR=cifs://h/s/d", Is("target.share", "\"//h/s\"")),
    ("KDUMP_KEEP_OLD_DUMPS=2", Is("room.keep", "3")),
    // There, it takes away the dump that was just saved.
    ("KDUMP_FREE_DISK_SIZE=64", Is("room.free", "64")),
    ("KDUMP_VERBOSE=9", Is("log_level", "4")),
    ("KDUMP_VERBOSE=2", Usual),
    ("KDUMP_CONTINUE_ON_ERROR=false", Is("shell_on_failure", "true")),
    ("KDUMP_REQUIRED_PROGRAMS=\"a /b\"", Is("image.programs", "[\"a\", \"/b\"]")),
    ("KDUMP_PRESCRIPT=\"/a b\"", Is("programs.before", "[\"/a\", \"b\"]")),
    ("KDUMP_POSTSCRIPT=/a", Is("programs.after", "[\"/a\"]")),
    ("KDUMP_POSTSCRIPT=\"/usr/lib/fence_kdump_send -i 5 n1 n2\"", Is("fence.nodes", "[\"n1\", \"n2\"]")),
    ("KDUMP_POSTSCRIPT=/usr/lib/fence_kdump_send", No("KDUMP_POSTSCRIPT: fence_kdump_send has nobody to tell")),
    ("KDUMP_NETCONFIG=eth0:dhcp:force", Is("kernel.network", "\"eth0:dhcp:force\"")),
    ("KDUMP_NET_TIMEOUT=30", Is("remote.wait", "30")),
    ("KDUMP_SMTP_SERVER=m:25\nKDUMP_NOTIFICATION_TO=a@x", Is("notify.mail.to", "[\"a@x\"]")),
    ("KDUMP_NOTIFICATION_TO=a@x\nKDUMP_SMTP_SERVER=m", Is("notify.mail.server", "\"m:25\"")),
    ("KDUMP_NOTIFICATION_TO=a@x\nKDUMP_SMTP_SERVER=m\nKDUMP_NOTIFICATION_CC=b@x", Is("notify.mail.cc", "[\"b@x\"]")),
    ("KDUMP_SMTP_SERVER=m\nKDUMP_NOTIFICATION_TO=a@x\nKDUMP_SMTP_USER=u", No("KDUMP_SMTP_USER is not followed")),
    (
        "KDUMP_SMTP_SERVER=m\nKDUMP_NOTIFICATION_TO=a@x\nKDUMP_SMTP_PASSWORD=p",
        No("KDUMP_SMTP_PASSWORD is not followed"),
    ),
    ("KDUMP_SMTP_TIMEOUT=3", Notes("KDUMP_SMTP_TIMEOUT: mail has a limit of its own")),
    ("KDUMP_HOST_KEY=\"ssh-rsa A\"", Is("remote.host_key", "\"ssh-rsa A\"")),
    ("KDUMP_SSH_IDENTITY=\"a b\"", Is("remote.identities", "\"a b\"")),
    ("KDUMPTOOL_FLAGS=x", Warns("KDUMPTOOL_FLAGS has not had an effect")),
    ("KDUMP_COPY_KERNEL=yes", Warns("KDUMP_COPY_KERNEL has no effect any more")),
];

const DEBIAN: &[Row] = &[
    ("USE_KDUMP=1", Is("enabled", "true")),
    ("KDUMP_KERNEL=/boot/k", Is("kernel.file", "\"/boot/k\"")),
    ("KDUMP_KERNEL=/var/lib/kdump/vmlinuz", Notes("KDUMP_KERNEL: it is found without the link")),
    ("KDUMP_INITRD=/boot/i", Is("kernel.image", "\"/boot/i\"")),
    ("KDUMP_COREDIR=/c", Is("path", "\"/c\"")),
    ("KDUMP_FAIL_CMD=\"halt -f\"", Is("fail_command", "\"halt -f\"")),
    ("KDUMP_FAIL_CMD=\"/bin/a b\"", Is("fail_command", "\"/bin/a b\"")),
    ("KDUMP_DUMP_DMESG=0", Warns("KDUMP_DUMP_DMESG=0 has no effect: the log is saved before anything else")),
    ("KDUMP_DUMP_DMESG=1", Usual),
    ("KDUMP_NUM_DUMPS=4", Is("room.keep", "4")),
    ("KDUMP_COMPRESSION=xz", No("KDUMP_COMPRESSION is not supported")),
    ("MAKEDUMP_ARGS=\"-F -c -d 31\"", Is("collector", "\"kdump-capture -c -d 31\"")),
    ("KDUMP_KEXEC_ARGS=-s", Is("kernel.syscall", "\"file\"")),
    ("KDUMP_CMDLINE=a", Is("kernel.command_line", "\"a\"")),
    ("KDUMP_CMDLINE_APPEND=\"a b\"", Is("kernel.append", "\"a b\"")),
    ("HOSTTAG=ip", Usual),
    ("NFS=nas:/x\nHOSTTAG=hostname", No("HOSTTAG=hostname is not supported")),
    ("NFS=nas:/x", Is("target.export", "\"nas:/x\"")),
    ("NFS=nas:/x\nNFS_TIMEO=5", Is("target.options", "[\"timeo=5\"]")),
    ("NFS=nas:/x\nNFS_RETRANS=2", Is("target.options", "[\"retrans=2\"]")),
    ("NFS=nas:/x\nNFS_MOUNT_RETRY=2", Warns("NFS_MOUNT_RETRY has no effect: the server is tried until")),
    ("FTP=nas:/x", Is("target.url", "\"ftp://nas/x\"")),
    ("FTP=nas\nFTP_USER=u", Is("target.url", "\"ftp://u@nas/\"")),
    ("FTP=nas\nFTP_USER=u\nFTP_PASSWORD=p", Is("target.password", "\"(set)\"")),
    ("FTP=nas\nFTP_PORT=2121", Is("target.url", "\"ftp://nas:2121/\"")),
    ("KDUMP_COREDIR=/c\nSSH=u@nas", Is("target.url", "\"ssh://u@nas/c\"")),
    ("SSH=u@nas\nSSH_KEY=/k", Is("sshkey", "\"/k\"")),
    ("SSH=u@nas\nSSH_KDUMP_RETRY=5", Is("remote.wait", "15")),
];

fn rhel(text: &str, complaints: &mut Complaints) -> Config {
    let rhel = Rhel::parse(text, Path::new("file"), complaints);
    let mut config = Config { dump: rhel.dump, ..Config::default() };
    rhel.dracut.apply(Dialect::Rhel, &mut config.dump, &mut config.system);
    config
}

fn of_debian(text: &str, complaints: &mut Complaints) -> Config {
    let (dump, system) = debian::parse(text, Path::new("file"), Path::new("/nowhere"), complaints);
    Config { dump, system, ..Config::default() }
}

/// Name and value of each setting that somebody made.
fn made(config: &Config) -> Vec<(String, String)> {
    let usual = crate::kexec::cmdline::DEFAULT_APPEND.replace("nr_cpus=1 ", "");
    settings(config)
        .iter()
        .filter(|setting| setting.origin != Origin::Default)
        .map(|setting| {
            let key = if setting.table.is_empty() {
                setting.name.to_owned()
            } else {
                format!("{}.{}", setting.table, setting.name)
            };
            let value = setting.value.to_string().replace("nr_cpus=1 ", "");
            (key, value.replace(&usual, "…"))
        })
        .collect()
}

fn holds(rows: &[Row], read: impl Fn(&str, &mut Complaints) -> Config) {
    for (text, to) in rows {
        let mut complaints = Complaints::default();
        let made = made(&read(text, &mut complaints));
        let errors = complaints.errors();
        let line = text.lines().count();
        let begins =
            |lines: &[String], words: &str| lines.iter().any(|one| one.starts_with(&format!("file:{line}: {words}")));
        match to {
            Is(key, value) => {
                assert!(errors.is_empty(), "{text}: {errors:?}");
                let is = (key.to_string(), value.to_string());
                assert!(made.contains(&is), "{text}: {made:?}");
            }
            No(words) => assert!(begins(&errors, words), "{text}: {errors:?}"),
            Warns(words) => assert!(begins(&complaints.warnings, words), "{text}: {complaints:?}"),
            Notes(words) => assert!(begins(&complaints.notes, words), "{text}: {complaints:?}"),
            Usual => {
                assert!(errors.is_empty() && complaints.warnings.is_empty(), "{text}: {complaints:?}");
                let others = made.iter().filter(|(key, _)| key != "enabled").count();
                assert_eq!(others, 0, "{text}: {made:?}");
            }
        }
    }
}

/// Whether the last line of some row is about it.
fn is_tried(rows: &[Row], name: &str) -> bool {
    let last = |text: &'static str| text.lines().last().unwrap_or_default().split([' ', '=']).next();
    rows.iter().any(|(text, _)| last(text) == Some(name))
}

#[test]
fn every_directive_of_kdump_conf_takes_effect() {
    holds(RHEL, rhel);
    for word in words::all() {
        match words::REFUSED.iter().find(|(refused, _)| *refused == word) {
            None => assert!(is_tried(RHEL, word), "{word}"),
            Some((_, instead)) => {
                let mut complaints = Complaints::default();
                rhel(&format!("{word} x"), &mut complaints);
                assert_eq!(complaints.errors(), [format!("file:1: `{word}` {instead}")]);
            }
        }
    }
}

#[test]
fn every_variable_of_rhel_takes_effect() {
    holds(RHEL_VARIABLES, |text, complaints| Config::of_sysconfig(text, Path::new("file"), false, complaints));
    for name in super::super::rhel::VARIABLES {
        assert!(is_tried(RHEL_VARIABLES, name), "{name}");
    }
}

#[test]
fn every_variable_of_suse_takes_effect() {
    holds(SUSE, |text, complaints| Config::of_sysconfig(text, Path::new("file"), true, complaints));
    for name in super::super::suse::VARIABLES {
        assert!(is_tried(SUSE, name), "{name}");
    }
}

#[test]
fn every_variable_of_debian_takes_effect() {
    holds(DEBIAN, of_debian);
    for name in super::super::debian::VARIABLES {
        assert!(is_tried(DEBIAN, name), "{name}");
    }
}
