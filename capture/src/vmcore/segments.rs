//! Which physical memory is in the file, and where. In: PT_LOADs as declared. Out: disjoint extents of bytes, and runs
//! of pages.
//! May surprise: the kernel image has a PT_LOAD of its own that lies within another one, so extents are made disjoint
//! here; both views hold the same bytes.

use crate::units::{FileOffset, PageSize, Pfn, PhysAddr, VirtAddr};

/// No x86_64 or arm64 machine has physical addresses beyond 52 bits.
const PHYS_LIMIT: u64 = 1 << 52;

/// More pages than this without data in the file are not marked as present: 1 TiB of 4 KiB pages.
const MAX_ABSENT_PAGES: u64 = 1 << 28;

/// One PT_LOAD, as declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// `p_paddr`.
    pub phys: PhysAddr,
    /// `p_vaddr`.
    pub virt: VirtAddr,
    /// `p_offset`.
    pub offset: FileOffset,
    /// `p_filesz`: bytes in the file.
    pub filesz: u64,
    /// `p_memsz`: bytes in the machine, at least `filesz`.
    pub memsz: u64,
}

/// A range of physical memory whose bytes are in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub start: PhysAddr,
    /// Number of bytes, not zero.
    pub len: u64,
    /// Where the first byte is in the file.
    pub offset: FileOffset,
}

impl Extent {
    /// One past the last byte.
    pub fn end(&self) -> u64 {
        self.start.0 + self.len
    }
}

/// A range of pages, the end not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun {
    /// First page.
    pub start: Pfn,
    /// One past the last page.
    pub end: Pfn,
}

impl PageRun {
    /// Number of pages.
    pub fn len(&self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Whether it holds no page.
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }
}

/// The memory map of a vmcore.
#[derive(Debug, Default, Clone)]
pub struct Segments {
    page: PageSize,
    /// The PT_LOADs that make sense, in the order of the file.
    pub loads: Vec<Load>,
    extents: Vec<Extent>,
    present: Vec<PageRun>,
    backed: Vec<PageRun>,
    max_pfn: Pfn,
    missing_bytes: u64,
    missing_pages: u64,
}

impl Segments {
    /// Builds the map of a file of `file_size` bytes; what makes no sense is left out and named in `problems`.
    pub fn new(loads: Vec<Load>, file_size: u64, page: PageSize, problems: &mut Vec<String>) -> Segments {
        let (mut sane, mut odd) = (Vec::with_capacity(loads.len()), 0usize);
        for load in loads {
            let end = load.phys.0.checked_add(load.memsz).filter(|end| *end <= PHYS_LIMIT);
            match end {
                Some(_) if load.filesz <= load.memsz && load.offset.0.checked_add(load.filesz).is_some() => {
                    sane.push(load)
                }
                _ => odd += 1,
            }
        }
        if odd > 0 {
            problems.push(format!("{odd} PT_LOADs claim impossible addresses and were ignored"));
        }

        let mut map = Segments { loads: sane, page, ..Segments::default() };
        for load in &map.loads {
            let mut available = file_size.saturating_sub(load.offset.0).min(load.filesz);
            if available < load.filesz {
                // A page cut in two by the end of the file is as good as missing.
                let whole = (load.phys.0 + available) & !(page.bytes() as u64 - 1);
                available = whole.saturating_sub(load.phys.0);
            }
            map.missing_bytes = map.missing_bytes.saturating_add(load.filesz - available);
            if available > 0 {
                map.extents.push(Extent { start: load.phys, len: available, offset: load.offset });
            }
            let end = load.phys.0 + load.memsz;
            map.max_pfn = map.max_pfn.max(Pfn(end.div_ceil(page.bytes() as u64)));
        }
        map.extents = disjoint(std::mem::take(&mut map.extents));

        // A page counts as present when its PT_LOAD reaches the page's end; makedumpfile has the same rule for bitmap 1.
        let pages = |start: PhysAddr, end: u64| PageRun { start: page.pfn(start), end: page.pfn(PhysAddr(end)) };
        map.present = merge(map.loads.iter().map(|l| pages(l.phys, l.phys.0 + l.memsz)).collect());
        let whole = page.bytes() as u64 - 1;
        let touched = merge(map.extents.iter().map(|e| pages(e.start, e.end() + whole)).collect());
        map.backed = intersect(&touched, &map.present);
        let promised =
            merge(map.loads.iter().map(|l| pages(l.phys, (l.phys.0 + l.filesz).saturating_add(whole))).collect());
        let promised = intersect(&promised, &map.present);
        let count = |runs: &[PageRun]| runs.iter().map(PageRun::len).sum::<u64>();
        map.missing_pages = count(&promised) - count(&map.backed).min(count(&promised));
        if count(&map.present).saturating_sub(count(&map.backed)) > MAX_ABSENT_PAGES {
            problems.push("the headers claim far more memory than the file holds; the rest is not marked".into());
            map.present = map.backed.clone();
        }
        map
    }

    /// The size of the pages that are counted here.
    pub fn page(&self) -> PageSize {
        self.page
    }

    /// The map of a dump: the runs of pages that the machine had, each of which may be in the dump or not. What is
    /// asked for is looked for by address alone.
    pub fn of_dump(loads: Vec<Load>, present: Vec<PageRun>, max_pfn: Pfn, page: PageSize) -> Segments {
        let extent = |run: &PageRun| {
            let start = page.address(run.start)?;
            Some(Extent { start, len: run.len() << page.shift(), offset: FileOffset(start.0) })
        };
        let extents = present.iter().filter_map(extent).collect();
        Segments { loads, extents, backed: present.clone(), present, max_pfn, page, ..Segments::default() }
    }

    /// Byte ranges in the file, disjoint, by address.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Pages the machine had: bitmap 1.
    pub fn present(&self) -> &[PageRun] {
        &self.present
    }

    /// Pages with at least one byte in the file.
    pub fn backed(&self) -> &[PageRun] {
        &self.backed
    }

    /// One past the highest page of any PT_LOAD, a page in part counted as a page: `max_mapnr`.
    pub fn max_pfn(&self) -> Pfn {
        self.max_pfn
    }

    /// Bytes that PT_LOADs declare and the file does not have.
    pub fn missing_bytes(&self) -> u64 {
        self.missing_bytes
    }

    /// Pages that PT_LOADs declare data for and of which the file has none.
    pub fn missing_pages(&self) -> u64 {
        self.missing_pages
    }

    /// The extent that holds `at`, and the position of `at` in the file.
    pub fn find(&self, at: PhysAddr) -> Option<(Extent, FileOffset)> {
        let index = self.extents.partition_point(|e| e.end() <= at.0);
        let extent = self.extents.get(index).filter(|e| e.start <= at)?;
        Some((*extent, FileOffset(extent.offset.0 + (at.0 - extent.start.0))))
    }

    /// The first extent that ends after `at`.
    pub fn at_or_after(&self, at: PhysAddr) -> Option<Extent> {
        self.extents.get(self.extents.partition_point(|e| e.end() <= at.0)).copied()
    }
}

fn disjoint(mut extents: Vec<Extent>) -> Vec<Extent> {
    extents.sort_by_key(|e| (e.start, std::cmp::Reverse(e.len)));
    let (mut out, mut covered) = (Vec::with_capacity(extents.len()), 0u64);
    for e in extents {
        let cut = covered.saturating_sub(e.start.0);
        if cut < e.len {
            let (start, offset) = (PhysAddr(e.start.0 + cut), FileOffset(e.offset.0 + cut));
            out.push(Extent { start, len: e.len - cut, offset });
            covered = e.end();
        }
    }
    out
}

/// The same pages in runs that are in order and do not touch.
pub(crate) fn merge(mut runs: Vec<PageRun>) -> Vec<PageRun> {
    runs.retain(|r| !r.is_empty());
    runs.sort_by_key(|r| r.start);
    let mut out: Vec<PageRun> = Vec::with_capacity(runs.len());
    for run in runs {
        match out.last_mut() {
            Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
            _ => out.push(run),
        }
    }
    out
}

fn intersect(a: &[PageRun], b: &[PageRun]) -> Vec<PageRun> {
    let (mut out, mut i, mut j) = (Vec::new(), 0, 0);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        let both = PageRun { start: x.start.max(y.start), end: x.end.min(y.end) };
        if !both.is_empty() {
            out.push(both);
        }
        if x.end <= y.end { i += 1 } else { j += 1 }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn load(phys: u64, len: u64, offset: u64) -> Load {
        Load { phys: PhysAddr(phys), virt: VirtAddr(0), offset: FileOffset(offset), filesz: len, memsz: len }
    }

    #[test]
    fn the_kernel_image_inside_ram_is_counted_once() {
        let loads = vec![load(0x12_0000, 0x3000, 0x1000), load(0x10_0000, 0x10_0000, 0x4000)];
        let map = Segments::new(loads, u64::MAX, PageSize::K4, &mut vec![]);
        assert_eq!(map.extents().len(), 1);
        assert_eq!(map.find(PhysAddr(0x12_0010)).unwrap().1, FileOffset(0x2_4010));
        assert_eq!(map.present(), [PageRun { start: Pfn(0x100), end: Pfn(0x200) }]);
    }

    #[test]
    fn a_page_cut_at_its_end_is_not_marked_but_counts_for_max_pfn() {
        let map = Segments::new(vec![load(0x400, 0x9f400, 0x1000)], u64::MAX, PageSize::K4, &mut vec![]);
        assert_eq!(map.present(), [PageRun { start: Pfn(0), end: Pfn(0x9f) }]);
        assert_eq!(map.max_pfn(), Pfn(0xa0));
    }

    #[test]
    fn a_page_cut_off_in_one_segment_and_present_in_another_is_not_missing() {
        let loads = vec![load(0x4000, 0x2000, 0x1000), load(0, 0x10000, 0x3000)];
        let map = Segments::new(loads, 0x4000, PageSize::K4, &mut vec![]);
        assert_eq!(map.missing_pages(), 16 - 3);
    }

    #[test]
    fn memory_without_data_is_present_but_not_backed() {
        let mut only = load(0, 0x10000, 0x1000);
        only.filesz = 0x2400;
        let map = Segments::new(vec![only], u64::MAX, PageSize::K4, &mut vec![]);
        assert_eq!(map.present(), [PageRun { start: Pfn(0), end: Pfn(16) }]);
        assert_eq!(map.backed(), [PageRun { start: Pfn(0), end: Pfn(3) }]);
    }

    #[test]
    fn a_short_file_is_clipped_and_the_loss_is_known() {
        let map = Segments::new(vec![load(0, 0x10000, 0x1000)], 0x5000, PageSize::K4, &mut vec![]);
        assert_eq!((map.missing_bytes(), map.missing_pages()), (0xc000, 12));
        assert_eq!(map.backed(), [PageRun { start: Pfn(0), end: Pfn(4) }]);
    }

    proptest! {
        #[test]
        fn any_headers_give_disjoint_sorted_extents_within_the_file(
            raw in proptest::collection::vec((any::<u64>(), any::<u64>(), 0u64..1 << 20, 0u64..1 << 20, 0u64..1 << 20), 0..20)
        ) {
            let loads = raw.into_iter().map(|(p, big, offset, filesz, memsz)| Load {
                phys: PhysAddr(p >> (big % 60)), virt: VirtAddr(0), offset: FileOffset(offset), filesz, memsz: memsz.max(filesz),
            }).collect();
            let size = 1 << 19;
            let map = Segments::new(loads, size, PageSize::K4, &mut vec![]);
            for e in map.extents() { prop_assert!(e.len > 0 && e.offset.0 + e.len <= size); }
            for pair in map.extents().windows(2) { prop_assert!(pair[0].end() <= pair[1].start.0); }
            for pair in map.present().windows(2) { prop_assert!(pair[0].end < pair[1].start); }
        }
    }
}
