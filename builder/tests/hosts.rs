//! Plans for machines that are described in `tests/hosts/NAME.toml`, held against `NAME.plan`: every module with its reason,
//! firmware and keys with theirs, and in which layers the target is put together; and what all of it takes.
//!
//! `KDUMP_GOLDEN=update cargo test -p kdump-builder --test hosts` writes the plans anew.
#![allow(clippy::unwrap_used, reason = "tests")]

use clap::Parser;
use kdump_builder::asked::Asked;
use kdump_builder::build::{self, Built, Planned, Request};
use kdump_builder::cli::Kdumpctl;
use kdump_builder::config::Files;
use kdump_builder::estimate::Estimate;
use kdump_builder::fake::{FakeSystem, described};
use kdump_builder::host::Tree;
use kdump_builder::kdumpctl;
use kdump_builder::kexec::fake::FakeKexec;
use std::fs;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hosts")
}

fn plan(root: &Path, host: &str, kernel: &str) -> anyhow::Result<Built> {
    let system = described::machine(root, host, kernel)?;
    build::plan(&request(root, &system))
}

fn request(root: &Path, system: &FakeSystem) -> Request {
    Request {
        kver: None,
        sysroot: root.to_owned(),
        modules_dir: None,
        files: Files::new(root, None, None),
        programs: Some(system.programs()),
        packing: None,
        asked: Asked::default(),
        normal: None,
        old: None,
    }
}

fn told(built: &Built) -> String {
    let mut text = String::new();
    let hooks = &built.config.hooks;
    text.extend(hooks.targets.iter().map(|target| format!("target: {target}\n")));
    let layers = hooks.storage.iter().chain(hooks.network_storage.iter().map(|layer| &layer.0));
    text.extend(layers.map(|layer| format!("layer: {}\n", layer.hook().name())));
    text.extend(
        hooks.network.iter().flat_map(|network| &network.interfaces).map(|on| format!("interface: {}\n", on.name)),
    );
    let module = |module: &Planned| format!("module {} ({} bytes): {}\n", module.name, module.size, module.reason);
    text.extend(built.modules.iter().map(module));
    let others = [
        "lib/firmware/",
        "etc/kdump/send/",
        "etc/cryptsetup-keys.d/",
        "etc/kdump/keys/",
        "usr/bin/",
        "usr/sbin/",
        "sbin/",
    ];
    let entries =
        built.plan.entries().filter(|entry| others.iter().any(|dir| entry.path.starts_with(dir)) && entry.size() > 0);
    text.extend(
        entries
            .filter(|entry| !entry.reason.contains("interpreter"))
            .map(|entry| format!("/{} ({} bytes): {}\n", entry.path, entry.size(), entry.reason)),
    );
    // The image as a whole has the shell of the machine that tests, which runs the collector of a fake machine.
    let of_kernel = built.plan.entries().filter(|entry| entry.path.starts_with("lib/modules/"));
    text += &format!("/lib/modules: {} bytes\n", of_kernel.map(|entry| entry.size()).sum::<u64>());
    let without_image = Estimate { image: 0, unpacked: 0, ..built.estimate.clone() };
    let parts = without_image.parts().into_iter().filter(|(_, bytes)| *bytes > 0);
    text.extend(parts.map(|(name, bytes)| format!("memory of {name}: {bytes} bytes\n")));
    text += &format!("memory without the image: {} bytes, crashkernel={without_image}\n", without_image.sum());
    text.extend(built.warnings.iter().map(|warning| format!("warning: {warning}\n")));
    text
}

#[test]
fn a_described_machine_gets_the_plan_that_is_written_down() {
    let kernel = fs::read_to_string(folder().join("kernel.toml")).unwrap();
    let update = std::env::var("KDUMP_GOLDEN").is_ok_and(|word| word == "update");
    let mut differ = Vec::new();
    for name in ["laptop", "cloud", "san", "server", "raid", "board"] {
        let dir = tempfile::tempdir().unwrap();
        let host = fs::read_to_string(folder().join(format!("{name}.toml"))).unwrap();
        let built = plan(dir.path(), &host, &kernel).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let told = told(&built);
        let golden = folder().join(format!("{name}.plan"));
        if update {
            fs::write(&golden, &told).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if told != expected {
            differ.push(format!("{name}: expected\n{expected}\nbut it is\n{told}"));
        }
    }
    assert!(differ.is_empty(), "KDUMP_GOLDEN=update writes them anew\n{}", differ.join("\n"));
}

#[test]
fn a_kernel_without_the_driver_of_the_target_or_of_what_supplies_it_is_refused() {
    let kernel = fs::read_to_string(folder().join("kernel.toml")).unwrap();
    for (name, module) in
        [("cloud", "virtio_blk"), ("board", "rk808-regulator"), ("raid", "mpt3sas"), ("laptop", "vmd")]
    {
        let dir = tempfile::tempdir().unwrap();
        let host = fs::read_to_string(folder().join(format!("{name}.toml"))).unwrap();
        let without: String = kernel
            .lines()
            .filter(|line| !line.starts_with(&format!("{module} =")))
            .map(|line| format!("{line}\n"))
            .collect();
        let error = format!("{:#}", plan(dir.path(), &host, &without).unwrap_err());
        assert!(error.contains(&format!("module {module} is missing (driver of ")), "{name}: {error}");
    }
}

#[test]
fn a_device_of_which_only_the_modalias_is_known_has_to_be_covered() {
    let kernel = fs::read_to_string(folder().join("kernel.toml")).unwrap();
    let host = fs::read_to_string(folder().join("cloud.toml")).unwrap();
    let host: String =
        host.lines().filter(|line| !line.starts_with("driver")).map(|line| format!("{line}\n")).collect();
    let dir = tempfile::tempdir().unwrap();
    assert!(plan(dir.path(), &host, &kernel).unwrap().modules.iter().any(|module| module.name == "virtio_blk"));
    let dir = tempfile::tempdir().unwrap();
    let other = host.replace("virtio:d00000002", "virtio:d000000FF").replace("pci:v00001AF4", "pci:v0000FFFF");
    let error = format!("{:#}", plan(dir.path(), &other, &kernel).unwrap_err());
    assert!(error.contains("has no driver for any of virtio:d000000FFv00001AF4, pci:v0000FFFF"), "{error}");
}

#[test]
fn an_arm64_board_is_loaded_with_the_command_line_of_its_architecture() {
    let read = |name: &str| fs::read_to_string(folder().join(name)).unwrap();
    let amazon = read("board.toml").replacen(
        "[files]\n",
        "[files]\n\"/sys/devices/virtual/dmi/id/sys_vendor\" = \"Amazon EC2\\n\"\n",
        1,
    );
    for (host, irqpoll) in [(read("board.toml"), true), (amazon, false)] {
        let dir = tempfile::tempdir().unwrap();
        let system = described::machine(dir.path(), &host, &read("kernel.toml")).unwrap();
        let kexec = FakeKexec::default();
        let programs = system.programs();
        let typed = Kdumpctl::try_parse_from(["kdumpctl", "--programs", programs.to_str().unwrap(), "start"]).unwrap();
        kdumpctl::run(&typed, Tree::new(dir.path()), &kexec, &mut Vec::new()).unwrap();
        let journal = kexec.journal.borrow();
        let line = journal[0].split_once('`').unwrap().1.trim_end_matches('`');
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[0], "console=ttyS2", "{line}");
        assert!(words.contains(&"swiotlb=noforce") && words.contains(&"nr_cpus=1"), "{line}");
        assert_eq!(words.contains(&"irqpoll"), irqpoll, "{line}");
        assert!(!line.contains("mce=off") && !line.contains("apicid") && !line.contains("pcie_ports"), "{line}");
    }
}

#[test]
fn a_card_whose_driver_has_no_firmware_is_refused_unless_it_is_told_to_do_without() {
    let kernel = fs::read_to_string(folder().join("kernel.toml")).unwrap();
    let host = fs::read_to_string(folder().join("server.toml")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let system = described::machine(dir.path(), &host, &kernel).unwrap();
    fs::remove_dir_all(dir.path().join("lib/firmware/bnx2x")).unwrap();
    let request = request(dir.path(), &system);
    let error = format!("{:#}", build::plan(&request).unwrap_err());
    assert!(error.contains("bnx2x (driver of the network card ens2f0) has no firmware"), "{error}");
    let asked = Asked { allow_missing_firmware: true, ..Asked::default() };
    let built = build::plan(&Request { asked, ..request.clone() }).unwrap();
    let line = "firmware bnx2x/bnx2x-e2-7.13.21.0.fw of bnx2x is not in the image: this machine does not have it";
    assert!(built.left_out.contains(&line.to_owned()), "{:?}", built.left_out);
    fs::create_dir(dir.path().join("etc/kdump")).unwrap();
    let native = "sshkey = \"/root/.ssh/kdump_id_rsa\"\n[[target]]\nkind = \"remote\"\nurl = \"ssh://dump@192.0.2.10/srv/crash\"\n\
                  [image]\nallow_missing_firmware = true\n";
    fs::write(dir.path().join("etc/kdump/kdump.toml"), native).unwrap();
    let built = build::plan(&Request { files: Files::new(dir.path(), None, None), ..request }).unwrap();
    assert!(built.left_out.contains(&line.to_owned()), "{:?}", built.left_out);
}
