//! An opened target, as the files of one dump see it.

use super::collect::Collector;
use super::device::RawDevice;
use super::directory::DumpDir;
use super::pstore::Pstore;
use super::sender::Sender;
use crate::beat::Pulse;
use crate::status::{FileReport, Outcome};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// Where the files of one dump appear, one after the other. A file has its name only when it is whole and safe.
pub trait Place: fmt::Debug {
    /// What another process needs to go on with it.
    fn address(&self) -> Address;

    /// Bytes that the dump can have, where that is known and no file system has to be asked.
    fn room(&self) -> Option<u64> {
        None
    }

    /// Lets `collector` write the file `name`.
    ///
    /// # Errors
    /// The collector's failure, or why its work could not be kept. What there is of the file stays, and does not have
    /// its name.
    fn collect(&mut self, name: &str, collector: &Collector, pulse: &mut dyn Pulse) -> anyhow::Result<()>;

    /// Writes a file, piece by piece.
    ///
    /// # Errors
    /// It could not be written, flushed or renamed.
    fn write(&mut self, name: &str, pieces: &mut dyn Iterator<Item = Vec<u8>>) -> anyhow::Result<()>;

    /// Writes a file once more, in the place of what it was. Where that fails it stays what it was.
    ///
    /// # Errors
    /// As [`Place::write`]; or nothing can be written twice here.
    fn replace(&mut self, name: &str, text: Vec<u8>) -> anyhow::Result<()>;

    /// How much of the dump is there.
    fn outcome(&self) -> Outcome;

    /// The files so far, read back where the place can be read: not those longer than `most`. `tick` is called now and
    /// then.
    fn files(&self, most: u64, tick: &mut dyn FnMut()) -> Vec<FileReport>;

    /// Whether it does not answer any more, so that nothing may wait for it.
    fn is_lost(&self) -> bool {
        false
    }
}

/// What the aftermath needs to go on with a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Address {
    /// A directory below a mount point.
    Directory(PathBuf),
    /// A device without a file system.
    Device(PathBuf),
    /// The kernel log, the end of which this backend of pstore keeps.
    Pstore(String),
    /// A directory on another machine.
    Sent(Sender),
}

impl Address {
    /// The place again.
    pub fn place(self) -> Box<dyn Place> {
        match self {
            Address::Directory(path) => Box::new(DumpDir::existing(path)),
            Address::Device(node) => Box::new(RawDevice::existing(node)),
            Address::Pstore(backend) => Box::new(Pstore::existing(backend)),
            Address::Sent(sender) => Box::new(sender),
        }
    }

    /// The directory that programs can look into, if it is one.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Address::Directory(path) => Some(path),
            Address::Device(_) => None,
            Address::Pstore(_) | Address::Sent(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Directory(path) | Address::Device(path) => path.display().fmt(f),
            Address::Pstore(backend) => write!(f, "pstore ({backend})"),
            Address::Sent(sender) => sender.fmt(f),
        }
    }
}
