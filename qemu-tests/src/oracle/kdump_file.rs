//! A kdump-compressed file, version 6, as its readers see it.
//!
//! ```text
//! 0                                   header: signature, utsname, status, block_size, sizes
//! block                               sub header, then the notes (vmcoreinfo is inside them)
//! (1 + sub_hdr_size) blocks           bitmap 1: in the source · bitmap 2: has a descriptor
//! … + bitmap_blocks                   descriptors of 24 bytes, one per bit of bitmap 2, in pfn order
//! …                                   page data, each page by itself
//! ```
//!
//! Of a split dump each part has both bitmaps whole, a range of pfns that it holds, and the descriptors of those pages
//! only, at the start of their place.
//!
//! Opening checks everything that does not need a page; [`PageReader`] checks the rest, page by page.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};

const DESCRIPTOR: u64 = 24;
const SUB_HEADER: usize = 104;
const ZLIB: u32 = 0x01;
const LZO: u32 = 0x02;
const SNAPPY: u32 = 0x04;
const INCOMPLETE: u32 = 0x08;
const ZSTD: u32 = 0x20;

/// How one page lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// As it is.
    Plain,
    /// A zlib stream.
    Zlib,
    /// A bare lzo1x block.
    Lzo,
    /// A bare snappy block.
    Snappy,
    /// One zstd frame.
    Zstd,
}

/// Where a page lies in the file, checked to be inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From the file's start.
    pub offset: u64,
    /// Bytes in the file.
    pub size: u32,
    /// The codec's bit.
    pub flags: u32,
}

/// An opened dump.
#[derive(Debug)]
pub struct KdumpFile {
    file: File,
    length: u64,
    /// Bytes of a page.
    pub block_size: usize,
    /// Flags of the whole dump.
    pub status: u32,
    /// Processors that left their registers.
    pub cpus: u32,
    /// The kernel's release, from its utsname.
    pub release: String,
    /// What was left out, as the five bits of `-d`.
    pub level: u32,
    /// One more than the last pfn.
    pub max_mapnr: u64,
    /// The pfns that are in this file, if the dump is split.
    pub part: Option<Range<u64>>,
    /// The kernel's description of itself.
    pub vmcoreinfo: String,
    /// Pages in the source.
    pub bitmap1: Vec<u8>,
    /// Pages with a descriptor.
    pub bitmap2: Vec<u8>,
    descriptors: u64,
    data: u64,
}

impl KdumpFile {
    /// Opens a dump and checks its headers and bitmaps.
    pub fn open(path: &Path) -> Result<KdumpFile> {
        let dump = KdumpFile::open_without_notes(path)?;
        let sound = || {
            ensure!(dump.cpus >= 1, "no CPU is recorded");
            ensure!(dump.vmcoreinfo.contains("OSRELEASE="), "vmcoreinfo names no kernel release");
            Ok(())
        };
        sound().with_context(|| format!("unable to read the dump {}", path.display()))?;
        Ok(dump)
    }

    /// Opens a dump of a source whose notes are damaged, so that they say nothing of processors and kernel.
    pub fn open_without_notes(path: &Path) -> Result<KdumpFile> {
        File::open(path)
            .map_err(anyhow::Error::from)
            .and_then(read_headers)
            .with_context(|| format!("unable to read the dump {}", path.display()))
    }

    /// Whether the dump says of itself that it is unfinished.
    pub fn is_incomplete(&self) -> bool {
        self.status & INCOMPLETE != 0
    }

    /// The pages that this file holds, in order.
    pub fn kept(&self) -> Vec<u64> {
        let mut kept = pfns(&self.bitmap2);
        if let Some(part) = &self.part {
            kept.retain(|pfn| part.contains(pfn));
        }
        kept
    }

    /// How many pages the source had.
    pub fn in_source(&self) -> u64 {
        self.bitmap1.iter().map(|byte| u64::from(byte.count_ones())).sum()
    }

    /// A line of vmcoreinfo, by its key with brackets: `NUMBER(pgtable_l5_enabled)`, `OSRELEASE`.
    pub fn fact(&self, key: &str) -> Option<&str> {
        self.vmcoreinfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    }

    /// Where the `index`th kept page lies, as its descriptor says.
    pub fn place(&self, index: u64) -> Result<Place> {
        let descriptor = read_at(&self.file, self.descriptors + index * DESCRIPTOR, 24)?;
        let (offset, size, flags) = (u64_at(&descriptor, 0)?, u32_at(&descriptor, 8)?, u32_at(&descriptor, 12)?);
        ensure!(offset != 0, "the descriptor is empty: the page was never written");
        ensure!(u64_at(&descriptor, 16)? == 0, "the descriptor's page flags are not zero");
        ensure!(offset >= self.data, "the data at {offset:#x} lies before the page data");
        ensure!(inside(offset, u64::from(size), self.length), "the data at {offset:#x} reaches beyond the file");
        Ok(Place { offset, size, flags })
    }

    /// Reads pages of this dump; each thread has its own.
    pub fn pages(&self) -> Result<PageReader<'_>> {
        let zstd = zstd::bulk::Decompressor::new().context("unable to set up zstd")?;
        Ok(PageReader { dump: self, zstd, packed: Vec::new() })
    }
}

fn read_headers(file: File) -> Result<KdumpFile> {
    let length = file.metadata()?.len();
    let header = read_at(&file, 0, 464).context("too short for the header")?;
    ensure!(header[..8] == *b"KDUMP   ", "the signature is {:?}", String::from_utf8_lossy(&header[..8]));
    let version = u32_at(&header, 8)?;
    ensure!(version == 6, "header version {version}, expected 6");
    let release = header[12 + 130..12 + 195].split(|byte| *byte == 0).next().unwrap_or_default();
    let block_size = usize::try_from(u32_at(&header, 428)?)?;
    ensure!(block_size.is_power_of_two() && (4096..=262_144).contains(&block_size), "block size {block_size}");
    ensure!(u64_at(&header, 416)? == 0, "the timestamp has microseconds, which readers take for a 32-bit layout");
    let (sub_blocks, bitmap_blocks) = (u64::from(u32_at(&header, 432)?), u64::from(u32_at(&header, 436)?));
    let block = block_size as u64;

    let sub = read_at(&file, block, SUB_HEADER).context("too short for the sub header")?;
    let (notes, notes_size) = (u64_at(&sub, 48)?, u64_at(&sub, 56)?);
    let (info, info_size) = (u64_at(&sub, 32)?, u64_at(&sub, 40)?);
    let bitmaps = (1 + sub_blocks) * block;
    ensure!(notes == block + SUB_HEADER as u64, "the notes are at {notes:#x}, not behind the sub header");
    ensure!(inside(notes, notes_size, bitmaps), "the notes reach into the bitmaps");
    let is_inside = info >= notes && inside(info, info_size, notes + notes_size);
    ensure!(info_size == 0 || is_inside, "vmcoreinfo is outside the notes");
    let vmcoreinfo = read_at(&file, info, usize::try_from(info_size)?).context("vmcoreinfo is cut off")?;
    let vmcoreinfo = String::from_utf8_lossy(&vmcoreinfo).into_owned();

    let max_mapnr = u64_at(&sub, 96)?;
    let part = u64_at(&sub, 80)?..u64_at(&sub, 88)?;
    let part = (u32_at(&sub, 12)? != 0).then_some(part);
    ensure!(part.as_ref().is_none_or(|part| part.end <= max_mapnr), "the part {part:x?} ends beyond max_mapnr");
    let clipped = u64::from(u32_at(&header, 440)?);
    ensure!(clipped == max_mapnr.min(u64::from(u32::MAX)), "max_mapnr is {max_mapnr:#x}, clipped to {clipped:#x}");
    let (half, needed) = (bitmap_blocks * block / 2, max_mapnr.div_ceil(8));
    ensure!(bitmap_blocks.is_multiple_of(2) && half >= needed, "bitmaps of {half} bytes, {needed} needed");
    ensure!(inside(bitmaps, bitmap_blocks * block, length), "the bitmaps are cut off");
    let needed = usize::try_from(needed)?;
    let bitmap1 = read_at(&file, bitmaps, needed)?;
    let bitmap2 = read_at(&file, bitmaps + half, needed)?;
    let outside = bitmap1.iter().zip(&bitmap2).position(|(source, kept)| kept & !source != 0);
    if let Some(byte) = outside {
        bail!("bitmap 2 is not within bitmap 1, first near pfn {:#x}", byte * 8);
    }
    ensure!(pfns(&bitmap1).last().is_none_or(|last| *last < max_mapnr), "a page beyond max_mapnr is recorded");
    let descriptors = bitmaps + bitmap_blocks * block;
    let count: u64 = bitmap2.iter().map(|byte| u64::from(byte.count_ones())).sum();
    let data = descriptors + count * DESCRIPTOR;
    ensure!(data <= length, "{count} descriptors do not fit into the file");

    Ok(KdumpFile {
        length,
        block_size,
        status: u32_at(&header, 424)?,
        cpus: u32_at(&header, 460)?,
        release: String::from_utf8_lossy(release).into_owned(),
        level: u32_at(&sub, 8)?,
        max_mapnr,
        part,
        vmcoreinfo,
        bitmap1,
        bitmap2,
        descriptors,
        data,
        file,
    })
}

/// Reads and unpacks pages of one dump.
pub struct PageReader<'dump> {
    dump: &'dump KdumpFile,
    zstd: zstd::bulk::Decompressor<'static>,
    packed: Vec<u8>,
}

impl std::fmt::Debug for PageReader<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("PageReader").field("dump", self.dump).finish_non_exhaustive()
    }
}

impl Stored {
    /// The codec's name.
    pub fn name(self) -> &'static str {
        match self {
            Stored::Plain => "plain",
            Stored::Zlib => "zlib",
            Stored::Lzo => "lzo",
            Stored::Snappy => "snappy",
            Stored::Zstd => "zstd",
        }
    }
}

impl PageReader<'_> {
    /// Bytes of a page.
    pub fn block_size(&self) -> usize {
        self.dump.block_size
    }

    /// Fills `page` with the `index`th kept page, checking its descriptor and that exactly one page comes out.
    pub fn read(&mut self, index: u64, page: &mut [u8]) -> Result<Stored> {
        let dump = self.dump;
        let Place { offset, size, flags } = dump.place(index)?;
        let size = usize::try_from(size)?;
        ensure!(size <= dump.block_size && size > 0, "{size} bytes of data");
        ensure!((flags == 0) == (size == dump.block_size), "flags {flags:#x} with {size} bytes of data");
        self.packed.resize(size, 0);
        dump.file.read_exact_at(&mut self.packed, offset)?;
        let (length, stored) = match flags {
            0 => {
                page.copy_from_slice(&self.packed);
                (size, Stored::Plain)
            }
            ZLIB => (inflate(&self.packed, page)?, Stored::Zlib),
            LZO => {
                let unpacked = lzokay_native::decompress_all(&self.packed, Some(page.len()));
                let unpacked = unpacked.map_err(|error| anyhow!("{error}")).context("the lzo block is broken")?;
                page.get_mut(..unpacked.len()).context("the lzo block is too long")?.copy_from_slice(&unpacked);
                (unpacked.len(), Stored::Lzo)
            }
            SNAPPY => {
                let length = snap::raw::Decoder::new().decompress(&self.packed, page);
                (length.context("the snappy block is broken")?, Stored::Snappy)
            }
            ZSTD => {
                (self.zstd.decompress_to_buffer(&self.packed, page).context("the zstd frame is broken")?, Stored::Zstd)
            }
            other => bail!("unknown flags {other:#x}"),
        };
        ensure!(length == dump.block_size, "{length} bytes after decompression");
        Ok(stored)
    }
}

fn inflate(packed: &[u8], page: &mut [u8]) -> Result<usize> {
    let mut stream = flate2::Decompress::new(true);
    let status =
        stream.decompress(packed, page, flate2::FlushDecompress::Finish).context("the zlib stream is broken")?;
    ensure!(status == flate2::Status::StreamEnd, "the zlib stream does not end with the page");
    Ok(usize::try_from(stream.total_out())?)
}

/// The set bits of a bitmap, in order.
pub(super) fn pfns(bitmap: &[u8]) -> Vec<u64> {
    let set = |(byte, bits): (u64, &u8)| {
        let bits = *bits;
        (0..8).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| byte * 8 + bit)
    };
    (0..).zip(bitmap).flat_map(set).collect()
}

fn inside(offset: u64, size: u64, end: u64) -> bool {
    offset.checked_add(size).is_some_and(|last| last <= end)
}

fn read_at(file: &File, offset: u64, length: usize) -> Result<Vec<u8>> {
    let available = file.metadata()?.len();
    ensure!(inside(offset, length as u64, available), "{length} bytes at {offset:#x} are beyond the file's end");
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    let field = bytes.get(at..at + N).with_context(|| format!("no {N} bytes at offset {at}"))?;
    Ok(field.try_into()?)
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}
