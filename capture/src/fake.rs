//! The world outside, in memory: the fakes of [`PhysMem`] and [`Output`]. In: pieces of memory. Out: a reader.
//! May surprise: it takes the same [`Segments`] as the real thing, so an address outside them fails in the same way;
//! pages can be made to fail as the hardware does.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::arch::Arch;
use crate::output::Output;
use crate::units::{FileOffset, PageSize, Pfn, PhysAddr, VirtAddr, to_usize};
use crate::vmcore::read::{PhysMem, PhysReader, ReadError};
use crate::vmcore::segments::{Load, Segments};

/// Memory in pieces, by address.
#[derive(Debug)]
pub struct MemCore {
    arch: &'static Arch,
    pieces: BTreeMap<u64, Vec<u8>>,
    broken: BTreeSet<Pfn>,
    segments: Segments,
}

impl MemCore {
    /// An x86_64 machine with these pieces, which do not overlap.
    pub fn new(pieces: impl IntoIterator<Item = (PhysAddr, Vec<u8>)>) -> MemCore {
        MemCore::of(Arch::ALL[0], PageSize::K4, pieces)
    }

    /// A machine of any kind with these pieces, which do not overlap.
    pub fn of(arch: &'static Arch, page: PageSize, pieces: impl IntoIterator<Item = (PhysAddr, Vec<u8>)>) -> MemCore {
        let pieces: BTreeMap<u64, Vec<u8>> = pieces.into_iter().map(|(at, bytes)| (at.0, bytes)).collect();
        let load = |(at, bytes): (&u64, &Vec<u8>)| Load {
            phys: PhysAddr(*at),
            virt: VirtAddr(0),
            offset: FileOffset(0),
            filesz: bytes.len() as u64,
            memsz: bytes.len() as u64,
        };
        let loads = pieces.iter().map(load).collect();
        let segments = Segments::new(loads, u64::MAX, page, &mut Vec::new());
        MemCore { arch, pieces, broken: BTreeSet::new(), segments }
    }

    /// Puts `bytes` in the place of those at `at` and returns these; `None` if a piece does not hold all of them.
    pub fn replace(&mut self, at: PhysAddr, bytes: &[u8]) -> Option<Vec<u8>> {
        let (start, piece) = self.pieces.range_mut(..=at.0).next_back()?;
        let there = piece.get_mut(to_usize(at.0 - start)?..)?.get_mut(..bytes.len())?;
        let before = there.to_vec();
        there.copy_from_slice(bytes);
        Some(before)
    }

    /// Reading page `pfn` fails from now on.
    pub fn break_page(&mut self, pfn: Pfn) {
        self.broken.insert(pfn);
    }
}

impl PhysMem for MemCore {
    fn arch(&self) -> Option<&'static Arch> {
        Some(self.arch)
    }

    fn segments(&self) -> &Segments {
        &self.segments
    }

    fn reader(&self) -> Box<dyn PhysReader + '_> {
        Box::new(MemReader(self))
    }
}

struct MemReader<'a>(&'a MemCore);

impl PhysReader for MemReader<'_> {
    fn bytes(&mut self, at: PhysAddr, len: usize) -> Result<&[u8], ReadError> {
        let last = PhysAddr(at.0.saturating_add((len as u64).saturating_sub(1)));
        let page = self.0.segments.page();
        let touched = page.pfn(at)..=page.pfn(last);
        if self.0.broken.range(touched).next().is_some() {
            return Err(ReadError::Io { at, source: io::Error::other("this page is broken") });
        }
        let piece = self.0.pieces.range(..=at.0).next_back();
        piece.and_then(|(start, bytes)| bytes.get(to_usize(at.0 - start)?..)?.get(..len)).ok_or(ReadError::Absent(at))
    }

    fn longest(&self) -> usize {
        2 << 20
    }
}

/// A file in memory that is full at `limit` bytes: the fake of [`Output`].
#[derive(Debug)]
pub struct MemFile {
    bytes: Mutex<Vec<u8>>,
    limit: usize,
}

impl MemFile {
    /// An empty file on a disk of `limit` bytes.
    pub fn new(limit: usize) -> MemFile {
        MemFile { bytes: Mutex::new(Vec::new()), limit }
    }

    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn grow(&self, len: u64) -> (MutexGuard<'_, Vec<u8>>, usize) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let len = to_usize(len).unwrap_or(usize::MAX).min(self.limit);
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        (bytes, len)
    }
}

impl Output for MemFile {
    fn write_at(&self, at: FileOffset, bytes: &[u8]) -> io::Result<usize> {
        let (mut file, end) = self.grow(at.0.saturating_add(bytes.len() as u64));
        let room = to_usize(at.0).and_then(|at| file.get_mut(at..end)).filter(|room| !room.is_empty());
        let Some(room) = room else { return Err(io::ErrorKind::StorageFull.into()) };
        let len = room.len().min(bytes.len());
        room[..len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        if to_usize(len).is_none_or(|len| len > self.limit) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        drop(self.grow(len));
        Ok(())
    }
}
