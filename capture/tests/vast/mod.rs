//! A vast machine as a sparse file: 64 GiB, 256 GiB, 1 TiB of memory, of which only the kernel's own words are real.
//! In: how much memory. Out: a vmcore that filters like one of that size.
//! May surprise: all of mem_map is there for the page tables, but sections of a kind share a few leaves of 2 MiB, so a
//! file of any span takes some 130 MB of disk. Pages that are kept read as zeros.
//!
//! ```text
//!  1 MiB    16 MiB              32 MiB          64 MiB                       256 MiB                       span
//!  |        | kernel image:     | page tables   | leaves of struct pages     | memory of all kinds         |
//!  |        | names, sections   | of vmemmap    | KINDS x COPIES x 2 MiB     | (not in the file but holes) |
//! ```

#![allow(dead_code, missing_debug_implementations, missing_docs, unreachable_pub)]
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const GIB: u64 = 1 << 30;
/// Pages of a section of 128 MiB; its struct pages fill a leaf of 2 MiB.
const SECTION: u64 = 1 << 15;
const LEAF: u64 = 2 << 20;

const IMAGE: u64 = 16 << 20;
const IMAGE_VIRT: u64 = 0xffff_ffff_8100_0000;
const TABLES: u64 = 32 << 20;
const LEAVES: u64 = 64 << 20;
const VMEMMAP: u64 = 0xffff_ea00_0000_0000;
/// RAM begins here; before it in the file come the headers.
const RAM: u64 = 1 << 20;
const RAM_AT: u64 = 1 << 20;

/// Leaves of each kind; together more than a processor's cache.
const COPIES: u64 = 15;

/// What a section is full of, in turn.
#[derive(Clone, Copy)]
enum Full {
    /// Blocks of the buddy allocator of the largest order.
    Free,
    /// Pages of processes, each for itself.
    Anon,
    /// File cache, each page for itself.
    Cache,
    /// Pages of processes in huge pages of 2 MiB.
    Huge,
}

/// By section; the second kind, of single pages, is the one with pages of the kernel's.
const KINDS: [Full; 4] = [Full::Free, Full::Anon, Full::Cache, Full::Huge];

/// So many pages at the end of a few sections are the kernel's, and kept.
const KERNEL: u64 = 16;

const BUDDY: u32 = 0xf0 << 24;
const LRU: u64 = 1 << 4;
const SWAPBACKED: u64 = 1 << 19;
const HEAD: u64 = 1 << 16;

struct Vast {
    file: File,
}

impl Vast {
    /// Writes at a physical address.
    fn put(&self, phys: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, RAM_AT + phys - RAM)
    }

    fn put64(&self, phys: u64, value: u64) -> io::Result<()> {
        self.put(phys, &value.to_le_bytes())
    }
}

fn virt(phys: u64) -> u64 {
    phys - IMAGE + IMAGE_VIRT
}

/// How many pages of each kind a machine has: free, cache, user, and kept; the first section is the kernel's.
pub fn pages(span_gib: u64) -> [u64; 4] {
    let mut pages = [0, 0, 0, SECTION - RAM / 4096];
    for section in 1..span_gib * GIB / 4096 / SECTION {
        let kernel = if is_kernel(section) { KERNEL } else { 0 };
        pages[3] += kernel;
        pages[match kind_of(section) {
            Full::Free => 0,
            Full::Cache => 1,
            Full::Anon | Full::Huge => 2,
        }] += SECTION - kernel;
    }
    pages
}

/// Writes the vmcore of a machine with `span_gib` GiB of memory to `path`.
pub fn write(path: &Path, span_gib: u64) -> io::Result<()> {
    let span = span_gib * GIB;
    let vast = Vast { file: File::create(path)? };
    vast.file.set_len(RAM_AT + span - RAM)?;
    headers(&vast.file, span)?;
    let (uts, roots, sections) = (IMAGE + 0x10_0000, IMAGE + 0x11_0000, IMAGE + 0x12_0000);
    for (index, name) in ["Linux", "vast", "6.12.0-vast", "#1", "x86_64", "(none)"].iter().enumerate() {
        vast.put(uts + 4 + index as u64 * 65, name.as_bytes())?;
    }
    image_tables(&vast)?;

    let count = span / 4096 / SECTION;
    for (index, table) in (0..count.div_ceil(512)).map(|n| (n, TABLES + (2 + n) * 4096)) {
        // The third level; one table of it maps all of vmemmap that a TiB needs.
        vast.put64(TABLES + 4096 + index * 8, table | 3)?;
    }
    for section in 0..count {
        let leaf = LEAVES + leaf_of(section) * LEAF;
        vast.put64(TABLES + 2 * 4096 + section * 8, leaf | 0x83)?;
        if section % 256 == 0 {
            vast.put64(roots + section / 256 * 8, virt(sections + section * 16))?;
        }
        // The address is biased by minus the first page, so it is the same for all; present, with a mem_map.
        vast.put64(sections + section * 16, VMEMMAP | 3)?;
    }
    // The first section, in which the kernel and these structures lie, is kept: nothing is said of its pages.
    let mut leaf = vec![0u8; LEAF as usize];
    fill(&mut leaf, None, false);
    vast.put(LEAVES, &leaf)?;
    for section in 1..=KINDS.len() as u64 * COPIES {
        fill(&mut leaf, Some(kind_of(section)), is_kernel(section));
        vast.put(LEAVES + leaf_of(section) * LEAF, &leaf)?;
    }
    Ok(())
}

fn kind_of(section: u64) -> Full {
    KINDS[(section % KINDS.len() as u64) as usize]
}

/// Whether a section has pages of the kernel's at its end: one of each sixty.
fn is_kernel(section: u64) -> bool {
    section % (KINDS.len() as u64 * COPIES) == 1
}

fn leaf_of(section: u64) -> u64 {
    let kinds = KINDS.len() as u64;
    if section == 0 { 0 } else { 1 + section % kinds * COPIES + section / kinds % COPIES }
}

fn fill(leaf: &mut [u8], full: Option<Full>, kernel: bool) {
    leaf.fill(0);
    for (index, page) in leaf.chunks_exact_mut(64).enumerate() {
        let index = index as u64;
        let mut put = |at: usize, value: u64| page[at..at + 8].copy_from_slice(&value.to_le_bytes());
        put(48, u64::from(u32::MAX));
        match full {
            None => {}
            Some(_) if kernel && index >= SECTION - KERNEL => {}
            Some(Full::Free) if index.is_multiple_of(1024) => {
                put(48, u64::from(BUDDY));
                put(40, 10);
            }
            Some(Full::Free) => {}
            Some(Full::Anon) => {
                put(0, LRU | SWAPBACKED);
                put(24, 0xffff_8880_0000_0001);
            }
            Some(Full::Cache) => {
                put(0, LRU);
                put(24, 0xffff_8880_0000_0000);
            }
            Some(Full::Huge) if index.is_multiple_of(512) => {
                put(0, LRU | SWAPBACKED | HEAD);
                put(24, 0xffff_8880_0000_0001);
            }
            Some(Full::Huge) => {
                put(8, VMEMMAP | 1);
                // The order is in the second struct page.
                put(0, if index % 512 == 1 { 9 } else { 0 });
            }
        }
    }
}

/// Maps the image by leaves of 2 MiB, and begins vmemmap.
fn image_tables(vast: &Vast) -> io::Result<()> {
    let (top, image3, image2) = (IMAGE, IMAGE + 0x1000, IMAGE + 0x2000);
    vast.put64(top + 511 * 8, image3 | 3)?;
    vast.put64(image3 + 510 * 8, image2 | 3)?;
    for leaf in 0..8 {
        vast.put64(image2 + (8 + leaf) * 8, (IMAGE + leaf * LEAF) | 0x83)?;
    }
    vast.put64(top + ((VMEMMAP >> 39) & 511) * 8, (TABLES + 4096) | 3)
}

fn vmcoreinfo() -> String {
    format!(
        "OSRELEASE=6.12.0-vast\nPAGESIZE=4096\nCRASHTIME=1700000000\nSYMBOL(init_uts_ns)={:x}\n\
         OFFSET(uts_namespace.name)=4\nSYMBOL(init_top_pgt)={:x}\nNUMBER(phys_base)=0\nNUMBER(pgtable_l5_enabled)=0\n\
         SYMBOL(mem_section)={:x}\nLENGTH(mem_section)=2048\nSIZE(mem_section)=16\n\
         OFFSET(mem_section.section_mem_map)=0\nNUMBER(SECTION_SIZE_BITS)=27\nNUMBER(MAX_PHYSMEM_BITS)=46\n\
         SIZE(page)=64\nLENGTH(zone.free_area)=11\nNUMBER(PG_lru)=4\nNUMBER(PG_private)=13\nNUMBER(PG_swapcache)=10\n\
         NUMBER(PG_swapbacked)=19\nNUMBER(PG_hwpoison)=22\nNUMBER(PG_head_mask)=65536\nOFFSET(page.flags)=0\n\
         OFFSET(page.mapping)=24\nOFFSET(page._mapcount)=48\nOFFSET(page.private)=40\nOFFSET(page.compound_head)=8\n\
         NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)={}\nNUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)={}\n\
         NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)={}\nNUMBER(PAGE_SLAB_MAPCOUNT_VALUE)={}\n",
        virt(IMAGE + 0x10_0000),
        virt(IMAGE),
        virt(IMAGE + 0x11_0000),
        BUDDY as i32,
        (0xf4u32 << 24) as i32,
        (0xf1u32 << 24) as i32,
        (0xf5u32 << 24) as i32,
    )
}

fn headers(file: &File, span: u64) -> io::Result<()> {
    let mut notes = Vec::new();
    for (name, kind, desc) in [("CORE", 1u32, vec![7u8; 336]), ("VMCOREINFO", 0, vmcoreinfo().into_bytes())] {
        notes.extend((name.len() as u32 + 1).to_le_bytes());
        notes.extend((desc.len() as u32).to_le_bytes());
        notes.extend(kind.to_le_bytes());
        notes.extend(name.as_bytes());
        notes.push(0);
        notes.resize(notes.len().next_multiple_of(4), 0);
        notes.extend(desc);
        notes.resize(notes.len().next_multiple_of(4), 0);
    }
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
    out.resize(16, 0);
    out.extend([4, 0, 62, 0, 1, 0, 0, 0]);
    [0u64, 64, 0].iter().for_each(|n| out.extend(n.to_le_bytes()));
    out.extend(0u32.to_le_bytes());
    [64u16, 56, 3, 0, 0, 0].iter().for_each(|n| out.extend(n.to_le_bytes()));
    let (image, image_len) = (RAM_AT + IMAGE - RAM, 16u64 << 20);
    let (len, notes_len) = (span - RAM, notes.len() as u64);
    let loads: [[u64; 7]; 3] = [
        [4, 0x1000, 0, 0, notes_len, notes_len, 4],
        [1, image, IMAGE_VIRT, IMAGE, image_len, image_len, 0],
        [1, RAM_AT, 0xffff_8880_0010_0000, RAM, len, len, 0],
    ];
    for load in loads {
        out.extend((load[0] as u32).to_le_bytes());
        out.extend(7u32.to_le_bytes());
        load[1..].iter().for_each(|n| out.extend(n.to_le_bytes()));
    }
    file.write_all_at(&out, 0)?;
    file.write_all_at(&notes, 0x1000)
}
