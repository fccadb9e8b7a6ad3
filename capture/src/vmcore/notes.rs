//! Notes. In: the bytes of the PT_NOTEs. Out: how many CPUs left their registers, and where vmcoreinfo lies.
//! May surprise: the kernel zeroes the note of a CPU that did not answer, so a run of zeros is skipped, not an end;
//! notes are aligned to 4 bytes whatever `p_align` says.

use std::ops::Range;

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::note::{NT_PRSTATUS, NoteDataIterator};

use crate::units::le32;

/// What the notes hold.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Notes {
    /// Number of NT_PRSTATUS notes: CPUs whose registers were saved.
    pub cpus: u32,
    /// The vmcoreinfo text, as a range of the note bytes.
    pub vmcoreinfo: Option<Range<usize>>,
}

/// Walks `bytes`; stops at the first note that does not fit.
pub fn parse(bytes: &[u8]) -> Notes {
    let ctx = Ctx::new(Container::Big, Endian::Little);
    let mut found = Notes::default();
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|r| r.len() >= 12) {
        let (Some(namesz), Some(descsz)) = (le32(rest, 0), le32(rest, 4)) else { break };
        // Every note in a vmcore has a name.
        if namesz == 0 {
            at += 4;
            continue;
        }
        // Goblin reads name and description; a name it cannot read as text is skipped by its sizes alone.
        let desc_at = 12 + (namesz as usize).next_multiple_of(4);
        let Some(desc_end) = desc_at.checked_add(descsz as usize).filter(|end| *end <= rest.len()) else { break };
        let mut one = NoteDataIterator { data: rest, size: desc_end, offset: 0, ctx: (4, ctx) };
        if let Some(Ok(note)) = one.next() {
            match (note.name, note.n_type) {
                ("CORE", NT_PRSTATUS) => found.cpus = found.cpus.saturating_add(1),
                ("VMCOREINFO", _) if found.vmcoreinfo.is_none() && descsz > 0 => {
                    found.vmcoreinfo = Some(at + desc_at..at + desc_end);
                }
                _ => {}
            }
        }
        at += desc_end.next_multiple_of(4);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn note(name: &str, kind: u32, desc: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend((name.len() as u32 + 1).to_le_bytes());
        out.extend((desc.len() as u32).to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend(name.as_bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend(desc);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    #[test]
    fn vmcoreinfo_is_found_behind_the_note_of_a_cpu_that_did_not_answer() {
        let mut bytes = note("CORE", NT_PRSTATUS, &[1; 336]);
        bytes.extend([0; 356]);
        bytes.extend(note("CORE", NT_PRSTATUS, &[2; 336]));
        bytes.extend(note("VMCOREINFO", 0, b"OSRELEASE=6\n"));
        let found = parse(&bytes);
        assert_eq!(found.cpus, 2);
        assert_eq!(&bytes[found.vmcoreinfo.unwrap()], b"OSRELEASE=6\n");
    }

    #[test]
    fn a_note_longer_than_the_segment_ends_the_walk() {
        let mut bytes = note("CORE", NT_PRSTATUS, &[1; 336]);
        bytes.truncate(200);
        assert_eq!(parse(&bytes), Notes::default());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let found = parse(&bytes);
            if let Some(range) = found.vmcoreinfo { prop_assert!(bytes.get(range).is_some()); }
        }
    }
}
