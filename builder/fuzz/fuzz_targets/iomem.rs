//! Arbitrary text as `/proc/iomem`. No piece of memory ends before it begins.

#![no_main]

use kdump_builder::kexec::segments::Iomem;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let iomem = Iomem::parse(text);
    assert!(iomem.resources.iter().all(|it| it.range.start < it.range.end));
    let _ = iomem.crash_kernel();
});
