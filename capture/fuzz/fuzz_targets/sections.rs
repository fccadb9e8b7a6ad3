//! mem_section, the page tables behind it, struct pages and the numbers vmcoreinfo gives of them, damaged: sections are
//! found and looked at within bounds. Input: a byte that chooses the machine, then patches of 3 bytes position, 1 byte
//! length, and that many bytes. The memory is patched in place and restored afterwards.

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use std::sync::{LazyLock, Mutex, PoisonError};

use common::aarch64::{ALL, LOW};
use common::{Era, Leaf, Machine, Model, x86_64};
use kdump_capture::fake::MemCore;
use kdump_capture::kernel::Kernel;
use kdump_capture::memmap::{MemMap, Scan, Step};
use kdump_capture::units::{Pfn, PhysAddr};
use kdump_capture::vmcore::read::PhysMem;
use libfuzzer_sys::fuzz_target;

static MACHINES: LazyLock<Mutex<Vec<(Machine, MemCore)>>> = LazyLock::new(|| {
    let mut machines = vec![
        (x86_64::platform(4, Leaf::M2), Model::Roots),
        (x86_64::platform(5, Leaf::K4), Model::Sections),
        (x86_64::platform(4, Leaf::K4), Model::Flat),
        (ALL[1].platform(LOW, 21), Model::Roots),
        (ALL[0].platform(LOW, 12), Model::Flat),
        (ALL[4].platform(LOW, 14), Model::Roots),
    ]
    .into_iter()
    .map(|(platform, model)| Machine::on(Era::V6_12, platform, model))
    .collect::<Vec<_>>();
    for machine in machines.iter_mut().step_by(2) {
        machine.vmcoreinfo += &format!("SYMBOL(vmemmap)={:x}\n", machine.vmemmap());
    }
    let both = |machine: Machine| (machine.clone(), machine.memory());
    Mutex::new(machines.into_iter().map(both).collect())
});

fuzz_target!(|data: &[u8]| {
    let Some((first, mut rest)) = data.split_first() else { return };
    let mut machines = MACHINES.lock().unwrap_or_else(PoisonError::into_inner);
    let count = machines.len();
    let (machine, memory) = &mut machines[usize::from(*first) % count];
    let image = machine.start() + 0x100 * machine.platform.page;
    let mut before = Vec::new();
    let mut text = machine.vmcoreinfo.clone().into_bytes();
    while let Some((head, tail)) = rest.split_first_chunk::<4>() {
        let at = u64::from(u32::from_le_bytes([head[0], head[1], head[2], 0]));
        let len = usize::from(head[3] % 24).min(tail.len());
        let (bytes, after) = tail.split_at(len);
        rest = after;
        // Sections and their roots, the pointer of FLATMEM, page tables of either kind, vmcoreinfo.
        let place = match at % 4 {
            0 => 0x8_1000 + at / 4 % 0x1800,
            1 => 0x8_7000 + at / 4 % 0x1000,
            2 => at / 8 % 0x8000 + if at & 4 == 0 { 0 } else { 0x10_0000 },
            _ => {
                let at = at as usize / 4 % text.len();
                let end = (at + len).min(text.len());
                text[at..end].copy_from_slice(&bytes[..end - at]);
                continue;
            }
        };
        let place = PhysAddr(image + place);
        before.push((place, memory.replace(place, bytes).unwrap()));
    }
    look(&text, memory);
    for (place, bytes) in before.iter().rev() {
        memory.replace(*place, bytes).unwrap();
    }
});

/// Finds sections and looks at their pages.
fn look(vmcoreinfo: &[u8], memory: &MemCore) {
    let kernel = Kernel::learn(vmcoreinfo, memory, &mut Vec::new());
    let runs = memory.segments().backed();
    let Some(mut virt) = kernel.memory(memory) else { return };
    let Ok(map) = MemMap::new(&kernel, &mut virt, runs) else { return };
    // A section has 256 pages at least.
    assert!(map.sections.len() <= 6);
    let mut scan = Scan::new(&map, memory);
    let (mut seen, mut blind) = (0, 0);
    for section in &map.sections {
        for run in runs {
            let (mut last, end) = (None, run.end.min(map.end(section)));
            blind += scan.run(&mut virt, section, *run, &mut |page| {
                assert!(page.pfn < end && Some(page.pfn) > last, "{:?} after {last:?}", page.pfn);
                last = Some(page.pfn);
                seen += 1;
                if page.pfn.0 % 64 == 5 { Step::Jump(Pfn(page.pfn.0 + 3)) } else { Step::Next }
            });
        }
    }
    assert!(seen + blind <= 0x500);
}
