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
