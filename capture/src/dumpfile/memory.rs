//! A dump as the machine's memory. In: a dump. Out: [`PhysMem`], so that page tables and the log can be followed in it,
//! and another dump be made of it.
//! May surprise: pages are found by counting bits before them, from sums kept for every 4 KiB of bitmap 2; that takes
//! 64 KiB per TiB of memory. A page that was left out is absent; nothing is made up for it. The segments are
//! what the machine had, in at most some thousand runs (`runs.rs`); which pages are there, only bitmap 2 tells. So
//! struct pages are asked about pages that are left out as well: the first page of a block may be, and speaks for all.

use std::io;

use crate::arch::Arch;
use crate::kernel::{MACHINE, name};
use crate::units::{FileOffset, PageSize, Pfn, PhysAddr, VirtAddr, to_usize};
use crate::vmcore::read::{Bitmaps, PhysMem, PhysReader, ReadError};
use crate::vmcore::segments::{Load, PageRun, Segments};

use super::bitmap::Write;
use super::layout::Descriptor;
use super::read::{Dump, Source, damaged};
use super::runs::Runs;

/// Bytes of bitmap per sum.
const STRIDE: usize = 4096;

/// Descriptors, and bytes of data, that a reader takes at once where it goes from page to page.
const AHEAD: (usize, usize) = (256, 64 << 10);

/// The same where it jumps about.
const SMALL: (usize, usize) = (16, 0);

/// The memory in a dump.
pub struct DumpMem<'a> {
    dump: Dump<'a>,
    source: &'a (dyn Source + 'a),
    /// How many pages are kept before each stride of bitmap 2.
    before: Vec<u64>,
    kept: u64,
    /// Of a split dump: how many pages are in the files before this one.
    elsewhere: u64,
    segments: Segments,
}

impl std::fmt::Debug for DumpMem<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DumpMem").field("dump", &self.dump).field("kept", &self.kept).finish_non_exhaustive()
    }
}

/// How many bits are set.
pub(crate) fn ones(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words: u64 = words.iter().map(|word| u64::from(u64::from_le_bytes(*word).count_ones())).sum();
    words + rest.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>()
}

/// How many bits before number `bit` are set.
fn ones_before(bytes: &[u8], bit: u64) -> u64 {
    let whole = to_usize(bit / 8).unwrap_or(usize::MAX).min(bytes.len());
    let last = bytes.get(whole).map_or(0, |last| last & ((1 << (bit % 8)) - 1));
    ones(&bytes[..whole]) + u64::from(last.count_ones())
}

impl<'a> DumpMem<'a> {
    /// Goes through both bitmaps of the dump in `source`.
    pub fn new(source: &'a (dyn Source + 'a)) -> io::Result<DumpMem<'a>> {
        let dump = Dump::open(source)?;
        let header = &dump.header;
        let (mut before, mut kept, mut elsewhere) = (Vec::new(), 0, 0);
        let first = header.split.map_or(0, |(first, _)| first.0);
        // Both bitmaps side by side: a page that only bitmap 2 has is there all the same.
        let (mut runs, mut both) = (Runs::below(header.max_pfn), Vec::new());
        dump.bitmap(header.bitmap2_at(), &mut |at, block| {
            elsewhere += ones_before(block, first.saturating_sub(at * 8));
            for stride in block.chunks(STRIDE) {
                before.push(kept);
                kept += ones(stride);
            }
            both.resize(block.len(), 0);
            let got = source.read_at(FileOffset(header.bitmap1_at().0 + at), &mut both)?;
            both[got..].fill(0);
            both.iter_mut().zip(block).for_each(|(had, kept)| *had |= kept);
            runs.add(at, &both);
            Ok(())
        })?;
        let (page, max_pfn) = (header.block, header.max_pfn);
        let load = |run: &PageRun| {
            let start = page.address(run.start)?;
            let (virt, offset, len) = (VirtAddr(0), FileOffset(start.0), run.len() << page.shift());
            Some(Load { phys: start, virt, offset, filesz: len, memsz: len })
        };
        let runs = runs.into_runs();
        let loads = runs.iter().filter_map(load).collect();
        let segments = Segments::of_dump(loads, runs, max_pfn, page);
        Ok(DumpMem { dump, source, before, kept, elsewhere, segments })
    }

    /// The dump itself.
    pub fn dump(&self) -> &Dump<'a> {
        &self.dump
    }

    /// Pages with a descriptor.
    pub fn kept(&self) -> u64 {
        self.kept
    }

    /// Gives each segment its virtual address.
    pub fn place(&mut self, virt: impl Fn(PhysAddr) -> VirtAddr) {
        for load in &mut self.segments.loads {
            load.virt = virt(load.phys);
        }
    }

    fn new_reader(&self, ahead: (usize, usize)) -> Box<dyn PhysReader + '_> {
        Box::new(DumpReader {
            mem: self,
            dump: self.dump.another(),
            stride: None,
            bits: Vec::new(),
            descriptors: Vec::new(),
            first: 0,
            ahead,
            data: Vec::new(),
            data_at: 0,
            followed: 0,
            last: None,
            shared: None,
            at: None,
            page: vec![0; self.dump.header.block.bytes()],
        })
    }
}

impl PhysMem for DumpMem<'_> {
    fn arch(&self) -> Option<&'static Arch> {
        Arch::named(&name(&self.dump.header.utsname, MACHINE))
    }

    fn segments(&self) -> &Segments {
        &self.segments
    }

    fn reader(&self) -> Box<dyn PhysReader + '_> {
        self.new_reader(AHEAD)
    }

    fn small_reader(&self) -> Box<dyn PhysReader + '_> {
        self.new_reader(SMALL)
    }

    fn bitmaps(&self) -> Option<&dyn Bitmaps> {
        Some(self)
    }
}

impl Bitmaps for DumpMem<'_> {
    fn present(&self, each: &mut Write<'_>) -> io::Result<()> {
        self.dump.bitmap(self.dump.header.bitmap1_at(), each)
    }

    fn kept(&self, window: PageRun, each: &mut Write<'_>) -> io::Result<()> {
        self.dump.part_of_bitmap(self.dump.header.bitmap2_at(), window, each)
    }
}

struct DumpReader<'a> {
    mem: &'a DumpMem<'a>,
    dump: Dump<'a>,
    /// The stride of bitmap 2 at hand.
    stride: Option<u64>,
    bits: Vec<u8>,
    /// Descriptors at hand, from number `first` on.
    descriptors: Vec<Descriptor>,
    first: u64,
    ahead: (usize, usize),
    /// Data at hand, from `data_at` on.
    data: Vec<u8>,
    data_at: u64,
    /// Where the data of the last page ended.
    followed: u64,
    /// Whose page is in `page`; neighbours may share one.
    last: Option<Descriptor>,
    /// The page that many share, of zeros as a rule: where it lies, and what it is.
    shared: Option<(Descriptor, Vec<u8>)>,
    at: Option<Pfn>,
    page: Vec<u8>,
}

impl DumpReader<'_> {
    fn size(&self) -> PageSize {
        self.dump.header.block
    }

    /// The descriptor of `pfn`; `None` if it has none here.
    fn descriptor(&mut self, pfn: Pfn) -> io::Result<Option<Descriptor>> {
        let header = &self.dump.header;
        if header.split.is_some_and(|(first, end)| pfn < first || pfn >= end) {
            return Ok(None);
        }
        let stride = pfn.0 / 8 / STRIDE as u64;
        let Some(before) = to_usize(stride).and_then(|stride| self.mem.before.get(stride)) else { return Ok(None) };
        if self.stride != Some(stride) {
            self.stride = None;
            self.bits.resize(STRIDE, 0);
            let at = FileOffset(header.bitmap2_at().0 + stride * STRIDE as u64);
            let got = self.mem.source.read_at(at, &mut self.bits)?;
            self.bits.truncate(got);
            self.stride = Some(stride);
        }
        let bit = pfn.0 % (8 * STRIDE as u64);
        let byte = to_usize(bit / 8).and_then(|byte| self.bits.get(byte)).copied().unwrap_or(0);
        if byte >> (bit % 8) & 1 == 0 {
            return Ok(None);
        }
        let index = before + ones_before(&self.bits, bit) - self.mem.elsewhere;
        let at_hand = |this: &Self| this.descriptors.get(to_usize(index.checked_sub(this.first)?)?).copied();
        if let Some(found) = at_hand(self) {
            return Ok(Some(found));
        }
        self.descriptors.clear();
        self.first = index;
        let left = self.mem.kept.saturating_sub(index + self.mem.elsewhere);
        let count = to_usize(left).unwrap_or(usize::MAX).min(self.ahead.0);
        // Those before the end of the file are there all the same.
        let read = self.dump.descriptors(index, count, &mut self.descriptors);
        at_hand(self).map_or_else(|| read.map(|()| None), |found| Ok(Some(found)))
    }

    /// Fills `page` with page `pfn`; false if it is not in the dump.
    fn load(&mut self, pfn: Pfn) -> io::Result<bool> {
        let Some(descriptor) = self.descriptor(pfn)?.filter(|found| !found.is_missing()) else { return Ok(false) };
        if self.last.replace(descriptor) == Some(descriptor) {
            return Ok(true);
        }
        if let Some((_, page)) = self.shared.as_ref().filter(|(shared, _)| *shared == descriptor) {
            self.page.copy_from_slice(page);
            return Ok(true);
        }
        // Until it is unpacked.
        self.last = None;
        let size = descriptor.size as usize;
        if size > self.page.len() {
            return Err(damaged("a page larger than a page"));
        }
        let inside = |this: &Self| {
            let skip = to_usize(descriptor.offset.checked_sub(this.data_at)?)?;
            (this.data.len() >= skip.checked_add(size)?).then_some(skip)
        };
        let skip = match inside(self) {
            Some(skip) => skip,
            None => {
                let next = descriptor.offset.wrapping_sub(self.followed) < self.ahead.1 as u64;
                let want = if next { self.ahead.1.max(size) } else { size };
                self.data.resize(want, 0);
                self.data_at = descriptor.offset;
                let got = self.mem.source.read_at(FileOffset(descriptor.offset), &mut self.data);
                self.data.truncate(got.as_ref().map_or(0, |got| *got));
                got?;
                inside(self).ok_or_else(|| damaged("the file ends within a page"))?
            }
        };
        self.dump.unpack(descriptor.flags, &self.data[skip..skip + size], &mut self.page)?;
        self.last = Some(descriptor);
        if self.shared.is_none() && descriptor.offset == self.dump.header.data_at(self.mem.kept).0 {
            self.shared = Some((descriptor, self.page.clone()));
        } else {
            self.followed = descriptor.offset.saturating_add(u64::from(descriptor.size));
        }
        Ok(true)
    }
}

impl PhysReader for DumpReader<'_> {
    fn bytes(&mut self, at: PhysAddr, len: usize) -> Result<&[u8], ReadError> {
        let pfn = self.size().pfn(at);
        if self.at != Some(pfn) {
            self.at = None;
            if !self.load(pfn).map_err(|source| ReadError::Io { at, source })? {
                return Err(ReadError::Absent(at));
            }
            self.at = Some(pfn);
        }
        let skip = to_usize(at.0 & (self.size().bytes() as u64 - 1)).unwrap_or(0);
        self.page.get(skip..).and_then(|rest| rest.get(..len)).ok_or(ReadError::Absent(at))
    }

    fn longest(&self) -> usize {
        self.size().bytes()
    }
}
