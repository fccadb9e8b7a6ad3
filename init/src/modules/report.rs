//! What became of the modules, for `status.json`, and how a modprobe that the kernel calls adds to it.

use kdump_hooks::kmod::ModuleName;
use log::{info, warn};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

/// How many lines the log has for what was missing.
const LINES: usize = 40;
/// The file below the state directory in which modprobe leaves its reports, one a line.
const JOURNAL: &str = "modprobe.json";
/// More than that is not read back.
const LONGEST_JOURNAL: usize = 1 << 20;

/// What became of the modules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Loaded modules, in the order in which the kernel took them.
    pub loaded: Vec<ModuleName>,
    /// Modules that could not be loaded.
    pub refused: Vec<Refused>,
    /// Modules that a device asked for and a blacklist kept out.
    pub blacklisted: BTreeSet<ModuleName>,
    /// Modules that are loaded although the kernel had something to say, such as a parameter that they do not have.
    pub remarks: Vec<Refused>,
    /// Modules that are still starting.
    pub stuck: Vec<Stuck>,
    /// What was asked for and nothing in the image answers to.
    pub missing: Vec<Missing>,
}

/// A module that could not be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The module.
    pub name: ModuleName,
    /// Why.
    pub error: String,
}

/// A module that does not come to an end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stuck {
    /// The module.
    pub name: ModuleName,
    /// For how long.
    pub seconds: u64,
}

/// A request to which nothing answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// A module name or alias.
    pub request: String,
    /// A device's directory in sysfs, the kernel, or a part of the boot.
    pub asked_by: String,
}

impl Report {
    /// Leaves the report for the boot to pick up. What cannot be written is only lost for the report.
    pub fn append(&self, state: &Path) {
        if let Ok(mut line) = serde_json::to_vec(self)
            && let Ok(mut file) = OpenOptions::new().append(true).create(true).open(state.join(JOURNAL))
        {
            line.push(b'\n');
            // One write, so that two do not mix.
            let _ = file.write_all(&line);
        }
    }

    /// Adds what modprobe has left.
    pub fn with_journal(mut self, state: &Path) -> Report {
        let bytes = fs::read(state.join(JOURNAL)).unwrap_or_default();
        let text = String::from_utf8_lossy(bytes.get(..LONGEST_JOURNAL).unwrap_or(&bytes));
        for other in text.lines().filter_map(|line| serde_json::from_str::<Report>(line).ok()) {
            let new = |refused: &Refused| !self.refused.contains(refused);
            self.refused.extend(other.refused.into_iter().filter(new).collect::<Vec<_>>());
            self.loaded.extend(other.loaded);
            self.blacklisted.extend(other.blacklisted);
            self.remarks.extend(other.remarks);
            for stuck in other.stuck {
                // It was stuck then; it may have come to an end, or be known already.
                let known = self.stuck.iter().any(|known| known.name == stuck.name);
                if !known && !self.loaded.contains(&stuck.name) {
                    self.stuck.push(stuck);
                }
            }
            for missing in other.missing {
                if !self.missing.contains(&missing) {
                    self.missing.push(missing);
                }
            }
        }
        self
    }

    /// Says in the log what was missing and what hangs.
    pub fn say(&self) {
        for Stuck { name, seconds } in &self.stuck {
            warn!("module {name} is still starting, after {seconds} s");
        }
        let (devices, others): (Vec<&Missing>, Vec<&Missing>) =
            self.missing.iter().partition(|missing| missing.asked_by.starts_with("/sys/devices/"));
        for Missing { request, asked_by } in others.into_iter().take(LINES) {
            info!("this image lacks {request}, asked for by {asked_by}");
        }
        // Most devices are of no use here, and many have no driver in any kernel.
        if !devices.is_empty() {
            let aliases: Vec<&str> = devices.iter().map(|missing| missing.request.as_str()).collect();
            info!("{} kinds of devices found no module in this image: {}", devices.len(), aliases.join(" "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_modprobe_leaves_is_added_once() {
        let state = tempfile::tempdir().unwrap();
        let missing = Missing { request: "fs-x".to_owned(), asked_by: "the kernel".to_owned() };
        let stuck = |seconds| vec![Stuck { name: "hang".into(), seconds }];
        let report =
            Report { loaded: vec!["xfs".into()], missing: vec![missing.clone()], stuck: stuck(6), ..Report::default() };
        report.append(state.path());
        Report { missing: vec![missing.clone()], ..Report::default() }.append(state.path());
        fs::OpenOptions::new().append(true).open(state.path().join(JOURNAL)).unwrap().write_all(b"{torn").unwrap();
        let own = Report { loaded: vec!["ext4".into()], stuck: stuck(15), ..Report::default() };
        let all = own.with_journal(state.path());
        assert_eq!(all.loaded, ["ext4".into(), "xfs".into()]);
        assert_eq!(all.missing, [missing]);
        assert_eq!(all.stuck, stuck(15));
    }
}
