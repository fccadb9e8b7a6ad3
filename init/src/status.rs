//! What `status.json` says, whatever happened.

use crate::config::FailureAction;
use crate::dump::{Address, SpaceReport};
use crate::modules::Report;
use kdump_hooks::Stage;
use kdump_hooks::notify::Notice;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, SystemTime};

pub use kdump_hooks::Outcome;

/// The file's name in a dump directory.
pub const FILE: &str = "status.json";

/// The whole story of one capture boot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// How it came out.
    pub outcome: Outcome,
    /// Why it is not complete.
    pub reason: Option<String>,
    /// The release of the capture kernel.
    pub capture_kernel: String,
    /// Each stage that began, in order.
    pub stages: Vec<StageReport>,
    /// Each target that was tried, in order.
    pub targets: Vec<TargetReport>,
    /// The target that was to be tried next, in the directory of one that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// What became of the modules.
    pub modules: Report,
    /// The collector's report on the log.
    pub log: Option<Value>,
    /// The collector's report on the dump.
    pub vmcore: Option<Value>,
    /// Whether there was room, and what was done for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<SpaceReport>,
    /// The files of the dump directory.
    pub files: Vec<FileReport>,
    /// What became of each notice, once somebody was to be told. Written into the file when it is known, which is after
    /// the dump is safe.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Notice>,
    /// Memory of the capture environment, KiB.
    pub memory: Memory,
    /// What the capture kernel does in the end.
    pub ending: Option<FailureAction>,
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageReport {
    /// Its name.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
    /// `ok`, or why not.
    pub outcome: String,
    /// `MemAvailable` at its end, KiB.
    pub available: u64,
}

impl StageReport {
    /// Of a stage that took that long.
    pub fn new(name: &str, took: Duration, outcome: String, available: u64) -> StageReport {
        let seconds = (took.as_secs_f64() * 1000.0).round() / 1000.0;
        StageReport { name: name.to_owned(), seconds, outcome, available }
    }
}

/// One target that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetReport {
    /// The target as the configuration names it.
    pub target: String,
    /// `ok` or `failed`.
    pub outcome: String,
    /// Why it failed.
    pub error: Option<String>,
}

impl TargetReport {
    /// Of a target that failed with `error`, or did not.
    pub fn new(target: String, error: Option<String>) -> TargetReport {
        let outcome = if error.is_none() { "ok" } else { "failed" };
        TargetReport { target, outcome: outcome.to_owned(), error }
    }
}

/// One file of the dump.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReport {
    /// Its name in the dump directory.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// The sha256 of its content, in hexadecimal digits.
    pub sha256: String,
}

/// Memory of the capture environment, KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// `MemAvailable` when the worker started.
    pub available_first: u64,
    /// The least `MemAvailable` at the end of a stage.
    pub available_least: u64,
}

impl Status {
    /// Of a boot that has only begun: failed until shown otherwise.
    pub fn new(capture_kernel: String) -> Status {
        Status {
            outcome: Outcome::Failed,
            reason: None,
            capture_kernel,
            stages: Vec::new(),
            targets: Vec::new(),
            next: None,
            modules: Report::default(),
            log: None,
            vmcore: None,
            space: None,
            files: Vec::new(),
            notices: Vec::new(),
            memory: Memory::default(),
            ending: None,
        }
    }

    /// Notes how a stage came out.
    pub fn stage(&mut self, stage: Stage, took: Duration, outcome: &anyhow::Result<()>, available: u64) {
        let memory = &mut self.memory;
        memory.available_least = match memory.available_least {
            0 => available,
            least => least.min(available),
        };
        let outcome = outcome.as_ref().err().map_or_else(|| "ok".to_owned(), |error| format!("{error:#}"));
        self.stages.push(StageReport::new(stage.name(), took, outcome, available));
    }

    /// The text of `status.json`.
    pub fn json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        text
    }
}

/// What the worker leaves for the aftermath.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Legacy {
    /// The status so far.
    pub status: Status,
    /// The stage under way, and since when.
    pub stage: Option<(String, SystemTime)>,
    /// The target in hand.
    pub target: Option<String>,
    /// Where the files of the dump in hand appear, while there is one.
    pub address: Option<Address>,
}

impl Legacy {
    /// Where it lies, in the memory of the capture environment.
    pub const FILE: &str = "legacy.json";

    /// Writes it below `state`, in the place of the one before only when it is whole: where there is no room left the
    /// aftermath has less to say, but not nothing.
    pub fn save(&self, state: &Path) {
        let (file, new) = (state.join(Legacy::FILE), state.join("legacy.new"));
        if let Ok(text) = serde_json::to_vec(self)
            && std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, file)).is_err()
        {
            let _ = std::fs::remove_file(&new);
        }
    }

    /// Reads what the worker left below `state`.
    pub fn load(state: &Path) -> Option<Legacy> {
        serde_json::from_slice(&std::fs::read(state.join(Legacy::FILE)).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_leaves_the_legacy_before_it() {
        let state = tempfile::tempdir().unwrap();
        let mut legacy = Legacy { status: Status::new("6.1".into()), stage: None, target: None, address: None };
        legacy.target = Some("first".into());
        legacy.save(state.path());
        // A directory in the way is as good as a full file system.
        std::fs::create_dir(state.path().join("legacy.new")).unwrap();
        legacy.target = Some("second".into());
        legacy.save(state.path());
        assert_eq!(Legacy::load(state.path()).unwrap().target.as_deref(), Some("first"));
    }
}
