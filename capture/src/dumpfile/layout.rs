//! The fixed parts, byte for byte. In: values. Out: bytes, and back.
//! May surprise: `tv_usec` of the header stays 0, because libkdumpfile first tries the 32-bit layout, in which that
//! place is `block_size`.
//!
//! Source: crash's diskdump.h and what makedumpfile writes on x86_64; all little-endian.

use crate::units::{FileOffset, PageSize, Pfn, le32, le64};

/// `"KDUMP   "`.
pub const SIGNATURE: &[u8; 8] = b"KDUMP   ";
/// The version written.
pub const VERSION: u32 = 6;
/// `status`: the dump is incomplete.
pub const INCOMPLETE: u32 = 0x08;
/// Bytes of a page descriptor.
pub const DESCRIPTOR: usize = 24;
/// Bytes of utsname in the header: six names of 65 bytes.
pub const UTSNAME: usize = 390;

/// No machine has physical addresses beyond 52 bits; a page has 4 KiB at least.
const MAX_PFN: u64 = 1 << 40;

const HEADER: usize = 464;
const SUB_HEADER: usize = 104;

/// `disk_dump_header` and `kdump_sub_header`, the fields that are not always zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Six names, each padded with zeros to 65 bytes.
    pub utsname: Box<[u8; UTSNAME]>,
    /// Unix time of the crash.
    pub crash_time: u64,
    /// Codec bit, and [`INCOMPLETE`].
    pub status: u32,
    /// The page size.
    pub block: PageSize,
    /// One past the highest page frame.
    pub max_pfn: Pfn,
    /// NT_PRSTATUS notes.
    pub cpus: u32,
    /// `phys_base`, as the kernel exported it.
    pub phys_base: u64,
    /// The dump level.
    pub level: u8,
    /// Of a split dump, the pages that this file has: the first, and one past the last.
    pub split: Option<(Pfn, Pfn)>,
    /// Bytes of the notes.
    pub notes_len: u64,
    /// Where in the notes vmcoreinfo lies, and its length; both 0 if there is none.
    pub vmcoreinfo: (u64, u64),
}

fn put(block: &mut [u8], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A number clipped to the 32 bits the older fields have.
fn clip(n: u64) -> [u8; 4] {
    u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes()
}

impl Header {
    fn block_bytes(&self) -> u64 {
        self.block.bytes() as u64
    }

    /// Blocks of sub header and notes.
    pub fn sub_blocks(&self) -> u64 {
        (SUB_HEADER as u64 + self.notes_len).div_ceil(self.block_bytes())
    }

    /// Bytes of one bitmap, a multiple of the block size.
    pub fn bitmap_bytes(&self) -> u64 {
        self.max_pfn.0.div_ceil(8).next_multiple_of(self.block_bytes())
    }

    /// Where the notes begin.
    pub fn notes_at(&self) -> FileOffset {
        FileOffset(self.block_bytes() + SUB_HEADER as u64)
    }

    /// Where bitmap 1 begins.
    pub fn bitmap1_at(&self) -> FileOffset {
        FileOffset((1 + self.sub_blocks()) * self.block_bytes())
    }

    /// Where bitmap 2 begins.
    pub fn bitmap2_at(&self) -> FileOffset {
        FileOffset(self.bitmap1_at().0 + self.bitmap_bytes())
    }

    /// Where the descriptors begin.
    pub fn descriptors_at(&self) -> FileOffset {
        FileOffset(self.bitmap2_at().0 + self.bitmap_bytes())
    }

    /// Where the data begins, with `kept` descriptors before it.
    pub fn data_at(&self, kept: u64) -> FileOffset {
        FileOffset(self.descriptors_at().0 + kept * DESCRIPTOR as u64)
    }

    /// The first block of the file.
    pub fn header_block(&self) -> Vec<u8> {
        let mut block = vec![0; self.block.bytes()];
        put(&mut block, 0, SIGNATURE);
        put(&mut block, 8, &VERSION.to_le_bytes());
        put(&mut block, 12, self.utsname.as_slice());
        put(&mut block, 408, &self.crash_time.to_le_bytes());
        put(&mut block, 424, &self.status.to_le_bytes());
        put(&mut block, 428, &clip(self.block_bytes()));
        put(&mut block, 432, &clip(self.sub_blocks()));
        put(&mut block, 436, &clip(2 * self.bitmap_bytes() / self.block_bytes()));
        put(&mut block, 440, &clip(self.max_pfn.0));
        put(&mut block, 460, &self.cpus.to_le_bytes());
        block
    }

    /// The sub header; the notes follow it directly.
    pub fn sub_header(&self) -> Vec<u8> {
        let mut sub = vec![0; SUB_HEADER];
        let notes_at = self.notes_at().0;
        put(&mut sub, 0, &self.phys_base.to_le_bytes());
        put(&mut sub, 8, &u32::from(self.level).to_le_bytes());
        if let Some((start, end)) = self.split {
            put(&mut sub, 12, &1u32.to_le_bytes());
            put(&mut sub, 16, &clip(start.0));
            put(&mut sub, 24, &clip(end.0));
            put(&mut sub, 80, &start.0.to_le_bytes());
            put(&mut sub, 88, &end.0.to_le_bytes());
        }
        if self.vmcoreinfo.1 > 0 {
            put(&mut sub, 32, &(notes_at + self.vmcoreinfo.0).to_le_bytes());
            put(&mut sub, 40, &self.vmcoreinfo.1.to_le_bytes());
        }
        put(&mut sub, 48, &notes_at.to_le_bytes());
        put(&mut sub, 56, &self.notes_len.to_le_bytes());
        put(&mut sub, 96, &self.max_pfn.0.to_le_bytes());
        sub
    }

    /// Reads both back from the start of a file; `None` if it is no version 6 dump, or its fields cannot be.
    pub fn parse(start: &[u8]) -> Option<Header> {
        if start.len() < HEADER || !start.starts_with(SIGNATURE) || le32(start, 8)? != VERSION {
            return None;
        }
        let block = PageSize::new(u64::from(le32(start, 428)?))?;
        let sub = start.get(block.bytes()..)?.get(..SUB_HEADER)?;
        let notes_at = block.bytes() as u64 + SUB_HEADER as u64;
        let info_len = le64(sub, 40)?;
        let info_at = if info_len == 0 { 0 } else { le64(sub, 32)?.checked_sub(notes_at)? };
        let header = Header {
            utsname: Box::new(*start.get(12..)?.first_chunk()?),
            crash_time: le64(start, 408)?,
            status: le32(start, 424)?,
            block,
            max_pfn: Pfn(le64(sub, 96)?),
            cpus: le32(start, 460)?,
            phys_base: le64(sub, 0)?,
            level: u8::try_from(le32(sub, 8)?).ok()?,
            split: if le32(sub, 12)? == 0 { None } else { Some((Pfn(le64(sub, 80)?), Pfn(le64(sub, 88)?))) },
            notes_len: le64(sub, 56)?,
            vmcoreinfo: (info_at, info_len),
        };
        // What the two sides must agree on: a dump whose numbers do not fit together cannot be read.
        let sane = header.notes_len <= 1 << 30
            && header.max_pfn.0 <= MAX_PFN
            && u64::from(le32(start, 432)?) == header.sub_blocks()
            && clip(2 * header.bitmap_bytes() / header.block_bytes()) == le32(start, 436)?.to_le_bytes()
            && le64(sub, 48)? == notes_at
            && info_at.checked_add(info_len)? <= header.notes_len;
        sane.then_some(header)
    }
}

/// Where the data of one page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Descriptor {
    /// Position in the file; 0 means the page could not be saved.
    pub offset: u64,
    /// Bytes there.
    pub size: u32,
    /// Codec bit; 0 for a page as it is.
    pub flags: u32,
}

impl Descriptor {
    /// Whether the page could not be saved.
    pub fn is_missing(&self) -> bool {
        self.offset == 0
    }

    /// Its 24 bytes; `page_flags` is always 0.
    pub fn bytes(&self) -> [u8; DESCRIPTOR] {
        let mut bytes = [0; DESCRIPTOR];
        put(&mut bytes, 0, &self.offset.to_le_bytes());
        put(&mut bytes, 8, &self.size.to_le_bytes());
        put(&mut bytes, 12, &self.flags.to_le_bytes());
        bytes
    }

    /// Reads it back.
    pub fn parse(bytes: &[u8]) -> Option<Descriptor> {
        Some(Descriptor { offset: le64(bytes, 0)?, size: le32(bytes, 8)?, flags: le32(bytes, 12)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> impl Strategy<Value = Header> {
        let numbers = (any::<u64>(), any::<u32>(), 0u64..1 << 40, any::<u32>(), any::<u64>(), 0u8..32);
        (numbers, 0u64..1 << 20, any::<bool>()).prop_map(|((time, status, max, cpus, base, level), notes, info)| {
            Header {
                utsname: Box::new([b'x'; UTSNAME]),
                crash_time: time,
                status,
                block: PageSize::K4,
                max_pfn: Pfn(max),
                cpus,
                phys_base: base,
                level,
                split: info.then_some((Pfn(max / 3), Pfn(max / 2))),
                notes_len: notes,
                vmcoreinfo: if info && notes > 8 { (4, notes - 8) } else { (0, 0) },
            }
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(header in header()) {
            let mut start = header.header_block();
            start.extend(header.sub_header());
            prop_assert_eq!(Header::parse(&start), Some(header));
        }

        #[test]
        fn a_descriptor_is_read_back(offset in any::<u64>(), size in any::<u32>(), flags in any::<u32>()) {
            let d = Descriptor { offset, size, flags };
            prop_assert_eq!(Descriptor::parse(&d.bytes()), Some(d));
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..9000)) {
            if bytes.len() > 12 { bytes[..8].copy_from_slice(SIGNATURE); bytes[8..12].copy_from_slice(&6u32.to_le_bytes()); }
            let _ = Header::parse(&bytes);
        }
    }
}
