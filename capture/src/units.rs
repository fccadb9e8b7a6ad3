//! Numbers with a meaning. In: raw integers from the dump, checked once. Out: values that cannot be mixed up.
//! May surprise: arithmetic is checked everywhere, because the integers come from a crashed machine.

use std::fmt;

/// A page frame number: a physical address divided by the page size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pfn(pub u64);

/// A physical address of the crashed kernel, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysAddr(pub u64);

/// A virtual address of the crashed kernel, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtAddr(pub u64);

/// A position in a file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileOffset(pub u64);

macro_rules! address {
    ($name:ident) => {
        impl $name {
            /// This address plus `bytes`, or `None` past the end of the address space.
            pub fn checked_add(self, bytes: u64) -> Option<Self> {
                self.0.checked_add(bytes).map(Self)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}
address!(PhysAddr);
address!(VirtAddr);
address!(FileOffset);

impl fmt::Display for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The page size of the crashed kernel: a power of two between 4 KiB and 64 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSize {
    shift: u32,
}

impl Default for PageSize {
    fn default() -> Self {
        PageSize::K4
    }
}

impl PageSize {
    /// 4 KiB, the only size of x86_64.
    pub const K4: PageSize = PageSize { shift: 12 };
    /// 16 KiB.
    pub const K16: PageSize = PageSize { shift: 14 };
    /// 64 KiB.
    pub const K64: PageSize = PageSize { shift: 16 };

    /// Accepts what Linux can be built with: 4, 8, 16, 32 or 64 KiB.
    pub fn new(bytes: u64) -> Option<Self> {
        (bytes.is_power_of_two() && (4096..=65536).contains(&bytes)).then(|| PageSize { shift: bytes.trailing_zeros() })
    }

    /// log2 of the size.
    pub fn shift(self) -> u32 {
        self.shift
    }

    /// The size in bytes.
    pub fn bytes(self) -> usize {
        1 << self.shift
    }

    /// The frame that holds `at`.
    pub fn pfn(self, at: PhysAddr) -> Pfn {
        Pfn(at.0 >> self.shift)
    }

    /// The first byte of frame `pfn`, or `None` if the frame lies outside the address space.
    pub fn address(self, pfn: Pfn) -> Option<PhysAddr> {
        pfn.0.checked_mul(1 << self.shift).map(PhysAddr)
    }
}

/// Which kinds of page are left out (makedumpfile's `-d`, 0 to 31).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct DumpLevel(u8);

impl DumpLevel {
    /// Pages of zeros.
    pub const ZERO: u8 = 1;
    /// Cache pages without private data.
    pub const CACHE: u8 = 2;
    /// All cache pages.
    pub const CACHE_PRIVATE: u8 = 4;
    /// Pages of user processes.
    pub const USER: u8 = 8;
    /// Free pages.
    pub const FREE: u8 = 16;

    /// Accepts 0 to 31.
    pub fn new(level: u8) -> Option<Self> {
        (level <= 31).then_some(DumpLevel(level))
    }

    /// Whether all of `bits` are set.
    pub fn has(self, bits: u8) -> bool {
        self.0 & bits == bits
    }

    /// The number as typed.
    pub fn get(self) -> u8 {
        self.0
    }

    /// What either leaves out.
    pub fn with(self, other: Self) -> Self {
        DumpLevel(self.0 | other.0)
    }

    /// What is left of the level when no page can be told from another: zero pages are known by their content.
    pub fn content_only(self) -> Self {
        DumpLevel(self.0 & Self::ZERO)
    }
}

/// `u64` as `usize`, or `None` where it does not fit.
pub(crate) fn to_usize(n: u64) -> Option<usize> {
    usize::try_from(n).ok()
}

/// A little-endian `u64` at `at`, if `bytes` reach that far.
#[inline]
pub(crate) fn le64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

/// A little-endian `u32` at `at`, if `bytes` reach that far.
#[inline]
pub(crate) fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

/// A little-endian `u16` at `at`, if `bytes` reach that far.
#[inline]
pub(crate) fn le16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_le_bytes(*b))
}
