//! Dumps that leave the machine: by NFS to a server on the host, over every kind of network that an image brings up.
//!
//! QEMU's user network has a DHCP server and an IPv6 router; the host's loopback is 10.0.2.2 or fec0::2 there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qemu_tests::folders;
use qemu_tests::nfs_server::NfsServer;
use qemu_tests::prelude::*;
use qemu_tests::scenario::GuestFile;
use qemu_tests::switch::{Switch, Wiring};

const FOUR: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const SIX: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// The words of QEMU's command line for one card on the user network.
fn one_card() -> Vec<String> {
    ["-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,mac=52:54:00:12:34:56"].map(str::to_owned).into()
}

/// Where a server keeps its files; the run's own folder is cleared by the run.
fn serve(name: &str, address: IpAddr) -> Result<NfsServer> {
    serve_version(name, address, 4)
}

fn serve_version(name: &str, address: IpAddr, version: u8) -> Result<NfsServer> {
    let place = folders::qemu().join("nfs").join(name);
    folders::fresh(&place)?;
    NfsServer::of_version(&place, address, version)
}

/// A crash whose dump goes to `host` as the guest calls the server.
fn scenario(name: &str, host: &str, server: &NfsServer, append: &str, qemu: Vec<String>) -> Result<Scenario> {
    Ok(Scenario {
        target: format!("nfs {host}:/export"),
        append: append.into(),
        qemu,
        files: vec![GuestFile::text("/etc/fstab", &server.fstab(host))],
        ..Scenario::of(kernel(Suite::Own)?, name)
    })
}

/// Crashes, and judges what is on the server: whole, every page unpacks, every file has its sum, and it is named after
/// the guest's address.
fn check(scenario: &Scenario, server: &NfsServer, client: &str) -> Result<String> {
    let outcome = crash(scenario)?;
    ensure!(outcome.ending == Ending::Reboot, "the capture kernel's ending was {:?}", outcome.ending);
    let dump = server.dump().with_context(|| format!("the console said last:\n{}", tail(&outcome.console)))?;
    judge::dump_alone(&dump, &scenario.kernel.release, &outcome.marker)?;
    ensure!(!outcome.console.contains("stage network failed"), "the network failed:\n{}", tail(&outcome.console));
    let name = dump.file_name().unwrap_or_default().to_string_lossy().into_owned();
    ensure!(name.starts_with(&format!("{client}-20")), "the dump of {client} is called {name}");
    Ok(outcome.console)
}

fn tail(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

#[test]
fn a_dump_goes_by_dhcp_and_nfs_when_nothing_is_known_of_the_network() -> Result<()> {
    let server = serve("dhcp", FOUR)?;
    // The node of a cluster that is told of the dump meanwhile.
    let node = UdpSocket::bind((FOUR, 0)).context("unable to listen for fence_kdump")?;
    let mut scenario = scenario("nfs-dhcp", "10.0.2.2", &server, "", one_card())?;
    let port = node.local_addr()?.port();
    scenario.conf = vec!["fence_kdump_nodes 10.0.2.2".into(), format!("fence_kdump_args -p {port} -i 1")];
    let console = check(&scenario, &server, "10.0.2.15")?;
    node.set_nonblocking(true)?;
    let (mut bytes, mut messages) = ([0; 64], 0);
    while let Ok(length) = node.recv(&mut bytes) {
        // As fence_kdump of the cluster reads it: magic 0x1B302A40 and version 1, in the sender's byte order.
        ensure!(bytes[..length] == [0x40, 0x2a, 0x30, 0x1b, 1, 0, 0, 0], "a node was told {:?}", &bytes[..length]);
        messages += 1;
    }
    ensure!(messages >= 2, "the node was told {messages} times");
    ensure!(
        console.contains("10.0.2.15/24 via 10.0.2.2"),
        "the console does not tell the network:\n{}",
        tail(&console)
    );
    ensure!(
        console.contains("is mounted, NFS 4.2, 10.0.2.15 to 10.0.2.2"),
        "no word of the mount:\n{}",
        tail(&console)
    );
    Ok(())
}

#[test]
fn a_dump_goes_over_a_vlan_on_a_bond_that_loses_a_card_meanwhile() -> Result<()> {
    // The log is on the server by then, and the dump is not.
    const MEANWHILE: u64 = 2000;
    let server = serve("vlan", FOUR)?;
    let wiring = Wiring { vlan: Some(42), unplug_after: Some(MEANWHILE), ..Wiring::default() };
    let switch = Switch::new(wiring)?;
    let append = "bond=bond0:eth0,eth1:mode=active-backup,miimon=100 vlan=bond0.42:bond0 \
                  ip=10.0.2.15::10.0.2.2:255.255.255.0::bond0.42:none:1400";
    let scenario = scenario("nfs-vlan", "10.0.2.2", &server, append, switch.qemu.clone())?;
    let console = check(&scenario, &server, "10.0.2.15")?;
    ensure!(console.contains("bond0.42"), "the console does not tell the network:\n{}", tail(&console));
    let (tagged, dump) = (switch.counts.all(), size(&server.dump()?.join("vmcore"))?);
    ensure!(tagged * 1500 > dump, "only {tagged} frames carried the tag, for a dump of {dump} bytes");
    ensure!(switch.counts.least() >= MEANWHILE / 2, "the cards carried {:?} frames", switch.counts.passed);
    Ok(())
}

/// Three things that do not touch each other, in one guest.
#[test]
fn a_dump_goes_over_a_bridge_with_an_address_of_dhcpv6_to_a_server_of_nfsv3() -> Result<()> {
    let server = serve_version("bridge", SIX, 3)?;
    let lease: Ipv6Addr = "fec0::1:7".parse()?;
    let switch = Switch::new(Wiring { lease: Some(lease), ..Wiring::default() })?;
    let append = "bridge=br0:eth0 ip=br0:dhcp6";
    let scenario = scenario("nfs-bridge", "[fec0::2]", &server, append, switch.qemu.clone())?;
    let console = check(&scenario, &server, "fec0::1:7")?;
    for words in ["br0 (52:54:00:12:34:50)", "is mounted, NFS 3, fec0::1:7 to fec0::2"] {
        ensure!(console.contains(words), "no word of {words}:\n{}", tail(&console));
    }
    Ok(())
}

#[test]
fn a_dump_goes_over_ipv6_with_an_address_that_a_router_advertises() -> Result<()> {
    let server = serve("six", SIX)?;
    let scenario = scenario("nfs-ipv6", "[fec0::2]", &server, "ip=auto6", one_card())?;
    check(&scenario, &server, "fec0::5054:ff:fe12:3456").map(drop)
}

/// The image is made in the guest, from its own network; then the guest gets another address, and starts kdump again.
#[test]
#[ignore = "boots the guest with all modules of its kernel on the disk"]
fn an_image_is_built_again_when_the_machine_has_moved() -> Result<()> {
    let server = serve("moved", FOUR)?;
    let stack = Stack {
        modules: vec!["virtio_net"],
        prepare: vec![
            "busybox ip link set eth0 up",
            "busybox ip addr add 10.0.2.16/24 dev eth0",
            "kdumpctl start",
            "kdumpctl stop",
            "busybox ip addr del 10.0.2.16/24 dev eth0",
            "busybox ip addr add 10.0.2.17/24 dev eth0",
        ],
        // There is nothing to fetch from the guest.
        fetch: vec!["busybox mkdir -p /mnt/var/crash"],
        ..Stack::default()
    };
    let scenario =
        Scenario { stack: Some(stack), busybox: true, ..scenario("nfs-moved", "10.0.2.2", &server, "", one_card())? };
    let console = check(&scenario, &server, "10.0.2.17")?;
    for words in [
        "has changed, so it is built again: eth0 was a card, 10.0.2.16/24, and is a card, 10.0.2.17/24",
        "eth0 (52:54:00:12:34:56): 10.0.2.17/24",
    ] {
        ensure!(console.contains(words), "no word of {words}:\n{}", tail(&console));
    }
    Ok(())
}

/// The server loses its power while the collector writes: the mount gives up, and the failure action follows.
#[test]
#[ignore = "waits some minutes for the mount to give up"]
fn a_server_that_goes_away_leads_to_the_failure_action() -> Result<()> {
    let mut server = serve("gone", FOUR)?;
    let mut scenario = scenario("nfs-gone", "10.0.2.2", &server, "rd.kdump.stall=30", one_card())?;
    scenario.conf = vec!["failure_action poweroff".into()];
    scenario.other_collector = Some("/usr/libexec/saboteur hang".into());
    let folder = server.folder.clone();
    let killer = std::thread::spawn(move || {
        // The log is saved first, and then the collector is at work.
        let written = wait_for(&folder, Duration::from_secs(200));
        server.kill();
        written
    });
    let outcome = crash(&scenario)?;
    ensure!(killer.join().is_ok_and(|written| written), "nothing was ever written to the server");
    ensure!(outcome.ending == Ending::PowerOff, "the failure action was {:?}", outcome.ending);
    Ok(())
}

/// Whether some dump's log is whole within the limit.
fn wait_for(folder: &Path, limit: Duration) -> bool {
    let began = std::time::Instant::now();
    while began.elapsed() < limit {
        let dumps = std::fs::read_dir(folder.join("var/crash")).into_iter().flatten().flatten();
        if dumps.into_iter().any(|dump| dump.path().join("vmcore-dmesg.txt").exists()) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    false
}

fn size(file: &Path) -> Result<u64> {
    Ok(std::fs::metadata(file).with_context(|| format!("there is no {}", file.display()))?.len())
}
