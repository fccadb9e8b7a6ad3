//! Where the kernel had all of memory mapped. In: a kernel and its memory. Out: physical to virtual.
//! May surprise: no kernel exports the base (it is random since Linux 4.8, 0483e1fa6e09), and a kdump-compressed dump
//! has no segment that would tell. But the array of memory sections was allocated from that map: its address, walked
//! through the page tables, gives the base, and other memory must agree.

use crate::kernel::Kernel;
use crate::paging::Virtual;
use crate::units::{PhysAddr, VirtAddr};
use crate::vmcore::read::PhysMem;

/// The base is a multiple of what one entry of the third table maps.
const ALIGNED: u64 = 1 << 30;

/// Places asked whether they agree.
const ASKED: usize = 32;

/// The kernel's map of all memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DirectMap {
    base: u64,
}

impl DirectMap {
    /// Looks for it by the pointers that vmcoreinfo leads to.
    pub(crate) fn find(kernel: &Kernel, mem: &dyn PhysMem) -> Option<DirectMap> {
        let mut memory = kernel.memory(mem)?;
        ["mem_section", "node_data"].iter().find_map(|name| {
            let mut at = kernel.facts.symbol(name)?;
            // The symbol is the array, or a pointer to it; the array has pointers too.
            for _ in 0..3 {
                if let Some(found) = DirectMap::of(at, &mut memory, mem) {
                    return Some(found);
                }
                at = memory.pointer(at).ok().filter(|at| memory.is_kernel(*at))?;
            }
            None
        })
    }

    fn of(at: VirtAddr, memory: &mut Virtual<'_>, mem: &dyn PhysMem) -> Option<DirectMap> {
        let base = at.0.checked_sub(memory.translate(at).ok()?.phys.0).filter(|base| base % ALIGNED == 0)?;
        let map = DirectMap { base };
        let (mut agree, mut asked) = (0, 0);
        let loads = &mem.segments().loads;
        for load in loads.iter().step_by((loads.len() / ASKED).max(1)) {
            for phys in
                [load.phys, PhysAddr(load.phys.0 + (load.memsz - 1) / 2), PhysAddr(load.phys.0 + load.memsz - 1)]
            {
                asked += 1;
                match memory.translate(map.virt(phys)) {
                    Ok(mapped) if mapped.phys == phys => agree += 1,
                    Ok(_) => return None,
                    // Memory may have been taken out of the map, and a table may be missing from the dump.
                    Err(_) => {}
                }
            }
        }
        (agree * 2 > asked).then_some(map)
    }

    pub(crate) fn virt(self, phys: PhysAddr) -> VirtAddr {
        VirtAddr(self.base.wrapping_add(phys.0))
    }
}
