//! Whether an image is still for the machine that it lies on: images of the machines in `tests/hosts`, looked at on the
//! same machines, and on others that differ in one thing.
#![allow(clippy::unwrap_used, reason = "tests")]

use clap::Parser;
use kdump_builder::cli::Kdumpctl;
use kdump_builder::fake::{FakeSystem, RELEASE, described};
use kdump_builder::host::Tree;
use kdump_builder::kdumpctl;
use kdump_builder::kexec::fake::FakeKexec;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hosts").join(name)).unwrap()
}

fn machine(host: &str) -> (TempDir, FakeSystem) {
    let dir = tempfile::tempdir().unwrap();
    let system = described::machine(dir.path(), host, &read("kernel.toml")).unwrap();
    system.write(&format!("boot/vmlinuz-{RELEASE}"), b"kernel").unwrap();
    (dir, system)
}

fn said(system: &FakeSystem, words: &[&str]) -> String {
    let programs = system.programs();
    let all = ["kdumpctl", "--programs", programs.to_str().unwrap()].into_iter().chain(words.iter().copied());
    let mut out = Vec::new();
    let typed = Kdumpctl::try_parse_from(all).unwrap();
    kdumpctl::run(&typed, Tree::new(&system.root), &FakeKexec::default(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// What is out of date, on machine `now`, of the image that was made on machine `then`.
fn stale(then: &str, now: &str) -> Vec<String> {
    let image = format!("boot/initramfs-{RELEASE}kdump.img");
    let (_then, built) = machine(then);
    said(&built, &["rebuild"]);
    let (_now, system) = machine(now);
    fs::copy(built.root.join(&image), system.root.join(&image)).unwrap();
    let status: serde_json::Value = serde_json::from_str(&said(&system, &["status", "--json"])).unwrap();
    assert!(status["configuration_error"].is_null(), "{status}");
    status["stale"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}

/// Texts of a description, and what stands in their place.
type Edits = &'static [(&'static str, &'static str)];

fn edited(host: &str, edits: Edits) -> String {
    edits.iter().fold(host.to_owned(), |host, (was, is)| {
        assert!(host.contains(was), "{was}");
        host.replace(was, is)
    })
}

#[test]
fn an_image_is_for_the_machine_that_it_was_built_on() {
    for name in ["laptop", "cloud", "san", "server", "raid", "board"] {
        let host = read(&format!("{name}.toml"));
        assert_eq!(stale(&host, &host), [""; 0], "{name}");
    }
}

#[test]
fn an_image_is_out_of_date_when_the_way_to_its_target_is_another_one() {
    // A machine, how it is when the image is built, how it is then, and what is said.
    let cases: [(&str, Edits, Edits, &str); 6] = [
        (
            "cloud",
            &[(
                "xfs UUID=5e0f3c1a-0000-4000-8000-00000000abcd\\n\"",
                "\"\n\"/proc/self/mountinfo\" = \"1 0 8:1 / / rw - ext4 /dev/vda1 rw\\n\"",
            )],
            &[("rw\\n\"", "rw\\n2 1 8:2 / /var/crash rw - xfs /dev/vdb1 rw\\n\"")],
            "dumps went to ext4 UUID=5e0f3c1a-0000-4000-8000-00000000abcd, and go to xfs /dev/vdb1; dumps were in \
             /var/crash there, and are in /",
        ),
        (
            "cloud",
            &[],
            &[("virtio:d00000002v", "virtio:d00000008v"), ("\"virtio_blk\"", "\"virtio_scsi\"")],
            "the way to the dumps takes virtio:d00000008v00001AF4 and virtio_scsi now",
        ),
        (
            "laptop",
            &[],
            &[("cr_disk\", \"dm/name\" = \"cr_disk\"", "cr_new\", \"dm/name\" = \"cr_new\"")],
            "the target was on the LUKS volume cr_disk of UUID=0a0b0c0d-0102-0304-0506-0708090a0b0c and the logical \
             volume laptop/crash, and is on the LUKS volume cr_new of",
        ),
        (
            "raid",
            &[],
            &[("slaves = [\"sda\", \"sdb\"]", "slaves = [\"sda\"]")],
            "the target was on the RAID md127 of 2 devices, and is on the RAID md127 of 1 devices",
        ),
        (
            "server",
            &[],
            &[("\"bnx2x\"", "\"ixgbe\""), ("pci:v000014E4d00001657sv0000103Csd0000339D", "pci:v00008086d00001572sv*")],
            "the way to the dumps takes pci:v00008086d00001572sv*bc02sc00i00 now",
        ),
        (
            "server",
            &[],
            &[(
                "192.0.2.10 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
                "192.0.2.11 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5\\n192.0.2.10 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA",
            )],
            "known host keys of the target ssh://dump@192.0.2.10/srv/crash: not what is in the image",
        ),
    ];
    for (name, base, edits, words) in cases {
        let then = edited(&read(&format!("{name}.toml")), base);
        let lines = stale(&then, &edited(&then, edits));
        assert!(lines.len() == 1 && lines[0].contains(words), "{name}: {lines:?}");
    }
}

#[test]
fn what_is_known_of_other_hosts_and_what_cannot_be_told_now_is_no_reason_to_build_an_image() {
    let cases: [(&str, Edits); 4] = [
        ("server", &[("192.0.2.10 ssh-ed25519", "192.0.2.11 ssh-rsa B\\n192.0.2.10 ssh-ed25519")]),
        ("server", &[("192.0.2.10 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5\\n", "")]),
        ("server", &[("net/ens2f0\"\nclass = \"net\"", "net/other\"\nclass = \"net\"")]),
        ("cloud", &[("block/vda", "block/vdb")]),
    ];
    for (name, edits) in cases {
        let then = read(&format!("{name}.toml"));
        assert_eq!(stale(&then, &edited(&then, edits)), [""; 0], "{name}: {edits:?}");
    }
}
