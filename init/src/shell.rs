//! The shell of the failure action, or before the final one.
//!
//! In: what the builder put into the image, the consoles that the kernel uses. Out: one shell on each of them, the leader
//! of a session with that terminal, so that Ctrl-C and job control work.
//! May surprise: `/dev/console` can never be the terminal of a session, so that the devices behind it are used. busybox's
//! tools get their names only now; nobody needed them before.

use crate::program;
use kdump_hooks::shell::{BUSYBOX, SHELLS};
use log::error;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// How PID 1 calls it.
pub const ROLE: &str = "shell";

/// Where busybox's tools get their names.
const BIN: &str = "/bin";

/// The terminals on which a shell makes sense: those of the kernel's console.
pub fn consoles() -> Vec<String> {
    let active = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    names(&active)
}

/// `tty0 ttyS0`, of which `tty0` is whichever virtual terminal is in front.
fn names(active: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in active.split_whitespace().map(|name| if name == "tty0" { "tty1" } else { name }) {
        if !names.iter().any(|other| other == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// Entry of the process that becomes the shell on the terminal `name`.
pub fn main(name: &str, news: &str) -> ExitCode {
    crate::kmsg::install();
    let error = become_shell(name, news);
    error!("no shell on {name}: {error:#}");
    ExitCode::FAILURE
}

/// Comes back only with an error.
fn become_shell(name: &str, news: &str) -> anyhow::Error {
    match prepare(name, news) {
        Ok(mut shell) => shell.exec().into(),
        Err(error) => error,
    }
}

fn prepare(name: &str, news: &str) -> anyhow::Result<Command> {
    nix::unistd::setsid()?;
    // The first terminal that the leader of a session opens is the session's.
    let mut terminal = OpenOptions::new().read(true).write(true).open(Path::new("/dev").join(name))?;
    let mut shell = match BUSYBOX.iter().find(|path| Path::new(path).exists()) {
        Some(busybox) => {
            name_tools(busybox);
            let mut command = Command::new(busybox);
            command.arg("sh");
            command
        }
        None => {
            let shell = SHELLS.iter().find(|path| Path::new(path).exists());
            let mut command = Command::new(shell.ok_or_else(|| anyhow::anyhow!("there is none in this image"))?);
            command.arg("-i");
            command
        }
    };
    write!(
        terminal,
        "\r\n{news}\r\n\
         This is a shell in the capture kernel; the old kernel's memory is /proc/vmcore, the log is what dmesg shows.\r\n\
         `kdump-capture -z -d 31 /proc/vmcore FILE` takes the dump; `exit` goes on to the final action.\r\n\r\n"
    )?;
    shell.env("PATH", program::PATH).env("HOME", "/").env("TERM", "linux").env("PS1", "kdump:\\w# ").current_dir("/");
    shell.stdin(Stdio::from(terminal.try_clone()?)).stdout(Stdio::from(terminal.try_clone()?)).stderr(terminal);
    Ok(shell)
}

/// Gives busybox's tools their names, where nothing else has them.
fn name_tools(busybox: &str) {
    let listed = Command::new(busybox).arg("--list").output();
    let listed = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    for tool in listed.lines().filter(|tool| !tool.is_empty() && !tool.contains('/')) {
        let there = program::PATH.split(':').any(|dir| Path::new(dir).join(tool).exists());
        if !there {
            // A shell without one of its tools is still a shell.
            let _ = symlink(busybox, Path::new(BIN).join(tool));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_console_is_one_terminal() {
        assert_eq!(names("tty0 ttyS0\n"), ["tty1", "ttyS0"]);
        assert_eq!(names("tty1 tty0 hvc0"), ["tty1", "hvc0"]);
        assert!(names("").is_empty());
    }
}
