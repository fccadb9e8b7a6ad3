//! What signals do to a program that watches them. Without libtest's threads, which would have them as well.

#![allow(clippy::unwrap_used)]

use kdump_hooks::livepatch::{Kernel, LinuxKernel, interrupt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

/// How long a program may live.
const LONG: Duration = Duration::from_secs(60);
/// How the program ends that nobody has interrupted.
const UNTOUCHED: i32 = 9;

fn main() {
    match env::args().skip_while(|word| word != "play").nth(1).as_deref() {
        Some(role) => play(role),
        None => {
            a_signal_ends_the_program_until_it_is_heeded();
            a_signal_that_is_heeded_is_told_and_ends_nothing();
            what_is_ignored_stays_so();
        }
    }
}

/// Says that it is ready, and ends with 0 when it is told of a signal.
fn play(role: &str) {
    interrupt::watch().unwrap();
    let mut kernel = LinuxKernel;
    if role == "heeds" {
        kernel.heed();
    }
    println!("ready");
    let start = Instant::now();
    while start.elapsed() < LONG {
        if let Some(signal) = kernel.interrupted() {
            println!("{signal}");
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    std::process::exit(UNTOUCHED);
}

/// How the program ends, and what it said last.
fn end_of(mut command: Command, signals: &[Signal]) -> (ExitStatus, Option<String>) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    for signal in signals {
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), *signal).unwrap();
    }
    let said = lines.next().map(Result::unwrap);
    (child.wait().unwrap(), said)
}

/// It ignores nothing: a shell has what runs in its background ignore SIGINT.
fn program(role: &str) -> Command {
    let mut command = Command::new("env");
    command.arg("--default-signal=INT,TERM,HUP").arg(env::current_exe().unwrap()).args(["play", role]);
    command
}

fn a_signal_ends_the_program_until_it_is_heeded() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let (status, said) = end_of(program("plain"), &[signal]);
        assert_eq!((status.signal(), said), (Some(signal as i32), None));
    }
}

fn a_signal_that_is_heeded_is_told_and_ends_nothing() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let (status, said) = end_of(program("heeds"), &[signal]);
        assert_eq!((status.code(), said.as_deref()), (Some(0), Some(signal.as_str())));
    }
}

fn what_is_ignored_stays_so() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" play heeds"]).arg(env::current_exe().unwrap());
    let (status, said) = end_of(shell, &[Signal::SIGHUP, Signal::SIGTERM]);
    assert_eq!((status.code(), said.as_deref()), (Some(0), Some("SIGTERM")));
}
