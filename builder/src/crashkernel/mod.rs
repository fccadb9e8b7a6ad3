//! `crashkernel=`: what can be written there, what a kernel makes of it, and what to write by default.
//!
//! In: text of a kernel command line. Out: [`Crashkernel`], which says how much a machine of so much memory reserves.
//! The kernel's own reader (`kernel/crash_reserve.c`) decides what is a value: what it would leave unread is an error
//! here, since it would reserve nothing and say so only in its log.
//!
//! | file | has |
//! |---|---|
//! | `parse.rs` | text to value and back |
//! | `defaults.rs` | what each distribution writes by default |

mod defaults;
mod parse;

pub(crate) use defaults::memory;
pub use defaults::{Arch, Facts, default_value};

use anyhow::bail;
use std::fmt;

/// What is reserved below 4 GiB beside [`Value::High`] where nothing says how much: more on x86 than elsewhere.
const LOW: u64 = if cfg!(target_arch = "x86_64") { 256 << 20 } else { 128 << 20 };

/// Everything that one command line says about it: each of these is one word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crashkernel {
    /// The words in their order. The kernel takes the last one of each kind.
    pub words: Vec<Value>,
}

/// What one word says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `auto`: a size that someone has to put in its place. Only old kernels of distributions know it.
    Auto,
    /// `X` or `X@Y`.
    Size {
        /// How much.
        size: u64,
        /// Where, if that is not left to the kernel.
        at: Option<u64>,
    },
    /// `A-B:X,…`, with or without `@Y`.
    Ranges {
        /// The ranges in their order; the first that fits counts.
        ranges: Vec<Range>,
        /// Where, if that is not left to the kernel.
        at: Option<u64>,
    },
    /// `X,high`: above 4 GiB if there is memory.
    High(u64),
    /// `X,low`: what is reserved below 4 GiB beside [`Value::High`]; 0 for nothing.
    Low(u64),
    /// `X,cma`: beside another, memory that the running system uses until it crashes.
    Cma(u64),
}

/// How much is reserved on machines of some size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The least memory of such a machine.
    pub from: u64,
    /// Where the next kind of machine begins.
    pub to: Option<u64>,
    /// How much is reserved.
    pub size: u64,
}

impl Crashkernel {
    /// A plain size.
    pub fn of(bytes: u64) -> Crashkernel {
        Crashkernel { words: vec![Value::Size { size: bytes, at: None }] }
    }

    /// How much a kernel reserves for good on a machine with so much memory; memory for `cma` is not held back. `None` if
    /// the kernel cannot tell: `auto`.
    pub fn reserves(&self, memory: u64) -> Option<u64> {
        // What firmware keeps for itself is missing from what the kernel counts, so it rounds up before it looks.
        let memory = memory.checked_next_multiple_of(128 << 20).unwrap_or(memory);
        let (mut main, mut high, mut low) = (None, None, None);
        for word in &self.words {
            match word {
                Value::Auto => return None,
                Value::Size { size, .. } => main = Some(*size),
                Value::Ranges { ranges, .. } => {
                    let fits = |range: &&Range| range.from <= memory && range.to.is_none_or(|to| memory < to);
                    main = Some(ranges.iter().find(fits).map_or(0, |range| range.size));
                }
                Value::High(size) => high = Some(*size),
                Value::Low(size) => low = Some(*size),
                Value::Cma(_) => {}
            }
        }
        // Only where there is memory above 4 GiB does one below come along, be it asked for or not.
        let low = if memory > 4 << 30 { low.unwrap_or(LOW) } else { 0 };
        // A word without a place wins over those with one.
        Some(main.unwrap_or_else(|| high.map_or(0, |high| high.saturating_add(low))))
    }

    /// That a machine with so much memory can make something of it; 0 if that is not known.
    ///
    /// # Errors
    /// A size that nothing fits into, or that leaves the running system nothing.
    pub fn check(&self, memory: u64) -> anyhow::Result<()> {
        let sizes = self.words.iter().flat_map(|word| match word {
            Value::Auto | Value::Low(0) => Vec::new(),
            Value::Size { size, .. } | Value::High(size) | Value::Low(size) | Value::Cma(size) => vec![*size],
            Value::Ranges { ranges, .. } => ranges.iter().map(|range| range.size).filter(|size| *size > 0).collect(),
        });
        if let Some(size) = sizes.into_iter().find(|size| *size < 1 << 20) {
            let unit = if size < 1 << 10 { "bytes" } else { "bytes, less than 1M" };
            bail!("crashkernel={self} reserves {size} {unit}, into which no kernel fits; write a size such as 256M");
        }
        match self.reserves(memory) {
            Some(reserved) if memory > 0 && reserved >= memory => bail!(
                "crashkernel={self} reserves {} MiB, and this machine has {}; write a size such as 256M",
                mib(reserved),
                mib(memory)
            ),
            _ => Ok(()),
        }
    }

    /// The words as they stand on a command line.
    pub fn on_command_line(&self) -> Vec<String> {
        self.words.iter().map(|word| format!("crashkernel={word}")).collect()
    }
}

/// `256M`, `1G-4G:160M,4G-:256M` or `512M,high crashkernel=72M,low`: what follows `crashkernel=`.
impl fmt::Display for Crashkernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.words.iter().map(Value::to_string).collect();
        f.write_str(&words.join(" crashkernel="))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |at: &Option<u64>| at.map(|at| format!("@{}", Bytes(at))).unwrap_or_default();
        match self {
            Value::Auto => f.write_str("auto"),
            Value::Size { size, at } => write!(f, "{}{}", Bytes(*size), place(at)),
            Value::Ranges { ranges, at } => {
                let ranges: Vec<String> = ranges.iter().map(Range::to_string).collect();
                write!(f, "{}{}", ranges.join(","), place(at))
            }
            Value::High(size) => write!(f, "{},high", Bytes(*size)),
            Value::Low(size) => write!(f, "{},low", Bytes(*size)),
            Value::Cma(size) => write!(f, "{},cma", Bytes(*size)),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = self.to.map(|to| Bytes(to).to_string()).unwrap_or_default();
        write!(f, "{}-{to}:{}", Bytes(self.from), Bytes(self.size))
    }
}

/// A number of bytes with the largest unit that it is a multiple of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("E", 60), ("P", 50), ("T", 40), ("G", 30), ("M", 20), ("K", 10)];
        match units.iter().find(|(_, shift)| self.0 > 0 && self.0.trailing_zeros() >= *shift) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Bytes as whole MiB, rounded up.
pub fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_reserved_is_what_the_kernel_would_reserve() {
        for (text, memory, expected) in [
            ("256M", GIB, Some(256 * MIB)),
            ("0x10000000@16M", GIB, Some(256 * MIB)),
            ("1G-4G:160M,4G-64G:192M,64G-:256M", GIB - (128 << 20), Some(0)),
            ("1G-4G:160M,4G-64G:192M,64G-:256M", GIB - 1, Some(160 * MIB)),
            ("2G-64G:256M,64G-:512M", 2_014_000 << 10, Some(256 * MIB)),
            ("1G-4G:160M,4G-64G:192M,64G-:256M", GIB, Some(160 * MIB)),
            ("1G-4G:160M,4G-64G:192M,64G-:256M", 4 * GIB, Some(192 * MIB)),
            ("1G-4G:160M,4G-64G:192M,64G-:256M", 1 << 45, Some(256 * MIB)),
            ("512M,high crashkernel=72M,low", 8 * GIB, Some(584 * MIB)),
            ("512M,high", 8 * GIB, Some(512 * MIB + LOW)),
            ("512M,high crashkernel=0,low", 8 * GIB, Some(512 * MIB)),
            ("512M,high crashkernel=72M,low", 3 * GIB, Some(512 * MIB)),
            ("128M crashkernel=1G,cma", 8 * GIB, Some(128 * MIB)),
            ("128M crashkernel=192M", 8 * GIB, Some(192 * MIB)),
            ("auto", 8 * GIB, None),
        ] {
            let value: Crashkernel = text.parse().unwrap();
            assert_eq!(value.reserves(memory), expected, "{text} with {memory}");
        }
    }

    #[test]
    fn what_no_machine_can_make_anything_of_is_refused_with_a_remedy() {
        for (text, memory, error) in [
            ("256", 8 * GIB, Some("reserves 256 bytes, into which no kernel fits; write a size such as 256M")),
            ("64K", 8 * GIB, Some("less than 1M")),
            ("1G-:64K", 8 * GIB, Some("less than 1M")),
            ("999G", 8 * GIB, Some("reserves 1022976 MiB, and this machine has 8192; write a size such as 256M")),
            ("7G,high", 7 * GIB, Some("and this machine has 7168")),
            ("999G", 0, None),
            ("1G-:0", 8 * GIB, None),
            ("512M,high crashkernel=0,low", 8 * GIB, None),
            ("512M,high crashkernel=4K,low", 8 * GIB, Some("less than 1M")),
            ("1G-4G:160M,4T-:64G", 8 * GIB, None),
            ("256M", 8 * GIB, None),
            ("auto", 8 * GIB, None),
        ] {
            let said = text.parse::<Crashkernel>().unwrap().check(memory).err().map(|error| error.to_string());
            assert_eq!(said.is_some(), error.is_some(), "{text}: {said:?}");
            assert!(said.unwrap_or_default().contains(error.unwrap_or_default()), "{text}");
        }
    }

    #[test]
    fn sizes_have_the_largest_unit_that_tells_them_exactly() {
        for (bytes, text) in [(0, "0"), (1, "1"), (1536, "1536"), (1 << 20, "1M"), (3 << 29, "1536M"), (1 << 50, "1P")]
        {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
