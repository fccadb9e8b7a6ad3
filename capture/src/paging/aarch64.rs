//! Paging of aarch64: granules of 4, 16 and 64 KiB, 36 to 52 bits of address. In: `swapper_pg_dir`, `kimage_voffset`,
//! `VA_BITS`, `TCR_EL1_T1SZ`. Out: walks.
//! May surprise: a kernel built for 52 bits of virtual address falls back when the CPU has fewer, and its tables then
//! differ from what `VA_BITS` says ([`Aarch64::new`]). The top table may be far smaller than a page.
//!
//! ```text
//!  levels, and bits of the index at each         a leaf at level 0, 1, 2 is a block of
//!            -1   0   1   2   3                           0         1         2
//!  4K  39              9   9   9                 4K   512 GiB*    1 GiB     2 MiB
//!  4K  48          9   9   9   9                 16K              64 GiB*   32 MiB
//!  4K  52 *    4   9   9   9   9                 64K              4 TiB**   512 MiB
//!  16K 36                 11  11
//!  16K 47             11  11  11                 * with LPA2   ** with LPA
//!  16K 48          1  11  11  11
//!  16K 52 *        5  11  11  11                 descriptor: bits 1:0 are 11 for a table and for a page of level 3,
//!  64K 42                 13  13                 01 for a block; anything else is not mapped
//!  64K 48              6  13  13
//!  64K 52             10  13  13
//! ```
//!
//! Format: Arm Architecture Reference Manual (DDI 0487), D8.3, "Translation table descriptor formats". Which layout
//! Linux takes: Documentation/arch/arm64/memory.rst, and arch/arm64/kernel/pi/map_kernel.c for the fallbacks.
//! Entries that other bits change (contiguous, attributes) lead to the same place, and pointer authentication signs
//! return addresses, not these.

use crate::arch::Arch;
use crate::units::{PageSize, PhysAddr, VirtAddr};
use crate::vmcore::segments::Load;
use crate::vmcoreinfo::Facts;

use super::{Entry, Layout, Translate};

/// The architecture.
pub(crate) static ARCH: Arch = Arch {
    name: "aarch64",
    elf: 183,
    pages: &[PageSize::K4, PageSize::K16, PageSize::K64],
    // Linux 5.12 made sections smaller (f0b13ee23241), 5.13 began to say so (4f5aecdff25f).
    section_bits: 30,
    physmem_bits: 48,
    phys_base: |facts| phys_offset(facts).unwrap_or(0),
    flat_base: |facts| phys_offset(facts).filter(|start| *start < PHYS_LIMIT),
    paging: |facts, page, loads| Ok(Box::new(Aarch64::new(facts, page, loads)?)),
};

/// Where physical memory begins.
fn phys_offset(facts: &Facts) -> Option<u64> {
    facts.number("PHYS_OFFSET").map(i64::cast_unsigned)
}

const KIND: u64 = 3;
const BLOCK: u64 = 1;
const TABLE_OR_PAGE: u64 = 3;
/// PXN, which says it of the kernel.
const NO_EXECUTE: u64 = 1 << 53;

/// No table lies beyond.
const PHYS_LIMIT: u64 = 1 << 52;

/// The fewest bits Linux was ever built with, and the most.
const VA_BITS: std::ops::RangeInclusive<u32> = 36..=52;

/// Where an entry has the output address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    /// Bits 47 to 12. Bits 9:8 are the shareability then, so they must not be taken for address bits.
    Plain,
    /// FEAT_LPA, 64 KiB only: bits 51:48 of the address are in 15:12, which are zero without.
    Lpa,
    /// FEAT_LPA2, 4 and 16 KiB: bits 49 to 12, and bits 51:50 of the address in 9:8.
    Lpa2,
}

impl Output {
    fn address(self, entry: u64) -> u64 {
        match self {
            Output::Plain => entry & 0x0000_ffff_ffff_f000,
            Output::Lpa => entry & 0x0000_ffff_ffff_0000 | (entry & 0xf000) << 36,
            Output::Lpa2 => entry & 0x0003_ffff_ffff_f000 | (entry & 0x300) << 42,
        }
    }
}

/// The page tables of one kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Aarch64 {
    root: PhysAddr,
    /// log2 of the granule.
    shift: u32,
    levels: u32,
    /// log2 of the bytes that the top table covers.
    covers: u32,
    /// Bits of an address of the kernel's half; all above are ones.
    bits: u32,
    output: Output,
}

impl Aarch64 {
    /// How the tables are laid out.
    ///
    /// `VA_BITS` is what the kernel was built for, `64 - TCR_EL1_T1SZ` (exported since Linux 5.9, bbdbc11804ff) what it
    /// runs with; the second is lower only where the first is 52.
    /// - With 64 KiB the fallback to 48 bits keeps the top table of 1024 entries, of which the CPU is shown the last 64.
    ///   As the address is extended with ones, an index of 10 bits finds the same entries: `VA_BITS` counts. Linux 5.0 to
    ///   5.3 could have such a table for the sake of users alone (`ARM64_USER_VA_BITS_52`), RHEL 8 among them, which
    ///   exports `MAX_USER_VA_BITS`.
    /// - With 4 and 16 KiB the fallback (to 48 and 47 bits) drops the top level, so that `swapper_pg_dir` is a table of
    ///   the next one: what it runs with counts.
    ///
    /// Whether LPA2 is on (TCR_EL1.DS) is not exported. But more than 48 bits of virtual address cannot be had without
    /// it with these granules, and Linux turns it on in no other case: `ARM64_LPA2` needs `ARM64_VA_BITS_52`, and a CPU
    /// without makes the kernel fall back. So it is on if and only if the kernel runs with 52 bits.
    pub(super) fn new(facts: &Facts, page: PageSize, loads: &[Load]) -> Result<Self, String> {
        let sane = |bits: Option<u32>| bits.filter(|bits| VA_BITS.contains(bits));
        let number = |name: &str| sane(facts.number(name).and_then(|bits| u32::try_from(bits).ok()));
        let built = number("VA_BITS");
        let runs = sane(facts.number("TCR_EL1_T1SZ").and_then(|size| 64u32.checked_sub(u32::try_from(size).ok()?)));
        let built = built.or(runs).ok_or("no NUMBER(VA_BITS) that makes sense")?;
        let bits = runs.filter(|runs| *runs <= built).unwrap_or(built);

        let shift = page.shift();
        let (covers, output) = match page {
            PageSize::K64 => (number("MAX_USER_VA_BITS").map_or(built, |users| users.max(built)), Output::Lpa),
            _ if bits > 48 => (bits, Output::Lpa2),
            _ => (bits, Output::Plain),
        };
        let levels = (covers - shift).div_ceil(shift - 3);
        let root = root(facts, built, loads)?;
        Ok(Aarch64 { root, shift, levels, covers, bits, output })
    }

    /// Whether an entry `above` levels above the last may be a block.
    fn block(&self, above: u32) -> bool {
        match (self.shift, above) {
            (_, 1) => true,
            (12, 2) => true,
            (12, 3) | (14, 2) => self.output == Output::Lpa2,
            (16, 2) => self.output == Output::Lpa,
            _ => false,
        }
    }
}

/// Where `swapper_pg_dir` lies. It is in the kernel image, of which `kimage_voffset` tells the place; where that is not
/// exported, the PT_LOAD of the image does. Before Linux 4.6 (f9040773b7bb) the image was in the linear map.
fn root(facts: &Facts, built: u32, loads: &[Load]) -> Result<PhysAddr, String> {
    let symbol = facts.symbol("swapper_pg_dir").ok_or("no SYMBOL(swapper_pg_dir) in vmcoreinfo")?.0;
    let image = facts.number("kimage_voffset").map(|offset| symbol.wrapping_sub(offset.cast_unsigned()));
    let load = || {
        let inside = |load: &&Load| symbol.checked_sub(load.virt.0).is_some_and(|skip| skip < load.memsz);
        loads.iter().find(inside).map(|load| load.phys.0.wrapping_add(symbol - load.virt.0))
    };
    let linear = || {
        let start = phys_offset(facts)?;
        // The linear map was the upper half of the kernel's addresses until Linux 5.4 (14c127c957c1), then the lower.
        let half = 1u64 << (built - 1);
        let page_offset = if symbol & half == 0 { (half << 1).wrapping_neg() } else { half.wrapping_neg() };
        Some(symbol.wrapping_sub(page_offset).wrapping_add(start))
    };
    let found = image.or_else(load).or_else(linear);
    let found = found.ok_or("no NUMBER(kimage_voffset) in vmcoreinfo and no PT_LOAD of the kernel image")?;
    // A table is aligned to its size, and to 64 bytes at least.
    if found >= PHYS_LIMIT || found % 64 != 0 {
        return Err(format!("the top page table cannot be at {}", PhysAddr(found)));
    }
    Ok(PhysAddr(found))
}

impl Translate for Aarch64 {
    fn layout(&self) -> Layout {
        Layout { root: self.root, shift: self.shift, levels: self.levels, covers: self.covers }
    }

    fn entry(&self, above: u32, entry: u64) -> Entry {
        let to = self.output.address(entry);
        let leaf = Entry::Leaf { to: PhysAddr(to), code: entry & NO_EXECUTE == 0 };
        match entry & KIND {
            TABLE_OR_PAGE if above > 0 => Entry::Table(PhysAddr(to & !((1 << self.shift) - 1))),
            TABLE_OR_PAGE => leaf,
            BLOCK if self.block(above) => leaf,
            _ => Entry::Nothing,
        }
    }

    fn is_kernel(&self, at: VirtAddr) -> bool {
        at.0 >> self.bits == u64::MAX >> self.bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::FileOffset;

    fn paging(page: PageSize, text: &str) -> Aarch64 {
        let facts = "SYMBOL(swapper_pg_dir)=ffffffc008000040\nNUMBER(kimage_voffset)=0xffffffbf88000000\n";
        Aarch64::new(&Facts::parse(format!("{facts}{text}").as_bytes()), page, &[]).unwrap()
    }

    #[test]
    fn levels_and_output_follow_from_granule_and_bits() {
        use Output::{Lpa, Lpa2, Plain};
        for (page, built, runs, levels, covers, bits, output) in [
            (PageSize::K4, 39, 39, 3, 39, 39, Plain),
            (PageSize::K4, 48, 48, 4, 48, 48, Plain),
            (PageSize::K4, 52, 52, 5, 52, 52, Lpa2),
            (PageSize::K4, 52, 48, 4, 48, 48, Plain),
            (PageSize::K16, 36, 36, 2, 36, 36, Plain),
            (PageSize::K16, 47, 47, 3, 47, 47, Plain),
            (PageSize::K16, 48, 48, 4, 48, 48, Plain),
            (PageSize::K16, 52, 52, 4, 52, 52, Lpa2),
            (PageSize::K16, 52, 47, 3, 47, 47, Plain),
            (PageSize::K64, 42, 42, 2, 42, 42, Lpa),
            (PageSize::K64, 48, 48, 3, 48, 48, Lpa),
            (PageSize::K64, 52, 52, 3, 52, 52, Lpa),
            (PageSize::K64, 52, 48, 3, 52, 48, Lpa),
        ] {
            let found = paging(page, &format!("NUMBER(VA_BITS)={built}\nNUMBER(TCR_EL1_T1SZ)={:#x}\n", 64 - runs));
            let found = (found.levels, found.covers, found.bits, found.output);
            assert_eq!(found, (levels, covers, bits, output), "{page:?} {built} {runs}");
        }
    }

    #[test]
    fn a_size_that_makes_no_sense_is_not_believed() {
        for text in ["", "NUMBER(TCR_EL1_T1SZ)=0x3f\n", "NUMBER(TCR_EL1_T1SZ)=0\n", "NUMBER(TCR_EL1_T1SZ)=-1\n"] {
            assert_eq!(paging(PageSize::K4, &format!("NUMBER(VA_BITS)=39\n{text}")).bits, 39, "{text}");
        }
        assert_eq!(paging(PageSize::K4, "NUMBER(VA_BITS)=39\nNUMBER(TCR_EL1_T1SZ)=0x10\n").bits, 39);
        assert_eq!(paging(PageSize::K4, "NUMBER(VA_BITS)=1000\nNUMBER(TCR_EL1_T1SZ)=0x10\n").bits, 48);
    }

    #[test]
    fn the_top_table_is_found_through_the_image_its_segment_or_the_linear_map() {
        let find = |text: &str, loads: &[Load]| root(&Facts::parse(text.as_bytes()), 48, loads);
        let image = Load {
            phys: PhysAddr(0x4000_0000),
            virt: VirtAddr(0xffff_8000_1000_0000),
            offset: FileOffset(0),
            filesz: 0,
            memsz: 0x200_0000,
        };
        let symbol = "SYMBOL(swapper_pg_dir)=ffff800011001000\n";
        let voffset = format!("{symbol}NUMBER(kimage_voffset)=0xffff7fffc0000000\n");
        assert_eq!(find(&voffset, &[]), Ok(PhysAddr(0x5100_1000)));
        assert_eq!(find(symbol, &[image]), Ok(PhysAddr(0x4100_1000)));
        // As of Linux 4.5: PAGE_OFFSET is 0xffff800000000000.
        let linear = format!("{symbol}NUMBER(PHYS_OFFSET)=0x80000000\n");
        assert_eq!(find(&linear, &[]), Ok(PhysAddr(0x9100_1000)));
        assert!(find(symbol, &[]).is_err());
        assert!(find("SYMBOL(swapper_pg_dir)=ffff800011001004\nNUMBER(kimage_voffset)=0\n", &[]).is_err());
    }
}
