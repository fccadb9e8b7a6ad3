//! SPARSEMEM: memory in sections, each with its own piece of mem_map. In: `SYMBOL(mem_section)` and its geometry.
//! Out: the struct page array of every section that has one.
//! May surprise: in vmcoreinfo the symbol is the address of the array of roots; where it is a variable that points to
//! that array (Linux 4.15 made it one, 83e3c48729d9), only trying tells, so both are tried.
//!
//! With SPARSEMEM_EXTREME there is a page of sections behind each root, if any of them is there. Without it there are no
//! roots: `mem_section` is the array of all sections itself, and its length is how the two are told apart.

use crate::kernel::Kernel;
use crate::paging::Virtual;
use crate::units::{Pfn, VirtAddr};
use crate::vmcore::segments::PageRun;

use super::{Section, Shape, missing, touched, vmemmap};

/// `SECTION_MARKED_PRESENT`.
const PRESENT: u64 = 1;

/// The kernel keeps at least six low bits of `section_mem_map` for flags (`SECTION_MAP_LAST_BIT`, 5 until Linux 6.15
/// added `SECTION_IS_VMEMMAP_PREINIT`); the array is at least that much aligned, so clearing six is right for all.
const FLAGS: u64 = 0x3f;

/// The sections that `runs` touch. A section whose struct pages cannot be found has `map: None`.
pub(super) fn sections(
    kernel: &Kernel,
    shape: &Shape,
    mem: &mut Virtual<'_>,
    runs: &[PageRun],
) -> Result<Vec<Section>, String> {
    let model = SparseMem::new(kernel, *shape)?;
    let mut found = model.search(mem, runs)?;
    // What mem_section does not tell of some, the array of all may.
    if found.bad > 0
        && let Some(array) = vmemmap::array(kernel)
    {
        for section in found.sections.iter_mut().filter(|section| section.map.is_none()) {
            section.map = shape.struct_page(array, section.first).filter(|at| mem.translate(*at).is_ok());
        }
    }
    Ok(found.sections)
}

/// How mem_section is laid out.
#[derive(Debug, Clone, Copy)]
struct SparseMem {
    symbol: VirtAddr,
    /// No roots: the symbol is the array of sections.
    flat: bool,
    entry_size: u64,
    map_offset: u64,
    per_root: u64,
    roots: Option<u64>,
    shape: Shape,
}

impl SparseMem {
    /// The layout, or what is missing to know it.
    fn new(kernel: &Kernel, shape: Shape) -> Result<SparseMem, String> {
        let (facts, page) = (&kernel.facts, kernel.page.bytes());
        let symbol = facts.symbol("mem_section").ok_or_else(|| missing("SYMBOL(mem_section)"))?;
        let entry_size = facts.size("mem_section").ok_or_else(|| missing("SIZE(mem_section)"))?;
        let map_offset = facts.offset("mem_section.section_mem_map");
        let map_offset = map_offset.ok_or_else(|| missing("OFFSET(mem_section.section_mem_map)"))?;
        if entry_size > page || map_offset + 8 > entry_size {
            return Err("the size of mem_section makes no sense".into());
        }
        let (roots, per_root) = (facts.length("mem_section"), (page / entry_size) as u64);
        let sections = shape.sections();
        let flat = sections.is_some_and(|n| roots == Some(n) && n.div_ceil(per_root) != n);
        let (entry_size, map_offset) = (entry_size as u64, map_offset as u64);
        Ok(SparseMem { symbol, flat, entry_size, map_offset, per_root: if flat { 1 } else { per_root }, roots, shape })
    }

    /// The reading of which every present section makes sense; failing that, the one with more sense in it.
    fn search(&self, mem: &mut Virtual<'_>, runs: &[PageRun]) -> Result<Found, String> {
        let direct = self.walk(mem, self.symbol, runs);
        let behind = match &direct {
            Found { good: 1.., bad: 0, .. } => None,
            _ => mem.pointer(self.symbol).ok().map(|root| self.walk(mem, root, runs)),
        };
        let best = match behind {
            Some(behind) if behind.good > 0 && (behind.bad == 0 || behind.good > direct.good) => behind,
            _ => direct,
        };
        if best.good == 0 {
            return Err("no section of mem_section makes sense".into());
        }
        Ok(best)
    }

    fn walk(&self, mem: &mut Virtual<'_>, roots: VirtAddr, runs: &[PageRun]) -> Found {
        let mut found = Found::default();
        let mut last_root = None;
        for number in touched(runs, self.shape.section_shift, Pfn(0)) {
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
            found.sections.push(Section { first: Pfn(number << self.shape.section_shift), map });
        }
        found
    }

    fn root(&self, mem: &mut Virtual<'_>, roots: VirtAddr, index: u64) -> Option<VirtAddr> {
        if self.roots.is_some_and(|n| index >= n) || !mem.is_kernel(roots) {
            return None;
        }
        if self.flat {
            return roots.checked_add(index.checked_mul(self.entry_size)?);
        }
        mem.pointer(roots.checked_add(index.checked_mul(8)?)?).ok().filter(|root| root.0 != 0)
    }

    fn entry(&self, mem: &mut Virtual<'_>, root: VirtAddr, number: u64) -> Map {
        let within = (number % self.per_root) * self.entry_size + self.map_offset;
        let Some(Ok(coded)) = root.checked_add(within).map(|at| mem.u64(at)) else {
            return Map::Broken;
        };
        if coded & PRESENT == 0 {
            return Map::Absent;
        }
        // The stored address is biased by minus the first page of the section, so that page_to_pfn is one addition.
        let start = self.shape.struct_page(VirtAddr(coded & !FLAGS), Pfn(number << self.shape.section_shift));
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
