//! An initramfs as the kernel takes it: newc archives one after another, each plain or compressed, zeros between them.
//!
//! In: an image's bytes. Out: its archives, plain, for GNU cpio, which itself stops at the end of the first.

use std::io::Read;

use anyhow::{Context, Result, bail};

const HEADER: usize = 110;

/// The image's archives, in order and unpacked.
pub fn archives(image: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut archives = Vec::new();
    let mut rest = image;
    loop {
        let zeros = rest.iter().take_while(|byte| **byte == 0).count();
        rest = &rest[zeros..];
        if rest.is_empty() {
            return Ok(archives);
        }
        if rest.starts_with(b"0707") {
            let (archive, behind) = rest.split_at(length(rest)?);
            archives.push(archive.to_vec());
            rest = behind;
        } else {
            let unpacked = unpack(rest).with_context(|| format!("after {} archives", archives.len()))?;
            archives.extend(self::archives(&unpacked)?);
            return Ok(archives);
        }
    }
}

/// Unpacks what the first bytes show to be compressed.
pub(crate) fn unpack(packed: &[u8]) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    match packed {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => zstd::Decoder::new(packed)?.read_to_end(&mut plain),
        [0x1f, 0x8b, ..] => flate2::read::GzDecoder::new(packed).read_to_end(&mut plain),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => xz2::read::XzDecoder::new(packed).read_to_end(&mut plain),
        _ => bail!("neither an archive nor compressed by zstd, gzip or xz"),
    }
    .context("the compressed data is broken")?;
    Ok(plain)
}

/// Bytes of the first archive, its trailer included.
fn length(archive: &[u8]) -> Result<usize> {
    let mut at = 0;
    loop {
        let header = archive.get(at..at + HEADER).context("the archive has no trailer")?;
        let (size, name) = (field(header, 6)?, field(header, 11)?);
        let start = at + HEADER;
        let is_trailer = archive.get(start..start + name) == Some(b"TRAILER!!!\0");
        at = (start + name).next_multiple_of(4) + size.next_multiple_of(4);
        if is_trailer {
            return Ok(at.min(archive.len()));
        }
    }
}

/// A header's field of eight hexadecimal digits.
fn field(header: &[u8], number: usize) -> Result<usize> {
    let digits = header.get(6 + 8 * number..14 + 8 * number).context("the header is too short")?;
    let digits = std::str::from_utf8(digits).context("the header has no digits")?;
    usize::from_str_radix(digits, 16).with_context(|| format!("{digits} in a header is not a number"))
}
