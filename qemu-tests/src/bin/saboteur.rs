//! `saboteur hang|kill VMCORE DUMP`: a core collector for tests, of the worst kind. It writes the first page of VMCORE
//! to DUMP; then it does nothing for ever, or it kills the process that started it and does nothing.

use std::fs::File;
use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::getppid;

fn main() -> ExitCode {
    let Err(error) = run();
    eprintln!("saboteur: {error:#}");
    ExitCode::FAILURE
}

fn run() -> Result<std::convert::Infallible> {
    let words: Vec<String> = std::env::args().skip(1).collect();
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
