//! What the builder knows of the machine that an image is for, and what a hook asks it to put in.

use crate::device::DeviceSpec;
use crate::kmod::Index;

/// The machine that an image is built for. `builder` reads a real one; [`crate::fake::FakeHost`] describes any other.
pub trait Host {
    /// The module indexes of the kernel that the image is for.
    fn index(&self) -> &Index;

    /// The modaliases and driver modules between `device` and the root of its bus, device first, as sysfs has them.
    /// `None` if the device is not on this machine, so that nothing can be said of it.
    ///
    /// # Errors
    /// The device is there but its place in sysfs cannot be read.
    fn device_chain(&self, device: &DeviceSpec) -> anyhow::Result<Option<Vec<String>>>;
}

/// What a hook wants in the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contribution {
    /// Kernel modules.
    pub modules: Vec<ModuleNeed>,
}

/// A module that must be in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleNeed {
    /// A module name or an alias.
    pub request: String,
    /// Why, in a few words that complete "is in the image: …".
    pub reason: String,
    /// Whether the image is useless without it. One that is not required and not found is left out.
    pub required: bool,
    /// Whether init loads it only because a device asks for it, so that a blacklist would keep it out.
    pub by_device: bool,
}
