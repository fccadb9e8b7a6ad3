//! Tiny dumps and sources from a list of pages, and ways to spoil them.

use std::io::Write;

/// Bytes of a page.
pub(crate) const BLOCK: u64 = 4096;
const BITMAPS: u64 = 2 * BLOCK;
const HALF: u64 = BLOCK;
const LAST: u64 = 12;
const VMCOREINFO: &[u8] = b"OSRELEASE=6.1.0-test\n";

/// One page, and how the dump stores it.
pub(crate) struct Page {
    /// Its number.
    pub(crate) pfn: u64,
    /// Its content.
    pub(crate) content: Vec<u8>,
    /// 0 plain, 1 zlib, 2 lzo, 4 snappy, 0x20 zstd.
    pub(crate) flags: u32,
}

/// A dump's bytes, with the places one may want to spoil.
pub(crate) struct Dump {
    /// The file.
    pub(crate) bytes: Vec<u8>,
    /// Where the descriptors begin.
    pub(crate) descriptors: u64,
}

impl Dump {
    /// A right dump of these pages.
    pub(crate) fn new(pages: &[Page]) -> Dump {
        let descriptors = BITMAPS + 2 * HALF;
        let mut dump = Dump { bytes: vec![0; at(descriptors)], descriptors };
        dump.header(0, b"KDUMP   ");
        dump.header(8, &6_u32.to_le_bytes());
        dump.header(12 + 130, b"6.1.0-test");
        dump.header(428, &4096_u32.to_le_bytes());
        dump.header(432, &1_u32.to_le_bytes());
        dump.header(436, &2_u32.to_le_bytes());
        dump.header(440, &12_u32.to_le_bytes());
        dump.header(460, &1_u32.to_le_bytes());
        dump.sub_header(8, &31_u32.to_le_bytes());
        let (notes, size) = (BLOCK + 104, VMCOREINFO.len() as u64);
        for (offset, value) in [(32, notes), (40, size), (48, notes), (56, size), (96, LAST)] {
            dump.sub_header(offset, &value.to_le_bytes());
        }
        dump.put(notes, VMCOREINFO);
        let mut data = Vec::new();
        for page in pages {
            let packed = packed(page);
            let offset = descriptors + 24 * pages.len() as u64 + data.len() as u64;
            let size = u32::try_from(packed.len()).unwrap_or(u32::MAX);
            dump.bytes.extend(offset.to_le_bytes());
            dump.bytes.extend(size.to_le_bytes());
            dump.bytes.extend(page.flags.to_le_bytes());
            dump.bytes.extend(0_u64.to_le_bytes());
            data.extend(packed);
            dump.set_bit(0, page.pfn);
            dump.set_bit(1, page.pfn);
        }
        dump.bytes.extend(data);
        dump
    }

    /// Overwrites a field of the header.
    pub(crate) fn header(&mut self, offset: u64, value: &[u8]) {
        self.put(offset, value);
    }

    /// Overwrites a field of the sub header.
    pub(crate) fn sub_header(&mut self, offset: u64, value: &[u8]) {
        self.put(BLOCK + offset, value);
    }

    /// Makes it the part of a split dump that has these pages.
    pub(crate) fn part(&mut self, start: u64, end: u64) {
        self.sub_header(12, &1_u32.to_le_bytes());
        self.sub_header(80, &start.to_le_bytes());
        self.sub_header(88, &end.to_le_bytes());
    }

    /// Sets the bit of a page in bitmap 1 (0) or bitmap 2 (1).
    pub(crate) fn set_bit(&mut self, bitmap: u64, pfn: u64) {
        self.bytes[at(BITMAPS + bitmap * HALF + pfn / 8)] |= 1 << (pfn % 8);
    }

    /// Overwrites a field of a descriptor.
    pub(crate) fn descriptor(&mut self, index: u64, offset: u64, value: &[u8]) {
        self.put(self.descriptors + 24 * index + offset, value);
    }

    /// Lets a descriptor claim more than a page, all of it inside the file.
    pub(crate) fn oversize(&mut self, index: u64) {
        self.bytes.extend([0; 4097]);
        self.descriptor(index, 8, &4097_u32.to_le_bytes());
    }

    /// Exchanges two descriptors.
    pub(crate) fn swap_descriptors(&mut self, one: u64, other: u64) {
        for byte in 0..24 {
            let place = |index: u64| at(self.descriptors + 24 * index + byte);
            let (one, other) = (place(one), place(other));
            self.bytes.swap(one, other);
        }
    }

    /// Changes one byte of a page's stored data.
    pub(crate) fn flip_data(&mut self, index: u64, offset: u64) {
        let place = at(self.descriptors + 24 * index);
        let data = self.bytes[place..place + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        self.bytes[at(data + offset)] ^= 0xff;
    }

    /// Keeps the first bytes only.
    pub(crate) fn cut(&mut self, length: u64) {
        self.bytes.truncate(at(length));
    }

    fn put(&mut self, offset: u64, value: &[u8]) {
        self.bytes[at(offset)..at(offset) + value.len()].copy_from_slice(value);
    }
}

/// The source of these pages: an ELF file with one PT_LOAD per page, and one more inside the first.
pub(crate) fn raw_core(pages: &[Page]) -> Vec<u8> {
    let count = pages.len() as u64 + 1;
    let data = 64 + 56 * count;
    let mut file = b"\x7fELF\x02\x01".to_vec();
    file.resize(64, 0);
    file[32..40].copy_from_slice(&64_u64.to_le_bytes());
    file[54..56].copy_from_slice(&56_u16.to_le_bytes());
    file[56] = count.to_le_bytes()[0];
    let overlap = [(0x10, data + 0x10, 0x20)];
    let whole = (0..).zip(pages).map(|(index, page)| (page.pfn * BLOCK, data + index * BLOCK, BLOCK));
    for (address, offset, size) in overlap.into_iter().chain(whole) {
        file.extend([1, 0, 0, 0, 7, 0, 0, 0]);
        for field in [offset, 0, address, size, size, 0] {
            file.extend(field.to_le_bytes());
        }
    }
    pages.iter().for_each(|page| file.extend(&page.content));
    file
}

fn packed(page: &Page) -> Vec<u8> {
    match page.flags {
        1 => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&page.content).and_then(|()| encoder.finish()).unwrap_or_default()
        }
        2 => lzokay_native::compress(&page.content).unwrap_or_default(),
        4 => snap::raw::Encoder::new().compress_vec(&page.content).unwrap_or_default(),
        0x20 => zstd::bulk::compress(&page.content, 1).unwrap_or_default(),
        _ => page.content.clone(),
    }
}

/// An offset as an index.
fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
