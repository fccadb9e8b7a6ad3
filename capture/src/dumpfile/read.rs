//! Reads a dump back. In: a kdump-compressed file. Out: its header and its pages.
//! May surprise: it trusts nothing, like everything here, since a dump comes from elsewhere; it is the judge in tests,
//! what `info` and `verify` look through, and what a dump is made of when it is filtered once more.

use std::fs::File;
use std::io::{self, ErrorKind};

use crate::compress::Unpacker;
use crate::units::{FileOffset, Pfn, to_usize};
use crate::vmcore::elf::read_up_to;
use crate::vmcore::segments::PageRun;

use super::bitmap::{BLOCK, Write};
use super::layout::{DESCRIPTOR, Descriptor, Header};

/// Bytes of a file at any position; a `File`, or bytes in memory.
pub trait Source: Sync {
    /// Fills as much of `buffer` as there is from `at` on.
    fn read_at(&self, at: FileOffset, buffer: &mut [u8]) -> io::Result<usize>;
}

impl Source for File {
    fn read_at(&self, at: FileOffset, buffer: &mut [u8]) -> io::Result<usize> {
        read_up_to(self, at, buffer)
    }
}

impl Source for [u8] {
    fn read_at(&self, at: FileOffset, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = to_usize(at.0).and_then(|at| self.get(at..)).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

/// An open dump.
pub struct Dump<'a> {
    source: &'a (dyn Source + 'a),
    /// Its header.
    pub header: Header,
    unpacker: Unpacker,
}

impl std::fmt::Debug for Dump<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dump").field("header", &self.header).finish_non_exhaustive()
    }
}

/// So many descriptors are read at once: 24 KiB.
const TOGETHER: usize = 1024;

pub(super) fn damaged(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

impl<'a> Dump<'a> {
    /// Reads the header.
    pub fn open(source: &'a (dyn Source + 'a)) -> io::Result<Dump<'a>> {
        // The sub header lies one block in, and a block is at most 64 KiB.
        let mut start = vec![0; (64 << 10) + 4096];
        let got = source.read_at(FileOffset(0), &mut start)?;
        let header = Header::read(&start[..got]).map_err(damaged)?;
        Ok(Dump { source, header, unpacker: Unpacker::default() })
    }

    /// The vmcoreinfo text.
    pub fn vmcoreinfo(&self) -> io::Result<Vec<u8>> {
        let (at, len) = self.header.vmcoreinfo;
        self.text(FileOffset(self.header.notes_at().0.saturating_add(at)), len.min(1 << 20))
    }

    /// The bytes of the notes, 64 MiB at most.
    pub fn notes(&self) -> io::Result<Vec<u8>> {
        self.text(self.header.notes_at(), self.header.notes_len.min(64 << 20))
    }

    /// The text that says what was erased, 1 MiB at most.
    pub fn eraseinfo(&self) -> io::Result<Vec<u8>> {
        self.header.eraseinfo.map_or(Ok(Vec::new()), |(at, len)| self.text(at, len.min(1 << 20)))
    }

    fn text(&self, at: FileOffset, len: u64) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        while let Some(left) = to_usize(len).and_then(|len| len.checked_sub(text.len())).filter(|left| *left > 0) {
            // In pieces, since a damaged length is no reason to take as much memory.
            let done = text.len();
            text.resize(done + left.min(1 << 20), 0);
            let got = self.source.read_at(FileOffset(at.0.saturating_add(done as u64)), &mut text[done..])?;
            text.truncate(done + got);
            if got == 0 {
                break;
            }
        }
        Ok(text)
    }

    /// The same dump for another worker, with contexts of its own.
    pub fn another(&self) -> Dump<'a> {
        Dump { source: self.source, header: self.header.clone(), unpacker: Unpacker::default() }
    }

    /// Calls `each` for every block of the bitmap at `base`, with its position in the bitmap.
    pub fn bitmap(&self, base: FileOffset, each: &mut Write<'_>) -> io::Result<()> {
        self.part_of_bitmap(base, PageRun { start: Pfn(0), end: Pfn(u64::MAX) }, each)
    }

    /// The same for the blocks that have the pages of `window`.
    pub fn part_of_bitmap(&self, base: FileOffset, window: PageRun, each: &mut Write<'_>) -> io::Result<()> {
        let mut block = vec![0; BLOCK];
        // A bitmap may have more room than it has pages.
        let used = self.header.max_pfn.0.div_ceil(8).next_multiple_of(self.header.block.bytes() as u64);
        let mut at = window.start.0 / 8 / BLOCK as u64 * BLOCK as u64;
        let end = self.header.bitmap_bytes().min(used).min(window.end.0.div_ceil(8));
        while at < end {
            let want = to_usize(end - at).unwrap_or(usize::MAX).min(block.len());
            let got = self.source.read_at(FileOffset(base.0 + at), &mut block[..want])?;
            each(at, &block[..got])?;
            if got < want {
                return Err(damaged("the file ends within a bitmap"));
            }
            at += got as u64;
        }
        Ok(())
    }

    /// Calls `each` for every set bit of the bitmap at `base`, in order; stops at its end or at the file's.
    fn bits(&self, base: FileOffset, each: &mut dyn FnMut(Pfn) -> io::Result<()>) -> io::Result<()> {
        self.bitmap(base, &mut |at, block| {
            for (index, byte) in block.iter().enumerate().filter(|(_, byte)| **byte != 0) {
                for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
                    each(Pfn((at + index as u64) * 8 + bit))?;
                }
            }
            Ok(())
        })
    }

    /// The pages the machine had.
    pub fn present(&self, each: &mut dyn FnMut(Pfn) -> io::Result<()>) -> io::Result<()> {
        self.bits(self.header.bitmap1_at(), each)
    }

    /// The pages with a descriptor, by number alone.
    pub fn kept_pages(&self, each: &mut dyn FnMut(Pfn) -> io::Result<()>) -> io::Result<()> {
        self.bits(self.header.bitmap2_at(), each)
    }

    /// The `count` descriptors from number `first` on, appended to `out`.
    pub fn descriptors(&self, first: u64, count: usize, out: &mut Vec<Descriptor>) -> io::Result<()> {
        let mut bytes = vec![0; count * DESCRIPTOR];
        let skip = first.checked_mul(DESCRIPTOR as u64).and_then(|skip| self.header.descriptors_at().checked_add(skip));
        let at = skip.ok_or_else(|| damaged("no such descriptor"))?;
        let got = self.source.read_at(at, &mut bytes)?;
        out.extend(bytes[..got].chunks_exact(DESCRIPTOR).filter_map(Descriptor::parse));
        if got < bytes.len() { Err(damaged("the file ends within the descriptors")) } else { Ok(()) }
    }

    /// The pages with a descriptor, and the place of each.
    pub fn kept(&self, each: &mut dyn FnMut(Pfn, Descriptor) -> io::Result<()>) -> io::Result<()> {
        let (mut index, mut some, mut pfns) = (0, Vec::new(), Vec::new());
        let mut flush = |pfns: &mut Vec<Pfn>| {
            some.clear();
            let read = self.descriptors(index, pfns.len(), &mut some);
            index += pfns.len() as u64;
            pfns.drain(..).zip(&some).try_for_each(|(pfn, descriptor)| each(pfn, *descriptor))?;
            read
        };
        let all = self.bits(self.header.bitmap2_at(), &mut |pfn| {
            pfns.push(pfn);
            if pfns.len() == TOGETHER { flush(&mut pfns) } else { Ok(()) }
        });
        flush(&mut pfns).and(all)
    }

    /// The page behind a descriptor; `None` if it could not be saved.
    pub fn page(&mut self, descriptor: &Descriptor) -> io::Result<Option<Vec<u8>>> {
        let block = self.header.block.bytes();
        if descriptor.is_missing() {
            return Ok(None);
        }
        let size = descriptor.size as usize;
        if size > block {
            return Err(damaged("a page larger than a page"));
        }
        let mut packed = vec![0; size];
        if self.source.read_at(FileOffset(descriptor.offset), &mut packed)? < size {
            return Err(damaged("the file ends within a page"));
        }
        let mut page = vec![0; block];
        self.unpack(descriptor.flags, &packed, &mut page)?;
        Ok(Some(page))
    }

    /// Unpacks one page, which `packed` must be, no more and no less.
    pub(super) fn unpack(&mut self, flags: u32, packed: &[u8], page: &mut [u8]) -> io::Result<()> {
        let len = self.unpacker.unpack(flags, packed, page).map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
        if len != page.len() { Err(damaged("a page of the wrong size")) } else { Ok(()) }
    }
}
