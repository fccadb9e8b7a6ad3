//! What the crashed kernel itself notes about a page, read out of the raw source: for explaining a difference.
//!
//! In: the source and the facts of its vmcoreinfo. Out: words of `struct page`. Kernels that export `SYMBOL(vmemmap)`
//! only (7.1 and later), x86_64 only, and slow: a page-table walk for each word.

use anyhow::{Context, Result, bail};

use super::kdump_file::{KdumpFile, u64_at};
use super::raw_core::RawCore;

/// `__START_KERNEL_map`: where the kernel's image is mapped, `phys_base` apart.
const KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// The array of struct pages of a raw source.
#[derive(Debug)]
pub struct StructPages<'a> {
    source: &'a RawCore,
    top: u64,
    top_shift: u32,
    vmemmap: u64,
    size: u64,
    compound_at: u64,
}

impl<'a> StructPages<'a> {
    /// Learns from `dump`, which has the vmcoreinfo, where they are in `source`.
    pub fn new(source: &'a RawCore, dump: &KdumpFile) -> Result<StructPages<'a>> {
        let fact = |key: &str| dump.fact(key).with_context(|| format!("vmcoreinfo has no {key}"));
        let symbol = |key: &str| Ok::<_, anyhow::Error>(u64::from_str_radix(fact(key)?, 16)?);
        let number = |key: &str| Ok::<_, anyhow::Error>(fact(key)?.parse::<i64>()?.cast_unsigned());
        let five_levels = number("NUMBER(pgtable_l5_enabled)")? == 1;
        Ok(StructPages {
            source,
            top: (symbol("SYMBOL(swapper_pg_dir)")? - KERNEL_MAP).wrapping_add(number("NUMBER(phys_base)")?),
            top_shift: if five_levels { 48 } else { 39 },
            vmemmap: symbol("SYMBOL(vmemmap)")?,
            size: number("SIZE(page)")?,
            compound_at: number("OFFSET(page.compound_info)")?,
        })
    }

    /// Whether the kernel calls it a tail of a compound page: bit 0 of `compound_info`.
    pub fn is_tail(&self, pfn: u64) -> Result<bool> {
        let word = self.virtual_word(self.vmemmap + pfn * self.size + self.compound_at)?;
        Ok(word & 1 == 1)
    }

    fn virtual_word(&self, address: u64) -> Result<u64> {
        let mut table = self.top;
        let mut shift = self.top_shift;
        loop {
            let entry = self.word(table + 8 * (address >> shift & 511))?;
            let inside = (1 << shift) - 1;
            match () {
                () if entry & PRESENT == 0 => bail!("{address:#x} is not mapped"),
                () if shift == 12 || (shift <= 30 && entry & LARGE != 0) => {
                    return self.word((entry & FRAME & !inside) + (address & inside));
                }
                () => table = entry & FRAME,
            }
            shift -= 9;
        }
    }

    fn word(&self, address: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        if !self.source.read_page(address, &mut bytes)? {
            bail!("physical address {address:#x} is not in the source");
        }
        u64_at(&bytes, 0)
    }
}
