//! Page-table walks: what a recipe maps is found, what it does not map is not, and no table hangs or breaks the walk.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::aarch64::{ALL, Pa};
use common::{Leaf, Ram, x86_64};
use kdump_capture::arch::Arch;
use kdump_capture::fake::MemCore;
use kdump_capture::paging::{Mapped, Translate, Virtual, WalkError};
use kdump_capture::units::{PageSize, PhysAddr, VirtAddr};
use kdump_capture::vmcoreinfo::Facts;
use proptest::prelude::*;

/// Where the tables are.
const START: u64 = 0x20_0000;

/// Memory that holds page tables and nothing else.
struct Scratch {
    page: u64,
    bytes: Vec<u8>,
    known: BTreeMap<u64, u64>,
}

impl Ram for Scratch {
    fn put64(&mut self, phys: u64, value: u64) {
        self.bytes[(phys - START) as usize..][..8].copy_from_slice(&value.to_le_bytes());
    }
    fn get64(&self, phys: u64) -> u64 {
        u64::from_le_bytes(self.bytes[(phys - START) as usize..][..8].try_into().unwrap())
    }
    fn new_table(&mut self) -> u64 {
        self.bytes.resize(self.bytes.len() + self.page as usize, 0);
        START + self.bytes.len() as u64 - self.page
    }
    fn known_table(&self, entry: u64) -> Option<u64> {
        self.known.get(&entry).copied()
    }
    fn remember_table(&mut self, entry: u64, table: u64) {
        self.known.insert(entry, table);
    }
}

/// One way to lay out page tables: those of aarch64, then x86_64 with 4 and with 5 levels.
#[derive(Clone, Copy, Debug)]
struct Way(usize);

impl Way {
    const COUNT: usize = ALL.len() + 2;

    fn levels(self) -> u32 {
        4 + (self.0 - ALL.len()) as u32
    }

    fn arm(self) -> Option<&'static common::aarch64::Recipe> {
        static ROWS: [common::aarch64::Recipe; ALL.len()] = ALL;
        ROWS.get(self.0)
    }

    fn page(self) -> PageSize {
        self.arm().map_or(PageSize::K4, |recipe| PageSize::new(1 << recipe.page_shift).unwrap())
    }

    fn arch(self) -> &'static Arch {
        Arch::named(if self.arm().is_some() { "aarch64" } else { "x86_64" }).unwrap()
    }

    /// Bits of the kernel's half.
    fn bits(self) -> u32 {
        self.arm().map_or_else(|| 11 + 9 * self.levels(), |recipe| recipe.runs)
    }

    fn leaves(self) -> &'static [u32] {
        self.arm().map_or(&[12, 21, 30], |recipe| recipe.leaves)
    }

    fn phys_bits(self) -> u32 {
        match self.arm() {
            None => 46,
            Some(recipe) if recipe.pa == Pa::Plain => 48,
            Some(_) => 52,
        }
    }

    fn map(self, ram: &mut Scratch, virt: u64, phys: u64, leaf: u32) {
        match self.arm() {
            Some(recipe) => recipe.map(ram, START, virt, phys, leaf),
            None => x86_64::map(ram, START, self.levels(), virt, phys, leaf),
        }
    }

    fn paging(self) -> Box<dyn Translate> {
        let virt = x86_64::platform(4, Leaf::K4).image_virt;
        let text = match self.arm() {
            Some(recipe) => recipe.facts(0, virt, virt.wrapping_sub(START)),
            None => x86_64::facts(self.levels(), virt),
        };
        (self.arch().paging)(&Facts::parse(text.as_bytes()), self.page(), &[]).unwrap()
    }

    fn scratch(self) -> Scratch {
        Scratch { page: self.page().bytes() as u64, bytes: vec![0; self.page().bytes()], known: BTreeMap::new() }
    }
}

/// An address in the kernel's half, of few different ones at each level, so that tables are shared.
fn address(way: Way, seed: u64) -> u64 {
    let few = seed & 0x8040_2010_0804_8183 | seed >> 32 & 0xfff;
    u64::MAX << way.bits() | few & !(u64::MAX << way.bits())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_mapped_is_found_and_nothing_else(
        way in (0..Way::COUNT).prop_map(Way),
        mappings in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<prop::sample::Index>()), 1..12),
        asked in proptest::collection::vec(any::<u64>(), 20),
    ) {
        let mut ram = way.scratch();
        let mut mapped: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for (virt, phys, leaf) in mappings {
            let leaf = *leaf.get(way.leaves());
            let size = 1u64 << leaf;
            let (virt, phys) = (address(way, virt) & !(size - 1), phys & ((1 << way.phys_bits()) - 1) & !(size - 1));
            if mapped.iter().any(|(at, (_, len))| *at <= virt + (size - 1) && virt <= at + (len - 1)) {
                continue;
            }
            way.map(&mut ram, virt, phys, leaf);
            mapped.insert(virt, (phys, size));
        }
        let memory = MemCore::of(way.arch(), way.page(), [(PhysAddr(START), ram.bytes)]);
        let paging = way.paging();
        let mut memory = Virtual::new(&memory, paging.as_ref());
        let inside = mapped.iter().flat_map(|(at, (_, len))| {
            let ends = [*at, at + (len - 1), at.wrapping_sub(1), at.wrapping_add(*len)];
            asked.iter().map(move |seed| at + seed % len).chain(ends).collect::<Vec<_>>()
        });
        let others = asked.iter().flat_map(|seed| [*seed, address(way, *seed), seed >> 1]);
        for at in inside.chain(others).collect::<Vec<_>>() {
            let leaf = mapped.range(..=at).next_back().filter(|(start, (_, len))| at - **start < *len);
            match (memory.translate(VirtAddr(at)), leaf) {
                (Ok(found), Some((start, (phys, len)))) => {
                    let skip = at - start;
                    prop_assert_eq!(found, Mapped { phys: PhysAddr(phys + skip), len: len - skip }, "{:?} {:#x}", way, at);
                }
                (Err(WalkError::NotMapped(_)), None) => {}
                (found, wanted) => prop_assert!(false, "{way:?} {at:#x}: {found:?}, {wanted:?}"),
            }
        }
    }

    #[test]
    fn tables_of_noise_never_panic_and_always_end(
        way in (0..Way::COUNT).prop_map(Way),
        words in proptest::collection::vec(any::<u64>(), 64..512),
        asked in proptest::collection::vec(any::<u64>(), 20),
    ) {
        // Most entries lead to another place in the same memory, as a table or as a leaf.
        let len = words.len() as u64 * 8;
        let inside = |word: u64| (START + word / 8 % len) & !0xfff | word & 0x83;
        let entry = |word: &u64| if word.is_multiple_of(5) { *word } else { inside(*word) };
        let bytes: Vec<u8> = words.iter().map(entry).flat_map(u64::to_le_bytes).collect();
        let bytes: Vec<u8> = bytes.iter().copied().cycle().take(way.page().bytes() * 4).collect();
        let memory = MemCore::of(way.arch(), way.page(), [(PhysAddr(START), bytes)]);
        let paging = way.paging();
        let mut memory = Virtual::new(&memory, paging.as_ref());
        for seed in asked {
            for at in [seed, address(way, seed), u64::MAX - seed % 4096] {
                if let Ok(found) = memory.translate(VirtAddr(at)) {
                    prop_assert!(found.len > 0 && found.phys.0 < 1 << 52, "{found:?}");
                    prop_assert!(paging.is_kernel(VirtAddr(at)));
                }
                let _ = memory.read(VirtAddr(at), &mut [0; 5000]);
            }
        }
    }
}

#[test]
fn the_last_page_of_the_address_space_is_followed() {
    for way in (0..Way::COUNT).map(Way) {
        let (mut ram, leaf) = (way.scratch(), way.leaves()[0]);
        let last = u64::MAX << leaf;
        way.map(&mut ram, last, 0x5000_0000, leaf);
        let memory = MemCore::of(way.arch(), way.page(), [(PhysAddr(START), ram.bytes)]);
        let paging = way.paging();
        let found = Virtual::new(&memory, paging.as_ref()).translate(VirtAddr(u64::MAX)).unwrap();
        assert_eq!(found, Mapped { phys: PhysAddr(0x5000_0000 + (1 << leaf) - 1), len: 1 }, "{way:?}");
    }
}

#[test]
fn a_block_is_not_followed_where_the_architecture_has_none() {
    for (way, recipe) in ALL.iter().enumerate().map(|(index, recipe)| (Way(index), recipe)) {
        for leaf in recipe.levels.iter().filter(|level| !recipe.leaves.contains(level)) {
            let (mut ram, at) = (way.scratch(), u64::MAX << leaf);
            way.map(&mut ram, at, 0, *leaf);
            let memory = MemCore::of(way.arch(), way.page(), [(PhysAddr(START), ram.bytes)]);
            let paging = way.paging();
            let found = Virtual::new(&memory, paging.as_ref()).translate(VirtAddr(at));
            assert!(matches!(found, Err(WalkError::NotMapped(_))), "{recipe:?}, block of {leaf} bits: {found:?}");
        }
    }
}
