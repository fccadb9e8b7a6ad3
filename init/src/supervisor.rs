//! PID 1: starts the worker, watches its time, and always reaches an ending.
//!
//! It touches nothing that can block: no disk, no network. Whatever could hang is done by the worker or the aftermath,
//! which are processes that it can kill, each with a time limit. Even the reboot is watched. In a normal boot the end is
//! that PID 1 itself becomes the system's init ([`switch`]); that is watched, too.

use crate::beat::Beat;
use crate::config::{self, Ending, Endings, ImageConfig};
use crate::normal::{self, Mode, switch};
use crate::{aftermath, boot, kmsg, sys};
use kdump_hooks::cmdline::Cmdline;
use log::{error, info, warn};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdout, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
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

/// For the one who looks at the console of a system that cannot be booted, before the failure action clears it.
const READING: Duration = Duration::from_secs(10);
/// Where the kernel lets through what user space logs.
const DEVKMSG: &str = "/proc/sys/kernel/printk_devkmsg";

/// What is used while no configuration could be read.
const DEFAULT_ENDINGS: Endings = Endings { failure_action: Ending::Reboot, final_action: Ending::Reboot };

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
    /// The worker could not say it itself; the aftermath has to.
    Broken(String),
}

/// PID 1. Does not return in practice: the machine restarts, halts or loses its power.
pub fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        error!("PID 1 has a bug: {panic}");
        end(DEFAULT_ENDINGS.failure_action);
    }));
    let mounted = sys::mount_kernel_filesystems();
    let mode = Mode::of(Path::new("/proc/vmcore"));
    let devkmsg = std::fs::read_to_string(DEVKMSG);
    if mode == Mode::Capture {
        sys::restart_on_panic();
    }
    kmsg::install();
    for problem in mounted {
        warn!("{problem:#}");
    }
    let mut endings = ImageConfig::read(Path::new(config::PATH)).map_or(DEFAULT_ENDINGS, |config| config.endings);
    if mode == Mode::Normal {
        let cmdline = Cmdline::parse(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default());
        endings.failure_action = normal::failure_action(&cmdline, endings.failure_action);
    }
    let (events, inbox) = mpsc::channel();
    reap(events.clone());
    let verdict = supervise(&events, &inbox);
    // From here on even a console that takes nothing any more cannot keep the machine down.
    last_call(AFTERMATH + LAST_CALL);
    let ending = match verdict {
        Verdict::Complete => {
            info!("the dump is complete; final action: {}", endings.final_action);
            endings.final_action
        }
        Verdict::Ready(init) => {
            // The system is to find the kernel as it was.
            let _ = devkmsg.map(|before| std::fs::write(DEVKMSG, before));
            let error = switch::switch(Path::new(normal::SYSROOT), &init, std::env::args_os().skip(1).collect());
            error!("{}: {error:#}; failure action: {}", mode.failure(), endings.failure_action);
            endings.failure_action
        }
        Verdict::Failed(reason) => {
            error!("{}: {reason}; failure action: {}", mode.failure(), endings.failure_action);
            endings.failure_action
        }
        Verdict::Broken(reason) => {
            error!("{}: {reason}", mode.failure());
            sys::kill_everything();
            if mode == Mode::Capture {
                clean_up(&inbox, &reason);
            }
            error!("failure action: {}", endings.failure_action);
            endings.failure_action
        }
    };
    if mode == Mode::Normal {
        warn!("it is taken in {} s", READING.as_secs());
        thread::sleep(READING);
    }
    end(ending);
    ExitCode::FAILURE
}

/// Runs the worker to its end or to the end of its time.
fn supervise(events: &Sender<Event>, inbox: &Receiver<Event>) -> Verdict {
    let child = Command::new("/proc/self/exe").arg(boot::ROLE).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return Verdict::Broken(format!("the worker cannot be started: {error}")),
    };
    if let Some(stdout) = child.stdout.take() {
        listen(stdout, events.clone());
    }
    let verdict = watch(inbox, child.id().cast_signed(), FIRST_BEAT);
    // One that is stuck after its last word must not come to the next init.
    if Path::new(&format!("/proc/{}", child.id())).exists() {
        let _ = child.kill();
    }
    verdict
}

/// Follows the worker's beats until it ends or is late.
fn watch(inbox: &Receiver<Event>, worker: i32, first: Duration) -> Verdict {
    let mut stage = "start".to_owned();
    let mut limit = first;
    let mut deadline = from_now(limit);
    let mut said: Option<Verdict> = None;
    loop {
        match inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::Beat(Beat::Stage(name, time))) => {
                stage = name;
                limit = time;
                deadline = from_now(limit);
            }
            Ok(Event::Beat(Beat::Still(time))) => {
                limit = time;
                deadline = from_now(limit);
            }
            Ok(Event::Beat(last_word @ (Beat::Complete | Beat::Ready(_) | Beat::Failed(_)))) => {
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
    Instant::now() + limit.min(Duration::from_secs(48 * 3600))
}

/// What a beat says about the whole run, if it does.
fn verdict_of(beat: Beat) -> Option<Verdict> {
    match beat {
        Beat::Complete => Some(Verdict::Complete),
        Beat::Ready(init) => Some(Verdict::Ready(init)),
        Beat::Failed(reason) => Some(Verdict::Failed(reason)),
        Beat::Stage(..) | Beat::Still(_) => None,
    }
}

/// Gives the aftermath its time.
fn clean_up(inbox: &Receiver<Event>, reason: &str) {
    let child = Command::new("/proc/self/exe").args([aftermath::ROLE, reason]).stdin(Stdio::null()).spawn();
    let child = match child {
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
fn listen(stdout: ChildStdout, events: Sender<Event>) {
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(beat) = Beat::parse(&line) {
                let _ = events.send(Event::Beat(beat));
            }
        }
    });
}

/// Takes leave of every process that ends; orphans come to PID 1.
fn reap(events: Sender<Event>) {
    thread::spawn(move || {
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
    });
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
        let (sender, inbox) = mpsc::channel();
        for event in events {
            sender.send(event).unwrap();
        }
        let verdict = watch(&inbox, WORKER, Duration::from_millis(50));
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
    fn a_worker_that_failed_in_order_needs_no_aftermath() {
        let failed = Beat::Failed("no target".into());
        assert_eq!(verdict(vec![Event::Beat(failed), ended(WORKER)]), Verdict::Failed("no target".into()));
    }
}
