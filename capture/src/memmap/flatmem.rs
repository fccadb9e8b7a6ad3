//! FLATMEM: one array over all memory, holes included. In: `SYMBOL(mem_map)`, a pointer to it. Out: that array, in
//! pieces of a section's size, so that workers can share it.
//! May surprise: the array begins with `ARCH_PFN_OFFSET`: page frame 0 on x86_64, but where physical memory begins on
//! aarch64. Memory below has no struct pages and is kept.

use crate::kernel::Kernel;
use crate::paging::Virtual;
use crate::units::{Pfn, PhysAddr};
use crate::vmcore::segments::PageRun;

use super::{Section, Shape, missing, touched};

/// The pieces that `runs` touch.
pub(super) fn sections(
    kernel: &Kernel,
    shape: &Shape,
    mem: &mut Virtual<'_>,
    runs: &[PageRun],
) -> Result<Vec<Section>, String> {
    let symbol = kernel.facts.symbol("mem_map").ok_or_else(|| missing("SYMBOL(mem_map)"))?;
    let base = kernel.arch.and_then(|arch| (arch.flat_base)(&kernel.facts));
    let base = kernel.page.pfn(PhysAddr(base.ok_or("where mem_map begins is not known")?));
    let array = mem.pointer(symbol).map_err(|e| format!("mem_map: {}", crate::error::chain(&e)))?;
    if !mem.is_kernel(array) {
        return Err(format!("mem_map cannot be at {array}"));
    }
    let numbers = touched(runs, shape.section_shift, base);
    let piece = |number: u64| {
        let pages = number << shape.section_shift;
        Section { first: Pfn(base.0 + pages), map: shape.struct_page(array, Pfn(pages)) }
    };
    Ok(numbers.map(piece).collect())
}
