//! Page tables of aarch64, as the Arm ARM has hardware read them: a row of [`ALL`] is a way to build a kernel, and what
//! it makes of the CPU it runs on.

use super::{Platform, Ram, Tables};

/// How an output address is written into an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pa {
    /// 48 bits, in place.
    Plain,
    /// 52 bits: the upper four in 15:12.
    Lpa,
    /// 52 bits: the upper two in 9:8.
    Lpa2,
}

#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    pub page_shift: u32,
    /// `VA_BITS`.
    pub built: u32,
    /// `64 - T1SZ`.
    pub runs: u32,
    /// The lowest bit of the index of each level, the top one first.
    pub levels: &'static [u32],
    /// Entries of the top table before those the CPU is shown.
    pub hidden: u64,
    pub pa: Pa,
    /// The sizes of its leaves, as shifts.
    pub leaves: &'static [u32],
}

const fn row(
    (page_shift, built, runs): (u32, u32, u32),
    levels: &'static [u32],
    hidden: u64,
    pa: Pa,
    leaves: &'static [u32],
) -> Recipe {
    Recipe { page_shift, built, runs, levels, hidden, pa, leaves }
}

pub const ALL: [Recipe; 14] = [
    row((12, 39, 39), &[30, 21, 12], 0, Pa::Plain, &[12, 21, 30]),
    row((12, 48, 48), &[39, 30, 21, 12], 0, Pa::Plain, &[12, 21, 30]),
    row((12, 52, 52), &[48, 39, 30, 21, 12], 0, Pa::Lpa2, &[12, 21, 30, 39]),
    row((12, 52, 48), &[39, 30, 21, 12], 0, Pa::Plain, &[12, 21, 30]),
    row((14, 36, 36), &[25, 14], 0, Pa::Plain, &[14, 25]),
    row((14, 47, 47), &[36, 25, 14], 0, Pa::Plain, &[14, 25]),
    row((14, 48, 48), &[47, 36, 25, 14], 0, Pa::Plain, &[14, 25]),
    row((14, 52, 52), &[47, 36, 25, 14], 0, Pa::Lpa2, &[14, 25, 36]),
    row((14, 52, 47), &[36, 25, 14], 0, Pa::Plain, &[14, 25]),
    row((16, 42, 42), &[29, 16], 0, Pa::Lpa, &[16, 29]),
    row((16, 48, 48), &[42, 29, 16], 0, Pa::Lpa, &[16, 29, 42]),
    row((16, 52, 52), &[42, 29, 16], 0, Pa::Lpa, &[16, 29, 42]),
    row((16, 52, 48), &[42, 29, 16], 1024 - 64, Pa::Lpa, &[16, 29, 42]),
    // 52 bits for users alone.
    row((16, 48, 48), &[42, 29, 16], 1024 - 64, Pa::Lpa, &[16, 29, 42]),
];

/// Where aarch64 machines tend to have memory.
pub const LOW: u64 = 0x4000_0000;
/// Bits 51, 50 and 48.
pub const HIGH: u64 = 0xd_0000_0000_0000;

impl Recipe {
    /// The lowest address of the kernel's half.
    pub fn half(&self) -> u64 {
        u64::MAX << self.runs
    }

    /// A machine with its memory at `base`, its image and mem_map mapped by leaves of `1 << leaf` bytes.
    pub fn platform(&self, base: u64, leaf: u32) -> Platform {
        let page = 1 << self.page_shift;
        let within = |phys: u64| phys & ((1 << leaf) - 1);
        Platform {
            name: "aarch64",
            elf: 183,
            page,
            base,
            image_virt: self.half() + (1 << (self.runs - 1)) + within(base + 0x200 * page),
            map_virt: self.half() + (3 << (self.runs - 2)) + within(base + 0x400 * page),
            tables: Tables::Aarch64(*self),
            leaf_shift: leaf,
        }
    }

    pub fn facts(&self, base: u64, root_virt: u64, voffset: u64) -> String {
        format!(
            "SYMBOL(swapper_pg_dir)={root_virt:x}\nNUMBER(VA_BITS)={}\nNUMBER(TCR_EL1_T1SZ)={:#x}\n\
             NUMBER(kimage_voffset)={voffset:#x}\nNUMBER(PHYS_OFFSET)={base:#x}\nNUMBER(KERNELPACMASK)={:#x}\n\
             NUMBER(MAX_PHYSMEM_BITS)={}\n{}",
            self.built,
            64 - self.runs,
            0x7f_u64 << 48,
            if self.pa == Pa::Plain { 48 } else { 52 },
            if self.hidden > 0 && self.built == 48 { "NUMBER(MAX_USER_VA_BITS)=52\n" } else { "" },
        )
    }

    /// Bytes of the top table that are in use, hidden ones too.
    pub fn top_bytes(&self) -> u64 {
        (self.hidden + (1 << (self.runs - self.levels[0]))) * 8
    }

    fn output(&self, phys: u64) -> u64 {
        let low = |bits: u32| phys & ((1 << bits) - 1);
        match self.pa {
            Pa::Plain => {
                assert!(phys < 1 << 48);
                phys
            }
            Pa::Lpa => low(48) | (phys >> 48) << 12,
            Pa::Lpa2 => low(50) | (phys >> 50) << 8,
        }
    }

    /// Access flag, normal memory, not global, contiguous, never executed; inner shareable, where the entry says so.
    fn attributes(&self, leaf: u32) -> u64 {
        let shared = if self.pa == Pa::Lpa2 { 0 } else { 0x300 };
        let block = if leaf > self.page_shift && leaf > 17 { 1 << 16 } else { 0 }; // nT
        0x0070_0000_0000_0000 | 0xc10 | shared | block
    }

    /// Maps the page or block of `1 << leaf` bytes at `virt` to `phys`.
    pub fn map(&self, ram: &mut dyn Ram, root: u64, virt: u64, phys: u64, leaf: u32) {
        let mut table = root + self.hidden * 8;
        let mut upper = self.runs;
        for shift in self.levels {
            let entry = table + (virt >> shift & ((1 << (upper - shift)) - 1)) * 8;
            if *shift == leaf {
                let kind = if leaf == self.page_shift { 3 } else { 1 };
                ram.put64(entry, self.output(phys) | self.attributes(leaf) | kind);
                return;
            }
            // Bits that hardware does not look at, or that limit what lies below.
            let ignored = 0xf800_0000_0000_0000 | if self.pa == Pa::Lpa2 { 0 } else { 0x304 };
            table = match ram.known_table(entry) {
                Some(table) => table,
                None => {
                    let next = ram.new_table();
                    ram.put64(entry, self.output(next) | ignored | 3);
                    ram.remember_table(entry, next);
                    next
                }
            };
            upper = *shift;
        }
        panic!("{self:?} has no leaves of {leaf} bits");
    }
}
