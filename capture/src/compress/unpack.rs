//! Packed page to page. In: the bytes of one page and the bit of its codec. Out: the page, or why there is none.
//! May surprise: it says how long the page was, and never writes beyond the room it is given; whether that is a page is
//! for the caller to say.

use zstd::zstd_safe::DCtx;

use super::{Kind, lzo};

/// Why a page could not be unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// The bytes are not what the codec makes, or hold more than a page.
    #[error("the {} data is damaged", .0.name())]
    Data(Kind),
    /// No codec has that bit.
    #[error("it is packed in a way that is not known (flags {0:#x})")]
    Codec(u32),
}

/// Reads pages of every codec, with contexts that are kept; one per worker.
#[derive(Default)]
pub struct Unpacker {
    zlib: Option<libdeflater::Decompressor>,
    snappy: snap::raw::Decoder,
    zstd: Option<DCtx<'static>>,
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacker").finish_non_exhaustive()
    }
}

impl Unpacker {
    /// Unpacks `packed` into the start of `page`; returns its length.
    pub fn unpack(&mut self, flags: u32, packed: &[u8], page: &mut [u8]) -> Result<usize, Damaged> {
        let kind = Kind::of_flag(flags).ok_or(Damaged::Codec(flags))?;
        let len = match kind {
            Kind::None => page.get_mut(..packed.len()).map(|page| {
                page.copy_from_slice(packed);
                page.len()
            }),
            Kind::Zlib => {
                self.zlib.get_or_insert_with(libdeflater::Decompressor::new).zlib_decompress(packed, page).ok()
            }
            Kind::Lzo => lzo::unpack(packed, page),
            Kind::Snappy => self.snappy.decompress(packed, page).ok(),
            Kind::Zstd => {
                self.zstd = self.zstd.take().or_else(DCtx::try_create);
                self.zstd.as_mut().and_then(|context| context.decompress(page, packed).ok())
            }
        };
        len.ok_or(Damaged::Data(kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_every_codec_comes_back_and_a_damaged_one_does_not() {
        let page: Vec<u8> = (0..1024u32).flat_map(|n| (n / 5).to_le_bytes()).collect();
        let mut unpacker = Unpacker::default();
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::None) {
            let mut packed = vec![0; kind.room(4096)];
            let len = kind.codec(None).pack(&page, &mut packed).unwrap();
            let mut back = vec![0; 4096];
            assert_eq!(unpacker.unpack(kind.flag(), &packed[..len], &mut back), Ok(4096));
            assert!(back == page);
            let damaged = Err(Damaged::Data(kind));
            assert_eq!(unpacker.unpack(kind.flag(), &packed[..len / 2], &mut back), damaged, "cut short");
            assert_eq!(unpacker.unpack(kind.flag(), &packed[..len], &mut back[..4000]), damaged, "too large");
        }
    }

    #[test]
    fn a_page_as_it_is_is_copied_and_an_unknown_codec_is_named() {
        let mut back = [0; 8];
        assert_eq!(Unpacker::default().unpack(0, b"abc", &mut back), Ok(3));
        assert_eq!(&back[..3], b"abc");
        assert_eq!(Unpacker::default().unpack(0, &[1; 9], &mut back), Err(Damaged::Data(Kind::None)));
        assert_eq!(Unpacker::default().unpack(0x40, b"abc", &mut back), Err(Damaged::Codec(0x40)));
        assert_eq!(Unpacker::default().unpack(3, b"abc", &mut back), Err(Damaged::Codec(3)));
    }
}
