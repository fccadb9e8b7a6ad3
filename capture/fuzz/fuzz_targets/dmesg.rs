//! Arbitrary bytes in the ring buffer and its descriptors.

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use std::sync::LazyLock;

use common::{Era, Leaf, Machine, virt};
use kdump_capture::dmesg;
use kdump_capture::kernel::Kernel;
use libfuzzer_sys::fuzz_target;

static MACHINE: LazyLock<Machine> = LazyLock::new(|| Machine::new(Era::V6_12, 4, Leaf::M2));

fuzz_target!(|data: &[u8]| {
    let mut machine = MACHINE.clone();
    let (head, rest) = data.split_at(data.len().min(80));
    machine.put(0x28_3010, head);
    for (page, bytes) in rest.chunks(4096).take(3).enumerate() {
        machine.put(0x28_4000 + 0x1000 * page as u64, bytes);
    }
    // Without the pointers there is little to find.
    if data.first().is_some_and(|b| b & 1 == 0) {
        machine.put64(0x28_3018, 5);
        machine.put64(0x28_3020, virt(0x28_4000));
        machine.put64(0x28_3028, virt(0x28_5000));
        machine.put64(0x28_3048, 12);
        machine.put64(0x28_3050, virt(0x28_6000));
    }
    let memory = machine.memory();
    let kernel = Kernel::learn(machine.vmcoreinfo.as_bytes(), &memory, &mut Vec::new());
    let mut out = Vec::new();
    let _ = dmesg::records(&kernel.facts, &mut kernel.memory(&memory).unwrap(), &mut |record| {
        out.clear();
        record.print(&mut out);
        Ok(())
    });
});
