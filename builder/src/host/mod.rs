//! The machine that an image is for: its kernel, its files below a sysroot, and where its devices hang.
//!
//! In: `--kver`, `--sysroot`, `--modules-dir`. Out: [`SystemHost`], which the hooks ask through [`Host`]. Devices are
//! only looked for where they mean something: on this machine, or in a sysroot that brings a `sys` of its own. For any
//! other machine the answer is "not here", and the image gets the drivers of most machines.

pub mod kernel;
pub mod mounts;
pub mod sysfs;
pub mod tree;
pub mod watchdog;

pub use kernel::Kernel;
pub use tree::Tree;

use kdump_hooks::kmod::Index;
use kdump_hooks::{DeviceSpec, Host};
use std::path::Path;

/// A machine as its files describe it.
#[derive(Debug)]
pub struct SystemHost {
    /// The files of the machine.
    pub tree: Tree,
    /// The kernel that the image is for.
    pub kernel: Kernel,
    /// Whether devices of the machine can be looked at.
    pub devices_are_here: bool,
    index: Index,
}

impl SystemHost {
    /// Reads the module indexes of `kernel`.
    ///
    /// # Errors
    /// There are none.
    pub fn new(tree: Tree, kernel: Kernel) -> anyhow::Result<Self> {
        let index = Index::read(&kernel.modules_dir)?;
        let own_sys = !tree.is_this_machine() && tree.path("sys/class/block").is_dir();
        let devices_are_here = own_sys || (tree.is_this_machine() && kernel.is_of_this_machine);
        Ok(SystemHost { tree, kernel, devices_are_here, index })
    }
}

impl Host for SystemHost {
    fn index(&self) -> &Index {
        &self.index
    }

    fn device_chain(&self, device: &DeviceSpec) -> anyhow::Result<Option<Vec<String>>> {
        if !self.devices_are_here {
            return Ok(None);
        }
        match sysfs::block_name(&self.tree, device) {
            Some(name) => sysfs::chain(&self.tree, &name),
            None => Ok(None),
        }
    }

    fn has_file(&self, path: &Path) -> bool {
        self.tree.resolve(path).is_ok_and(|file| file.is_file())
    }
}
