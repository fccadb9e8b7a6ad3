//! What the crashed kernel itself notes about a page, read out of the raw source: for explaining a difference, and for
//! knowing what is damaged.
//!
//! In: the source and the facts of its vmcoreinfo. Out: the fields of `struct page`, and where they lie. x86_64 with
//! sparse memory only.

use std::cell::Cell;

use anyhow::{Context, Result, bail, ensure};

use super::kdump_file::{u32_at, u64_at};
use super::raw_core::RawCore;

/// `__START_KERNEL_map`: where the kernel's image is mapped, `phys_base` apart.
const KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
const FRAME: u64 = 0x000f_ffff_ffff_f000;
/// Pages of a section of 128 MiB.
pub const SECTION_PAGES: u64 = 1 << 15;
/// The low bits of `section_mem_map` are flags; the kernel leaves at least six.
const SECTION_FLAGS: u64 = 63;
const SECTION_HAS_MAP: u64 = 3;
const PAGE: u64 = 4096;

/// The array of struct pages of a raw source.
#[derive(Debug)]
pub struct StructPages<'a> {
    source: &'a RawCore,
    top: u64,
    top_shift: u32,
    sections: u64,
    roots: u64,
    section_size: u64,
    section_map_at: u64,
    size: u64,
    at: Offsets,
    /// The page table entry last used: its first address, its last, and where it leads.
    known: Cell<(u64, u64, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Offsets {
    flags: u64,
    mapping: u64,
    map_count: u64,
    compound: u64,
}

/// What the kernel notes about one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StructPage {
    /// Bits of PG_*.
    pub flags: u64,
    /// Who owns it; the low bits tell anonymous memory.
    pub mapping: u64,
    /// How often it is mapped, or the type of a page that never is.
    pub map_count: u32,
    /// `compound_head` or `compound_info`: bit 0 marks a tail.
    pub compound: u64,
}

impl StructPage {
    /// Whether the kernel calls it a tail of a compound page.
    pub fn is_tail(&self) -> bool {
        self.compound & 1 == 1
    }
}

impl<'a> StructPages<'a> {
    /// Learns from the vmcoreinfo of `source` where they are.
    pub fn new(source: &'a RawCore) -> Result<StructPages<'a>> {
        let fact = |key: &str| source.fact(key).with_context(|| format!("vmcoreinfo has no {key}"));
        let symbol = |key: &str| Ok::<_, anyhow::Error>(u64::from_str_radix(fact(key)?, 16)?);
        let number = |key: &str| Ok::<_, anyhow::Error>(fact(key)?.parse::<i64>()?.cast_unsigned());
        let five_levels = number("NUMBER(pgtable_l5_enabled)")? == 1;
        // Linux 7.1 gave the field a new name.
        let compound = number("OFFSET(page.compound_head)").or_else(|_| number("OFFSET(page.compound_info)"))?;
        Ok(StructPages {
            source,
            top: (symbol("SYMBOL(swapper_pg_dir)")? - KERNEL_MAP).wrapping_add(number("NUMBER(phys_base)")?),
            top_shift: if five_levels { 48 } else { 39 },
            sections: symbol("SYMBOL(mem_section)")?,
            roots: number("LENGTH(mem_section)")?,
            section_size: number("SIZE(mem_section)")?,
            section_map_at: number("OFFSET(mem_section.section_mem_map)")?,
            size: number("SIZE(page)")?,
            at: Offsets {
                flags: number("OFFSET(page.flags)")?,
                mapping: number("OFFSET(page.mapping)")?,
                map_count: number("OFFSET(page._mapcount)")?,
                compound,
            },
            known: Cell::default(),
        })
    }

    /// What the kernel notes about a page; `None` where it has no struct page.
    pub fn get(&self, pfn: u64) -> Result<Option<StructPage>> {
        let Some(address) = self.virtual_place(pfn)? else { return Ok(None) };
        let mut bytes = [0; 4096];
        let bytes = bytes.get_mut(..usize::try_from(self.size)?).context("a struct page is larger than a page")?;
        self.read(self.physical(address)?, bytes)?;
        let word = |at: u64| u64_at(bytes, usize::try_from(at)?);
        Ok(Some(StructPage {
            flags: word(self.at.flags)?,
            mapping: word(self.at.mapping)?,
            map_count: u32_at(bytes, usize::try_from(self.at.map_count)?)?,
            compound: word(self.at.compound)?,
        }))
    }

    /// The physical address of a page's struct page.
    pub fn place(&self, pfn: u64) -> Result<Option<u64>> {
        self.virtual_place(pfn)?.map(|address| self.physical(address)).transpose()
    }

    /// The physical addresses of the section's entry, and of the array of roots by which it is found.
    pub fn section_places(&self, section: u64) -> Result<Option<(u64, u64)>> {
        let entry = self.section_entry(section)?;
        entry.map(|entry| Ok((self.physical(entry)?, self.physical(self.sections)?))).transpose()
    }

    /// The physical addresses of the page tables' entries through which a virtual address is reached.
    pub fn page_tables(&self, address: u64) -> Result<Vec<u64>> {
        let mut entries = Vec::new();
        self.walk(address, |entry| entries.push(entry))?;
        Ok(entries)
    }

    /// Where the kernel has the struct page of a page.
    pub fn virtual_place(&self, pfn: u64) -> Result<Option<u64>> {
        let Some(entry) = self.section_entry(pfn / SECTION_PAGES)? else { return Ok(None) };
        let map = self.word(self.physical(entry + self.section_map_at)?)?;
        let has_map = map & SECTION_HAS_MAP == SECTION_HAS_MAP;
        Ok(has_map.then(|| (map & !SECTION_FLAGS).wrapping_add(pfn * self.size)))
    }

    fn section_entry(&self, section: u64) -> Result<Option<u64>> {
        let per_root = PAGE / self.section_size;
        ensure!(section / per_root < self.roots, "section {section} is beyond the last root");
        let root = self.word(self.physical(self.sections + 8 * (section / per_root))?)?;
        Ok((root != 0).then(|| root + section % per_root * self.section_size))
    }

    /// The physical address behind a virtual one.
    pub fn physical(&self, address: u64) -> Result<u64> {
        let (first, last, physical) = self.known.get();
        if address >= first && address < last {
            return Ok(physical + (address - first));
        }
        let (physical, size) = self.walk(address, |_| ())?;
        let first = address & !(size - 1);
        self.known.set((first, first.saturating_add(size), physical));
        Ok(physical + (address - first))
    }

    /// The start of the page behind a virtual address, and its size; `seen` is told each table entry on the way.
    fn walk(&self, address: u64, mut seen: impl FnMut(u64)) -> Result<(u64, u64)> {
        let mut table = self.top;
        let mut shift = self.top_shift;
        loop {
            let place = table + 8 * (address >> shift & 511);
            seen(place);
            let entry = self.word(place)?;
            let inside = (1 << shift) - 1;
            match () {
                () if entry & PRESENT == 0 => bail!("{address:#x} is not mapped"),
                () if shift == 12 || (shift <= 30 && entry & LARGE != 0) => {
                    return Ok((entry & FRAME & !inside, inside + 1));
                }
                () => table = entry & FRAME,
            }
            shift -= 9;
        }
    }

    /// The word at a physical address.
    pub fn word(&self, address: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        u64_at(&bytes, 0)
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        if !self.source.read_page(address, bytes)? {
            bail!("physical address {address:#x} is not in the source");
        }
        Ok(())
    }
}
