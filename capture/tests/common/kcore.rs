//! A running machine's recipe: the machine as /proc/kcore shows it, and what the system says besides.

use std::collections::BTreeMap;
use std::io;

use kdump_capture::usage::system::System;

use super::Machine;

/// How /proc/kcore is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kcore {
    /// Since Linux 4.19: with vmcoreinfo among the notes.
    WithNote,
    /// Since Linux 4.11: with physical addresses.
    WithAddresses,
    /// Before.
    Plain,
}

impl Machine {
    /// /proc/kcore: beside RAM and the kernel image it lists virtual memory, whose place in the file is nowhere.
    pub fn kcore(&self, kind: Kcore) -> Vec<u8> {
        let mut elf = self.elf();
        let count = elf[56];
        let header = |index: u8| 64 + 56 * usize::from(index);
        for (index, [offset, virt, len]) in [
            [0x0031_ffff_c000_0000u64, 0xffff_c900_0000_0000, 0x1fff_ffff_ffff],
            [0x007f_ffff_c000_0000, 0xffff_ffff_c000_0000, 0x3f00_0000],
        ]
        .into_iter()
        .enumerate()
        {
            let numbers = [1 | 7 << 32, offset, virt, u64::MAX, len, len, 4096];
            for (at, number) in (header(count + index as u8)..).step_by(8).zip(numbers) {
                elf[at..at + 8].copy_from_slice(&number.to_le_bytes());
            }
        }
        elf[56] = count + 2;
        for index in 0..count + 2 {
            let at = header(index);
            let note = elf[at] == 4;
            if note && kind != Kcore::WithNote {
                elf[at + 32..at + 48].fill(0);
            } else if !note && kind == Kcore::Plain {
                elf[at + 24..at + 32].fill(0);
            }
        }
        elf
    }

    /// Puts the note with vmcoreinfo at `phys`; returns what /sys/kernel/vmcoreinfo says.
    pub fn vmcoreinfo_in_memory(&mut self, phys: u64) -> String {
        let (notes, _) = self.notes();
        // The note of a CPU comes first, which is not there.
        let note = notes[12 + 8 + 336..].to_vec();
        self.put(phys, &note);
        format!("0x{phys:016x} {:x}\n", note.len().next_multiple_of(4096))
    }
}

/// Files of a system that is not there.
#[derive(Clone, Debug, Default)]
pub struct Files(pub BTreeMap<&'static str, String>);

impl System for Files {
    fn text(&self, path: &str) -> io::Result<String> {
        self.0.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
