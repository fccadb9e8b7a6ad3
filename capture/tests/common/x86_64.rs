//! Page tables of x86_64, as hardware reads them; entries carry the encryption bit.

use super::{IMAGE, Leaf, Platform, Ram, Tables};

const IMAGE_VIRT: u64 = 0xffff_ffff_8100_0000;
const SME: u64 = 1 << 47;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

pub fn platform(levels: u32, leaf: Leaf) -> Platform {
    Platform {
        name: "x86_64",
        elf: 62,
        page: 4096,
        base: 0,
        image_virt: IMAGE_VIRT,
        map_virt: if levels == 5 { 0xffd4_0000_0000_0000 } else { 0xffff_ea00_0000_0000 },
        tables: Tables::X86_64 { levels },
        leaf_shift: match leaf {
            Leaf::K4 => 12,
            Leaf::M2 => 21,
        },
    }
}

pub fn facts(levels: u32, root_virt: u64) -> String {
    format!(
        "SYMBOL(init_top_pgt)={root_virt:x}\nNUMBER(phys_base)={}\nNUMBER(pgtable_l5_enabled)={}\n\
         NUMBER(sme_mask)=140737488355328\n",
        IMAGE as i64 - (IMAGE_VIRT - 0xffff_ffff_8000_0000) as i64,
        u32::from(levels == 5),
    )
}

/// Maps the page or block of `1 << leaf` bytes at `virt` to `phys`.
pub fn map(ram: &mut dyn Ram, root: u64, levels: u32, virt: u64, phys: u64, leaf: u32) {
    let mut table = root;
    for level in (0..levels).rev() {
        let shift = 12 + 9 * level;
        let entry = table + ((virt >> shift) & 511) * 8;
        if shift == leaf {
            ram.put64(entry, phys | SME | if level > 0 { 0x83 } else { 3 });
            return;
        }
        if ram.get64(entry) == 0 {
            let next = ram.new_table();
            ram.put64(entry, next | SME | 3);
        }
        table = ram.get64(entry) & ADDRESS & !SME;
    }
}
