//! The compressions in which a kernel takes an image.

use std::fmt;

/// How a part of an image is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "they are named after the programs")]
pub enum Codec {
    Gzip,
    Bzip2,
    Lzma,
    Xz,
    Lzo,
    Lz4,
    Zstd,
}

/// Each with its name, the first bytes of a member, and the word by which a kernel is built with it.
const ALL: [(Codec, &str, &[u8], &str); 7] = [
    (Codec::Gzip, "gzip", &[0x1f, 0x8b], "CONFIG_RD_GZIP"),
    (Codec::Bzip2, "bzip2", b"BZh", "CONFIG_RD_BZIP2"),
    (Codec::Lzma, "lzma", &[0x5d, 0, 0], "CONFIG_RD_LZMA"),
    (Codec::Xz, "xz", &[0xfd, b'7', b'z', b'X', b'Z', 0], "CONFIG_RD_XZ"),
    (Codec::Lzo, "lzo", &[0x89, b'L', b'Z', b'O'], "CONFIG_RD_LZO"),
    (Codec::Lz4, "lz4", &[0x02, 0x21, 0x4c, 0x18], "CONFIG_RD_LZ4"),
    (Codec::Zstd, "zstd", &[0x28, 0xb5, 0x2f, 0xfd], "CONFIG_RD_ZSTD"),
];

impl Codec {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Codec> {
        ALL.iter().map(|(codec, ..)| *codec)
    }

    /// Tells it by the first bytes.
    pub fn of(bytes: &[u8]) -> Option<Codec> {
        ALL.iter().find(|(_, _, magic, _)| bytes.starts_with(magic)).map(|(codec, ..)| *codec)
    }

    /// The word in the configuration of a kernel that can unpack it.
    pub fn option(self) -> &'static str {
        self.row().map_or("", |(_, _, _, option)| option)
    }

    fn row(self) -> Option<&'static (Codec, &'static str, &'static [u8], &'static str)> {
        ALL.iter().find(|(codec, ..)| *codec == self)
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().map_or("", |(_, name, ..)| name))
    }
}
