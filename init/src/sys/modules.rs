//! The modules of the running kernel.

use crate::modules::{Modules, Refusal};
use kdump_hooks::kernel;
use kdump_hooks::kmod::ModuleName;
use std::path::Path;

/// The modules of the running kernel.
#[derive(Clone, Copy, Debug)]
pub struct LinuxModules;

impl Modules for LinuxModules {
    fn is_there(&self, name: &ModuleName) -> bool {
        kernel::is_there(name)
    }

    fn insert(&self, name: &ModuleName, file: &Path, parameters: &str) -> Result<Vec<String>, Refusal> {
        kernel::insert(name, file, parameters)
    }
}
