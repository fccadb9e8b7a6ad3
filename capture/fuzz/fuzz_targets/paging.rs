//! Page tables of any layout, made of arbitrary bytes. Input: a byte that chooses the layout, a byte that says whether
//! what follows is entries as they are or short forms of them that lead back into the same memory; then 4 addresses
//! of 8 bytes, then the tables.

#![no_main]

use kdump_capture::arch::Arch;
use kdump_capture::fake::MemCore;
use kdump_capture::paging::Virtual;
use kdump_capture::units::{PageSize, PhysAddr, VirtAddr};
use kdump_capture::vmcoreinfo::Facts;
use libfuzzer_sys::fuzz_target;

/// Architecture, page size, and what vmcoreinfo says of the tables, which begin at 0x20_0000.
const LAYOUTS: [(&str, u64, &str); 11] = [
    ("x86_64", 4096, "NUMBER(pgtable_l5_enabled)=0\n"),
    ("x86_64", 4096, "NUMBER(pgtable_l5_enabled)=1\nNUMBER(sme_mask)=140737488355328\n"),
    ("aarch64", 4096, "NUMBER(VA_BITS)=39\n"),
    ("aarch64", 4096, "NUMBER(VA_BITS)=48\n"),
    ("aarch64", 4096, "NUMBER(VA_BITS)=52\n"),
    ("aarch64", 16384, "NUMBER(VA_BITS)=36\n"),
    ("aarch64", 16384, "NUMBER(VA_BITS)=47\n"),
    ("aarch64", 16384, "NUMBER(VA_BITS)=52\n"),
    ("aarch64", 65536, "NUMBER(VA_BITS)=42\n"),
    ("aarch64", 65536, "NUMBER(VA_BITS)=52\nNUMBER(TCR_EL1_T1SZ)=0x10\n"),
    ("aarch64", 65536, "NUMBER(VA_BITS)=52\n"),
];

const START: u64 = 0x20_0000;
const TOP: &str = "SYMBOL(init_top_pgt)=ffffffff81000000\nSYMBOL(swapper_pg_dir)=ffffffff81000000\nNUMBER(phys_base)=-14680064\n\
                   NUMBER(kimage_voffset)=0xffffffff80e00000\n";

fuzz_target!(|data: &[u8]| {
    let Some((head, rest)) = data.split_first_chunk::<2>() else { return };
    let Some((asked, rest)) = rest.split_at_checked(32) else { return };
    let (arch, page, text) = LAYOUTS[usize::from(head[0]) % LAYOUTS.len()];
    let (arch, page) = (Arch::named(arch).unwrap(), PageSize::new(page).unwrap());
    let facts = Facts::parse(format!("{TOP}{text}").as_bytes());
    let paging = (arch.paging)(&facts, page, &[]).unwrap();

    let mut tables = vec![0; 4 * page.bytes()];
    let bytes: Vec<u8> = if head[1] & 1 == 0 {
        rest.to_vec()
    } else {
        // Place, target, kind and upper bits, in 4 bytes; the rest of the tables is empty.
        let mut bytes = vec![0; tables.len()];
        for short in rest.as_chunks::<4>().0 {
            let slot = usize::from(u16::from_le_bytes([short[0], short[1]])) * 8 % bytes.len();
            let target = START + u64::from(short[2] >> 6) * page.bytes() as u64;
            let upper = u64::from(short[2] & 0x30) << 40 | u64::from(short[3] & 0x70) << 48;
            let entry = target | upper | u64::from(short[3] & 0x83) | u64::from(short[2] & 0xc) << 6;
            bytes[slot..slot + 8].copy_from_slice(&entry.to_le_bytes());
        }
        bytes
    };
    let len = bytes.len().min(tables.len());
    tables[..len].copy_from_slice(&bytes[..len]);
    let core = MemCore::of(arch, page, [(PhysAddr(START), tables)]);
    for at in asked.as_chunks::<8>().0 {
        let at = u64::from_le_bytes(*at);
        // An address as it is, and the same in the kernel's half of any width.
        for at in [at, at | 0xfff0 << 48, at | u64::MAX << 36] {
            let at = VirtAddr(at);
            let mut memory = Virtual::new(&core, paging.as_ref());
            let _ = memory.read(at, &mut [0; 9000]);
            let Ok(found) = memory.translate(at) else { continue };
            assert!(paging.is_kernel(at) && found.phys.0 < 1 << 52);
            // The same leaf is found from its other end, without what is remembered.
            let last = VirtAddr(at.0 + (found.len - 1));
            let again = Virtual::new(&core, paging.as_ref()).translate(last).unwrap();
            assert_eq!((again.phys.0, again.len), (found.phys.0 + found.len - 1, 1));
        }
    }
});
