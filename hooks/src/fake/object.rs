//! A kernel module of which only the `.modinfo` section is true.

/// The least 64-bit ELF object that has a `.modinfo` section.
pub fn object(pairs: &[&str]) -> Vec<u8> {
    object_of_build(pairs, b"")
}

/// The same with the note of a build in it, unless that is empty.
pub fn object_of_build(pairs: &[&str], note: &[u8]) -> Vec<u8> {
    const EHDR: usize = 64;
    let names = b"\0.modinfo\0.shstrtab\0.note.gnu.build-id\0";
    let info: Vec<u8> = pairs.iter().flat_map(|pair| pair.bytes().chain([0])).collect();
    let table = EHDR + names.len() + info.len() + note.len();
    let count = if note.is_empty() { 3 } else { 4 };
    // e_ident, e_type ET_REL, e_machine EM_X86_64, e_version; e_entry and e_phoff; e_shoff; the sizes and counts.
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 62, 0, 1, 0, 0, 0];
    out.extend([0; 16]);
    out.extend((table as u64).to_le_bytes());
    out.extend([0, 0, 0, 0, 64, 0, 56, 0, 0, 0, 64, 0, count, 0, 2, 0]);
    out.extend(names);
    out.extend(&info);
    out.extend(note);
    out.extend([0; 64]);
    let info_at = EHDR + names.len();
    let sections =
        [(1u32, 1u32, info_at, info.len()), (10, 3, EHDR, names.len()), (20, 7, info_at + info.len(), note.len())];
    for (name, kind, offset, size) in sections.into_iter().take(usize::from(count) - 1) {
        out.extend(name.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend([0; 16]);
        out.extend((offset as u64).to_le_bytes());
        out.extend((size as u64).to_le_bytes());
        out.extend([0; 24]);
    }
    out
}
