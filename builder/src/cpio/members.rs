//! The compressed parts of an image that is there already.
//!
//! In: an older image of the same version of this program, and the entries of an archive. Out: the compressed bytes of
//! the part that holds the same, entry by entry. May surprise: nothing is believed; an older image that is damaged has
//! nothing that is the same.

use super::layout::{HEADER, TRAILER, padding};
use super::read::{Archive, Part};
use super::write::Record;
use crate::unpack::Codec;

/// An image and what is in it.
#[derive(Clone, Copy, Debug)]
pub struct Members<'a> {
    /// Its bytes.
    pub image: &'a [u8],
    /// The same, read with the content of everything.
    pub archive: &'a Archive,
}

impl<'a> Members<'a> {
    /// The compressed bytes of these entries.
    pub(super) fn find(&self, codec: Codec, records: &[Record<'_>]) -> Option<&'a [u8]> {
        let holds = |part: &&Part| {
            let entries = self.archive.entries.get(part.entries.clone()).unwrap_or_default();
            let mut pairs = entries.iter().zip(records);
            part.codec == Some(codec)
                && entries.len() == records.len()
                && pairs.all(|(entry, Record { header, name, data })| {
                    let content = if entry.header.filesize == 0 { &[] } else { self.archive.data(entry) };
                    entry.header == *header && entry.name == *name && content == *data
                })
                && part.unpacked == length(records)
        };
        let part = self.archive.parts.iter().find(holds)?;
        self.image.get(part.place.clone())
    }
}

/// What an archive of these entries comes to.
fn length(records: &[Record<'_>]) -> u64 {
    let padded = |bytes: usize| bytes + padding(bytes);
    let record = |name: usize, data: usize| (padded(HEADER + name + 1) + padded(data)) as u64;
    records.iter().map(|Record { name, data, .. }| record(name.len(), data.len())).sum::<u64>()
        + record(TRAILER.len(), 0)
}
