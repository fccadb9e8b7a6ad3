//! `saboteur hang|kill VMCORE DUMP`: a core collector for tests, of the worst kind. It writes the first page of VMCORE
//! to DUMP; then it does nothing for ever, or it kills the process that started it and does nothing.
//!
//! `saboteur mount TYPE,TYPE COLLECTOR ARGS… VMCORE DUMP` tries to mount file systems of these types, so that the kernel
//! asks for their modules; then the collector does its work.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::getppid;

fn main() -> ExitCode {
    let Err(error) = run();
    eprintln!("saboteur: {error:#}");
    ExitCode::FAILURE
}

fn run() -> Result<std::convert::Infallible> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [deed, types, collector, arguments @ ..] = words.as_slice()
        && deed == "mount"
    {
        for fstype in types.split(',') {
            let none: Option<&str> = None;
            // Without the options that they need none can be mounted; asking is enough.
            let refusal = mount(none, "/", Some(fstype), MsFlags::empty(), none);
            println!("saboteur: {fstype}: {refusal:?}");
        }
        return Err(Command::new(collector).args(arguments).exec())
            .with_context(|| format!("unable to run {collector}"));
    }
    let [deed, vmcore, dump] = words.as_slice() else { bail!("usage: saboteur hang|kill VMCORE DUMP") };
    let mut page = [0; 4096];
    File::open(vmcore)?.read_exact(&mut page).with_context(|| format!("unable to read {vmcore}"))?;
    File::create(dump)?.write_all(&page).with_context(|| format!("unable to write {dump}"))?;
    match deed.as_str() {
        "hang" => {}
        "kill" => kill(getppid(), Signal::SIGKILL).context("unable to kill the parent")?,
        other => bail!("{other} is no deed"),
    }
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
