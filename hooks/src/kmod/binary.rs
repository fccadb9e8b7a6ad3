//! depmod's binary indexes, `modules.*.bin`: a trie whose leaves are values.
//!
//! In: the bytes of a file. Out: every key with its values, lowest priority number first. Layout: big-endian words;
//! magic, version, then the offset of the root. The top bits of an offset say what its node holds: a prefix, children
//! (first and last character, then an offset for each), values (a count, then a number and a string each). May surprise:
//! the whole trie is read at once, where kmod searches it; an index is read once and asked often. A file is not trusted:
//! no node is read twice, and keys, strings and the whole result are bounded.

use anyhow::{Context, bail, ensure};
use std::collections::BTreeSet;

const MAGIC: u32 = 0xB007_F457;
/// The major version is in the upper half; the minor one may grow.
const MAJOR: u32 = 2;

const HAS_PREFIX: u32 = 0x8000_0000;
const HAS_VALUES: u32 = 0x4000_0000;
const HAS_CHILDREN: u32 = 0x2000_0000;
const OFFSET: u32 = 0x0FFF_FFFF;

/// No alias is longer.
const LONGEST_KEY: usize = 4096;
/// What keys and values may come to; those of a full distribution kernel are 4 MiB.
const LARGEST: usize = 64 << 20;

/// One value of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What is looked up: a module name or an alias pattern.
    pub key: String,
    /// The place of the value's module in `modules.order`: smaller comes first.
    pub priority: u32,
    /// What is found: a module name or a line of `modules.dep`.
    pub value: String,
}

/// Reads a whole index.
///
/// # Errors
/// The file is damaged, or it is no index.
pub fn entries(bytes: &[u8]) -> anyhow::Result<Vec<Entry>> {
    let mut header = Cursor { bytes, at: 0 };
    if header.word().ok() != Some(MAGIC) {
        bail!("it is not an index of depmod");
    }
    let version = header.word()?;
    ensure!(version >> 16 == MAJOR, "it is of version {}, known is {MAJOR}", version >> 16);
    let root = header.word()?;
    let mut walk = Walk { bytes, entries: Vec::new(), seen: BTreeSet::new(), budget: LARGEST };
    let mut pending = vec![(root, Vec::new())];
    while let Some((node, key)) = pending.pop() {
        walk.node(node, key, &mut pending)?;
    }
    walk.entries.sort_by_key(|entry| entry.priority);
    Ok(walk.entries)
}

struct Walk<'a> {
    bytes: &'a [u8],
    entries: Vec<Entry>,
    /// Nodes that have been read: a trie has no way back.
    seen: BTreeSet<u32>,
    /// How many more bytes may be taken.
    budget: usize,
}

impl Walk<'_> {
    fn node(&mut self, node: u32, mut key: Vec<u8>, pending: &mut Vec<(u32, Vec<u8>)>) -> anyhow::Result<()> {
        if node & OFFSET == 0 {
            return Ok(());
        }
        ensure!(self.seen.insert(node & OFFSET), "node {:#x} is reached twice", node & OFFSET);
        let mut cursor = Cursor { bytes: self.bytes, at: (node & OFFSET) as usize };
        if node & HAS_PREFIX != 0 {
            key.extend(cursor.string()?);
            ensure!(key.len() <= LONGEST_KEY, "a key is longer than {LONGEST_KEY} bytes");
            self.spend(key.len())?;
        }
        if node & HAS_CHILDREN != 0 {
            let (first, last) = (cursor.byte()?, cursor.byte()?);
            // The stack is taken from its end: the smallest character next.
            let mut children = Vec::new();
            for character in first..=last {
                let child = cursor.word()?;
                if child & OFFSET != 0 {
                    let mut longer = key.clone();
                    longer.push(character);
                    self.spend(longer.len())?;
                    children.push((child, longer));
                }
            }
            pending.extend(children.into_iter().rev());
        }
        if node & HAS_VALUES != 0 {
            for _ in 0..cursor.word()? {
                let priority = cursor.word()?;
                let value = cursor.string()?;
                self.spend(key.len() + value.len() + size_of::<Entry>())?;
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                self.entries.push(Entry { key: text(&key), priority, value: text(value) });
            }
        }
        Ok(())
    }

    fn spend(&mut self, bytes: usize) -> anyhow::Result<()> {
        let left = self.budget.checked_sub(bytes);
        self.budget = left.with_context(|| format!("it comes to more than {} MiB", LARGEST >> 20))?;
        Ok(())
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> anyhow::Result<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.saturating_add(length));
        self.at = self.at.saturating_add(length);
        taken.with_context(|| format!("it ends before {:#x}", self.at))
    }

    fn byte(&mut self) -> anyhow::Result<u8> {
        Ok(self.take(1)?.first().copied().unwrap_or_default())
    }

    fn word(&mut self) -> anyhow::Result<u32> {
        Ok(self.take(4)?.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)))
    }

    fn string(&mut self) -> anyhow::Result<&'a [u8]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let end = rest.iter().take(LARGEST).position(|byte| *byte == 0);
        let string = self.take(end.context("a string has no end")?)?;
        self.at += 1;
        Ok(string)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Key, priority, value.
    type Given<'a> = (&'a [u8], u32, &'a str);

    /// Writes an index as depmod lays it out: prefixes only above leaves and branches, children before values.
    pub(in super::super) fn write(entries: &[(&str, u32, &str)]) -> Vec<u8> {
        let mut bytes = vec![0; 12];
        let all: Vec<Given<'_>> = entries.iter().map(|(key, at, value)| (key.as_bytes(), *at, *value)).collect();
        let root = node(&mut bytes, &all);
        for (place, word) in [(0, MAGIC), (4, 0x0002_0001), (8, root)] {
            bytes.splice(place..place + 4, word.to_be_bytes());
        }
        bytes
    }

    fn node(bytes: &mut Vec<u8>, entries: &[Given<'_>]) -> u32 {
        let shared = |one: &[u8], other: &[u8]| one.iter().zip(other).take_while(|(a, b)| a == b).count();
        let first = entries.first().map_or(&[][..], |entry| entry.0);
        let prefix = entries.iter().map(|entry| shared(first, entry.0)).min().unwrap_or(0);
        let mut children: BTreeMap<u8, Vec<Given<'_>>> = BTreeMap::new();
        let mut values = Vec::new();
        for (key, priority, value) in entries {
            match key[prefix..].split_first() {
                Some((character, rest)) => children.entry(*character).or_default().push((rest, *priority, value)),
                None => values.push((*priority, *value)),
            }
        }
        let offsets: BTreeMap<u8, u32> =
            children.iter().map(|(character, below)| (*character, node(bytes, below))).collect();
        let mut flags = u32::try_from(bytes.len()).unwrap();
        if prefix > 0 {
            flags |= HAS_PREFIX;
            bytes.extend(&first[..prefix]);
            bytes.push(0);
        }
        if let (Some((low, _)), Some((high, _))) = (offsets.first_key_value(), offsets.last_key_value()) {
            flags |= HAS_CHILDREN;
            bytes.extend([*low, *high]);
            for character in *low..=*high {
                bytes.extend(offsets.get(&character).unwrap_or(&0).to_be_bytes());
            }
        }
        if !values.is_empty() {
            flags |= HAS_VALUES;
            bytes.extend(u32::try_from(values.len()).unwrap().to_be_bytes());
            for (priority, value) in values {
                bytes.extend(priority.to_be_bytes());
                bytes.extend(value.bytes().chain([0]));
            }
        }
        flags
    }

    #[test]
    fn values_come_in_the_order_of_their_priority() {
        let bytes = write(&[("pci:v1*", 7, "late"), ("pci:v1*", 2, "early"), ("usb:[0-9]", 5, "middle")]);
        let found: Vec<_> = entries(&bytes).unwrap().into_iter().map(|entry| (entry.key, entry.value)).collect();
        let expected = [("pci:v1*", "early"), ("usb:[0-9]", "middle"), ("pci:v1*", "late")];
        assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn what_is_no_index_is_said_to_be_none() {
        assert!(entries(b"").is_err() && entries(b"alias a b\n").is_err());
        let mut newer = write(&[("a", 1, "b")]);
        newer[5] = 3;
        assert!(entries(&newer).unwrap_err().to_string().contains("version 3"));
    }

    #[test]
    fn a_way_back_up_the_trie_is_damage_not_a_circle() {
        let mut bytes = write(&[("ab", 1, "x"), ("ac", 1, "y")]);
        // The root's first child becomes the root.
        let root: [u8; 4] = bytes[8..12].try_into().unwrap();
        let children = (u32::from_be_bytes(root) & OFFSET) as usize + 2 + 2;
        bytes.splice(children..children + 4, root);
        assert!(entries(&bytes).unwrap_err().to_string().contains("twice"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(given in prop::collection::vec(("[a-c*\\[\\]?-]{0,6}", 0u32..9, "[a-z]{1,5}"), 0..20)) {
            let borrowed: Vec<_> = given.iter().map(|(key, at, value)| (key.as_str(), *at, value.as_str())).collect();
            let mut expected: Vec<_> = given.iter().map(|(key, at, value)| (*at, key.clone(), value.clone())).collect();
            let mut found: Vec<_> = entries(&write(&borrowed)).unwrap().into_iter().map(|it| (it.priority, it.key, it.value)).collect();
            prop_assert!(found.is_sorted_by_key(|entry| entry.0));
            expected.sort();
            found.sort();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn damage_ends_in_a_result(at in 0usize..200, value: u8, cut in 0usize..200) {
            let mut bytes = write(&[("pci:v1*", 7, "late"), ("pci:v2*", 2, "early"), ("usb:[0-9]", 5, "middle")]);
            if let Some(byte) = bytes.get_mut(at) { *byte = value; }
            bytes.truncate(cut.max(4));
            let _ = entries(&bytes);
        }
    }
}
