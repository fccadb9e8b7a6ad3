//! Physical memory as the rest of the crate sees it. In: an address and a length. Out: the bytes, in place where the
//! source allows.
//! May surprise: a page may lie in the source only in part (a PT_LOAD need not end on a page); [`Pages`] fills the
//! rest with zeros.

use std::io;

use crate::arch::Arch;
use crate::dumpfile::read::Source;
use crate::input::Storage;
use crate::units::{FileOffset, PageSize, Pfn, PhysAddr, to_usize};

use super::map::Window;
use super::segments::{PageRun, Segments};

/// Mapped at once by a reader. Mapping /proc/vmcore makes its page-table entries there and then, so the whole is never
/// mapped; 4 MiB is where the cost per page has become small (117 GiB/s, HATAYAMA 2013). Less is mapped where memory is
/// short: of a plain file, unlike /proc/vmcore, what is mapped counts as taken.
pub const WINDOW: usize = 4 << 20;

/// Where a window may begin: a multiple of the largest page size the kernel this runs under may have.
const WINDOW_ALIGN: u64 = 64 << 10;

/// The longest piece where it has to be copied.
const COPIED_RUN: usize = 64 << 10;

/// Why bytes could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The source does not hold that memory.
    #[error("physical memory at {0} is not in the dump")]
    Absent(PhysAddr),
    /// The source holds it but does not give it.
    #[error("unable to read physical memory at {at}")]
    Io {
        /// Where.
        at: PhysAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// The memory of the crashed machine: a file, or a fake made from a recipe.
pub trait PhysMem: Sync {
    /// The machine it comes from; `None` if this program knows too little of it to follow its page tables.
    fn arch(&self) -> Option<&'static Arch>;

    /// Which memory there is.
    fn segments(&self) -> &Segments;

    /// A reader for one worker.
    fn reader(&self) -> Box<dyn PhysReader + '_>;

    /// Readers made from now on map no more than `bytes` at once.
    fn map_at_most(&self, _bytes: usize) {}

    /// The bitmaps of a source that has them: its segments may then hold more pages than there are.
    fn bitmaps(&self) -> Option<&dyn Bitmaps> {
        None
    }

    /// A reader for small, scattered pieces (page tables): it copies and maps nothing.
    fn small_reader(&self) -> Box<dyn PhysReader + '_> {
        self.reader()
    }
}

/// Which pages the machine had, and which of them are there, one bit each. `each` takes blocks of bytes, in order, with
/// the position of each in the bitmap.
pub trait Bitmaps: Sync {
    /// Bitmap 1.
    fn present(&self, each: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()>;

    /// Bitmap 2, the part of it that has the pages of `window`.
    fn kept(&self, window: PageRun, each: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()>;
}

/// One worker's view of [`PhysMem`].
pub trait PhysReader {
    /// `len` bytes at `at`, all within one extent of the segments and no more than [`PhysReader::longest`].
    fn bytes(&mut self, at: PhysAddr, len: usize) -> Result<&[u8], ReadError>;

    /// The most bytes to ask for at once.
    fn longest(&self) -> usize;
}

/// Reads a vmcore file through a window, or by copying where mapping is refused.
#[derive(Debug)]
pub struct FileReader<'a> {
    file: &'a Storage,
    size: u64,
    segments: &'a Segments,
    /// Bytes of a window; 0 to copy.
    at_once: usize,
    window: Option<Window>,
    copy: Vec<u8>,
    copy_at: FileOffset,
}

impl<'a> FileReader<'a> {
    /// A reader of `file` (of `size` bytes); maps windows of `at_once` bytes, or copies if that is 0.
    pub fn new(file: &'a Storage, size: u64, segments: &'a Segments, at_once: usize) -> Self {
        FileReader { file, size, segments, at_once, window: None, copy: Vec::new(), copy_at: FileOffset(0) }
    }

    fn mapped(&mut self, offset: FileOffset, len: usize) -> io::Result<()> {
        let inside =
            |w: &Window| offset >= w.offset() && offset.0 + len as u64 <= w.offset().0 + w.bytes().len() as u64;
        if self.window.as_ref().is_some_and(inside) {
            return Ok(());
        }
        self.window = None;
        let file = self.file.plain().ok_or(io::ErrorKind::Unsupported)?;
        self.window = Some(Window::map(file, FileOffset(offset.0 & !(WINDOW_ALIGN - 1)), self.at_once, self.size)?);
        Ok(())
    }

    /// Copies a piece; small ones bring the rest of their 4 KiB along, since page tables are asked for again and again.
    fn copied(&mut self, offset: FileOffset, len: usize) -> io::Result<()> {
        let end = self.copy_at.0 + self.copy.len() as u64;
        if offset >= self.copy_at && offset.0 + len as u64 <= end {
            return Ok(());
        }
        let start = offset.0 & !4095;
        let wanted = (offset.0 + len as u64).next_multiple_of(4096).min(self.size).saturating_sub(start);
        self.copy.clear();
        self.copy.resize(to_usize(wanted).ok_or(io::ErrorKind::InvalidInput)?, 0);
        self.copy_at = FileOffset(start);
        let got = self.file.read_at(self.copy_at, &mut self.copy);
        self.copy.truncate(got.as_ref().map_or(0, |n| *n));
        got.map(|_| ())
    }
}

impl PhysReader for FileReader<'_> {
    fn bytes(&mut self, at: PhysAddr, len: usize) -> Result<&[u8], ReadError> {
        let (extent, offset) = self.segments.find(at).ok_or(ReadError::Absent(at))?;
        if len > self.longest() || (extent.end() - at.0) < len as u64 {
            return Err(ReadError::Absent(at));
        }
        if self.at_once > 0 && self.mapped(offset, len).is_err() {
            self.at_once = 0;
        }
        if self.at_once == 0 {
            self.copied(offset, len).map_err(|source| ReadError::Io { at, source })?;
        }
        let (base, bytes) = match &self.window {
            Some(window) if self.at_once > 0 => (window.offset(), window.bytes()),
            _ => (self.copy_at, self.copy.as_slice()),
        };
        let skip = to_usize(offset.0 - base.0).unwrap_or(usize::MAX);
        let wanted = bytes.get(skip..).and_then(|b| b.get(..len));
        wanted.ok_or_else(|| ReadError::Io { at, source: io::ErrorKind::UnexpectedEof.into() })
    }

    fn longest(&self) -> usize {
        // Half a window, so that it can begin where it must: one 2 MiB leaf of the largest.
        if self.at_once > 0 { self.at_once / 2 } else { COPIED_RUN }
    }
}

/// Whole pages, wherever their bytes come from.
pub struct Pages<'a> {
    reader: Box<dyn PhysReader + 'a>,
    segments: &'a Segments,
    size: PageSize,
    patched: Vec<u8>,
}

impl std::fmt::Debug for Pages<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").field("size", &self.size).finish_non_exhaustive()
    }
}

impl<'a> Pages<'a> {
    /// Pages of `size` bytes out of `mem`.
    pub fn new(mem: &'a dyn PhysMem, size: PageSize) -> Self {
        Pages { reader: mem.reader(), segments: mem.segments(), size, patched: Vec::new() }
    }

    /// Page `pfn`; bytes of it that the source does not hold are zero.
    pub fn page(&mut self, pfn: Pfn) -> Result<&[u8], ReadError> {
        let start = self.size.address(pfn).ok_or(ReadError::Absent(PhysAddr(u64::MAX)))?;
        let len = self.size.bytes();
        let whole = self.segments.find(start).is_some_and(|(e, _)| e.end() - start.0 >= len as u64);
        if whole {
            return self.reader.bytes(start, len);
        }
        self.patched.clear();
        self.patched.resize(len, 0);
        let (mut at, end, mut any) = (start, start.0 + len as u64, false);
        while let Some(extent) = self.segments.at_or_after(at).filter(|e| e.start.0 < end) {
            let from = extent.start.max(at);
            let to = extent.end().min(end);
            let piece = to_usize(to - from.0).unwrap_or(0);
            let skip = to_usize(from.0 - start.0).unwrap_or(0);
            self.patched[skip..skip + piece].copy_from_slice(self.reader.bytes(from, piece)?);
            any = true;
            if to >= end {
                break;
            }
            at = PhysAddr(to);
        }
        if any { Ok(&self.patched) } else { Err(ReadError::Absent(start)) }
    }
}
