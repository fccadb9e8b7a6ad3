//! What an image holds besides what its target needs, as dracut's words and ours ask for it.

use super::Given;
use crate::cpio::write::Packing;
use std::path::PathBuf;

/// What is asked of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Modules that are in it if the kernel has them (`add_drivers`).
    pub add_drivers: Vec<Given<String>>,
    /// The same, loaded before any device is asked for its driver (`force_drivers`).
    pub force_drivers: Vec<Given<String>>,
    /// Modules that stay out of it, and what cannot do without them (`omit_drivers`).
    pub omit_drivers: Vec<Given<String>>,
    /// File systems whose modules are in it (`filesystems`).
    pub filesystems: Vec<Given<String>>,
    /// Programs and files that must be in it, by path or by name (`install_items`).
    pub install: Vec<Given<PathBuf>>,
    /// The same, if they are there (`install_optional_items`).
    pub install_optional: Vec<Given<PathBuf>>,
    /// Files and directories that are elsewhere in it (`include`).
    pub include: Vec<Given<Include>>,
    /// Further directories with firmware, looked at first (`fw_dir`).
    pub firmware: Vec<Given<PathBuf>>,
    /// The devices do without firmware that is missing. A word of ours.
    pub allow_missing_firmware: Option<Given<bool>>,
    /// How it is written, if not as suits the kernel best (`compress`).
    pub compress: Option<Given<Packing>>,
    /// `false`: for any machine, with the drivers of most, network cards among them if dumps leave it (`hostonly`).
    pub hostonly: Option<Given<bool>>,
    /// `false`: the watchdog of the running system is left alone (`--omit watchdog`).
    pub watchdog: Option<Given<bool>>,
    /// Keys and policy of IMA and EVM come along (`add_dracutmodules`: `integrity`, `masterkey`).
    pub integrity: Option<Given<bool>>,
    /// Certificates for modules come along (`modsign` there).
    pub modsign: Option<Given<bool>>,
}

impl Image {
    /// Adds the lists of another.
    pub(super) fn take_lists(&mut self, more: &mut Image) {
        self.add_drivers.append(&mut more.add_drivers);
        self.force_drivers.append(&mut more.force_drivers);
        self.omit_drivers.append(&mut more.omit_drivers);
        self.filesystems.append(&mut more.filesystems);
        self.install.append(&mut more.install);
        self.install_optional.append(&mut more.install_optional);
        self.include.append(&mut more.include);
        self.firmware.append(&mut more.firmware);
    }

    /// Takes the single values of another, which count, and none of its lists.
    pub(super) fn take_values(&mut self, more: Image) {
        let Image {
            add_drivers: _,
            force_drivers: _,
            omit_drivers: _,
            filesystems: _,
            install: _,
            install_optional: _,
            include: _,
            firmware: _,
            allow_missing_firmware,
            compress,
            hostonly,
            watchdog,
            integrity,
            modsign,
        } = more;
        self.allow_missing_firmware = allow_missing_firmware.or(self.allow_missing_firmware.take());
        self.compress = compress.or(self.compress.take());
        self.hostonly = hostonly.or(self.hostonly.take());
        self.watchdog = watchdog.or(self.watchdog.take());
        self.integrity = integrity.or(self.integrity.take());
        self.modsign = modsign.or(self.modsign.take());
    }
}

/// A file or a directory of the host, and where it is in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Include {
    /// On the host.
    pub from: PathBuf,
    /// In the image.
    pub to: PathBuf,
}

/// When an image is built again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebuild {
    /// At every start (`force_rebuild`).
    Always,
    /// At no start at which there is one that can be used (`force_no_rebuild`).
    Never,
}
