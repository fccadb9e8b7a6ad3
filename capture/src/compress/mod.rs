//! Page to packed page. In: one page. Out: fewer bytes, or the answer that there are none to save.
//! May surprise: each page is compressed for itself, since every page of the format can be read alone; contexts are
//! reused, as making one costs more than a page.
//!
//! A new codec is one file here, and one line in [`Kind`], [`Kind::name`], [`Kind::flag`], [`Kind::codec`] and
//! [`Unpacker::unpack`].

pub mod lzo;
mod raw;
mod snappy;
mod unpack;
mod zlib;
mod zstd;

pub use unpack::{Damaged, Unpacker};

use std::ops::RangeInclusive;

use ::zstd::zstd_safe;

/// How a page is packed; one per worker.
pub trait Codec: Send {
    /// Packs `page` into the start of `out`, which has room for [`Kind::room`]; `None` if that is not smaller.
    fn pack(&mut self, page: &[u8], out: &mut [u8]) -> Option<usize>;
}

/// The codecs built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Kind {
    /// Pages as they are.
    #[default]
    None,
    /// RFC 1950 streams, by libdeflate; at level 1 if nothing is said.
    Zlib,
    /// LZO1X blocks.
    Lzo,
    /// Raw snappy blocks.
    Snappy,
    /// One zstd frame per page; at level 1 if nothing is said.
    Zstd,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 5] = [Kind::None, Kind::Zlib, Kind::Lzo, Kind::Snappy, Kind::Zstd];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::None => "none",
            Kind::Zlib => "zlib",
            Kind::Lzo => "lzo",
            Kind::Snappy => "snappy",
            Kind::Zstd => "zstd",
        }
    }

    /// The bit that names the codec in the header's `status` and a descriptor's `flags`.
    pub fn flag(self) -> u32 {
        match self {
            Kind::None => 0,
            Kind::Zlib => 0x01,
            Kind::Lzo => 0x02,
            Kind::Snappy => 0x04,
            Kind::Zstd => 0x20,
        }
    }

    /// The codec whose bit `flags` has, if it has exactly one.
    pub fn of_flag(flags: u32) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.flag() == flags)
    }

    /// How hard it can be told to try; `None` if it cannot.
    pub fn levels(self) -> Option<RangeInclusive<i32>> {
        match self {
            Kind::Zlib => Some(1..=12),
            Kind::Zstd => Some(zstd_safe::min_c_level()..=zstd_safe::max_c_level()),
            Kind::None | Kind::Lzo | Kind::Snappy => None,
        }
    }

    /// A context of its own for one worker, that tries as hard as `level` says; its own choice if it says nothing.
    pub fn codec(self, level: Option<i32>) -> Box<dyn Codec> {
        match self {
            Kind::None => Box::new(raw::Raw),
            Kind::Zlib => Box::new(zlib::Zlib::new(level)),
            Kind::Lzo => Box::new(lzo::Lzo::new()),
            Kind::Snappy => Box::new(snappy::Snappy::new()),
            Kind::Zstd => Box::new(zstd::Zstd::new(level)),
        }
    }

    /// Bytes of memory one context takes for pages of `page` bytes, measured and rounded up: part of the budget.
    pub fn context_bytes(self, level: Option<i32>, page: usize) -> usize {
        let level = level.unwrap_or(1);
        match self {
            Kind::None => 0,
            Kind::Zlib if level > 9 => 2 << 20,
            Kind::Zlib if level > 1 => 512 << 10,
            Kind::Zlib => 80 << 10,
            Kind::Lzo => 36 << 10,
            Kind::Snappy => 40 << 10,
            Kind::Zstd if level > 1 && page > 16 << 10 => 2 << 20,
            Kind::Zstd if level > 1 => 1 << 20,
            Kind::Zstd if page > 16 << 10 => 320 << 10,
            Kind::Zstd if page > 4 << 10 => 224 << 10,
            Kind::Zstd => 160 << 10,
        }
    }

    /// Room that packing a page of `page` bytes may touch.
    pub fn room(self, page: usize) -> usize {
        match self {
            Kind::Snappy => snappy::Snappy::room(page),
            _ => page + page / 128 + 512,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_without_pattern_is_left_as_it_is() {
        let mut state = 1u64;
        let page: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(4096)
        .collect();
        for kind in Kind::ALL {
            let mut out = vec![0; kind.room(4096)];
            assert_eq!(kind.codec(None).pack(&page, &mut out), None, "{}", kind.name());
        }
    }

    #[test]
    fn a_codec_gives_the_same_bytes_whatever_it_packed_before() {
        let pages: Vec<Vec<u8>> =
            (0..8u8).map(|n| (0..4096usize).map(|i| (i / (7 + usize::from(n))) as u8).collect()).collect();
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::None) {
            let mut used = kind.codec(None);
            for page in &pages {
                let (mut a, mut b) = (vec![0; kind.room(4096)], vec![0; kind.room(4096)]);
                let (n, m) = (used.pack(page, &mut a), kind.codec(None).pack(page, &mut b));
                assert_eq!(n, m);
                assert_eq!(a[..n.unwrap()], b[..n.unwrap()]);
            }
        }
    }
}
