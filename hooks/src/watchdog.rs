//! The watchdog that the running system had at work: it still counts in the capture kernel, and resets the machine in the
//! middle of the dump if nobody tends it.
//!
//! *Into the image*: the drivers of every watchdog that was active when the image was built. *At boot*: they are loaded,
//! and PID 1 tends every watchdog that appears ([`Keeper`]), from then on and for as long as it may: once a limit of the
//! boot has passed without an ending, the watchdog is left to do what it is there for.
//! May surprise: opening a watchdog starts it, also one whose driver stopped it when it was loaded. That is wanted: from
//! then on it guards the capture kernel. A machine that is to halt would be reset by it, so that it is stopped then.

use crate::host::{Contribution, Host, ModuleNeed};
use crate::machine::Machine;
use crate::moment::{Moment, Next};
use crate::{Hook, Stage};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a watchdog is tended whose timeout nobody tells.
const USUAL_PACE: Duration = Duration::from_secs(1);
/// However long a timeout is, new watchdogs are looked for that often.
const SLOWEST_PACE: Duration = Duration::from_secs(5);
const FASTEST_PACE: Duration = Duration::from_millis(250);

/// The watchdogs of the running system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watchdog {
    /// Modaliases and driver modules, as the device chain of a disk has them.
    pub drivers: Vec<String>,
}

impl Hook for Watchdog {
    fn name(&self) -> &'static str {
        "watchdog"
    }

    fn gather(&self, _host: &dyn Host) -> anyhow::Result<Contribution> {
        let need = |request: &String| ModuleNeed {
            request: request.clone(),
            reason: "driver of the watchdog that is at work".to_owned(),
            required: false,
            by_device: true,
        };
        Ok(Contribution { modules: self.drivers.iter().map(need).collect(), ..Contribution::default() })
    }

    fn stages(&self) -> &'static [Stage] {
        &[Stage::Devices]
    }

    fn act(&self, _moment: &Moment, machine: &mut dyn Machine) -> anyhow::Result<Next> {
        // Most are loaded by their device already; those of a super I/O chip have none to announce them.
        for driver in self.drivers.iter().filter(|driver| !driver.contains(':')) {
            if let Err(error) = machine.load_module(driver) {
                log::warn!("the watchdog's driver: {error:#}");
            }
        }
        Ok(Next::GoOn)
    }
}

/// Tends every watchdog below a directory such as `/dev`.
#[derive(Debug)]
pub struct Keeper {
    dev: PathBuf,
    class: PathBuf,
    open: BTreeMap<String, File>,
    refused: BTreeMap<String, io::ErrorKind>,
}

impl Keeper {
    /// For the nodes in `dev` and what `class`, of sysfs, says of them.
    pub fn new(dev: &Path, class: &Path) -> Keeper {
        Keeper { dev: dev.to_owned(), class: class.to_owned(), open: BTreeMap::new(), refused: BTreeMap::new() }
    }

    /// Opens those that are new, and tells each that all is well.
    pub fn tend(&mut self) {
        let entries = fs::read_dir(&self.dev).into_iter().flatten().flatten();
        for name in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
            // `watchdog` without a number is the first one under its old name.
            let number = name.strip_prefix("watchdog").unwrap_or_default();
            if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) || self.open.contains_key(&name) {
                continue;
            }
            match OpenOptions::new().write(true).open(self.dev.join(&name)) {
                Ok(file) => {
                    log::info!("{name} ({}) is kept alive", self.says(&name, "identity").unwrap_or_default());
                    self.open.insert(name, file);
                }
                Err(error) => {
                    if self.refused.insert(name.clone(), error.kind()) != Some(error.kind()) {
                        log::warn!("cannot open {name}: {error}; it may reset the machine");
                    }
                }
            }
        }
        for file in self.open.values_mut() {
            // Any byte but the one that stops it.
            let _ = file.write_all(b"\0");
        }
    }

    /// How long to wait until the next time: at most half of the shortest timeout.
    pub fn pace(&self) -> Duration {
        let half = |name: &String| Some(Duration::from_secs(self.says(name, "timeout")?.parse().ok()?) / 2);
        let shortest = self.open.keys().map(|name| half(name).unwrap_or(USUAL_PACE)).min();
        shortest.unwrap_or(USUAL_PACE).clamp(FASTEST_PACE, SLOWEST_PACE)
    }

    /// Stops them, where their drivers let them be stopped.
    pub fn release(&mut self) {
        for (name, mut file) in std::mem::take(&mut self.open) {
            if let Err(error) = file.write_all(b"V") {
                log::warn!("cannot stop {name}: {error}");
            }
        }
    }

    fn says(&self, name: &str, attribute: &str) -> Option<String> {
        fs::read_to_string(self.class.join(name).join(attribute)).ok().map(|text| text.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeHost, FakeMachine};

    #[test]
    fn drivers_go_into_the_image_and_are_loaded_by_name() {
        let watchdog = Watchdog { drivers: vec!["pci:v8086d25AB".into(), "i6300esb".into()] };
        let requests: Vec<String> =
            watchdog.gather(&FakeHost::default()).unwrap().modules.into_iter().map(|need| need.request).collect();
        assert_eq!(requests, watchdog.drivers);
        let mut machine = FakeMachine::default();
        machine.missing_modules.insert("i6300esb".into());
        let next = watchdog.act(&Moment::at(Stage::Devices, Duration::ZERO), &mut machine).unwrap();
        assert_eq!((next, machine.journal), (Next::GoOn, vec!["load i6300esb".to_owned()]));
    }

    #[test]
    fn every_numbered_watchdog_is_tended_as_it_appears_and_stopped_in_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let (dev, class) = (dir.path().join("dev"), dir.path().join("class"));
        fs::create_dir_all(&dev).unwrap();
        fs::create_dir_all(class.join("watchdog0")).unwrap();
        fs::write(class.join("watchdog0/timeout"), "3\n").unwrap();
        for name in ["watchdog", "watchdog0", "watchdogs", "vda"] {
            fs::write(dev.join(name), "").unwrap();
        }
        let mut keeper = Keeper::new(&dev, &class);
        assert_eq!(keeper.pace(), USUAL_PACE);
        keeper.tend();
        assert_eq!(keeper.pace(), Duration::from_millis(1500));
        fs::write(dev.join("watchdog1"), "").unwrap();
        keeper.tend();
        assert_eq!(keeper.pace(), USUAL_PACE);
        keeper.release();
        let written = |name: &str| fs::read(dev.join(name)).unwrap();
        assert_eq!((written("watchdog0"), written("watchdog1")), (b"\0\0V".to_vec(), b"\0V".to_vec()));
        assert_eq!((written("watchdog"), written("watchdogs"), written("vda")), (vec![], vec![], vec![]));
    }

    #[test]
    fn what_cannot_be_opened_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("watchdog0")).unwrap();
        let mut keeper = Keeper::new(dir.path(), dir.path());
        keeper.tend();
        keeper.tend();
        assert_eq!(keeper.pace(), USUAL_PACE);
    }
}
