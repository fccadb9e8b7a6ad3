//! `kdumpctl dumps verify`: whether a dump is still what the capture environment wrote.
//!
//! In: `status.json`, with the sha256 of each file, and the files. Out: a verdict for each dump. The collector looks at the
//! layout and at every page of a dump; a file that the status does not name is told, and is no fault. Where the log alone
//! was wanted, it is the dump.

use super::{Dump, meant, status};
use crate::gather::programs::Programs;
use crate::kdumpctl::{Machine, waiting};
use anyhow::Context;
use kdump_init::dump::retention::is_log_alone;
use kdump_init::dump::{hex, sha256_of};
use serde::Serialize;
use serde_json::Value;
use std::borrow::Cow;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// The dumps that the collector can open.
const CORES: [&str; 2] = ["vmcore", "vmcore.flat"];

/// What was found of a dump.
#[derive(Debug, Serialize)]
struct Verdict {
    dump: PathBuf,
    sound: bool,
    /// Files whose sha256 is as the status says.
    files: usize,
    problems: Vec<String>,
}

/// Looks at those that are named, else at all that are ours.
pub(super) fn run(
    machine: &Machine,
    dumps: &[Dump],
    typed: &[PathBuf],
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let chosen: Vec<Cow<Dump>> = match typed.is_empty() {
        true => dumps.iter().filter(|dump| dump.outcome != "foreign").map(Cow::Borrowed).collect(),
        false => typed.iter().map(|typed| meant(dumps, typed)).collect::<anyhow::Result<_>>()?,
    };
    let collector = Programs::find(machine.programs.as_deref())?.capture;
    let mut verdicts = Vec::new();
    for dump in chosen {
        let what = format!("verifying {}", dump.path.display());
        let verdict = waiting::while_saying(&what, || judge(&dump, &collector));
        if !json {
            say(&verdict, out)?;
        }
        verdicts.push(verdict);
    }
    if json {
        writeln!(out, "{:#}", serde_json::to_value(&verdicts)?)?;
    } else if verdicts.is_empty() {
        writeln!(out, "There is no dump")?;
    }
    let sound = verdicts.iter().all(|verdict| verdict.sound);
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn say(verdict: &Verdict, out: &mut dyn Write) -> anyhow::Result<()> {
    let dump = verdict.dump.display();
    match verdict.sound {
        true => writeln!(out, "{dump}: sound, {} files are as they were written", verdict.files)?,
        false => writeln!(out, "{dump}: NOT sound: {}", verdict.problems.join("; "))?,
    }
    Ok(())
}

fn judge(dump: &Dump, collector: &Path) -> Verdict {
    let mut verdict = Verdict { dump: dump.path.clone(), sound: false, files: 0, problems: Vec::new() };
    let status = status(&dump.path);
    match &status {
        None => verdict
            .problems
            .push("there is no status.json that could be read, so that nothing is known of its files".into()),
        Some(status) => {
            let files = status.get("files").and_then(Value::as_array).cloned().unwrap_or_default();
            for file in &files {
                match digest(&dump.path, file) {
                    Ok(()) => verdict.files += 1,
                    Err(error) => verdict.problems.push(format!("{error:#}")),
                }
            }
            if dump.outcome != "complete" {
                verdict.problems.push(format!("it was {} when it was written", dump.outcome));
            }
        }
    }
    let core = CORES.iter().map(|name| dump.path.join(name)).find(|core| core.is_file());
    match core {
        None if status.as_ref().is_some_and(is_log_alone) => {}
        None => verdict.problems.push("there is no vmcore".into()),
        Some(core) => verdict.problems.extend(pages(&core, collector).err().map(|error| format!("{error:#}"))),
    }
    verdict.sound = verdict.problems.is_empty();
    verdict
}

/// Holds a file against what the status says of it.
fn digest(dump: &Path, file: &Value) -> anyhow::Result<()> {
    let text = |key: &str| file.get(key).and_then(Value::as_str).with_context(|| format!("status.json names no {key}"));
    let (name, expected) = (text("name")?, text("sha256")?);
    if name.contains('/') {
        anyhow::bail!("status.json names `{name}`, which is no file of the dump");
    }
    let read = File::open(dump.join(name)).and_then(|mut file| sha256_of(&mut file, &mut || {}));
    let (bytes, digest) = read.with_context(|| format!("cannot read {name}"))?;
    if file.get("bytes").and_then(Value::as_u64).is_some_and(|expected| expected != bytes) {
        anyhow::bail!("{name} has {bytes} bytes, and had {} when it was written", file["bytes"]);
    }
    if hex(&digest) != expected {
        anyhow::bail!("{name} is not what was written: its sha256 is another");
    }
    Ok(())
}

/// Has the collector look at every page.
pub(in crate::kdumpctl) fn pages(core: &Path, collector: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(collector);
    let output = command.arg("verify").arg(core).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {}", collector.display()))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it did not say why");
        anyhow::bail!("the collector finds {} unsound: {}", core.display(), super::printable(last));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    #[test]
    fn where_the_log_alone_was_wanted_the_log_is_the_dump() {
        let dir = tempfile::tempdir().unwrap();
        let log = "[   10.0] sysrq: Trigger a crash\n";
        let (_, sha256) = sha256_of(&mut log.as_bytes(), &mut || {}).unwrap();
        let (log_name, bytes) = ("vmcore-dmesg.txt", log.len());
        fs::write(dir.path().join(log_name), log).unwrap();
        let mut files = vec![json!({ "name": log_name, "bytes": bytes, "sha256": hex(&sha256) })];
        let judged = |files: &[Value], outcome: &str| {
            let status = json!({ "outcome": outcome, "files": files }).to_string();
            fs::write(dir.path().join("status.json"), status).unwrap();
            let dump = dir.path().to_owned();
            let dump = Dump { path: dump, outcome: outcome.into(), bytes: 0, kernel: None, panic: None, time: None };
            judge(&dump, Path::new("/nonexistent")).problems
        };
        assert_eq!(judged(&files, "complete"), [""; 0]);
        assert_eq!(judged(&files, "failed"), ["it was failed when it was written", "there is no vmcore"]);
        assert_eq!(judged(&[], "complete"), ["there is no vmcore"]);
        fs::write(dir.path().join(log_name), log.to_uppercase()).unwrap();
        assert_eq!(judged(&files, "complete"), ["vmcore-dmesg.txt is not what was written: its sha256 is another"]);
        fs::write(dir.path().join(log_name), log).unwrap();
        files.push(json!({ "name": "vmcore", "bytes": 1, "sha256": "" }));
        assert_eq!(judged(&files, "complete").last().unwrap(), "there is no vmcore");
    }
}
