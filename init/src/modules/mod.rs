//! Loading modules.
//!
//! ```text
//!   coldplug, uevents ─▶ request(alias) ─▶ queue ─▶ workers ─┐
//!   hooks             ─▶ load(name), waits ──────────────────┴▶ kmod::plan ─▶ ensure each step, once ─▶ Modules::insert
//! ```
//!
//! A request takes its steps one after the other; requests run side by side. A driver that hangs while it starts holds
//! one worker and those who need it, nobody else.

mod loader;

pub use loader::{Loader, Report};

use kdump_hooks::kmod::ModuleName;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// The kernel as the loader sees it.
pub trait Modules: fmt::Debug + Send + Sync {
    /// Whether the module is loaded or built in.
    fn is_there(&self, name: &ModuleName) -> bool;

    /// Inserts the module in `file`. One that is there already is a success.
    ///
    /// # Errors
    /// Why the kernel refused it.
    fn insert(&self, name: &ModuleName, file: &Path, parameters: &str) -> Result<(), Refusal>;
}

/// A module that the kernel did not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The errno and what it means here.
    pub reason: String,
    /// The lines that the kernel logged meanwhile.
    pub kernel: Vec<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        if self.kernel.is_empty() { Ok(()) } else { write!(f, "; the kernel says: {}", self.kernel.join(" | ")) }
    }
}
