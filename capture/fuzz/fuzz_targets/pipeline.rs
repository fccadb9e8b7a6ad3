//! A working machine with bytes of its memory and its vmcoreinfo replaced, through the whole pipeline.
//! Input: a byte of level, codec and machine, then patches of 3 bytes position, 1 byte length, and that many bytes.
//! The memory is patched in place and restored afterwards, since a copy of it takes longer than the rest.

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use std::sync::{LazyLock, Mutex};

use common::aarch64::{ALL, LOW};
use common::{Era, Leaf, Machine, Model, x86_64};
use kdump_capture::compress::Kind;
use kdump_capture::fake::MemCore;
use kdump_capture::units::PhysAddr;
use libfuzzer_sys::fuzz_target;

static MACHINES: LazyLock<Mutex<Vec<(Machine, MemCore)>>> = LazyLock::new(|| {
    let machines = [
        (Era::V6_1, x86_64::platform(4, Leaf::M2)),
        (Era::V6_12, x86_64::platform(5, Leaf::K4)),
        (Era::V6_9, ALL[1].platform(LOW, 21)),
        (Era::V7_1, ALL[5].platform(LOW, 14)),
    ];
    let machines = machines.map(|(era, platform)| {
        let mut machine = Machine::on(era, platform, Model::Roots);
        machine.set(0x400, &["hugetlb:7"]);
        machine.set(0x480, &["buddy:7"]);
        machine.set(0x500, &["lru", "file"]);
        let memory = machine.memory();
        (machine, memory)
    });
    Mutex::new(machines.into())
});

fuzz_target!(|data: &[u8]| {
    let Some((first, mut rest)) = data.split_first() else { return };
    let mut machines = MACHINES.lock().unwrap();
    let (machine, memory) = &mut machines[usize::from(first >> 7 | first >> 4 & 2)];
    let (start, page) = (machine.start(), machine.platform.page);
    let text = machine.vmcoreinfo.clone();
    let mut patched = text.clone().into_bytes();
    let mut before = Vec::new();
    while let Some((head, tail)) = rest.split_first_chunk::<4>() {
        let at = u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize;
        let len = usize::from(head[3] % 24).min(tail.len());
        let (bytes, after) = tail.split_at(len);
        rest = after;
        // The kernel image's tables and data, struct pages, anything, vmcoreinfo.
        let place = match at % 4 {
            0 => start + 0x100 * page + (at / 4 % 0x8_8000) as u64,
            1 => machine.struct_page(0x100) + (at / 4 % 0x1_4000) as u64,
            2 => start + at as u64 / 4 % (0x500 * page - 32),
            _ => {
                let at = at / 4 % patched.len();
                let end = (at + len).min(patched.len());
                patched[at..end].copy_from_slice(&bytes[..end - at]);
                continue;
            }
        };
        before.push((place, memory.replace(PhysAddr(place), bytes).unwrap()));
    }
    machine.vmcoreinfo = String::from_utf8_lossy(&patched).into_owned();
    let codec = if first & 0x40 == 0 { Kind::None } else { Kind::Zstd };
    let (report, dump) = machine.dump(&*memory, first & 31, codec, 1, usize::MAX);
    machine.vmcoreinfo = text;
    for (place, bytes) in before.iter().rev() {
        memory.replace(PhysAddr(*place), bytes).unwrap();
    }
    let p = report.pages;
    assert_eq!(p.total, p.kept + p.zero + p.dropped.total() + p.unreadable);
    assert_eq!(common::kept(&dump).len() as u64, p.kept + p.zero + p.unreadable);
});
