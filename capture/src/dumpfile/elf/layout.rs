//! Where everything of an ELF dump goes. In: the vmcore's PT_LOADs and stretches. Out: the headers, and segment after
//! segment with its place.
//! May surprise: no list of segments is kept; a walk makes them anew each time.

use std::io;

use goblin::elf::header::{ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_NONE, ET_CORE, EV_CURRENT};
use goblin::elf::program_header::{PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE};

use crate::output::{Output, write_all};
use crate::units::{FileOffset, PageSize, Pfn, PhysAddr, VirtAddr, to_usize};
use crate::vmcore::segments::{Load, Segments};

use super::{Job, Stretches};

const EHDR: u64 = 64;
const PHDR: u64 = 56;
const SHDR: u64 = 64;
const PN_XNUM: u64 = 0xffff;
/// Program headers are written in blocks of this many bytes.
const BLOCK: usize = 64 << 10;

/// Where everything goes.
pub(super) struct Layout<'a> {
    map: &'a Segments,
    loads: Vec<Load>,
    stretches: &'a Stretches,
    page: PageSize,
    /// `e_machine`.
    machine: u16,
    notes_len: u64,
    /// PT_LOADs.
    pub(super) count: u64,
}

impl<'a> Layout<'a> {
    pub(super) fn new(job: &Job<'a>) -> Layout<'a> {
        let map = job.mem.segments();
        // The kernel image lies within RAM, so some memory is written twice. Headers that claim more than that are
        // damaged, and would fill any disk.
        let bytes: u64 = map.extents().iter().map(|e| e.len).sum();
        let mut claimed = 0u64;
        let sane = |load: &&Load| {
            claimed = claimed.saturating_add(load.filesz.min(bytes));
            claimed <= bytes.saturating_mul(2)
        };
        let loads = map.loads.iter().filter(sane).copied().collect();
        let machine = job.mem.arch().map_or(EM_NONE, |arch| arch.elf);
        let notes_len = job.notes.len() as u64;
        Layout { map, loads, stretches: job.stretches, page: job.page, machine, notes_len, count: 0 }
    }

    fn headers(&self) -> u64 {
        self.count + 1
    }

    fn many(&self) -> bool {
        self.headers() >= PN_XNUM
    }

    fn section_at(&self) -> u64 {
        EHDR + self.headers() * PHDR
    }

    pub(super) fn notes_at(&self) -> u64 {
        self.section_at() + if self.many() { SHDR } else { 0 }
    }

    pub(super) fn data_at(&self) -> u64 {
        self.notes_at() + self.notes_len
    }

    pub(super) fn segments(&self) -> Walk<'_> {
        Walk { layout: self, load: 0, at: None, offset: self.data_at() }
    }

    pub(super) fn elf_header(&self, flags: u32) -> Vec<u8> {
        let number = if self.many() { PN_XNUM } else { self.headers() };
        let short = |n: u64| u16::try_from(n).unwrap_or(u16::MAX).to_le_bytes();
        let (section_at, section_len, sections) = if self.many() { (self.section_at(), SHDR, 1) } else { (0, 0, 0) };
        let mut header = ELFMAG.to_vec();
        header.extend([ELFCLASS64, ELFDATA2LSB, EV_CURRENT]);
        header.resize(16, 0);
        header.extend(ET_CORE.to_le_bytes());
        header.extend(self.machine.to_le_bytes());
        header.extend(u32::from(EV_CURRENT).to_le_bytes());
        header.extend(0u64.to_le_bytes());
        header.extend(EHDR.to_le_bytes());
        header.extend(section_at.to_le_bytes());
        header.extend(flags.to_le_bytes());
        for n in [EHDR, PHDR, number, section_len, sections, 0] {
            header.extend(short(n));
        }
        header
    }

    pub(super) fn put_headers(&self, out: &dyn Output) -> io::Result<()> {
        let mut at = EHDR;
        let mut block = Vec::with_capacity(BLOCK + 256);
        let notes = (self.notes_at(), self.notes_len);
        program_header(&mut block, PT_NOTE, 0, [notes.0, 0, 0, notes.1, notes.1]);
        for s in self.segments() {
            program_header(&mut block, PT_LOAD, PF_R | PF_W | PF_X, [s.offset, s.virt.0, s.phys.0, s.filesz, s.memsz]);
            if block.len() >= BLOCK {
                write_all(out, FileOffset(at), &block).1?;
                at += block.len() as u64;
                block.clear();
            }
        }
        if self.many() {
            let mut section = vec![0; to_usize(SHDR).unwrap_or(0)];
            let number = u32::try_from(self.headers()).map_err(|_| io::ErrorKind::FileTooLarge)?;
            section[44..48].copy_from_slice(&number.to_le_bytes()); // sh_info
            block.extend(section);
        }
        write_all(out, FileOffset(at), &block).1
    }

    /// The first page from `from` on, below `end`, that is written for itself; `end` if there is none. `end` is where a
    /// PT_LOAD's data ends, in part of a page perhaps: such a page has no bit of its own and is kept if the vmcore has it.
    fn next_kept(&self, from: Pfn, end: PhysAddr) -> Pfn {
        let whole = self.page.pfn(end);
        let next = || self.stretches.at_or_after(from).map_or(whole, |run| run.start.max(from).min(whole));
        let found = if from < whole { next() } else { from };
        if found < whole || whole.0 << self.page.shift() == end.0 {
            return found;
        }
        let start = PhysAddr(whole.0 << self.page.shift());
        let present = self.map.present();
        let run = present.get(present.partition_point(|run| run.end <= whole));
        let judged = run.is_some_and(|run| run.start <= whole);
        let wanted = if judged {
            self.stretches.contains(whole)
        } else {
            self.map.at_or_after(start).is_some_and(|e| e.start < end)
        };
        if from <= whole && wanted { whole } else { Pfn(whole.0 + 1) }
    }
}

/// The five numbers: offset, virtual and physical address, bytes in the file and in memory.
fn program_header(block: &mut Vec<u8>, kind: u32, flags: u32, numbers: [u64; 5]) {
    block.extend(kind.to_le_bytes());
    block.extend(flags.to_le_bytes());
    for n in numbers {
        block.extend(n.to_le_bytes());
    }
    block.extend(0u64.to_le_bytes()); // p_align: as the kernel has it
}

/// A PT_LOAD of the dump.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) phys: PhysAddr,
    pub(super) virt: VirtAddr,
    pub(super) offset: u64,
    pub(super) filesz: u64,
    pub(super) memsz: u64,
    /// Where the next one's data may begin.
    pub(super) next: u64,
    /// The PT_LOAD of the vmcore that it is part of.
    pub(super) load: Load,
}

/// Goes through all segments.
pub(super) struct Walk<'a> {
    layout: &'a Layout<'a>,
    load: usize,
    at: Option<PhysAddr>,
    offset: u64,
}

impl Iterator for Walk<'_> {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        let (layout, page) = (self.layout, self.layout.page);
        let (load, at, end) = loop {
            let load = layout.loads.get(self.load)?;
            let (at, end) = (self.at.unwrap_or(load.phys), PhysAddr(load.phys.0 + load.memsz));
            if at < end {
                break (load, at, end);
            }
            self.load += 1;
            self.at = None;
        };
        // What lies behind `p_filesz` has no data here, even if another PT_LOAD has it.
        let limit = PhysAddr(load.phys.0 + load.filesz);
        let last = Pfn(limit.0.div_ceil(page.bytes() as u64));
        let mut data_end = page.pfn(at);
        let stop = loop {
            let kept = layout.next_kept(data_end, limit);
            if kept >= last {
                break end;
            }
            if kept > data_end {
                break PhysAddr(kept.0 << page.shift());
            }
            let whole = page.pfn(limit);
            let end = layout.stretches.at_or_after(kept).map_or(kept, |run| run.end);
            data_end = if kept < whole { end.min(whole) } else { last };
        };
        let data_end = (data_end.0 << page.shift()).min(limit.0).max(at.0);
        let filesz = data_end - at.0;
        let offset = if filesz == 0 { 0 } else { congruent(self.offset, at, page) };
        if filesz > 0 {
            self.offset = offset.saturating_add(filesz);
        }
        self.at = Some(stop);
        let virt = VirtAddr(load.virt.0.wrapping_add(at.0 - load.phys.0));
        Some(Segment { phys: at, virt, offset, filesz, memsz: stop.0 - at.0, next: self.offset, load: *load })
    }
}

/// The first position from `offset` on that lies in its page where `at` lies in its own.
fn congruent(offset: u64, at: PhysAddr, page: PageSize) -> u64 {
    let mask = page.bytes() as u64 - 1;
    offset.saturating_add(at.0.wrapping_sub(offset) & mask)
}
