//! /proc/kcore: the running kernel's memory as an ELF core. In: the file, and what the system says besides. Out: [`Kcore`],
//! the part of it that is physical memory and would be in a vmcore.
//! May surprise: it lists virtual memory, most of which is no RAM (vmalloc, modules, vmemmap), with -1 for a physical
//! address; its file size means nothing; it cannot be mapped. The kernel keeps one page of buffer for each time it is
//! opened, so two threads that read through one open file get each other's bytes: no two do. Reading a page that is
//! offline or given up gives zeros or an error, which costs that page.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::arch::Arch;
use crate::error::Error;
use crate::units::{FileOffset, PageSize, PhysAddr, VirtAddr, to_usize};
use crate::vmcore::elf::{self, ElfError, read_up_to};
use crate::vmcore::notes;
use crate::vmcore::read::{PhysMem, PhysReader, ReadError};
use crate::vmcore::segments::{Load, Segments};
use crate::vmcoreinfo::Facts;

use super::system::{self, System};

/// The physical address of a segment that is not in RAM.
const NOWHERE: u64 = u64::MAX;

/// More of a vmcoreinfo note than this is not read; a note is one page or few.
const MAX_NOTE: u64 = 64 << 10;

/// Bytes read at once.
const PIECE: usize = 64 << 10;

/// Open memory of the running kernel.
#[derive(Debug)]
pub(super) struct Kcore {
    path: PathBuf,
    /// Open files that nobody reads at the moment.
    idle: Mutex<Vec<File>>,
    arch: &'static Arch,
    segments: Segments,
    /// What the kernel says about itself; empty if that cannot be had.
    pub(super) vmcoreinfo: Vec<u8>,
    /// Bytes reserved for a crash kernel.
    pub(super) crash_kernel: u64,
    /// What was missing but could be done without.
    pub(super) problems: Vec<String>,
}

impl Kcore {
    /// Opens `path`, leaving out what `system` has reserved for a crash kernel.
    pub(super) fn open(path: &Path, system: &dyn System) -> Result<Kcore, Error> {
        let input = |why: String| Error::Input { path: path.into(), why };
        let open = |source: io::Error| match source.kind() {
            io::ErrorKind::PermissionDenied => {
                input(format!("{source}; it is for root alone, and for nobody where the kernel is locked down"))
            }
            io::ErrorKind::NotFound => {
                input("there is no such file; the kernel may be built without it (CONFIG_PROC_KCORE)".into())
            }
            _ => Error::OpenInput { path: path.into(), source },
        };
        let file = File::open(path).map_err(open)?;
        let parts = elf::read(&file, u64::MAX).map_err(|e| match e {
            ElfError::Io(source) => open(source),
            ElfError::Format(why) => input(why),
            ElfError::Machine(why) => Error::WrongKernel { path: path.into(), why },
        })?;
        let mut problems = parts.problems;
        let mut loads = in_ram(parts.loads).map_err(|why| input(why.into()))?;
        let reserved = reserved(system, &mut problems);
        for range in &reserved {
            loads = loads.into_iter().flat_map(|load| without(load, range)).collect();
        }
        let crash_kernel = reserved.iter().map(|range| range.end - range.start).sum();
        // What a page is, the kernel says of itself; to read that it does not matter.
        let segments = Segments::new(loads.clone(), u64::MAX, PageSize::K4, &mut Vec::new());
        let idle = Mutex::new(vec![file]);
        let (path, arch, vmcoreinfo) = (path.into(), parts.arch, Vec::new());
        let mut kcore = Kcore { path, idle, arch, segments, vmcoreinfo, crash_kernel, problems };
        kcore.vmcoreinfo = match notes::parse(&parts.notes).vmcoreinfo.and_then(|range| parts.notes.get(range)) {
            Some(text) => text.to_vec(),
            None => kcore.vmcoreinfo_from_memory(system).unwrap_or_default(),
        };
        let page = parts.arch.page(&Facts::parse(&kcore.vmcoreinfo));
        kcore.segments = Segments::new(loads, u64::MAX, page, &mut kcore.problems);
        Ok(kcore)
    }

    /// Fills `buffer` through an open file that nobody else reads meanwhile; returns how much came.
    fn read(&self, at: FileOffset, buffer: &mut [u8]) -> io::Result<usize> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let one = idle().pop();
        let file = one.map_or_else(|| File::open(&self.path), Ok)?;
        let got = read_up_to(&file, at, buffer);
        idle().push(file);
        got
    }

    /// Until Linux 4.19 put it into the notes (23c85094fe18, "proc/kcore: add vmcoreinfo note to /proc/kcore").
    fn vmcoreinfo_from_memory(&self, system: &dyn System) -> Option<Vec<u8>> {
        let (at, len) = system::vmcoreinfo(&system.text("/sys/kernel/vmcoreinfo").ok()?)?;
        let (extent, _) = self.segments.find(at)?;
        let len = to_usize(len.min(MAX_NOTE).min(extent.end() - at.0))?;
        let mut reader = self.reader();
        let note = reader.bytes(at, len).ok()?;
        notes::parse(note).vmcoreinfo.and_then(|range| note.get(range)).map(<[u8]>::to_vec)
    }
}

impl PhysMem for Kcore {
    fn arch(&self) -> Option<&'static Arch> {
        Some(self.arch)
    }

    fn segments(&self) -> &Segments {
        &self.segments
    }

    fn reader(&self) -> Box<dyn PhysReader + '_> {
        Box::new(KcoreReader { kcore: self, at: FileOffset(0), piece: Vec::new() })
    }
}

/// One worker's view of it: the last piece read.
struct KcoreReader<'a> {
    kcore: &'a Kcore,
    at: FileOffset,
    piece: Vec<u8>,
}

impl PhysReader for KcoreReader<'_> {
    fn bytes(&mut self, at: PhysAddr, len: usize) -> Result<&[u8], ReadError> {
        let (extent, offset) = self.kcore.segments.find(at).ok_or(ReadError::Absent(at))?;
        if len > PIECE || (extent.end() - at.0) < len as u64 {
            return Err(ReadError::Absent(at));
        }
        let held = self.at.0..self.at.0 + self.piece.len() as u64;
        if !(held.contains(&offset.0) && offset.0 + len as u64 <= held.end) {
            self.at = offset;
            self.piece.resize(len, 0);
            let got = self.kcore.read(offset, &mut self.piece);
            self.piece.truncate(*got.as_ref().unwrap_or(&0));
            got.map_err(|source| ReadError::Io { at, source })?;
        }
        let skip = to_usize(offset.0 - self.at.0).unwrap_or(usize::MAX);
        let bytes = self.piece.get(skip..).and_then(|bytes| bytes.get(..len));
        bytes.ok_or_else(|| ReadError::Io { at, source: io::ErrorKind::UnexpectedEof.into() })
    }

    fn longest(&self) -> usize {
        PIECE
    }
}

/// The segments with a physical address. Linux 4.11 was the first to give any (464920104bf7, "/proc/kcore: update
/// physical address for kcore ram and text"); before that all are 0.
fn in_ram(mut loads: Vec<Load>) -> Result<Vec<Load>, &'static str> {
    loads.retain(|load| load.phys.0 != NOWHERE);
    if loads.iter().all(|load| load.phys.0 == 0) {
        return Err("its segments have no physical addresses; Linux 4.11 was the first to tell them");
    }
    Ok(loads)
}

fn reserved(system: &dyn System, problems: &mut Vec<String>) -> Vec<Range<u64>> {
    match system.text("/proc/iomem").map(|text| system::crash_kernel(&text)) {
        Ok(ranges) if ranges.is_empty() => {
            problems.push("no memory is reserved for a crash kernel (crashkernel=), so all of it is counted".into());
            ranges
        }
        Ok(ranges) => ranges,
        Err(e) => {
            problems.push(format!("the crash kernel's own memory is counted too: unable to read /proc/iomem: {e}"));
            Vec::new()
        }
    }
}

/// What is left of `load` when `range` is cut out: two pieces, one or none.
fn without(load: Load, range: &Range<u64>) -> impl Iterator<Item = Load> {
    let (start, end) = (load.phys.0, load.phys.0.saturating_add(load.memsz));
    let piece = move |from: u64, to: u64| {
        let skip = from - start;
        (from < to).then(|| Load {
            phys: PhysAddr(from),
            virt: VirtAddr(load.virt.0.wrapping_add(skip)),
            offset: FileOffset(load.offset.0.wrapping_add(skip)),
            filesz: load.filesz.saturating_sub(skip).min(to - from),
            memsz: to - from,
        })
    };
    let (cut_start, cut_end) = (range.start.clamp(start, end), range.end.clamp(start, end));
    [piece(start, cut_start), piece(cut_end.max(cut_start), end)].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(phys: u64, len: u64) -> Load {
        let (virt, offset) = (VirtAddr(phys.wrapping_add(7)), FileOffset(phys.wrapping_add(5)));
        Load { phys: PhysAddr(phys), virt, offset, filesz: len, memsz: len }
    }

    fn left(range: Range<u64>) -> Vec<(u64, u64)> {
        let pieces: Vec<Load> = without(load(100, 50), &range).collect();
        for piece in &pieces {
            assert_eq!((piece.virt.0, piece.offset.0), (piece.phys.0 + 7, piece.phys.0 + 5));
            assert_eq!(piece.filesz, piece.memsz);
        }
        pieces.iter().map(|piece| (piece.phys.0, piece.phys.0 + piece.memsz)).collect()
    }

    #[test]
    fn a_range_is_cut_out_wherever_it_lies() {
        assert_eq!(left(0..100), [(100, 150)]);
        assert_eq!(left(150..200), [(100, 150)]);
        assert_eq!(left(100..110), [(110, 150)]);
        assert_eq!(left(140..160), [(100, 140)]);
        assert_eq!(left(120..130), [(100, 120), (130, 150)]);
        assert_eq!(left(0..1000), []);
    }

    #[test]
    fn segments_without_a_physical_address_are_left_out() {
        let found = in_ram(vec![load(NOWHERE, 50), load(0, 50), load(4096, 50)]).unwrap();
        assert_eq!(found, [load(0, 50), load(4096, 50)]);
        assert!(in_ram(vec![load(0, 50), load(0, 60)]).unwrap_err().contains("4.11"));
        assert!(in_ram(vec![load(NOWHERE, 50)]).is_err());
    }
}
