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

/// A boot under way.
#[derive(Debug)]
pub struct Run {
    /// What `status.json` will say.
    pub status: Status,
    /// Where things are.
    pub places: Places,
    /// What the supervisor hears.
    pub pulse: Box<dyn Pulse>,
    /// The target in hand.
    pub target: Option<String>,
    /// Where the files of the dump in hand appear.
    pub address: Option<Address>,
}

impl Run {
    /// One that has only begun.
    pub fn new(status: Status, places: Places, pulse: Box<dyn Pulse>) -> Run {
        Run { status, places, pulse, target: None, address: None }
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
    let limit = if stage == Stage::Devices { config.limits.device() } else { config.limits.stage() };
    let moment = run.moment(stage, limit, outcome);
    let mut next = Next::GoOn;
    for hook in config.hooks.hooks().into_iter().filter(|hook| hook.stages().contains(&stage)) {
        let acted = run.stage(stage, limit + config.limits.stage(), |_| {
            match hook.act(&moment, machine).context(hook.name())? {
                Next::Stop(reason) if next == Next::GoOn => {
                    next = Next::Stop(reason.clone());
                    bail!("{reason}")
                }
                _ => Ok(()),
            }
        });
        acted.unwrap_or_else(|error| warn!("{error:#}"));
    }
    next
}
