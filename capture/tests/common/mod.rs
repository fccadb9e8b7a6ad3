//! A machine built from a recipe: page tables, sections, struct pages, a log, and the ELF file around them.
//! A page's kind is given by name ("buddy:2", "hugetlb:9") and encoded the way each kernel encoded it.

#![allow(dead_code, missing_debug_implementations, missing_docs, unreachable_pub)]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
#![allow(clippy::panic, clippy::unwrap_used)] // helpers of tests, which clippy does not know as such

pub mod kcore;
pub mod logs;

use std::path::Path;

use kdump_capture::cli::{DumpOptions, Format, MemoryOptions};
use kdump_capture::compress::Kind;
use kdump_capture::dumpfile::read::Dump;
use kdump_capture::fake::{MemCore, MemFile};
use kdump_capture::kernel::Kernel;
use kdump_capture::output::Output;
use kdump_capture::pipeline::{Notes, Plan, Wanted, write_dump};
use kdump_capture::progress::Messages;
use kdump_capture::report::DumpReport;
use kdump_capture::units::{DumpLevel, Pfn, PhysAddr};
use kdump_capture::vmcore::read::PhysMem;

/// First byte and length of RAM: page frames 0x100 to 0x600.
pub const RAM: u64 = 0x10_0000;
pub const RAM_LEN: usize = 0x50_0000;
/// The kernel image: 2 MiB at this place, mapped at IMAGE_VIRT.
const IMAGE: u64 = 0x20_0000;
const IMAGE_VIRT: u64 = 0xffff_ffff_8100_0000;
/// mem_map, in the 2 MiB leaf from here on.
const MEM_MAP: u64 = 0x40_0000;
pub const STRUCT_PAGE: u64 = 64;
/// 256 pages per section.
const SECTION_BITS: u64 = 20;

/// Places in the kernel image.
const TABLES: u64 = IMAGE; // page tables, growing upward
const UTS: u64 = IMAGE + 0x8_0000;
const ROOTS: u64 = IMAGE + 0x8_1000;
const SECTIONS: u64 = IMAGE + 0x8_2000;
const PRB: u64 = IMAGE + 0x8_3000;
const DESCS: u64 = IMAGE + 0x8_4000;
const INFOS: u64 = IMAGE + 0x8_5000;
const TEXT: u64 = IMAGE + 0x8_6000;
pub const TEXT_BITS: u32 = 12;
pub const DESC_BITS: u32 = 3;

pub fn virt(phys: u64) -> u64 {
    phys - IMAGE + IMAGE_VIRT
}

/// How a kernel told its pages apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    V4_3,
    V4_9,
    V6_1,
    V6_4,
    V6_6,
    V6_9,
    V6_11,
    V6_12,
    V7_1,
}

impl Era {
    pub const ALL: [Era; 9] =
        [Era::V4_3, Era::V4_9, Era::V6_1, Era::V6_4, Era::V6_6, Era::V6_9, Era::V6_11, Era::V6_12, Era::V7_1];

    pub fn named(name: &str) -> Era {
        let names = ["4.3", "4.9", "6.1", "6.4", "6.6", "6.9", "6.11", "6.12", "7.1"];
        Era::ALL[names.iter().position(|n| *n == name).unwrap_or_else(|| panic!("no kernel {name}"))]
    }

    /// Values of page types: buddy, offline, unaccepted, hugetlb, slab.
    fn types(self) -> [Option<u32>; 5] {
        match self {
            Era::V4_3 => [Some(-128i32 as u32), None, None, None, None],
            Era::V4_9 => [Some(-128i32 as u32), Some(-256i32 as u32), None, None, None],
            Era::V6_1 | Era::V6_4 | Era::V6_6 => [Some(!0x80), Some(!0x100), None, None, None],
            Era::V6_9 => [Some(!0x80), Some(!0x100), None, Some(!0x800), None],
            Era::V6_11 => [Some(!0x4000_0000), Some(!0x2000_0000), None, Some(!0x0800_0000), Some(!0x0400_0000)],
            Era::V6_12 => [Some(0xf0 << 24), Some(0xf1 << 24), None, Some(0xf4 << 24), Some(0xf5 << 24)],
            Era::V7_1 => [Some(0xf0 << 24), Some(0xf1 << 24), Some(0xf7 << 24), Some(0xf4 << 24), Some(0xf5 << 24)],
        }
    }

    fn vmcoreinfo(self) -> String {
        let mut text = String::from(
            "NUMBER(PG_lru)=4\nNUMBER(PG_private)=13\nNUMBER(PG_swapcache)=10\nNUMBER(PG_swapbacked)=19\n\
             NUMBER(PG_hwpoison)=22\nOFFSET(page.flags)=0\nOFFSET(page._refcount)=52\nOFFSET(page.mapping)=24\n\
             OFFSET(page.lru)=8\nOFFSET(page._mapcount)=48\nOFFSET(page.private)=40\nNUMBER(PG_head_mask)=65536\n",
        );
        for (key, value) in ["BUDDY", "OFFLINE", "UNACCEPTED", "HUGETLB", "SLAB"].iter().zip(self.types()) {
            if let Some(value) = value {
                text += &format!("NUMBER(PAGE_{key}_MAPCOUNT_VALUE)={}\n", value as i32);
            }
        }
        if self.types()[4].is_none() {
            text += "NUMBER(PG_slab)=9\n";
        }
        text += match self {
            Era::V4_3 => {
                "OFFSET(page.compound_dtor)=8\nOFFSET(page.compound_order)=16\nSYMBOL(free_huge_page)=ffffffff81234560\n"
            }
            Era::V4_9 => "OFFSET(page.compound_dtor)=16\nOFFSET(page.compound_order)=18\nNUMBER(HUGETLB_PAGE_DTOR)=2\n",
            Era::V6_1 => "OFFSET(page.compound_dtor)=16\nOFFSET(page.compound_order)=17\nNUMBER(HUGETLB_PAGE_DTOR)=2\n",
            Era::V6_4 => "OFFSET(folio._folio_dtor)=80\nOFFSET(folio._folio_order)=81\nNUMBER(HUGETLB_PAGE_DTOR)=2\n",
            Era::V6_6 => "NUMBER(PG_hugetlb)=8\n",
            Era::V6_9 | Era::V6_11 | Era::V6_12 | Era::V7_1 => "",
        };
        text + match self {
            Era::V4_3 => "",
            Era::V7_1 => "OFFSET(page.compound_info)=8\n",
            _ => "OFFSET(page.compound_head)=8\n",
        }
    }
}

/// How mem_map is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    K4,
    M2,
}

/// The recipe.
#[derive(Clone, Debug)]
pub struct Machine {
    pub era: Era,
    pub levels: u32,
    pub leaf: Leaf,
    pub ram: Vec<u8>,
    pub vmcoreinfo: String,
    next_table: u64,
}

impl Machine {
    pub fn new(era: Era, levels: u32, leaf: Leaf) -> Machine {
        let mut m =
            Machine { era, levels, leaf, ram: vec![0; RAM_LEN], vmcoreinfo: String::new(), next_table: TABLES + 4096 };
        for page in 0..RAM_LEN / 4096 {
            m.fill(page);
        }
        m.ram[(IMAGE - RAM) as usize..(MEM_MAP - RAM) as usize].fill(0);
        let map = m.vmemmap();
        m.map(IMAGE_VIRT, IMAGE, 2 << 20);
        let size = match leaf {
            Leaf::K4 => 4096,
            Leaf::M2 => 2 << 20,
        };
        let pages = 0x600u64;
        for at in (0..(pages * STRUCT_PAGE).next_multiple_of(size)).step_by(size as usize) {
            m.map(map + at, MEM_MAP + at, size);
        }
        m.ram[(MEM_MAP - RAM) as usize..][..(pages * STRUCT_PAGE) as usize].fill(0);
        for pfn in 0x100..0x600 {
            m.put(m.struct_page(pfn) + 48, &u32::MAX.to_le_bytes()); // _mapcount: mapped by nobody
        }
        // One root, of 256 sections of 16 bytes.
        m.put64(ROOTS, virt(SECTIONS));
        for section in 1u64..6 {
            let bias = (section << (SECTION_BITS - 12)) * STRUCT_PAGE;
            let start = map + bias;
            m.put64(SECTIONS + section * 16, start.wrapping_sub(bias) | 0x2b); // present, mem_map, online, preinit
        }
        m.names();
        m.vmcoreinfo = m.facts();
        m.log(&[(1_000_000, 1, b"Linux version 6"), (2_000_000, 0x8000_0001, b"Kernel panic - not syncing: test")]);
        m
    }

    /// What page `index` holds: a pattern, noise or nothing.
    fn fill(&mut self, index: usize) {
        let page = &mut self.ram[index * 4096..][..4096];
        match index % 5 {
            0 => page.fill(0),
            1 => {
                let mut state = index as u64 + 1;
                for b in page {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    *b = (state >> 56) as u8;
                }
            }
            _ => page.iter_mut().enumerate().for_each(|(i, b)| *b = ((i / 16) ^ index) as u8),
        }
    }

    fn vmemmap(&self) -> u64 {
        if self.levels == 5 { 0xffd4_0000_0000_0000 } else { 0xffff_ea00_0000_0000 }
    }

    fn facts(&self) -> String {
        format!(
            "OSRELEASE=6.0.0-test\nPAGESIZE=4096\nCRASHTIME=1700000000\nSYMBOL(init_uts_ns)={:x}\n\
             OFFSET(uts_namespace.name)=4\nSYMBOL(init_top_pgt)={:x}\nNUMBER(phys_base)={}\n\
             NUMBER(pgtable_l5_enabled)={}\nNUMBER(sme_mask)=140737488355328\nSYMBOL(mem_section)={:x}\n\
             LENGTH(mem_section)=1\nSIZE(mem_section)=16\nOFFSET(mem_section.section_mem_map)=0\n\
             NUMBER(SECTION_SIZE_BITS)={SECTION_BITS}\nSIZE(page)=64\nLENGTH(zone.free_area)=11\nSYMBOL(prb)={:x}\n\
             OFFSET(printk_ringbuffer.desc_ring)=8\nOFFSET(printk_ringbuffer.text_data_ring)=56\n\
             OFFSET(prb_desc_ring.count_bits)=0\nOFFSET(prb_desc_ring.descs)=8\nOFFSET(prb_desc_ring.infos)=16\n\
             OFFSET(prb_desc_ring.head_id)=24\nOFFSET(prb_desc_ring.tail_id)=32\nSIZE(prb_desc)=24\n\
             OFFSET(prb_desc.state_var)=0\nOFFSET(prb_desc.text_blk_lpos)=8\nOFFSET(prb_data_blk_lpos.begin)=0\n\
             OFFSET(prb_data_blk_lpos.next)=8\nSIZE(printk_info)=88\nOFFSET(printk_info.ts_nsec)=8\n\
             OFFSET(printk_info.text_len)=16\nOFFSET(printk_info.caller_id)=20\nOFFSET(prb_data_ring.size_bits)=0\n\
             OFFSET(prb_data_ring.data)=8\nOFFSET(atomic_long_t.counter)=0\n{}",
            virt(UTS),
            virt(TABLES),
            IMAGE as i64 - (IMAGE_VIRT - 0xffff_ffff_8000_0000) as i64,
            u32::from(self.levels == 5),
            virt(ROOTS),
            virt(PRB),
            self.era.vmcoreinfo(),
        )
    }

    fn names(&mut self) {
        for (index, name) in ["Linux", "fixture", "6.0.0-test", "#1", "x86_64", "(none)"].iter().enumerate() {
            self.put(UTS + 4 + index as u64 * 65, name.as_bytes());
        }
    }

    pub fn put(&mut self, phys: u64, bytes: &[u8]) {
        self.ram[(phys - RAM) as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    pub fn put64(&mut self, phys: u64, value: u64) {
        self.put(phys, &value.to_le_bytes());
    }

    pub fn get64(&self, phys: u64) -> u64 {
        u64::from_le_bytes(self.ram[(phys - RAM) as usize..][..8].try_into().unwrap())
    }

    /// Maps `size` bytes (4 KiB or 2 MiB) at `virt` to `phys`; entries carry the encryption bit.
    pub fn map(&mut self, virt: u64, phys: u64, size: u64) {
        const SME: u64 = 1 << 47;
        let lowest = if size == 4096 { 0 } else { 1 };
        let mut table = TABLES;
        for level in (lowest..self.levels).rev() {
            let entry = table + ((virt >> (12 + 9 * level)) & 511) * 8;
            if level == lowest {
                self.put64(entry, phys | SME | if lowest == 1 { 0x83 } else { 3 });
            } else if self.get64(entry) == 0 {
                self.put64(entry, self.next_table | SME | 3);
                table = self.next_table;
                self.next_table += 4096;
            } else {
                table = self.get64(entry) & 0x000f_ffff_ffff_f000 & !SME;
            }
        }
    }

    pub fn struct_page(&self, pfn: u64) -> u64 {
        MEM_MAP + pfn * STRUCT_PAGE
    }

    fn or64(&mut self, phys: u64, bits: u64) {
        self.put64(phys, self.get64(phys) | bits);
    }

    /// Makes page `pfn` what `kinds` say.
    pub fn set(&mut self, pfn: u64, kinds: &[&str]) {
        let page = self.struct_page(pfn);
        let types = self.era.types();
        for kind in kinds {
            let (name, order) = kind.split_once(':').map_or((*kind, 0), |(n, o)| (n, o.parse().unwrap()));
            let era = self.era;
            let of = |index: usize| types[index].unwrap_or_else(|| panic!("{era:?} has no {name}")).to_le_bytes();
            match name {
                "buddy" => {
                    self.put(page + 48, &of(0));
                    self.put64(page + 40, order);
                }
                "typed-with-data" => self.put(page + 48, &(types[0].unwrap() | 0x1234).to_le_bytes()),
                "offline" => self.put(page + 48, &of(1)),
                "unaccepted" => self.put(page + 48, &of(2)),
                "slab" => match types[4] {
                    Some(value) => self.put(page + 48, &value.to_le_bytes()),
                    None => self.or64(page, 1 << 9),
                },
                "lru" => self.or64(page, 1 << 4),
                "private" => self.or64(page, 1 << 13),
                "swapcache" => self.or64(page, 1 << 10),
                "swapbacked" => self.or64(page, 1 << 19),
                "waiters" => self.or64(page, 1 << 7),
                "hwpoison" => self.or64(page, 1 << 22),
                "anon" => self.or64(page + 24, 0xffff_8880_0000_0001),
                "file" => self.or64(page + 24, 0xffff_8880_0000_0000),
                "tail" => self.or64(page + 8, 1),
                "compound" => self.compound(pfn, order, 1),
                "hugetlb" => {
                    self.compound(pfn, order, 2);
                    match self.era {
                        Era::V6_6 => self.or64(page + STRUCT_PAGE, 1 << 8),
                        Era::V6_9 | Era::V6_11 | Era::V6_12 | Era::V7_1 => self.put(page + 48, &of(3)),
                        _ => {}
                    }
                }
                _ => panic!("no kind {name}"),
            }
        }
    }

    fn compound(&mut self, pfn: u64, order: u64, dtor: u8) {
        let page = self.struct_page(pfn);
        self.or64(page, 1 << 16);
        // Before 4.4 a tail had no such pointer.
        let tails = if self.era == Era::V4_3 { 0 } else { (1u64 << order).min(0x600 - pfn) };
        for tail in 1..tails {
            self.put64(page + tail * STRUCT_PAGE + 8, page | 1);
        }
        let second = page + STRUCT_PAGE;
        match self.era {
            Era::V4_3 => {
                self.put64(second + 8, if dtor == 2 { 0xffff_ffff_8123_4560 } else { 0xffff_ffff_8100_0000 });
                self.put64(second + 16, order);
            }
            Era::V4_9 => {
                self.put(second + 16, &u16::from(dtor).to_le_bytes());
                self.put(second + 18, &(order as u16).to_le_bytes());
            }
            Era::V6_1 | Era::V6_4 => self.put(second + 16, &[dtor, order as u8]),
            _ => self.put(second, &[order as u8]),
        }
    }

    /// Fills the log with records (nanoseconds, caller, text), from position 0 on.
    pub fn log(&mut self, records: &[(u64, u32, &[u8])]) {
        let mut blocks = vec![];
        let mut at = 0u64;
        for (_, _, text) in records {
            let len = (8 + text.len() as u64).next_multiple_of(8);
            blocks.push((at, at + len));
            at += len;
        }
        self.log_at(records, &blocks);
    }

    /// The same with the positions given: first byte and end of each block.
    pub fn log_at(&mut self, records: &[(u64, u32, &[u8])], blocks: &[(u64, u64)]) {
        let (n, size) = (1u64 << DESC_BITS, 1u64 << TEXT_BITS);
        // The symbol is a pointer to the ring buffer, which lies right behind it.
        let prb = PRB + 16;
        self.put64(PRB, virt(prb));
        let head = records.len() as u64 - 1;
        let tail = head.saturating_sub(n - 1);
        for (at, value) in [(8, u64::from(DESC_BITS)), (16, virt(DESCS)), (24, virt(INFOS)), (32, head), (40, tail)] {
            self.put64(prb + at, value);
        }
        self.put64(prb + 56, u64::from(TEXT_BITS));
        self.put64(prb + 64, virt(TEXT));
        for (id, ((ts, caller, text), (begin, next))) in records.iter().zip(blocks).enumerate() {
            let index = id as u64 % n;
            self.put64(DESCS + index * 24, id as u64 | 2 << 62);
            self.put64(DESCS + index * 24 + 8, *begin);
            self.put64(DESCS + index * 24 + 16, *next);
            self.put64(INFOS + index * 88, id as u64);
            self.put64(INFOS + index * 88 + 8, *ts);
            self.put(INFOS + index * 88 + 16, &(text.len() as u16).to_le_bytes());
            self.put(INFOS + index * 88 + 20, &caller.to_le_bytes());
            if begin != next {
                let start = if begin / size == (next - 1) / size { begin % size } else { 0 };
                self.put(TEXT + start + 8, text);
            }
        }
    }

    pub fn damage_log(&mut self, count_bits: u64, head: u64, tail: u64) {
        for (at, value) in [(8, count_bits), (32, head), (40, tail)] {
            self.put64(PRB + 16 + at, value);
        }
    }

    pub fn notes(&self) -> (Vec<u8>, (u64, u64)) {
        let mut out = Vec::new();
        let mut place = (0, 0);
        for (name, kind, desc) in
            [("CORE", 1u32, vec![7u8; 336]), ("VMCOREINFO", 0, self.vmcoreinfo.clone().into_bytes())]
        {
            out.extend((name.len() as u32 + 1).to_le_bytes());
            out.extend((desc.len() as u32).to_le_bytes());
            out.extend(kind.to_le_bytes());
            out.extend(name.as_bytes());
            out.push(0);
            out.resize(out.len().next_multiple_of(4), 0);
            place = (out.len() as u64, desc.len() as u64);
            out.extend(desc);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        (out, place)
    }

    /// The vmcore as a file: the image has a PT_LOAD of its own within RAM's, as the kernel writes it.
    pub fn elf(&self) -> Vec<u8> {
        let (notes, _) = self.notes();
        let ram_at = (0x1000 + notes.len()).next_multiple_of(4096) as u64;
        let mut headers: Vec<[u64; 7]> = vec![[4, 0x1000, 0, 0, notes.len() as u64, notes.len() as u64, 4]];
        headers.push([1, ram_at + IMAGE - RAM, IMAGE_VIRT, IMAGE, 2 << 20, 2 << 20, 0]);
        let len = RAM_LEN as u64;
        headers.push([1, ram_at, 0xffff_8880_0010_0000, RAM, len, len, 0]);
        let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
        out.resize(16, 0);
        out.extend([4, 0, 62, 0, 1, 0, 0, 0]);
        for n in [0u64, 64, 0] {
            out.extend(n.to_le_bytes());
        }
        out.extend(0u32.to_le_bytes());
        for n in [64u16, 56, headers.len() as u16, 0, 0, 0] {
            out.extend(n.to_le_bytes());
        }
        for h in headers {
            out.extend((h[0] as u32).to_le_bytes());
            out.extend(7u32.to_le_bytes());
            for n in [h[1], h[2], h[3], h[4], h[5], h[6]] {
                out.extend(n.to_le_bytes());
            }
        }
        out.resize(0x1000, 0);
        out.extend(notes);
        out.resize(ram_at as usize, 0);
        out.extend(&self.ram);
        out
    }

    pub fn memory(&self) -> MemCore {
        MemCore::new([(PhysAddr(RAM), self.ram.clone())])
    }

    pub fn page(&self, pfn: u64) -> &[u8] {
        &self.ram[(pfn * 4096 - RAM) as usize..][..4096]
    }

    /// A dump of `memory` into a file in memory that is full at `limit`.
    pub fn dump(
        &self,
        memory: &dyn PhysMem,
        level: u8,
        codec: Kind,
        threads: usize,
        limit: usize,
    ) -> (DumpReport, Vec<u8>) {
        let out = MemFile::new(limit);
        let report = self.dump_to(memory, level, Format::Kdump, codec, threads, &out);
        (report, out.into_bytes())
    }

    /// A dump of `memory` to `out`.
    pub fn dump_to(
        &self,
        memory: &dyn PhysMem,
        level: u8,
        format: Format,
        codec: Kind,
        threads: usize,
        out: &dyn Output,
    ) -> DumpReport {
        self.split_to(memory, level, format, codec, threads, &[out])
    }

    /// A dump of `memory` to several outputs.
    pub fn split_to(
        &self,
        memory: &dyn PhysMem,
        level: u8,
        format: Format,
        codec: Kind,
        threads: usize,
        outs: &[&dyn Output],
    ) -> DumpReport {
        let level = DumpLevel::new(level).unwrap();
        let mut plan = Plan::within(memory.segments(), &Wanted { threads, level, format, codec, ..Wanted::default() });
        plan.batch = 64;
        self.planned(memory, &plan, outs)
    }

    /// A dump of `memory` as planned.
    pub fn planned(&self, memory: &dyn PhysMem, plan: &Plan, outs: &[&dyn Output]) -> DumpReport {
        let mut report = DumpReport::default();
        let kernel = Kernel::learn(self.vmcoreinfo.as_bytes(), memory, &mut report.problems);
        if let Err(e) = write_dump(memory, &FixedNotes(self.notes()), &kernel, outs, plan, &mut report) {
            report.error = Some(e.to_string());
        }
        report
    }
}

struct FixedNotes((Vec<u8>, (u64, u64)));

impl Notes for FixedNotes {
    fn bytes(&self) -> &[u8] {
        &self.0.0
    }
    fn vmcoreinfo_place(&self) -> (u64, u64) {
        self.0.1
    }
    fn cpus(&self) -> u32 {
        1
    }
}

/// The kept pages of a dump, with their content.
pub fn kept(bytes: &[u8]) -> Vec<(Pfn, Option<Vec<u8>>)> {
    let mut descriptors = vec![];
    let source = Bytes(bytes.to_vec());
    let mut dump = Dump::open(&source).unwrap();
    dump.kept(&mut |pfn, d| {
        descriptors.push((pfn, d));
        Ok(())
    })
    .unwrap();
    descriptors.into_iter().map(|(pfn, d)| (pfn, dump.page(&d).unwrap())).collect()
}

/// A dump in memory.
pub struct Bytes(pub Vec<u8>);

impl kdump_capture::dumpfile::read::Source for Bytes {
    fn read_at(&self, at: kdump_capture::units::FileOffset, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.as_slice().read_at(at, buffer)
    }
}

/// A dump of `dir/vmcore` to `dir/dump`, with a report in `dir/report.json`.
pub fn options(dir: &Path, level: u8, codec: Kind) -> DumpOptions {
    DumpOptions {
        input: dir.join("vmcore"),
        output: dir.join("dump"),
        more_outputs: vec![],
        flattened: false,
        next_levels: vec![],
        limit: None,
        dry_run: false,
        format: Format::Kdump,
        level: DumpLevel::new(level).unwrap(),
        codec,
        compress_level: None,
        threads: 2,
        force: false,
        mapping: true,
        vmcoreinfo: None,
        messages: Messages(0),
        memory: MemoryOptions::default(),
        report: Some(dir.join("report.json")),
    }
}
