//! `least-crashkernel`: how little memory has to be reserved for a complete dump.
//!
//! In: a target, the guest's memory, the bounds. Out: the least `crashkernel=` of the given step at which a guest that
//! crashes has a complete dump on the target, found by halving, one guest after the other. The capture kernel's command
//! line is the one that kdumpctl makes when nobody configures any, but for `ip=`.
//! May surprise: whatever goes wrong below the upper bound counts as too little memory; the upper bound itself has to do,
//! so that a broken machine is not taken for a small one.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use qemu_tests::crash::crash;
use qemu_tests::folders;
use qemu_tests::nfs_server::NfsServer;
use qemu_tests::provision::{self, Suite};
use qemu_tests::scenario::{GuestFile, LABEL, Scenario};
use qemu_tests::status::Status;

/// What PID 1 says in the end when all is well.
const COMPLETE: &str = "the dump is complete; final action";

/// Finds the least crashkernel= at which Debian's cloud kernel saves a complete dump.
#[derive(Debug, Parser)]
struct Arguments {
    /// The target line of kdump.conf; the guest's own disk if not given
    #[arg(long, value_name = "LINE")]
    target: Option<String>,
    /// Dump to an NFS server on the host, which the guest reaches by its one network card
    #[arg(long, conflicts_with = "target")]
    nfs: bool,
    /// The memory of the guest
    #[arg(long, value_name = "MIB", default_value_t = 3072)]
    memory: u32,
    /// The kernel: own (that of the machine's release), trixie or sid
    #[arg(long, value_name = "SUITE", default_value = "own", value_parser = ["own", "trixie", "sid"])]
    kernel: String,
    /// Too little, it is assumed
    #[arg(long, value_name = "MIB", default_value_t = 40)]
    from: u32,
    /// Surely enough
    #[arg(long, value_name = "MIB", default_value_t = 128)]
    to: u32,
    /// How exactly it is to be known
    #[arg(long, value_name = "MIB", default_value_t = 4)]
    step: u32,
    /// Build the image for any machine, not for the guest's
    #[arg(long)]
    generic: bool,
    /// Further words of the capture kernel's command line
    #[arg(long, value_name = "WORDS", default_value = "")]
    append: String,
    /// Do not pack the image
    #[arg(long)]
    unpacked: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(least) => {
            println!("least crashkernel: {least}M");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("least-crashkernel: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<u32> {
    provision::tools()?;
    let step = arguments.step.max(1);
    let (mut too_little, mut enough) = (arguments.from, arguments.to);
    ensure!(too_little < enough, "--from has to be less than --to");
    try_one(arguments, enough)?.with_context(|| format!("not even {enough} MiB are enough"))?;
    while enough - too_little > step {
        let middle = too_little + ((enough - too_little) / 2).next_multiple_of(step).min(enough - too_little - 1);
        match try_one(arguments, middle)? {
            Ok(()) => enough = middle,
            Err(_) => too_little = middle,
        }
    }
    Ok(enough)
}

/// Crashes one guest; the inner result says whether it was enough.
fn try_one(arguments: &Arguments, crashkernel_mib: u32) -> Result<Result<()>> {
    let kernel = provision::kernel(match arguments.kernel.as_str() {
        "trixie" => Suite::Trixie,
        "sid" => Suite::Sid,
        _ => Suite::Own,
    })?;
    let mut scenario = Scenario {
        memory_mib: arguments.memory,
        crashkernel_mib,
        target: arguments.target.clone().unwrap_or_else(|| format!("ext4 LABEL={LABEL}")),
        default_command_line: true,
        files: if arguments.generic { Vec::new() } else { GuestFile::virtio_disk() },
        append: arguments.append.clone(),
        packing: arguments.unpacked.then_some("none"),
        ..Scenario::of(kernel, &format!("least-crashkernel-{crashkernel_mib}"))
    };
    let server = if arguments.nfs { Some(serve(&mut scenario, arguments)?) } else { None };
    let began = Instant::now();
    let outcome = crash(&scenario).and_then(|outcome| {
        ensure!(outcome.console.contains(COMPLETE), "there is no complete dump");
        match &server {
            Some(server) => Status::read(&server.dump()?.join("status.json")),
            None => outcome.status(),
        }
    });
    let seconds = began.elapsed().as_secs();
    match &outcome {
        Ok(status) => {
            let memory = status.at("/memory").cloned().unwrap_or_default();
            println!("{crashkernel_mib:>4}M  enough      {seconds:>4} s  {memory}");
        }
        Err(error) => println!("{crashkernel_mib:>4}M  too little  {seconds:>4} s  {}", first_line(error)),
    }
    Ok(outcome.map(drop))
}

/// Starts an NFS server, and makes it the target.
fn serve(scenario: &mut Scenario, arguments: &Arguments) -> Result<NfsServer> {
    let place = folders::qemu().join("nfs/least-crashkernel");
    folders::fresh(&place)?;
    let server = NfsServer::start(&place, Ipv4Addr::LOCALHOST.into())?;
    scenario.target = "nfs 10.0.2.2:/export".into();
    scenario.append = format!("ip=eth0:dhcp {}", arguments.append);
    scenario.qemu = ["-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0"].map(str::to_owned).into();
    scenario.files = vec![GuestFile::text("/etc/fstab", &server.fstab("10.0.2.2"))];
    if !arguments.generic {
        // What has no disk is not taken for a machine.
        scenario.files.extend([GuestFile::virtio_disk(), GuestFile::virtio_card()].concat());
    }
    Ok(server)
}

fn first_line(error: &anyhow::Error) -> String {
    format!("{:#}", error.root_cause()).lines().next().unwrap_or_default().to_owned()
}
