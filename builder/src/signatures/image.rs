//! A kernel's image, unpacked.
//!
//! In: a vmlinux, or a bzImage, whose setup header says where the packed kernel is. Out: the kernel's own bytes.
//! Facts: `Documentation/x86/boot.rst`: sectors of setup at 0x1f1, `HdrS` at 0x202, offset and length of the payload at
//! 0x248. The payload's last four bytes are its length unpacked, whatever the compression.

use crate::host::kernel::Compression;
use crate::unpack::unpack_one;
use anyhow::{Context, bail};

/// No kernel is larger.
const LARGEST: usize = 512 << 20;

/// The format that the kernel packs itself in where it takes LZ4: blocks of at most 8 MiB, each behind its length.
const LZ4_LEGACY: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
const LZ4_BLOCK: usize = 8 << 20;

/// The bytes of the kernel in an image.
///
/// # Errors
/// It is no kernel for x86, or is packed in a way that is not known here.
pub fn unpack(image: &[u8]) -> anyhow::Result<Vec<u8>> {
    if image.starts_with(b"\x7fELF") {
        return Ok(image.to_vec());
    }
    let payload = payload(image).context("it is no bzImage")?;
    if let Some(blocks) = payload.strip_prefix(&LZ4_LEGACY) {
        return lz4(blocks);
    }
    match Compression::of(payload) {
        Some(compression) => Ok(unpack_one(payload, compression, LARGEST)?.0),
        None => bail!("it is packed in another way than by gzip, xz, zstd or lz4"),
    }
}

fn payload(image: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| {
        let field: [u8; 4] = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(field)).ok()
    };
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    // 0 stands for 4, from the days of floppy disks.
    let sectors = usize::from(match image.get(0x1f1)? {
        0 => 4,
        sectors => *sectors,
    });
    let start = (sectors + 1) * 512 + number(0x248)?;
    image.get(start..start.checked_add(number(0x24c)?)?)
}

fn lz4(mut blocks: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    let mut room = vec![0; LZ4_BLOCK];
    while let Some((length, rest)) = blocks.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length))?;
        // What is left at the end is the length unpacked.
        let Some((block, behind)) = rest.split_at_checked(length).filter(|_| length > 0) else { break };
        let written = lz4_flex::block::decompress_into(block, &mut room).context("cannot unpack lz4 data")?;
        unpacked.extend_from_slice(room.get(..written).unwrap_or_default());
        if unpacked.len() > LARGEST {
            bail!("lz4 data comes to more than {} MiB", LARGEST >> 20);
        }
        blocks = behind;
    }
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    /// A bzImage with that payload.
    fn bz_image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 512 * 3];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&512_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        [&image, payload].concat()
    }

    /// A block of nothing but literals.
    fn block(bytes: &[u8]) -> Vec<u8> {
        assert!(bytes.len() < 15);
        let block = [&[u8::try_from(bytes.len()).unwrap() << 4], bytes].concat();
        [&u32::try_from(block.len()).unwrap().to_le_bytes()[..], &block].concat()
    }

    #[test]
    fn kernels_are_unpacked_however_they_are_packed() {
        let text = b"the kernel";
        let size = u32::try_from(text.len()).unwrap().to_le_bytes();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::encode_all(&text[..], 1).unwrap();
        let lz4 = [&LZ4_LEGACY[..], &block(b"the "), &block(b"kernel")].concat();
        for packed in [gzip, zstd, lz4] {
            assert_eq!(unpack(&bz_image(&[&packed, &size[..]].concat())).unwrap(), text);
        }
        assert_eq!(unpack(b"\x7fELF").unwrap(), b"\x7fELF");
    }

    #[test]
    fn what_is_no_kernel_or_packed_strangely_is_told() {
        assert!(unpack(b"MZ").unwrap_err().to_string().contains("no bzImage"));
        assert!(unpack(&bz_image(b"BZh9")).unwrap_err().to_string().contains("another way"));
        assert!(unpack(&bz_image(&[&LZ4_LEGACY[..], &[2, 0, 0, 0, 0xf0, 0xff]].concat())).is_err());
    }

    proptest! {
        #[test]
        fn any_payload_ends_in_a_result(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = unpack(&bz_image(&[&LZ4_LEGACY[..], &bytes].concat()));
            let _ = unpack(&bz_image(&bytes));
            let _ = unpack(&bytes);
        }
    }
}
