//! SPARSEMEM: memory in sections, each with its own piece of mem_map. In: `SYMBOL(mem_section)` and its geometry.
//! Out: the struct page array of every section that has one.
//! May surprise: in vmcoreinfo the symbol is the address of the array of roots; where it is a variable that points to
//! that array (Linux 4.15 made it one, 83e3c48729d9), only trying tells, so both are tried.

use crate::kernel::Kernel;
use crate::paging::Virtual;
use crate::units::{Pfn, VirtAddr};
use crate::vmcore::segments::PageRun;

use super::Section;

/// `SECTION_MARKED_PRESENT`.
const PRESENT: u64 = 1;

/// The kernel keeps at least six low bits of `section_mem_map` for flags (`SECTION_MAP_LAST_BIT`, 5 until Linux 6.15
/// added `SECTION_IS_VMEMMAP_PREINIT`); the array is at least that much aligned, so clearing six is right for all.
const FLAGS: u64 = 0x3f;

/// How mem_section is laid out.
#[derive(Debug, Clone, Copy)]
pub(super) struct SparseMem {
    symbol: VirtAddr,
    entry_size: usize,
    map_offset: usize,
    per_root: u64,
    roots: Option<u64>,
    section_shift: u32,
    page_size: usize,
}

impl SparseMem {
    /// The layout, or what is missing to know it.
    pub(super) fn new(kernel: &Kernel) -> Result<SparseMem, String> {
        let (facts, page) = (&kernel.facts, kernel.page);
        let missing = |key: &str| format!("no {key} in vmcoreinfo");
        let symbol = facts.symbol("mem_section").ok_or_else(|| missing("SYMBOL(mem_section)"))?;
        let entry_size = facts.size("mem_section").ok_or_else(|| missing("SIZE(mem_section)"))?;
        let map_offset = facts.offset("mem_section.section_mem_map");
        let map_offset = map_offset.ok_or_else(|| missing("OFFSET(mem_section.section_mem_map)"))?;
        let page_size = facts.size("page").ok_or_else(|| missing("SIZE(page)"))?;
        let usual = || kernel.arch.map(|arch| i64::from(arch.section_bits));
        let bits = facts.number("SECTION_SIZE_BITS").or_else(usual);
        let bits = bits.and_then(|bits| u32::try_from(bits).ok()).filter(|b| (page.shift() + 1..48).contains(b));
        let section_shift = bits.ok_or("SECTION_SIZE_BITS makes no sense")? - page.shift();
        if entry_size > page.bytes() || map_offset + 8 > entry_size || !(16..=1024).contains(&page_size) {
            return Err("the sizes of mem_section or page make no sense".into());
        }
        let per_root = (page.bytes() / entry_size) as u64;
        let roots = facts.length("mem_section");
        Ok(SparseMem { symbol, entry_size, map_offset, per_root, roots, section_shift, page_size })
    }

    /// log2 of the pages per section.
    pub(super) fn section_shift(&self) -> u32 {
        self.section_shift
    }

    /// Bytes of one struct page.
    pub(super) fn page_size(&self) -> usize {
        self.page_size
    }

    /// The sections that `runs` touch. A section whose struct pages cannot be found has `map: None`.
    pub(super) fn sections(&self, mem: &mut Virtual<'_>, runs: &[PageRun]) -> Result<Vec<Section>, String> {
        let direct = self.walk(mem, self.symbol, runs);
        let behind = match &direct {
            Found { good: 1.., bad: 0, .. } => None,
            _ => mem.pointer(self.symbol).ok().map(|root| self.walk(mem, root, runs)),
        };
        // The reading of which every present section makes sense; failing that, the one with more sense in it.
        let best = match behind {
            Some(behind) if behind.good > 0 && (behind.bad == 0 || behind.good > direct.good) => behind,
            _ => direct,
        };
        if best.good == 0 {
            return Err("no section of mem_section makes sense".into());
        }
        Ok(best.sections)
    }

    fn walk(&self, mem: &mut Virtual<'_>, roots: VirtAddr, runs: &[PageRun]) -> Found {
        let mut found = Found::default();
        let (mut next, mut last_root) = (0u64, None);
        for run in runs {
            let first = (run.start.0 >> self.section_shift).max(next);
            let end = ((run.end.0 - 1) >> self.section_shift) + 1;
            for number in first..end {
                let root_index = number / self.per_root;
                let root = match last_root {
                    Some((index, root)) if index == root_index => root,
                    _ => self.root(mem, roots, root_index),
                };
                last_root = Some((root_index, root));
                let map = root.map_or(Map::Absent, |root| self.entry(mem, root, number));
                match map {
                    Map::At(_) => found.good += 1,
                    Map::Broken => found.bad += 1,
                    Map::Absent => {}
                }
                let map = if let Map::At(map) = map { Some(map) } else { None };
                found.sections.push(Section { first: Pfn(number << self.section_shift), map });
            }
            next = end;
        }
        found
    }

    fn root(&self, mem: &mut Virtual<'_>, roots: VirtAddr, index: u64) -> Option<VirtAddr> {
        if self.roots.is_some_and(|n| index >= n) || !mem.is_kernel(roots) {
            return None;
        }
        mem.pointer(roots.checked_add(index.checked_mul(8)?)?).ok().filter(|root| root.0 != 0)
    }

    fn entry(&self, mem: &mut Virtual<'_>, root: VirtAddr, number: u64) -> Map {
        let within = (number % self.per_root) * self.entry_size as u64 + self.map_offset as u64;
        let Some(Ok(coded)) = root.checked_add(within).map(|at| mem.u64(at)) else {
            return Map::Broken;
        };
        if coded & PRESENT == 0 {
            return Map::Absent;
        }
        // The stored address is biased by minus the first page of the section, so that page_to_pfn is one addition.
        let bias = (number << self.section_shift).checked_mul(self.page_size as u64);
        let start = bias.map(|bias| VirtAddr((coded & !FLAGS).wrapping_add(bias)));
        match start {
            Some(start) if mem.is_kernel(start) => Map::At(start),
            _ => Map::Broken,
        }
    }
}

enum Map {
    At(VirtAddr),
    Absent,
    Broken,
}

#[derive(Default)]
struct Found {
    sections: Vec<Section>,
    good: u64,
    bad: u64,
}
