//! Everything that is done with one target.

use super::space::{self, Counted, Ground, Removals, SpaceReport};
use super::{
    Came, Collector, DumpDir, LOG, Patient, Place, Pstore, RawDevice, Sender, Story, VMCORE, notify, report_on,
    retention, save_environment_log,
};
use crate::beat::{Beat, Pulse};
use crate::rehearsal;
use crate::status::{self, Outcome};
use crate::within::{Late, within};
use anyhow::{Context, anyhow, bail};
use kdump_hooks::notify::{MARK, Notice};
use kdump_hooks::{Destination, Next, Stage, Target};
use log::{info, warn};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A local dump is named after this address, as kdump always has.
const LOCAL: &str = "127.0.0.1";

/// A file of any length is read back.
const ALL: u64 = u64::MAX;

impl Story<'_> {
    /// Opens a target, saves what there is, and lets go of it. After the last one, without a `next`, there is nothing else
    /// to tell of.
    pub(super) fn attempt(&mut self, target: &Target, next: Option<&Target>) -> anyhow::Result<Came> {
        self.run.target = Some(target.to_string());
        let mut place = self.open(target)?;
        let address = place.address();
        info!("writing to {address}");
        let came = match self.before() {
            Next::Stop(reason) => {
                warn!("no dump is taken: {reason}");
                self.run.status.outcome = Outcome::Failed;
                self.run.status.reason = Some(reason.clone());
                self.run.status.ending = Some(self.config.endings.after_dump());
                Ok(Came::Declined(reason))
            }
            Next::GoOn => self.save(target, &mut *place),
        };
        let ending = self.end(target, &came, next, &mut *place);
        (self.run.address, self.run.target) = (None, None);
        match (came, ending) {
            (Ok(Came::Complete), Ok(())) => {
                info!("dump complete: {address}");
                Ok(Came::Complete)
            }
            (Ok(Came::Declined(reason)), _) => Ok(Came::Declined(reason)),
            (Err(error), Err(also)) => Err(anyhow!("{error:#}; and {also:#}")),
            (came, ending) => ending.and(came),
        }
    }

    /// The place for the files of this dump.
    fn open(&mut self, target: &Target) -> anyhow::Result<Box<dyn Place>> {
        let (config, machine, hook) = (self.config, &mut *self.machine, target.hook());
        let device_limit = match target.device() {
            Some(_) => self.run.device_limit(config.limits.device()),
            None => config.limits.device(),
        };
        let mut place: Option<Box<dyn Place>> = None;
        self.run.stage(Stage::Target, config.limits.stage() + device_limit, |run| {
            let opened: anyhow::Result<Box<dyn Place>> = match hook.open(machine, device_limit)? {
                Destination::Directory(root) => {
                    let path = hook.path().or(config.hooks.path_of(target)).unwrap_or(&config.dump.path);
                    let root = run.places.root.join(relative(&root));
                    let client = hook.client(machine).map_or(LOCAL.to_owned(), |address| address.to_string());
                    Patient::create(root, relative(path), client, SystemTime::now(), config.limits.stall())
                        .map(|made| Box::new(made) as Box<dyn Place>)
                }
                Destination::Sender(command) => {
                    let client = hook.client(machine).map_or(LOCAL.to_owned(), |address| address.to_string());
                    let (stage, stall) = (config.limits.stage(), config.limits.stall());
                    Sender::create(command, &run.places.state, &client, SystemTime::now(), stage, stall)
                        .map(|made| Box::new(made) as Box<dyn Place>)
                }
                Destination::Pstore { backend, bytes } => {
                    Ok(Box::new(Pstore::new(backend, bytes, &run.places.root, &run.places.state)) as Box<dyn Place>)
                }
                Destination::Device { node, force } => {
                    let node = run.places.root.join(relative(&node));
                    RawDevice::begin(&node, force, &run.status.capture_kernel, SystemTime::now())
                        .map(|begun| Box::new(begun) as Box<dyn Place>)
                }
            };
            let opened = opened.inspect_err(|error| {
                // Whatever goes wrong after the target has been opened, it is let go.
                match error.downcast_ref::<Late>() {
                    Some(_) => machine.give_up(),
                    None => hook.close(machine).unwrap_or_else(|error| warn!("{error:#}")),
                }
            })?;
            run.address = Some(opened.address());
            place = Some(opened);
            Ok(())
        })?;
        place.context("no place for the dump")
    }

    /// Log, dump, and the hooks that act after them.
    fn save(&mut self, target: &Target, place: &mut dyn Place) -> anyhow::Result<Came> {
        let (stall, stage_limit) = (self.config.limits.stall(), self.config.limits.stage());
        // The log is worth having without the dump, and the dump without the log. Our own collector reads it, whatever
        // collects the dump.
        let ours = [self.run.places.collector.display().to_string(), "--dump-dmesg".to_owned()];
        let log = self.collect(Stage::Log, stage_limit, LOG, &ours, place);
        let log_only = self.config.dump.log_only;
        let (saved, failed_log) = match log_only {
            true => (log.map_err(|error| error.context("the log was not saved")), None),
            false => {
                let vmcore = self
                    .within_the_room(target, place)
                    .and_then(|theirs| self.collect(Stage::Vmcore, stall + stage_limit, VMCORE, &theirs, place));
                (vmcore.map_err(|error| error.context("the dump was not saved")), log.err())
            }
        };
        let status = &mut self.run.status;
        status.outcome = if log_only && saved.is_ok() { Outcome::Complete } else { place.outcome() };
        status.reason = saved.as_ref().err().or(failed_log.as_ref()).map(|error| format!("{error:#}"));

        let outcome = if saved.is_ok() { Outcome::Complete } else { status.outcome };
        let next = crate::run::act_knowing(self.run, self.config, Stage::Post, Some(outcome), self.machine);
        let came = match (saved, next) {
            (Ok(()), Next::GoOn) => Ok(Came::Complete),
            (Ok(()), Next::Stop(reason)) => {
                self.run.status.reason = Some(reason.clone());
                Ok(Came::Spoilt(reason))
            }
            (Err(error), _) => Err(error),
        };
        let endings = self.config.endings;
        self.run.status.ending = Some(match came {
            Ok(Came::Complete) => endings.after_dump(),
            _ => endings.failure_action,
        });
        came
    }

    /// The collector's command line with which the dump fits into `place`.
    fn within_the_room(&mut self, target: &Target, place: &dyn Place) -> anyhow::Result<Vec<String>> {
        let dump = &self.config.dump;
        let address = place.address();
        let (dir, room) = (address.directory(), place.room());
        if dir.is_none() && room.is_none() {
            return Ok(dump.collector.clone());
        }
        if place.is_lost() {
            bail!("{address} does not answer any more");
        }
        let limits = &self.config.limits;
        let mut command = Ok(dump.collector.clone());
        self.run.stage(Stage::Room, limits.stall() + limits.stage(), |run| {
            let vmcore = fs::metadata(&run.places.vmcore).map_or(0, |metadata| metadata.len());
            let keep = dump.keep.filter(|_| is_ours_alone(target));
            let mut ground = OnDisk {
                dir,
                room,
                free: dump.free,
                removals: dir.map_or_else(Removals::none, |dir| Removals::beside(dir, keep)),
                vmcore: &run.places.vmcore,
                report: &run.places.state.join("room-report.json"),
                stall: limits.stall(),
                pulse: &mut *run.pulse,
            };
            let mut report = SpaceReport::default();
            let decided = space::decide(dump, vmcore, &mut ground, &mut report);
            run.status.space = Some(report);
            decided.map(|words| command = Ok(words))
        })?;
        let Some(dir) = dir else { return command };
        let dir = DumpDir::existing(dir.to_owned());
        let reserved = within(limits.stall(), move || {
            dir.reserve();
            Ok(())
        });
        // The collector finds out soon enough.
        reserved.unwrap_or_else(|error| warn!("{address}: {error:#}"));
        command
    }

    /// One file that a collector writes.
    fn collect(
        &mut self,
        stage: Stage,
        limit: Duration,
        name: &str,
        command: &[String],
        place: &mut dyn Place,
    ) -> anyhow::Result<()> {
        let stall = self.config.limits.stall();
        self.run.stage(stage, limit, |run| {
            let report = run.places.state.join(format!("{stage}-report.json"));
            let collector = Collector { command, vmcore: &run.places.vmcore, report: &report, stall };
            let outcome = place.collect(name, &collector, &mut *run.pulse);
            let report = read_report(&report);
            match stage {
                Stage::Log => run.status.log = report,
                _ => run.status.vmcore = report,
            }
            outcome
        })
    }

    /// What is written last, whatever happened.
    fn end(
        &mut self,
        target: &Target,
        came: &anyhow::Result<Came>,
        next: Option<&Target>,
        place: &mut dyn Place,
    ) -> anyhow::Result<()> {
        let limit = self.config.limits.stage();
        let (config, last_words, machine) = (self.config, &mut *self.last_words, &mut *self.machine);
        let told = &mut self.told;
        self.run.stage(Stage::Ending, limit, |run| {
            last_words(&mut run.status);
            save_environment_log(place).unwrap_or_else(|error| warn!("{error:#}"));
            let pulse = &mut *run.pulse;
            if let (Outcome::Complete, Some(keep), Some(dir)) = (
                run.status.outcome,
                self.config.dump.keep.filter(|_| is_ours_alone(target)),
                place.address().directory(),
            ) {
                let removed = &mut run.status.space.get_or_insert_default().removed;
                retention::settle(dir, keep, removed, || pulse.beat(Beat::Still(limit)));
            }
            run.status.files = place.files(ALL, &mut || pulse.beat(Beat::Still(limit)));
            let mut status = run.status.clone();
            status.targets.push(report_on(target, came));
            status.next = next.filter(|_| came.is_err()).map(Target::to_string);
            // A disk that is too full for the status has the dump all the same.
            let written = place.write(status::FILE, &mut std::iter::once(status.json()));
            // Of a failure as well, if no target is left: the directory has who knows of it, and nobody is told twice.
            let is_time = match came {
                Ok(Came::Complete | Came::Spoilt(_)) => true,
                Ok(Came::Declined(_)) => false,
                Err(_) => next.is_none(),
            };
            let is_time = is_time && written.is_ok() && !place.is_lost();
            written.unwrap_or_else(|error| warn!("{error:#}"));
            rehearsal::tell(&status);
            if is_time {
                *told = true;
                status.notices = notify(run, config, machine, &status);
                if !status.notices.is_empty() {
                    let noted = place.replace(status::FILE, status.json());
                    noted.unwrap_or_else(|error| warn!("who has been told is not in {}: {error:#}", status::FILE));
                }
                if !status.notices.is_empty() && Notice::failures(&status.notices).is_none() {
                    let marked = place.write(MARK, &mut std::iter::empty());
                    marked.unwrap_or_else(|error| warn!("{error:#}"));
                }
            }
            match place.is_lost() {
                true => {
                    machine.give_up();
                    Ok(())
                }
                false => target.hook().close(machine),
            }
        })
    }
}

/// Whether all local dumps on it are of this machine: a share that several machines have tells them apart by addresses
/// at best, and an address may have been another machine's yesterday.
fn is_ours_alone(target: &Target) -> bool {
    target.device().is_some()
}

/// A target's directory, or a device, and our collector.
struct OnDisk<'a> {
    dir: Option<&'a Path>,
    /// What a device has.
    room: Option<u64>,
    free: u64,
    removals: Removals,
    vmcore: &'a Path,
    report: &'a Path,
    stall: Duration,
    pulse: &'a mut dyn Pulse,
}

impl Ground for OnDisk<'_> {
    fn room(&mut self) -> anyhow::Result<u64> {
        let Some(dir) = self.dir.map(Path::to_owned) else { return self.room.context("the device has no size") };
        let free = self.free;
        within(self.stall, move || space::room(&dir, free))
    }

    fn count(&mut self, command: &[String]) -> anyhow::Result<Counted> {
        let command: Vec<String> = command.iter().cloned().chain(["--dry-run".to_owned()]).collect();
        let collector = Collector { command: &command, vmcore: self.vmcore, report: self.report, stall: self.stall };
        // A dry run makes no file of that name.
        collector.into_file(&self.report.with_extension("none")).run(self.pulse)?;
        let report = read_report(self.report).context("it left no report")?;
        let text = |key: &str| report.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
        let number = |key: &str| report.get(key).and_then(serde_json::Value::as_u64);
        Ok(Counted {
            bytes: number("bytes").context("its report has no size")?,
            level: number("level").and_then(|level| level.try_into().ok()).context("its report has no level")?,
            zstd: text("codec") == "zstd",
            packable: text("format") != "elf",
        })
    }

    fn remove_one(&mut self) -> Option<String> {
        self.pulse.beat(Beat::Still(self.stall));
        self.removals.next()
    }
}

fn read_report(path: &Path) -> Option<serde_json::Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// A path without its leading `/`, so that it can stand below another.
fn relative(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}
