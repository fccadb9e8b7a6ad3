//! A raw `/proc/vmcore` that was kept as a file: ELF64, its PT_LOADs, and the page at a physical address.
//!
//! Surprising: segments may overlap (the kernel's text is in one of its own and in the RAM around it, the same bytes),
//! and may begin or end within a page; the missing part of such a page reads as zeros.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::kdump_file::{u16_at, u32_at, u64_at};

const PT_LOAD: u32 = 1;
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
}

impl RawCore {
    /// Opens the file and reads its program headers.
    pub fn open(path: &Path) -> Result<RawCore> {
        let open = || {
            let file = File::open(path)?;
            let segments = segments(&file)?;
            Ok::<_, anyhow::Error>(RawCore { file, segments })
        };
        open().with_context(|| format!("unable to read the raw vmcore {}", path.display()))
    }

    /// Fills `page` with what the source holds at `address`; false when the source does not cover any of it.
    pub fn read_page(&self, address: u64, page: &mut [u8]) -> Result<bool> {
        let end = address + page.len() as u64;
        let mut found = false;
        page.fill(0);
        for segment in &self.segments {
            let (from, to) = (address.max(segment.start), end.min(segment.end));
            if from < to {
                let part = usize::try_from(from - address)?..usize::try_from(to - address)?;
                let offset = segment.offset + (from - segment.start);
                self.file
                    .read_exact_at(&mut page[part], offset)
                    .with_context(|| format!("the raw vmcore ends before physical address {to:#x}"))?;
                found = true;
                if (from, to) == (address, end) {
                    break;
                }
            }
        }
        Ok(found)
    }
}

fn segments(file: &File) -> Result<Vec<Segment>> {
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
    let mut table = vec![0; count * PHDR];
    file.read_exact_at(&mut table, phoff).context("the program headers are cut off")?;
    let mut loads = Vec::new();
    for entry in table.chunks_exact(PHDR) {
        let size = u64_at(entry, 32)?;
        if u32_at(entry, 0)? == PT_LOAD && size > 0 {
            let start = u64_at(entry, 24)?;
            loads.push(Segment { start, end: start + size, offset: u64_at(entry, 8)? });
        }
    }
    Ok(loads)
}
