//! A working machine with bytes of its memory and its vmcoreinfo replaced, through the whole pipeline.
//! Input: a byte of level, then patches of 3 bytes position, 1 byte length, and that many bytes.

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use std::sync::LazyLock;

use common::{Era, Leaf, Machine, RAM, RAM_LEN};
use kdump_capture::compress::Kind;
use libfuzzer_sys::fuzz_target;

static MACHINES: LazyLock<Vec<Machine>> = LazyLock::new(|| {
    [(Era::V6_1, 4, Leaf::M2), (Era::V6_12, 5, Leaf::K4)].map(|(era, levels, leaf)| {
        let mut machine = Machine::new(era, levels, leaf);
        machine.set(0x400, &["hugetlb:7"]);
        machine.set(0x480, &["buddy:7"]);
        machine.set(0x500, &["lru", "file"]);
        machine
    })
    .to_vec()
});

fuzz_target!(|data: &[u8]| {
    let Some((first, mut rest)) = data.split_first() else { return };
    let mut machine = MACHINES[usize::from(first >> 7)].clone();
    while let Some((head, tail)) = rest.split_first_chunk::<4>() {
        let at = u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize;
        let len = usize::from(head[3] % 24).min(tail.len());
        let (bytes, after) = tail.split_at(len);
        rest = after;
        match at % 4 {
            // The kernel image's tables and data, struct pages, anything, vmcoreinfo.
            0 => machine.put(0x20_0000 + (at / 4 % 0x8_8000) as u64, bytes),
            1 => machine.put(0x40_4000 + (at / 4 % 0x1_4000) as u64, bytes),
            2 => machine.put(RAM + (at / 4 % (RAM_LEN - 32)) as u64, bytes),
            _ => {
                let mut text = machine.vmcoreinfo.clone().into_bytes();
                let at = at / 4 % text.len();
                let end = (at + len).min(text.len());
                text[at..end].copy_from_slice(&bytes[..end - at]);
                machine.vmcoreinfo = String::from_utf8_lossy(&text).into_owned();
            }
        }
    }
    let (report, dump) = machine.dump(&machine.memory(), first & 31, Kind::Zstd, 1, usize::MAX);
    let p = report.pages;
    assert_eq!(p.total, p.kept + p.zero + p.dropped.total() + p.unreadable);
    assert_eq!(common::kept(&dump).len() as u64, p.kept + p.zero + p.unreadable);
});
