//! lzop's files.
//!
//! All numbers are big-endian; which of them are there is said by the version and by flags.
//!
//! ```text
//!  89 "LZO" 00 0d 0a 1a 0a
//!  version u16 | library u16 | needed u16 * | method u8 | level u8 * | flags u32 | filter u32 ** | mode u32
//!  | time u32 | more of it u32 * | length of a name u8 | name | sum u32            * from version 0x940  ** by flag
//!  block: unpacked size u32 (0: the end) | packed size u32 | sums u32, none to four | data
//! ```
//!
//! Sums are passed over: a kernel does not look at them either.

use super::blocks::{Blocks, bytes, damaged, take};
use std::io::{self, BufRead};

const MAGIC: [u8; 9] = [0x89, b'L', b'Z', b'O', 0, 0x0d, 0x0a, 0x1a, 0x0a];

/// What a block holds at most; kernels take no larger ones.
const BLOCK: usize = 256 << 10;

const SUMS_OF_UNPACKED: [u32; 2] = [0x001, 0x100];
const SUMS_OF_PACKED: [u32; 2] = [0x002, 0x200];
const EXTRA: u32 = 0x040;
const FILTER: u32 = 0x800;

// The collector's reader of blocks: the crate that it is in is none that a builder should need.
#[path = "../../../capture/src/compress/lzo/read.rs"]
#[allow(unreachable_pub, reason = "it is public where it is at home")]
mod lzo;

/// The longest distance of the short and of the middle form of a copy.
const NEAR: usize = 2 << 10;
const FAR: usize = 16 << 10;

pub(super) fn open(input: &mut dyn BufRead) -> io::Result<Blocks<'_>> {
    if bytes(input)? != MAGIC {
        return Err(damaged("there is no head of lzop"));
    }
    let version = u16::from_be_bytes(bytes(input)?);
    let long = version >= 0x940;
    take(input, if long { 2 + 2 + 1 + 1 } else { 2 + 1 })?;
    let flags = u32::from_be_bytes(bytes(input)?);
    take(input, if flags & FILTER != 0 { 4 } else { 0 })?;
    take(input, if long { 4 + 4 + 4 } else { 4 + 4 })?;
    let [name] = bytes(input)?;
    take(input, u32::from(name) + 4)?;
    if flags & EXTRA != 0 {
        let extra = u32::from_be_bytes(bytes(input)?);
        take(input, extra.saturating_add(4))?;
    }
    Ok(Blocks { input, next, flags, block: vec![0; BLOCK], at: 0, end: 0 })
}

fn next(input: &mut dyn BufRead, out: &mut [u8], flags: u32) -> io::Result<usize> {
    let size = u32::from_be_bytes(bytes(input)?);
    if size == 0 {
        return Ok(0);
    }
    let packed = u32::from_be_bytes(bytes(input)?);
    if size as usize > BLOCK || packed > size {
        return Err(damaged("a block of lzo is larger than a kernel takes"));
    }
    let sums = |all: [u32; 2]| all.iter().filter(|sum| flags & **sum != 0).count();
    let passed = sums(SUMS_OF_UNPACKED) + if packed < size { sums(SUMS_OF_PACKED) } else { 0 };
    for _ in 0..passed {
        bytes::<4>(input)?;
    }
    let data = take(input, packed)?;
    let Some(out) = out.get_mut(..size as usize) else { return Err(damaged("a block is too large")) };
    if packed == size {
        out.copy_from_slice(&data);
        return Ok(data.len());
    }
    match lzo::unpack(&data, out) {
        Some(len) if len == out.len() => Ok(len),
        _ => Err(damaged("a block of lzo is damaged")),
    }
}
