//! A dump as the machine's memory. In: a dump. Out: [`PhysMem`], so that page tables and the log can be followed in it.
//! May surprise: pages are found by counting bits before them, from sums kept for every 4 KiB of bitmap 2; that takes
//! 64 KiB per TiB of memory. A page that was left out is absent; nothing is made up for it.

use std::io;

use crate::arch::Arch;
use crate::kernel::{MACHINE, name};
use crate::units::{FileOffset, PageSize, Pfn, PhysAddr, to_usize};
use crate::vmcore::read::{PhysMem, PhysReader, ReadError};
use crate::vmcore::segments::Segments;

use super::layout::Descriptor;
use super::read::{Dump, Source};

/// Bytes of bitmap per sum.
const STRIDE: usize = 4096;

/// The memory in a dump.
pub struct DumpMem<'a> {
    dump: Dump<'a>,
    source: &'a (dyn Source + 'a),
    /// How many pages are kept before each stride of bitmap 2.
    before: Vec<u64>,
    kept: u64,
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

impl<'a> DumpMem<'a> {
    /// Counts bitmap 2 of the dump in `source`.
    pub fn new(source: &'a (dyn Source + 'a)) -> io::Result<DumpMem<'a>> {
        let dump = Dump::open(source)?;
        let (mut before, mut kept) = (Vec::new(), 0);
        dump.bitmap(dump.header.bitmap2_at(), &mut |_, block| {
            for stride in block.chunks(STRIDE) {
                before.push(kept);
                kept += ones(stride);
            }
            Ok(())
        })?;
        let segments = Segments::empty(dump.header.block);
        Ok(DumpMem { dump, source, before, kept, segments })
    }

    /// The dump itself.
    pub fn dump(&self) -> &Dump<'a> {
        &self.dump
    }

    /// Pages with a descriptor.
    pub fn kept(&self) -> u64 {
        self.kept
    }

    /// The descriptor of `pfn`; `None` if it has none.
    fn descriptor(&self, pfn: Pfn) -> io::Result<Option<Descriptor>> {
        let (byte, bit) = (pfn.0 / 8, pfn.0 % 8);
        let stride = byte / STRIDE as u64;
        let Some(before) = to_usize(stride).and_then(|stride| self.before.get(stride)) else { return Ok(None) };
        let len = to_usize(byte % STRIDE as u64).unwrap_or(0) + 1;
        let mut bytes = [0; STRIDE];
        let at = FileOffset(self.dump.header.bitmap2_at().0 + stride * STRIDE as u64);
        let got = self.source.read_at(at, &mut bytes[..len])?;
        let Some((last, whole)) = bytes[..got].split_last().filter(|_| got == len) else { return Ok(None) };
        if last >> bit & 1 == 0 {
            return Ok(None);
        }
        let index = before + ones(whole) + u64::from((last & ((1 << bit) - 1)).count_ones());
        let mut found = Vec::with_capacity(1);
        self.dump.descriptors(index, 1, &mut found)?;
        Ok(found.pop())
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
        Box::new(DumpReader { mem: self, dump: self.dump.another(), at: None, page: Vec::new() })
    }
}

struct DumpReader<'a> {
    mem: &'a DumpMem<'a>,
    dump: Dump<'a>,
    at: Option<Pfn>,
    page: Vec<u8>,
}

impl DumpReader<'_> {
    fn size(&self) -> PageSize {
        self.dump.header.block
    }
}

impl PhysReader for DumpReader<'_> {
    fn bytes(&mut self, at: PhysAddr, len: usize) -> Result<&[u8], ReadError> {
        let pfn = self.size().pfn(at);
        if self.at != Some(pfn) {
            self.at = None;
            let found = self.mem.descriptor(pfn).and_then(|found| match found {
                Some(descriptor) => self.dump.page(&descriptor),
                None => Ok(None),
            });
            self.page = found.map_err(|source| ReadError::Io { at, source })?.ok_or(ReadError::Absent(at))?;
            self.at = Some(pfn);
        }
        let skip = to_usize(at.0).unwrap_or(0) & (self.size().bytes() - 1);
        self.page.get(skip..).and_then(|rest| rest.get(..len)).ok_or(ReadError::Absent(at))
    }

    fn longest(&self) -> usize {
        self.size().bytes()
    }
}
