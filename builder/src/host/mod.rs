//! The machine that an image is for: its kernel, its files below a sysroot, and where its devices hang.
//!
//! In: `--kver`, `--sysroot`, `--modules-dir`. Out: [`SystemHost`], which the hooks ask through [`Host`]. Devices are
//! only looked for where they mean something: on this machine, or in a sysroot that brings a `sys` of its own. For any
//! other machine the answer is "not here", and the image gets the drivers of most machines.

pub mod architecture;
pub mod crypttab;
pub mod kernel;
pub mod known_hosts;
pub mod luks;
pub mod mounts;
pub mod remote;
pub mod stack;
pub mod sysfs;
pub mod tree;
pub mod watchdog;

pub use kernel::Kernel;
pub use tree::Tree;

use anyhow::Context;
use kdump_hooks::kmod::Index;
use kdump_hooks::storage::{Crypt, Key, Layer};
use kdump_hooks::{DeviceSpec, Host};
use std::path::Path;

/// The MiB that a capture kernel takes before any volume is opened.
const ROOM_BESIDES: u64 = 80;

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

impl SystemHost {
    /// What has to be put together before `device` is there, lowest first; nothing, if it is not on this machine.
    ///
    /// # Errors
    /// It cannot be done in an image, or a fact or a key is missing.
    pub fn layers(&self, device: &DeviceSpec) -> anyhow::Result<Vec<Layer>> {
        let mut layers: Vec<Layer> = Vec::new();
        for name in self.names_of(device) {
            let found = stack::layers(&self.tree, &name)
                .with_context(|| format!("cannot put {device} together in the image"))?;
            layers.extend(found.into_iter().filter(|layer| !layers.contains(layer)).collect::<Vec<_>>());
        }
        Ok(layers)
    }

    /// Whether what is at work here shows what the image's kernel can do: it is the kernel that is running.
    pub fn is_running(&self) -> bool {
        self.tree.is_this_machine()
            && kernel::running_release(&self.tree).is_ok_and(|running| running == self.kernel.release)
    }

    /// What should be known of the layers, though it stops nothing.
    pub fn warnings_of(&self, layers: &[Layer]) -> Vec<String> {
        let reserved = self.tree.line("sys/kernel/kexec_crash_size").and_then(|bytes| bytes.parse::<u64>().ok());
        let mut warnings = Vec::new();
        for layer in layers {
            let Layer::Crypt(Crypt { name, key: Key::File { .. }, .. }) = layer else { continue };
            let opened = self.names_of(&DeviceSpec::Path(Path::new("/dev/mapper").join(name)));
            let volumes = opened.iter().flat_map(|name| stack::below(&self.tree, name));
            let nodes = volumes.map(|name| self.tree.path("dev").join(name));
            let needed = nodes.filter_map(|node| luks::memory(&node)).max().unwrap_or(0) / 1024;
            let reserved = reserved.unwrap_or(0) / (1 << 20);
            if needed > 0 && needed + ROOM_BESIDES > reserved {
                warnings.push(format!(
                    "opening {name} takes {needed} MiB of memory, and crashkernel= reserves {reserved} MiB; give its key \
                     slots less with `cryptsetup luksConvertKey --pbkdf pbkdf2`"
                ));
            }
        }
        warnings
    }

    fn names_of(&self, device: &DeviceSpec) -> Vec<String> {
        if self.devices_are_here { sysfs::block_names(&self.tree, device) } else { Vec::new() }
    }
}

impl Host for SystemHost {
    fn index(&self) -> &Index {
        &self.index
    }

    fn device_chain(&self, device: &DeviceSpec) -> anyhow::Result<Option<Vec<String>>> {
        let mut all: Option<Vec<String>> = None;
        for name in self.names_of(device) {
            for disk in stack::disks(&self.tree, &name) {
                let Some(chain) = sysfs::chain(&self.tree, &disk) else { continue };
                let all = all.get_or_insert_default();
                let new: Vec<String> = chain.into_iter().filter(|request| !all.contains(request)).collect();
                all.extend(new);
            }
        }
        Ok(all)
    }

    fn read(&self, path: &Path) -> anyhow::Result<Vec<u8>> {
        self.tree.read(path)
    }

    fn interface_chain(&self, name: &str) -> anyhow::Result<Option<Vec<String>>> {
        Ok(if self.devices_are_here { sysfs::card_chain(&self.tree, name) } else { None })
    }

    fn has_file(&self, path: &Path) -> bool {
        self.tree.resolve(path).is_ok_and(|file| file.is_file())
    }
}
