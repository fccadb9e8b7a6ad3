//! The far side, whatever it speaks: the few things that a dump needs there.

use std::io;

/// Whether a directory was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It is new.
    New,
    /// Something has that name already.
    Taken,
}

/// A far side that is logged in to. Paths are absolute, and have no control characters in them.
pub trait Far {
    /// Makes one directory, for nobody but its owner where the far side knows such things.
    ///
    /// # Errors
    /// It cannot be made, and nothing has that name.
    fn mkdir(&mut self, path: &str) -> anyhow::Result<Made>;

    /// Begins a file, in the place of one that may be there.
    ///
    /// # Errors
    /// It cannot be written.
    fn create(&mut self, path: &str) -> anyhow::Result<Box<dyn FarFile + '_>>;

    /// Gives a file its final name, in the place of one that may be there.
    ///
    /// # Errors
    /// The far side's refusal.
    fn rename(&mut self, from: &str, to: &str) -> anyhow::Result<()>;

    /// The length of a file, if the far side can tell.
    ///
    /// # Errors
    /// The connection is gone.
    fn size(&mut self, path: &str) -> anyhow::Result<Option<u64>>;

    /// Whether its files can be written at any position, and read back.
    fn is_positioned(&self) -> bool {
        false
    }

    /// Reads a file from its beginning to its end.
    ///
    /// # Errors
    /// It cannot be read back, or this far side cannot do it.
    fn read(&mut self, path: &str, _each: &mut dyn FnMut(&[u8])) -> anyhow::Result<()> {
        anyhow::bail!("cannot read {path} back: the protocol is not made for it")
    }
}

/// A file that is being written. One that is dropped without being closed is left as it is.
pub trait FarFile: Send {
    /// Sends some of `bytes`, as many as are sure to be accepted, or fails when nothing moves any more.
    ///
    /// # Errors
    /// The far side's refusal, or its silence.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Where the next bytes go.
    ///
    /// # Errors
    /// This far side only takes one byte after the other.
    fn seek(&mut self, _at: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Everything has been sent; gives back when the far side says that it has it all.
    ///
    /// # Errors
    /// It has not.
    fn close(self: Box<Self>) -> anyhow::Result<()>;
}
