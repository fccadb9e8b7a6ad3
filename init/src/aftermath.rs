//! Saves what is left to save after the worker died or hung: its status, the log of the capture environment, and the
//! file system from being left dirty; then the emergency programs run, if they have not. PID 1 gives it a limited time.

use crate::config::{self, ImageConfig};
use crate::dump::{self, Address};
use crate::run::Places;
use crate::status::{self, Legacy, StageReport, TargetReport};
use crate::within::within;
use crate::{kmsg, program, sys};
use kdump_hooks::{Moment, Outcome, Program, Stage};
use log::{error, info, warn};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// How PID 1 calls it.
pub const ROLE: &str = "aftermath";

/// Larger files are not read back: the time is limited.
const MOST: u64 = 64 << 20;

/// For unmounting one target.
const UNMOUNT: Duration = Duration::from_secs(20);

/// Entry of the process.
pub fn main(reason: &str) -> ExitCode {
    kmsg::install();
    sys::spare_this_process();
    let places = Places::real();
    let Some(legacy) = Legacy::load(&places.state) else {
        warn!("the worker left nothing behind");
        emergency(reason, None);
        return ExitCode::FAILURE;
    };
    let begun = legacy.stage.iter().map(|(stage, _)| stage).chain(legacy.status.stages.iter().map(|stage| &stage.name));
    let emergency_begun = begun.into_iter().any(|stage| stage == Stage::Emergency.name());
    let kernel_release = legacy.status.capture_kernel.clone();
    if let Some(address) = legacy.address.clone() {
        save(legacy, address, reason);
    }
    for point in sys::targets() {
        if let Err(error) = within(UNMOUNT, move || sys::unmount(&point)) {
            warn!("{error:#}");
        }
    }
    if !emergency_begun {
        emergency(reason, Some(kernel_release));
    }
    ExitCode::SUCCESS
}

/// Runs the administrator's programs for an emergency.
fn emergency(reason: &str, kernel_release: Option<String>) {
    let Ok(config) = ImageConfig::read(Path::new(config::PATH)) else { return };
    let moment = Moment {
        kernel_release: kernel_release.unwrap_or(config.kernel_release),
        outcome: Some(Outcome::Failed),
        reason: Some(reason.to_owned()),
        ..Moment::at(Stage::Emergency, config.limits.stage())
    };
    for Program { argv, env, limit } in config.hooks.user.programs(&moment) {
        let late = |life: program::Life| (life.age > limit).then(|| "its time was over".to_owned());
        match program::run(&argv, &env, &mut { late }) {
            Ok(ended) if ended.code() == 0 => {}
            Ok(ended) => warn!("{} ended with {}", argv.join(" "), ended.code()),
            Err(error) => warn!("{error:#}"),
        }
    }
}

/// Writes what the worker could not write any more.
fn save(legacy: Legacy, address: Address, reason: &str) {
    info!("saving the status to {address}");
    let mut place = address.place();
    let mut status = legacy.status;
    status.outcome = place.outcome();
    status.reason = Some(reason.to_owned());
    if let Some((stage, since)) = legacy.stage {
        let available = sys::memory_available().unwrap_or_default();
        status.stages.push(StageReport::new(&stage, since.elapsed().unwrap_or_default(), reason.to_owned(), available));
    }
    status.targets.extend(legacy.target.map(|target| TargetReport::new(target, Some(reason.to_owned()))));
    if let Err(error) = dump::save_environment_log(&mut *place) {
        warn!("{error:#}");
    }
    status.files = place.files(MOST, &mut || ());
    if let Err(error) = place.write(status::FILE, &mut std::iter::once(status.json())) {
        error!("{error:#}");
    }
}
