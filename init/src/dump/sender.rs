//! The directory of one dump on another machine, which kdump-send delivers to, one run for each file.
//!
//! In: the words of kdump-send's command line. Out: files that the other machine has acknowledged, with the sums that
//! kdump-send reports. May surprise: small files lie in the memory of the capture environment before they are sent; the
//! dump itself goes from the collector through a pipe. What has been delivered is noted beside the worker's legacy, so
//! that the aftermath knows it too.

use super::VMCORE;
use super::collect::{Alive, Collector, Memory};
use super::directory::name_of;
use super::place::{Address, Place};
use crate::beat::{Beat, Pulse};
use crate::program::{self, Ended, Wires};
use crate::status::{FileReport, Outcome};
use anyhow::{Context, bail};
use log::warn;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

/// What has been delivered so far.
const DELIVERED: &str = "delivered.json";
/// The longest that kdump-send can be told to wait, in seconds.
const LONGEST_PATIENCE: u64 = 86_400;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// kdump-send and the words that say whom it delivers to, as whom.
    command: Vec<String>,
    /// The dump's directory there.
    dir: String,
    /// Where small files wait, and reports are left.
    state: PathBuf,
    /// How long kdump-send may be silent.
    limit: Duration,
    /// How long a server may be.
    stall: Duration,
}

/// What kdump-send reports.
#[derive(Deserialize)]
struct Made {
    name: String,
}

/// What is noted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Delivered {
    files: Vec<FileReport>,
    /// Whether the dump was begun.
    begun: bool,
}

impl Sender {
    /// Makes the directory there.
    ///
    /// # Errors
    /// kdump-send could not, and why.
    pub fn create(
        command: Vec<String>,
        state: &Path,
        host: &str,
        now: SystemTime,
        limit: Duration,
        stall: Duration,
    ) -> anyhow::Result<Sender> {
        let mut sender = Sender { command, dir: String::new(), state: state.to_owned(), limit, stall };
        sender.note(&Delivered::default());
        let report = sender.report();
        let ended = sender.run(&["mkdir", &name_of(host, now)], None, &mut Silent)?;
        well(&ended)?;
        sender.dir = read::<Made>(&report).context("kdump-send does not say which directory it made")?.name;
        Ok(sender)
    }

    fn report(&self) -> PathBuf {
        self.state.join("send-report.json")
    }

    fn words(&self, verb: &[&str]) -> Vec<String> {
        let report = self.report().display().to_string();
        // It is to say itself who has stalled, before it is ended for it.
        let patience = (self.stall.as_secs() * 9 / 10).clamp(1, LONGEST_PATIENCE).to_string();
        let options = ["--timeout".to_owned(), patience, "--report".to_owned(), report];
        let verb = verb.iter().map(|word| (*word).to_owned());
        self.command.iter().cloned().chain(options).chain(verb).collect()
    }

    fn run(&self, verb: &[&str], input: Option<Stdio>, pulse: &mut dyn Pulse) -> anyhow::Result<Ended> {
        let _ = fs::remove_file(self.report());
        let mut alive = Alive::new(self.limit);
        program::run_wired(&self.words(verb), &[], Wires { stdin: input, stdout: None }, &mut |life| {
            alive.judge(life, 0, pulse)
        })
    }

    /// Sends a file of the capture environment.
    fn send(&self, name: &str, file: &Path, pulse: &mut dyn Pulse) -> anyhow::Result<()> {
        let input = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
        let ended = self.run(&["put", &format!("{}/{name}", self.dir)], Some(input.into()), pulse)?;
        well(&ended)?;
        self.acknowledged()
    }

    /// Notes what kdump-send reports of the file that it has just delivered.
    fn acknowledged(&self) -> anyhow::Result<()> {
        let report: FileReport = read(&self.report()).context("kdump-send does not say what it delivered")?;
        let mut delivered = self.delivered();
        delivered.files.retain(|file| file.name != report.name);
        delivered.files.push(report);
        self.note(&delivered);
        Ok(())
    }

    fn delivered(&self) -> Delivered {
        read(&self.state.join(DELIVERED)).unwrap_or_default()
    }

    fn note(&self, delivered: &Delivered) {
        let written = serde_json::to_vec(delivered)
            .map_err(std::io::Error::other)
            .and_then(|text| fs::write(self.state.join(DELIVERED), text));
        if let Err(error) = written {
            warn!("cannot note what has been delivered: {error}");
        }
    }

    /// The dump, from the collector through a pipe.
    fn stream(&self, name: &str, collector: &Collector, pulse: &mut dyn Pulse) -> anyhow::Result<()> {
        self.note(&Delivered { begun: true, ..self.delivered() });
        let _ = fs::remove_file(self.report());
        let path = format!("{}/{name}", self.dir);
        let verb: &[&str] = match collector.is_flattened() {
            true => &["put", "--flattened", &path],
            false => &["put", &path],
        };
        let mut alive = Alive::new(collector.stall);
        let memory = Memory::watch();
        let piped = program::pipe(&collector.stream(), &self.words(verb), &mut |life| alive.judge(life, 0, pulse));
        match piped {
            Ok(()) => self.acknowledged(),
            Err(error) => memory.explain(error),
        }
    }

    /// Lets `work` make a small file, sends it, and removes it.
    fn by_way_of_memory(
        &self,
        name: &str,
        pulse: &mut dyn Pulse,
        work: impl FnOnce(&Path, &mut dyn Pulse) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let file = self.state.join(format!("{name}.unsent"));
        let sent = work(&file, pulse).and_then(|()| self.send(name, &file, pulse));
        let _ = fs::remove_file(&file);
        sent
    }
}

fn read<T: for<'a> Deserialize<'a>>(file: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

fn well(ended: &Ended) -> anyhow::Result<()> {
    match ended.status.success() {
        true => Ok(()),
        false => bail!("{} ({})", ended.said, ended.status),
    }
}

/// Nobody has to hear of it.
#[derive(Debug)]
struct Silent;

impl Pulse for Silent {
    fn beat(&mut self, _beat: Beat) {}
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.command.last().map_or("", |url| url.trim_end_matches('/')), self.dir)
    }
}

impl Place for Sender {
    fn address(&self) -> Address {
        Address::Sent(self.clone())
    }

    fn collect(&mut self, name: &str, collector: &Collector, pulse: &mut dyn Pulse) -> anyhow::Result<()> {
        match name {
            // The dump is too large for anything but a pipe.
            VMCORE => self.stream(name, collector, pulse),
            _ => self.by_way_of_memory(name, pulse, |file, pulse| collector.into_file(file).run(pulse)),
        }
    }

    fn write(&mut self, name: &str, pieces: &mut dyn Iterator<Item = Vec<u8>>) -> anyhow::Result<()> {
        self.by_way_of_memory(name, &mut Silent, |file, _| {
            let writing = || format!("cannot write {}", file.display());
            let mut out = BufWriter::new(File::create(file).with_context(writing)?);
            for piece in pieces {
                out.write_all(&piece).with_context(writing)?;
            }
            out.flush().with_context(writing)
        })
    }

    /// The other machine takes a file in the place of one that is there.
    fn replace(&mut self, name: &str, text: Vec<u8>) -> anyhow::Result<()> {
        self.write(name, &mut std::iter::once(text))
    }

    fn outcome(&self) -> Outcome {
        let delivered = self.delivered();
        let whole = |file: &FileReport| file.name == VMCORE || file.name.strip_prefix(VMCORE) == Some(".flat");
        match (delivered.files.iter().any(whole), delivered.begun) {
            (true, _) => Outcome::Complete,
            (false, true) => Outcome::Incomplete,
            (false, false) => Outcome::Failed,
        }
    }

    fn files(&self, _most: u64, _tick: &mut dyn FnMut()) -> Vec<FileReport> {
        self.delivered().files
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beat::Beat;
    use crate::dump::LOG;
    use kdump_hooks::fake;

    /// A kdump-send that delivers to a directory, and to it alone.
    const SEND: &str = r#"#!/bin/sh
base=$1; echo "$2 $3" >> "$base.patience"; shift 4; report=$1; shift
case $1 in
mkdir) mkdir "$base/$2.1" && echo "{\"name\":\"$2.1\"}" > "$report";;
put) shift; suffix=; [ "$1" = --flattened ] && { suffix=.flat; shift; }
  cat > "$base/$1$suffix-incomplete"
  [ -e "$base/full" ] && { echo "its disk is full" >&2; exit 1; }
  mv "$base/$1$suffix-incomplete" "$base/$1$suffix"
  echo "{\"name\":\"$(basename "$1$suffix")\",\"bytes\":$(wc -c < "$base/$1$suffix"),\"sha256\":\"x\"}" > "$report";;
esac
"#;

    struct Rehearsal {
        tree: tempfile::TempDir,
        sender: Sender,
    }

    impl Rehearsal {
        fn new() -> Rehearsal {
            let tree = tempfile::tempdir().unwrap();
            let program = tree.path().join("kdump-send");
            fake::program(&program, SEND.as_bytes()).unwrap();
            let (base, state) = (tree.path().join("far"), tree.path().join("state"));
            fs::create_dir(&base).unwrap();
            fs::create_dir(&state).unwrap();
            let command = vec![program.display().to_string(), base.display().to_string()];
            let sender = Sender::create(
                command,
                &state,
                "10.0.2.15",
                SystemTime::UNIX_EPOCH + Duration::from_secs(1),
                Duration::from_secs(20),
                Duration::from_secs(40),
            );
            Rehearsal { sender: sender.unwrap(), tree }
        }

        fn collect(&mut self, name: &str, script: &str) -> anyhow::Result<()> {
            let collector = self.tree.path().join("kdump-capture");
            let text = format!("#!/bin/sh\nfor last; do :; done; out=$last\n{script}\n");
            fake::program(&collector, text.as_bytes()).unwrap();
            let command = [collector.display().to_string()];
            let (vmcore, report) = (Path::new("/dev/null"), self.tree.path().join("report"));
            let collector = Collector { command: &command, vmcore, report: &report, stall: Duration::from_secs(20) };
            self.sender.collect(name, &collector, &mut Vec::<Beat>::new())
        }

        fn far(&self) -> Vec<String> {
            let dir = self.tree.path().join("far").join(&self.sender.dir);
            let mut names: Vec<String> =
                fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    #[test]
    fn each_file_goes_through_the_program_and_is_known_by_its_report() {
        let mut rehearsal = Rehearsal::new();
        assert_eq!(rehearsal.sender.dir, "10.0.2.15-1970-01-01-00:00:01.1");
        assert_eq!(rehearsal.sender.outcome(), Outcome::Failed);
        rehearsal.collect(LOG, "echo log > $out").unwrap();
        assert_eq!(rehearsal.sender.outcome(), Outcome::Failed);
        rehearsal.collect(VMCORE, "echo dump").unwrap();
        rehearsal.sender.write("status.json", &mut [b"a".to_vec(), b"b".to_vec()].into_iter()).unwrap();
        assert_eq!(rehearsal.far(), ["status.json", "vmcore-dmesg.txt", "vmcore.flat"]);
        // The aftermath is another process.
        let Address::Sent(again) = rehearsal.sender.address() else { panic!("not sent") };
        assert_eq!(again.outcome(), Outcome::Complete);
        let files: Vec<(String, u64)> =
            again.files(0, &mut || ()).into_iter().map(|file| (file.name, file.bytes)).collect();
        assert_eq!(files, [("vmcore-dmesg.txt".into(), 4), ("vmcore.flat".into(), 5), ("status.json".into(), 2)]);
        assert!(
            !fs::read_dir(rehearsal.tree.path().join("state"))
                .unwrap()
                .any(|entry| { entry.unwrap().file_name().to_string_lossy().ends_with("unsent") })
        );
    }

    #[test]
    fn the_limit_on_stalls_is_the_program_s_too_and_a_little_shorter() {
        let mut rehearsal = Rehearsal::new();
        rehearsal.collect(VMCORE, "echo dump").unwrap();
        let told = fs::read_to_string(rehearsal.tree.path().join("far.patience")).unwrap();
        assert_eq!(told, "--timeout 36\n--timeout 36\n");
        rehearsal.sender.stall = Duration::from_secs(1);
        rehearsal.collect(VMCORE, "echo dump").unwrap();
        assert!(fs::read_to_string(rehearsal.tree.path().join("far.patience")).unwrap().ends_with("--timeout 1\n"));
    }

    #[test]
    fn a_collector_that_dies_leaves_an_incomplete_dump() {
        let mut rehearsal = Rehearsal::new();
        let error = rehearsal.collect(VMCORE, "echo half; echo broken >&2; exit 1").unwrap_err();
        assert!(format!("{error:#}").contains("broken"), "{error:#}");
        assert_eq!(rehearsal.far(), ["vmcore.flat-incomplete"]);
        assert_eq!(rehearsal.sender.outcome(), Outcome::Incomplete);
    }

    #[test]
    fn what_the_other_machine_refuses_is_the_reason() {
        let mut rehearsal = Rehearsal::new();
        fs::write(rehearsal.tree.path().join("far/full"), "").unwrap();
        for (name, script) in [(LOG, "echo log > $out"), (VMCORE, "echo dump")] {
            let error = rehearsal.collect(name, script).unwrap_err();
            assert!(format!("{error:#}").contains("its disk is full"), "{error:#}");
        }
    }
}
