//! Makes one dump of the files of a split one. In: the files, in any order. Out: the dump as it would be unsplit.
//! May surprise: only what the first file says counts, and the others must say the same; data is copied as it is packed,
//! page by page in the order of page frames, so it does not matter where in its file a page lies.
//!
//! ```text
//!  header, notes, bitmaps    the same in all, and of all pages; the sub header says which pages a file has
//!  descriptors               room for all pages; the file's own from the beginning on
//!  data                      one page of zeros, then the file's own pages
//! ```

use std::io::{self, ErrorKind};

use crate::output::{Output, write_all};
use crate::units::{FileOffset, Pfn, to_usize};

use super::layout::{DESCRIPTOR, Descriptor, Header, INCOMPLETE};
use super::read::{Dump, Source};
use super::write::put_eraseinfo;

/// Copied at once.
const BUFFER: usize = 1 << 20;

/// What was put together.
#[derive(Debug, Default)]
pub struct Reassembled {
    /// Where the file ends.
    pub bytes: u64,
    /// Pages with data.
    pub pages: u64,
    /// Pages without.
    pub missing: u64,
    /// A part says that it is incomplete.
    pub incomplete: bool,
    /// What ended the writing early.
    pub stopped: Option<io::Error>,
}

/// The files belong together: `Ok` has their headers' common part and the files in the order of their pages.
#[derive(Debug)]
pub struct Parts<'a> {
    header: Header,
    /// What was erased, as the parts tell it.
    eraseinfo: Vec<u8>,
    files: Vec<(Pfn, Pfn, &'a dyn Source)>,
    incomplete: bool,
}

impl std::fmt::Debug for dyn Source + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source")
    }
}

impl<'a> Parts<'a> {
    /// Reads the headers of `files`; the text says what does not fit.
    pub fn open(files: &[&'a dyn Source]) -> io::Result<Result<Parts<'a>, String>> {
        let mut parts: Option<Parts<'a>> = None;
        for (number, file) in files.iter().enumerate() {
            let (mut header, eraseinfo) = match Dump::open(*file) {
                Ok(dump) => (dump.header.clone(), dump.eraseinfo()?),
                Err(e) if e.kind() == ErrorKind::InvalidData => return Ok(Err(format!("file {}: {e}", number + 1))),
                Err(e) => return Err(e),
            };
            let Some((start, end)) = header.split.take() else {
                return Ok(Err(format!("file {} is not part of a split dump", number + 1)));
            };
            if header.placed.is_some() {
                return Ok(Err(format!("file {} is not laid out as a part of version 6", number + 1)));
            }
            // Each part has its own place for it.
            header.eraseinfo = None;
            let incomplete = header.status & INCOMPLETE != 0;
            header.status &= !INCOMPLETE;
            let parts = parts.get_or_insert_with(|| Parts {
                header: header.clone(),
                eraseinfo: Vec::new(),
                files: vec![],
                incomplete,
            });
            if parts.header != header {
                return Ok(Err(format!("file {} is part of another dump than file 1", number + 1)));
            }
            parts.incomplete |= incomplete;
            // As a rule all say the same, since all were made of the same memory.
            if !parts.eraseinfo.ends_with(&eraseinfo) {
                parts.eraseinfo.extend(eraseinfo);
            }
            parts.files.push((start, end, *file));
        }
        let Some(mut parts) = parts else { return Ok(Err("no file is given".into())) };
        parts.files.sort_by_key(|(start, end, _)| (*start, *end));
        let mut next = Pfn(0);
        for (start, end, _) in &parts.files {
            if *start != next || end < start {
                return Ok(Err(format!("the pages from {next} on are missing or twice there")));
            }
            next = *end;
        }
        if next != parts.header.max_pfn {
            return Ok(Err(format!("the pages from {next} on are missing")));
        }
        Ok(Ok(parts))
    }

    /// Writes the dump to `out`. An error means that a part cannot be read, or that not even the headers fit.
    pub fn write(&self, out: &dyn Output) -> io::Result<Reassembled> {
        let (_, _, first) = self.files.first().ok_or(ErrorKind::InvalidInput)?;
        let header = &self.header;
        let mut total = 0;
        let bits = Dump::open(*first)?;
        bits.kept_pages(&mut |_| {
            total += 1;
            Ok(())
        })?;
        let data_at = header.data_at(total).0;
        let block = header.block.bytes();
        // Every file has all of this, so no more is reserved than was once written.
        if first.read_at(FileOffset(data_at), &mut [0])? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        out.reserve(data_at)?;
        self.put_header(out, INCOMPLETE)?;
        write_all(out, FileOffset(block as u64), &header.sub_header()).1?;
        copy(*first, out, header.notes_at().0, header.descriptors_at().0)?;
        write_all(out, FileOffset(data_at), &vec![0; block]).1?;

        let mut files = self.files.iter();
        let mut part = Part::default();
        let mut writer = Writer {
            out,
            descriptors: Vec::with_capacity(BUFFER / 16),
            descriptors_at: header.descriptors_at().0,
            data: Vec::with_capacity(BUFFER + block),
            at: data_at + block as u64,
            done: Reassembled { incomplete: self.incomplete, bytes: data_at + block as u64, ..Reassembled::default() },
        };
        let copied = bits.kept_pages(&mut |pfn| {
            while pfn >= part.end {
                let (_, end, source) = files.next().ok_or(ErrorKind::InvalidData)?;
                part = Part { source: Some(*source), end: *end, ..Part::default() };
            }
            writer.page(&mut part, header, data_at)
        });
        let copied = copied.and_then(|()| writer.flush());
        let mut done = writer.done;
        let copied = copied.and_then(|()| put_eraseinfo(header, &self.eraseinfo, out, &mut done.bytes));
        match copied {
            Ok(()) if !done.incomplete && done.missing == 0 => done.stopped = self.put_header(out, 0).err(),
            Ok(()) => {}
            Err(e) => done.stopped = Some(e),
        }
        Ok(done)
    }

    fn put_header(&self, out: &dyn Output, status: u32) -> io::Result<()> {
        let header = Header { status: self.header.status | status, ..self.header.clone() };
        write_all(out, FileOffset(0), &header.header_block()).1
    }
}

/// Copies a range of bytes to the same place, leaving out zeros.
fn copy(from: &dyn Source, out: &dyn Output, mut at: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    while at < end {
        let want = to_usize(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let got = from.read_at(FileOffset(at), &mut buffer[..want])?;
        if got < want {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if buffer[..got].iter().any(|b| *b != 0) {
            write_all(out, FileOffset(at), &buffer[..got]).1?;
        }
        at += got as u64;
    }
    Ok(())
}

/// The file that pages come from at the moment.
#[derive(Default)]
struct Part<'a> {
    source: Option<&'a dyn Source>,
    end: Pfn,
    index: u64,
    /// The last page with data of its own: where it was, and where it is now.
    last: (Descriptor, Descriptor),
}

struct Writer<'a> {
    out: &'a dyn Output,
    descriptors: Vec<u8>,
    descriptors_at: u64,
    data: Vec<u8>,
    at: u64,
    done: Reassembled,
}

impl Writer<'_> {
    /// The next page of `part`. What is wrong with one page costs that page.
    fn page(&mut self, part: &mut Part<'_>, header: &Header, zero_at: u64) -> io::Result<()> {
        let source = part.source.ok_or(ErrorKind::InvalidData)?;
        let mut bytes = [0; DESCRIPTOR];
        let place = header.descriptors_at().0 + part.index * DESCRIPTOR as u64;
        part.index += 1;
        let got = source.read_at(FileOffset(place), &mut bytes)?;
        let found = Descriptor::parse(&bytes).filter(|d| got == DESCRIPTOR && d.offset != 0).unwrap_or_default();
        let size = usize::try_from(found.size).unwrap_or(usize::MAX);
        let from = self.data.len();
        let stored = if found.offset == 0 || size == 0 || size > header.block.bytes() {
            Descriptor::default()
        } else if found.offset == zero_at {
            found
        } else if found == part.last.0 {
            part.last.1
        } else {
            self.data.resize(from + size, 0);
            if source.read_at(FileOffset(found.offset), &mut self.data[from..])? == size {
                let stored = Descriptor { offset: self.at + from as u64, ..found };
                part.last = (found, stored);
                stored
            } else {
                self.data.truncate(from);
                Descriptor::default()
            }
        };
        if stored.offset == 0 {
            self.done.missing += 1;
        } else {
            self.done.pages += 1;
        }
        self.descriptors.extend(stored.bytes());
        if self.data.len() >= BUFFER || self.descriptors.len() >= BUFFER / 16 { self.flush() } else { Ok(()) }
    }

    /// Data first: a descriptor never points to data that is not there.
    fn flush(&mut self) -> io::Result<()> {
        let (fitted, result) = write_all(self.out, FileOffset(self.at), &self.data);
        self.done.bytes = self.done.bytes.max(self.at + fitted as u64);
        result?;
        self.at += self.data.len() as u64;
        write_all(self.out, FileOffset(self.descriptors_at), &self.descriptors).1?;
        self.descriptors_at += self.descriptors.len() as u64;
        self.data.clear();
        self.descriptors.clear();
        Ok(())
    }
}
