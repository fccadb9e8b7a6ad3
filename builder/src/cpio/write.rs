//! Writes a plan as newc archives, the same bytes every time.
//!
//! Own inode numbers, owner 0:0, device 0:0, one time for all: nothing of the build machine gets in.
//!
//! ```text
//!   none:       [ everything ]
//!   any other:  [ directories, what is compressed already ] [ programs ] [ modules, firmware ] [ the rest ]
//!                 plain                                       compressed, each by itself; with lz4 in one
//! ```
//!
//! What is compressed already, as modules of many distributions are, would not get smaller. The rest shrinks to a third,
//! and with it the copy of the image that lies in the reserved memory until it is unpacked. Windows are small because
//! the unpacking kernel allocates them from the same memory. What is there twice is written once, with two names.
//!
//! A compressed part that an older image has in the same way is copied from it: to read it is several times as fast as to
//! compress it. lz4 is as fast at either, and its frames have no end of their own, so that there is one, always new.

use super::layout::{Header, TRAILER, padding};
use super::members::Members;
use crate::host::kernel::Compression;
use crate::plan::{Entry, Kind, Plan};
use crate::unpack::{Codec, Lz4};
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use xz2::stream::{Check, Filters, LzmaOptions, Stream};

/// The kernel skips longer names without a word.
const MAX_NAME: usize = 4096;

/// Higher levels take several times as long for a hundredth of the size.
const ZSTD_LEVEL: i32 = 6;
const XZ_LEVEL: u32 = 6;
const GZIP_LEVEL: u32 = 9;

/// 1 MiB, as a power of two.
const WINDOW: u32 = 20;

/// How an image is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Packing {
    /// One archive: nothing to unpack it with is needed, and the kernel only copies
    None,
    /// A plain archive with what is compressed already, and one compressed with zstd
    Zstd,
    /// The same with xz: smallest, and slowest to build and to boot
    Xz,
    /// The same with gzip, which every kernel unpacks
    Gzip,
    /// The same with lz4: largest, and fastest to unpack
    Lz4,
}

impl Packing {
    /// What a kernel has to be able to unpack.
    pub fn codec(self) -> Option<Codec> {
        match self {
            Packing::None => None,
            Packing::Zstd => Some(Codec::Zstd),
            Packing::Xz => Some(Codec::Xz),
            Packing::Gzip => Some(Codec::Gzip),
            Packing::Lz4 => Some(Codec::Lz4),
        }
    }
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.codec() {
            Some(codec) => codec.fmt(f),
            None => f.write_str("none"),
        }
    }
}

/// Writes all of `plan` with the modification time `mtime`.
///
/// # Errors
/// An entry does not fit the format, or `out` refuses.
pub fn write(plan: &Plan, mtime: u32, packing: Packing, out: &mut dyn Write) -> anyhow::Result<()> {
    write_again(plan, mtime, packing, None, out)
}

/// The same bytes, where an older image may have some of them.
///
/// # Errors
/// As [`write()`].
pub fn write_again(
    plan: &Plan,
    mtime: u32,
    packing: Packing,
    old: Option<&Members<'_>>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let Some(codec) = packing.codec() else { return archive(&records(plan.entries(), mtime)?, out) };
    let old = old.filter(|_| packing != Packing::Lz4);
    let of_part = |part: Part| records(plan.entries().filter(move |entry| Part::of(entry, packing) == part), mtime);
    archive(&of_part(Part::Plain)?, out)?;
    for part in [Part::Programs, Part::Modules, Part::Rest] {
        let records = of_part(part)?;
        match old.and_then(|old| old.find(codec, &records)) {
            _ if records.is_empty() => {}
            Some(member) => out.write_all(member)?,
            None => pack(&records, packing, out)?,
        }
    }
    Ok(())
}

/// Where an entry is in an image that is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Plain,
    Programs,
    Modules,
    Rest,
}

impl Part {
    fn of(entry: &Entry, packing: Packing) -> Part {
        let is_module = entry.path.ends_with(".ko") || entry.path.starts_with("lib/firmware/");
        match &entry.kind {
            Kind::Directory => Part::Plain,
            Kind::File(bytes) if Compression::of(bytes).is_some() => Part::Plain,
            _ if packing == Packing::Lz4 => Part::Rest,
            Kind::File(_) if is_module => Part::Modules,
            Kind::File(bytes) if bytes.starts_with(b"\x7fELF") => Part::Programs,
            Kind::File(_) | Kind::Symlink(_) | Kind::CharDevice { .. } => Part::Rest,
        }
    }
}

/// Compresses an archive.
fn pack(records: &[Record<'_>], packing: Packing, out: &mut dyn Write) -> anyhow::Result<()> {
    match packing {
        Packing::None => archive(records, out)?,
        Packing::Zstd => {
            let mut encoder = zstd::Encoder::new(out, ZSTD_LEVEL)?;
            encoder.window_log(WINDOW)?;
            archive(records, &mut encoder)?;
            encoder.finish()?;
        }
        Packing::Xz => {
            // Kernels know no other sum.
            let mut options = LzmaOptions::new_preset(XZ_LEVEL)?;
            options.dict_size(1 << WINDOW);
            let stream = Stream::new_stream_encoder(Filters::new().lzma2(&options), Check::Crc32)?;
            let mut encoder = xz2::write::XzEncoder::new_stream(out, stream);
            archive(records, &mut encoder)?;
            encoder.finish()?;
        }
        Packing::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::new(GZIP_LEVEL));
            archive(records, &mut encoder)?;
            encoder.finish()?;
        }
        Packing::Lz4 => {
            let mut encoder = Lz4::new(out)?;
            archive(records, &mut encoder)?;
            encoder.finish()?;
        }
    }
    Ok(())
}

/// The files that are there under several names: for each of them the number and the count of them, and whether it is
/// the last, which has the content.
#[derive(Debug, Default)]
struct Links(BTreeMap<u32, (u32, u32, bool)>);

/// The number and the content of a file.
type Numbered<'a> = (u32, &'a [u8]);

impl Links {
    fn of(entries: &[&Entry]) -> Links {
        // Only files of one mode and length can be the same.
        let mut groups: BTreeMap<(u32, usize), Vec<Numbered>> = BTreeMap::new();
        for (number, entry) in (1..).zip(entries) {
            if let Kind::File(bytes) = &entry.kind
                && !bytes.is_empty()
            {
                groups.entry((entry.mode, bytes.len())).or_default().push((number, bytes));
            }
        }
        let mut links = Links::default();
        for mut group in groups.into_values() {
            while let Some((first, bytes)) = group.first().copied() {
                let (same, others) = group.into_iter().partition::<Vec<_>, _>(|(_, other)| *other == bytes);
                group = others;
                let count = u32::try_from(same.len()).unwrap_or(u32::MAX);
                let last = same.last().map(|(number, _)| *number);
                let linked = same.iter().filter(|_| count > 1);
                links.0.extend(linked.map(|(number, _)| (*number, (first, count, Some(*number) == last))));
            }
        }
        links
    }
}

/// An entry as it stands in an archive.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) header: Header,
    pub(super) name: &'a [u8],
    pub(super) data: &'a [u8],
}

impl<'a> Record<'a> {
    fn new(header: Header, name: &'a [u8], data: &'a [u8]) -> anyhow::Result<Record<'a>> {
        if name.len() >= MAX_NAME || name.contains(&0) {
            bail!("the name is too long for the kernel or has a NUL in it");
        }
        let filesize = u32::try_from(data.len()).context("it is larger than 4 GiB")?;
        let header = Header { filesize, namesize: u32::try_from(name.len() + 1)?, ..header };
        Ok(Record { header, name, data })
    }

    fn of(entry: &'a Entry, plain: Header, has_content: bool) -> anyhow::Result<Record<'a>> {
        let (header, data): (Header, &[u8]) = match &entry.kind {
            Kind::Directory => (Header { mode: libc::S_IFDIR, nlink: 2, ..plain }, &[]),
            Kind::File(bytes) => (Header { mode: libc::S_IFREG, ..plain }, if has_content { bytes } else { &[] }),
            Kind::Symlink(target) => (Header { mode: libc::S_IFLNK, ..plain }, target.as_bytes()),
            Kind::CharDevice { major, minor } => {
                (Header { mode: libc::S_IFCHR, rdevmajor: *major, rdevminor: *minor, ..plain }, &[])
            }
        };
        Record::new(Header { mode: header.mode | entry.mode, ..header }, entry.path.as_bytes(), data)
    }
}

/// The entries of one archive. They are numbered by themselves, so that what is in one archive does not change with what
/// is in another; names of one file have to be in the same, since the kernel forgets them at its end.
fn records<'a>(entries: impl Iterator<Item = &'a Entry>, mtime: u32) -> anyhow::Result<Vec<Record<'a>>> {
    let entries: Vec<&Entry> = entries.collect();
    let links = Links::of(&entries);
    let record = |(number, entry): (u32, &'a Entry)| {
        let (ino, nlink, has_content) = links.0.get(&number).copied().unwrap_or((number, 1, true));
        let plain = Header { ino, mtime, nlink, ..Header::default() };
        Record::of(entry, plain, has_content).with_context(|| format!("cannot write /{}", entry.path))
    };
    (1..).zip(entries.iter().copied()).map(record).collect()
}

fn archive(records: &[Record<'_>], out: &mut dyn Write) -> anyhow::Result<()> {
    let mut archive = Archive { out, written: 0 };
    records.iter().try_for_each(|record| archive.record(record))?;
    archive.record(&Record::new(Header { nlink: 1, ..Header::default() }, TRAILER, &[])?)
}

struct Archive<'a> {
    out: &'a mut dyn Write,
    written: u64,
}

impl Archive<'_> {
    fn record(&mut self, Record { header, name, data }: &Record<'_>) -> anyhow::Result<()> {
        self.bytes(header.encode().as_bytes())?;
        self.bytes(name)?;
        self.bytes(&[0])?;
        self.pad()?;
        self.bytes(data)?;
        self.pad()
    }

    fn bytes(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self) -> anyhow::Result<()> {
        let tail = usize::try_from(self.written % 4)?;
        self.bytes([0; 3].get(..padding(tail)).unwrap_or_default())
    }
}
