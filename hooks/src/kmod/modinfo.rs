//! What a module says about itself: its `.modinfo` section.
//!
//! In: an ELF object. Out: `key=value` strings. Only the section headers are read; a damaged file is an error.

use anyhow::{Context, bail};
use goblin::container::{Container, Ctx};
use goblin::elf::{Elf, SectionHeader};

/// The `key=value` strings of a module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModInfo(Vec<(String, String)>);

impl ModInfo {
    /// Reads the section out of an uncompressed module.
    ///
    /// # Errors
    /// The bytes are no ELF object or the section is missing.
    pub fn read(object: &[u8]) -> anyhow::Result<ModInfo> {
        let Some(info) = section(object, ".modinfo")? else { bail!("it has no .modinfo section") };
        let text = String::from_utf8_lossy(info);
        let pairs = text.split('\0').filter_map(|entry| entry.split_once('='));
        Ok(ModInfo(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()))
    }

    /// Everything that it says, in order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// All values of a key.
    pub fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// What a section of an ELF object holds.
///
/// # Errors
/// The bytes are no ELF object, or its section headers are damaged.
pub fn section<'a>(object: &'a [u8], name: &str) -> anyhow::Result<Option<&'a [u8]>> {
    let header = Elf::parse_header(object).context("it is not an ELF object")?;
    let container = header.container().unwrap_or(Container::Big);
    let ctx = Ctx::new(container, header.endianness()?);
    let sections = SectionHeader::parse(object, usize::try_from(header.e_shoff)?, header.e_shnum.into(), ctx)
        .context("its section headers are damaged")?;
    let content = |section: &SectionHeader| section.file_range().and_then(|range| object.get(range));
    let names = sections.get(usize::from(header.e_shstrndx)).and_then(content).unwrap_or_default();
    let is_named = |section: &&SectionHeader| {
        let rest = names.get(section.sh_name..).and_then(|rest| rest.strip_prefix(name.as_bytes()));
        rest.is_some_and(|rest| rest.first() == Some(&0))
    };
    Ok(sections.iter().find(is_named).and_then(content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::object;
    use proptest::prelude::*;

    #[test]
    fn a_key_may_have_many_values() {
        let info = ModInfo::read(&object(&["vermagic=6.1 SMP", "firmware=a", "firmware=b=c"])).unwrap();
        assert_eq!(info.values("vermagic").collect::<Vec<_>>(), ["6.1 SMP"]);
        assert_eq!(info.values("firmware").collect::<Vec<_>>(), ["a", "b=c"]);
    }

    proptest! {
        #[test]
        fn damaged_objects_end_in_a_result(at in 0usize..400, value: u8, cut in 0usize..400) {
            let mut object = object(&["vermagic=6.1", "depends="]);
            if let Some(byte) = object.get_mut(at) { *byte = value; }
            object.truncate(cut.max(1));
            let _ = ModInfo::read(&object);
        }
    }
}
