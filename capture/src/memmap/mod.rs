//! Where the struct page of a page frame is. In: vmcoreinfo and virtual memory. Out: [`Section`]s, and for each its
//! struct pages, looked at in place.
//! May surprise: the array of one section need not be contiguous in physical memory (an optimised hugetlb page maps
//! the same frame again and again), so it is taken leaf by leaf.
//!
//! A new memory model is one file here and one line in [`MemMap::new`].

mod flatmem;
mod page;
mod sparsemem;
mod vmemmap;

pub use page::PageView;

use crate::kernel::Kernel;
use crate::paging::Virtual;
use crate::units::{PageSize, Pfn, VirtAddr, to_usize};
use crate::vmcore::read::{PhysMem, PhysReader};
use crate::vmcore::segments::PageRun;

/// A section has at least as many pages: with fewer, the list of sections would be large.
const MIN_SECTION_SHIFT: u32 = 8;

/// No more sections are listed: 128 TiB in sections of 128 MiB.
const MAX_SECTIONS: usize = 1 << 20;

/// A stretch of page frames whose struct pages form one array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its first page frame.
    pub first: Pfn,
    /// Where the array begins; `None` if the section has none, so that its pages cannot be told apart.
    pub map: Option<VirtAddr>,
}

/// All of them.
#[derive(Debug)]
pub struct MemMap {
    /// The sections that hold pages of the dump, in order.
    pub sections: Vec<Section>,
    /// What made no sense but could be found by other means.
    pub problems: Vec<String>,
    shape: Shape,
}

/// The numbers that all models share.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// Bytes of a struct page.
    size: usize,
    /// What it describes.
    page: PageSize,
    /// log2 of the pages of a section.
    section_shift: u32,
    /// log2 of the pages there can be, if that is known.
    physmem_shift: Option<u32>,
}

impl Shape {
    fn new(kernel: &Kernel) -> Result<Shape, String> {
        let (facts, page) = (&kernel.facts, kernel.page);
        let size = facts.size("page").ok_or_else(|| missing("SIZE(page)"))?;
        if !(16..=1024).contains(&size) {
            return Err("the size of struct page makes no sense".into());
        }
        let shift = |name: &str, usual: Option<u32>| {
            let bits = facts.number(name).map_or(usual, |bits| u32::try_from(bits).ok());
            let shift = bits.and_then(|bits| bits.checked_sub(page.shift()));
            shift.filter(|shift| (MIN_SECTION_SHIFT..=44).contains(shift))
        };
        let section_shift = shift("SECTION_SIZE_BITS", kernel.arch.map(|arch| arch.section_bits));
        let section_shift = section_shift.ok_or("SECTION_SIZE_BITS makes no sense")?;
        let physmem_shift = shift("MAX_PHYSMEM_BITS", kernel.arch.map(|arch| arch.physmem_bits));
        Ok(Shape { size, page, section_shift, physmem_shift })
    }

    /// How many sections there can be: `NR_MEM_SECTIONS`.
    fn sections(&self) -> Option<u64> {
        Some(1 << self.physmem_shift?.checked_sub(self.section_shift)?)
    }

    /// The struct page of `pfn` in an array that begins with page frame 0, perhaps long before the first that exists.
    fn struct_page(&self, array: VirtAddr, pfn: Pfn) -> Option<VirtAddr> {
        let skip = pfn.0.checked_mul(self.size as u64)?;
        Some(VirtAddr(array.0.wrapping_add(skip)))
    }
}

fn missing(key: &str) -> String {
    format!("no {key} in vmcoreinfo")
}

/// The numbers of the sections, counted from `base`, that `runs` touch: each once, in order.
fn touched(runs: &[PageRun], shift: u32, base: Pfn) -> impl Iterator<Item = u64> + '_ {
    let mut next = 0;
    let numbers = runs.iter().filter(move |run| run.end > base && !run.is_empty()).flat_map(move |run| {
        let first = (run.start.0.saturating_sub(base.0) >> shift).max(next);
        next = ((run.end.0 - 1 - base.0) >> shift) + 1;
        first..next
    });
    numbers.take(MAX_SECTIONS + 1)
}

/// A memory model: the sections that page runs touch, or why it is not this kernel's.
type Model = fn(&Kernel, &Shape, &mut Virtual<'_>, &[PageRun]) -> Result<Vec<Section>, String>;

impl MemMap {
    /// Finds the sections behind `runs`, or says what is missing.
    pub fn new(kernel: &Kernel, mem: &mut Virtual<'_>, runs: &[PageRun]) -> Result<MemMap, String> {
        let shape = Shape::new(kernel)?;
        let models: [(&str, Model); 3] =
            [("mem_section", sparsemem::sections), ("vmemmap", vmemmap::sections), ("mem_map", flatmem::sections)];
        let mut tried: Vec<String> = Vec::new();
        for (name, model) in models {
            match model(kernel, &shape, mem, runs) {
                Ok(sections) if sections.len() > MAX_SECTIONS => tried.push(format!("{name} has too many sections")),
                Ok(sections) => {
                    let has = |name: &str| kernel.facts.symbol(name).is_some();
                    let failed = !tried.is_empty() && (name == "vmemmap" || has("mem_section"));
                    let said = || format!("struct pages are found through {name}: {}", tried.join("; "));
                    let problems = failed.then(said).into_iter().collect();
                    return Ok(MemMap { sections, problems, shape });
                }
                Err(why) => tried.push(why),
            }
        }
        Err(tried.join("; "))
    }

    /// One past the last page frame of `section`.
    pub fn end(&self, section: &Section) -> Pfn {
        Pfn(section.first.0.saturating_add(1 << self.shape.section_shift))
    }

    /// Where the struct pages of `section` begin and end.
    pub fn array(&self, section: &Section) -> Option<(VirtAddr, VirtAddr)> {
        let start = section.map?;
        Some((start, start.checked_add((self.shape.size as u64) << self.shape.section_shift)?))
    }

    /// The sections that `window` touches.
    pub fn touched(&self, window: PageRun) -> &[Section] {
        let from = self.sections.partition_point(|section| self.end(section) <= window.start);
        let to = self.sections.partition_point(|section| section.first < window.end);
        self.sections.get(from..to).unwrap_or_default()
    }
}

/// What looking at a section tells the scan to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Go on with the next page frame.
    Next,
    /// Go on with this page frame: what lies before it is decided.
    Jump(Pfn),
}

/// Looks at the struct pages of sections; one per worker.
pub struct Scan<'a> {
    map: &'a MemMap,
    reader: Box<dyn PhysReader + 'a>,
    joint: Vec<u8>,
}

impl std::fmt::Debug for Scan<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan").field("map", &self.map.sections.len()).finish_non_exhaustive()
    }
}

impl<'a> Scan<'a> {
    /// A scan of `map` in `mem`.
    pub fn new(map: &'a MemMap, mem: &'a dyn PhysMem) -> Self {
        Scan { map, reader: mem.reader(), joint: Vec::new() }
    }

    /// Calls `look` for the struct page of every page frame of `run` that lies in `section`, in order.
    /// Returns how many page frames had none that could be read.
    pub fn run(
        &mut self,
        mem: &mut Virtual<'_>,
        section: &Section,
        run: PageRun,
        look: &mut impl FnMut(PageView<'_>) -> Step,
    ) -> u64 {
        let end = run.end.min(self.map.end(section));
        let mut pfn = run.start.max(section.first);
        let Some(array) = section.map else { return end.0.saturating_sub(pfn.0) };
        let (size, mut blind) = (self.map.shape.size, 0);
        while pfn < end {
            let at = (pfn.0 - section.first.0).checked_mul(size as u64).and_then(|skip| array.checked_add(skip));
            let Some(at) = at else { return blind + (end.0 - pfn.0) };
            let (after, seen) = self.leaf(mem, at, pfn, end, look);
            blind += if seen { 0 } else { after.0 - pfn.0 };
            pfn = after;
        }
        blind
    }

    /// Looks at the struct pages from `at` to the end of its leaf; returns the page frame to go on with, and whether
    /// there was anything to see.
    fn leaf(
        &mut self,
        mem: &mut Virtual<'_>,
        at: VirtAddr,
        first: Pfn,
        end: Pfn,
        look: &mut impl FnMut(PageView<'_>) -> Step,
    ) -> (Pfn, bool) {
        let (size, page) = (self.map.shape.size, self.map.shape.page.bytes() as u64);
        let blind_until = |bytes: u64| Pfn((first.0 + (bytes / size as u64).max(1)).min(end.0));
        let Ok(mapped) = mem.translate(at) else { return (blind_until(page - (at.0 & (page - 1))), false) };
        let wanted = to_usize(end.0 - first.0).unwrap_or(usize::MAX).saturating_mul(size).saturating_add(size);
        let len = to_usize(mapped.len).unwrap_or(usize::MAX).min(wanted).min(self.reader.longest());
        if len < size {
            return (Pfn(first.0 + 1), self.straddling(mem, at, first, look));
        }
        let len = match self.reader.bytes(mapped.phys, len) {
            Ok(_) => len,
            // The leaf may reach beyond the memory that is in the dump; a page of it may still be there.
            Err(_) => to_usize(page - (mapped.phys.0 & (page - 1))).unwrap_or(0).min(len),
        };
        if len < size {
            return (Pfn(first.0 + 1), self.straddling(mem, at, first, look));
        }
        let Ok(bytes) = self.reader.bytes(mapped.phys, len) else { return (blind_until(len as u64), false) };
        let whole = Pfn((first.0 + (len / size) as u64).min(end.0));
        let mut pfn = first;
        while pfn < whole {
            let skip = to_usize(pfn.0 - first.0).unwrap_or(0) * size;
            let (this, rest) = bytes[skip..].split_at(size);
            let mut next = rest.get(..size);
            let mut beyond = [0u8; 1024];
            // The neighbour of the leaf's last struct page; compound pages are aligned, so it is asked for only when
            // the size of struct page is no power of two.
            if next.is_none()
                && let Some(after) = at.checked_add((skip + size) as u64)
                && !size.is_power_of_two()
            {
                next = mem.read(after, &mut beyond[..size]).ok().map(|()| &beyond[..size]);
            }
            match look(PageView { pfn, this, next }) {
                Step::Next => pfn.0 += 1,
                Step::Jump(to) => pfn = to.max(Pfn(pfn.0 + 1)),
            }
        }
        (pfn.min(end), true)
    }

    /// A struct page that lies across two leaves.
    fn straddling(
        &mut self,
        mem: &mut Virtual<'_>,
        at: VirtAddr,
        pfn: Pfn,
        look: &mut impl FnMut(PageView<'_>) -> Step,
    ) -> bool {
        let size = self.map.shape.size;
        self.joint.resize(2 * size, 0);
        let both = mem.read(at, &mut self.joint).is_ok();
        if !both && mem.read(at, &mut self.joint[..size]).is_err() {
            return false;
        }
        let (this, next) = self.joint.split_at(size);
        // A jump is not taken here: pages behind it are looked at once more, which changes nothing.
        let _ = look(PageView { pfn, this, next: both.then_some(next) });
        true
    }
}
