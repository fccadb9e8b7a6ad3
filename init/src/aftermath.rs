//! Saves what is left to save after the worker died or hung: its status, the log of the capture environment, and the
//! file system from being left dirty. PID 1 gives it a limited time.

use crate::boot::{self, Places};
use crate::dump_dir::DumpDir;
use crate::kmsg;
use crate::status::{self, Legacy, Outcome};
use crate::sys;
use log::{error, info, warn};
use std::path::Path;
use std::process::ExitCode;

/// How PID 1 calls it.
pub const ROLE: &str = "aftermath";

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
    status.outcome = Outcome::Failed;
    status.reason = Some(reason.to_owned());
    info!("saving the status to {}", dump_dir.path().display());
    if let Err(error) = boot::save_environment_log(&dump_dir) {
        warn!("{error:#}");
    }
    if let Err(error) = dump_dir.write(status::FILE, &status.json()) {
        error!("{error:#}");
    }
}
