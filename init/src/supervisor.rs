//! PID 1: starts the worker, watches its time, and always reaches an ending.
//!
//! It touches nothing that can block: no disk, no network. Whatever could hang is done by the worker or the aftermath,
//! which are processes that it can kill, each with a time limit. Even the reboot is watched. In a normal boot the end is
//! that PID 1 itself becomes the system's init ([`switch`]); that is watched, too.

use crate::beat::Beat;
use crate::config::{self, Ending, Endings, FailureAction, ImageConfig};
use crate::guard::Guard;
use crate::normal::{self, Mode, switch};
use crate::shell::Why;
use crate::{aftermath, beat, boot, kmsg, shell, start, sys};
use log::{error, info, warn};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{ChildStdout, Command, ExitCode, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

/// For the worker's first beat.
const FIRST_BEAT: Duration = Duration::from_secs(60);
/// For the worker to end once it has said how it came out: a thread of it may be stuck in a driver.
const FAREWELL: Duration = Duration::from_secs(5);
/// For saving what is left after a failure.
const AFTERMATH: Duration = Duration::from_secs(60);
/// For the kernel to shut down devices before it is made to restart at once.
const LAST_CALL: Duration = Duration::from_secs(30);

/// For the whole boot, whatever its limits are.
const LONGEST: Duration = Duration::from_secs(48 * 3600);
/// The watchdog may be late by that much.
const GRACE: Duration = Duration::from_secs(10);
/// How many messages may wait for PID 1; who has more to say waits.
const INBOX: usize = 256;
/// For the one who looks at the console of a system that cannot be booted, before the failure action clears it.
const READING: Duration = Duration::from_secs(10);
/// Where the kernel lets through what user space logs.
const DEVKMSG: &str = "/proc/sys/kernel/printk_devkmsg";

/// What is used while no configuration could be read.
const DEFAULT_ENDINGS: Endings =
    Endings { failure_action: FailureAction::End(Ending::Reboot), final_action: Ending::Reboot, shell_first: false };

/// For the ending of a PID 1 that has a bug.
static ENDINGS: OnceLock<Endings> = OnceLock::new();

/// What reaches the supervisor.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Beat(Beat),
    /// A process has ended: how.
    Ended(i32, String),
}

/// How the worker's run came out.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Complete,
    /// The root is mounted, with this init.
    Ready(String),
    Failed(String),
    /// No dump was wanted.
    Declined(String),
    /// The worker could not say it itself; the aftermath has to.
    Broken(String),
}

/// PID 1. Does not return in practice: the machine restarts, halts or loses its power.
pub fn main() -> ExitCode {
    main_with(|| {})
}

/// As [`main`]; `also` is done once everything is ready for the worker. A test has it panic.
pub fn main_with(also: impl FnOnce()) -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        error!("PID 1 has a bug: {panic}");
        let endings = ENDINGS.get().unwrap_or(&DEFAULT_ENDINGS);
        end(match endings.failure_action {
            // Who has a bug is nobody to serve a shell.
            FailureAction::Shell => endings.final_action,
            FailureAction::End(ending) => ending,
        });
    }));
    let mounted = sys::mount_kernel_filesystems();
    let mode = Mode::of(Path::new("/proc/vmcore"));
    let devkmsg = std::fs::read_to_string(DEVKMSG);
    if mode == Mode::Capture {
        sys::restart_on_panic();
        sys::ignore_restart_keys();
    }
    kmsg::install();
    for problem in mounted {
        warn!("{problem:#}");
    }
    let config = ImageConfig::read(Path::new(config::PATH)).ok();
    let mut endings = config.as_ref().map_or(DEFAULT_ENDINGS, |config| config.endings);
    if mode == Mode::Normal {
        let has_shell = config.as_ref().is_some_and(|config| config.hooks.shell.is_some());
        endings = normal::endings(&boot::command_line(), endings, has_shell);
    }
    let endings = *ENDINGS.get_or_init(|| endings);
    let guard = Guard::new(from_now(FIRST_BEAT) + GRACE);
    if config.is_some_and(|config| config.hooks.watchdog.is_some()) {
        guard.begin();
    }
    let (events, inbox) = mpsc::sync_channel(INBOX);
    also();
    let verdict = supervise(&events, &inbox, &guard);
    let ending = match verdict {
        Verdict::Complete => {
            info!("the dump is complete; final action: {}", endings.final_action);
            after(endings, endings.after_dump(), Why::End, "The dump is complete.", &inbox, &guard)
        }
        Verdict::Declined(reason) => {
            warn!("NO DUMP WANTED: {reason}; final action: {}", endings.final_action);
            after(endings, endings.after_dump(), Why::End, &format!("NO DUMP WANTED: {reason}"), &inbox, &guard)
        }
        Verdict::Ready(init) => {
            // The system is to find the kernel as it was.
            let _ = devkmsg.map(|before| std::fs::write(DEVKMSG, before));
            // Gone when PID 1 is another program.
            last_call(AFTERMATH + LAST_CALL);
            let error = switch::switch(Path::new(normal::SYSROOT), &init, std::env::args_os().skip(1).collect());
            error!("{}: {error:#}; failure action: {}", mode.failure(), endings.failure_action);
            after_failure(endings, &format!("{error:#}"), &inbox, &guard)
        }
        Verdict::Failed(reason) => {
            error!("{}: {reason}; failure action: {}", mode.failure(), endings.failure_action);
            after_failure(endings, &reason, &inbox, &guard)
        }
        Verdict::Broken(reason) => {
            error!("{}: {reason}", mode.failure());
            guard.until(from_now(AFTERMATH + GRACE));
            sys::kill_everything();
            if mode == Mode::Capture {
                clean_up(&inbox, &reason);
            }
            error!("failure action: {}", endings.failure_action);
            after_failure(endings, &reason, &inbox, &guard)
        }
    };
    if mode == Mode::Normal {
        warn!("it is taken in {} s", READING.as_secs());
        thread::sleep(READING);
    }
    // From here on even a console that takes nothing any more cannot keep the machine down.
    last_call(LAST_CALL * 2);
    match ending {
        Ending::Reboot => guard.until(from_now(LAST_CALL)),
        Ending::Halt | Ending::Poweroff => guard.part(),
    }
    end(ending);
    ExitCode::FAILURE
}

/// Does what follows a failure, up to the ending of the machine.
fn after_failure(endings: Endings, reason: &str, inbox: &Receiver<Event>, guard: &Guard) -> Ending {
    after(endings, endings.failure_action, Why::Failure, reason, inbox, guard)
}

/// Serves a shell that tells `news`, if there is to be one; the ending of the machine.
fn after(
    endings: Endings,
    action: FailureAction,
    why: Why,
    news: &str,
    inbox: &Receiver<Event>,
    guard: &Guard,
) -> Ending {
    match action {
        FailureAction::End(ending) => ending,
        FailureAction::Shell => {
            guard.attended();
            serve_shells(&shell::consoles(), shell::NOBODY, inbox, |console| {
                let mut command = shell::command(console, why, news);
                start::patiently(|| command.spawn()).map(|child| child.id().cast_signed())
            });
            info!("the shell is left; final action: {}", endings.final_action);
            sys::kill_everything();
            endings.final_action
        }
    }
}

/// A shell on every console, until one of them is left. Nothing else ends it; one that ends before `nobody` has found
/// nobody.
fn serve_shells(
    consoles: &[String],
    nobody: Duration,
    inbox: &Receiver<Event>,
    mut begin: impl FnMut(&str) -> io::Result<i32>,
) {
    let began = Instant::now();
    let mut shells = Vec::new();
    for console in consoles {
        match begin(console) {
            Ok(shell) => shells.push(shell),
            Err(error) => error!("no shell on {console}: {error}"),
        }
    }
    while !shells.is_empty() {
        match inbox.recv() {
            Ok(Event::Ended(pid, _)) if shells.contains(&pid) => {
                shells.retain(|shell| *shell != pid);
                if began.elapsed() > nobody {
                    return;
                }
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// Runs the worker to its end or to the end of its time.
fn supervise(events: &SyncSender<Event>, inbox: &Receiver<Event>, guard: &Guard) -> Verdict {
    let mut command = Command::new("/proc/self/exe");
    command.arg(boot::ROLE).stdin(Stdio::null()).stdout(Stdio::piped());
    let started = reap(events.clone()).and_then(|()| {
        let mut child = start::patiently(|| command.spawn())?;
        match child.stdout.take() {
            Some(stdout) => listen(stdout, events.clone())?,
            None => return Err(io::Error::other("it has no output")),
        }
        Ok(child.id())
    });
    match started {
        Ok(worker) => {
            let verdict = watch(inbox, worker.cast_signed(), FIRST_BEAT, guard);
            // One that is stuck after its last word must not come to the next init.
            if Path::new(&format!("/proc/{worker}")).exists() {
                let _ = kill(Pid::from_raw(worker.cast_signed()), Signal::SIGKILL);
            }
            verdict
        }
        Err(error) => Verdict::Broken(format!("the worker cannot be started: {error}; reserve more with crashkernel=")),
    }
}

/// Follows the worker's beats until it ends or is late.
fn watch(inbox: &Receiver<Event>, worker: i32, first: Duration, guard: &Guard) -> Verdict {
    let end_of_all = from_now(LONGEST);
    let mut stage = "start".to_owned();
    let mut limit = first;
    let mut deadline = from_now(limit);
    let mut said: Option<Verdict> = None;
    loop {
        guard.until(deadline + GRACE);
        match inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::Beat(Beat::Stage(name, time))) => {
                stage = name;
                limit = time;
                deadline = from_now(limit).min(end_of_all);
            }
            Ok(Event::Beat(Beat::Still(time))) => {
                limit = time;
                deadline = from_now(limit).min(end_of_all);
            }
            Ok(Event::Beat(last_word)) => {
                said = verdict_of(last_word);
                deadline = from_now(FAREWELL.min(limit));
            }
            Ok(Event::Ended(pid, how)) if pid == worker => {
                // Beats that were sent before the end may still be behind it in the queue.
                let last_chance = from_now(Duration::from_millis(200));
                while said.is_none()
                    && let Ok(event) = inbox.recv_timeout(last_chance.saturating_duration_since(Instant::now()))
                {
                    if let Event::Beat(beat) = event {
                        said = verdict_of(beat);
                    }
                }
                return said.unwrap_or_else(|| Verdict::Broken(format!("the worker {how} in stage {stage}")));
            }
            Ok(Event::Ended(..)) => {}
            Err(RecvTimeoutError::Timeout) => {
                let seconds = limit.as_secs();
                return said.unwrap_or_else(|| {
                    Verdict::Broken(format!("stage {stage} did not end within its limit of {seconds} s"))
                });
            }
            Err(RecvTimeoutError::Disconnected) => return Verdict::Broken("the supervisor lost its ears".to_owned()),
        }
    }
}

/// No limit is longer than two days, whoever sets it.
fn from_now(limit: Duration) -> Instant {
    Instant::now() + limit.min(LONGEST)
}

/// What a beat says about the whole run, if it does.
fn verdict_of(beat: Beat) -> Option<Verdict> {
    match beat {
        Beat::Complete => Some(Verdict::Complete),
        Beat::Ready(init) => Some(Verdict::Ready(init)),
        Beat::Failed(reason) => Some(Verdict::Failed(reason)),
        Beat::Declined(reason) => Some(Verdict::Declined(reason)),
        Beat::Stage(..) | Beat::Still(_) => None,
    }
}

/// Gives the aftermath its time.
fn clean_up(inbox: &Receiver<Event>, reason: &str) {
    let mut command = Command::new("/proc/self/exe");
    command.args([aftermath::ROLE, reason]).stdin(Stdio::null());
    let child = match start::patiently(|| command.spawn()) {
        Ok(child) => child.id().cast_signed(),
        Err(error) => return error!("the aftermath cannot be started: {error}"),
    };
    let deadline = Instant::now() + AFTERMATH;
    loop {
        match inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::Ended(pid, _)) if pid == child => return,
            Ok(_) => {}
            Err(_) => {
                error!("the aftermath did not end within {} s", AFTERMATH.as_secs());
                return sys::kill_everything();
            }
        }
    }
}

/// Sends on what the worker says.
fn listen(stdout: ChildStdout, events: SyncSender<Event>) -> io::Result<()> {
    start::in_thread("beats", move || {
        each_line(BufReader::new(stdout), |line| {
            let beat = Beat::parse(line);
            beat.is_none_or(|beat| events.send(Event::Beat(beat)).is_ok())
        })
    })
}

/// Calls `tell` with every line, in parts where one is too long, for as long as it wants more.
fn each_line(mut from: impl BufRead, mut tell: impl FnMut(&str) -> bool) {
    let mut line = Vec::new();
    let longest = u64::try_from(beat::LONGEST).unwrap_or(u64::MAX);
    while from.by_ref().take(longest).read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        if !tell(&String::from_utf8_lossy(&line)) {
            return;
        }
        line.clear();
    }
}

/// Takes leave of every process that ends; orphans come to PID 1.
fn reap(events: SyncSender<Event>) -> io::Result<()> {
    start::in_thread("reaper", move || {
        loop {
            let event = match waitpid(None::<Pid>, None) {
                Ok(WaitStatus::Exited(pid, code)) => Event::Ended(pid.as_raw(), format!("exited with {code}")),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    Event::Ended(pid.as_raw(), format!("was killed by {signal}"))
                }
                Ok(_) => continue,
                Err(_) => {
                    // No children now.
                    thread::sleep(Duration::from_millis(20));
                    continue;
                }
            };
            if events.send(event).is_err() {
                return;
            }
        }
    })
}

/// Restarts the machine at once if it is still there after `time`. Where PID 1 becomes another program, this is gone.
fn last_call(time: Duration) {
    // The file is opened now: /proc may have moved by then.
    let trigger = std::fs::OpenOptions::new().write(true).open("/proc/sysrq-trigger");
    let watch = thread::Builder::new().spawn(move || {
        thread::sleep(time);
        let _ = trigger.and_then(|mut trigger| trigger.write_all(b"b"));
    });
    // Without memory for a thread there is nobody to wait.
    drop(watch);
}

/// The one place where the capture kernel ends.
fn end(ending: Ending) {
    // Shutting a device down can hang as well.
    last_call(LAST_CALL);
    let error = sys::end(ending);
    error!("cannot {ending}: {error}; restarting at once");
    let _ = std::fs::write("/proc/sysrq-trigger", "b");
    loop {
        thread::sleep(LAST_CALL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: i32 = 7;

    fn verdict(events: Vec<Event>) -> Verdict {
        let (sender, inbox) = mpsc::sync_channel(INBOX);
        for event in events {
            sender.send(event).unwrap();
        }
        let verdict = watch(&inbox, WORKER, Duration::from_millis(50), &Guard::new(Instant::now()));
        drop(sender);
        verdict
    }

    fn ended(pid: i32) -> Event {
        Event::Ended(pid, "exited with 1".into())
    }

    #[test]
    fn a_worker_that_says_complete_and_ends_is_complete() {
        assert_eq!(verdict(vec![Event::Beat(Beat::Complete), ended(WORKER)]), Verdict::Complete);
    }

    #[test]
    fn a_worker_that_has_mounted_a_root_hands_over_its_init() {
        let ready = Beat::Ready("/sbin/init".into());
        assert_eq!(verdict(vec![Event::Beat(ready), ended(WORKER)]), Verdict::Ready("/sbin/init".into()));
    }

    #[test]
    fn a_beat_behind_the_end_still_counts() {
        assert_eq!(verdict(vec![ended(WORKER), Event::Beat(Beat::Complete)]), Verdict::Complete);
        assert_eq!(verdict(vec![ended(WORKER), ended(99), Event::Beat(Beat::Complete)]), Verdict::Complete);
    }

    #[test]
    fn a_worker_that_dies_without_a_word_is_broken_in_its_stage() {
        let stage = Event::Beat(Beat::Stage("vmcore".into(), Duration::from_secs(9)));
        assert_eq!(
            verdict(vec![stage, ended(99), ended(WORKER)]),
            Verdict::Broken("the worker exited with 1 in stage vmcore".into())
        );
    }

    #[test]
    fn a_stage_that_takes_too_long_ends_the_watch() {
        let endless = Event::Beat(Beat::Still(Duration::MAX));
        let stage = Event::Beat(Beat::Stage("target".into(), Duration::ZERO));
        assert_eq!(
            verdict(vec![endless, stage]),
            Verdict::Broken("stage target did not end within its limit of 0 s".into())
        );
    }

    #[test]
    fn a_worker_that_said_its_last_word_and_does_not_end_is_not_waited_for() {
        assert_eq!(verdict(vec![Event::Beat(Beat::Complete)]), Verdict::Complete);
    }

    #[test]
    fn a_worker_that_wants_no_dump_is_believed() {
        let declined = Beat::Declined("kdump_pre".into());
        assert_eq!(verdict(vec![Event::Beat(declined), ended(WORKER)]), Verdict::Declined("kdump_pre".into()));
    }

    #[test]
    fn a_line_without_end_takes_no_memory_without_end() {
        let flood = vec![b'x'; 10 * beat::LONGEST + 1];
        let (mut parts, mut longest) = (0, 0);
        each_line(&[&flood[..], b"\ncomplete\n"].concat()[..], |line| {
            parts += 1;
            longest = longest.max(line.len());
            true
        });
        assert_eq!((parts, longest), (12, beat::LONGEST));
    }

    #[test]
    fn shells_that_end_at_once_have_found_nobody_and_all_of_them_must() {
        let (sender, inbox) = mpsc::sync_channel(INBOX);
        for pid in [5, 99, 6] {
            sender.send(ended(pid)).unwrap();
        }
        let mut pid = 4;
        serve_shells(&["tty1".into(), "ttyS0".into()], Duration::from_secs(60), &inbox, |_| {
            pid += 1;
            Ok(pid)
        });
        assert!(inbox.try_recv().is_err(), "it did not wait for the second one");
    }

    #[test]
    fn consoles_without_a_shell_are_not_waited_for() {
        let (_sender, inbox) = mpsc::sync_channel(INBOX);
        serve_shells(&[], shell::NOBODY, &inbox, |_| Ok(5));
        serve_shells(&["tty1".into()], shell::NOBODY, &inbox, |_| Err(io::Error::from_raw_os_error(nix::libc::ENOMEM)));
    }

    #[test]
    fn a_worker_that_failed_in_order_needs_no_aftermath() {
        let failed = Beat::Failed("no target".into());
        assert_eq!(verdict(vec![Event::Beat(failed), ended(WORKER)]), Verdict::Failed("no target".into()));
    }
}
