//! Everything that the kernel has mapped. In: page tables. Out: each table, and each leaf, from the lowest address up.
//! May surprise: tables may be shared (KASAN has one shadow for all that it does not watch, which mapped leaf by leaf
//! would take hours), so a table that its neighbour has led to is not gone through again. Damaged tables may lead in
//! circles: the depth is that of the layout, and there is a limit to the number of tables.

use crate::units::{PhysAddr, VirtAddr};
use crate::vmcore::read::PhysMem;

use super::{Entry, Tables, Translate};

/// What a walk comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A table, or the part of a page that is the top table.
    Table {
        /// Where it is.
        at: PhysAddr,
        /// Its length in bytes.
        len: u64,
    },
    /// Memory that is mapped in one piece.
    Leaf {
        /// Where it is mapped.
        virt: VirtAddr,
        /// What is mapped.
        phys: PhysAddr,
        /// Its length in bytes.
        len: u64,
        /// Whether the kernel may execute it.
        code: bool,
    },
}

/// Shows `see` what the kernel's half of its address space has, until it says that this is enough (with `false`), or
/// `most` tables have been read; whether the walk came to the end. Tables that cannot be read are passed over.
pub fn walk(paging: &dyn Translate, mem: &dyn PhysMem, most: u64, see: &mut dyn FnMut(Seen) -> bool) -> bool {
    let layout = paging.layout();
    let tables = Tables { reader: mem.small_reader(), kept: Vec::new(), next: 0 };
    let steps: Vec<(u32, u32, u32)> = layout.steps().collect();
    let mut walk = Walk { paging, tables, last: vec![None; steps.len()], left: most, see };
    let high = u64::MAX.checked_shl(layout.covers).unwrap_or(0);
    walk.table(&steps, layout.root, high).is_some()
}

struct Walk<'a, 'b> {
    paging: &'a dyn Translate,
    tables: Tables<'a>,
    /// For each level, the table that was gone through last.
    last: Vec<Option<PhysAddr>>,
    /// So many tables may still be read.
    left: u64,
    see: &'b mut dyn FnMut(Seen) -> bool,
}

impl Walk<'_, '_> {
    /// Goes through the table at `at`, which maps what is at `base`; `None` if that is enough.
    fn table(&mut self, steps: &[(u32, u32, u32)], at: PhysAddr, base: u64) -> Option<()> {
        let Some(((above, lower, upper), below)) = steps.split_first() else { return Some(()) };
        let last = self.last.get_mut(below.len())?;
        if last.replace(at) == Some(at) {
            return Some(());
        }
        self.left = self.left.checked_sub(1)?;
        let entries = 1u64 << (upper - lower);
        (self.see)(Seen::Table { at, len: entries * 8 }).then_some(())?;
        for index in 0..entries {
            let virt = VirtAddr(base | index << lower);
            if !self.paging.is_kernel(virt) {
                continue;
            }
            let Some(place) = at.checked_add(index * 8) else { break };
            let Ok(entry) = self.tables.entry(place) else { break };
            match self.paging.entry(*above, entry) {
                Entry::Nothing => {}
                Entry::Table(next) => self.table(below, next, virt.0)?,
                Entry::Leaf { to, code } => {
                    let len = 1u64 << lower;
                    (self.see)(Seen::Leaf { virt, phys: PhysAddr(to.0 & !(len - 1)), len, code }).then_some(())?;
                }
            }
        }
        Some(())
    }
}
