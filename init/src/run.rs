//! A boot under way: where things are, what is known so far, and the stages, each announced, timed and noted.
//!
//! May surprise: what a hook cannot do at a stage stops nothing; what is known is left for the aftermath at each step.

use crate::beat::{Beat, Pulse};
use crate::config::ImageConfig;
use crate::dump::Address;
use crate::status::{Legacy, Outcome, Status};
use crate::sys;
use anyhow::{Context, bail};
use kdump_hooks::{Machine, Moment, Next, Stage};
use log::{error, info, warn};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Where things are in the image.
#[derive(Clone, Debug)]
pub struct Places {
    /// In front of every destination; `/` but for tests.
    pub root: PathBuf,
    /// The old kernel's memory.
    pub vmcore: PathBuf,
    /// Our own collector.
    pub collector: PathBuf,
    /// For files that live as long as this boot.
    pub state: PathBuf,
}

impl Places {
    /// Those of every image.
    pub fn real() -> Places {
        Places {
            root: "/".into(),
            vmcore: "/proc/vmcore".into(),
            collector: "/usr/bin/kdump-capture".into(),
            state: "/run/kdump".into(),
        }
    }
}

/// How long devices are awaited once something below has failed: what does not depend on that has had its time.
const AFTER_A_LOSS: Duration = Duration::from_secs(15);

/// A boot under way.
#[derive(Debug)]
pub struct Run {
    /// What `status.json` will say.
    pub status: Status,
    /// Where things are.
    pub places: Places,
    /// What the supervisor hears.
    pub pulse: Box<dyn Pulse>,
    /// What hooks should have put together and could not, and why.
    pub lost: BTreeMap<String, String>,
    /// The target in hand.
    pub target: Option<String>,
    /// Where the files of the dump in hand appear.
    pub address: Option<Address>,
}

impl Run {
    /// One that has only begun.
    pub fn new(status: Status, places: Places, pulse: Box<dyn Pulse>) -> Run {
        Run { status, places, pulse, lost: BTreeMap::new(), target: None, address: None }
    }

    /// How long the device of a target is awaited.
    pub fn device_limit(&self, limit: Duration) -> Duration {
        if self.lost.is_empty() { limit } else { limit.min(AFTER_A_LOSS) }
    }

    /// How things stand.
    fn moment(&self, stage: Stage, limit: Duration, outcome: Option<Outcome>) -> Moment {
        Moment {
            kernel_release: self.status.capture_kernel.clone(),
            target: self.target.clone(),
            dump_dir: self.address.as_ref().and_then(Address::directory).map(Path::to_owned),
            outcome,
            reason: outcome.and(self.status.reason.clone()),
            ..Moment::at(stage, limit)
        }
    }

    /// Does one stage: announced, timed, noted.
    ///
    /// # Errors
    /// Those of the work.
    pub fn stage(
        &mut self,
        stage: Stage,
        limit: Duration,
        work: impl FnOnce(&mut Run) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.pulse.beat(Beat::Stage(stage.name().to_owned(), limit));
        self.leave_legacy(Some(stage));
        let start = Instant::now();
        let outcome = work(self);
        let took = start.elapsed();
        let available = sys::memory_available().unwrap_or_default();
        match &outcome {
            Ok(()) => info!("stage {stage} done in {:.2} s, {} MiB available", took.as_secs_f32(), available / 1024),
            Err(error) => error!("stage {stage} failed after {:.2} s: {error:#}", took.as_secs_f32()),
        }
        self.status.stage(stage, took, &outcome, available);
        self.leave_legacy(None);
        outcome
    }

    fn leave_legacy(&self, stage: Option<Stage>) {
        let legacy = Legacy {
            status: self.status.clone(),
            stage: stage.map(|stage| (stage.name().to_owned(), SystemTime::now())),
            target: self.target.clone(),
            address: self.address.clone(),
        };
        legacy.save(&self.places.state);
    }
}

/// Lets the hooks act that have something to do at `stage`; what one cannot do stops nothing.
pub fn act(run: &mut Run, config: &ImageConfig, stage: Stage, machine: &mut dyn Machine) -> Next {
    act_knowing(run, config, stage, None, machine)
}

/// As [`act`], when it is known how the dump came out. The first reason to stop is the one that counts.
pub fn act_knowing(
    run: &mut Run,
    config: &ImageConfig,
    stage: Stage,
    outcome: Option<Outcome>,
    machine: &mut dyn Machine,
) -> Next {
    // What waits for devices is not to wait longer than the target would.
    let waits = matches!(stage, Stage::Devices | Stage::Storage);
    let limit = if waits { config.limits.device() } else { config.limits.stage() };
    let moment = run.moment(stage, limit, outcome);
    let mut next = Next::GoOn;
    for hook in config.hooks.hooks().into_iter().filter(|hook| hook.stages().contains(&stage)) {
        let lost = run.lost.clone();
        let acted = run.stage(stage, limit + config.limits.stage(), |_| {
            let moment = Moment { limit: patience(hook.stands_on(), &lost, limit)?, ..moment.clone() };
            match hook.act(&moment, machine).context(hook.name())? {
                Next::Stop(reason) if next == Next::GoOn => {
                    next = Next::Stop(reason.clone());
                    bail!("{reason}")
                }
                _ => Ok(()),
            }
        });
        acted.unwrap_or_else(|error| {
            warn!("{error:#}");
            if let Some(node) = hook.makes() {
                run.lost.insert(node, format!("{error:#}"));
            }
        });
    }
    next
}

/// How long a hook may wait for the devices that it stands on.
///
/// # Errors
/// All of them are lost: why.
fn patience(on: &[String], lost: &BTreeMap<String, String>, limit: Duration) -> anyhow::Result<Duration> {
    let reasons: Vec<String> =
        on.iter().filter_map(|node| Some(format!("there is no {node}: {}", lost.get(node)?))).collect();
    match reasons.len() {
        0 => Ok(limit),
        all if all == on.len() => bail!("{}", reasons.join("; ")),
        _ => Ok(limit.min(AFTER_A_LOSS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kdump_hooks::fake::FakeMachine;

    const IMAGE: &str = r#"
        version = 1
        kernel_release = "6.1"
        built_by = "test"
        dump = { path = "/var/crash", collector = ["kdump-capture"] }
        endings = { failure_action = "reboot", final_action = "reboot" }
        limits = { device = 90 }

        [hooks]
        targets = []

        [[hooks.storage]]
        layer = "crypt"
        name = "secret"
        device = "UUID=1"
        key = { file = { path = "/root/key" } }
        on = ["/dev/sda"]

        [[hooks.storage]]
        layer = "lvm"
        group = "vg"
        volume = "a-b"
        physical = ["UUID=2"]
        on = ["/dev/mapper/secret"]

        [[hooks.storage]]
        layer = "mdraid"
        name = "md0"
        members = "UUID=3"
        count = 2
        level = "raid1"
        on = ["/dev/mapper/vg-a--b", "/dev/sdb"]

        [[hooks.storage]]
        layer = "crypt"
        name = "other"
        device = "UUID=4"
        key = { file = { path = "/root/other" } }
        on = ["/dev/sdc"]
    "#;

    #[test]
    fn a_layer_on_nothing_but_lost_ones_fails_at_once_for_their_reason_and_no_other_waits_in_vain() {
        let config = ImageConfig::parse(IMAGE).unwrap();
        let state = tempfile::tempdir().unwrap();
        let places = Places { state: state.path().to_owned(), ..Places::real() };
        let mut run = Run::new(Status::new("6.1".into()), places, Box::<Vec<Beat>>::default());
        let mut machine = FakeMachine::default();
        assert_eq!(run.device_limit(config.limits.device()), Duration::from_secs(90));
        act(&mut run, &config, Stage::Devices, &mut machine);
        let waits: Vec<_> = machine.journal.iter().filter(|line| line.starts_with("wait ")).collect();
        // Half of the array is on a disk of its own, and another chain has nothing to do with all that.
        assert_eq!(waits, ["wait UUID=1 90s", "wait 1 of UUID=3 15s", "wait UUID=4 90s"]);
        let lost = &run.lost["/dev/mapper/vg-a--b"];
        assert!(lost.starts_with("there is no /dev/mapper/secret: crypt: cannot open"), "{lost}");
        assert_eq!(run.device_limit(config.limits.device()), AFTER_A_LOSS);
    }
}
