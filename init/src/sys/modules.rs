//! The modules of the running kernel.
//!
//! May surprise: the file of a module that is loaded is removed where it takes memory: a module is loaded once, and the
//! kernel has its own copy.

use crate::modules::{Modules, Refusal};
use kdump_hooks::kernel;
use kdump_hooks::kmod::ModuleName;
use std::fs;
use std::path::Path;

/// The modules of the running kernel.
#[derive(Clone, Copy, Debug)]
pub struct LinuxModules;

impl Modules for LinuxModules {
    fn is_there(&self, name: &ModuleName) -> bool {
        kernel::is_there(name)
    }

    fn insert(&self, name: &ModuleName, file: &Path, parameters: &str) -> Result<Vec<String>, Refusal> {
        match kernel::insert(name, file, parameters) {
            Ok(remarks) => {
                forget(file);
                Ok(remarks)
            }
            // Another process was faster: the kernel itself may have asked for it.
            Err(_) if !file.exists() && self.is_there(name) => Ok(Vec::new()),
            refused => refused,
        }
    }
}

/// Gives the memory of a file back that nobody will read again.
fn forget(file: &Path) {
    if super::is_in_memory(file)
        && let Err(error) = fs::remove_file(file)
    {
        log::debug!("cannot remove {}: {error}", file.display());
    }
}
