//! The shell of the failure action, before the final one, and of `rd.break` in a normal boot.
//!
//! In: what the builder put into the image, the consoles that the kernel uses. Out: one shell on each of them, the leader
//! of a session with that terminal, so that Ctrl-C and job control work.
//! May surprise: `/dev/console` can never be the terminal of a session, so that the devices behind it are used. busybox's
//! tools get their names only now; nobody needed them before.

use crate::normal::Mode;
use crate::{program, start};
use kdump_hooks::shell::{BUSYBOX, SHELLS};
use log::error;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How PID 1 calls it.
pub const ROLE: &str = "shell";

/// A shell that ends sooner has found nobody: its terminal is not there.
pub const NOBODY: Duration = Duration::from_secs(2);

/// How often a shell is looked at, and how often somebody is told that it is still there.
const GLANCE: Duration = Duration::from_millis(200);
const SAY_SO: Duration = Duration::from_secs(10);

const IN_CAPTURE: &str = "This is a shell in the capture kernel; the old kernel's memory is /proc/vmcore, the log is \
    what dmesg shows.\n\
    `kdump-capture -z -d 31 /proc/vmcore FILE` takes the dump; `exit` goes on to the final action.";

/// What a shell is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The boot has failed.
    Failure,
    /// The dump is taken or declined, and somebody wants to look around before the end.
    End,
    /// Somebody wants to look around in the middle of a boot.
    Break,
}

impl Why {
    fn word(self) -> &'static str {
        match self {
            Why::Failure => "failure",
            Why::End => "end",
            Why::Break => "break",
        }
    }

    /// What is said before the first prompt.
    fn greeting(self, mode: Mode, reason: &str) -> String {
        let what = match (self, mode) {
            (Why::Break, _) => format!(
                "{reason}\n\
                 This is a shell in the image, in the middle of the boot; the root is, or will be, mounted at /sysroot.\n\
                 `exit` goes on with the boot."
            ),
            (Why::Failure, Mode::Normal) => format!(
                "{}: {reason}\n\
                 This is a shell in the image; the log is what dmesg shows. `exit` goes on to the failure action.",
                mode.failure()
            ),
            (Why::Failure, Mode::Capture) => format!("{}: {reason}\n{IN_CAPTURE}", mode.failure()),
            (Why::End, _) => format!("{reason}\n{IN_CAPTURE}"),
        };
        format!("\n{what}\n\n").replace('\n', "\r\n")
    }
}

/// What becomes a shell on a console.
pub fn command(console: &str, why: Why, reason: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args([ROLE, console, why.word(), reason]).stdin(Stdio::null());
    command
}

/// A shell on every console until one of them is left; nothing else ends it. `still` is called now and then meanwhile.
pub fn stay(why: Why, reason: &str, still: &mut dyn FnMut()) {
    let begun = Instant::now();
    let began =
        |console: String| match start::patiently(|| command(&console, why, reason).stdout(Stdio::null()).spawn()) {
            Ok(child) => Some(child),
            Err(error) => {
                error!("no shell on {console}: {error}");
                None
            }
        };
    stay_with(consoles().into_iter().filter_map(began).collect(), begun, still);
}

fn stay_with(mut shells: Vec<Child>, begun: Instant, still: &mut dyn FnMut()) {
    let mut said: Option<Instant> = None;
    while !shells.is_empty() {
        if said.is_none_or(|said| said.elapsed() >= SAY_SO) {
            said = Some(Instant::now());
            still();
        }
        let before = shells.len();
        shells.retain_mut(|shell| matches!(shell.try_wait(), Ok(None)));
        if shells.len() < before && begun.elapsed() > NOBODY {
            break;
        }
        thread::sleep(GLANCE);
    }
    for mut shell in shells {
        // It may have ended by itself.
        let _ = shell.kill();
        let _ = shell.wait();
    }
}

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
pub fn main(name: &str, why: &str, reason: &str) -> ExitCode {
    crate::kmsg::install();
    let why = [Why::Break, Why::End].into_iter().find(|known| known.word() == why).unwrap_or(Why::Failure);
    let error = become_shell(name, why, reason);
    error!("no shell on {name}: {error:#}");
    ExitCode::FAILURE
}

/// Comes back only with an error.
fn become_shell(name: &str, why: Why, reason: &str) -> anyhow::Error {
    match prepare(name, why, reason) {
        Ok(mut shell) => shell.exec().into(),
        Err(error) => error,
    }
}

fn prepare(name: &str, why: Why, reason: &str) -> anyhow::Result<Command> {
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
    terminal.write_all(why.greeting(Mode::of(Path::new("/proc/vmcore")), reason).as_bytes())?;
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
    fn each_shell_says_where_it_is_and_what_follows_it() {
        let capture = Why::Failure.greeting(Mode::Capture, "no disk");
        assert!(capture.starts_with("\r\nNO COMPLETE DUMP: no disk\r\n") && capture.contains("/proc/vmcore FILE"));
        let normal = Why::Failure.greeting(Mode::Normal, "no disk");
        assert!(normal.contains("CANNOT BE BOOTED: no disk") && !normal.contains("vmcore"), "{normal}");
        let pause = Why::Break.greeting(Mode::Normal, "rd.break");
        assert!(pause.contains("`exit` goes on with the boot") && !pause.contains("CANNOT"), "{pause}");
    }

    #[test]
    fn shells_that_find_nobody_do_not_end_the_stay_and_one_that_is_left_does() {
        let shell = |seconds: &str| Command::new("sleep").arg(seconds).spawn().unwrap();
        let mut told = 0;
        let begun = Instant::now();
        stay_with(vec![shell("0"), shell("4"), shell("60")], begun, &mut || told += 1);
        assert!(begun.elapsed() > NOBODY && begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        assert!(told > 0);
        stay_with(Vec::new(), begun, &mut || ());
    }

    #[test]
    fn each_console_is_one_terminal() {
        assert_eq!(names("tty0 ttyS0\n"), ["tty1", "ttyS0"]);
        assert_eq!(names("tty1 tty0 hvc0"), ["tty1", "hvc0"]);
        assert!(names("").is_empty());
    }
}
