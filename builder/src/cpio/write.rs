//! Writes a plan as newc archives, the same bytes every time.
//!
//! Own inode numbers, owner 0:0, device 0:0, one time for all: nothing of the build machine gets in.
//!
//! ```text
//!   none:  [ everything ]
//!   zstd:  [ directories, what is compressed already ] [ zstd: the rest ]
//! ```
//!
//! What is compressed already, as modules of many distributions are, would not get smaller. The rest shrinks to a third,
//! and with it the copy of the image that lies in the reserved memory until it is unpacked. The window is small because
//! the unpacking kernel allocates it from the same memory.

use super::layout::{Header, TRAILER, padding};
use crate::host::kernel::Compression;
use crate::plan::{Entry, Kind, Plan};
use anyhow::{Context, bail};
use std::io::Write;

/// The kernel skips longer names without a word.
const MAX_NAME: usize = 4096;

/// Higher levels take several times as long for a hundredth of the size.
const LEVEL: i32 = 6;

/// 1 MiB, as a power of two.
const WINDOW: u32 = 20;

/// How an image is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Packing {
    /// One archive: nothing to unpack it with is needed, and the kernel only copies
    None,
    /// A plain archive with what is compressed already, and one compressed with zstd
    Zstd,
}

/// Writes all of `plan` with the modification time `mtime`.
///
/// # Errors
/// An entry does not fit the format, or `out` refuses.
pub fn write(plan: &Plan, mtime: u32, packing: Packing, out: &mut dyn Write) -> anyhow::Result<()> {
    let numbered = || (1..).zip(plan.entries());
    let stays = |entry: &Entry| match &entry.kind {
        Kind::Directory => true,
        Kind::File(bytes) => Compression::of(bytes).is_some(),
        Kind::Symlink(_) | Kind::CharDevice { .. } => false,
    };
    if packing == Packing::None {
        return archive(numbered(), mtime, out);
    }
    archive(numbered().filter(|(_, entry)| stays(entry)), mtime, out)?;
    let mut encoder = zstd::Encoder::new(out, LEVEL)?;
    encoder.window_log(WINDOW)?;
    archive(numbered().filter(|(_, entry)| !stays(entry)), mtime, &mut encoder)?;
    encoder.finish()?;
    Ok(())
}

fn archive<'a>(entries: impl Iterator<Item = (u32, &'a Entry)>, mtime: u32, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut archive = Archive { out, written: 0 };
    for (ino, entry) in entries {
        archive.entry(entry, ino, mtime).with_context(|| format!("cannot write /{}", entry.path))?;
    }
    archive.raw(&Header { nlink: 1, ..Header::default() }, TRAILER, &[])
}

struct Archive<'a> {
    out: &'a mut dyn Write,
    written: u64,
}

impl Archive<'_> {
    fn entry(&mut self, entry: &Entry, ino: u32, mtime: u32) -> anyhow::Result<()> {
        let plain = Header { ino, mtime, nlink: 1, ..Header::default() };
        let (header, data): (Header, &[u8]) = match &entry.kind {
            Kind::Directory => (Header { mode: libc::S_IFDIR, nlink: 2, ..plain }, &[]),
            Kind::File(bytes) => (Header { mode: libc::S_IFREG, ..plain }, bytes),
            Kind::Symlink(target) => (Header { mode: libc::S_IFLNK, ..plain }, target.as_bytes()),
            Kind::CharDevice { major, minor } => {
                (Header { mode: libc::S_IFCHR, rdevmajor: *major, rdevminor: *minor, ..plain }, &[])
            }
        };
        self.raw(&Header { mode: header.mode | entry.mode, ..header }, entry.path.as_bytes(), data)
    }

    fn raw(&mut self, header: &Header, name: &[u8], data: &[u8]) -> anyhow::Result<()> {
        if name.len() >= MAX_NAME || name.contains(&0) {
            bail!("the name is too long for the kernel or has a NUL in it");
        }
        let header = Header {
            filesize: u32::try_from(data.len()).context("it is larger than 4 GiB")?,
            namesize: u32::try_from(name.len() + 1)?,
            ..*header
        };
        self.bytes(header.encode().as_bytes())?;
        self.bytes(name)?;
        self.bytes(&[0])?;
        self.pad()?;
        self.bytes(data)?;
        self.pad()
    }

    fn bytes(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self) -> anyhow::Result<()> {
        let tail = usize::try_from(self.written % 4)?;
        self.bytes([0; 3].get(..padding(tail)).unwrap_or_default())
    }
}
