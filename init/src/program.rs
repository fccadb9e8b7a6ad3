//! Runs a program: a child process of its own group, so that its death is not ours and it can be killed whole.
//!
//! In: a command and a judge who is asked again and again whether it has had its time. Out: how it ended, and the last of
//! what it said; every line of that goes to the log.
//! May surprise: a process in uninterruptible sleep does not die. It is left to the reboot.

use crate::{start, sys};
use anyhow::{Context, anyhow, bail};
use log::{info, warn};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Where programs of an image are.
pub const PATH: &str = "/usr/bin:/usr/sbin:/bin:/sbin";
/// How often the child is looked at.
const GLANCE: Duration = Duration::from_millis(50);
/// How many of the child's last lines an error shows.
const LAST_WORDS: usize = 3;
/// How long the child's last lines may take to arrive.
const LAST_WORDS_TIME: Duration = Duration::from_secs(1);
/// Longer lines are told in parts.
const LONGEST_LINE: usize = 4096;

/// What a judge is told of a program that runs.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// For how long.
    pub age: Duration,
    /// How often it has said something.
    pub said: u64,
}

/// What a program's standard input and output are tied to, if not to nothing and to the log.
#[derive(Debug, Default)]
pub struct Wires {
    /// Its standard input.
    pub stdin: Option<Stdio>,
    /// Its standard output.
    pub stdout: Option<Stdio>,
}

/// How a program ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// As wait(2) has it.
    pub status: ExitStatus,
    /// The last of what it said.
    pub said: String,
}

impl Ended {
    /// The exit code, or 128 and the number of the signal, as shells count.
    pub fn code(&self) -> i32 {
        self.status.code().or_else(|| self.status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
    }
}

/// Runs `argv` until it ends, or until `judge` says why it must.
///
/// # Errors
/// It cannot be started, or the judge's reason, each with the program's last words.
pub fn run(
    argv: &[String],
    env: &[(String, String)],
    judge: &mut dyn FnMut(Life) -> Option<String>,
) -> anyhow::Result<Ended> {
    run_wired(argv, env, Wires::default(), judge)
}

/// As [`run`], with the program's input and output where `wires` lead.
///
/// # Errors
/// As [`run`].
pub fn run_wired(
    argv: &[String],
    env: &[(String, String)],
    wires: Wires,
    judge: &mut dyn FnMut(Life) -> Option<String>,
) -> anyhow::Result<Ended> {
    let start = Instant::now();
    let mut running = Running::start(argv, env, wires)?;
    loop {
        if let Some(status) = running.ended()? {
            return Ok(running.end(status));
        }
        if let Some(reason) = judge(Life { age: start.elapsed(), said: running.said() }) {
            running.kill();
            return Err(running.failed(&reason));
        }
        thread::sleep(GLANCE);
    }
}

/// Runs `source` into `sink`. The sink sees the end of its input only when the source has ended well, so that it never
/// takes half of it for the whole.
///
/// # Errors
/// As [`run`]; and one of them has ended badly, whereupon the other has been killed.
pub fn pipe(source: &[String], sink: &[String], judge: &mut dyn FnMut(Life) -> Option<String>) -> anyhow::Result<()> {
    let start = Instant::now();
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let mut held = Some(writer.try_clone().context("cannot keep the pipe open")?);
    let mut sink = Running::start(sink, &[], Wires { stdin: Some(reader.into()), stdout: None })?;
    let started = Running::start(source, &[], Wires { stdin: None, stdout: Some(writer.into()) });
    let mut source = started.inspect_err(|_| sink.kill())?;
    loop {
        // Who reads has no reason to end before who writes.
        if let Some(status) = sink.ended()? {
            let early = source.ended()?.is_none_or(|status| !status.success());
            if early {
                source.kill();
            }
            return match (status.success(), early) {
                (true, false) => Ok(()),
                (true, true) => Err(sink.failed("it ended before its input did")),
                (false, _) => Err(sink.failed(&status.to_string())),
            };
        }
        match (&held, source.ended()?) {
            (Some(_), Some(status)) if status.success() => held = None,
            (Some(_), Some(status)) => {
                // A writer whose reader has just died fails as well; the reader's reason is the one that counts.
                thread::sleep(GLANCE);
                if sink.ended()?.is_some() {
                    continue;
                }
                sink.kill();
                return Err(source.failed(&status.to_string()));
            }
            _ => {}
        }
        if let Some(reason) = judge(Life { age: start.elapsed(), said: source.said() + sink.said() }) {
            source.kill();
            sink.kill();
            return Err(sink.failed(&reason));
        }
        thread::sleep(GLANCE);
    }
}

/// A program at work.
struct Running {
    name: String,
    child: Child,
    words: Words,
    at_rest: mpsc::Receiver<()>,
    status: Option<ExitStatus>,
}

impl Running {
    fn start(argv: &[String], env: &[(String, String)], wires: Wires) -> anyhow::Result<Running> {
        let Some((program, arguments)) = argv.split_first() else { bail!("no program is named") };
        info!("running {}", argv.join(" "));
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("PATH", PATH)
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(wires.stdin.unwrap_or_else(Stdio::null))
            .stdout(wires.stdout.unwrap_or_else(Stdio::piped))
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = start::patiently(|| command.spawn()).with_context(|| format!("cannot start {program}"))?;
        // Where memory runs out, who can tell of it outlives who needs it.
        sys::offer_process(child.id());
        let words = Words::default();
        let (at_work, at_rest) = mpsc::channel();
        if let Some(pipe) = child.stdout.take() {
            words.relay(pipe, at_work.clone());
        }
        if let Some(pipe) = child.stderr.take() {
            words.relay(pipe, at_work);
        }
        Ok(Running { name: program.clone(), child, words, at_rest, status: None })
    }

    /// How it ended, if it has.
    fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait().with_context(|| format!("cannot wait for {}", self.name))?;
        }
        Ok(self.status)
    }

    /// How often it has said something.
    fn said(&self) -> u64 {
        self.words.count.load(Ordering::Relaxed)
    }

    fn kill(&mut self) {
        if self.status.is_some() {
            return;
        }
        let group = Pid::from_raw(self.child.id().cast_signed());
        if let Err(errno) = killpg(group, Signal::SIGKILL) {
            warn!("cannot kill {}: {errno}", self.name);
        }
    }

    /// The last of what it said.
    fn last_words(&self) -> String {
        // The pipes close when nobody holds them any more. A child that cannot die, or one that it has left behind, may
        // hold them for ever.
        let _ = self.at_rest.recv_timeout(LAST_WORDS_TIME);
        self.words.last()
    }

    fn end(&self, status: ExitStatus) -> Ended {
        Ended { status, said: self.last_words() }
    }

    fn failed(&self, reason: &str) -> anyhow::Error {
        let error = anyhow!("{reason}");
        match self.last_words() {
            said if said.is_empty() => error.context(format!("{} failed", self.name)),
            said => error.context(format!("{} failed ({said})", self.name)),
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
        let relay = start::in_thread("words", move || {
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
        // Its work can be done without being heard; if it minds, it says so by its exit code.
        relay.unwrap_or_else(|error| warn!("what it says is lost: {error}"));
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

    fn shell(script: &str, limit: Duration) -> anyhow::Result<Ended> {
        let argv = ["sh", "-c", script].map(str::to_owned);
        let env = [("WORD".to_owned(), "from outside".to_owned())];
        run(&argv, &env, &mut |life| (life.age > limit).then(|| "too late".to_owned()))
    }

    #[test]
    fn exit_codes_signals_and_last_words_are_told() {
        let ended = shell("echo $WORD; exit 3", Duration::from_secs(9)).unwrap();
        assert_eq!((ended.code(), ended.said.as_str()), (3, "from outside"));
        assert_eq!(shell("kill -9 $$", Duration::from_secs(9)).unwrap().code(), 137);
    }

    #[test]
    fn who_is_late_is_killed_with_all_that_it_has_started() {
        let start = Instant::now();
        let argv = ["sh", "-c", "echo waiting; sleep 60 | cat"].map(str::to_owned);
        let error = run(&argv, &[], &mut |life| (life.said > 0).then(|| "too late".to_owned())).unwrap_err();
        assert_eq!(format!("{error:#}"), "sh failed (waiting): too late");
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn progress_without_line_feeds_is_seen_as_it_comes() {
        let dir = tempfile::tempdir().unwrap();
        // Each word waits until the one before has been seen.
        let script = "for i in 1 2 3; do printf \"$i %%\\r\"; until [ -e seen-$i ]; do sleep 0.02; done; done";
        let argv = ["sh", "-c", &format!("cd {}; {script}", dir.path().display())].map(str::to_owned);
        let ended = run(&argv, &[], &mut |life| {
            if life.said > 0 {
                std::fs::write(dir.path().join(format!("seen-{}", life.said)), "").unwrap();
            }
            (life.age > Duration::from_secs(60)).then(|| format!("{} words in a minute", life.said))
        });
        let ended = ended.unwrap();
        assert_eq!((ended.code(), ended.said.as_str()), (0, "1 % / 2 % / 3 %"));
    }

    fn piped(source: &str, sink: &str, limit: Duration) -> anyhow::Result<()> {
        let argv = |script: &str| ["sh", "-c", script].map(str::to_owned);
        pipe(&argv(source), &argv(sink), &mut |life| (life.age > limit).then(|| "too late".to_owned()))
    }

    #[test]
    fn what_one_program_writes_another_reads() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("out");
        piped("seq 100000", &format!("cat > {}", file.display()), Duration::from_secs(20)).unwrap();
        assert!(std::fs::read_to_string(file).unwrap().ends_with("\n100000\n"));
    }

    #[test]
    fn half_of_a_stream_is_never_taken_for_the_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("whole");
        let sink = format!("cat > /dev/null; touch {}", file.display());
        let error = piped("echo half; echo broken >&2; exit 3", &sink, Duration::from_secs(20)).unwrap_err();
        assert_eq!(format!("{error:#}"), "sh failed (broken): exit status: 3");
        assert!(!file.exists());
    }

    #[test]
    fn the_reason_of_the_reader_counts_and_the_writer_does_not_go_on() {
        let start = Instant::now();
        for (source, limit, expected) in
            [("yes", 60, "sh failed (no room): exit status: 4"), ("sleep 60", 3, "too late")]
        {
            let sink = "head -c 10 > /dev/null; echo no room >&2; exit 4";
            let text = format!("{:#}", piped(source, sink, Duration::from_secs(limit)).unwrap_err());
            assert!(text.contains(expected), "{text}");
        }
        assert!(start.elapsed() < Duration::from_secs(50));
        let error = piped("yes", "exit 0", Duration::from_secs(9)).unwrap_err();
        assert!(format!("{error:#}").contains("ended before its input did"), "{error:#}");
    }

    #[test]
    fn what_is_not_there_cannot_be_started() {
        let error = run(&["/none/such".to_owned()], &[], &mut |_| None).unwrap_err();
        assert!(format!("{error:#}").contains("cannot start /none/such"));
    }
}
