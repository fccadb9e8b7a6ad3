//! Runs the collector: a program like any other, but that it may take its time.
//!
//! It counts as alive while its output grows or it says something; when
//! neither happens for the stall limit it is killed.

use super::patient::Length;
use crate::beat::{Beat, Pulse};
use crate::program::{self, Life, Wires};
use anyhow::{Context, anyhow, bail};
use kdump_hooks::kernel::KernelLog;
use std::fs::File;
use std::io::Seek;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Our collector's name.
const OURS: &str = "kdump-capture";
/// What makes it, and makedumpfile, write a stream.
const FLATTEN: &str = "-F";
/// How often the supervisor is told that all is well.
const PULSE: Duration = Duration::from_secs(5);
/// The supervisor's patience is that much longer than ours, so that we are the ones who tell what happened.
const GRACE: Duration = Duration::from_secs(30);
/// No dump takes longer. A child that talks without end would otherwise never be late.
const AT_MOST: Duration = Duration::from_secs(24 * 3600);

/// A collector, its input, and where it leaves its report if it is ours.
#[derive(Clone, Copy, Debug)]
pub struct Collector<'a> {
    /// Program and arguments; input and output are put behind them.
    pub command: &'a [String],
    /// The old kernel's memory.
    pub vmcore: &'a Path,
    /// Where our own collector leaves its report.
    pub report: &'a Path,
    /// The longest silence.
    pub stall: Duration,
}

impl Collector<'_> {
    /// A run that writes the file `output`.
    pub fn into_file(&self, output: &Path) -> Collection {
        let mut command = self.command_with(&[]);
        command.extend([self.vmcore.display().to_string(), output.display().to_string()]);
        Collection { command, output: Output::File(output.to_owned()), stall: self.stall }
    }

    /// A run that writes to `output` from where that stands, flattened if it can.
    pub fn into_stream(&self, output: File) -> Collection {
        Collection { command: self.stream(), output: Output::Stream(output), stall: self.stall }
    }

    /// The words by which it writes to its standard output, flattened if it can.
    pub fn stream(&self) -> Vec<String> {
        let has_it = self.command.iter().any(|word| word == FLATTEN);
        let mut command = self.command_with(if has_it { &[] } else { &[FLATTEN] });
        command.push(self.vmcore.display().to_string());
        command
    }

    /// Whether what it writes to its standard output is a flattened dump, and not the dump itself.
    pub fn is_flattened(&self) -> bool {
        self.stream().iter().any(|word| word == FLATTEN)
    }

    /// The command with `more` behind the collector's name, if it is one that knows what that means.
    fn command_with(&self, more: &[&str]) -> Vec<String> {
        let mut command = Vec::new();
        for word in self.command {
            command.push(word.clone());
            // The collector may itself be the argument of another program.
            let name = Path::new(word).file_name().unwrap_or_default();
            if name == OURS {
                command.extend(["--report".to_owned(), self.report.display().to_string()]);
            }
            if name == OURS || name == "makedumpfile" {
                command.extend(more.iter().map(|word| (*word).to_owned()));
            }
        }
        command
    }
}

/// Where a run of a collector writes.
#[derive(Debug)]
pub enum Output {
    /// To the file that it was told.
    File(PathBuf),
    /// To its standard output, which is this.
    Stream(File),
}

impl Output {
    /// How far it has come.
    fn mark(&self) -> u64 {
        match self {
            // A file is looked at by a thread.
            Output::File(_) => 0,
            // Who writes shares the place with us.
            Output::Stream(file) => (&*file).stream_position().unwrap_or_default(),
        }
    }
}

/// One run of a collector.
#[derive(Debug)]
pub struct Collection {
    /// Program and arguments.
    pub command: Vec<String>,
    /// What grows while it works.
    pub output: Output,
    /// The longest silence.
    pub stall: Duration,
}

impl Collection {
    /// Runs it to its end.
    ///
    /// # Errors
    /// It cannot be started, failed (with its last words), or was stuck and has been killed.
    pub fn run(&self, pulse: &mut dyn Pulse) -> anyhow::Result<()> {
        let Some(program) = self.command.first() else { bail!("no collector is configured") };
        let mut alive = Alive::new(self.stall);
        let memory = Memory::watch();
        let stdout = match &self.output {
            Output::File(_) => None,
            Output::Stream(file) => Some(file.try_clone().context("cannot share the output")?.into()),
        };
        let wires = Wires { stdin: None, stdout };
        let length = match &self.output {
            Output::File(path) => Some(Length::watch(path)),
            Output::Stream(_) => None,
        };
        let ended = program::run_wired(&self.command, &[], wires, &mut |life| {
            let mark = length.as_ref().map_or_else(|| self.output.mark(), Length::now);
            alive.judge(life, mark, pulse)
        })?;
        if ended.status.success() {
            return Ok(());
        }
        let said = if ended.said.is_empty() { String::new() } else { format!(" ({})", ended.said) };
        memory.explain(anyhow!("{program} failed{said}: {}", ended.status))
    }
}

/// Whether somebody who may take his time is still at work.
pub(super) struct Alive {
    stall: Duration,
    moved: Instant,
    told: Instant,
    mark: (u64, u64),
}

impl Alive {
    /// Nothing has been seen of him yet.
    pub(super) fn new(stall: Duration) -> Alive {
        let start = Instant::now();
        Alive { stall, moved: start, told: start.checked_sub(PULSE).unwrap_or(start), mark: (0, 0) }
    }

    /// Looks at him; why he must end, if he must. The supervisor hears that all is well.
    pub(super) fn judge(&mut self, life: Life, length: u64, pulse: &mut dyn Pulse) -> Option<String> {
        self.judge_at(Instant::now(), life, length, pulse)
    }

    fn judge_at(&mut self, now: Instant, life: Life, length: u64, pulse: &mut dyn Pulse) -> Option<String> {
        let mark = (length, life.said);
        if mark != self.mark {
            (self.mark, self.moved) = (mark, now);
        }
        if now.saturating_duration_since(self.told) >= PULSE {
            self.told = now;
            pulse.beat(Beat::Still(self.stall + GRACE));
        }
        if now.saturating_duration_since(self.moved) > self.stall {
            Some(format!("it was stuck for {} s and has been killed", self.stall.as_secs()))
        } else if life.age > AT_MOST {
            Some(format!("it ran for {} h and has been killed", AT_MOST.as_secs() / 3600))
        } else {
            None
        }
    }
}

/// Knows when the kernel has killed somebody for want of memory.
pub(super) struct Memory(Option<KernelLog>);

impl Memory {
    /// From now on.
    pub(super) fn watch() -> Memory {
        Memory(KernelLog::from_now().ok())
    }

    /// The error, and whether memory was the reason.
    pub(super) fn explain(mut self, error: anyhow::Error) -> anyhow::Result<()> {
        match std::iter::from_fn(|| self.0.as_mut()?.next_line()).find(|line| is_want_of_memory(line)) {
            Some(line) => {
                bail!("{error:#}; memory ran out, reserve more with crashkernel=; the kernel says: {line}")
            }
            None => Err(error),
        }
    }
}

/// Whether the kernel log tells that a process was killed because there was no memory left.
fn is_want_of_memory(line: &str) -> bool {
    line.contains("Out of memory: Killed process") || line.contains("oom-kill:")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than any of these runs.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn shell(script: &str, stall: Duration) -> anyhow::Result<()> {
        let dir = tempfile::tempdir().unwrap();
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        Collection { command, output: Output::File(dir.path().join("out")), stall }.run(&mut Vec::new())
    }

    #[test]
    fn our_collector_is_told_where_to_report_even_behind_another_program() {
        let line = |words: &str| {
            let command: Vec<String> = words.split(' ').map(str::to_owned).collect();
            let (vmcore, report) = (Path::new("/v"), Path::new("/r"));
            let collector = Collector { command: &command, vmcore, report, stall: Duration::ZERO };
            collector.into_file(Path::new("/o")).command.join(" ")
        };
        assert_eq!(line("/opt/wrap dev kdump-capture -d 31"), "/opt/wrap dev kdump-capture --report /r -d 31 /v /o");
        assert_eq!(line("cp"), "cp /v /o");
    }

    #[test]
    fn ours_and_makedumpfile_are_asked_for_a_stream_unless_they_have_been() {
        let line = |words: &str| {
            let command: Vec<String> = words.split(' ').map(str::to_owned).collect();
            let (vmcore, report) = (Path::new("/v"), Path::new("/r"));
            let collector = Collector { command: &command, vmcore, report, stall: Duration::ZERO };
            assert_eq!(collector.is_flattened(), !words.contains("cat"), "{words}");
            collector.into_stream(tempfile::tempfile().unwrap()).command.join(" ")
        };
        assert_eq!(line("wrap kdump-capture -d 31"), "wrap kdump-capture --report /r -F -d 31 /v");
        assert_eq!(line("/usr/bin/makedumpfile -l"), "/usr/bin/makedumpfile -F -l /v");
        assert_eq!(line("/usr/bin/makedumpfile -l -F"), "/usr/bin/makedumpfile -l -F /v");
        assert_eq!(line("/bin/cat"), "/bin/cat /v");
    }

    #[test]
    fn a_stream_goes_where_the_file_stands_and_its_growth_is_seen() {
        let mut file = tempfile::tempfile().unwrap();
        file.seek(std::io::SeekFrom::Start(10)).unwrap();
        let script = "printf xxxxxx; echo not this >&2";
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        let output = Output::Stream(file.try_clone().unwrap());
        assert_eq!(output.mark(), 10);
        let collection = Collection { command, output, stall: PATIENCE };
        collection.run(&mut Vec::new()).unwrap();
        assert_eq!((collection.output.mark(), file.metadata().unwrap().len()), (16, 16));
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
    fn words_and_growth_are_signs_of_life_and_without_any_it_is_stuck() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut alive = Alive::new(PATIENCE);
        let mut judge = |seconds: u64, length: u64, said: u64| {
            alive.judge_at(at(seconds), Life { age: Duration::from_secs(seconds), said }, length, &mut Vec::new())
        };
        // Silence, a word, growth, growth, silence.
        for (seconds, length, said) in [(50, 0, 0), (55, 0, 1), (110, 7, 1), (165, 9, 1), (225, 9, 1)] {
            assert_eq!(judge(seconds, length, said), None, "{seconds}");
        }
        assert!(judge(226, 9, 1).unwrap().contains("stuck for 60 s"));
    }

    #[test]
    fn a_program_that_talks_for_days_is_ended_all_the_same() {
        let life = Life { age: AT_MOST + Duration::from_secs(1), said: 9 };
        assert!(Alive::new(PATIENCE).judge(life, 9, &mut Vec::new()).unwrap().contains("it ran for"));
    }
}
