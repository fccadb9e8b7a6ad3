//! The kernel's own table of symbols. In: where vmcoreinfo says that it is (since 6.0, f09bddbd8661 "vmcoreinfo: add
//! kallsyms_num_syms symbol"). Out: the addresses of a few symbols that vmcoreinfo does not name.
//! May surprise: how an offset becomes an address depends on the kernel's configuration, which nobody tells; of the ways
//! there are, the one is right by which a symbol that vmcoreinfo names as well is where vmcoreinfo says.
//!
//! ```text
//!   kallsyms_names:  length, or 7 bits of it and 7 more │ that many tokens │ next symbol …
//!   token:           kallsyms_token_index[token] ─▶ text in kallsyms_token_table, up to its NUL
//!   all tokens:      one letter for the type, then the name
//!   kallsyms_offsets[number of the symbol] and kallsyms_relative_base ─▶ its address
//! ```

use crate::paging::{Virtual, WalkError};
use crate::units::VirtAddr;
use crate::vmcoreinfo::Facts;

/// Kernels have some 200,000.
const MOST_SYMBOLS: u32 = 1 << 22;
/// All names together; kernels have some 3 MiB.
const MOST_BYTES: u64 = 64 << 20;
/// `KSYM_NAME_LEN`, and room for more.
const LONGEST: usize = 1024;
/// A symbol that vmcoreinfo names in every kernel.
const KNOWN: &str = "init_uts_ns";

/// Why the table does not answer.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The kernel does not say where it is.
    #[error("vmcoreinfo does not say where the kernel's symbols are (no {0}; kernels do since 6.0)")]
    Untold(&'static str),
    /// It cannot be read.
    #[error("unable to read the kernel's symbols")]
    Unread(#[from] WalkError),
    /// It is damaged, or of another make.
    #[error("the kernel's symbols make no sense: {0}")]
    Nonsense(&'static str),
}

/// The addresses of `wanted`, one for each; `None` for a symbol that the kernel does not have.
pub fn symbols<const N: usize>(
    facts: &Facts,
    mem: &mut Virtual<'_>,
    wanted: [&str; N],
) -> Result<[Option<VirtAddr>; N], TableError> {
    let place = |key: &'static str| facts.symbol(key).ok_or(TableError::Untold(key));
    let known = place(KNOWN)?;
    let count = u32_at(mem, place("kallsyms_num_syms")?)?;
    if count > MOST_SYMBOLS {
        return Err(TableError::Nonsense("there are too many"));
    }
    let tokens = Tokens::read(mem, place("kallsyms_token_index")?, place("kallsyms_token_table")?)?;
    let mut names = Names { at: place("kallsyms_names")?, read: 0 };
    let (mut anchor, mut found) = (None, [None; N]);
    let mut name = Vec::with_capacity(LONGEST);
    for number in 0..count {
        names.next(mem, &tokens, &mut name)?;
        // The type comes first.
        let Some(text) = name.get(1..) else { return Err(TableError::Nonsense("one has no name")) };
        if text == KNOWN.as_bytes() {
            anchor.get_or_insert(number);
        }
        for (found, _) in found.iter_mut().zip(wanted).filter(|(_, wanted)| text == wanted.as_bytes()) {
            found.get_or_insert(number);
        }
        if anchor.is_some() && found.iter().all(Option::is_some) {
            break;
        }
    }
    let anchor = anchor.ok_or(TableError::Nonsense("init_uts_ns is not among them"))?;
    let ways = ways(facts, mem)?;
    for way in ways {
        if way.address(mem, anchor)? == Some(known) {
            let mut addresses = [None; N];
            for (address, number) in addresses.iter_mut().zip(found) {
                *address = number.map(|number| way.address(mem, number)).transpose()?.flatten();
            }
            return Ok(addresses);
        }
    }
    Err(TableError::Nonsense("init_uts_ns is not where vmcoreinfo says"))
}

/// A way from the number of a symbol to its address.
enum Way {
    /// `kallsyms_addresses` has it.
    Absolute(VirtAddr),
    /// The offset is added to the base.
    Relative { offsets: VirtAddr, base: u64 },
    /// As before, if it is negative; others are the addresses of per-cpu variables (CONFIG_KALLSYMS_ABSOLUTE_PERCPU).
    AbsolutePercpu { offsets: VirtAddr, base: u64 },
}

fn ways(facts: &Facts, mem: &mut Virtual<'_>) -> Result<Vec<Way>, TableError> {
    if let Some(addresses) = facts.symbol("kallsyms_addresses") {
        return Ok(vec![Way::Absolute(addresses)]);
    }
    let place = |key: &'static str| facts.symbol(key).ok_or(TableError::Untold(key));
    let (offsets, base) = (place("kallsyms_offsets")?, mem.u64(place("kallsyms_relative_base")?)?);
    Ok(vec![Way::AbsolutePercpu { offsets, base }, Way::Relative { offsets, base }])
}

impl Way {
    /// `None` if there is no such address.
    fn address(&self, mem: &mut Virtual<'_>, number: u32) -> Result<Option<VirtAddr>, TableError> {
        let entry = |table: VirtAddr, size: u64| {
            table.checked_add(u64::from(number) * size).ok_or(TableError::Nonsense("they are at the end of memory"))
        };
        let address = match self {
            Way::Absolute(table) => Some(mem.u64(entry(*table, 8)?)?),
            Way::Relative { offsets, base } => base.checked_add(u64::from(u32_at(mem, entry(*offsets, 4)?)?)),
            Way::AbsolutePercpu { offsets, base } => {
                match u32_at(mem, entry(*offsets, 4)?)?.cast_signed() {
                    // The base itself is -1.
                    offset @ ..0 => base.checked_add(u64::from(offset.unsigned_abs()) - 1),
                    offset => Some(u64::from(offset.unsigned_abs())),
                }
            }
        };
        Ok(address.map(VirtAddr))
    }
}

/// What each of the 256 tokens stands for.
struct Tokens {
    table: Vec<u8>,
    starts: [usize; 256],
}

impl Tokens {
    fn read(mem: &mut Virtual<'_>, index: VirtAddr, table: VirtAddr) -> Result<Tokens, TableError> {
        let mut bytes = [0; 512];
        mem.read(index, &mut bytes)?;
        let mut starts = [0; 256];
        for (start, pair) in starts.iter_mut().zip(bytes.as_chunks().0) {
            *start = usize::from(u16::from_le_bytes(*pair));
        }
        // The last one starts last, and what is behind the table does no harm.
        let mut content = vec![0; starts.iter().max().map_or(0, |last| last + 64)];
        mem.read(table, &mut content)?;
        Ok(Tokens { table: content, starts })
    }

    fn text(&self, token: u8) -> &[u8] {
        let rest = self.starts.get(usize::from(token)).and_then(|start| self.table.get(*start..)).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

/// The names, one after the other.
struct Names {
    at: VirtAddr,
    read: u64,
}

impl Names {
    /// Puts the next one into `name`, its type before it.
    fn next(&mut self, mem: &mut Virtual<'_>, tokens: &Tokens, name: &mut Vec<u8>) -> Result<(), TableError> {
        let mut length = usize::from(self.byte(mem)?);
        if length & 0x80 != 0 {
            length = length & 0x7f | usize::from(self.byte(mem)?) << 7;
        }
        let mut packed = [0; LONGEST];
        let packed = packed.get_mut(..length).ok_or(TableError::Nonsense("one is too long"))?;
        mem.read(self.forth(length)?, packed)?;
        name.clear();
        for token in packed {
            name.extend_from_slice(tokens.text(*token));
            if name.len() > LONGEST {
                return Err(TableError::Nonsense("one is too long"));
            }
        }
        Ok(())
    }

    fn byte(&mut self, mem: &mut Virtual<'_>) -> Result<u8, TableError> {
        let mut byte = [0];
        mem.read(self.forth(1)?, &mut byte)?;
        Ok(byte[0])
    }

    /// Where the next `length` bytes are.
    fn forth(&mut self, length: usize) -> Result<VirtAddr, TableError> {
        let here = self.at.checked_add(self.read).ok_or(TableError::Nonsense("they are at the end of memory"))?;
        self.read += length as u64;
        if self.read > MOST_BYTES {
            return Err(TableError::Nonsense("their names are too long"));
        }
        Ok(here)
    }
}

fn u32_at(mem: &mut Virtual<'_>, at: VirtAddr) -> Result<u32, TableError> {
    let mut bytes = [0; 4];
    mem.read(at, &mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}
