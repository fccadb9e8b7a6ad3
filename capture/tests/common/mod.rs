//! A machine built from a recipe: page tables, sections, struct pages, a log, and the ELF file around them.
//! `x86_64.rs` and `aarch64.rs` have what differs between architectures; all else is counted in pages from `base` on, so
//! that it is the same with any page size, at any place.
//! `pages.rs` makes a page what its kind says ("buddy:2", "hugetlb:9"), encoded the way each kernel encoded it.

#![allow(dead_code, missing_debug_implementations, missing_docs, unreachable_pub)]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
#![allow(clippy::panic, clippy::unwrap_used)] // helpers of tests, which clippy does not know as such

pub mod aarch64;
pub mod kcore;
pub mod live;
pub mod logs;
pub mod pages;
pub mod x86_64;

pub use pages::Era;

use std::collections::BTreeMap;
use std::path::Path;

use kdump_capture::arch::Arch;
use kdump_capture::cli::{DumpOptions, Format, MemoryOptions};
use kdump_capture::compress::Kind;
use kdump_capture::dumpfile::read::Dump;
use kdump_capture::fake::{MemCore, MemFile};
use kdump_capture::kernel::Kernel;
use kdump_capture::output::Output;
use kdump_capture::pipeline::{Notes, Plan, Wanted, write_dump};
use kdump_capture::progress::Messages;
use kdump_capture::report::DumpReport;
use kdump_capture::units::{DumpLevel, PageSize, Pfn, PhysAddr};
use kdump_capture::vmcore::read::PhysMem;

/// First byte and length of RAM of an x86_64 machine: page frames 0x100 to 0x600, as everywhere.
pub const RAM: u64 = 0x10_0000;
pub const RAM_LEN: usize = 0x50_0000;
const FIRST: u64 = 0x100;
const PAGES: u64 = 0x500;
/// The kernel image of an x86_64 machine: 512 pages from page frame 0x200 on, as everywhere.
const IMAGE: u64 = 0x20_0000;
pub const STRUCT_PAGE: u64 = 64;
/// log2 of the pages of a section.
const SECTION_SHIFT: u64 = 8;

/// Places in the kernel image.
const UTS: u64 = 0x8_0000;
const ROOTS: u64 = 0x8_1000;
const SECTIONS: u64 = 0x8_2000;
const PRB: u64 = 0x8_3000;
const DESCS: u64 = 0x8_4000;
const INFOS: u64 = 0x8_5000;
const TEXT: u64 = 0x8_6000;
const FLAT: u64 = 0x8_7800;
pub const TEXT_BITS: u32 = 12;
pub const DESC_BITS: u32 = 3;

/// The virtual address of a place in the image of an x86_64 machine.
pub fn virt(phys: u64) -> u64 {
    phys - IMAGE + x86_64::platform(4, Leaf::K4).image_virt
}

/// The kind of machine, and where it has what.
#[derive(Clone, Debug)]
pub struct Platform {
    /// As `uname -m` says it.
    pub name: &'static str,
    /// `e_machine`.
    pub elf: u16,
    /// Bytes of a page.
    pub page: u64,
    /// Where its physical memory is counted from.
    pub base: u64,
    /// Where the image is mapped.
    pub image_virt: u64,
    /// Where the struct page of the page at `base` is.
    pub map_virt: u64,
    pub tables: Tables,
    /// log2 of the leaves that map the image and the struct pages.
    pub leaf_shift: u32,
}

#[derive(Clone, Copy, Debug)]
pub enum Tables {
    X86_64 { levels: u32 },
    Aarch64(aarch64::Recipe),
}

/// How struct pages are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// SPARSEMEM_EXTREME.
    Roots,
    /// SPARSEMEM without.
    Sections,
    /// FLATMEM.
    Flat,
}

/// Memory that page tables are put into.
pub trait Ram {
    fn put64(&mut self, phys: u64, value: u64);
    fn get64(&self, phys: u64) -> u64;
    /// A page for a new table.
    fn new_table(&mut self) -> u64;
    /// The table that `entry` was made to lead to.
    fn known_table(&self, entry: u64) -> Option<u64>;
    fn remember_table(&mut self, entry: u64, table: u64);
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
    pub platform: Platform,
    pub model: Model,
    pub ram: Vec<u8>,
    pub vmcoreinfo: String,
    root: u64,
    next_table: u64,
    known_tables: BTreeMap<u64, u64>,
}

impl Ram for Machine {
    fn put64(&mut self, phys: u64, value: u64) {
        Machine::put64(self, phys, value);
    }
    fn get64(&self, phys: u64) -> u64 {
        Machine::get64(self, phys)
    }
    fn new_table(&mut self) -> u64 {
        self.next_table += self.platform.page;
        self.next_table - self.platform.page
    }
    fn known_table(&self, entry: u64) -> Option<u64> {
        self.known_tables.get(&entry).copied()
    }
    fn remember_table(&mut self, entry: u64, table: u64) {
        self.known_tables.insert(entry, table);
    }
}

impl Machine {
    pub fn new(era: Era, levels: u32, leaf: Leaf) -> Machine {
        Machine::on(era, x86_64::platform(levels, leaf), Model::Roots)
    }

    pub fn on(era: Era, platform: Platform, model: Model) -> Machine {
        let page = platform.page;
        let tables = platform.base
            + 0x200 * page
            + match platform.tables {
                Tables::X86_64 { .. } => 0,
                Tables::Aarch64(_) => 0x10_0000,
            };
        // A top table that is smaller than a page need not be where a page begins.
        let root = tables
            + match &platform.tables {
                Tables::X86_64 { .. } => 0,
                Tables::Aarch64(recipe) => page - recipe.top_bytes().next_power_of_two().max(64),
            };
        let ram = vec![0; (PAGES * page) as usize];
        let (vmcoreinfo, known_tables, next_table) = (String::new(), BTreeMap::new(), tables + page);
        let mut m = Machine { era, platform, model, ram, vmcoreinfo, root, next_table, known_tables };
        for page in 0..PAGES as usize {
            m.fill(page);
        }
        let (image, map_at) = (m.image(0), m.struct_page(0));
        let (from, to) = ((image - m.start()) as usize, (map_at - m.start()) as usize);
        m.ram[from..to].fill(0);
        m.map_all(m.platform.image_virt, image, 0x20_0000.min(0x200 * page));
        m.map_all(m.platform.map_virt, map_at, 0x600 * STRUCT_PAGE);
        m.ram[to..][..(0x600 * STRUCT_PAGE) as usize].fill(0);
        for pfn in 0x100..0x600 {
            m.put(m.struct_page(pfn) + 48, &u32::MAX.to_le_bytes()); // _mapcount: mapped by nobody
        }
        m.sections();
        m.names();
        m.vmcoreinfo = m.facts();
        m.log(&[(1_000_000, 1, b"Linux version 6"), (2_000_000, 0x8000_0001, b"Kernel panic - not syncing: test")]);
        m
    }

    /// The first byte of RAM.
    pub fn start(&self) -> u64 {
        self.platform.base + FIRST * self.platform.page
    }

    /// A place in the image.
    fn image(&self, offset: u64) -> u64 {
        self.platform.base + 0x200 * self.platform.page + offset
    }

    /// The virtual address of a place in the image.
    fn image_virt(&self, offset: u64) -> u64 {
        self.platform.image_virt + offset
    }

    /// The page frame that is number 0 of the recipe.
    pub fn base_pfn(&self) -> u64 {
        self.platform.base / self.platform.page
    }

    /// The struct page of page frame 0.
    pub fn vmemmap(&self) -> u64 {
        self.platform.map_virt.wrapping_sub(self.base_pfn() * STRUCT_PAGE)
    }

    fn section_bits(&self) -> u64 {
        u64::from(self.platform.page.trailing_zeros()) + SECTION_SHIFT
    }

    /// Number of the section that holds `base`, its root, and its place behind that.
    fn section_place(&self) -> (u64, u64, u64) {
        let (number, per_root) = (self.base_pfn() >> SECTION_SHIFT, self.platform.page / 16);
        (number, number / per_root, number % per_root)
    }

    /// One root, with sections of 16 bytes behind it, or those alone; and the pointer of FLATMEM.
    fn sections(&mut self) {
        let (number, _, within) = self.section_place();
        self.put64(self.image(ROOTS), self.image_virt(SECTIONS) - within * 16);
        for section in 1u64..6 {
            let bias = ((number + section) << SECTION_SHIFT) * STRUCT_PAGE;
            let start = self.vmemmap().wrapping_add(bias);
            // Present, mem_map, online, preinit.
            self.put64(self.image(SECTIONS) + section * 16, start.wrapping_sub(bias) | 0x2b);
        }
        if self.model == Model::Flat {
            self.put64(self.image(FLAT), self.platform.map_virt);
        }
    }

    /// What page `index` holds: a pattern, noise or nothing.
    fn fill(&mut self, index: usize) {
        let size = self.platform.page as usize;
        let page = &mut self.ram[index * size..][..size];
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

    fn facts(&self) -> String {
        let Platform { page, base, image_virt, .. } = self.platform;
        let root_virt = self.root - self.image(0) + image_virt;
        let arch = match &self.platform.tables {
            Tables::X86_64 { levels } => x86_64::facts(*levels, root_virt),
            Tables::Aarch64(recipe) => recipe.facts(base, root_virt, image_virt.wrapping_sub(self.image(0))),
        };
        format!(
            "OSRELEASE=6.0.0-test\nPAGESIZE={page}\nCRASHTIME=1700000000\nSYMBOL(init_uts_ns)={:x}\n\
             OFFSET(uts_namespace.name)=4\n{arch}{}SIZE(page)=64\nLENGTH(zone.free_area)=11\nSYMBOL(prb)={:x}\n\
             OFFSET(printk_ringbuffer.desc_ring)=8\nOFFSET(printk_ringbuffer.text_data_ring)=56\n\
             OFFSET(prb_desc_ring.count_bits)=0\nOFFSET(prb_desc_ring.descs)=8\nOFFSET(prb_desc_ring.infos)=16\n\
             OFFSET(prb_desc_ring.head_id)=24\nOFFSET(prb_desc_ring.tail_id)=32\nSIZE(prb_desc)=24\n\
             OFFSET(prb_desc.state_var)=0\nOFFSET(prb_desc.text_blk_lpos)=8\nOFFSET(prb_data_blk_lpos.begin)=0\n\
             OFFSET(prb_data_blk_lpos.next)=8\nSIZE(printk_info)=88\nOFFSET(printk_info.ts_nsec)=8\n\
             OFFSET(printk_info.text_len)=16\nOFFSET(printk_info.caller_id)=20\nOFFSET(prb_data_ring.size_bits)=0\n\
             OFFSET(prb_data_ring.data)=8\nOFFSET(atomic_long_t.counter)=0\n{}",
            self.image_virt(UTS),
            self.model_facts(),
            self.image_virt(PRB),
            self.era.vmcoreinfo(),
        )
    }

    fn model_facts(&self) -> String {
        let (bits, (_, root, _)) = (self.section_bits(), self.section_place());
        let section = "SIZE(mem_section)=16\nOFFSET(mem_section.section_mem_map)=0\n";
        match self.model {
            Model::Roots => format!(
                "SYMBOL(mem_section)={:x}\nLENGTH(mem_section)={}\n{section}NUMBER(SECTION_SIZE_BITS)={bits}\n",
                self.image_virt(ROOTS) - root * 8,
                root + 1,
            ),
            // As many sections as fit into 256 of them.
            Model::Sections => format!(
                "SYMBOL(mem_section)={:x}\nLENGTH(mem_section)=256\n{section}NUMBER(SECTION_SIZE_BITS)={bits}\n\
                 NUMBER(MAX_PHYSMEM_BITS)={}\n",
                self.image_virt(SECTIONS),
                bits + 8,
            ),
            Model::Flat => format!("SYMBOL(mem_map)={:x}\nNUMBER(SECTION_SIZE_BITS)={bits}\n", self.image_virt(FLAT)),
        }
    }

    fn names(&mut self) {
        for (index, name) in ["Linux", "fixture", "6.0.0-test", "#1", self.platform.name, "(none)"].iter().enumerate() {
            self.put(self.image(UTS) + 4 + index as u64 * 65, name.as_bytes());
        }
    }

    pub fn put(&mut self, phys: u64, bytes: &[u8]) {
        let at = (phys - self.start()) as usize;
        self.ram[at..][..bytes.len()].copy_from_slice(bytes);
    }

    pub fn put64(&mut self, phys: u64, value: u64) {
        self.put(phys, &value.to_le_bytes());
    }

    pub fn get64(&self, phys: u64) -> u64 {
        let at = (phys - self.start()) as usize;
        u64::from_le_bytes(self.ram[at..][..8].try_into().unwrap())
    }

    /// Maps one leaf of `size` bytes at `virt` to `phys`.
    pub fn map(&mut self, virt: u64, phys: u64, size: u64) {
        let (root, leaf) = (self.root, size.trailing_zeros());
        match self.platform.tables {
            Tables::X86_64 { levels } => x86_64::map(self, root, levels, virt, phys, leaf),
            Tables::Aarch64(recipe) => recipe.map(self, root, virt, phys, leaf),
        }
    }

    /// Maps `len` bytes at `virt` to `phys`, and what else is in the same leaves.
    fn map_all(&mut self, virt: u64, phys: u64, len: u64) {
        let size = 1u64 << self.platform.leaf_shift;
        let within = virt & (size - 1);
        for done in (0..within + len).step_by(size as usize) {
            self.map(virt - within + done, phys - within + done, size);
        }
    }

    pub fn struct_page(&self, pfn: u64) -> u64 {
        self.platform.base + 0x400 * self.platform.page + pfn * STRUCT_PAGE
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
        let prb = self.image(PRB) + 16;
        self.put64(self.image(PRB), self.image_virt(PRB) + 16);
        let head = records.len() as u64 - 1;
        let tail = head.saturating_sub(n - 1);
        for (at, value) in [
            (8, u64::from(DESC_BITS)),
            (16, self.image_virt(DESCS)),
            (24, self.image_virt(INFOS)),
            (32, head),
            (40, tail),
        ] {
            self.put64(prb + at, value);
        }
        self.put64(prb + 56, u64::from(TEXT_BITS));
        self.put64(prb + 64, self.image_virt(TEXT));
        let (descs, infos, ring) = (self.image(DESCS), self.image(INFOS), self.image(TEXT));
        for (id, ((ts, caller, text), (begin, next))) in records.iter().zip(blocks).enumerate() {
            let index = id as u64 % n;
            self.put64(descs + index * 24, id as u64 | 2 << 62);
            self.put64(descs + index * 24 + 8, *begin);
            self.put64(descs + index * 24 + 16, *next);
            self.put64(infos + index * 88, id as u64);
            self.put64(infos + index * 88 + 8, *ts);
            self.put(infos + index * 88 + 16, &(text.len() as u16).to_le_bytes());
            self.put(infos + index * 88 + 20, &caller.to_le_bytes());
            if begin != next {
                let start = if begin / size == (next - 1) / size { begin % size } else { 0 };
                self.put(ring + start + 8, text);
            }
        }
    }

    pub fn damage_log(&mut self, count_bits: u64, head: u64, tail: u64) {
        for (at, value) in [(8, count_bits), (32, head), (40, tail)] {
            self.put64(self.image(PRB) + 16 + at, value);
        }
    }

    pub fn notes(&self) -> (Vec<u8>, (u64, u64)) {
        let mut out = Vec::new();
        let mut place = (0, 0);
        // struct elf_prstatus.
        let registers = if self.platform.name == "aarch64" { 392 } else { 336 };
        for (name, kind, desc) in
            [("CORE", 1u32, vec![7u8; registers]), ("VMCOREINFO", 0, self.vmcoreinfo.clone().into_bytes())]
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
        let Platform { page, elf, image_virt, .. } = self.platform;
        let ram_at = (0x1000 + notes.len() as u64).next_multiple_of(page);
        let mut headers: Vec<[u64; 7]> = vec![[4, 0x1000, 0, 0, notes.len() as u64, notes.len() as u64, 4]];
        let image = self.image(0);
        headers.push([1, ram_at + image - self.start(), image_virt, image, 0x200 * page, 0x200 * page, 0]);
        let len = PAGES * page;
        headers.push([1, ram_at, 0xffff_8880_0010_0000, self.start(), len, len, 0]);
        let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
        out.resize(16, 0);
        out.extend([4, 0, elf as u8, 0, 1, 0, 0, 0]);
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
        let page = PageSize::new(self.platform.page).unwrap();
        MemCore::of(Arch::named(self.platform.name).unwrap(), page, [(PhysAddr(self.start()), self.ram.clone())])
    }

    /// Page frame `pfn` of the recipe.
    pub fn page(&self, pfn: u64) -> &[u8] {
        let size = self.platform.page as usize;
        &self.ram[(pfn - FIRST) as usize * size..][..size]
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
        by_use: false,
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
