//! Reads an initramfs as a kernel would: newc archives one behind the other, some of them compressed.
//!
//! In: untrusted bytes. Out: entries that point into them. Every length is checked against what is left; compressed
//! parts are unpacked up to a bound; an archive in a compression that is not read is refused by its name.

use super::layout::{HEADER, Header, MAGIC_SUM, TRAILER, padding};
use crate::host::kernel::Compression;
use crate::unpack::unpack_one;
use anyhow::{Context, bail};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

/// All compressed parts of an image together may not be larger than this.
const MAX_UNPACKED: usize = 1 << 30;

/// The compressions that the kernel knows and this reader does not.
const OTHERS: [(&[u8], &str); 4] =
    [(b"BZ", "bzip2"), (&[0x5d, 0x00], "lzma"), (&[0x89, b'L'], "lzo"), (&[0x02, 0x21], "lz4")];

/// An image that has been read.
#[derive(Debug)]
pub struct Archive<'a> {
    parts: Vec<Cow<'a, [u8]>>,
    /// For each file with several names, the entry that has its data.
    links: BTreeMap<Inode, usize>,
    archives: usize,
    /// Its entries, in the order of the image.
    pub entries: Vec<Entry>,
}

/// What makes two entries names of one file: archive, device, inode number.
type Inode = (usize, u32, u32, u32);

/// Header, name and place of content.
type Found = (Header, Vec<u8>, Range<usize>);

/// One entry of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its header.
    pub header: Header,
    /// Its name as it is written there.
    pub name: Vec<u8>,
    /// How many archives stand before its own.
    archive: usize,
    part: usize,
    data: Range<usize>,
}

impl Entry {
    /// The name without `./` and slashes in front.
    pub fn path(&self) -> Cow<'_, str> {
        let mut name = self.name.as_slice();
        while let Some(rest) = name.strip_prefix(b"./").or(name.strip_prefix(b"/")) {
            name = rest;
        }
        String::from_utf8_lossy(name)
    }

    /// The file that it is a name of, if that can have others.
    fn inode(&self) -> Option<Inode> {
        let Header { mode, nlink, devmajor, devminor, ino, .. } = self.header;
        (mode & libc::S_IFMT == libc::S_IFREG && nlink > 1).then_some((self.archive, devmajor, devminor, ino))
    }
}

impl<'a> Archive<'a> {
    /// Reads an image.
    ///
    /// # Errors
    /// The bytes are not an image, end too early, or are compressed in a way that is not read.
    pub fn read(image: &'a [u8]) -> anyhow::Result<Archive<'a>> {
        let mut archive = Archive { parts: Vec::new(), links: BTreeMap::new(), archives: 0, entries: Vec::new() };
        let mut budget = MAX_UNPACKED;
        let mut rest = image;
        while let Some(start) = rest.iter().position(|&byte| byte != 0) {
            let offset = image.len() - rest.len() + start;
            rest = rest.get(start..).unwrap_or_default();
            let used = archive.part(rest, &mut budget).with_context(|| format!("at byte {offset}"))?;
            rest = rest.get(used..).unwrap_or_default();
        }
        for (index, entry) in archive.entries.iter().enumerate().filter(|(_, entry)| !entry.data.is_empty()) {
            if let Some(inode) = entry.inode() {
                archive.links.insert(inode, index);
            }
        }
        if archive.entries.is_empty() {
            bail!("there is no archive in it");
        }
        Ok(archive)
    }

    /// The bytes of an entry; for a hard link, those of the file that it is a name of.
    pub fn data(&self, entry: &Entry) -> &[u8] {
        let elsewhere = match entry.data.is_empty() {
            true => entry.inode().and_then(|inode| self.entries.get(*self.links.get(&inode)?)),
            false => None,
        };
        self.slice(elsewhere.unwrap_or(entry))
    }

    /// The entries that count: of those with one path the last, sorted by path.
    pub fn files(&self) -> BTreeMap<Cow<'_, str>, &Entry> {
        self.entries.iter().map(|entry| (entry.path(), entry)).collect()
    }

    fn slice(&self, entry: &Entry) -> &[u8] {
        self.parts.get(entry.part).and_then(|part| part.get(entry.data.clone())).unwrap_or_default()
    }

    /// Reads the archive or compressed member that `bytes` starts with; how long it is.
    fn part(&mut self, bytes: &'a [u8], budget: &mut usize) -> anyhow::Result<usize> {
        if bytes.starts_with(b"0") {
            let used = self.archive(bytes, 0)?;
            self.parts.push(Cow::Borrowed(bytes.get(..used).unwrap_or_default()));
            return Ok(used);
        }
        if let Some((_, name)) = OTHERS.iter().find(|(magic, _)| bytes.starts_with(magic)) {
            bail!("the archive is compressed with {name}, which is not read here; unpack it with {name} first");
        }
        let Some(compression) = Compression::of(bytes) else { bail!("this is neither a newc archive nor compressed") };
        let (unpacked, used) = unpack_one(bytes, compression, *budget)?;
        *budget = budget.saturating_sub(unpacked.len());
        let mut start = 0;
        while let Some(gap) = unpacked.get(start..).and_then(|rest| rest.iter().position(|&byte| byte != 0)) {
            start += gap;
            let part = unpacked.get(start..).unwrap_or_default();
            start += self.archive(part, start).with_context(|| format!("in its {compression} part"))?;
        }
        self.parts.push(Cow::Owned(unpacked));
        Ok(used)
    }

    /// Takes the entries of the archive that begins at `start` of the coming part; how long it is.
    fn archive(&mut self, bytes: &[u8], start: usize) -> anyhow::Result<usize> {
        let (found, used) = entries(bytes)?;
        let (archive, part) = (self.archives, self.parts.len());
        self.archives += 1;
        let entry = |(header, name, data): Found| Entry {
            header,
            name,
            archive,
            part,
            data: data.start + start..data.end + start,
        };
        self.entries.extend(found.into_iter().map(entry));
        Ok(used)
    }
}

/// Every entry of one archive up to its trailer, and how long it is.
fn entries(bytes: &[u8]) -> anyhow::Result<(Vec<Found>, usize)> {
    let mut entries = Vec::new();
    let mut at = 0;
    loop {
        let Some(header) = bytes.get(at..).and_then(|rest| rest.first_chunk::<HEADER>()) else {
            bail!("the archive ends without its trailer; the image is cut off");
        };
        let summed = header.starts_with(MAGIC_SUM);
        let header = Header::decode(header).with_context(|| format!("there is no newc header at byte {at} of it"))?;
        let name_end = at + HEADER + header.namesize as usize;
        let name = bytes.get(at + HEADER..name_end).with_context(|| format!("the name at byte {at} is cut off"))?;
        let Some((0, name)) = name.split_last() else { bail!("the name at byte {at} does not end") };
        let start = name_end + padding(name_end);
        let data = start..start + header.filesize as usize;
        let content = bytes
            .get(data.clone())
            .with_context(|| format!("the content of {} is cut off", String::from_utf8_lossy(name)))?;
        if summed && content.iter().fold(0u32, |sum, &byte| sum.wrapping_add(byte.into())) != header.check {
            bail!("the content of {} does not match its sum", String::from_utf8_lossy(name));
        }
        at = (data.end + padding(data.end)).min(bytes.len());
        if name == TRAILER {
            return Ok((entries, at));
        }
        entries.push((header, name.to_vec(), data));
    }
}
