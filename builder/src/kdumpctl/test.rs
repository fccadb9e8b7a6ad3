//! `kdumpctl test`: a real crash, of this machine, now; and what came of it.
//!
//! In: a loaded capture kernel and somebody's consent. Out: a panic by sysrq, with a line in the kernel log by which the
//! dump is known afterwards: `vmcore-dmesg.txt` has it. What was expected is noted below `/var/lib/kdump` first.
//!
//! May surprise: the result is looked for at the next `start`, `status` or `test --result`, in the dumps on the disks of
//! this machine and in what it has mounted. A dump that went elsewhere can only be judged there; the line to look for is
//! told, and as long as no dump was found it is looked for again.

use super::dumps::{self, Dump};
use super::places::Places;
use super::{Machine, kernel, load, status};
use crate::config::Config;
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const RECORD: &str = "var/lib/kdump/test.json";
/// The exit if there was no test.
const NO_TEST: u8 = 3;
/// The line is among the last ones of a log.
const LOG_END: u64 = 1 << 20;

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// The machine has not been booted since.
    Pending,
    /// A complete dump came out.
    Success,
    /// A dump came out, and it is not complete; or none did.
    Fail,
    /// Dumps are where this machine cannot look, and somebody has to.
    Manual,
}

/// A test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// What tells it from any other.
    pub(super) id: String,
    /// What became of it.
    pub(super) state: State,
    /// The boot that was crashed.
    boot: String,
    /// When, in seconds of Unix time.
    time: u64,
    /// The image that was tried.
    image: PathBuf,
    /// When that was written.
    image_written: u64,
    /// Its dump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dump: Option<PathBuf>,
    /// What there is to say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The image has been built anew since.
    #[serde(default)]
    image_is_newer: bool,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { id, state, .. } = self;
        match (state, &self.dump) {
            (State::Pending, _) => write!(f, "test {id} is under way"),
            (State::Success, Some(dump)) => write!(f, "test {id} succeeded: {}", dump.display()),
            (State::Success, None) => write!(f, "test {id} succeeded"),
            (State::Fail, Some(dump)) => write!(f, "test {id} failed: {}", dump.display()),
            (State::Fail, None) => write!(f, "test {id} failed: no dump"),
            (State::Manual, _) => write!(f, "test {id}: look for a dump whose log has `{}` where it went", mark(id)),
        }?;
        if let Some(reason) = &self.reason {
            write!(f, " ({reason})")?;
        }
        if self.image_is_newer { f.write_str("; the image has been built anew since") } else { Ok(()) }
    }
}

/// The line in the log.
fn mark(id: &str) -> String {
    format!("kdumpctl test {id}")
}

/// Crashes the machine, or says how the last test came out.
pub(super) fn run(
    machine: &Machine,
    force: bool,
    result: bool,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let config = Config::read(&machine.files)?;
    if result {
        return told(record(machine, &config), json, out);
    }
    let tree = &machine.tree;
    if !status::is_loaded(tree) {
        bail!("no capture kernel is loaded, and a crash without one only stops the machine; run kdumpctl start first");
    }
    if tree.line("sys/kernel/fadump/enabled").as_deref() == Some("1") {
        bail!("this machine dumps by fadump, which this version does not handle; a test would tell nothing");
    }
    let danger = "DANGER!!! This crashes the kernel of this machine, now. Everything that runs on it is lost.";
    let mut errors = std::io::stderr();
    let talk: &mut dyn Write = if json { &mut errors } else { out };
    writeln!(talk, "{danger}")?;
    if !force && !confirmed(talk)? {
        match json {
            true => writeln!(out, "{:#}", serde_json::Value::Null)?,
            false => writeln!(out, "Nothing was done")?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let id = format!("{}-{}", now.as_secs(), now.subsec_nanos());
    let image = match load::last(tree) {
        Some(loaded) => loaded.image,
        None => kernel::find(tree, &config.system)?.image,
    };
    let record = Record {
        state: State::Pending,
        boot: boot(machine),
        time: now.as_secs(),
        image_written: load::written(&image).unwrap_or(0),
        image,
        dump: None,
        reason: None,
        image_is_newer: false,
        id,
    };
    note(machine, &record)?;
    // Log first: the dump is known by it.
    let log = tree.path("dev/kmsg");
    fs::write(&log, mark(&record.id)).with_context(|| format!("cannot write to the kernel log {}", log.display()))?;
    match json {
        true => writeln!(out, "{:#}", serde_json::to_value(&record)?)?,
        false => {
            let then = "after the reboot, `kdumpctl test --result` says what came of it";
            writeln!(out, "Crashing for test {}; {then}", record.id)?;
        }
    }
    out.flush()?;
    nix::unistd::sync();
    let trigger = tree.path("proc/sysrq-trigger");
    fs::write(&trigger, "c").with_context(|| format!("cannot crash by {}", trigger.display()))?;
    if tree.is_this_machine() {
        std::thread::sleep(Duration::from_secs(30));
        bail!("the kernel did not crash; see `dmesg | tail`");
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether somebody at a terminal says yes.
fn confirmed(out: &mut dyn Write) -> anyhow::Result<bool> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("nobody is at a terminal to say yes; --force does without");
    }
    write!(out, "Crash it? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn told(record: Option<Record>, json: bool, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    match (&record, json) {
        (Some(record), true) => writeln!(out, "{:#}", serde_json::to_value(record)?)?,
        (None, true) => writeln!(out, "{:#}", json!({ "state": "none" }))?,
        (Some(record), false) => writeln!(out, "{record}")?,
        (None, false) => writeln!(out, "There was no test")?,
    }
    Ok(match record.map(|record| record.state) {
        Some(State::Success) => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
        None => ExitCode::from(NO_TEST),
    })
}

/// At a start: finds out how the test came out, if there was one, and says so once.
pub(super) fn settle(machine: &Machine, config: &Config, out: &mut dyn Write) -> anyhow::Result<()> {
    let Some(before) = read(machine) else { return Ok(()) };
    let Some(after) = record(machine, config).filter(|after| after.state != before.state) else { return Ok(()) };
    // VMCORE_CREATION_NOTIFICATION: it is noted in any case.
    if config.system.creation_notification.as_ref().is_none_or(|given| given.value) {
        writeln!(out, "{after}")?;
    }
    if let Err(error) = note(machine, &after) {
        log::warn!("{error:#}");
    }
    Ok(())
}

/// The last test, and what is known of it by now.
pub(super) fn record(machine: &Machine, config: &Config) -> Option<Record> {
    let mut record = read(machine)?;
    record.image_is_newer = load::written(&record.image).is_none_or(|written| written != record.image_written);
    if record.dump.is_some() || record.boot == boot(machine) {
        return Some(record);
    }
    let mark = mark(&record.id);
    let places = Places::with_raw(machine, config);
    let mut dumps = dumps::below(&places.all());
    dumps.retain(|dump| has_mark(&dump.path, &mark));
    // A target that failed may have left one, too, before the next was tried.
    let whole = dumps.iter().position(|dump| dump.outcome == "complete");
    let (mut dumps, unseen) = (dumps.drain(whole.unwrap_or(0)..), places.unseen.join(", "));
    (record.state, record.reason, record.dump) = match dumps.next() {
        Some(Dump { outcome, path, .. }) if outcome == "complete" => (State::Success, None, Some(path)),
        Some(Dump { outcome, path, .. }) if unseen.is_empty() => {
            (State::Fail, Some(format!("the dump is {outcome}")), Some(path))
        }
        None if unseen.is_empty() => (State::Fail, None, None),
        // It may have become a complete one there.
        Some(Dump { outcome, path, .. }) => {
            (State::Manual, Some(format!("{} is {outcome}; {unseen}", path.display())), None)
        }
        None => (State::Manual, Some(unseen), None),
    };
    Some(record)
}

fn has_mark(dump: &Path, mark: &str) -> bool {
    let mut end = Vec::new();
    let read = File::open(dump.join("vmcore-dmesg.txt")).and_then(|mut log| {
        let length = log.metadata()?.len();
        log.seek(SeekFrom::Start(length.saturating_sub(LOG_END)))?;
        log.take(LOG_END).read_to_end(&mut end)
    });
    read.is_ok() && String::from_utf8_lossy(&end).lines().any(|line| line.ends_with(mark))
}

fn boot(machine: &Machine) -> String {
    machine.tree.line("proc/sys/kernel/random/boot_id").unwrap_or_default()
}

fn read(machine: &Machine) -> Option<Record> {
    serde_json::from_str(&fs::read_to_string(machine.tree.path(RECORD)).ok()?).ok()
}

/// Notes it, so that it is there after a crash.
fn note(machine: &Machine, record: &Record) -> anyhow::Result<()> {
    let path = machine.tree.path(RECORD);
    let noted = (|| {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&path)?;
        file.write_all(&serde_json::to_vec_pretty(record).unwrap_or_default())?;
        file.sync_all()
    })();
    noted.with_context(|| format!("cannot note the test in {}; run it as root", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Files;
    use crate::host::Tree;
    use crate::kexec::fake::FakeKexec;

    #[test]
    fn a_target_that_failed_is_not_the_verdict_while_the_next_one_may_have_a_complete_dump() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let dump = |name: &str, outcome: &str| {
            write(&format!("var/crash/{name}/vmcore-dmesg.txt"), "[  9.0] kdumpctl test 7\n[ 10.0] sysrq\n");
            write(&format!("var/crash/{name}/status.json"), &format!("{{\"outcome\": \"{outcome}\"}}"));
        };
        let local = "failure_action = \"dump_to_rootfs\"\n";
        let conf = "[[target]]\nkind = \"nfs\"\nexport = \"nas:/x\"\n";
        write("etc/kdump/kdump.toml", &format!("{local}{conf}"));
        write(RECORD, r#"{"id": "7", "state": "pending", "boot": "a", "time": 1, "image": "/i", "image_written": 0}"#);
        let kexec = FakeKexec::default();
        let files = Files::new(root.path(), None, None);
        let machine = Machine { tree: Tree::new(root.path()), files, programs: None, kexec: &kexec };
        let judged = || {
            let record = record(&machine, &Config::read(&machine.files).unwrap()).unwrap();
            let dump = record.dump.map(|dump| dump.file_name().unwrap().to_string_lossy().into_owned());
            (record.state, dump, record.reason.unwrap_or_default())
        };
        let elsewhere = "dumps go to another machine".to_owned();
        assert_eq!(judged(), (State::Manual, None, elsewhere));
        dump("127.0.0.1-2026-01-02-00:00:00", "incomplete");
        let (state, path, reason) = judged();
        assert_eq!((state, path), (State::Manual, None), "{reason}");
        assert!(reason.ends_with("-00:00:00 is incomplete; dumps go to another machine"), "{reason}");
        // The older one of the two is the one that counts.
        let complete = "127.0.0.1-2026-01-01-00:00:00";
        dump(complete, "complete");
        assert_eq!(judged(), (State::Success, Some(complete.to_owned()), String::new()));
        dump(complete, "failed");
        write("etc/kdump/kdump.toml", "path = \"/var/crash\"\n");
        assert_eq!(judged().0, State::Fail);
        assert_eq!(judged().2, "the dump is incomplete");
    }
}
