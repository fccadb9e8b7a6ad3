//! `kdumpctl reload`: the capture kernel anew, for memory or processors that have come or gone.
//!
//! In: what was loaded before, else what would be. Out: the same, with the headers of a dump that fit the machine again.
//! Nothing is built, and nothing is checked but whether there is to be one: udev may ask for it a hundred times.

use super::kernel::OnDisk;
use super::{Machine, kernel, load, start, status};
use crate::cli::Loading;
use crate::config::Config;
use std::ffi::CString;
use std::io::Write;
use std::process::ExitCode;

/// The exit if something else is under way: sysexits.h's EX_TEMPFAIL.
const BUSY: u8 = 75;

/// What can succeed when it is tried once more ends as that, so that kdump-hotplug.service knows what to try again.
pub(super) fn or_busy(result: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    match result {
        Err(error) if is_busy(&error) => {
            log::error!("{error:#}");
            Ok(ExitCode::from(BUSY))
        }
        result => result,
    }
}

fn is_busy(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    causes.any(|cause| cause.raw_os_error() == Some(libc::EBUSY))
}

/// Does it. The kernel replaces one by the other in one call, and has none only as long as that takes.
pub(super) fn run(machine: &Machine, how: &Loading, out: &mut dyn Write) -> anyhow::Result<()> {
    status::feasible(&machine.tree)?;
    status::may_load(&machine.tree)?;
    let config = Config::read(&machine.files);
    // What was loaded goes on to be, whatever has been written since, unless that is that nothing is to be.
    config.as_ref().map_or(Ok(()), start::switched_on)?;
    if let Some(loaded) = load::last(&machine.tree).filter(|loaded| loaded.kernel.is_file() && loaded.image.is_file()) {
        let disk = OnDisk { release: loaded.release, kernel: loaded.kernel, image: loaded.image };
        return load::put(machine, &disk, CString::new(loaded.cmdline)?, how, out);
    }
    let config = config?;
    let disk = kernel::find(&machine.tree, &config.system)?;
    load::check_image(&disk)?;
    load::run(machine, &disk, &config, how, out)
}
