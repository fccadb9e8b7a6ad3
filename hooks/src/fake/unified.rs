//! A unified kernel image with any sections, without the stub that would start it.

const PE: usize = 0x80;
const TABLE: usize = PE + 24;
const ALIGNED: usize = 512;
const CONTENT: usize = 2 * ALIGNED;

/// A PE file with these sections, of which there are at most twenty.
pub fn unified_image(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
    let mut head = b"MZ".to_vec();
    head.resize(0x3c, 0);
    head.extend(number(PE));
    head.resize(PE, 0);
    head.extend(b"PE\0\0\x64\x86");
    head.extend(number(sections.len()));
    head.resize(TABLE, 0);
    let mut content = Vec::new();
    for (place, (name, bytes)) in sections.iter().enumerate() {
        head.extend(name.bytes());
        head.resize(TABLE + place * 40 + 8, 0);
        let padded = bytes.len().next_multiple_of(ALIGNED);
        head.extend([bytes.len(), 0, padded, CONTENT + content.len()].map(number).concat());
        head.resize(TABLE + (place + 1) * 40, 0);
        content.extend_from_slice(bytes);
        content.resize(content.len().next_multiple_of(ALIGNED), 0);
    }
    head.resize(CONTENT, 0);
    [head, content].concat()
}
