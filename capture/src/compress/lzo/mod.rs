//! LZO1X blocks. In: a page. Out: instructions that make it again; and back.
//! May surprise: this is a program of its own after the published description of the stream (the kernel's
//! Documentation/staging/lzo.rst), since the C library's licence does not fit; it looks for matches in its own way, so
//! its bytes are not the library's, but the library reads them.
//!
//! ```text
//!  first byte  18…255      1…238 literals follow
//!  0000LLLL    (after no literals)  4 literals and more     L+3, or 18 + 255 per zero byte + the next byte
//!  01LDDDSS 1LLDDDSS  H    3…8 bytes from up to 2 KiB back      (the high bits of the distance in H)
//!  001LLLLL  … D D         3 bytes and more from up to 16 KiB back
//!  0001HLLL  … D D         the same from up to 48 KiB back; 16 KiB exactly is the end of the block: 11 00 00
//!  0000DDSS  H             after 1…3 literals: 2 bytes from up to 1 KiB back; after more: 3 bytes from 2…3 KiB back
//! ```
//!
//! `SS` (in `D D`, its two lowest bits) is the number of literals, 0 to 3, that follow the copy: short runs of literals
//! take no byte of their own.

mod read;
mod write;

pub use read::unpack;
pub(super) use write::Lzo;

/// The longest distance of the short and of the middle form of a copy.
const NEAR: usize = 2 << 10;
const FAR: usize = 16 << 10;

/// `0001HLLL` with a distance of 16 KiB.
const END: [u8; 3] = [0x11, 0, 0];

#[cfg(test)]
mod tests {
    use super::super::{Codec, Kind};
    use super::*;
    use proptest::prelude::*;

    /// What a machine has in memory: text, pointers, runs, code-like bytes, noise.
    fn page() -> impl Strategy<Value = Vec<u8>> {
        let pointers = (any::<u64>(), 0u64..4096).prop_map(|(base, step)| {
            (0..512u64).flat_map(|n| (base & !0xfff).wrapping_add(n % 7 * step).to_le_bytes()).collect()
        });
        let runs = proptest::collection::vec((any::<u8>(), 1usize..900), 1..60)
            .prop_map(|runs| runs.into_iter().flat_map(|(byte, len)| std::iter::repeat_n(byte, len)).collect());
        let pieces =
            (proptest::collection::vec(any::<u8>(), 64), proptest::collection::vec((0usize..60, 1usize..24), 400))
                .prop_map(|(book, pieces)| {
                    pieces.into_iter().flat_map(|(at, len)| book[at..(at + len).min(64)].to_vec()).collect()
                });
        let noise = proptest::collection::vec(any::<u8>(), 4096);
        let sparse = proptest::collection::vec((0usize..4096, any::<u8>()), 0..200).prop_map(|bytes| {
            let mut page = vec![0; 4096];
            bytes.into_iter().for_each(|(at, byte)| page[at] = byte);
            page
        });
        prop_oneof![pointers, runs, pieces, noise, sparse].prop_map(|mut page: Vec<u8>| {
            page.resize(4096, 0);
            page
        })
    }

    fn there_and_back(lzo: &mut Lzo, page: &[u8]) -> bool {
        let mut packed = vec![0; Kind::Lzo.room(page.len())];
        let Some(len) = lzo.pack(page, &mut packed) else { return false };
        assert!(len < page.len());
        let mut back = vec![0; page.len()];
        assert_eq!(unpack(&packed[..len], &mut back), Some(page.len()));
        assert!(back == page);
        true
    }

    #[test]
    fn this_program_packs_and_comes_back() {
        let elf = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let mut lzo = Lzo::new();
        let packed = elf.chunks_exact(4096).take(2000).filter(|page| there_and_back(&mut lzo, page)).count();
        assert!(packed > 500, "{packed} pages became smaller");
    }

    #[test]
    fn every_length_of_literals_and_of_copies_comes_back() {
        let mut lzo = Lzo::new();
        let mut state = 7u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        for literals in (0..24).chain(230..300).chain(520..540) {
            for copy in (4..40).chain([270, 288, 289, 290, 543, 544, 545, 900]) {
                let head: Vec<u8> = (0..1000).map(|_| noise()).collect();
                let middle: Vec<u8> = (0..literals).map(|_| noise()).collect();
                let mut page = [&head, &middle, &head[..copy]].concat();
                page.resize(4096, 0);
                assert!(there_and_back(&mut lzo, &page), "{literals} {copy}");
            }
        }
    }

    #[test]
    fn larger_pages_are_packed_too() {
        let page: Vec<u8> = (0..65536u32).flat_map(|n| (n / 3).to_le_bytes()).take(65536).collect();
        assert!(there_and_back(&mut Lzo::new(), &page));
    }

    // Made by the reference implementation:
    //   python3 -c 'import lzallright as l; c = l.LZOCompressor()
    //   for p in (b"crash" * 60, bytes(600), bytes(range(40)) * 2, b"abcdefgh-abc-xabcdefgh",
    //             b"far away" + b"." * 20000 + b"far away"):
    //       print(c.compress(p).hex())'
    #[test]
    fn what_the_reference_packs_is_read() {
        let vectors: [(Vec<u8>, &[u8]); 5] = [
            (b"crash".repeat(60), b"\x16\x63\x72\x61\x73\x68\x20\x00\x07\x10\x00\x11\x00\x00"),
            (vec![0; 600], b"\x12\x00\x20\x00\x00\x38\x00\x00\x11\x00\x00"),
            ((0..40).chain(0..40).collect(), b"\x39\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x20\x21\x22\x23\x24\x25\x26\x27\x20\x07\x9c\x00\x11\x00\x00"),
            (b"abcdefgh-abc-xabcdefgh".to_vec(), b"\x1a\x61\x62\x63\x64\x65\x66\x67\x68\x2d\x42\x01\x2d\x78\xf4\x01\x11\x00\x00"),
            ([&b"far away"[..], &[b'.'; 20000], b"far away"].concat(), b"\x1a\x66\x61\x72\x20\x61\x77\x61\x79\x2e\x20\x00\x00\x00\x00\x00\x00\x00\xe6\x00\x00\x20\x00\x00\x00\x00\x00\x00\x00\xe6\x00\x00\x20\x00\x00\x00\x00\x00\x00\x00\xe6\x00\x00\x20\x00\x00\x00\x00\x00\x00\x00\xe6\x00\x00\x20\x00\x00\x00\x00\x00\x00\x00\xe6\x00\x00\x20\x00\x00\x00\x00\x00\x00\x00\xe6\x00\x00\x20\x00\x00\x00\x00\x00\x00\x00\xe6\x00\x00\x20\x00\x00\x00\x00\x00\x00\x00\xe6\x00\x00\x20\x00\x00\x00\x00\x00\x00\x00\xe6\x00\x00\x20\x00\x00\x00\x00\x00\x00\x04\x00\x00\x16\xa0\x38\x11\x00\x00"),
        ];
        for (plain, packed) in vectors {
            let mut back = vec![0; plain.len()];
            assert_eq!(unpack(packed, &mut back), Some(plain.len()));
            assert!(back == plain);
        }
    }

    #[test]
    fn copies_after_literals_have_their_own_forms() {
        // Four literals, then 3 bytes from 2049 back: only after 2,100 bytes of run can there be any.
        let mut block = vec![18, b'a', 32, 0, 0, 0, 0, 0, 0, 0, 0, 27, 0, 0];
        block.extend([1, b'w', b'x', b'y', b'z', 0, 0, 17, 0, 0]);
        let mut back = vec![0; 4096];
        assert_eq!(unpack(&block, &mut back), Some(1 + 2 + 31 + 255 * 8 + 27 + 4 + 3));
        assert_eq!(&back[2101..2108], b"wxyzaaa");
        // One literal, then 2 bytes from 2 back.
        let block = [18 + 1, b'a', b'b', 1 << 2, 0, 17, 0, 0];
        assert_eq!(unpack(&block, &mut back), Some(4));
        assert_eq!(&back[..4], b"abab");
    }

    proptest! {
        #[test]
        fn any_page_comes_back(pages in proptest::collection::vec(page(), 1..4)) {
            let mut lzo = Lzo::new();
            for page in &pages { there_and_back(&mut lzo, page); }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), room in 0usize..5000) {
            let mut out = vec![0; room];
            prop_assert!(unpack(&bytes, &mut out).is_none_or(|len| len <= room));
        }

        #[test]
        fn a_damaged_block_never_panics(page in page(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut packed = vec![0; Kind::Lzo.room(4096)];
            if let Some(len) = Lzo::new().pack(&page, &mut packed) {
                packed[at.index(len)] = byte;
                let _ = unpack(&packed[..len], &mut vec![0; 4096]);
                prop_assert_eq!(unpack(&packed[..at.index(len)], &mut vec![0; 4096]), None, "cut short");
            }
        }
    }
}
