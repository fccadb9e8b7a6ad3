//! Arbitrary text as vmcoreinfo, and every question asked of it.

#![no_main]

use kdump_capture::classify::Classifier;
use kdump_capture::memmap::PageView;
use kdump_capture::units::{DumpLevel, Pfn};
use kdump_capture::vmcoreinfo::Facts;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let facts = Facts::parse(data);
    let classifier = Classifier::new(&facts, DumpLevel::new(31).unwrap(), &mut Vec::new());
    let page: Vec<u8> = data.iter().copied().cycle().take(if data.is_empty() { 0 } else { 128 }).collect();
    let (this, next) = page.split_at(page.len() / 2);
    let _ = classifier.verdict(&PageView { pfn: Pfn(64), this, next: Some(next) });
});
