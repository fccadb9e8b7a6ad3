//! A kernel with live patches, with bytes of its symbols and of the list replaced.
//! Input: a byte that chooses how addresses are written, then patches of 2 bytes position, 1 byte length, and that many
//! bytes. Only that memory is there, and one addition translates it.

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use std::sync::LazyLock;

use common::live::{Addresses, MEMORY};
use common::{Era, Leaf, Machine, RAM, virt};
use kdump_capture::fake::MemCore;
use kdump_capture::live_patches::in_memory;
use kdump_capture::paging::{Mapped, Tables, Translate, Virtual, WalkError};
use kdump_capture::units::{PhysAddr, VirtAddr};
use kdump_capture::vmcoreinfo::Facts;
use libfuzzer_sys::fuzz_target;

static KERNELS: LazyLock<[(Facts, Vec<u8>); 3]> = LazyLock::new(|| {
    [Addresses::Absolute, Addresses::Relative, Addresses::AbsolutePercpu].map(|addresses| {
        let mut machine = Machine::new(Era::V6_12, 4, Leaf::M2);
        machine.live_patches(Some(&["kpatch_1", "kpatch_2"]), addresses);
        let (at, length) = MEMORY;
        (Facts::parse(machine.vmcoreinfo.as_bytes()), machine.ram[(at - RAM) as usize..][..length].to_vec())
    })
});

struct Shifted;

impl Translate for Shifted {
    fn translate(&self, _: &mut Tables<'_>, at: VirtAddr) -> Result<Mapped, WalkError> {
        let phys = at.0.checked_sub(virt(0x20_0000)).map(|skip| PhysAddr(0x20_0000 + skip));
        let phys = phys.filter(|phys| phys.0 < 0x40_0000).ok_or(WalkError::NotMapped(at))?;
        Ok(Mapped { phys, len: 0x40_0000 - phys.0 })
    }

    fn is_kernel(&self, _: VirtAddr) -> bool {
        true
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((first, mut rest)) = data.split_first() else { return };
    let (facts, memory) = &KERNELS[usize::from(first % 3)];
    let mut memory = memory.clone();
    while let Some((head, tail)) = rest.split_first_chunk::<3>() {
        let (bytes, after) = tail.split_at(usize::from(head[2] % 32).min(tail.len()));
        rest = after;
        let at = usize::from(u16::from_le_bytes([head[0], head[1]])) % memory.len();
        let end = (at + bytes.len()).min(memory.len());
        memory[at..end].copy_from_slice(&bytes[..end - at]);
    }
    let memory = MemCore::new([(PhysAddr(MEMORY.0), memory)]);
    if let Ok(names) = in_memory(facts, &mut Virtual::new(&memory, &Shifted)) {
        assert!(names.iter().all(|name| !name.is_empty() && name.len() < 64));
    }
});
