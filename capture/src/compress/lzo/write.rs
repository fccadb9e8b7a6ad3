//! Writes a block. In: a page. Out: literals and copies.
//! May surprise: the table of what was seen where is never cleared between pages. Its entries count up from page to
//! page, so those of earlier pages are known by being too small; and the bytes do not depend on what was packed before.

use super::super::Codec;
use super::{END, FAR, NEAR};

/// 32 KiB of table: a first-level cache.
const BITS: u32 = 13;

/// A search without result goes on by one byte more per so many bytes (as a power of two) of literals.
const SKIP: u32 = 4;

/// The shortest copy looked for: the four bytes that are compared at once.
const SHORTEST: usize = 4;

/// What is left at the end of a page is not searched, so that eight bytes can always be compared.
const TAIL: usize = 16;

/// What a block that is given up in time may reach beyond a page: the lengths of the last literals and of the last copy,
/// sixteen bytes copied where fewer count, the end.
const SLACK: usize = 320;

pub(in super::super) struct Lzo {
    /// For each hash, where its four bytes were seen last, counted from `base` for this page.
    table: Box<[u32; 1 << BITS]>,
    base: u32,
}

impl Lzo {
    pub(in super::super) fn new() -> Self {
        Lzo { table: Box::new([0; 1 << BITS]), base: 1 }
    }

    /// The page's positions count from here.
    fn next_base(&mut self, len: usize) -> Option<u32> {
        let len = u32::try_from(len).ok()?;
        if self.base.checked_add(len).is_none() {
            self.table.fill(0);
            self.base = 1;
        }
        let base = self.base;
        self.base += len;
        Some(base)
    }
}

fn word(page: &[u8], at: usize) -> u32 {
    page.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn hash(word: u32) -> usize {
    // Knuth's multiplier; the upper bits are the mixed ones.
    (word.wrapping_mul(2_654_435_761) >> (32 - BITS)) as usize
}

#[expect(clippy::cast_possible_truncation, reason = "the length of a page fits, and this is within it")]
fn position(at: usize) -> u32 {
    at as u32
}

/// The lowest eight bits.
fn low(n: usize) -> u8 {
    n.to_le_bytes()[0]
}

/// How many bytes from `a` and from `b` on are the same, `b` being the later one.
fn same(page: &[u8], a: usize, b: usize) -> usize {
    let mut len = 0;
    while let (Some(x), Some(y)) = (chunk(page, a + len), chunk(page, b + len)) {
        let differ = x ^ y;
        if differ != 0 {
            return len + (differ.trailing_zeros() / 8) as usize;
        }
        len += 8;
    }
    while b + len < page.len() && page[a + len] == page[b + len] {
        len += 1;
    }
    len
}

fn chunk(page: &[u8], at: usize) -> Option<u64> {
    page.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// The block as it grows. It is given up as soon as it and the next literals are a page, so there is room for what is put.
struct Block<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl Block<'_> {
    fn put(&mut self, byte: usize) {
        self.bytes[self.len] = low(byte);
        self.len += 1;
    }

    /// The rest of a length that did not fit into its instruction, at least 1.
    fn put_rest(&mut self, mut rest: usize) {
        while rest > 255 {
            self.put(0);
            rest -= 255;
        }
        self.put(rest);
    }

    fn literals(&mut self, page: &[u8], from: usize, to: usize) {
        let count = to - from;
        match count {
            0 => return,
            _ if self.len == 0 && count <= 238 => self.put(17 + count),
            // They are told in the two lowest bits of the copy before, which are in its last byte but one.
            1..=3 => self.bytes[self.len - 2] |= low(count),
            4..=18 => self.put(count - 3),
            _ => {
                self.put(0);
                self.put_rest(count - 18);
            }
        }
        // Most runs are short: sixteen bytes at once are faster than a copy of the exact length.
        if let (..=16, Some(bytes)) = (count, page.get(from..).and_then(|rest| rest.first_chunk::<16>())) {
            self.bytes[self.len..self.len + 16].copy_from_slice(bytes);
        } else {
            self.bytes[self.len..self.len + count].copy_from_slice(&page[from..to]);
        }
        self.len += count;
    }

    fn copy(&mut self, distance: usize, len: usize) {
        let back = distance - 1;
        if distance <= NEAR && len <= 8 {
            self.put((len - 1) << 5 | (back & 7) << 2);
            self.put(back >> 3);
            return;
        }
        if len <= 33 {
            self.put(32 | (len - 2));
        } else {
            self.put(32);
            self.put_rest(len - 33);
        }
        self.put(back << 2);
        self.put(back >> 6);
    }
}

impl Codec for Lzo {
    fn pack(&mut self, page: &[u8], out: &mut [u8]) -> Option<usize> {
        // Where the length is known to the compiler, most checks of bounds are left out.
        match page.first_chunk::<4096>() {
            Some(usual) if page.len() == usual.len() => self.block(usual, out),
            _ => self.block(page, out),
        }
    }
}

impl Lzo {
    #[inline(always)]
    fn block(&mut self, page: &[u8], out: &mut [u8]) -> Option<usize> {
        if out.len() < page.len() + page.len() / 255 + SLACK {
            return None;
        }
        let base = self.next_base(page.len())?;
        let last = page.len().checked_sub(TAIL)?;
        let table = &mut *self.table;
        let mut block = Block { bytes: out, len: 0 };
        table[hash(word(page, 0))] = base;
        // Everything before `done` is in the block.
        let (mut done, mut at) = (0, 1);
        while at < last {
            let here = word(page, at);
            let place = &mut table[hash(here)];
            // Too large for a page if the entry is from an earlier one.
            let mut from = place.wrapping_sub(base) as usize;
            *place = base + position(at);
            if from >= at || word(page, from) != here || at - from > FAR {
                at += 1 + ((at - done) >> SKIP);
                continue;
            }
            let mut len = SHORTEST + same(page, from + SHORTEST, at + SHORTEST);
            while at > done && from > 0 && page[at - 1] == page[from - 1] {
                (at, from, len) = (at - 1, from - 1, len + 1);
            }
            if block.len + (at - done) >= page.len() {
                return None;
            }
            block.literals(page, done, at);
            block.copy(at - from, len);
            at += len;
            done = at;
            if at < last {
                let behind = at - 2;
                table[hash(word(page, behind))] = base + position(behind);
            }
        }
        if block.len + (page.len() - done) >= page.len() {
            return None;
        }
        block.literals(page, done, page.len());
        block.bytes[block.len..block.len + END.len()].copy_from_slice(&END);
        let len = block.len + END.len();
        (len < page.len()).then_some(len)
    }
}
