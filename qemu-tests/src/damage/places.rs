//! What lies where in a raw vmcore: the structures by which a collector finds and judges pages.

use std::collections::BTreeSet;
use std::ops::Range;

use anyhow::{Context, Result};

use crate::oracle::{RawCore, SECTION_PAGES, StructPages};

const PAGE: u64 = 4096;

/// Where in a struct page the fields are by which a page claims to be the head of a block of the file cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) flags: u64,
    pub(super) compound: u64,
    pub(super) mapping: u64,
    pub(super) map_count: u64,
    /// In the second struct page; the low byte of its flags since Linux 6.6.
    pub(super) order: u64,
    /// The bits of a head, and of a page on a list of the cache.
    pub(super) head: u64,
    pub(super) lru: u64,
}

/// Addresses are physical unless they are called offsets.
#[derive(Debug)]
pub(super) struct Places {
    /// Offsets of the program headers.
    pub(super) program_headers: Range<u64>,
    /// Page table entries on the way to struct pages and to `mem_section`.
    pub(super) tables: Vec<u64>,
    /// Sections with the addresses of their entries' mem_map.
    pub(super) sections: Vec<(u64, u64)>,
    /// Pages with the addresses of their struct pages.
    pub(super) struct_pages: Vec<(u64, u64)>,
    pub(super) struct_page_size: u64,
    /// Pages that a block of more than the largest order could begin with.
    pub(super) aligned: Vec<u64>,
    pub(super) claim: Claim,
    /// Parts of the log and of its tables: address and length.
    pub(super) log: Vec<(u64, u64)>,
    /// Pages that are none of all that.
    pub(super) plain: Vec<u64>,
}

impl Places {
    pub(super) fn find(core: &RawCore) -> Result<Places> {
        let pages = StructPages::new(core)?;
        let number = |key: &str| {
            let value = core.fact(key).with_context(|| format!("vmcoreinfo has no {key}"))?;
            value.parse::<i64>().map(i64::cast_unsigned).with_context(|| format!("{key}={value} is no number"))
        };
        let all = core.pages(PAGE);
        let mut struct_pages = Vec::new();
        let (mut tables, mut sections, mut structural) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for pfn in &all {
            let Some(address) = pages.virtual_place(*pfn)? else { continue };
            let place = pages.physical(address)?;
            struct_pages.push((*pfn, place));
            if structural.insert(place / PAGE) {
                tables.extend(pages.page_tables(address)?);
            }
            sections.insert(pfn / SECTION_PAGES);
        }
        let mut entries = Vec::new();
        for section in sections {
            if let Some((entry, roots)) = pages.section_places(section)? {
                let place = entry + number("OFFSET(mem_section.section_mem_map)")?;
                structural.extend([place / PAGE, roots / PAGE]);
                entries.push((section, place));
            }
        }
        for symbol in ["SYMBOL(mem_section)", "SYMBOL(prb)", "SYMBOL(init_uts_ns)"] {
            let address = symbol_of(core, symbol)?;
            tables.extend(pages.page_tables(address)?);
            structural.insert(pages.physical(address)? / PAGE);
        }
        structural.extend(tables.iter().map(|entry| entry / PAGE));
        let log = log(core, &pages)?;
        structural.extend(log.iter().map(|(address, _)| address / PAGE));
        let bit = |key: &str| number(key).map(|bit| 1_u64 << bit);
        let order = match number("OFFSET(page.compound_order)") {
            Ok(order) => order,
            Err(_) => number("OFFSET(page.flags)")?,
        };
        let aligned = struct_pages.iter().map(|(pfn, _)| *pfn).filter(|pfn| pfn.trailing_zeros() > 10).collect();
        Ok(Places {
            program_headers: core.program_headers(),
            tables: tables.into_iter().collect(),
            sections: entries,
            struct_page_size: number("SIZE(page)")?,
            aligned,
            claim: Claim {
                flags: number("OFFSET(page.flags)")?,
                compound: number("OFFSET(page.compound_head)").or_else(|_| number("OFFSET(page.compound_info)"))?,
                mapping: number("OFFSET(page.mapping)")?,
                map_count: number("OFFSET(page._mapcount)")?,
                order,
                head: number("NUMBER(PG_head_mask)")?,
                lru: bit("NUMBER(PG_lru)")?,
            },
            struct_pages,
            log,
            plain: all.into_iter().filter(|pfn| !structural.contains(pfn)).collect(),
        })
    }

    pub(super) fn place_of(&self, pfn: u64) -> Option<u64> {
        let index = self.struct_pages.binary_search_by_key(&pfn, |(pfn, _)| *pfn).ok()?;
        self.struct_pages.get(index).map(|(_, place)| *place)
    }
}

fn symbol_of(core: &RawCore, key: &str) -> Result<u64> {
    let value = core.fact(key).with_context(|| format!("vmcoreinfo has no {key}"))?;
    u64::from_str_radix(value, 16).with_context(|| format!("{key}={value} is no address"))
}

/// The log's ring buffer: its head, its descriptors, what is known of each record, and the text.
fn log(core: &RawCore, pages: &StructPages<'_>) -> Result<Vec<(u64, u64)>> {
    let number = |key: &str| {
        let value = core.fact(key).with_context(|| format!("vmcoreinfo has no {key}"))?;
        value.parse::<u64>().with_context(|| format!("{key}={value} is no number"))
    };
    let word = |address: u64| pages.word(pages.physical(address)?);
    let ring = word(symbol_of(core, "SYMBOL(prb)")?)?;
    let descriptors = ring + number("OFFSET(printk_ringbuffer.desc_ring)")?;
    let text = ring + number("OFFSET(printk_ringbuffer.text_data_ring)")?;
    let count = 1 << (word(descriptors + number("OFFSET(prb_desc_ring.count_bits)")?)? & 31);
    let size = 1 << (word(text + number("OFFSET(prb_data_ring.size_bits)")?)? & 31);
    let parts = [
        (ring, number("SIZE(printk_ringbuffer)")?),
        (word(descriptors + number("OFFSET(prb_desc_ring.descs)")?)?, count * number("SIZE(prb_desc)")?),
        (word(descriptors + number("OFFSET(prb_desc_ring.infos)")?)?, count * number("SIZE(printk_info)")?),
        (word(text + number("OFFSET(prb_data_ring.data)")?)?, size),
    ];
    let mut places = Vec::new();
    for (start, length) in parts {
        let mut at = start;
        while at < start + length {
            let part = (PAGE - at % PAGE).min(start + length - at);
            places.push((pages.physical(at)?, part));
            at += part;
        }
    }
    Ok(places)
}
