//! `modprobe [-q] [-v] [--] NAME`: how the kernel itself asks for a module (`request_module()` runs
//! `/sbin/modprobe -q -- NAME`).
//!
//! It ends as kmod's does: 0 for what is loaded, built in, or kept from its alias by a blacklist; 1 for the rest. May
//! surprise: the work is done by a second process. The kernel waits for the first; one with a thread inside a driver
//! that hangs could not even end, so the first waits for a limited time and lets the other be.

use crate::boot;
use crate::kmsg;
use crate::run::Places;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Tells the second process from the first.
const SECOND: &str = "KDUMP_MODPROBE_SECOND";
/// How much longer than a driver may take the kernel is kept waiting.
const MARGIN: Duration = Duration::from_secs(30);

/// Loads what is asked for. A name that nothing answers to is a quiet failure with `-q`.
pub fn main(arguments: &[String]) -> ExitCode {
    let Some((name, quiet)) = parse(arguments) else {
        eprintln!("usage: modprobe [-q] [--] NAME");
        return ExitCode::FAILURE;
    };
    if std::env::var_os(SECOND).is_some() { load(name, quiet) } else { have_it_loaded(arguments, name, quiet) }
}

/// The one name, and whether a failure is to be quiet. Whatever follows `--` is a name.
fn parse(arguments: &[String]) -> Option<(&str, bool)> {
    let options = arguments.split(|argument| argument == "--").next().unwrap_or_default();
    let quiet = options.iter().any(|option| matches!(option.as_str(), "-q" | "--quiet" | "-bq" | "-qb"));
    let mut names = arguments.iter().enumerate().filter(|(at, word)| *at > options.len() || !word.starts_with('-'));
    match (names.next(), names.next()) {
        (Some((_, name)), None) => Some((name, quiet)),
        _ => None,
    }
}

fn have_it_loaded(arguments: &[String], name: &str, quiet: bool) -> ExitCode {
    let second = Command::new("/proc/self/exe").arg0("modprobe").args(arguments).env(SECOND, "1").spawn();
    let mut second = match second {
        Ok(second) => second,
        Err(error) => {
            eprintln!("modprobe: cannot start the process that loads {name}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let limit = boot::limits_of_this_image().driver() + MARGIN;
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || sender.send(second.wait()));
    match ended.recv_timeout(limit) {
        Ok(Ok(status)) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(_) => {
            if !quiet {
                eprintln!("modprobe: {name} is still being loaded after {} s", limit.as_secs());
            }
            ExitCode::FAILURE
        }
    }
}

fn load(name: &str, quiet: bool) -> ExitCode {
    kmsg::install();
    let loader = match boot::loader_of_this_image() {
        Ok(loader) => loader,
        Err(error) => {
            eprintln!("modprobe: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = loader.load(name, "the kernel");
    let report = loader.report();
    report.append(&Places::real().state);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // A blacklist is obeyed, which is no failure.
        Err(_) if !report.blacklisted.is_empty() && report.refused.is_empty() => ExitCode::SUCCESS,
        Err(reason) => {
            if !quiet {
                eprintln!("modprobe: {reason}");
            }
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_way_of_asking_is_understood() {
        for (line, expected) in [
            ("-q -- fs-ext4", Some(("fs-ext4", true))),
            ("virtio_blk", Some(("virtio_blk", false))),
            ("-q -- -odd", Some(("-odd", true))),
            ("-- -q", Some(("-q", false))),
            ("-q --", None),
            ("-q", None),
            ("a b", None),
        ] {
            let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(parse(&arguments), expected, "{line}");
        }
    }
}
