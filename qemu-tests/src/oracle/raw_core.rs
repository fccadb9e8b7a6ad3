//! A raw `/proc/vmcore` that was kept as a file: ELF64, its PT_LOADs, the page at a physical address, and vmcoreinfo.
//! A dump in ELF form is read the same way.
//!
//! Surprising: segments may overlap (the kernel's text is in one of its own and in the RAM around it, the same bytes),
//! and may begin or end within a page; the missing part of such a page reads as zeros.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::kdump_file::{u16_at, u32_at, u64_at};

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PN_XNUM: u16 = 0xffff;
const PHDR: usize = 56;

#[derive(Clone, Copy, Debug)]
struct Segment {
    start: u64,
    end: u64,
    offset: u64,
}

/// A raw vmcore file.
#[derive(Debug)]
pub struct RawCore {
    file: File,
    segments: Vec<Segment>,
    vmcoreinfo: String,
    notes: Range<u64>,
    program_headers: Range<u64>,
}

impl RawCore {
    /// Opens the file and reads its program headers.
    pub fn open(path: &Path) -> Result<RawCore> {
        let open = || {
            let file = File::open(path)?;
            let (start, table) = program_headers(&file)?;
            let program_headers = start..start + table.len() as u64;
            let segments = segments(&table)?;
            let notes = notes(&table)?;
            let vmcoreinfo = vmcoreinfo(&file, &notes).context("its notes are damaged")?;
            Ok::<_, anyhow::Error>(RawCore { file, segments, vmcoreinfo, notes, program_headers })
        };
        open().with_context(|| format!("unable to read the raw vmcore {}", path.display()))
    }

    /// What the kernel says of itself.
    pub fn vmcoreinfo(&self) -> &str {
        &self.vmcoreinfo
    }

    /// A line of vmcoreinfo, by its key with brackets.
    pub fn fact(&self, key: &str) -> Option<&str> {
        self.vmcoreinfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    }

    /// Where the notes lie in the file.
    pub fn notes(&self) -> Range<u64> {
        self.notes.clone()
    }

    /// Where the program headers lie in the file.
    pub fn program_headers(&self) -> Range<u64> {
        self.program_headers.clone()
    }

    /// Wherever the byte at `address` lies in the file: nowhere, or once, or more often where segments overlap.
    pub fn offsets_of(&self, address: u64) -> Vec<u64> {
        let covering = self.segments.iter().filter(|segment| (segment.start..segment.end).contains(&address));
        covering.map(|segment| segment.offset + (address - segment.start)).collect()
    }

    /// Which byte of memory lies there in the file.
    pub fn address_of(&self, offset: u64) -> Option<u64> {
        let within =
            |segment: &&Segment| offset.checked_sub(segment.offset).is_some_and(|at| at < segment.end - segment.start);
        self.segments.iter().find(within).map(|segment| segment.start + (offset - segment.offset))
    }

    /// Whether all of the page at `address` that the source covers is in the file, which may have been cut off.
    pub fn is_readable(&self, address: u64, size: usize) -> bool {
        let mut page = vec![0; size];
        self.read_page(address, &mut page).is_ok()
    }

    /// The pages of which the source has all or some, in order.
    pub fn pages(&self, block: u64) -> Vec<u64> {
        let covered = |segment: &Segment| segment.start / block..segment.end.div_ceil(block);
        let mut pfns: Vec<u64> = self.segments.iter().flat_map(covered).collect();
        pfns.sort_unstable();
        pfns.dedup();
        pfns
    }

    /// Fills `page` with what the source holds at `address`; false when the source does not cover any of it.
    pub fn read_page(&self, address: u64, page: &mut [u8]) -> Result<bool> {
        let end = address + page.len() as u64;
        let (mut found, mut cut_off) = (false, None);
        page.fill(0);
        for segment in &self.segments {
            let (from, to) = (address.max(segment.start), end.min(segment.end));
            if from < to {
                let part = usize::try_from(from - address)?..usize::try_from(to - address)?;
                let offset = segment.offset + (from - segment.start);
                let read = self.file.read_exact_at(&mut page[part], offset);
                let whole = (from, to) == (address, end);
                if read.is_ok() && whole {
                    return Ok(true);
                }
                // Another segment may have it all.
                cut_off = read.err().map(|error| (error, to)).or(cut_off);
                found = true;
            }
        }
        match cut_off {
            Some((error, to)) => {
                Err(error).with_context(|| format!("the raw vmcore ends before physical address {to:#x}"))
            }
            None => Ok(found),
        }
    }
}

fn program_headers(file: &File) -> Result<(u64, Vec<u8>)> {
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0).context("too short for an ELF header")?;
    if header[..6] != *b"\x7fELF\x02\x01" {
        bail!("not a little-endian ELF64 file");
    }
    let (phoff, shoff) = (u64_at(&header, 32)?, u64_at(&header, 40)?);
    let (phentsize, phnum) = (usize::from(u16_at(&header, 54)?), u16_at(&header, 56)?);
    if phentsize != PHDR {
        bail!("program headers of {phentsize} bytes");
    }
    let count = if phnum == PN_XNUM {
        let mut section = [0; 64];
        file.read_exact_at(&mut section, shoff).context("section header 0, which holds the count, is missing")?;
        usize::try_from(u32_at(&section, 44)?)?
    } else {
        usize::from(phnum)
    };
    ensure!((count * PHDR) as u64 <= file.metadata()?.len(), "{count} program headers cannot be in the file");
    let mut table = vec![0; count * PHDR];
    file.read_exact_at(&mut table, phoff).context("the program headers are cut off")?;
    Ok((phoff, table))
}

fn segments(table: &[u8]) -> Result<Vec<Segment>> {
    let mut loads = Vec::new();
    for entry in table.chunks_exact(PHDR) {
        let size = u64_at(entry, 32)?;
        if u32_at(entry, 0)? == PT_LOAD && size > 0 {
            let start = u64_at(entry, 24)?;
            let end = start.checked_add(size).context("a segment ends beyond all addresses")?;
            loads.push(Segment { start, end, offset: u64_at(entry, 8)? });
        }
    }
    Ok(loads)
}

/// Where the notes are in the file; there is one PT_NOTE at most.
fn notes(table: &[u8]) -> Result<Range<u64>> {
    for entry in table.chunks_exact(PHDR) {
        if u32_at(entry, 0)? == PT_NOTE {
            let start = u64_at(entry, 8)?;
            let end = start.checked_add(u64_at(entry, 32)?).context("the notes end beyond all offsets")?;
            return Ok(start..end);
        }
    }
    Ok(0..0)
}

/// The text of the note that is named VMCOREINFO; empty if there is none.
fn vmcoreinfo(file: &File, notes: &Range<u64>) -> Result<String> {
    ensure!(notes.end <= file.metadata()?.len(), "they are cut off");
    let mut bytes = vec![0; usize::try_from(notes.end - notes.start)?];
    file.read_exact_at(&mut bytes, notes.start)?;
    let mut rest = bytes.as_slice();
    while rest.len() >= 12 {
        let padded = |size: u32| usize::try_from(size).map(|size| size.next_multiple_of(4));
        let (name, text) = (padded(u32_at(rest, 0)?)?, padded(u32_at(rest, 4)?)?);
        let size = usize::try_from(u32_at(rest, 4)?)?;
        let content = rest.get(12..12 + name + size).context("a note is cut off")?;
        if content.starts_with(b"VMCOREINFO\0") {
            return Ok(String::from_utf8_lossy(&content[name..]).into_owned());
        }
        rest = rest.get(12 + name + text..).unwrap_or_default();
    }
    Ok(String::new())
}
