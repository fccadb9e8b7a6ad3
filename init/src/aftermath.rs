//! Saves what is left to save after the worker died or hung: its status, the log of the capture environment, and the
//! file system from being left dirty. PID 1 gives it a limited time.

use crate::boot::{self, Places};
use crate::dump_dir::DumpDir;
use crate::kmsg;
use crate::status::{self, Legacy, StageReport, TargetReport};
use crate::sys;
use log::{error, info, warn};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// How PID 1 calls it.
pub const ROLE: &str = "aftermath";

/// Larger files are not read back: the time is limited.
const MOST: u64 = 64 << 20;

/// Entry of the process.
pub fn main(reason: &str) -> ExitCode {
    kmsg::install();
    let places = Places::real();
    let Some(legacy) = Legacy::load(&places.state) else {
        warn!("the worker left nothing behind");
        return ExitCode::FAILURE;
    };
    if let Some(dump_dir) = legacy.dump_dir.clone() {
        save(legacy, DumpDir::existing(dump_dir), reason);
    }
    let point = Path::new(kdump_hooks::filesystem::MOUNT_POINT);
    if let Err(error) = sys::unmount(point) {
        warn!("{error:#}");
    }
    ExitCode::SUCCESS
}

/// Writes what the worker could not write any more.
fn save(legacy: Legacy, dump_dir: DumpDir, reason: &str) {
    let mut status = legacy.status;
    status.outcome = boot::outcome_on_disk(&dump_dir);
    status.reason = Some(reason.to_owned());
    if let Some((stage, since)) = legacy.stage {
        status.stages.push(StageReport::new(&stage, since.elapsed().unwrap_or_default(), reason.to_owned()));
    }
    status.targets.extend(legacy.target.map(|target| TargetReport::new(target, Some(reason.to_owned()))));
    info!("saving the status to {}", dump_dir.path().display());
    if let Err(error) = boot::save_environment_log(&dump_dir) {
        warn!("{error:#}");
    }
    status.files = boot::digests_up_to(&dump_dir, MOST, &mut Vec::new(), Duration::ZERO);
    if let Err(error) = dump_dir.write(status::FILE, &status.json()) {
        error!("{error:#}");
    }
}
