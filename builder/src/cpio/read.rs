//! Reads an initramfs as a kernel would: newc archives one behind the other, some of them compressed.
//!
//! In: untrusted bytes. Out: entries, and the content of those that the caller wants to see. Every length is checked
//! against what is left; compressed parts flow through a small buffer, so that a list costs no memory for what it does
//! not show. May surprise: a boot configuration that is hung on the end of an image is passed over, as by a kernel.

use super::layout::{HEADER, Header, MAGIC_SUM, TRAILER, padding};
use crate::unpack::{Codec, member};
use anyhow::{Context, bail};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::ops::Range;

/// All parts of an image together may not unpack to more than this.
const MAX_UNPACKED: u64 = 8 << 30;

/// What is kept of it may not be more than this.
const MAX_KEPT: u64 = 2 << 30;

/// Kernels skip longer names.
const MAX_NAME: usize = 4096;

/// What a compressed part flows through.
const BUFFER: usize = 1 << 18;

/// What ends an image with a boot configuration behind it: size and sum of that stand before.
const BOOTCONFIG: &[u8] = b"#BOOTCONFIG\n";

/// An image that has been read.
#[derive(Debug, Default)]
pub struct Archive {
    kept: Vec<u8>,
    /// For each file with several names, the entry that has its data.
    links: BTreeMap<Inode, usize>,
    archives: usize,
    /// Its parts, in the order of the image.
    pub parts: Vec<Part>,
    /// Its entries, in the order of the image.
    pub entries: Vec<Entry>,
}

/// A piece of the image: a plain archive, or a compressed member, in which there may be several archives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// How it is compressed.
    pub codec: Option<Codec>,
    /// Where it is in the image.
    pub place: Range<usize>,
    /// What it unpacks to.
    pub unpacked: u64,
    /// Its entries.
    pub entries: Range<usize>,
}

/// What makes two entries names of one file: archive, device, inode number.
type Inode = (usize, u32, u32, u32);

/// One entry of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its header.
    pub header: Header,
    /// Its name as it is written there.
    pub name: Vec<u8>,
    /// How many archives stand before its own.
    archive: usize,
    /// Where its content was kept.
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

    /// Whether it is of this kind, one of the `S_IF…`.
    pub fn is(&self, kind: u32) -> bool {
        self.header.mode & libc::S_IFMT == kind
    }

    /// The file that it is a name of, if that can have others.
    pub fn inode(&self) -> Option<(usize, u32, u32, u32)> {
        let Header { nlink, devmajor, devminor, ino, .. } = self.header;
        (self.is(libc::S_IFREG) && nlink > 1).then_some((self.archive, devmajor, devminor, ino))
    }
}

impl Archive {
    /// Reads an image with the content of everything in it.
    ///
    /// # Errors
    /// The bytes are not an image, end too early, or are damaged.
    pub fn read(image: &[u8]) -> anyhow::Result<Archive> {
        Archive::read_with(image, &|_| true)
    }

    /// Reads an image with the content of what `keep` says; of links it is kept in any case.
    ///
    /// # Errors
    /// As [`Archive::read`].
    pub fn read_with(image: &[u8], keep: &dyn Fn(&Entry) -> bool) -> anyhow::Result<Archive> {
        let image = without_bootconfig(image);
        let mut archive = Archive::default();
        let mut left = MAX_UNPACKED;
        let mut rest = image;
        while let Some(start) = rest.iter().position(|&byte| byte != 0) {
            let offset = image.len() - rest.len() + start;
            rest = rest.get(start..).unwrap_or_default();
            let first = archive.entries.len();
            let codec = Codec::of(rest);
            let unpacked =
                archive.part(codec, &mut rest, &mut left, keep).with_context(|| format!("at byte {offset}"))?;
            let place = offset..image.len() - rest.len();
            archive.parts.push(Part { codec, place, unpacked, entries: first..archive.entries.len() });
        }
        for (index, entry) in archive.entries.iter().enumerate().filter(|(_, entry)| entry.header.filesize > 0) {
            if let Some(inode) = entry.inode() {
                archive.links.insert(inode, index);
            }
        }
        if archive.parts.is_empty() {
            bail!("there is no archive in it");
        }
        Ok(archive)
    }

    /// The content of an entry, empty if it was not kept; for a hard link, that of the file that it is a name of.
    pub fn data(&self, entry: &Entry) -> &[u8] {
        self.kept.get(self.source(entry).data.clone()).unwrap_or_default()
    }

    /// How long the content of an entry is, kept or not.
    pub fn size(&self, entry: &Entry) -> u64 {
        self.source(entry).header.filesize.into()
    }

    /// The entries that count: of those with one path the last, sorted by path.
    pub fn files(&self) -> BTreeMap<Cow<'_, str>, &Entry> {
        self.entries.iter().map(|entry| (entry.path(), entry)).collect()
    }

    /// How many of the parts are for the kernel before it unpacks anything: microcode, tables of ACPI.
    pub fn early_parts(&self) -> usize {
        let is_early = |entry: &Entry| {
            let path = entry.path();
            path == "early_cpio"
                || path.starts_with("kernel/x86/microcode/")
                || path.starts_with("kernel/firmware/acpi/")
        };
        let early = |part: &&Part| {
            let entries = self.entries.get(part.entries.clone()).unwrap_or_default();
            part.codec.is_none() && entries.iter().any(is_early)
        };
        self.parts.iter().take_while(early).count()
    }

    /// The entry that has the content of `entry`.
    fn source<'a>(&'a self, entry: &'a Entry) -> &'a Entry {
        let elsewhere = match entry.header.filesize {
            0 => entry.inode().and_then(|inode| self.entries.get(*self.links.get(&inode)?)),
            _ => None,
        };
        elsewhere.unwrap_or(entry)
    }

    /// Reads the plain archive or compressed member that `bytes` starts with; what it unpacks to.
    fn part(
        &mut self,
        codec: Option<Codec>,
        bytes: &mut &[u8],
        left: &mut u64,
        keep: &dyn Fn(&Entry) -> bool,
    ) -> anyhow::Result<u64> {
        let Some(codec) = codec else {
            if !bytes.starts_with(b"0") {
                bail!("this is neither a newc archive nor compressed");
            }
            let mut source = Source { inner: bytes, at: 0, left };
            self.archive(&mut source, keep)?;
            return Ok(source.at);
        };
        let reader = member(codec, bytes).with_context(|| format!("cannot unpack {codec} data"))?;
        let mut source = Source { inner: &mut BufReader::with_capacity(BUFFER, reader), at: 0, left };
        let context = || format!("in its {codec} part");
        while source.is_at_archive().with_context(|| format!("cannot unpack {codec} data"))? {
            self.archive(&mut source, keep).with_context(context)?;
        }
        Ok(source.at)
    }

    /// Takes the entries of the archive that comes next.
    fn archive(&mut self, source: &mut Source<'_>, keep: &dyn Fn(&Entry) -> bool) -> anyhow::Result<()> {
        let archive = self.archives;
        self.archives += 1;
        let start = source.at;
        loop {
            let at = source.at - start;
            let text = source.header()?;
            let header =
                Header::decode(&text).with_context(|| format!("there is no newc header at byte {at} of it"))?;
            let mut name = source.name(header.namesize).with_context(|| format!("the name at byte {at}"))?;
            if name.pop() != Some(0) {
                bail!("the name at byte {at} does not end");
            }
            source.align(start)?;
            let mut entry = Entry { header, name, archive, data: 0..0 };
            let kept = entry.is(libc::S_IFLNK) || keep(&entry);
            let sum = text.starts_with(MAGIC_SUM);
            self.content(source, &mut entry, kept, sum).with_context(|| format!("the content of {}", entry.path()))?;
            let is_last = entry.name == TRAILER;
            // What comes last in the image may lack its padding.
            source.align(start).or_else(|error| if is_last { Ok(()) } else { Err(error) })?;
            if is_last {
                return Ok(());
            }
            self.entries.push(entry);
        }
    }

    /// Passes over the content of an entry, or keeps it.
    fn content(&mut self, source: &mut Source<'_>, entry: &mut Entry, kept: bool, sum: bool) -> anyhow::Result<()> {
        let size = entry.header.filesize;
        let start = self.kept.len();
        let mut total = 0u32;
        source.each(size.into(), &mut |bytes| {
            if sum {
                total = bytes.iter().fold(total, |sum, &byte| sum.wrapping_add(byte.into()));
            }
            if kept {
                self.kept.extend_from_slice(bytes);
            }
        })?;
        if sum && total != entry.header.check {
            bail!("it does not match its sum");
        }
        if self.kept.len() as u64 > MAX_KEPT {
            bail!("the files in it come to more than {} GiB", MAX_KEPT >> 30);
        }
        entry.data = start..self.kept.len();
        Ok(())
    }
}

/// Plain or unpacked bytes, counted.
struct Source<'a> {
    inner: &'a mut dyn BufRead,
    at: u64,
    left: &'a mut u64,
}

impl Source<'_> {
    /// Passes over padding; whether something comes behind it.
    fn is_at_archive(&mut self) -> anyhow::Result<bool> {
        loop {
            let buffer = self.inner.fill_buf()?;
            if buffer.is_empty() {
                return Ok(false);
            }
            let padding = buffer.iter().position(|&byte| byte != 0);
            let passed = padding.unwrap_or(buffer.len());
            self.consume(passed)?;
            if padding.is_some() {
                return Ok(true);
            }
        }
    }

    fn header(&mut self) -> anyhow::Result<[u8; HEADER]> {
        let mut header = [0; HEADER];
        let mut filled = 0;
        self.each(HEADER as u64, &mut |bytes| {
            if let Some(place) = header.get_mut(filled..filled + bytes.len()) {
                place.copy_from_slice(bytes);
            }
            filled += bytes.len();
        })
        .context("the archive ends without its trailer; the image is cut off")?;
        Ok(header)
    }

    fn name(&mut self, size: u32) -> anyhow::Result<Vec<u8>> {
        let mut name = Vec::new();
        self.each(size.into(), &mut |bytes| {
            let room = MAX_NAME.saturating_sub(name.len()).min(bytes.len());
            name.extend_from_slice(bytes.get(..room).unwrap_or_default());
        })?;
        match name.len() == size as usize {
            true => Ok(name),
            false => bail!("it is longer than {MAX_NAME} bytes"),
        }
    }

    /// To a multiple of 4 from the start of the archive.
    fn align(&mut self, start: u64) -> anyhow::Result<()> {
        let tail = usize::try_from((self.at - start) % 4)?;
        self.each(padding(tail) as u64, &mut |_| ())
    }

    /// Shows the next `size` bytes, piece by piece.
    fn each(&mut self, size: u64, see: &mut dyn FnMut(&[u8])) -> anyhow::Result<()> {
        let mut wanted = size;
        while wanted > 0 {
            let buffer = match self.inner.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                buffer => buffer?,
            };
            let piece = buffer.get(..usize::try_from(wanted).unwrap_or(usize::MAX)).unwrap_or(buffer);
            if piece.is_empty() {
                return Err(io::Error::from(ErrorKind::UnexpectedEof)).context("cut off");
            }
            see(piece);
            let passed = piece.len();
            self.consume(passed)?;
            wanted -= passed as u64;
        }
        Ok(())
    }

    fn consume(&mut self, bytes: usize) -> anyhow::Result<()> {
        self.inner.consume(bytes);
        self.at += bytes as u64;
        let Some(left) = self.left.checked_sub(bytes as u64) else {
            bail!("it unpacks to more than {} GiB", MAX_UNPACKED >> 30)
        };
        *self.left = left;
        Ok(())
    }
}

/// The image without the boot configuration that may hang on its end.
fn without_bootconfig(image: &[u8]) -> &[u8] {
    let cut = || {
        let rest = image.strip_suffix(BOOTCONFIG)?;
        let (rest, _sum) = rest.split_last_chunk::<4>()?;
        let (rest, size) = rest.split_last_chunk::<4>()?;
        rest.get(..rest.len().checked_sub(usize::try_from(u32::from_le_bytes(*size)).ok()?)?)
    };
    cut().unwrap_or(image)
}
