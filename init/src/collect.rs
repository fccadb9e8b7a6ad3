//! Runs the collector: a child process, so that its death is not ours.
//!
//! Its output goes to the log, line by line. It counts as alive while its output file grows or it says something; when
//! neither happens for the stall limit it is killed.

use crate::beat::{Beat, Pulse};
use anyhow::{Context, bail};
use log::{info, warn};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often the child is looked at.
const GLANCE: Duration = Duration::from_millis(50);
/// How often the supervisor is told that all is well.
const PULSE: Duration = Duration::from_secs(5);
/// The supervisor's patience is that much longer than ours, so that we are the ones who tell what happened.
const GRACE: Duration = Duration::from_secs(30);
/// No dump takes longer. A child that talks without end would otherwise never be late.
const AT_MOST: Duration = Duration::from_secs(24 * 3600);
/// How many of the child's last lines an error shows.
const LAST_WORDS: usize = 3;
/// How long the child's last lines may take to arrive.
const LAST_WORDS_TIME: Duration = Duration::from_secs(1);
/// Longer lines are told in parts.
const LONGEST_LINE: usize = 4096;

/// One run of a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    /// Program and arguments.
    pub command: Vec<String>,
    /// The file that grows while it works.
    pub output: PathBuf,
    /// The longest silence.
    pub stall: Duration,
}

impl Collection {
    /// The command of the configuration, with input and output behind its arguments, and our collector told where to
    /// leave its report.
    pub fn of(collector: &[String], vmcore: &Path, output: &Path, report: &Path, stall: Duration) -> Collection {
        let mut command = Vec::new();
        for word in collector {
            command.push(word.clone());
            // The collector may itself be the argument of another program.
            if Path::new(word).file_name().is_some_and(|name| name == "kdump-capture") {
                command.extend(["--report".to_owned(), report.display().to_string()]);
            }
        }
        command.extend([vmcore.display().to_string(), output.display().to_string()]);
        Collection { command, output: output.to_owned(), stall }
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// It cannot be started, failed (with its last words), or was stuck and has been killed.
    pub fn run(&self, pulse: &mut dyn Pulse) -> anyhow::Result<()> {
        let Some((program, arguments)) = self.command.split_first() else { bail!("no collector is configured") };
        info!("running {}", self.command.join(" "));
        let mut child = Command::new(program)
            .args(arguments)
            .env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start the collector {program}"))?;
        let words = Words::default();
        let (at_work, at_rest) = mpsc::channel();
        if let Some(pipe) = child.stdout.take() {
            words.relay(pipe, at_work.clone());
        }
        if let Some(pipe) = child.stderr.take() {
            words.relay(pipe, at_work);
        }
        let outcome = self.watch(&mut child, &words, pulse);
        // The pipes close when nobody holds them any more. A child that cannot die, or one that it has left behind, may
        // hold them for ever.
        let _ = at_rest.recv_timeout(LAST_WORDS_TIME);
        outcome.with_context(|| match words.last() {
            said if said.is_empty() => format!("{program} failed"),
            said => format!("{program} failed ({said})"),
        })
    }

    fn watch(&self, child: &mut Child, words: &Words, pulse: &mut dyn Pulse) -> anyhow::Result<()> {
        let start = Instant::now();
        let (mut moved, mut told) = (start, start.checked_sub(PULSE).unwrap_or(start));
        let mut mark = (0, 0);
        loop {
            if let Some(status) = child.try_wait().context("cannot wait for the collector")? {
                if status.success() {
                    return Ok(());
                }
                bail!("{status}");
            }
            let length = std::fs::metadata(&self.output).map_or(0, |metadata| metadata.len());
            let now = (length, words.count.load(Ordering::Relaxed));
            if now != mark {
                (mark, moved) = (now, Instant::now());
            }
            let late = if moved.elapsed() > self.stall {
                Some(format!("it was stuck for {} s and has been killed", self.stall.as_secs()))
            } else if start.elapsed() > AT_MOST {
                Some(format!("it ran for {} h and has been killed", AT_MOST.as_secs() / 3600))
            } else {
                None
            };
            if let Some(late) = late {
                let group = Pid::from_raw(child.id().cast_signed());
                if let Err(errno) = killpg(group, Signal::SIGKILL) {
                    warn!("cannot kill the collector: {errno}");
                }
                // A process in uninterruptible sleep does not die; it is left to the reboot.
                bail!("{late}");
            }
            if told.elapsed() >= PULSE {
                told = Instant::now();
                pulse.beat(Beat::Still(self.stall + GRACE));
            }
            thread::sleep(GLANCE);
        }
    }
}

/// What the child says.
#[derive(Clone, Debug, Default)]
struct Words {
    count: Arc<AtomicU64>,
    last: Arc<Mutex<VecDeque<String>>>,
}

impl Words {
    /// Sends each line to the log; a progress line that ends in a carriage return is one. `at_work` is dropped when the
    /// pipe is closed.
    fn relay(&self, mut pipe: impl Read + Send + 'static, at_work: Sender<()>) {
        let words = self.clone();
        thread::spawn(move || {
            let _at_work = at_work;
            let mut chunk = [0; LONGEST_LINE];
            let mut line = Vec::new();
            loop {
                let length = match pipe.read(&mut chunk) {
                    Ok(0) | Err(_) => return words.say(&line),
                    Ok(length) => length,
                };
                words.count.fetch_add(1, Ordering::Relaxed);
                for &byte in chunk.iter().take(length) {
                    if matches!(byte, b'\r' | b'\n') || line.len() == LONGEST_LINE {
                        words.say(&line);
                        line.clear();
                    }
                    line.push(byte);
                }
            }
        });
    }

    fn say(&self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let line = line.trim();
        if line.is_empty() {
            return;
        }
        info!("{line}");
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == LAST_WORDS {
            last.pop_front();
        }
        last.push_back(line.to_owned());
    }

    fn last(&self) -> String {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.iter().cloned().collect::<Vec<_>>().join(" / ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, stall: Duration) -> anyhow::Result<()> {
        let dir = tempfile::tempdir().unwrap();
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        Collection { command, output: dir.path().join("out"), stall }.run(&mut Vec::new())
    }

    #[test]
    fn our_collector_is_told_where_to_report_even_behind_another_program() {
        let collector = ["/opt/wrap", "dev", "kdump-capture", "-d", "31"].map(str::to_owned);
        let collection = Collection::of(&collector, Path::new("/v"), Path::new("/o"), Path::new("/r"), Duration::ZERO);
        assert_eq!(collection.command.join(" "), "/opt/wrap dev kdump-capture --report /r -d 31 /v /o");
        let other =
            Collection::of(&["cp".to_owned()], Path::new("/v"), Path::new("/o"), Path::new("/r"), Duration::ZERO);
        assert_eq!(other.command, ["cp", "/v", "/o"]);
    }

    #[test]
    fn a_collector_that_fails_is_quoted_with_its_last_words() {
        let error = shell("echo one; echo no room left >&2; exit 3", Duration::from_secs(9)).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("no room left") && error.contains('3'), "{error}");
    }

    #[test]
    fn a_collector_that_is_stuck_is_killed() {
        let start = Instant::now();
        let error = shell("sleep 60", Duration::from_millis(300)).unwrap_err();
        assert!(format!("{error:#}").contains("stuck"));
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_child_that_is_left_behind_does_not_hold_the_dump_up() {
        let start = Instant::now();
        shell("setsid sleep 30 & exit 0", Duration::from_secs(9)).unwrap();
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn progress_without_line_feeds_is_a_sign_of_life() {
        shell("for i in 1 2 3 4 5 6; do printf \"$i\\r\"; sleep 0.2; done", Duration::from_millis(900)).unwrap();
    }

    #[test]
    fn a_collector_that_talks_is_not_stuck() {
        shell("for i in 1 2 3 4 5 6; do echo $i; sleep 0.2; done", Duration::from_millis(900)).unwrap();
    }
}
