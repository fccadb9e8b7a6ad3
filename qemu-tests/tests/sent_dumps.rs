//! Dumps that a guest sends to another machine: by a shell over SSH, by SFTP, and by FTP with and without TLS.
//!
//! The servers are those of the host's loopback, which is 10.0.2.2 or fec0::2 for a guest.

use std::fs::{self, File};
use std::net::Ipv6Addr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use qemu_tests::far_server::{FarServer, PASSWORD, Speaks};
use qemu_tests::folders;
use qemu_tests::prelude::*;
use qemu_tests::programs::programs;
use qemu_tests::tools;

fn serve(name: &str, speaks: Speaks) -> Result<FarServer> {
    let place = folders::qemu().join("far").join(name);
    folders::fresh(&place)?;
    FarServer::start(&place, speaks)
}

fn serve_six(name: &str, speaks: Speaks) -> Result<FarServer> {
    let place = folders::qemu().join("far").join(name);
    folders::fresh(&place)?;
    FarServer::start_at(&place, Ipv6Addr::LOCALHOST.into(), speaks)
}

/// A crash whose dump goes to `URL/guest`.
fn scenario(name: &str, server: &FarServer, login: &str) -> Result<Scenario> {
    scenario_to(name, server, login, "10.0.2.2")
}

/// The same by IPv6.
fn scenario_six(name: &str, server: &FarServer, login: &str) -> Result<Scenario> {
    Ok(Scenario { append: "ip=auto6".into(), ..scenario_to(name, server, login, "[fec0::2]")? })
}

fn scenario_to(name: &str, server: &FarServer, login: &str, host: &str) -> Result<Scenario> {
    let key = |file: &str| fs::read_to_string(server.file(file)).unwrap_or_default();
    let known = key("known").replace("127.0.0.1", "10.0.2.2").replace("[::1]", "[fec0::2]");
    let card = ["-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,mac=52:54:00:12:34:56"];
    Ok(Scenario {
        savedir: Some(format!("{login}@{host}:{}{}/guest", server.port, server.far.display())),
        qemu: card.map(str::to_owned).into(),
        files: vec![
            GuestFile::text("/root/.ssh/id_ed25519", &key("ed25519")),
            GuestFile::text("/root/.ssh/known_hosts", &known),
        ],
        ..Scenario::of(kernel(Suite::Own)?, name)
    })
}

/// Crashes, and judges what is on the server; a stream that stayed one is rebuilt first.
fn check(scenario: &Scenario, server: &FarServer, vmcore: &str) -> Result<()> {
    check_from("10.0.2.15", scenario, server, vmcore)
}

/// The same, of a guest that has this address.
fn check_from(client: &str, scenario: &Scenario, server: &FarServer, vmcore: &str) -> Result<()> {
    let outcome = crash(scenario)?;
    ensure!(outcome.ending == Ending::Reboot, "the capture kernel's ending was {:?}", outcome.ending);
    let dump =
        server.dump("guest").with_context(|| format!("{}\n{}", server.log(), tools::tail(&outcome.console, 40)))?;
    if vmcore != "vmcore" {
        let mut rebuild = Command::new(programs()?.path("kdump-capture"));
        tools::run(rebuild.arg("-R").arg(dump.join("vmcore")).stdin(File::open(dump.join(vmcore))?))?;
    }
    let (_, _, status) = judge::dump_alone(&dump, &scenario.kernel.release, &outcome.marker)?;
    let files = status.at("/files")?.to_string();
    ensure!(files.contains(&format!("\"{vmcore}\"")), "the status does not vouch for {vmcore}: {files}");
    let name = dump.file_name().unwrap_or_default().to_string_lossy().into_owned();
    ensure!(name.starts_with(&format!("{client}-20")), "the dump of {client} is called {name}");
    let names: Vec<String> =
        fs::read_dir(&dump)?.flatten().map(|entry| entry.file_name().to_string_lossy().into()).collect();
    ensure!(!names.iter().any(|name| name.ends_with("-incomplete")), "{names:?} are there");
    Ok(())
}

#[test]
fn a_dump_is_sent_by_ssh_and_stays_flattened() -> Result<()> {
    let server = serve("guest-ssh", Speaks::Ssh)?;
    check(&scenario("sent-ssh", &server, "ssh://root")?, &server, "vmcore.flat")
}

#[test]
fn a_dump_is_sent_by_sftp_and_is_ready_to_be_opened() -> Result<()> {
    let server = serve("guest-sftp", Speaks::Ssh)?;
    check(&scenario("sent-sftp", &server, "sftp://root")?, &server, "vmcore")
}

#[test]
#[ignore = "the program alone is tried with FTP in every run"]
fn a_dump_is_sent_by_ftp() -> Result<()> {
    let server = serve("guest-ftp", Speaks::Ftp)?;
    check(&scenario("sent-ftp", &server, &format!("ftp://ftp:{PASSWORD}"))?, &server, "vmcore.flat")
}

/// What a router of fec0::/64 has the guest's card take.
const SIX: &str = "fec0::5054:ff:fe12:3456";

/// Known hosts have the address in brackets, with the port.
#[test]
#[ignore = "boots of their own: servers that are reached by IPv6"]
fn dumps_are_sent_by_ssh_and_sftp_over_ipv6() -> Result<()> {
    let server = serve_six("guest-ssh-six", Speaks::Ssh)?;
    check_from(SIX, &scenario_six("sent-ssh-six", &server, "ssh://root")?, &server, "vmcore.flat")?;
    let server = serve_six("guest-sftp-six", Speaks::Ssh)?;
    check_from(SIX, &scenario_six("sent-sftp-six", &server, "sftp://root")?, &server, "vmcore")
}

/// A passive connection without an address in the answer, as IPv6 has it.
#[test]
#[ignore = "boots of their own: servers that are reached by IPv6"]
fn a_dump_is_sent_by_ftp_over_ipv6() -> Result<()> {
    let server = serve_six("guest-ftp-six", Speaks::Ftp)?;
    check_from(SIX, &scenario_six("sent-ftp-six", &server, &format!("ftp://ftp:{PASSWORD}"))?, &server, "vmcore.flat")
}

/// The known key is that of another machine at the same address.
#[test]
#[ignore = "boots of their own: servers that are reached by IPv6"]
fn a_changed_key_of_a_server_is_refused_over_ipv6() -> Result<()> {
    let server = serve_six("guest-changed-six", Speaks::Ssh)?;
    let mut scenario = scenario_six("sent-changed-six", &server, "ssh://root")?;
    scenario.conf = vec!["failure_action poweroff".into()];
    let changed = fs::read_to_string(server.file("changed"))?.replace("[::1]", "[fec0::2]");
    scenario.files[1] = GuestFile::text("/root/.ssh/known_hosts", &changed);
    let outcome = crash(&scenario)?;
    ensure!(outcome.ending == Ending::PowerOff, "the failure action was {:?}", outcome.ending);
    for words in ["SHA256:", &format!("[fec0::2]:{}", server.port)] {
        let said = outcome.console.lines().any(|line| line.contains("kdump: ") && line.contains(words));
        ensure!(said, "the console does not say {words}:\n{}", tools::tail(&outcome.console, 40));
    }
    ensure!(!server.far.join("guest").exists(), "something was stored");
    Ok(())
}

/// The guest's own authorities vouch for the server's certificate, which has the address that the guest calls it by.
#[test]
#[ignore = "the program alone is tried with TLS in every run"]
fn a_dump_is_sent_by_ftp_with_tls() -> Result<()> {
    let server = serve("guest-ftps", Speaks::Ftps)?;
    let mut scenario = scenario("sent-ftps", &server, &format!("ftps://ftp:{PASSWORD}"))?;
    let authorities = fs::read_to_string(server.file("tls.pem"))?;
    scenario.files = vec![GuestFile::text("/etc/ssl/certs/ca-certificates.crt", &authorities)];
    check(&scenario, &server, "vmcore.flat")
}

/// The server dies while the dump is sent: the failure action follows, and nothing there has a final name that lies.
#[test]
#[ignore = "the program alone is tried with a dead line in every run"]
fn a_server_that_goes_away_leads_to_the_failure_action() -> Result<()> {
    let mut server = serve("guest-gone", Speaks::Ssh)?;
    let mut scenario = scenario("sent-gone", &server, "sftp://root")?;
    scenario.conf = vec!["failure_action poweroff".into()];
    scenario.level = 0;
    let folder = server.far.join("guest");
    let killer = std::thread::spawn(move || {
        let begun = || {
            let dumps = fs::read_dir(&folder).into_iter().flatten().flatten();
            dumps.into_iter().any(|dump| dump.path().join("vmcore-incomplete").exists())
        };
        for _ in 0..1000 {
            if begun() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        let begun = begun();
        server.kill();
        begun
    });
    let outcome = crash(&scenario)?;
    ensure!(killer.join().is_ok_and(|begun| begun), "no dump was ever begun on the server");
    ensure!(outcome.ending == Ending::PowerOff, "the failure action was {:?}", outcome.ending);
    ensure!(outcome.console.contains("bytes had been sent"), "the console does not tell why");
    Ok(())
}
