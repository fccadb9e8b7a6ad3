//! vmcoreinfo: what the crashed kernel says about itself, as text. In: `KEY=value` lines. Out: typed answers.
//! May surprise: a key that is missing, zero or unreadable is `None`, and `None` always means "do not exclude";
//! numbers are mostly signed decimal, but a few are hexadecimal, and which ones differs between kernels.
//!
//! The keys are documented in the kernel's Documentation/admin-guide/kdump/vmcoreinfo.rst.

use std::collections::BTreeMap;

use crate::units::VirtAddr;

/// A note is one page in every kernel; more than this is not read.
const MAX_TEXT: usize = 1 << 20;

/// The parsed text.
#[derive(Debug, Default, Clone)]
pub struct Facts {
    values: BTreeMap<String, String>,
}

impl Facts {
    /// Reads `text`, which may hold any bytes. The first of two equal keys wins.
    pub fn parse(text: &[u8]) -> Facts {
        let mut facts = Facts::default();
        for line in text[..text.len().min(MAX_TEXT)].split(|b| *b == b'\n' || *b == 0) {
            let line = String::from_utf8_lossy(line);
            if let Some((key, value)) = line.split_once('=') {
                facts.values.entry(key.trim().into()).or_insert_with(|| value.trim().into());
            }
        }
        facts
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The text behind `key`, such as `OSRELEASE`.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// A plain decimal key, such as `PAGESIZE` or `CRASHTIME`.
    pub fn plain(&self, key: &str) -> Option<u64> {
        self.text(key)?.parse().ok()
    }

    /// The run-time address of a symbol: with KASLR already in it.
    pub fn symbol(&self, name: &str) -> Option<VirtAddr> {
        let value = self.text(&format!("SYMBOL({name})"))?;
        u64::from_str_radix(value.trim_start_matches("0x"), 16).ok().filter(|a| *a != 0).map(VirtAddr)
    }

    /// The size of a type in bytes, 1 to 65535.
    pub fn size(&self, name: &str) -> Option<usize> {
        self.small(&format!("SIZE({name})")).filter(|n| *n > 0)
    }

    /// The offset of a member in bytes, below 64 KiB.
    pub fn offset(&self, member: &str) -> Option<usize> {
        self.small(&format!("OFFSET({member})"))
    }

    /// The number of elements of an array.
    pub fn length(&self, name: &str) -> Option<u64> {
        self.plain(&format!("LENGTH({name})"))
    }

    /// A constant: decimal, or hexadecimal with or without prefix where it does not read as decimal.
    pub fn number(&self, name: &str) -> Option<i64> {
        let value = self.text(&format!("NUMBER({name})"))?;
        let hex = |v: &str| u64::from_str_radix(v.trim_start_matches("0x"), 16).ok().map(u64::cast_signed);
        value.parse().ok().or_else(|| hex(value))
    }

    /// A constant that is the position of a flag, as a mask.
    pub fn flag(&self, name: &str) -> Option<u64> {
        let bit = u32::try_from(self.number(name)?).ok()?;
        1u64.checked_shl(bit)
    }

    fn small(&self, key: &str) -> Option<usize> {
        self.text(key)?.parse::<u16>().ok().map(usize::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_kind_of_value_is_read_in_its_own_notation() {
        let facts = Facts::parse(
            b"OSRELEASE=6.1.0\nSYMBOL(prb)=ffffffffae2622c0\nSIZE(page)=64\nOFFSET(page.flags)=0\nLENGTH(x)=11\n\
              NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-129\nNUMBER(VMALLOC_START)=0xff7233d180000000\nNUMBER(PG_lru)=4\n",
        );
        assert_eq!(facts.text("OSRELEASE"), Some("6.1.0"));
        assert_eq!(facts.symbol("prb"), Some(VirtAddr(0xffff_ffff_ae26_22c0)));
        assert_eq!(facts.size("page"), Some(64));
        assert_eq!(facts.offset("page.flags"), Some(0));
        assert_eq!(facts.length("x"), Some(11));
        assert_eq!(facts.number("PAGE_BUDDY_MAPCOUNT_VALUE"), Some(-129));
        assert_eq!(facts.number("VMALLOC_START").map(i64::cast_unsigned), Some(0xff72_33d1_8000_0000));
        assert_eq!(facts.flag("PG_lru"), Some(16));
    }

    #[test]
    fn what_makes_no_sense_is_missing() {
        let facts = Facts::parse(
            b"SYMBOL(prb)=0\nSIZE(page)=0\nOFFSET(a.b)=99999999\nNUMBER(PG_lru)=-4\nNUMBER(PG_big)=64\n=\n",
        );
        assert_eq!(facts.symbol("prb"), None);
        assert_eq!(facts.size("page"), None);
        assert_eq!(facts.offset("a.b"), None);
        assert_eq!(facts.flag("PG_lru"), None);
        assert_eq!(facts.flag("PG_big"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            let facts = Facts::parse(&bytes);
            let _ = (facts.number("x"), facts.symbol("x"));
        }
    }
}
