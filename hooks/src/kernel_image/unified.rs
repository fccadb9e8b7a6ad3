//! A unified kernel image: kernel, initramfs and command line in one file that the firmware starts.
//!
//! ```text
//!   MZ … PE header │ table of sections │ systemd's stub │ .osrel .cmdline .uname .ucode .initrd .linux, in any order
//! ```
//!
//! In: any file. Out: its sections, if it is such an image; else it is what it was. The stub hands `.ucode` to the kernel
//! in front of `.initrd`, and so they stand here. May surprise: a bzImage is a PE file as well, but has none of these.
//! Facts: the UAPI group's specification of unified kernel images; systemd-stub(7).

use goblin::pe::header::{Header, SIZEOF_COFF_HEADER, SIZEOF_PE_MAGIC};
use std::borrow::Cow;

const KERNEL: &str = ".linux";
const INITRD: &str = ".initrd";
const MICROCODE: &str = ".ucode";
const RELEASE: &str = ".uname";

/// The initramfs as the kernel gets it; of any other file the file.
pub fn initrd(bytes: &[u8]) -> Cow<'_, [u8]> {
    let Some(sections) = Sections::of(bytes) else { return Cow::Borrowed(bytes) };
    match (sections.get(MICROCODE), sections.get(INITRD)) {
        (Some(early), Some(initrd)) => {
            let mut initramfs = early.to_vec();
            initramfs.resize(early.len().next_multiple_of(4), 0);
            initramfs.extend_from_slice(initrd);
            Cow::Owned(initramfs)
        }
        (one, other) => Cow::Borrowed(other.or(one).unwrap_or_default()),
    }
}

/// The kernel in a unified image; `None` of any other file.
pub fn kernel(bytes: &[u8]) -> Option<&[u8]> {
    Sections::of(bytes)?.get(KERNEL)
}

/// The release that a unified image says that its kernel has.
pub fn release(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(Sections::of(bytes)?.get(RELEASE)?).ok()?;
    Some(text.trim_end_matches(['\0', '\n']))
}

/// The sections of a unified image.
struct Sections<'a>(Vec<(String, &'a [u8])>);

impl<'a> Sections<'a> {
    fn of(bytes: &'a [u8]) -> Option<Sections<'a>> {
        if !bytes.starts_with(b"MZ") {
            return None;
        }
        let header = Header::parse(bytes).ok()?;
        let coff = &header.coff_header;
        let optional = usize::from(coff.size_of_optional_header);
        let start = usize::try_from(header.dos_header.pe_pointer).ok()?;
        let mut at = start.checked_add(SIZEOF_PE_MAGIC + SIZEOF_COFF_HEADER + optional)?;
        let table = coff.sections(bytes, &mut at).ok()?;
        let section = |section: &goblin::pe::section_table::SectionTable| {
            // What is in the file is padded, and what is in memory may go on with zeros.
            let length = section.size_of_raw_data.min(section.virtual_size);
            let start = usize::try_from(section.pointer_to_raw_data).ok()?;
            let end = start.checked_add(usize::try_from(length).ok()?)?;
            Some((section.name().ok()?.to_owned(), bytes.get(start..end)?))
        };
        let sections = Sections(table.iter().filter_map(section).collect());
        (sections.get(KERNEL).is_some() || sections.get(INITRD).is_some()).then_some(sections)
    }

    /// The first of that name: what other profiles have comes behind it.
    fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, bytes)| *bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::unified_image as image;
    use proptest::prelude::*;

    #[test]
    fn a_unified_image_has_its_parts_and_any_other_file_is_what_it_was() {
        let uki = image(&[(".linux", b"kernel"), (".initrd", b"070701"), (".ucode", b"early"), (".uname", b"6.1-x\n")]);
        assert_eq!(initrd(&uki).as_ref(), b"early\x00\x00\x00070701");
        assert_eq!((kernel(&uki), release(&uki)), (Some(&b"kernel"[..]), Some("6.1-x")));
        let without = image(&[(".text", b"x"), (".linux", b"kernel")]);
        assert_eq!(initrd(&without).as_ref(), b"", "it brings none along");
        for other in [&b"070701"[..], b"MZ", b"", &image(&[(".setup", b"a bzImage")])] {
            assert_eq!((initrd(other).as_ref(), kernel(other)), (other, None));
        }
    }

    proptest! {
        #[test]
        fn any_table_of_sections_ends_in_an_answer(at in 0usize..0x200, bytes: [u8; 4], cut in 0usize..2100) {
            let mut uki = image(&[(".linux", b"kernel"), (".initrd", b"070701")]);
            uki[at..at + 4].copy_from_slice(&bytes);
            uki.truncate(cut);
            let _ = (initrd(&uki), kernel(&uki), release(&uki));
        }
    }
}
