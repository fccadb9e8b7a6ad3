//! The header of a newc entry, the archive that a kernel unpacks; read and written.
//!
//! 110 bytes of text: a magic and thirteen numbers of eight hex digits. Sizes are below 4 GiB by construction.

/// Bytes of a header.
pub const HEADER: usize = 110;
/// The magic of an entry.
pub const MAGIC: &[u8; 6] = b"070701";
/// The magic of an entry whose data is summed up in the last number.
pub const MAGIC_SUM: &[u8; 6] = b"070702";
/// The name of the entry that ends an archive.
pub const TRAILER: &[u8] = b"TRAILER!!!";

/// The numbers of a header, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of stat(2) and of the format")]
pub struct Header {
    pub ino: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub mtime: u32,
    pub filesize: u32,
    pub devmajor: u32,
    pub devminor: u32,
    pub rdevmajor: u32,
    pub rdevminor: u32,
    pub namesize: u32,
    pub check: u32,
}

impl Header {
    /// The header as text.
    pub fn encode(&self) -> String {
        let numbers = [
            self.ino,
            self.mode,
            self.uid,
            self.gid,
            self.nlink,
            self.mtime,
            self.filesize,
            self.devmajor,
            self.devminor,
            self.rdevmajor,
            self.rdevminor,
            self.namesize,
            self.check,
        ];
        let mut text = String::from("070701");
        text.extend(numbers.map(|number| format!("{number:08x}")));
        text
    }

    /// Reads a header. `None` if `bytes` is not one.
    pub fn decode(bytes: &[u8; HEADER]) -> Option<Header> {
        let numbers = bytes.strip_prefix(MAGIC).or(bytes.strip_prefix(MAGIC_SUM))?;
        let mut values = numbers.chunks_exact(8).map(|digits| {
            let good = digits.iter().all(u8::is_ascii_hexdigit);
            good.then(|| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()).flatten()
        });
        let mut next = || values.next().flatten();
        Some(Header {
            ino: next()?,
            mode: next()?,
            uid: next()?,
            gid: next()?,
            nlink: next()?,
            mtime: next()?,
            filesize: next()?,
            devmajor: next()?,
            devminor: next()?,
            rdevmajor: next()?,
            rdevminor: next()?,
            namesize: next()?,
            check: next()?,
        })
    }
}

/// How many bytes bring `length` to a multiple of 4.
pub fn padding(length: usize) -> usize {
    length.wrapping_neg() % 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(ino: u32, mode: u32, filesize: u32, namesize: u32, rdevminor: u32) {
            let header = Header { ino, mode, filesize, namesize, rdevminor, ..Header::default() };
            let text = header.encode();
            prop_assert_eq!(text.len(), HEADER);
            prop_assert_eq!(Header::decode(text.as_bytes().try_into().unwrap()), Some(header));
        }
    }

    #[test]
    fn signs_and_letters_are_no_numbers() {
        let good = Header::default().encode();
        for bad in [
            good.replacen("00000000", "+0000000", 1),
            good.replacen("00000000", "0000000g", 1),
            good.replacen("070701", "070707", 1),
        ] {
            assert_eq!(Header::decode(bad.as_bytes().try_into().unwrap()), None);
        }
    }
}
