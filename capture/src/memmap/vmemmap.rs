//! SPARSEMEM_VMEMMAP: one array over all page frames, mapped only where sections are. In: `SYMBOL(vmemmap)`. Out: the
//! same sections that `sparsemem.rs` finds, without mem_section.
//! May surprise: it is asked only where mem_section makes no sense. What is mapped tells what is present, so pages of a
//! section that is not there are found to have no struct pages, and are kept.

use crate::kernel::Kernel;
use crate::paging::Virtual;
use crate::units::{Pfn, VirtAddr};
use crate::vmcore::segments::PageRun;

use super::{Section, Shape, missing, touched};

/// The struct page of page frame 0: vmcoreinfo has the value of `vmemmap`, not where that is stored.
pub(super) fn array(kernel: &Kernel) -> Option<VirtAddr> {
    kernel.facts.symbol("vmemmap")
}

/// The sections that `runs` touch, if the struct pages of any are mapped.
pub(super) fn sections(
    kernel: &Kernel,
    shape: &Shape,
    mem: &mut Virtual<'_>,
    runs: &[PageRun],
) -> Result<Vec<Section>, String> {
    let array = array(kernel).ok_or_else(|| missing("SYMBOL(vmemmap)"))?;
    let numbers = touched(runs, shape.section_shift, Pfn(0));
    let firsts = numbers.map(|number| Pfn(number << shape.section_shift));
    let sections: Vec<Section> = firsts.map(|first| Section { first, map: shape.struct_page(array, first) }).collect();
    // A section may begin before the memory that is in it.
    let mut places = runs.iter().filter_map(|run| shape.struct_page(array, run.start));
    if !places.any(|at| mem.translate(at).is_ok()) {
        return Err("nothing is mapped at vmemmap".into());
    }
    Ok(sections)
}
