//! What the builder knows of the machine that an image is for, and what a hook asks it to put in.

use crate::device::DeviceSpec;
use crate::kmod::Index;
use std::path::{Path, PathBuf};

/// The machine that an image is built for. `builder` reads a real one; [`crate::fake::FakeHost`] describes any other.
pub trait Host {
    /// The module indexes of the kernel that the image is for.
    fn index(&self) -> &Index;

    /// The modaliases and driver modules between `device` and the root of its bus, device first, as sysfs has them; of a
    /// device that is made of others, those of all the disks below.
    /// `None` if the device is not on this machine, so that nothing can be said of it.
    ///
    /// # Errors
    /// The device is there but its place in sysfs cannot be read.
    fn device_chain(&self, device: &DeviceSpec) -> anyhow::Result<Option<Vec<String>>>;

    /// A file of the machine, such as a key.
    ///
    /// # Errors
    /// It is not there or cannot be read.
    fn read(&self, path: &Path) -> anyhow::Result<Vec<u8>>;

    /// As [`Host::device_chain`], for the network card that this machine calls `name`.
    ///
    /// # Errors
    /// The card is there but its place in sysfs cannot be read.
    fn interface_chain(&self, name: &str) -> anyhow::Result<Option<Vec<String>>>;

    /// Whether the machine has a file at that absolute path.
    fn has_file(&self, path: &Path) -> bool;
}

/// What a hook wants in the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contribution {
    /// Kernel modules.
    pub modules: Vec<ModuleNeed>,
    /// Programs of the host, which come with the libraries or the interpreter that they need.
    pub programs: Vec<ProgramNeed>,
    /// Files that a hook makes itself.
    pub files: Vec<FileNeed>,
    /// Programs of ours that not every image has, each with its reason.
    pub ours: Vec<(&'static str, String)>,
}

/// A program or another file of the host that must be in the image, at the same path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramNeed {
    /// Where it may be, the first that is there is taken.
    pub paths: Vec<PathBuf>,
    /// Why, in a few words that complete "is in the image: …".
    pub reason: String,
    /// Whether the image is useless without it.
    pub required: bool,
}

/// A file that is not on the host, or not as the image needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileNeed {
    /// Where it is in the image.
    pub path: PathBuf,
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Whether nobody but root may read it; an image with a secret in it is readable by root alone, too.
    pub secret: bool,
    /// Why, in a few words.
    pub reason: String,
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
