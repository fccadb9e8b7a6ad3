//! Loading modules.
//!
//! ```text
//!   coldplug, uevents ─▶ request(alias) ─▶ queue ─▶ workers ─┐
//!   hooks             ─▶ load(name), waits ──────────────────┴▶ kmod::plan ─▶ ensure each step, once ─▶ Modules::insert
//! ```
//!
//! A request takes its steps one after the other; requests run side by side. A driver that hangs while it starts holds
//! those who need it, and a worker for as long as a driver may take (`limits.driver` of the image configuration).

mod loader;
mod report;

pub use kdump_hooks::kernel::Refusal;
pub use loader::Loader;
pub use report::{Missing, Refused, Report, Stuck};

use kdump_hooks::cmdline::Cmdline;
use kdump_hooks::kmod::{ModuleName, load_list};
use log::warn;
use std::fmt;
use std::path::Path;

/// The kernel as the loader sees it.
pub trait Modules: fmt::Debug + Send + Sync {
    /// Whether the module is loaded or built in.
    fn is_there(&self, name: &ModuleName) -> bool;

    /// Inserts the module in `file`, and says what the kernel remarked, such as a parameter that it ignores. One that is
    /// there already is a success.
    ///
    /// # Errors
    /// Why the kernel refused it.
    fn insert(&self, name: &ModuleName, file: &Path, parameters: &str) -> Result<Vec<String>, Refusal>;
}

/// Says what is wrong with the indexes and with modprobe.d.
pub fn complain(loader: &Loader) {
    loader.index().problems.iter().for_each(|problem| warn!("{problem}"));
    for warning in loader.config().warnings.iter().cloned().chain(loader.config().foreign_installs()) {
        warn!("{}: {}", warning.place, warning.problem);
    }
}

/// Asks for what no device asks for: `rd.driver.pre=`, then modules-load.d.
pub fn load_without_devices(loader: &Loader, cmdline: &Cmdline) {
    for name in loader.config().load_first() {
        loader.request(name, "rd.driver.pre=");
    }
    match load_list(Path::new("/"), cmdline) {
        Ok(list) => list.iter().for_each(|listed| loader.request(&listed.request, &listed.origin)),
        Err(error) => warn!("{error:#}"),
    }
}

/// Asks for what is to come after everything else: `rd.driver.post=`.
pub fn load_last(loader: &Loader) {
    for name in loader.config().load_last() {
        loader.request(name, "rd.driver.post=");
    }
}
