//! What comes of a configuration on a machine: the image that is built, what init is told in it, and what is loaded.
//!
//! Everything that can be seen is a line, so that a table can name one: `init KEY = VALUE` is told to init, `file PATH`
//! and `module NAME` are in the image, `line WORD` is on the capture kernel's command line, `loaded KEY = VALUE` is how it
//! was loaded, and the others are what a program says.

use crate::cli::Kdumpctl;
use crate::cpio::read::Archive;
use crate::fake::{FakeSystem, described};
use crate::host::Tree;
use crate::kdumpctl;
use crate::kexec::fake::FakeKexec;
use clap::Parser;
use kdump_hooks::fake::{self, object};
use nix::sys::statvfs::{FsFlags, statvfs};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Mutex;

/// A kernel that does not run, with everything built in but the driver of /dev/vdc, whose firmware the machine lacks.
const OTHER: &str = "6.2-other";

/// Modules that stand alone.
const MODULES: &[&str] = &[
    "ext2",
    "ext3",
    "ext4",
    "xfs",
    "btrfs",
    "f2fs",
    "vfat",
    "minix",
    "virtiofs",
    "nfs",
    "nfsv3",
    "nfsv4",
    "sunrpc",
    "cifs",
    "gcm",
    "crc32c",
    "nvme",
    "virtio_blk",
    "virtio_net",
    "af_packet",
    "dm-crypt",
    "floppy",
    "wdt",
    "ramoops",
];

/// Files of the machine that the tables name: path and text.
const FILES: &[(&str, &str)] = &[
    ("proc/cmdline", "root=/dev/vda1 ro quiet splash crashkernel=512M console=ttyS0\n"),
    ("proc/cpuinfo", "processor\t: 0\ninitial apicid\t: 0\n\n"),
    ("proc/meminfo", "MemTotal: 8388608 kB\n"),
    ("proc/sys/kernel/hostname", "here\n"),
    ("proc/sys/kernel/panic_on_oops", "0\n"),
    ("proc/sys/kernel/random/boot_id", "second\n"),
    ("proc/self/mountinfo", "1 0 8:1 / / rw - ext4 /dev/vda1 rw\n"),
    ("sys/kernel/kexec_crash_loaded", "0\n"),
    ("sys/kernel/kexec_crash_size", "536870912\n"),
    ("sys/class/watchdog/watchdog0/state", "active\n"),
    ("boot/vmlinuz-6.1-test", "kernel"),
    ("boot/vmlinuz-6.1-test.gz", "kernel"),
    ("boot/Image-6.1-test", "kernel"),
    ("b/vmlinuz-6.1-test", "kernel"),
    ("boot/vmlinuz-6.2-other", "kernel"),
    ("etc/default/grub", "GRUB_CMDLINE_LINUX=\"crashkernel=512M\"\n"),
    ("etc/kdump/sysctl.conf", "vm.nr_hugepages=0\n"),
    ("etc/kdump/mail", "username=u\npassword=p\n"),
    ("etc/kdump/share", "username=u\npassword=p\n"),
    ("etc/kdump/password", "p\n"),
    ("etc/kdump/authorities.pem", "another authority\n"),
    ("etc/ssl/certs/ca-certificates.crt", "an authority\n"),
    ("etc/ssh/ssh_known_hosts", "nas ssh-ed25519 AAAAC3NzaC1lZDI1NTE5\n192.0.2.1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5\n"),
    ("root/.ssh/id_rsa", "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"),
    ("root/.ssh/other", "-----BEGIN RSA PRIVATE KEY-----\nanotherkey==\n-----END RSA PRIVATE KEY-----\n"),
    ("root/k", "-----BEGIN RSA PRIVATE KEY-----\nanotherkey==\n-----END RSA PRIVATE KEY-----\n"),
    ("bin/sh", "sh"),
    ("usr/bin/a", "a"),
    ("usr/bin/b", "b"),
    ("opt/extra", "x"),
    ("opt/firmware/vendor/card.bin", "firmware"),
    ("var/lib/kdump/crashkernel-defaults", "512M\n"),
    (
        "var/lib/kdump/test.json",
        "{\"id\":\"1\",\"state\":\"pending\",\"boot\":\"first\",\"time\":1,\"image\":\"/i\",\"image_written\":1,\"kernel\":\"6.1-test\"}",
    ),
];

/// Its devices.
const HOST: &str = r#"
[[device]]
at = "/sys/devices/platform/wdt"
driver = "wdt"

[[device]]
at = "/sys/devices/platform/virtio0"
driver = "virtio_blk"

[[device]]
at = "/sys/devices/platform/virtio0/block/vda1"
class = "block"
files = { dev = "8:1" }

[[device]]
at = "/sys/devices/platform/virtio1"
driver = "card"

[[device]]
at = "/sys/devices/platform/virtio1/block/vdc"
class = "block"
files = { dev = "8:32" }

[links]
"/sys/class/watchdog/watchdog0/device" = "/sys/devices/platform/wdt"
"#;

/// What is built and loaded goes through process-wide settings: how much is logged, for one.
static ALONE: Mutex<()> = Mutex::new(());

/// All that comes of these files of a configuration; `again` if later starts are to be looked at, too.
pub(super) fn observe(configuration: &[(&str, &str)], again: bool) -> BTreeSet<String> {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // There are hundreds of such machines, and every image is synced: in memory that takes seconds, on a disk a minute.
    let memory = Path::new("/dev/shm");
    let runs_programs = statvfs(memory).is_ok_and(|about| !about.flags().contains(FsFlags::ST_NOEXEC));
    let place = if runs_programs { memory.to_owned() } else { std::env::temp_dir() };
    let dir = tempfile::tempdir_in(place).unwrap();
    let system = machine(&dir);
    for (path, text) in configuration {
        system.write(path, text.as_bytes()).unwrap();
    }
    let observer = Observer { system, kexec: FakeKexec::default() };
    let root = dir.path().display().to_string();
    observer.all(again).into_iter().map(|line| line.replace(&root, "")).collect()
}

fn machine(dir: &tempfile::TempDir) -> FakeSystem {
    let modules: String = MODULES.iter().map(|name| format!("\"{name}\" = {{ in = \"any\" }}\n")).collect();
    let modules = format!(
        "{modules}unrelated = {{ in = \"any\", firmware = [\"vendor/card.bin\"] }}\nipv6 = {{ in = \"builtin\" }}\ncard = {{ in = \"any\" }}\n"
    );
    let system = described::machine(dir.path(), HOST, &modules).unwrap();
    fs::remove_file(dir.path().join("lib/firmware/vendor/card.bin")).unwrap();
    fake::program(&system.programs().join("kdump-capture"), &agrees()).unwrap();
    for (path, text) in FILES {
        system.write(path, text.as_bytes()).unwrap();
        if path.contains("bin/") {
            fake::program(&dir.path().join(path), text.as_bytes()).unwrap();
        }
    }
    let wants = dir.path().join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).unwrap();
    symlink("/usr/lib/systemd/system/kdump.service", wants.join("kdump.service")).unwrap();
    for path in ["etc/keys/ima/one.der", "etc/keys/modsign/one.der"] {
        system.write(path, &[0x30, 0x82, 0, 1, 0]).unwrap();
    }
    let builtin: String = MODULES.iter().map(|name| format!("kernel/{name}.ko\n")).collect();
    let card = object(&[&format!("vermagic={OTHER} SMP"), "firmware=vendor/card.bin"]);
    for (name, bytes) in
        [("modules.dep", &b"card.ko:\n"[..]), ("modules.builtin", builtin.as_bytes()), ("card.ko", &card)]
    {
        system.write(&format!("lib/modules/{OTHER}/{name}"), bytes).unwrap();
    }
    system
}

/// A static program that agrees with every argument, and brings neither a shell nor libraries along: `exit(0)` for x86_64.
fn agrees() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    let code = [0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05];
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    let mut put = |bytes: &[u8]| file.extend_from_slice(bytes);
    [2u16, 62].iter().for_each(|half| put(&half.to_le_bytes()));
    put(&1u32.to_le_bytes());
    [BASE + 120, 64, 0].iter().for_each(|word| put(&word.to_le_bytes()));
    put(&0u32.to_le_bytes());
    [64u16, 56, 1, 0, 0, 0].iter().for_each(|half| put(&half.to_le_bytes()));
    // One segment, all of the file: read and run.
    [1u32, 5].iter().for_each(|word| put(&word.to_le_bytes()));
    let size = 120 + code.len() as u64;
    [0, BASE, BASE, size, size, 0x1000].iter().for_each(|word: &u64| put(&word.to_le_bytes()));
    put(&code);
    file
}

struct Observer {
    system: FakeSystem,
    kexec: FakeKexec,
}

impl Observer {
    /// What a command says, and whether it fails.
    fn says(&self, words: &str) -> Vec<String> {
        let programs = self.system.programs();
        let typed = ["kdumpctl", "--programs", programs.to_str().unwrap()].into_iter().chain(words.split(' '));
        let mut out = Vec::new();
        let tree = Tree::new(&self.system.root);
        let result = kdumpctl::run(&Kdumpctl::try_parse_from(typed).unwrap(), tree, &self.kexec, &mut out);
        let mut lines: Vec<String> = String::from_utf8(out).unwrap().lines().map(str::to_owned).collect();
        lines.extend(result.err().map(|error| format!("fails: {error:#}")));
        lines
    }

    fn all(&self, again: bool) -> Vec<String> {
        let path = |name: &str| self.system.root.join(name);
        log::set_max_level(log::LevelFilter::Trace);
        let started = self.says("start");
        let mut lines = vec![format!("log level {}", log::max_level())];
        let record = fs::read_to_string(path("run/kdump/loaded.json")).unwrap_or_default();
        let loaded: serde_json::Value = serde_json::from_str(&record).unwrap_or_default();
        lines.extend(loaded.as_object().into_iter().flatten().map(|(key, value)| format!("loaded {key} = {value}")));
        let words = loaded["cmdline"].as_str().unwrap_or_default().split(' ');
        lines.extend(words.map(|word| format!("line {word}")));
        if let Some(image) = loaded["image"].as_str() {
            in_image(&fs::read(image).unwrap(), &mut lines);
        }
        if fs::read_to_string(path("sys/kernel/kexec_crash_size")).unwrap() != "536870912\n" {
            lines.push("reservation is smaller".to_owned());
        }
        if fs::read_to_string(path("proc/sys/kernel/panic_on_oops")).unwrap() == "1\n" {
            lines.push("an oops is a panic".to_owned());
        }
        lines.extend(started.into_iter().map(|line| format!("start: {line}")));
        let builds = || again && self.says("start").iter().any(|line| line.contains(" modules of kernel "));
        if builds() {
            lines.push("a second start builds".to_owned());
        }
        let program = self.system.programs().join("kdump-init");
        fs::write(&program, [fs::read(&program).unwrap(), vec![0]].concat()).unwrap();
        if builds() {
            lines.push("a start with another program builds".to_owned());
        }
        let reset = self.says("reset-crashkernel --dry-run");
        lines.extend(reset.into_iter().map(|line| format!("reset: {line}")));
        let updated = self.says("_reset-crashkernel-after-update");
        lines.extend(updated.into_iter().map(|line| format!("after an upgrade: {line}")));
        lines
    }
}

/// The image, and the text of what is small in it.
fn in_image(bytes: &[u8], lines: &mut Vec<String>) {
    const TEXTS: [&str; 6] = [
        "etc/modules-load.d/",
        "etc/kdump/sysctl.conf",
        "etc/kdump/send/",
        "etc/kdump/mail",
        "etc/kdump/share",
        "etc/kdump/notify.authorities",
    ];
    let archive = Archive::read_with(bytes, &|_| true).unwrap();
    lines.extend(archive.parts.iter().filter_map(|part| Some(format!("packed with {}", part.codec?))));
    for entry in &archive.entries {
        let path = entry.path();
        lines.push(format!("file {path}"));
        if let Some(name) = path.rsplit('/').next().and_then(|name| name.strip_suffix(".ko")) {
            lines.push(format!("module {name}"));
        }
        let text = String::from_utf8_lossy(archive.data(entry));
        if TEXTS.iter().any(|start| path.starts_with(start)) {
            lines.extend(text.lines().map(|line| format!("{path}: {line}")));
        }
        if path == "etc/kdump/image.toml" {
            told("", &toml::Value::Table(text.parse().unwrap()), lines);
        }
    }
}

/// What init is told, a line for each value.
fn told(key: &str, value: &toml::Value, lines: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                told(&format!("{key}.{name}"), value, lines);
            }
        }
        toml::Value::Array(list) if list.iter().any(toml::Value::is_table) => {
            for (at, value) in list.iter().enumerate() {
                told(&format!("{key}[{at}]"), value, lines);
            }
        }
        value => lines.push(format!("init {} = {value}", key.trim_start_matches('.'))),
    }
}
