//! A working log, of either kind, with bytes of it replaced.
//! Input: a byte that chooses the kind and which records are wanted, then patches of 2 bytes position, 1 byte length, and
//! that many bytes. Only the log's own memory is there, and one addition translates it.

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use std::sync::LazyLock;

use common::logs::{MEMORY, RecordBuffer};
use common::{Era, Leaf, Machine, RAM, virt};
use kdump_capture::dmesg::{self, Since};
use kdump_capture::fake::MemCore;
use kdump_capture::paging::{Entry, Layout, Mapped, Tables, Translate, Virtual, WalkError};
use kdump_capture::units::{PhysAddr, VirtAddr};
use kdump_capture::vmcoreinfo::Facts;
use libfuzzer_sys::fuzz_target;

struct Log {
    facts: Facts,
    pieces: Vec<(PhysAddr, Vec<u8>)>,
}

impl Log {
    fn of(machine: &Machine) -> Log {
        let piece = |(at, len): (u64, usize)| (PhysAddr(at), machine.ram[(at - RAM) as usize..][..len].to_vec());
        Log { facts: Facts::parse(machine.vmcoreinfo.as_bytes()), pieces: MEMORY.map(piece).into() }
    }
}

static LOGS: LazyLock<[Log; 2]> = LazyLock::new(|| {
    let texts: Vec<String> = (0..12).map(|number| format!("record {number}\nof the log")).collect();
    let records: Vec<(u64, u32, &[u8])> = texts.iter().map(|text| (1 << 30, 1, text.as_bytes())).collect();
    let mut new = Machine::new(Era::V6_12, 4, Leaf::M2);
    new.log(&records);
    new.log_cleared(9, Some(3));
    let mut old = Machine::new(Era::V4_9, 4, Leaf::M2);
    let mut log = RecordBuffer::new(512);
    for (number, (ts, caller, text)) in records.iter().enumerate() {
        if number == 9 {
            log.clear();
        }
        log.push(*ts, *caller, text);
    }
    old.record_buffer(&log);
    [Log::of(&new), Log::of(&old)]
});

struct Shifted;

impl Translate for Shifted {
    fn translate(&self, _: &mut Tables<'_>, at: VirtAddr) -> Result<Mapped, WalkError> {
        let phys = at.0.checked_sub(virt(0x20_0000)).map(|skip| PhysAddr(0x20_0000 + skip));
        let phys = phys.filter(|phys| phys.0 < 0x40_0000).ok_or(WalkError::NotMapped(at))?;
        Ok(Mapped { phys, len: 0x40_0000 - phys.0 })
    }

    fn layout(&self) -> Layout {
        Layout { root: PhysAddr(0), shift: 12, levels: 0, covers: 12 }
    }

    fn entry(&self, _: u32, _: u64) -> Entry {
        Entry::Nothing
    }

    fn is_kernel(&self, _: VirtAddr) -> bool {
        true
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((first, mut rest)) = data.split_first() else { return };
    let Log { facts, pieces } = &LOGS[usize::from(first & 1)];
    let mut pieces = pieces.clone();
    let all: usize = pieces.iter().map(|(_, bytes)| bytes.len()).sum();
    while let Some((head, tail)) = rest.split_first_chunk::<3>() {
        let (bytes, after) = tail.split_at(usize::from(head[2] % 32).min(tail.len()));
        rest = after;
        let mut at = usize::from(u16::from_le_bytes([head[0], head[1]])) % all;
        for (_, piece) in &mut pieces {
            let end = (at + bytes.len()).min(piece.len());
            if at < end {
                piece[at..end].copy_from_slice(&bytes[..end - at]);
                break;
            }
            at -= piece.len().min(at);
        }
    }
    let memory = MemCore::new(pieces);
    let since = if first & 2 == 0 { Since::Boot } else { Since::Clear };
    let mut out = Vec::new();
    let _ = dmesg::records(facts, &mut Virtual::new(&memory, &Shifted), since, &mut |record| {
        out.clear();
        record.print(&mut out);
        Ok(())
    });
});
