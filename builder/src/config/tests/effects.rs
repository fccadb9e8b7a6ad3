//! Every directive and every variable of the three dialects takes effect, or is refused by name.

use super::super::rhel::words;
use super::machine::observe;
use super::*;
use crate::config::settings::settings;
use crate::crashkernel::Arch;
use std::collections::{BTreeMap, BTreeSet};

/// What a line comes to.
enum To {
    /// This native value is that, and this is seen on a machine of which it is not seen without the line; or the other way
    /// round, behind a `no`.
    Is(&'static str, &'static str, &'static str),
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
    ("path /srv", Is("path", "\"/srv\"", "init dump.path = \"/srv\"")),
    ("raw PARTUUID=12-01", Is("target.device", "\"PARTUUID=12-01\"", "init hooks.targets[0].kind = \"raw\"")),
    ("nfs [fd00::1]:/x", Is("target.export", "\"[fd00::1]:/x\"", "init hooks.targets[0].server = \"fd00::1\"")),
    ("ssh me@nas", Is("target.url", "\"ssh://me@nas/var/crash\"", "init hooks.targets[0].protocol = \"ssh\"")),
    ("ext2 UUID=1", Is("target.type", "\"ext2\"", "init hooks.targets[0].fstype = \"ext2\"")),
    ("ext3 LABEL=a", Is("target.device", "\"LABEL=a\"", "init hooks.targets[0].fstype = \"ext3\"")),
    ("ext4 UUID=1", Is("target.type", "\"ext4\"", "init hooks.targets[0].device = \"UUID=1\"")),
    ("xfs UUID=1", Is("target.type", "\"xfs\"", "module xfs")),
    ("btrfs UUID=1", Is("target.type", "\"btrfs\"", "module btrfs")),
    ("f2fs UUID=1", Is("target.type", "\"f2fs\"", "module f2fs")),
    ("vfat UUID=1", Is("target.type", "\"vfat\"", "module vfat")),
    ("minix /dev/vdb", Is("target.device", "\"/dev/vdb\"", "init hooks.targets[0].device = \"/dev/vdb\"")),
    ("virtiofs tag", Is("target.tag", "\"tag\"", "init hooks.targets[0].tag = \"tag\"")),
    ("raw /dev/vdb\nraw_force yes", Is("raw_force", "true", "init hooks.targets[0].force = true")),
    ("ssh me@nas\nsshkey /root/k", Is("sshkey", "\"/root/k\"", "etc/kdump/send/ssh-nas.key: anotherkey==")),
    (
        "core_collector makedumpfile -F -l -d 1",
        Is(
            "collector",
            "\"kdump-capture -l -d 1\"",
            "init dump.collector = [\"kdump-capture\", \"-l\", \"-d\", \"1\"]",
        ),
    ),
    ("failure_action shell", Is("failure_action", "\"shell\"", "init endings.failure_action = \"shell\"")),
    (
        "ext4 UUID=1\nfailure_action dump_to_rootfs",
        Is("failure_action", "\"dump_to_rootfs\"", "init hooks.targets[1].kind = \"rootfs\""),
    ),
    ("default halt", Is("failure_action", "\"halt\"", "init endings.failure_action = \"halt\"")),
    ("final_action poweroff", Is("final_action", "\"poweroff\"", "init endings.final_action = \"poweroff\"")),
    ("extra_modules gcm floppy", Is("image.modules", "[\"gcm\", \"floppy\"]", "module gcm")),
    (
        "extra_modules gcm\nforbid_modules floppy",
        Is("image.forbid", "[\"floppy\"]", "init hooks.modules.forbid = [\"floppy\"]"),
    ),
    ("extra_bins /usr/bin/a", Is("image.files", "[\"/usr/bin/a\"]", "file usr/bin/a")),
    (
        "auto_reset_crashkernel no",
        Is(
            "auto_reset_crashkernel",
            "false",
            "no after an upgrade: /etc/default/grub: crashkernel=2G-64G:256M,64G-:512M from the next boot on",
        ),
    ),
    ("kdump_pre /usr/bin/a", Is("programs.pre", "\"/usr/bin/a\"", "init hooks.user.pre[0].argv = [\"/usr/bin/a\"]")),
    ("kdump_post /usr/bin/a", Is("programs.post", "\"/usr/bin/a\"", "init hooks.user.post[0].argv = [\"/usr/bin/a\"]")),
    (
        "kdump_emergency /usr/bin/a",
        Is("programs.emergency", "\"/usr/bin/a\"", "init hooks.user.emergency[0].argv = [\"/usr/bin/a\"]"),
    ),
    (
        "fence_kdump_nodes 192.0.2.1 192.0.2.2",
        Is("fence.nodes", "[\"192.0.2.1\", \"192.0.2.2\"]", "init hooks.fence.nodes = [\"192.0.2.1\", \"192.0.2.2\"]"),
    ),
    (
        "fence_kdump_nodes 192.0.2.1\nfence_kdump_args -p 7 -f ipv4",
        Is("fence.args", "\"-p 7 -i 10 -c 0 -f ipv4\"", "init hooks.fence.port = 7"),
    ),
    ("force_rebuild 1", Is("rebuild", "\"always\"", "a second start builds")),
    ("force_rebuild 0", Usual),
    ("force_no_rebuild 1", Is("rebuild", "\"never\"", "no a start with another program builds")),
    ("dracut_args --add-drivers gcm", Is("image.drivers", "[\"gcm\"]", "module gcm")),
    ("dracut_conf no", Usual),
];

const RHEL_VARIABLES: &[Row] = &[
    ("KDUMP_KERNELVER=6.2-other", Is("kernel.release", "\"6.2-other\"", "init kernel_release = \"6.2-other\"")),
    ("KDUMP_COMMANDLINE=a", Is("kernel.command_line", "\"a\"", "line a")),
    ("KDUMP_COMMANDLINE_REMOVE=\"console splash\"", Is("kernel.remove", "\"console splash\"", "no line console=ttyS0")),
    ("KDUMP_COMMANDLINE_APPEND=", Is("kernel.append", "\"\"", "no line irqpoll")),
    ("FADUMP_COMMANDLINE_APPEND=a", Notes("FADUMP_COMMANDLINE_APPEND: it counts for fadump alone")),
    ("KEXEC_ARGS=-s", Is("kernel.syscall", "\"file\"", "loaded syscall = \"file\"")),
    (
        "KEXEC_ARGS=-s\nKEXEC_ARGS=\"-p -a\"",
        Is("kernel.syscall", "\"auto\"", "loaded syscall = \"auto, kexec_file_load\""),
    ),
    ("KEXEC_ARGS=--dt-no-old-root", Usual),
    ("KEXEC_ARGS=--reset-vga", No("KEXEC_ARGS: `--reset-vga` is not supported")),
    ("KDUMP_BOOTDIR=/b", Is("kernel.boot_dir", "\"/b\"", "loaded kernel = \"/b/vmlinuz-6.1-test\"")),
    ("KDUMP_IMG=Image", Is("kernel.name", "\"Image\"", "loaded kernel = \"/boot/Image-6.1-test\"")),
    ("KDUMP_IMG_EXT=.gz", Is("kernel.suffix", "\".gz\"", "loaded kernel = \"/boot/vmlinuz-6.1-test.gz\"")),
    (
        "VMCORE_CREATION_NOTIFICATION=",
        Is("tell_test_result", "false", "no start: test 1 failed: no dump; the image has been built anew since"),
    ),
    ("KDUMP_STDLOGLVL=4", Is("log_level", "4", "log level DEBUG")),
    ("KDUMP_STDLOGLVL=5", No("KDUMP_STDLOGLVL: `5` is not a number from 0 to 4")),
    ("KDUMP_SYSLOGLVL=3", Warns("KDUMP_SYSLOGLVL has no effect: what is told goes to stderr")),
    ("KDUMP_KMSGLOGLVL=0", Usual),
];

const SUSE: &[Row] = &[
    (
        "KDUMP_KERNELVER=/boot/vmlinuz-6.2-other",
        Is("kernel.file", "\"/boot/vmlinuz-6.2-other\"", "loaded kernel = \"/boot/vmlinuz-6.2-other\""),
    ),
    (
        "KDUMP_CRASHKERNEL=\"crashkernel=1M,high  crashkernel=1M,low\"",
        Is(
            "kernel.crashkernel",
            "\"crashkernel=1M,high crashkernel=1M,low\"",
            "start: /etc/default/grub: crashkernel=1M,high crashkernel=1M,low from the next boot on",
        ),
    ),
    (
        "KDUMP_CRASHKERNEL=auto",
        Is("kernel.crashkernel", "\"auto\"", "no reset: + GRUB_CMDLINE_LINUX=\"crashkernel=2G-64G:256M,64G-:512M\""),
    ),
    ("KDUMP_CRASHKERNEL=256M", No("KDUMP_CRASHKERNEL: `256M` is not followed; write `auto`, or crashkernel=…")),
    (
        "KDUMP_CRASHKERNEL=crashkernel=1M\nKDUMP_UPDATE_BOOTLOADER=no",
        Is("kernel.update_bootloader", "false", "no start: /etc/default/grub: crashkernel=1M from the next boot on"),
    ),
    ("KDUMP_COMMANDLINE_APPEND=x\nKDUMP_CPUS=0", Is("kernel.append", "\"… x\"", "no line nr_cpus=1")),
    ("KDUMP_CPUS=4", Is("kernel.append", "\"… nr_cpus=4\"", "line nr_cpus=4")),
    ("KDUMP_SAVEDIR=/c\nKDUMP_COMMANDLINE_APPEND=x", Is("kernel.append", "\"… x\"", "line x")),
    (
        "KDUMP_SAVEDIR=/c\nKDUMP_COMMANDLINE=y\nKDUMP_COMMANDLINE_APPEND=x",
        Is("kernel.append", "\"x\"", "no line irqpoll"),
    ),
    ("KDUMP_AUTO_RESIZE=true", Is("kernel.auto_resize", "true", "reservation is smaller")),
    ("KDUMP_FADUMP=true", No("KDUMP_FADUMP: only POWER has fadump")),
    ("KDUMP_FADUMP_SHELL=no", Usual),
    (
        "KEXEC_OPTIONS=-c",
        Is(
            "kernel.syscall",
            "\"load\"",
            "start: fails: cannot load the capture kernel /boot/vmlinuz-6.1-test with /boot/initramfs-6.1-testkdump.img: cannot lay /boot/vmlinuz-6.1-test out in memory: this is no bzImage; name one with KDUMP_IMG",
        ),
    ),
    (
        "MAKEDUMPFILE_OPTIONS=-X",
        Is(
            "collector",
            "\"kdump-capture -z --message-level 7 -d 31 -X\"",
            "init dump.collector = [\"kdump-capture\", \"-z\", \"--message-level\", \"7\", \"-d\", \"31\", \"-X\"]",
        ),
    ),
    (
        "KDUMP_DUMPFORMAT=lzo\nKDUMP_DUMPLEVEL=3",
        Is(
            "collector",
            "\"kdump-capture -l --message-level 7 -d 3\"",
            "init dump.collector = [\"kdump-capture\", \"-l\", \"--message-level\", \"7\", \"-d\", \"3\"]",
        ),
    ),
    (
        "KDUMP_DUMPFORMAT=ELF",
        Is(
            "collector",
            "\"kdump-capture -E --message-level 7 -d 31\"",
            "init dump.collector = [\"kdump-capture\", \"-E\", \"--message-level\", \"7\", \"-d\", \"31\"]",
        ),
    ),
    (
        "KDUMP_DUMPFORMAT=raw",
        Is(
            "collector",
            "\"kdump-capture -E -d 0 --message-level 7\"",
            "init dump.collector = [\"kdump-capture\", \"-E\", \"-d\", \"0\", \"--message-level\", \"7\"]",
        ),
    ),
    ("KDUMP_DUMPFORMAT=none", Is("log_only", "true", "init dump.log_only = true")),
    // SUSE's own message on that names a format that it does not take then.
    (
        "KDUMP_DUMPFORMAT=gz",
        No("KDUMP_DUMPFORMAT: `gz` is not a format; write ELF, compressed, lzo, snappy, zstd, raw or none"),
    ),
    ("KDUMP_DUMPLEVEL=32", No("KDUMP_DUMPLEVEL: `32` is not a number from 0 to 31")),
    ("KDUMP_IMMEDIATE_REBOOT=no", Is("shell_first", "true", "init endings.shell_first = true")),
    ("KDUMP_TRANSFER=/bin/x", No("KDUMP_TRANSFER is not supported")),
    ("KDUMP_SAVEDIR=file:///c", Is("path", "\"/c\"", "init dump.path = \"/c\"")),
    ("KDUMP_SAVEDIR=cifs://h/s/d", Is("target.share", "\"//h/s\"", "init hooks.targets[0].kind = \"cifs\"")),
    ("KDUMP_KEEP_OLD_DUMPS=2", Is("room.keep", "3", "init dump.keep = 3")),
    // There, it takes away the dump that was just saved.
    ("KDUMP_FREE_DISK_SIZE=64", Is("room.free", "64", "init dump.free = 67108864")),
    ("KDUMP_VERBOSE=9", Is("log_level", "4", "log level DEBUG")),
    ("KDUMP_VERBOSE=2", Usual),
    ("KDUMP_CONTINUE_ON_ERROR=false", Is("shell_on_failure", "true", "init endings.failure_action = \"shell\"")),
    ("KDUMP_REQUIRED_PROGRAMS=\"a /usr/bin/b\"", Is("image.programs", "[\"a\", \"/usr/bin/b\"]", "file usr/bin/b")),
    (
        "KDUMP_PRESCRIPT=\"/usr/bin/a b\"",
        Is("programs.before", "[\"/usr/bin/a\", \"b\"]", "init hooks.user.pre[0].argv = [\"/usr/bin/a\", \"b\"]"),
    ),
    (
        "KDUMP_POSTSCRIPT=/usr/bin/a",
        Is("programs.after", "[\"/usr/bin/a\"]", "init hooks.user.post[0].argv = [\"/usr/bin/a\"]"),
    ),
    (
        "KDUMP_POSTSCRIPT=\"/usr/lib/fence_kdump_send -i 5 192.0.2.1\"",
        Is("fence.nodes", "[\"192.0.2.1\"]", "init hooks.fence.interval = 5"),
    ),
    ("KDUMP_POSTSCRIPT=/usr/lib/fence_kdump_send", No("KDUMP_POSTSCRIPT: fence_kdump_send has nobody to tell")),
    (
        "KDUMP_NETCONFIG=eth0:dhcp:force",
        Is("kernel.network", "\"eth0:dhcp:force\"", "init hooks.network.interfaces[0].name = \"eth0\""),
    ),
    ("KDUMP_SAVEDIR=sftp://u@nas/x\nKDUMP_NET_TIMEOUT=30", Is("remote.wait", "30", "init hooks.targets[0].wait = 30")),
    (
        "KDUMP_SMTP_SERVER=m:25\nKDUMP_NOTIFICATION_TO=a@x",
        Is("notify.mail.to", "[\"a@x\"]", "init hooks.notify.mail.to = [\"a@x\"]"),
    ),
    (
        "KDUMP_NOTIFICATION_TO=a@x\nKDUMP_SMTP_SERVER=m",
        Is("notify.mail.server", "\"m:25\"", "init hooks.notify.mail.host = \"m\""),
    ),
    ("KDUMP_NOTIFICATION_CC=a@x", Warns("KDUMP_NOTIFICATION_CC without KDUMP_NOTIFICATION_TO: nobody is told")),
    ("KDUMP_NOTIFICATION_TO=a@x", Warns("KDUMP_NOTIFICATION_TO without KDUMP_SMTP_SERVER: no mail leaves")),
    (
        "KDUMP_NOTIFICATION_TO=a@x\nKDUMP_SMTP_SERVER=m\nKDUMP_NOTIFICATION_CC=b@x",
        Is("notify.mail.cc", "[\"b@x\"]", "init hooks.notify.mail.cc = [\"b@x\"]"),
    ),
    (
        "KDUMP_SMTP_SERVER=m\nKDUMP_NOTIFICATION_TO=a@x\nKDUMP_SMTP_USER=u",
        No("KDUMP_SMTP_USER needs KDUMP_SMTP_PASSWORD"),
    ),
    (
        "KDUMP_SMTP_SERVER=m\nKDUMP_NOTIFICATION_TO=a@x\nKDUMP_SMTP_USER=u\nKDUMP_SMTP_PASSWORD=p",
        Is("notify.mail.password", "\"(set)\"", "etc/kdump/mail.credentials: password=p"),
    ),
    ("KDUMP_SMTP_TIMEOUT=3", Notes("KDUMP_SMTP_TIMEOUT: mail has a limit of its own")),
    (
        "KDUMP_SAVEDIR=sftp://u@nas/x\nKDUMP_HOST_KEY=\"ssh-rsa AAAAB3NzaC1yc2E=\"",
        Is(
            "remote.host_key",
            "\"ssh-rsa AAAAB3NzaC1yc2E=\"",
            "etc/kdump/send/sftp-nas.hosts: nas ssh-rsa AAAAB3NzaC1yc2E=",
        ),
    ),
    (
        "KDUMP_SAVEDIR=sftp://u@nas/x\nKDUMP_SSH_IDENTITY=\"a other\"",
        Is("remote.identities", "\"a other\"", "etc/kdump/send/sftp-nas.key: anotherkey=="),
    ),
    ("KDUMPTOOL_FLAGS=x", Warns("KDUMPTOOL_FLAGS has not had an effect")),
    ("KDUMP_COPY_KERNEL=yes", Warns("KDUMP_COPY_KERNEL has no effect any more")),
];

const DEBIAN: &[Row] = &[
    ("USE_KDUMP=1", Is("enabled", "true", "loaded release = \"6.1-test\"")),
    (
        "KDUMP_KERNEL=/boot/vmlinuz-6.2-other",
        Is("kernel.file", "\"/boot/vmlinuz-6.2-other\"", "loaded kernel = \"/boot/vmlinuz-6.2-other\""),
    ),
    ("KDUMP_KERNEL=/var/lib/kdump/vmlinuz", Notes("KDUMP_KERNEL: it is found without the link")),
    ("KDUMP_INITRD=/boot/i", Is("kernel.image", "\"/boot/i\"", "loaded image = \"/boot/i\"")),
    ("KDUMP_COREDIR=/c", Is("path", "\"/c\"", "init dump.path = \"/c\"")),
    ("KDUMP_FAIL_CMD=\"halt -f\"", Is("fail_command", "\"halt -f\"", "init endings.failure_action = \"halt\"")),
    (
        "KDUMP_FAIL_CMD=\"/usr/bin/a b\"",
        Is("fail_command", "\"/usr/bin/a b\"", "init hooks.user.emergency[0].argv = [\"/usr/bin/a\", \"b\"]"),
    ),
    ("KDUMP_DUMP_DMESG=0", Warns("KDUMP_DUMP_DMESG=0 has no effect: the log is saved before anything else")),
    ("KDUMP_DUMP_DMESG=1", Usual),
    ("KDUMP_NUM_DUMPS=4", Is("room.keep", "4", "init dump.keep = 4")),
    ("KDUMP_COMPRESSION=xz", No("KDUMP_COMPRESSION is not supported")),
    (
        "MAKEDUMP_ARGS=\"-F -c -d 31\"",
        Is(
            "collector",
            "\"kdump-capture -c -d 31\"",
            "init dump.collector = [\"kdump-capture\", \"-c\", \"-d\", \"31\"]",
        ),
    ),
    ("KDUMP_KEXEC_ARGS=-s", Is("kernel.syscall", "\"file\"", "loaded syscall = \"file\"")),
    ("KDUMP_CMDLINE=a", Is("kernel.command_line", "\"a\"", "line a")),
    ("KDUMP_CMDLINE_APPEND=\"a b\"", Is("kernel.append", "\"a b\"", "line b")),
    ("HOSTTAG=ip", Usual),
    ("NFS=nas:/x\nHOSTTAG=hostname", No("HOSTTAG=hostname is not supported")),
    ("NFS=nas:/x", Is("target.export", "\"nas:/x\"", "init hooks.targets[0].kind = \"nfs\"")),
    ("NFS=nas:/x\nNFS_TIMEO=5", Is("target.options", "[\"timeo=5\"]", "init hooks.targets[0].options = [\"timeo=5\"]")),
    (
        "NFS=nas:/x\nNFS_RETRANS=2",
        Is("target.options", "[\"retrans=2\"]", "init hooks.targets[0].options = [\"retrans=2\"]"),
    ),
    ("NFS=nas:/x\nNFS_MOUNT_RETRY=2", Warns("NFS_MOUNT_RETRY has no effect: the server is tried until")),
    ("FTP=nas:/x", Is("target.url", "\"ftp://nas/x\"", "init hooks.targets[0].protocol = \"ftp\"")),
    ("FTP=nas\nFTP_USER=u", Is("target.url", "\"ftp://u@nas/\"", "init hooks.targets[0].user = \"u\"")),
    ("FTP=nas\nFTP_USER=u\nFTP_PASSWORD=p", Is("target.password", "\"(set)\"", "etc/kdump/send/ftp-u@nas.password: p")),
    ("FTP=nas\nFTP_PORT=2121", Is("target.url", "\"ftp://nas:2121/\"", "init hooks.targets[0].port = 2121")),
    ("KDUMP_COREDIR=/c\nSSH=u@nas", Is("target.url", "\"ssh://u@nas/c\"", "init hooks.targets[0].user = \"u\"")),
    ("SSH=u@nas\nSSH_KEY=/root/k", Is("sshkey", "\"/root/k\"", "etc/kdump/send/ssh-nas.key: anotherkey==")),
    ("SSH=u@nas\nSSH_KDUMP_RETRY=5", Is("remote.wait", "15", "init hooks.targets[0].wait = 15")),
];

const DRACUT_ARGS: &[Row] = &[
    ("--add-drivers gcm", Is("image.drivers", "[\"gcm\"]", "module gcm")),
    ("--force-drivers gcm", Is("image.first", "[\"gcm\"]", "etc/modules-load.d/kdump-first.conf: gcm")),
    ("--omit-drivers floppy", Is("image.omit", "[\"floppy\"]", "init hooks.modules.forbid = [\"floppy\"]")),
    ("--filesystems xfs", Is("image.filesystems", "[\"xfs\"]", "module xfs")),
    ("--install /usr/bin/a", Is("image.install", "[\"/usr/bin/a\"]", "file usr/bin/a")),
    ("--install-optional 'a /nothing'", Is("image.optional", "[\"a\", \"/nothing\"]", "file usr/bin/a")),
    ("--include /opt/extra /etc/extra", Is("image.include", "[[\"/opt/extra\", \"/etc/extra\"]]", "file etc/extra")),
    (
        "--add-drivers unrelated \n--fwdir /opt/firmware",
        Is("image.firmware", "[\"/opt/firmware\"]", "file lib/firmware/vendor/card.bin"),
    ),
    (
        "--mount \"nas:/x /m nfs vers=4\"",
        Is("target.options", "[\"vers=4\"]", "init hooks.targets[0].options = [\"vers=4\"]"),
    ),
    ("--omit watchdog", Is("image.watchdog", "false", "no line wdt.pretimeout=0")),
    ("-o watchdog", Is("image.watchdog", "false", "no module wdt")),
    ("--kernel-cmdline x", Is("kernel.append", "\"… x\"", "line x")),
    ("--compress gzip", Is("image.compress", "\"gzip\"", "packed with gzip")),
    ("--gzip \n--no-compress", Is("image.compress", "\"none\"", "no packed with gzip")),
    ("--gzip", Is("image.compress", "\"gzip\"", "packed with gzip")),
    ("--xz", Is("image.compress", "\"xz\"", "packed with xz")),
    ("--lz4", Is("image.compress", "\"lz4\"", "packed with lz4")),
    ("--zstd", Is("image.compress", "\"zstd\"", "packed with zstd")),
    ("--no-hostonly", Is("image.hostonly", "false", "module nvme")),
    ("--no-hostonly \n--hostonly", Is("image.hostonly", "true", "no module nvme")),
    ("--add integrity", Is("image.integrity", "true", "file etc/keys/ima/one.der")),
    ("-a \"lvm masterkey\"", Is("image.integrity", "true", "file etc/keys/ima/one.der")),
    ("--force-add modsign", Is("image.modsign", "true", "file etc/keys/modsign/one.der")),
    ("--sshkey /root/k", Is("sshkey", "\"/root/k\"", "etc/kdump/send/ssh-nas.key: anotherkey==")),
];

const DRACUT_CONF: &[Row] = &[
    ("add_drivers+=\" gcm \"", Is("image.drivers", "[\"gcm\"]", "module gcm")),
    ("force_drivers+=\" gcm \"", Is("image.first", "[\"gcm\"]", "etc/modules-load.d/kdump-first.conf: gcm")),
    ("omit_drivers+=\" floppy \"", Is("image.omit", "[\"floppy\"]", "init hooks.modules.forbid = [\"floppy\"]")),
    ("filesystems+=\" xfs \"", Is("image.filesystems", "[\"xfs\"]", "module xfs")),
    ("install_items+=\" /usr/bin/a \"", Is("image.optional", "[\"/usr/bin/a\"]", "file usr/bin/a")),
    ("install_optional_items+=\" /usr/bin/a \"", Is("image.optional", "[\"/usr/bin/a\"]", "file usr/bin/a")),
    (
        "add_drivers+=\" unrelated \"\nfw_dir=\"/opt/firmware\"",
        Is("image.firmware", "[\"/opt/firmware\"]", "file lib/firmware/vendor/card.bin"),
    ),
    ("add_dracutmodules+=\" integrity \"", Is("image.integrity", "true", "file etc/keys/ima/one.der")),
    ("force_add_dracutmodules+=\" modsign \"", Is("image.modsign", "true", "file etc/keys/modsign/one.der")),
    ("omit_dracutmodules+=\" watchdog \"", Is("image.watchdog", "false", "no module wdt")),
    ("kernel_cmdline=\"x\"", Is("kernel.append", "\"… x\"", "line x")),
    ("compress=\"gzip\"", Is("image.compress", "\"gzip\"", "packed with gzip")),
    ("sshkey=\"/root/k\"", Is("sshkey", "\"/root/k\"", "etc/kdump/send/ssh-nas.key: anotherkey==")),
];

const NATIVE: &[Row] = &[
    ("path = \"/srv\"", Is("path", "\"/srv\"", "init dump.path = \"/srv\"")),
    (
        "target = [{ kind = \"remote\", url = \"ssh://u@nas/x\" }]\nsshkey = \"/root/k\"",
        Is("sshkey", "\"/root/k\"", "etc/kdump/send/ssh-nas.key: anotherkey=="),
    ),
    (
        "target = [{ kind = \"raw\", device = \"/dev/vdb\" }]\nraw_force = true",
        Is("raw_force", "true", "init hooks.targets[0].force = true"),
    ),
    (
        "collector = \"kdump-capture -l\"",
        Is("collector", "\"kdump-capture -l\"", "init dump.collector = [\"kdump-capture\", \"-l\"]"),
    ),
    ("log_only = true", Is("log_only", "true", "init dump.log_only = true")),
    ("failure_action = \"halt\"", Is("failure_action", "\"halt\"", "init endings.failure_action = \"halt\"")),
    ("final_action = \"poweroff\"", Is("final_action", "\"poweroff\"", "init endings.final_action = \"poweroff\"")),
    ("shell_first = true", Is("shell_first", "true", "init endings.shell_first = true")),
    ("shell_on_failure = true", Is("shell_on_failure", "true", "init endings.failure_action = \"shell\"")),
    (
        "fail_command = \"/usr/bin/a b\"",
        Is("fail_command", "\"/usr/bin/a b\"", "init hooks.user.emergency[0].argv = [\"/usr/bin/a\", \"b\"]"),
    ),
    ("rebuild = \"always\"", Is("rebuild", "\"always\"", "a second start builds")),
    ("enabled = false", Is("enabled", "false", "no loaded release = \"6.1-test\"")),
    (
        "auto_reset_crashkernel = false",
        Is(
            "auto_reset_crashkernel",
            "false",
            "no after an upgrade: /etc/default/grub: crashkernel=2G-64G:256M,64G-:512M from the next boot on",
        ),
    ),
    ("log_level = 4", Is("log_level", "4", "log level DEBUG")),
    (
        "tell_test_result = false",
        Is("tell_test_result", "false", "no start: test 1 failed: no dump; the image has been built anew since"),
    ),
    ("target = [{ kind = \"pstore\" }]", Is("target.kind", "\"pstore\"", "init hooks.targets[0].kind = \"pstore\"")),
    ("[room]\nkeep = 3", Is("room.keep", "3", "init dump.keep = 3")),
    ("[room]\nfree = 64", Is("room.free", "64", "init dump.free = 67108864")),
    ("[room]\nwhen_short = [\"level\"]", Is("room.when_short", "[\"level\"]", "init dump.when_short = [\"level\"]")),
    ("[limits]\ndevice = 7", Is("limits.device", "7", "init limits.device = 7")),
    ("[limits]\nstall = 7", Is("limits.stall", "7", "init limits.stall = 7")),
    ("[limits]\nstage = 7", Is("limits.stage", "7", "init limits.stage = 7")),
    ("[limits]\ndriver = 7", Is("limits.driver", "7", "init limits.driver = 7")),
    (
        "[programs]\npre = \"/usr/bin/a\"",
        Is("programs.pre", "\"/usr/bin/a\"", "init hooks.user.pre[0].argv = [\"/usr/bin/a\"]"),
    ),
    (
        "[programs]\npost = \"/usr/bin/a\"",
        Is("programs.post", "\"/usr/bin/a\"", "init hooks.user.post[0].argv = [\"/usr/bin/a\"]"),
    ),
    (
        "[programs]\nemergency = \"/usr/bin/a\"",
        Is("programs.emergency", "\"/usr/bin/a\"", "init hooks.user.emergency[0].argv = [\"/usr/bin/a\"]"),
    ),
    (
        "[programs]\nbefore = [\"/usr/bin/a\", \"b\"]",
        Is("programs.before", "[\"/usr/bin/a\", \"b\"]", "init hooks.user.pre[0].argv = [\"/usr/bin/a\", \"b\"]"),
    ),
    (
        "[programs]\nafter = [\"/usr/bin/a\", \"b\"]",
        Is("programs.after", "[\"/usr/bin/a\", \"b\"]", "init hooks.user.post[0].argv = [\"/usr/bin/a\", \"b\"]"),
    ),
    ("[image]\nmodules = [\"gcm\"]", Is("image.modules", "[\"gcm\"]", "module gcm")),
    ("[image]\nfiles = [\"/usr/bin/a\"]", Is("image.files", "[\"/usr/bin/a\"]", "file usr/bin/a")),
    ("[image]\nforbid = [\"floppy\"]", Is("image.forbid", "[\"floppy\"]", "init hooks.modules.forbid = [\"floppy\"]")),
    ("[image]\ndrivers = [\"gcm\"]", Is("image.drivers", "[\"gcm\"]", "module gcm")),
    ("[image]\nfirst = [\"gcm\"]", Is("image.first", "[\"gcm\"]", "etc/modules-load.d/kdump-first.conf: gcm")),
    ("[image]\nomit = [\"floppy\"]", Is("image.omit", "[\"floppy\"]", "init hooks.modules.forbid = [\"floppy\"]")),
    ("[image]\nfilesystems = [\"xfs\"]", Is("image.filesystems", "[\"xfs\"]", "module xfs")),
    ("[image]\ninstall = [\"a\"]", Is("image.install", "[\"a\"]", "file usr/bin/a")),
    ("[image]\noptional = [\"a\", \"/nothing\"]", Is("image.optional", "[\"a\", \"/nothing\"]", "file usr/bin/a")),
    ("[image]\nprograms = [\"a\"]", Is("image.programs", "[\"a\"]", "file usr/bin/a")),
    (
        "[image]\ninclude = [[\"/opt/extra\", \"/etc/extra\"]]",
        Is("image.include", "[[\"/opt/extra\", \"/etc/extra\"]]", "file etc/extra"),
    ),
    (
        "[image]\ndrivers = [\"unrelated\"]\nfirmware = [\"/opt/firmware\"]",
        Is("image.firmware", "[\"/opt/firmware\"]", "file lib/firmware/vendor/card.bin"),
    ),
    (
        "target = [{ kind = \"raw\", device = \"/dev/vdc\" }]\nkernel.release = \"6.2-other\"\n[image]\n\
         allow_missing_firmware = true",
        Is("image.allow_missing_firmware", "true", "module card"),
    ),
    ("[image]\ncompress = \"gzip\"", Is("image.compress", "\"gzip\"", "packed with gzip")),
    ("[image]\nhostonly = false", Is("image.hostonly", "false", "module nvme")),
    ("[image]\nwatchdog = false", Is("image.watchdog", "false", "no module wdt")),
    ("[image]\nintegrity = true", Is("image.integrity", "true", "file etc/keys/ima/one.der")),
    ("[image]\nmodsign = true", Is("image.modsign", "true", "file etc/keys/modsign/one.der")),
    (
        "[fence]\nnodes = [\"192.0.2.1\"]",
        Is("fence.nodes", "[\"192.0.2.1\"]", "init hooks.fence.nodes = [\"192.0.2.1\"]"),
    ),
    (
        "[fence]\nnodes = [\"192.0.2.1\"]\nargs = \"-p 7\"",
        Is("fence.args", "\"-p 7 -i 10 -c 0 -f auto\"", "init hooks.fence.port = 7"),
    ),
    (
        "[notify]\nwebhook = \"http://192.0.2.1/x\"",
        Is("notify.webhook", "\"http://192.0.2.1:80/x\"", "init hooks.notify.webhook = \"http://192.0.2.1:80/x\""),
    ),
    (
        "[notify]\nwebhook = \"https://192.0.2.1/x\"\nauthorities = \"/etc/kdump/authorities.pem\"",
        Is("notify.authorities", "\"/etc/kdump/authorities.pem\"", "etc/kdump/notify.authorities: another authority"),
    ),
    (
        "[notify.mail]\nto = [\"a@x\"]\nserver = \"m\"",
        Is("notify.mail.server", "\"m:25\"", "init hooks.notify.mail.host = \"m\""),
    ),
    (
        "[notify.mail]\nserver = \"m\"\nto = [\"a@x\"]",
        Is("notify.mail.to", "[\"a@x\"]", "init hooks.notify.mail.to = [\"a@x\"]"),
    ),
    (
        "[notify.mail]\nserver = \"m\"\nto = [\"a@x\"]\ncc = [\"b@x\"]",
        Is("notify.mail.cc", "[\"b@x\"]", "init hooks.notify.mail.cc = [\"b@x\"]"),
    ),
    (
        "[notify.mail]\nserver = \"m\"\nto = [\"a@x\"]\nfrom = \"c@x\"",
        Is("notify.mail.from", "\"c@x\"", "init hooks.notify.mail.from = \"c@x\""),
    ),
    (
        "[notify.mail]\nserver = \"m\"\nto = [\"a@x\"]\nclear = true\ncredentials = \"/etc/kdump/mail\"",
        Is("notify.mail.credentials", "\"/etc/kdump/mail\"", "etc/kdump/mail: password=p"),
    ),
    (
        "[notify.mail]\nserver = \"m\"\nto = [\"a@x\"]\ncredentials = \"/etc/kdump/mail\"\nclear = true",
        Is("notify.mail.clear", "true", "no init hooks.notify.mail.tls = \"starttls\""),
    ),
    (
        "[notify.mail]\nserver = \"m\"\nto = [\"a@x\"]\nstarttls = true",
        Is("notify.mail.starttls", "true", "init hooks.notify.mail.tls = \"starttls\""),
    ),
    ("[kernel]\nrelease = \"6.2-other\"", Is("kernel.release", "\"6.2-other\"", "init kernel_release = \"6.2-other\"")),
    ("[kernel]\ncommand_line = \"a\"", Is("kernel.command_line", "\"a\"", "line a")),
    ("[kernel]\nremove = \"console\"", Is("kernel.remove", "\"console\"", "no line console=ttyS0")),
    ("[kernel]\nappend = \"a\"", Is("kernel.append", "\"a\"", "line a")),
    (
        "[kernel]\nnetwork = \"eth0:dhcp:force\"",
        Is("kernel.network", "\"eth0:dhcp:force\"", "init hooks.network.interfaces[0].name = \"eth0\""),
    ),
    (
        "[kernel]\nfile = \"/boot/vmlinuz-6.2-other\"",
        Is("kernel.file", "\"/boot/vmlinuz-6.2-other\"", "loaded kernel = \"/boot/vmlinuz-6.2-other\""),
    ),
    ("[kernel]\nimage = \"/boot/i\"", Is("kernel.image", "\"/boot/i\"", "loaded image = \"/boot/i\"")),
    ("[kernel]\nboot_dir = \"/b\"", Is("kernel.boot_dir", "\"/b\"", "loaded kernel = \"/b/vmlinuz-6.1-test\"")),
    ("[kernel]\nname = \"Image\"", Is("kernel.name", "\"Image\"", "loaded kernel = \"/boot/Image-6.1-test\"")),
    ("[kernel]\nsuffix = \".gz\"", Is("kernel.suffix", "\".gz\"", "loaded kernel = \"/boot/vmlinuz-6.1-test.gz\"")),
    ("[kernel]\nsyscall = \"file\"", Is("kernel.syscall", "\"file\"", "loaded syscall = \"file\"")),
    (
        "[kernel]\ncrashkernel = \"crashkernel=1M\"",
        Is(
            "kernel.crashkernel",
            "\"crashkernel=1M\"",
            "start: /etc/default/grub: crashkernel=1M from the next boot on",
        ),
    ),
    (
        "[kernel]\ncrashkernel = \"crashkernel=1M\"\nupdate_bootloader = false",
        Is("kernel.update_bootloader", "false", "no start: /etc/default/grub: crashkernel=1M from the next boot on"),
    ),
    ("[kernel]\nauto_resize = true", Is("kernel.auto_resize", "true", "reservation is smaller")),
    ("[kernel]\npanic_on_oops = true", Is("kernel.panic_on_oops", "true", "an oops is a panic")),
    (
        "[kernel]\nsysctl = \"/etc/kdump/sysctl.conf\"",
        Is("kernel.sysctl", "\"/etc/kdump/sysctl.conf\"", "etc/kdump/sysctl.conf: vm.nr_hugepages=0"),
    ),
    (
        "target = [{ kind = \"remote\", url = \"ssh://u@nas/x\" }]\n[remote]\nidentities = \"a other\"",
        Is("remote.identities", "\"a other\"", "etc/kdump/send/ssh-nas.key: anotherkey=="),
    ),
    (
        "target = [{ kind = \"remote\", url = \"ssh://u@nas/x\" }]\n[remote]\nhost_key = \"ssh-rsa AAAAB3NzaC1yc2E=\"",
        Is(
            "remote.host_key",
            "\"ssh-rsa AAAAB3NzaC1yc2E=\"",
            "etc/kdump/send/ssh-nas.hosts: nas ssh-rsa AAAAB3NzaC1yc2E=",
        ),
    ),
    (
        "target = [{ kind = \"remote\", url = \"ssh://u@nas/x\" }]\n[remote]\nwait = 9",
        Is("remote.wait", "9", "init hooks.targets[0].wait = 9"),
    ),
    (
        "[[target]]\ndevice = \"UUID=1\"\ntype = \"xfs\"\nkind = \"filesystem\"",
        Is("target.kind", "\"filesystem\"", "module xfs"),
    ),
    (
        "[[target]]\nkind = \"filesystem\"\ndevice = \"UUID=1\"\ntype = \"xfs\"",
        Is("target.type", "\"xfs\"", "module xfs"),
    ),
    (
        "[[target]]\nkind = \"filesystem\"\ntype = \"xfs\"\ndevice = \"UUID=1\"",
        Is("target.device", "\"UUID=1\"", "init hooks.targets[0].device = \"UUID=1\""),
    ),
    (
        "[[target]]\nkind = \"filesystem\"\ntype = \"xfs\"\ndevice = \"UUID=1\"\noptions = [\"noatime\"]",
        Is("target.options", "[\"noatime\"]", "init hooks.targets[0].options = [\"noatime\"]"),
    ),
    (
        "[[target]]\nkind = \"filesystem\"\ntype = \"xfs\"\ndevice = \"UUID=1\"\npath = \"/d\"",
        Is("target.path", "\"/d\"", "init hooks.paths.xfs UUID=1 = \"/d\""),
    ),
    ("[[target]]\nkind = \"virtiofs\"\ntag = \"t\"", Is("target.tag", "\"t\"", "init hooks.targets[0].tag = \"t\"")),
    (
        "[[target]]\nkind = \"nfs\"\nexport = \"nas:/x\"",
        Is("target.export", "\"nas:/x\"", "init hooks.targets[0].export = \"/x\""),
    ),
    (
        "[[target]]\nkind = \"cifs\"\nshare = \"//nas/s\"",
        Is("target.share", "\"//nas/s\"", "init hooks.targets[0].share = \"s\""),
    ),
    (
        "[[target]]\nkind = \"cifs\"\nshare = \"//nas/s\"\ncredentials = \"/etc/kdump/share\"",
        Is("target.credentials", "\"/etc/kdump/share\"", "etc/kdump/share: password=p"),
    ),
    (
        "[[target]]\nkind = \"remote\"\nurl = \"sftp://u@nas/x\"",
        Is("target.url", "\"sftp://u@nas/x\"", "init hooks.targets[0].protocol = \"sftp\""),
    ),
    (
        "[[target]]\nkind = \"remote\"\nurl = \"ftp://u@nas/x\"\npassword_file = \"/etc/kdump/password\"",
        Is("target.password_file", "\"/etc/kdump/password\"", "etc/kdump/send/ftp-u@nas.password: p"),
    ),
    (
        "[[target]]\nkind = \"virtiofs\"\ntag = \"t\"\npath = \"/d\"",
        Is("target.path", "\"/d\"", "init hooks.paths.virtiofs t = \"/d\""),
    ),
    (
        "[[target]]\nkind = \"nfs\"\nexport = \"nas:/x\"\npath = \"/d\"",
        Is("target.path", "\"/d\"", "init hooks.paths.nfs nas:/x = \"/d\""),
    ),
    (
        "[[target]]\nkind = \"nfs\"\nexport = \"nas:/x\"\noptions = [\"vers=4.1\"]",
        Is("target.options", "[\"vers=4.1\"]", "init hooks.targets[0].options = [\"vers=4.1\"]"),
    ),
    (
        "[[target]]\nkind = \"cifs\"\nshare = \"//nas/s\"\npath = \"/d\"",
        Is("target.path", "\"/d\"", "init hooks.paths.cifs //nas/s = \"/d\""),
    ),
    (
        "[[target]]\nkind = \"cifs\"\nshare = \"//nas/s\"\noptions = [\"vers=3.0\"]",
        Is("target.options", "[\"vers=3.0\"]", "init hooks.targets[0].options = [\"vers=3.0\"]"),
    ),
    (
        "[[target]]\nkind = \"raw\"\ndevice = \"/dev/vdb\"",
        Is("target.device", "\"/dev/vdb\"", "init hooks.targets[0].kind = \"raw\""),
    ),
];

fn rhel(text: &str, complaints: &mut Complaints) -> Config {
    let rhel = Rhel::parse(text, Path::new("file"), complaints);
    let mut config = Config { dump: rhel.dump, ..Config::default() };
    rhel.dracut.apply((Dialect::Rhel, Arch::ours()), &mut config.dump, &mut config.system);
    config
}

fn of_debian(text: &str, complaints: &mut Complaints) -> Config {
    let (dump, system) = debian::parse(text, Path::new("file"), Path::new("/nowhere"), complaints);
    Config { dump, system, ..Config::default() }
}

fn of_dracut_conf(text: &str, complaints: &mut Complaints) -> Config {
    let (mut asked, mut config) = (dracut::Asked::default(), Config::default());
    asked.text(text, Path::new("file"), complaints);
    asked.apply((Dialect::Rhel, Arch::ours()), &mut config.dump, &mut config.system);
    config
}

fn of_native(text: &str, complaints: &mut Complaints) -> Config {
    let native = Native::examine(text, Path::new("file"), complaints);
    Config { dump: native.dump, system: native.system, ..Config::default() }
}

/// Name and value of each setting that somebody made.
fn made(config: &Config) -> Vec<(String, String)> {
    // Without the number of processors, which has a variable of its own.
    let usual = [Dialect::Rhel, Dialect::Suse, Dialect::Debian].map(|dialect| {
        let line = crate::kexec::cmdline::usual_append(dialect, Arch::ours()).replace("nr_cpus=1 ", "");
        line.trim_end_matches(" nr_cpus=1").to_owned()
    });
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
            (key, usual.iter().fold(value, |value, usual| value.replace(usual, "…")))
        })
        .collect()
}

/// Holds each row against the model that `read` makes of it, and against a machine with the files that `place` makes.
fn holds(
    rows: &[Row],
    read: impl Fn(&str, &mut Complaints) -> Config,
    place: impl Fn(&str) -> Vec<(&'static str, String)>,
) {
    let mut seen_of: BTreeMap<(String, bool), BTreeSet<String>> = BTreeMap::new();
    let mut seen = |text: &str, again: bool| {
        let observe = || {
            let files = place(text);
            observe(&files.iter().map(|(path, text)| (*path, text.as_str())).collect::<Vec<_>>(), again)
        };
        seen_of.entry((text.to_owned(), again)).or_insert_with(observe).clone()
    };
    let mut unseen = Vec::new();
    for (text, to) in rows {
        let mut complaints = Complaints::default();
        let made = made(&read(text, &mut complaints));
        let errors = complaints.errors();
        let line = text.lines().count();
        let begins =
            |lines: &[String], words: &str| lines.iter().any(|one| one.starts_with(&format!("file:{line}: {words}")));
        match to {
            Is(key, value, effect) => {
                let is = (key.to_string(), value.to_string());
                if !errors.is_empty() || !made.contains(&is) {
                    unseen.push(format!("{text}: {made:?} {errors:?}"));
                    continue;
                }
                let before = text.rsplit_once('\n').map_or("", |(before, _)| before);
                let again = effect.ends_with(" builds");
                let (with, without) = (seen(text, again), seen(before, again));
                let (there, missing, line) = match effect.strip_prefix("no ") {
                    Some(line) => (&without, &with, line),
                    None => (&with, &without, *effect),
                };
                if !there.contains(line) || missing.contains(line) {
                    let come: Vec<_> = with.difference(&without).collect();
                    let gone: Vec<_> = without.difference(&with).collect();
                    unseen.push(format!("{text}: `{effect}` is not it; there came {come:#?} and there went {gone:#?}"));
                }
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
    assert!(unseen.is_empty(), "{}", unseen.join("\n"));
}

/// Whether the last line of some row is about it.
fn is_tried(rows: &[Row], name: &str) -> bool {
    let last = |text: &'static str| text.lines().last().unwrap_or_default().split([' ', '=', '+']).next();
    rows.iter().any(|(text, _)| last(text) == Some(name))
}

#[test]
fn every_directive_of_kdump_conf_takes_effect() {
    holds(RHEL, rhel, |text| vec![("etc/kdump.conf", text.to_owned())]);
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
    let read =
        |text: &str, complaints: &mut Complaints| Config::of_sysconfig(text, Path::new("file"), false, complaints);
    holds(RHEL_VARIABLES, read, |text| {
        vec![("etc/kdump.conf", String::new()), ("etc/sysconfig/kdump", text.to_owned())]
    });
    for name in super::super::rhel::VARIABLES {
        assert!(is_tried(RHEL_VARIABLES, name), "{name}");
    }
}

#[test]
fn every_variable_of_suse_takes_effect() {
    let read =
        |text: &str, complaints: &mut Complaints| Config::of_sysconfig(text, Path::new("file"), true, complaints);
    // What makes it SUSE's, and changes nothing.
    holds(SUSE, read, |text| vec![("etc/sysconfig/kdump", format!("KDUMP_IMMEDIATE_REBOOT=yes\n{text}\n"))]);
    for name in super::super::suse::VARIABLES {
        assert!(is_tried(SUSE, name), "{name}");
    }
}

#[test]
fn every_variable_of_debian_takes_effect() {
    holds(DEBIAN, of_debian, |text| {
        let on = if text.contains("USE_KDUMP") || text.is_empty() { "" } else { "USE_KDUMP=1\n" };
        vec![("etc/default/kdump-tools", format!("{on}{text}\n"))]
    });
    for name in super::super::debian::VARIABLES {
        assert!(is_tried(DEBIAN, name), "{name}");
    }
}

#[test]
fn every_option_of_dracut_that_is_followed_takes_effect() {
    let read =
        |text: &str, complaints: &mut Complaints| rhel(&format!("dracut_args {}", text.replace('\n', "")), complaints);
    let conf = |text: &str| {
        let target = if text.contains("--mount") { "" } else { "ssh u@nas\n" };
        let line = if text.is_empty() { String::new() } else { format!("dracut_args {}\n", text.replace('\n', "")) };
        format!("{target}{line}")
    };
    holds(DRACUT_ARGS, read, |text| vec![("etc/kdump.conf", conf(text))]);
    for option in dracut::followed_options() {
        assert!(is_tried(DRACUT_ARGS, &format!("--{option}")), "{option}");
    }
}

#[test]
fn every_key_of_dracut_conf_that_is_followed_takes_effect() {
    let conf = "ssh u@nas\n".to_owned();
    holds(DRACUT_CONF, of_dracut_conf, |text| {
        vec![("etc/kdump.conf", conf.clone()), ("etc/dracut.conf", text.to_owned())]
    });
    for key in dracut::followed_keys() {
        assert!(is_tried(DRACUT_CONF, key), "{key}");
    }
}

/// The words that could stand where `zzz` is, as its refusal tells them.
fn words_beside(text: &str) -> Vec<String> {
    let error = Native::parse(text, Path::new("file")).unwrap_err().to_string();
    let quoted = error.split_once("expected ").map(|(_, words)| words.split('`').skip(1).step_by(2));
    if let Some(words) = quoted {
        return words.map(str::to_owned).collect();
    }
    let plain = error
        .split_once("; write one of ")
        .or_else(|| error.split_once("; write "))
        .or_else(|| error.split_once("; it has "));
    let (_, words) = plain.unwrap_or_else(|| panic!("{error}"));
    words.split([',', ' ']).filter(|word| !word.is_empty() && *word != "or").map(str::to_owned).collect()
}

/// Whether the last line of some row sets that word of that table; of a target, with this kind.
fn is_set(table: &str, kind: &str, word: &str) -> bool {
    NATIVE.iter().any(|(text, _)| {
        let head = text.lines().rev().find_map(|line| line.strip_prefix('[')?.strip_suffix(']')).unwrap_or_default();
        let is_kind = kind.is_empty() || text.contains(&format!("kind = \"{kind}\""));
        head == table && is_kind && text.lines().last().is_some_and(|line| line.starts_with(&format!("{word} = ")))
    })
}

#[test]
fn every_word_of_kdump_toml_takes_effect() {
    const TABLES: [&str; 9] =
        ["room", "limits", "programs", "image", "fence", "notify", "notify.mail", "kernel", "remote"];
    holds(NATIVE, of_native, |text| vec![("etc/kdump/kdump.toml", text.to_owned())]);
    let mut seen = 0;
    for table in [""].into_iter().chain(TABLES) {
        let head = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
        for word in words_beside(&format!("{head}zzz = 1\n")) {
            let name = [table, &word].join(".");
            match TABLES.contains(&name.trim_start_matches('.')) {
                true => seen += 1,
                false if name == ".target" => {}
                false => assert!(is_set(table, "", &word), "{name}"),
            }
        }
    }
    assert_eq!(seen, TABLES.len());
    for kind in words_beside("[[target]]\nzzz = \"\"\n") {
        let text = format!("[[target]]\nkind = \"{kind}\"\nzzz = \"\"\n");
        for word in words_beside(&text) {
            assert!(is_set("[target]", &kind, &word), "{word} of a target of kind {kind}");
        }
    }
}
