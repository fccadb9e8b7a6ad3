//! Virtual to physical. In: a virtual address of the crashed kernel. Out: the physical address, and how far the same
//! mapping goes on.
//! May surprise: everything is walked, the direct map too; one walk answers for a whole leaf, of 4 KiB or of 4 TiB.
//!
//! A new architecture is one file here and one line in [`Arch::ALL`](crate::arch::Arch::ALL).

pub(crate) mod aarch64;
mod walk;
pub(crate) mod x86_64;

pub use walk::{Seen, walk};

use crate::units::{PhysAddr, VirtAddr, le64, to_usize};
use crate::vmcore::read::{PhysMem, PhysReader, ReadError};

/// Where a virtual address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The physical address.
    pub phys: PhysAddr,
    /// Bytes from there to the end of the same leaf, at least 1.
    pub len: u64,
}

/// Why a virtual address leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// A page-table entry is not present.
    #[error("virtual address {0} is not mapped")]
    NotMapped(VirtAddr),
    /// A page table, or the memory itself, is not in the dump.
    #[error("unable to follow virtual address {at}")]
    Read {
        /// Which.
        at: VirtAddr,
        /// Why.
        source: ReadError,
    },
}

/// How the page tables are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The top table.
    pub root: PhysAddr,
    /// log2 of the bytes of a page, and of a table that is not the top one.
    pub shift: u32,
    /// Tables on the way to a page.
    pub levels: u32,
    /// log2 of the bytes that the top table covers.
    pub covers: u32,
}

impl Layout {
    /// log2 of the bytes that an entry covers, `above` levels above the last.
    fn lower(&self, above: u32) -> u32 {
        self.shift + (self.shift - 3) * above
    }

    /// The levels from the top on: how many are below, and log2 of the bytes that an entry and its table cover.
    fn steps(&self) -> impl Iterator<Item = (u32, u32, u32)> + '_ {
        let upper = |above| if above + 1 == self.levels { self.covers } else { self.lower(above + 1) };
        (0..self.levels).rev().map(move |above| (above, self.lower(above), upper(above)))
    }
}

/// What an entry of a table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing is mapped.
    Nothing,
    /// The next table.
    Table(PhysAddr),
    /// Memory.
    Leaf {
        /// Where; bits below the size of the leaf mean nothing.
        to: PhysAddr,
        /// Whether the kernel may execute it.
        code: bool,
    },
}

/// The paging of one architecture, as the crashed kernel had it set up.
pub trait Translate: Sync + Send {
    /// How its tables are laid out.
    fn layout(&self) -> Layout;

    /// What `entry` says, in a table `above` levels above the last.
    fn entry(&self, above: u32, entry: u64) -> Entry;

    /// Whether `at` is in the kernel's half.
    fn is_kernel(&self, at: VirtAddr) -> bool;

    /// Walks the tables, read through `tables`, for `at`.
    fn translate(&self, tables: &mut Tables<'_>, at: VirtAddr) -> Result<Mapped, WalkError> {
        if !self.is_kernel(at) {
            return Err(WalkError::NotMapped(at));
        }
        let layout = self.layout();
        let mut table = layout.root;
        for (above, lower, upper) in layout.steps() {
            let index = at.0 >> lower & ((1 << (upper - lower)) - 1);
            let entry = tables.entry(PhysAddr(table.0 + index * 8));
            match self.entry(above, entry.map_err(|source| WalkError::Read { at, source })?) {
                Entry::Nothing => break,
                Entry::Table(next) => table = next,
                Entry::Leaf { to, .. } => {
                    let size = 1u64 << lower;
                    let inside = at.0 & (size - 1);
                    return Ok(Mapped { phys: PhysAddr((to.0 & !(size - 1)) + inside), len: size - inside });
                }
            }
        }
        Err(WalkError::NotMapped(at))
    }
}

/// Memory is read and kept in units of this many bytes, whatever the page size: of a table of 64 KiB, the part that is
/// walked through.
const UNIT: usize = 4096;
const INSIDE: u64 = UNIT as u64 - 1;

const CACHED: usize = 8;

/// Page tables as read, the last few units kept.
pub struct Tables<'a> {
    reader: Box<dyn PhysReader + 'a>,
    kept: Vec<(PhysAddr, Box<[u8; UNIT]>)>,
    next: usize,
}

impl std::fmt::Debug for Tables<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tables").field("kept", &self.kept.len()).finish_non_exhaustive()
    }
}

impl Tables<'_> {
    /// The 8-byte entry at `at`, which is aligned to 8.
    pub fn entry(&mut self, at: PhysAddr) -> Result<u64, ReadError> {
        let table = self.unit(PhysAddr(at.0 & !INSIDE))?;
        le64(table, to_usize(at.0 & INSIDE).unwrap_or(0)).ok_or(ReadError::Absent(at))
    }

    /// The unit at `base`, which is aligned to as much.
    fn unit(&mut self, base: PhysAddr) -> Result<&[u8], ReadError> {
        let index = match self.kept.iter().position(|(b, _)| *b == base) {
            Some(index) => index,
            None => self.load(base)?,
        };
        Ok(self.kept.get(index).map(|(_, page)| page.as_slice()).unwrap_or_default())
    }

    fn load(&mut self, base: PhysAddr) -> Result<usize, ReadError> {
        let bytes = self.reader.bytes(base, UNIT)?;
        let table = Box::new(*bytes.first_chunk().ok_or(ReadError::Absent(base))?);
        if self.kept.len() < CACHED {
            self.kept.push((base, table));
            return Ok(self.kept.len() - 1);
        }
        self.next = (self.next + 1) % CACHED;
        self.kept[self.next] = (base, table);
        Ok(self.next)
    }
}

/// Reads virtual memory; one per worker.
pub struct Virtual<'a> {
    paging: &'a dyn Translate,
    tables: Tables<'a>,
    /// Memory as read, kept like tables: a log is read here and there by turns, and /proc/vmcore is slow to read.
    pages: Tables<'a>,
    reader: Box<dyn PhysReader + 'a>,
    last: Option<(VirtAddr, Mapped)>,
}

impl std::fmt::Debug for Virtual<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Virtual").field("last", &self.last).finish_non_exhaustive()
    }
}

impl<'a> Virtual<'a> {
    /// Virtual memory of `mem` under `paging`.
    pub fn new(mem: &'a dyn PhysMem, paging: &'a dyn Translate) -> Self {
        let tables = || Tables { reader: mem.small_reader(), kept: Vec::new(), next: 0 };
        Virtual { paging, tables: tables(), pages: tables(), reader: mem.small_reader(), last: None }
    }

    /// Where `at` leads; the last leaf is remembered.
    pub fn translate(&mut self, at: VirtAddr) -> Result<Mapped, WalkError> {
        if let Some((start, mapped)) = self.last
            && let Some(skip) = at.0.checked_sub(start.0).filter(|skip| *skip < mapped.len)
        {
            return Ok(Mapped { phys: PhysAddr(mapped.phys.0 + skip), len: mapped.len - skip });
        }
        let mapped = self.paging.translate(&mut self.tables, at)?;
        self.last = Some((at, mapped));
        Ok(mapped)
    }

    /// Fills `buffer` from `at` on.
    pub fn read(&mut self, at: VirtAddr, buffer: &mut [u8]) -> Result<(), WalkError> {
        let mut done = 0;
        while done < buffer.len() {
            let here = at.checked_add(done as u64).ok_or(WalkError::NotMapped(at))?;
            let mapped = self.translate(here)?;
            let in_unit = UNIT as u64 - (mapped.phys.0 & INSIDE);
            let piece = to_usize(mapped.len.min(in_unit)).unwrap_or(usize::MAX).min(buffer.len() - done);
            let skip = to_usize(mapped.phys.0 & INSIDE).unwrap_or(0);
            let out = &mut buffer[done..done + piece];
            match self.pages.unit(PhysAddr(mapped.phys.0 & !INSIDE)).ok().and_then(|unit| unit.get(skip..skip + piece))
            {
                Some(bytes) => out.copy_from_slice(bytes),
                // The unit is in the dump only in part.
                None => {
                    let bytes = self.reader.bytes(mapped.phys, piece);
                    out.copy_from_slice(bytes.map_err(|source| WalkError::Read { at: here, source })?);
                }
            }
            done += piece;
        }
        Ok(())
    }

    /// The `u64` at `at`.
    pub fn u64(&mut self, at: VirtAddr) -> Result<u64, WalkError> {
        let mut bytes = [0; 8];
        self.read(at, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// The pointer at `at`.
    pub fn pointer(&mut self, at: VirtAddr) -> Result<VirtAddr, WalkError> {
        self.u64(at).map(VirtAddr)
    }

    /// Whether `at` is in the kernel's half.
    pub fn is_kernel(&self, at: VirtAddr) -> bool {
        self.paging.is_kernel(at)
    }
}
