//! `kdumpctl recover` and what `start` does with a raw target, on files in place of devices.
#![allow(clippy::unwrap_used, reason = "tests")]

use clap::Parser;
use kdump_builder::cli::Kdumpctl;
use kdump_builder::fake::FakeSystem;
use kdump_builder::host::Tree;
use kdump_builder::kdumpctl;
use kdump_builder::kexec::fake::FakeKexec;
use kdump_hooks::fake::program;
use kdump_hooks::raw::layout::{FLATTENED, Header, Name, Part, State, aligned};
use kdump_init::dump::sha256_of;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tempfile::TempDir;

/// A collector that rebuilds a "dump" by writing the stream down, and notes a stream without its end as ours does.
const COLLECTOR: &str = r#"#!/bin/sh
while [ $# -gt 0 ]; do case $1 in
  --report) report=$2; shift;; -R) out=$2; shift;; --dump-dmesg) echo "log of $2" > $3; exit;;
esac; shift; done
cat > $out
tail -c 4 $out | od -An -tx1 | grep -q "ff ff ff ff" && exit 0
echo '{"outcome":"incomplete","error":"the stream ends early. And more."}' > $report; exit 1
"#;

struct Machine {
    dir: TempDir,
    system: FakeSystem,
}

impl Machine {
    fn new() -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let system = FakeSystem::new(dir.path()).unwrap();
        system.write("etc/kdump.conf", b"path /var/crash\nraw /dev/vdb\n").unwrap();
        fs::create_dir_all(dir.path().join("dev")).unwrap();
        let machine = Machine { dir, system };
        machine.collector(COLLECTOR);
        machine.disk(&[]);
        machine
    }

    fn collector(&self, script: &str) {
        let path = self.system.programs().join("kdump-capture");
        program(&path, script.as_bytes()).unwrap();
    }

    fn device(&self) -> PathBuf {
        self.dir.path().join("dev/vdb")
    }

    fn base(&self) -> PathBuf {
        self.dir.path().join("var/crash")
    }

    /// Puts these bytes on the device.
    fn disk(&self, bytes: &[u8]) {
        let file = fs::File::create(self.device()).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file.set_len(1 << 20).unwrap();
    }

    fn run(&self, words: &[&str]) -> (anyhow::Result<ExitCode>, String) {
        let programs = self.system.programs();
        let words = [&["kdumpctl", "--programs", programs.to_str().unwrap()], words].concat();
        let mut out = Vec::new();
        let tree = Tree::new(&self.system.root);
        let result = kdumpctl::run(&Kdumpctl::parse_from(words), tree, &FakeKexec::default(), &mut out);
        (result, String::from_utf8(out).unwrap())
    }

    fn fails(&self, words: &[&str]) -> String {
        let before = fs::read(self.device()).unwrap();
        let error = format!("{:#}", self.run(words).0.unwrap_err());
        assert!(fs::read(self.device()).unwrap() == before, "the device was changed");
        error
    }

    /// The only dump directory, its files, and its status.
    fn dump(&self) -> (PathBuf, Vec<String>, Value) {
        let dirs: Vec<_> = fs::read_dir(self.base()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(dirs.len(), 1, "{dirs:?}");
        let mut names: Vec<String> =
            fs::read_dir(&dirs[0]).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        let status =
            fs::read(dirs[0].join("status.json")).map_or(Value::Null, |it| serde_json::from_slice(&it).unwrap());
        (dirs[0].clone(), names, status)
    }
}

fn stream(dump: &[u8]) -> Vec<u8> {
    let mut bytes = FLATTENED.to_vec();
    bytes.extend([1_i64, 1].map(i64::to_be_bytes).concat());
    bytes.resize(4096, 0);
    bytes.extend([0, i64::try_from(dump.len()).unwrap()].map(i64::to_be_bytes).concat());
    bytes.extend(dump);
    bytes.extend([-1_i64, -1].map(i64::to_be_bytes).concat());
    bytes
}

/// What the capture environment leaves on a device.
fn written(parts: &[(Name, State, &[u8])]) -> Vec<u8> {
    let mut header = Header::begun(1_795_294_158, "6.1-test");
    let mut bytes = vec![0; 4096];
    for (name, state, content) in parts {
        bytes.resize(usize::try_from(aligned(bytes.len() as u64).unwrap()).unwrap(), 0);
        let offset = bytes.len() as u64;
        let (length, sha256) = sha256_of(&mut &content[..], &mut || ()).unwrap();
        *header.part_mut(*name) = match state {
            State::Begun => Part { state: *state, offset, ..Part::default() },
            _ => Part { state: *state, offset, length, sha256 },
        };
        bytes.extend(*content);
    }
    header.state = State::Complete;
    bytes[..512].copy_from_slice(&header.encode());
    bytes
}

const STATUS: &[u8] = br#"{"outcome":"complete","reason":null,"files":[{"name":"vmcore.flat"}],"vmcore":{"pages":{}}}"#;

fn good() -> Vec<u8> {
    written(&[
        (Name::Log, State::Complete, b"the log"),
        (Name::Vmcore, State::Complete, &stream(b"the dump")),
        (Name::EnvironmentLog, State::Complete, b"own log"),
        (Name::Status, State::Complete, STATUS),
    ])
}

const FILES: [&str; 4] = ["kexec-dmesg.log", "status.json", "vmcore", "vmcore-dmesg.txt"];

#[test]
fn a_dump_becomes_a_directory_and_the_device_is_cleared() {
    let machine = Machine::new();
    machine.disk(&good());
    let (code, said) = machine.run(&["recover"]);
    assert_eq!(code.unwrap(), ExitCode::SUCCESS);
    assert!(said.starts_with("Recovered the dump on ") && said.ends_with(" (complete)\n"), "{said}");
    let (dir, names, status) = machine.dump();
    assert!(dir.ends_with("127.0.0.1-2026-11-21-20:49:18"), "{}", dir.display());
    assert_eq!(names, FILES);
    assert_eq!(fs::read(dir.join("vmcore-dmesg.txt")).unwrap(), b"the log");
    assert_eq!(fs::read(dir.join("vmcore")).unwrap(), stream(b"the dump"));
    assert_eq!(fs::metadata(dir.join("vmcore")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(status["files"][1]["name"], "vmcore");
    assert_eq!(status["files"][1]["bytes"], stream(b"the dump").len());
    assert!(status["vmcore"]["pages"].is_object());
    assert_eq!(status["recovered_from"], machine.device().to_str().unwrap());
    // Now there is none any more, which is told in words and by the exit code.
    let (code, said) = machine.run(&["recover"]);
    assert_eq!(code.unwrap(), ExitCode::from(3));
    assert!(said.starts_with("There is no dump on "), "{said}");
    let (code, said) = machine.run(&["recover", "--json"]);
    assert_eq!(code.unwrap(), ExitCode::from(3));
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["result"], "no dump");
}

#[test]
fn start_recovers_first_and_starts_even_if_that_fails() {
    let machine = Machine::new();
    // The collector is also asked about its arguments when the image is built.
    machine.collector(&COLLECTOR.replace("#!/bin/sh", "#!/bin/sh\n[ $1 = --check-params ] && exit 0"));
    machine.disk(&good());
    let (code, said) = machine.run(&["start"]);
    code.unwrap();
    assert!(said.starts_with("Recovered the dump on ") && said.ends_with("Starting kdump: [OK]\n"), "{said}");
    assert_eq!(machine.dump().1, FILES);

    let mut damaged = good();
    damaged[4096] ^= 1;
    machine.disk(&damaged);
    let (code, said) = machine.run(&["start"]);
    code.unwrap();
    assert!(!said.contains("Recovered"), "{said}");
    assert_eq!(fs::read(machine.device()).unwrap()[..damaged.len()], damaged);
}

#[test]
fn every_raw_target_is_recovered_even_where_kdump_cannot_start() {
    let machine = Machine::new();
    let native = "path = \"/var/crash\"\n[[target]]\nkind = \"raw\"\ndevice = \"/dev/gone\"\n[[target]]\nkind = \"raw\"\n\
                  device = \"/dev/vdb\"\n[[target]]\nkind = \"raw\"\ndevice = \"/dev/vdc\"\n";
    machine.system.write("etc/kdump/kdump.toml", native.as_bytes()).unwrap();
    machine.system.write("sys/kernel/kexec_crash_size", b"0\n").unwrap();
    machine.disk(&good());
    fs::copy(machine.device(), machine.dir.path().join("dev/vdc")).unwrap();
    let (code, said) = machine.run(&["start"]);
    assert!(format!("{:#}", code.unwrap_err()).contains("crashkernel="));
    assert_eq!(said.matches("Recovered the dump on ").count(), 2, "{said}");
    assert_eq!(fs::read_dir(machine.base()).unwrap().count(), 2);

    machine.disk(&good());
    let (code, said) = machine.run(&["recover"]);
    assert!(format!("{:#}", code.unwrap_err()).contains("/dev/gone is not here"));
    assert!(said.contains("Recovered the dump on ") && said.contains("There is no dump on "), "{said}");
}

#[test]
fn recovered_dumps_count_among_those_that_stay_and_leave_free_what_is_to_stay_free() {
    let machine = Machine::new();
    let conf = |words: &str| {
        let text =
            format!("path = \"/var/crash\"\n[[target]]\nkind = \"raw\"\ndevice = \"/dev/vdb\"\n[room]\n{words}\n");
        machine.system.write("etc/kdump/kdump.toml", text.as_bytes()).unwrap();
    };
    let mounted = |source: &str| {
        let line = format!("1 0 8:1 / / rw - ext4 {source} rw\n");
        machine.system.write("proc/self/mountinfo", line.as_bytes()).unwrap();
    };
    let recover = |time: u64| {
        let mut bytes = good();
        let mut header = Header::decode(&bytes[..512]).unwrap();
        header.time = time;
        // Its status is lost.
        *header.part_mut(Name::Status) = Part::default();
        bytes[..512].copy_from_slice(&header.encode());
        machine.disk(&bytes);
        machine.run(&["recover"]).0.unwrap();
        fs::read_dir(machine.base()).unwrap().count()
    };
    conf("keep = 1");
    mounted("nas:/srv");
    assert_eq!((recover(1), recover(2)), (1, 2), "a share may have another machine's");
    mounted("/dev/vda1");
    assert_eq!(recover(3), 1);
    conf("free = 4000000000");
    machine.disk(&good());
    let error = machine.fails(&["recover"]);
    assert!(error.contains("besides the 4000000000 MiB that stay free; make room"), "{error}");
}

#[test]
fn a_recovered_dump_is_listed_and_is_what_a_test_was_waiting_for() {
    let machine = Machine::new();
    machine.system.write("proc/sys/kernel/random/boot_id", b"second\n").unwrap();
    let record =
        "{\"id\":\"7\",\"state\":\"pending\",\"boot\":\"first\",\"time\":1,\"image\":\"/i\",\"image_written\":1}";
    machine.system.write("var/lib/kdump/test.json", record.as_bytes()).unwrap();
    machine.disk(&written(&[
        (Name::Log, State::Complete, b"[    9.0] kdumpctl test 7\n[   10.0] sysrq: Trigger a crash\n"),
        (Name::Vmcore, State::Complete, &stream(b"the dump")),
        (Name::Status, State::Complete, STATUS),
    ]));
    machine.run(&["recover"]).0.unwrap();
    let (code, said) = machine.run(&["dumps", "list"]);
    assert_eq!(code.unwrap(), ExitCode::SUCCESS);
    assert!(said.contains("127.0.0.1-2026-11-21-20:49:18"), "{said}");
    let (code, said) = machine.run(&["test", "--result"]);
    assert!(said.starts_with("test 7 succeeded: "), "{said}");
    assert_eq!(code.unwrap(), ExitCode::SUCCESS);
}

#[test]
fn whatever_is_damaged_is_named_and_nothing_is_cleared() {
    let machine = Machine::new();
    for (at, words) in [
        (0, "the header is damaged: its checksum is wrong"),
        (200, "the header is damaged: its checksum is wrong"),
        (4096, "has not the sha256 that its header tells"),
        // Within the data of the stream, then in the heads of its records.
        (8192 + 4096 + 16, "has not the sha256 that its header tells"),
        (8192 + 4096 + 15, "vmcore on "),
        (8192 + 4096, "claims"),
    ] {
        let mut bytes = good();
        bytes[at] ^= 0x80;
        machine.disk(&bytes);
        let error = machine.fails(&["recover"]);
        assert!(error.contains(words), "{at}: {error}");
        let (code, said) = machine.run(&["recover", "--json"]);
        assert!(code.is_err());
        assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["result"], "failed");
    }
    // A device that is shorter than its dump, such as a copy that was cut.
    let file = fs::File::options().write(true).open(machine.device()).unwrap();
    file.write_all_at(&good(), 0).unwrap();
    file.set_len(9000).unwrap();
    assert!(machine.fails(&["recover"]).contains("it ends behind the end of the device"));
}

#[test]
fn an_attempt_that_was_interrupted_is_gone_on_with_in_the_same_directory() {
    let machine = Machine::new();
    machine.disk(&good());
    machine.collector("#!/bin/sh\necho no space left >&2; exit 1\n");
    let error = machine.fails(&["recover"]);
    assert!(error.contains("cannot rebuild") && error.contains("no space left"), "{error}");
    let (dir, names, _) = machine.dump();
    assert_eq!(names, ["recovery-incomplete", "vmcore-dmesg.txt"]);
    let inode = || fs::metadata(machine.base().join(&dir).join("vmcore-dmesg.txt")).unwrap().ino();
    let first = inode();
    machine.collector(COLLECTOR);
    machine.run(&["recover"]).0.unwrap();
    assert_eq!(inode(), first, "what was saved is saved once");
    assert_eq!((machine.dump().0, machine.dump().1), (dir, FILES.map(str::to_owned).to_vec()));
}

#[test]
fn what_does_not_fit_is_not_begun() {
    let machine = Machine::new();
    let huge = |header: &mut Header| {
        header.part_mut(Name::Log).length = 1 << 50;
    };
    let mut header = Header::begun(7, "6.1");
    *header.part_mut(Name::Log) = Part { state: State::Complete, offset: 4096, length: 1, sha256: [0; 32] };
    huge(&mut header);
    machine.disk(&header.encode());
    // The device itself would have to be as large.
    let file = fs::File::options().write(true).open(machine.device()).unwrap();
    file.set_len((1 << 43) - 4096).unwrap();
    header.part_mut(Name::Log).length = (1 << 43) - 12288;
    file.write_all_at(&header.encode(), 0).unwrap();
    let error = format!("{:#}", machine.run(&["recover"]).0.unwrap_err());
    assert!(error.contains("needs 8388609 MiB") && error.contains("name another directory with --to"), "{error}");
    assert_eq!(fs::read_dir(machine.base()).unwrap().count(), 0);
}

#[test]
fn an_incomplete_dump_is_recovered_as_what_it_is() {
    let machine = Machine::new();
    let cut = &stream(b"the dump")[..4096 + 20];
    machine.disk(&written(&[
        (Name::Log, State::Complete, b"the log"),
        (Name::Vmcore, State::Incomplete, cut),
        (Name::EnvironmentLog, State::Begun, b""),
    ]));
    let (code, said) = machine.run(&["recover"]);
    assert_eq!(code.unwrap(), ExitCode::FAILURE);
    assert!(said.contains("(incomplete: the capture kernel ended while it wrote kexec-dmesg.log, before"), "{said}");
    let (dir, names, status) = machine.dump();
    assert_eq!(names, ["status.json", "vmcore-dmesg.txt", "vmcore-incomplete"]);
    assert_eq!(fs::read(dir.join("vmcore-incomplete")).unwrap(), cut);
    assert_eq!((&status["outcome"], &status["capture_kernel"]), (&"incomplete".into(), &"6.1-test".into()));
    assert_eq!(machine.run(&["recover"]).0.unwrap(), ExitCode::from(3));
}

#[test]
fn a_power_loss_in_the_middle_leaves_the_log_and_says_so() {
    let machine = Machine::new();
    machine.disk(&written(&[(Name::Log, State::Complete, b"the log"), (Name::Vmcore, State::Begun, b"half a st")]));
    let (code, said) = machine.run(&["recover"]);
    assert_eq!(code.unwrap(), ExitCode::FAILURE);
    assert!(said.contains("ended while it wrote vmcore, before it could say why"), "{said}");
    assert_eq!(machine.dump().1, ["status.json", "vmcore-dmesg.txt"]);
}

#[test]
fn a_dump_of_another_collector_is_kept_as_it_is() {
    let machine = Machine::new();
    machine.disk(&written(&[(Name::Vmcore, State::Complete, b"ELF or so"), (Name::Status, State::Complete, STATUS)]));
    machine.run(&["recover"]).0.unwrap();
    assert_eq!(fs::read(machine.dump().0.join("vmcore")).unwrap(), b"ELF or so");
}

#[test]
fn a_raw_stream_of_makedumpfile_needs_no_header() {
    let machine = Machine::new();
    let to = machine.dir.path().join("elsewhere");
    let device = machine.device();
    let words = ["recover", device.to_str().unwrap(), "--to", to.to_str().unwrap()];
    // Neither kdump.conf nor a raw target in it is needed then.
    fs::remove_file(machine.dir.path().join("etc/kdump.conf")).unwrap();
    machine.disk(&stream(b"the dump"));
    assert_eq!(machine.run(&words).0.unwrap(), ExitCode::SUCCESS);
    let dir = fs::read_dir(&to).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::read(dir.join("vmcore")).unwrap(), stream(b"the dump"));
    let log = fs::read_to_string(dir.join("vmcore-dmesg.txt")).unwrap();
    assert!(log.starts_with("log of ") && log.ends_with("/vmcore\n"), "{log}");
    assert_eq!(machine.run(&words).0.unwrap(), ExitCode::from(3));
    let mut damaged = stream(b"the dump");
    damaged[4096] ^= 0x80;
    machine.disk(&damaged);
    assert!(machine.fails(&words).contains("is damaged: record 0 of the stream claims"));
}

#[test]
fn what_is_not_there_or_not_configured_is_told() {
    let machine = Machine::new();
    let none = machine.dir.path().join("none");
    assert!(machine.fails(&["recover", none.to_str().unwrap()]).contains("cannot open"));
    machine.system.write("etc/kdump.conf", b"ext4 LABEL=crash\n").unwrap();
    assert!(machine.fails(&["recover"]).contains("etc/kdump.conf names no raw target; name the device"));
    machine.system.write("etc/kdump.conf", b"raw PARTUUID=12-01\n").unwrap();
    assert!(machine.fails(&["recover"]).contains("kdump.conf:1: PARTUUID=12-01 is not here"));
    let two = b"[[target]]\nkind = \"raw\"\ndevice = \"/dev/vdb\"\n[[target]]\nkind = \"raw\"\ndevice = \"/dev/vdx\"\n";
    machine.system.write("etc/kdump/kdump.toml", two).unwrap();
    let told: Value = serde_json::from_str(&machine.run(&["recover", "--json"]).1).unwrap();
    assert_eq!((&told[0]["result"], &told[1]["result"]), (&"no dump".into(), &"failed".into()), "{told}");
    assert!(Path::new(&machine.base()).read_dir().is_err());
}
