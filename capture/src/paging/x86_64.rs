//! Paging of x86_64, with 4 and 5 levels. In: `init_top_pgt`, `phys_base`, `pgtable_l5_enabled`, `sme_mask`.
//! Out: walks.
//! May surprise: vmcoreinfo prints run-time addresses, so KASLR needs no arithmetic here; `phys_base` may be negative.
//!
//! Format: Intel SDM volume 3A, 4.5; kernel layout: Documentation/arch/x86/x86_64/mm.rst.

use crate::arch::Arch;
use crate::units::{PageSize, PhysAddr, VirtAddr};
use crate::vmcore::segments::Load;
use crate::vmcoreinfo::Facts;

use super::{Entry, Layout, Translate};

/// The architecture.
pub(crate) static ARCH: Arch = Arch {
    name: "x86_64",
    elf: 62,
    pages: &[PageSize::K4],
    section_bits: 27,
    physmem_bits: 46,
    phys_base: |facts| facts.number("phys_base").map_or(0, i64::cast_unsigned),
    flat_base: |_| Some(0),
    paging: |facts, _, loads| Ok(Box::new(X86_64::new(facts, loads)?)),
};

/// `__START_KERNEL_map`: where the kernel image is linked.
const KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const PRESENT: u64 = 1;
const LEAF: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;

/// The page tables of one kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct X86_64 {
    root: PhysAddr,
    levels: u32,
    address: u64,
}

impl X86_64 {
    /// Finds the top table. `init_top_pgt` replaced `init_level4_pgt` in Linux 4.13 (65ade2f872b4, "x86/boot/64: Rename
    /// init_level4_pgt and early_level4_pgt"); `phys_base` is exported since 4.10 (401721ecd1dc), before that the
    /// PT_LOAD of the kernel image tells it.
    pub(super) fn new(facts: &Facts, loads: &[Load]) -> Result<Self, String> {
        let symbols = ["init_top_pgt", "init_level4_pgt", "swapper_pg_dir"];
        let top = symbols.iter().find_map(|name| facts.symbol(name)).ok_or("no SYMBOL(init_top_pgt)")?;
        let exported = facts.number("phys_base").map(i64::cast_unsigned);
        let from_load = || {
            let image = loads.iter().find(|l| l.virt.0 >= KERNEL_MAP)?;
            Some(image.phys.0.wrapping_sub(image.virt.0 - KERNEL_MAP))
        };
        let phys_base = exported.or_else(from_load).ok_or("no NUMBER(phys_base) and no PT_LOAD of the kernel image")?;
        let offset = top.0.checked_sub(KERNEL_MAP).ok_or("SYMBOL(init_top_pgt) is not in the kernel image")?;
        let root = PhysAddr(offset.wrapping_add(phys_base));
        if root.0 & !ADDRESS != 0 {
            return Err(format!("the top page table cannot be at {root}"));
        }
        let levels = if facts.number("pgtable_l5_enabled") == Some(1) { 5 } else { 4 };
        let sme = facts.number("sme_mask").map_or(0, i64::cast_unsigned);
        Ok(X86_64 { root, levels, address: ADDRESS & !sme })
    }
}

impl Translate for X86_64 {
    fn layout(&self) -> Layout {
        Layout { root: self.root, shift: 12, levels: self.levels, covers: 12 + 9 * self.levels }
    }

    /// Bit 7 makes a leaf of a 1 GiB or 2 MiB entry; at the lowest level it is part of the memory type.
    fn entry(&self, above: u32, entry: u64) -> Entry {
        let to = PhysAddr(entry & self.address);
        match entry & PRESENT {
            0 => Entry::Nothing,
            _ if above == 0 || (above <= 2 && entry & LEAF != 0) => Entry::Leaf { to, code: entry & NO_EXECUTE == 0 },
            _ => Entry::Table(to),
        }
    }

    fn is_kernel(&self, at: VirtAddr) -> bool {
        let sign = 12 + 9 * self.levels - 1;
        at.0 >> sign == u64::MAX >> sign
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::FileOffset;

    #[test]
    fn phys_base_comes_from_the_kernel_image_when_it_is_not_exported() {
        let facts = Facts::parse(b"SYMBOL(init_level4_pgt)=ffffffff82010000\n");
        let image = Load {
            phys: PhysAddr(0x1_2000_0000),
            virt: VirtAddr(0xffff_ffff_8100_0000),
            offset: FileOffset(0),
            filesz: 0,
            memsz: 0,
        };
        let paging = X86_64::new(&facts, &[image]).unwrap();
        assert_eq!(paging.root, PhysAddr(0x1_2000_0000 - 0x100_0000 + 0x201_0000));
        assert!(X86_64::new(&facts, &[]).is_err());
    }

    #[test]
    fn a_negative_phys_base_is_added_as_such() {
        let facts = Facts::parse(b"SYMBOL(init_top_pgt)=ffffffffae210000\nNUMBER(phys_base)=-444596224\n");
        assert_eq!(X86_64::new(&facts, &[]).unwrap().root, PhysAddr(0x2e21_0000 - 444_596_224));
    }

    #[test]
    fn the_kernel_half_depends_on_the_number_of_levels() {
        let four = X86_64 { root: PhysAddr(0), levels: 4, address: ADDRESS };
        let five = X86_64 { levels: 5, ..four };
        assert!(!four.is_kernel(VirtAddr(0xff11_0000_0000_0000)));
        assert!(five.is_kernel(VirtAddr(0xff11_0000_0000_0000)));
        assert!(!five.is_kernel(VirtAddr(0x00ff_ffff_ffff_ffff)));
    }
}
