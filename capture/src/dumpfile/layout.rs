//! The fixed parts, byte for byte. In: values. Out: bytes, and back.
//! May surprise: `tv_usec` of the header stays 0, because libkdumpfile first tries the 32-bit layout, in which that
//! place is `block_size`. Versions 3 to 6 are read, only 6 is written; what a dump says of its own layout is kept beside
//! the values ([`Placed`]), since other programs lay out as they please.
//!
//! Source: crash's diskdump.h and what makedumpfile writes on x86_64; all little-endian.

use crate::units::{FileOffset, PageSize, Pfn, le32, le64};

/// Why bytes are no header.
type Wrong = &'static str;

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
    /// Where the text lies that says what was erased, and its length.
    pub eraseinfo: Option<(FileOffset, u64)>,
    /// Of a dump that was laid out differently from what is written here: how.
    pub placed: Option<Placed>,
}

/// Where things are in a dump of another version or another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// `header_version`.
    pub version: u32,
    sub_blocks: u64,
    /// Of one bitmap.
    bitmap_bytes: u64,
    notes_at: FileOffset,
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

    /// The version of the file it was read from, or will be in.
    pub fn version(&self) -> u32 {
        self.placed.map_or(VERSION, |placed| placed.version)
    }

    /// Whether the notes are vmcoreinfo alone, without the head of a note: so it was in version 3.
    pub fn has_bare_vmcoreinfo(&self) -> bool {
        self.version() < 4
    }

    /// Blocks of sub header and notes.
    pub fn sub_blocks(&self) -> u64 {
        if let Some(placed) = self.placed {
            return placed.sub_blocks;
        }
        (SUB_HEADER as u64 + self.notes_len).div_ceil(self.block_bytes())
    }

    /// Bytes of one bitmap, a multiple of the block size.
    pub fn bitmap_bytes(&self) -> u64 {
        if let Some(placed) = self.placed {
            return placed.bitmap_bytes;
        }
        self.max_pfn.0.div_ceil(8).next_multiple_of(self.block_bytes())
    }

    /// Where the notes begin.
    pub fn notes_at(&self) -> FileOffset {
        self.placed.map_or(FileOffset(self.block_bytes() + SUB_HEADER as u64), |placed| placed.notes_at)
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
        if let Some((at, len)) = self.eraseinfo {
            put(&mut sub, 64, &at.0.to_le_bytes());
            put(&mut sub, 72, &len.to_le_bytes());
        }
        put(&mut sub, 96, &self.max_pfn.0.to_le_bytes());
        sub
    }

    /// Reads both back from the start of a file; the text says why it cannot.
    pub fn read(start: &[u8]) -> Result<Header, Wrong> {
        if !start.starts_with(SIGNATURE) {
            return Err("no kdump-compressed dump");
        }
        match le32(start, 8) {
            Some(3..=VERSION) => {
                Header::fields(start).ok_or("a kdump-compressed dump whose header is damaged or of a 32-bit machine")
            }
            _ => Err("no kdump-compressed dump of version 3 to 6"),
        }
    }

    fn fields(start: &[u8]) -> Option<Header> {
        let version = le32(start, 8)?;
        let block = PageSize::new(u64::from(le32(start, 428)?))?;
        let bytes = block.bytes() as u64;
        let sub = start.get(block.bytes()..)?.get(..SUB_HEADER)?;
        // Each version added to the end of the sub header, and notes followed directly: what a version does not have
        // must not be looked for.
        let since = |first: u32, at: usize| if version >= first { le64(sub, at) } else { Some(0) };
        let (info_at, info_len) = (le64(sub, 32)?, le64(sub, 40)?);
        let (notes_at, notes_len) = if version < 4 { (info_at, info_len) } else { (since(4, 48)?, since(4, 56)?) };
        let (erased_at, erased_len) = (since(5, 64)?, since(5, 72)?);
        let pages = |wide: usize, narrow: usize| le64(sub, if version >= 6 { wide } else { narrow }).map(Pfn);
        let mut header = Header {
            utsname: Box::new(*start.get(12..)?.first_chunk()?),
            crash_time: le64(start, 408)?,
            status: le32(start, 424)?,
            block,
            max_pfn: if version >= 6 { Pfn(le64(sub, 96)?) } else { Pfn(u64::from(le32(start, 440)?)) },
            cpus: le32(start, 460)?,
            phys_base: le64(sub, 0)?,
            level: u8::try_from(le32(sub, 8)?).ok()?,
            split: if le32(sub, 12)? == 0 { None } else { Some((pages(80, 16)?, pages(88, 24)?)) },
            notes_len,
            vmcoreinfo: if info_len == 0 { (0, 0) } else { (info_at.checked_sub(notes_at)?, info_len) },
            eraseinfo: (erased_len > 0).then_some((FileOffset(erased_at), erased_len)),
            placed: None,
        };
        let (sub_blocks, bitmap_blocks) = (u64::from(le32(start, 432)?), u64::from(le32(start, 436)?));
        let canonical = version == VERSION
            && sub_blocks == header.sub_blocks()
            && clip(2 * header.bitmap_bytes() / bytes) == clip(bitmap_blocks)
            && notes_at == header.notes_at().0;
        if !canonical {
            let bitmap_bytes = bitmap_blocks * bytes / 2;
            let placed = Placed { version, sub_blocks, bitmap_bytes, notes_at: FileOffset(notes_at) };
            header.placed = Some(placed);
        }
        // What must fit together, or the dump cannot be read.
        let (info_at, info_len) = header.vmcoreinfo;
        let sane = header.notes_len <= 1 << 30
            && notes_at.checked_add(header.notes_len)? <= 1 << 62
            && header.max_pfn.0 <= MAX_PFN
            && header.bitmap_bytes() >= header.max_pfn.0.div_ceil(8)
            && info_at.checked_add(info_len)? <= header.notes_len
            && erased_at.checked_add(erased_len)? <= 1 << 62;
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
        let block = prop::sample::select(vec![PageSize::K4, PageSize::K16, PageSize::K64]);
        (numbers, 0u64..1 << 20, any::<bool>(), block).prop_map(
            |((time, status, max, cpus, base, level), notes, info, block)| Header {
                utsname: Box::new([b'x'; UTSNAME]),
                crash_time: time,
                status,
                block,
                max_pfn: Pfn(max),
                cpus,
                phys_base: base,
                level,
                split: info.then_some((Pfn(max / 3), Pfn(max / 2))),
                notes_len: notes,
                vmcoreinfo: if info && notes > 8 { (4, notes - 8) } else { (0, 0) },
                eraseinfo: info.then_some((FileOffset(time >> 3), notes + 1)),
                placed: None,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(header in header()) {
            let mut start = header.header_block();
            start.extend(header.sub_header());
            prop_assert_eq!(Header::read(&start), Ok(header));
        }

        #[test]
        fn a_descriptor_is_read_back(offset in any::<u64>(), size in any::<u32>(), flags in any::<u32>()) {
            let d = Descriptor { offset, size, flags };
            prop_assert_eq!(Descriptor::parse(&d.bytes()), Some(d));
        }

        #[test]
        fn older_versions_are_read_by_what_they_say_of_themselves(header in header(), version in 3u32..6, blocks in 0u32..9) {
            let header = Header { block: PageSize::K4, ..header };
            let mut start = header.header_block();
            start.extend(header.sub_header());
            start[8] = u8::try_from(version).unwrap();
            // Sub headers ended after vmcoreinfo, notes and eraseinfo in turn; what comes then is no part of them.
            let end = [48, 64, 80][version as usize - 3];
            start[4096 + end..].fill(0xff);
            start[432..436].copy_from_slice(&blocks.to_le_bytes());
            start[440..444].copy_from_slice(&100_000u32.to_le_bytes());
            start[436..440].copy_from_slice(&16u32.to_le_bytes());
            let read = Header::read(&start).unwrap();
            prop_assert_eq!((read.version(), read.max_pfn, read.has_bare_vmcoreinfo()), (version, Pfn(100_000), version == 3));
            prop_assert_eq!(read.bitmap1_at(), FileOffset((1 + u64::from(blocks)) * 4096));
            prop_assert_eq!(read.bitmap_bytes(), 8 * 4096);
            prop_assert_eq!(read.vmcoreinfo.1, header.vmcoreinfo.1);
            prop_assert_eq!(read.eraseinfo, header.eraseinfo.filter(|_| version == 5));
            start[436..440].copy_from_slice(&6u32.to_le_bytes());
            prop_assert!(Header::read(&start).is_err(), "a bitmap too small for its pages");
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..9000), version in 2u32..8) {
            if bytes.len() > 12 { bytes[..8].copy_from_slice(SIGNATURE); bytes[8..12].copy_from_slice(&version.to_le_bytes()); }
            let _ = Header::read(&bytes);
        }
    }
}
