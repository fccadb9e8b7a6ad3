//! Damage to a raw vmcore, done on purpose and undone: what is hit, and how, follows from a seed.
//!
//! In: a kept source. Out: the same file, a copy, with one [`Damage`] at a time in it.
//!
//! ```text
//!  source ─▶ Patient { copy, places } ─▶ hurt(seed) ─▶ Damage ─▶ … the collector is run … ─▶ heal()
//! ```
//!
//! Surprising: the kernel's image is in a vmcore twice, in a segment of its own and in that of the memory around it.
//! What is changed in memory is changed in both.

mod places;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::oracle::RawCore;
use places::Places;

/// What has been done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Bytes of the ELF header.
    ElfHeader,
    /// Bytes of the program headers.
    ProgramHeaders,
    /// Bytes of vmcoreinfo, or of the notes around it.
    Notes,
    /// All notes are zeros.
    NotesErased,
    /// A page table entry on the way to struct pages is another.
    TableScribbled,
    /// A page table entry on the way to struct pages is empty.
    TableCleared,
    /// The entry of a section in `mem_section` is another.
    SectionScribbled(u64),
    /// The entry of a section in `mem_section` is empty.
    SectionCleared(u64),
    /// Struct pages are others; these are the first and the last page they belong to.
    StructPages(u64, u64),
    /// The struct page of this page claims to be the head of an enormous compound page in the file cache.
    EnormousClaim(u64),
    /// Bytes of the kernel log, or of the tables by which it is found.
    Log,
    /// Bytes of memory that says nothing of other memory.
    Memory,
    /// Bytes anywhere in the file.
    Anywhere,
    /// The file ends after so many bytes.
    Truncated(u64),
}

/// A source that is hurt and healed.
#[derive(Debug)]
pub struct Patient {
    /// The file.
    pub path: PathBuf,
    file: File,
    pristine: File,
    core: RawCore,
    places: Places,
    length: u64,
    before: BTreeMap<u64, Vec<u8>>,
}

impl Patient {
    /// Copies the source to `path`, and learns what lies where in it.
    pub fn new(source: &Path, path: &Path) -> Result<Patient> {
        fs::copy(source, path).with_context(|| format!("unable to copy the source to {}", path.display()))?;
        let core = RawCore::open(source)?;
        let places = Places::find(&core).context("unable to find the source's structures")?;
        let file = File::options().read(true).write(true).open(path)?;
        let length = file.metadata()?.len();
        let pristine = File::open(source)?;
        Ok(Patient { path: path.into(), file, pristine, core, places, length, before: BTreeMap::new() })
    }

    /// The source as it was.
    pub fn healthy(&self) -> &RawCore {
        &self.core
    }

    /// Does what the seed says.
    pub fn hurt(&mut self, seed: u64) -> Result<Damage> {
        let mut dice = Dice(seed);
        let damage = match dice.below(24) {
            0 => self.in_file(&mut dice, 0..64, Damage::ElfHeader)?,
            1 => self.in_file(&mut dice, self.places.program_headers.clone(), Damage::ProgramHeaders)?,
            2..=4 => self.in_file(&mut dice, self.core.notes(), Damage::Notes)?,
            5 => {
                let notes = self.core.notes();
                self.write(notes.start, &vec![0; usize::try_from(notes.end - notes.start)?])?;
                Damage::NotesErased
            }
            6 | 7 => {
                let entry = dice.of(&self.places.tables);
                self.write_memory(entry, &dice.word().to_le_bytes())?;
                Damage::TableScribbled
            }
            8 => {
                let entry = dice.of(&self.places.tables);
                self.write_memory(entry, &[0; 8])?;
                Damage::TableCleared
            }
            9 => {
                let (section, entry) = dice.of(&self.places.sections);
                self.write_memory(entry, &dice.word().to_le_bytes())?;
                Damage::SectionScribbled(section)
            }
            10 => {
                let (section, entry) = dice.of(&self.places.sections);
                self.write_memory(entry, &[0; 8])?;
                Damage::SectionCleared(section)
            }
            11..=14 => self.struct_pages(&mut dice)?,
            15 => {
                let pfn = dice.of(&self.places.aligned);
                self.claim(pfn, &mut dice)?;
                Damage::EnormousClaim(pfn)
            }
            16 | 17 => {
                let (start, length) = dice.of(&self.places.log);
                self.in_memory(&mut dice, start, length)?;
                Damage::Log
            }
            18..=20 => {
                let pfn = dice.of(&self.places.plain);
                self.in_memory(&mut dice, pfn * 4096, 4096)?;
                Damage::Memory
            }
            21 => self.in_file(&mut dice, 0..self.length, Damage::Anywhere)?,
            _ => {
                // Half of the lengths in the headers, half anywhere.
                let headers = self.core.notes().end + 4096;
                let end = if dice.below(2) == 0 { headers } else { self.length };
                let length = dice.below(end);
                self.file.set_len(length)?;
                Damage::Truncated(length)
            }
        };
        Ok(damage)
    }

    /// Undoes it.
    pub fn heal(&mut self) -> Result<()> {
        let length = self.file.metadata()?.len();
        if length < self.length {
            self.file.set_len(self.length)?;
            let mut block = vec![0; 1 << 20];
            let mut at = length;
            while at < self.length {
                let part = usize::try_from((self.length - at).min(block.len() as u64))?;
                self.pristine.read_exact_at(&mut block[..part], at)?;
                self.file.write_all_at(&block[..part], at)?;
                at += part as u64;
            }
        }
        for (offset, bytes) in std::mem::take(&mut self.before) {
            self.file.write_all_at(&bytes, offset)?;
        }
        Ok(())
    }

    /// Changes a few bytes, or a run of them, in this range of the file.
    fn in_file(&mut self, dice: &mut Dice, range: std::ops::Range<u64>, damage: Damage) -> Result<Damage> {
        for (offset, bytes) in dice.bytes(range.end - range.start) {
            let offset = range.start + offset;
            match self.core.address_of(offset) {
                Some(address) => self.write_memory(address, &bytes)?,
                None => self.write(offset, &bytes)?,
            }
        }
        Ok(damage)
    }

    fn in_memory(&mut self, dice: &mut Dice, start: u64, length: u64) -> Result<()> {
        for (offset, bytes) in dice.bytes(length) {
            self.write_memory(start + offset, &bytes)?;
        }
        Ok(())
    }

    /// Up to 64 struct pages in a row, some of their bytes or all.
    fn struct_pages(&mut self, dice: &mut Dice) -> Result<Damage> {
        let (first, place) = dice.of(&self.places.struct_pages);
        let size = self.places.struct_page_size;
        // As many as have their struct pages in the same page of memory.
        let room = (4096 - place % 4096) / size;
        let count = 1 + dice.below(room.clamp(1, 64));
        self.in_memory(dice, place, count * size)?;
        Ok(Damage::StructPages(first, first + count - 1))
    }

    fn claim(&mut self, pfn: u64, dice: &mut Dice) -> Result<()> {
        let at = self.places.claim;
        let place = self.places.place_of(pfn).context("the page has no struct page")?;
        let order = pfn.trailing_zeros().min(40) as u8;
        let order = order.saturating_sub(u8::try_from(dice.below(4))?).max(11);
        self.write_memory(place + at.flags, &(at.head | at.lru).to_le_bytes())?;
        self.write_memory(place + at.compound, &[0; 8])?;
        self.write_memory(place + at.mapping, &0xffff_8880_0000_1000_u64.to_le_bytes())?;
        self.write_memory(place + at.map_count, &u32::MAX.to_le_bytes())?;
        self.write_memory(place + self.places.struct_page_size + at.order, &[order])
    }

    fn write_memory(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        for (index, byte) in (address..).zip(bytes) {
            for offset in self.core.offsets_of(index) {
                self.write(offset, &[*byte])?;
            }
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        if offset >= self.length {
            return Ok(());
        }
        for (at, _) in (offset..).zip(bytes) {
            let mut old = [0];
            self.pristine.read_exact_at(&mut old, at)?;
            self.before.entry(at).or_insert_with(|| old.into());
        }
        self.file.write_all_at(bytes, offset).context("unable to write the damage")
    }
}

/// Throws that follow from a seed alone: splitmix64.
#[derive(Debug)]
pub struct Dice(
    /// The seed.
    pub u64,
);

impl Dice {
    /// Any number.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.word() % end.max(1)
    }

    fn of<T: Clone>(&mut self, list: &[T]) -> T {
        let index = self.below(list.len() as u64);
        list[usize::try_from(index).unwrap_or_default()].clone()
    }

    /// New bytes for some of `length`: single bits and bytes, words with a meaning of their own, or a run of noise.
    fn bytes(&mut self, length: u64) -> Vec<(u64, Vec<u8>)> {
        let count = 1 + self.below(8);
        let mut changes = Vec::new();
        for _ in 0..count {
            let offset = self.below(length);
            let left = length - offset;
            let bytes: Vec<u8> = match self.below(6) {
                0 => vec![1 << self.below(8)],
                1 => vec![self.word().to_le_bytes()[0]],
                2 => vec![b'0' + self.word().to_le_bytes()[0] % 10],
                3 => u64::MAX.to_le_bytes().into(),
                4 => (1_u64 << self.below(64)).to_le_bytes().into(),
                _ => (0..1 + self.below(200)).map(|_| self.word().to_le_bytes()[0]).collect(),
            };
            let fits = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            changes.push((offset, bytes[..fits].into()));
        }
        changes
    }
}
