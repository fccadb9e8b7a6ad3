//! Where a dump goes. In: bytes and their position. Out: a file.
//! May surprise: nothing is fsynced here. Whoever started the program syncs the file, renames it and syncs the
//! directory (contract 3 of the design), and must do so before trusting the dump.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::error::Error;
use crate::units::{FileOffset, to_usize};

/// A place that takes bytes at any position.
pub trait Output: Sync {
    /// Writes some of `bytes` at `at`; returns how many.
    fn write_at(&self, at: FileOffset, bytes: &[u8]) -> io::Result<usize>;

    /// Makes the first `len` bytes exist, as zeros; takes space on the disk for them where it can.
    fn reserve(&self, len: u64) -> io::Result<()>;

    /// Whether it takes one piece after the other anyway, so that pieces had better come in order.
    fn in_order(&self) -> bool {
        false
    }

    /// What came so far goes out before what will come.
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    /// Nothing more will come.
    fn finish(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes all of `bytes`; on error also says how many went out before it.
pub fn write_all(out: &dyn Output, at: FileOffset, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut done = 0;
    while done < bytes.len() {
        match out.write_at(FileOffset(at.0 + done as u64), &bytes[done..]) {
            Ok(0) => return (done, Err(io::ErrorKind::WriteZero.into())),
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return (done, Err(e)),
        }
    }
    (done, Ok(()))
}

/// Creates `path`, readable by its owner only, since it will hold a machine's memory. An existing file is refused
/// unless `force`, and one of `sources`, which are still to be read, in any case.
pub fn create(path: &Path, force: bool, sources: &[&Path]) -> Result<File, Error> {
    let fail = |remedy, source| Error::CreateOutput { path: path.into(), remedy, source };
    if sources.iter().any(|source| is_same_file(source, path)) {
        return Err(fail(" (give another name)", io::Error::other("it is what is to be read")));
    }
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600).create(true).truncate(true);
    if !force {
        options.create_new(true);
    }
    let file = options.open(path).map_err(|e| {
        let remedy = if e.kind() == io::ErrorKind::AlreadyExists { " (-f overwrites it)" } else { "" };
        fail(remedy, e)
    })?;
    let meta = file.metadata().map_err(|e| fail("", e))?;
    if meta.file_type().is_block_device() {
        let source = io::Error::other("it is a block device, where holes would keep what was there before");
        return Err(fail(" (give a file on a file system)", source));
    }
    if meta.is_file() {
        file.set_permissions(Permissions::from_mode(0o600)).map_err(|e| fail("", e))?;
    }
    Ok(file)
}

/// An output that is full at a number of bytes, like a disk of that size.
pub struct Limited<'a> {
    out: &'a dyn Output,
    limit: u64,
}

impl std::fmt::Debug for Limited<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limited").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl<'a> Limited<'a> {
    /// `out`, up to `limit` bytes.
    pub fn new(out: &'a dyn Output, limit: u64) -> Self {
        Limited { out, limit }
    }

    fn full(&self) -> io::Error {
        io::Error::new(io::ErrorKind::StorageFull, format!("the size limit of {} bytes is reached", self.limit))
    }
}

impl Output for Limited<'_> {
    fn write_at(&self, at: FileOffset, bytes: &[u8]) -> io::Result<usize> {
        let room = to_usize(self.limit.saturating_sub(at.0)).unwrap_or(usize::MAX).min(bytes.len());
        if room == 0 && !bytes.is_empty() { Err(self.full()) } else { self.out.write_at(at, &bytes[..room]) }
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        if len > self.limit { Err(self.full()) } else { self.out.reserve(len) }
    }

    fn in_order(&self) -> bool {
        self.out.in_order()
    }

    fn flush(&self) -> io::Result<()> {
        self.out.flush()
    }

    fn finish(&self) -> io::Result<()> {
        self.out.finish()
    }
}

/// Takes everything and keeps nothing: where a dry run writes to.
#[derive(Debug)]
pub struct Nowhere;

impl Output for Nowhere {
    fn write_at(&self, _at: FileOffset, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn reserve(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    place(one).is_some_and(|one| place(other) == Some(one))
}

impl Output for File {
    fn write_at(&self, at: FileOffset, bytes: &[u8]) -> io::Result<usize> {
        FileExt::write_at(self, bytes, at.0)
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        if !self.metadata()?.is_file() {
            return Ok(());
        }
        let length = i64::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        match fallocate(self, FallocateFlags::empty(), 0, length) {
            Ok(()) => Ok(()),
            Err(Errno::ENOSPC) => Err(Errno::ENOSPC.into()),
            // File systems that cannot reserve still make a file of zeros that long.
            Err(_) => self.set_len(len),
        }
    }
}
