//! A kernel's image, unpacked.
//!
//! In: a vmlinux, or a bzImage, whose setup header says where the packed kernel is, or a unified image with either in it.
//! Out: the kernel's own bytes.
//! Facts: `Documentation/x86/boot.rst`: sectors of setup at 0x1f1, `HdrS` at 0x202, offset and length of the payload at
//! 0x248. The payload's last four bytes are its length unpacked, whatever the compression.

use super::unified;
use crate::unpack::{Codec, member};
use anyhow::{Context, bail};
use std::io::Read;

/// No kernel is larger.
const LARGEST: u64 = 512 << 20;

/// The bytes of the kernel in an image.
///
/// # Errors
/// It is no kernel for x86, or is packed in a way that is not known here.
pub fn unpack(image: &[u8]) -> anyhow::Result<Vec<u8>> {
    let image = unified::kernel(image).unwrap_or(image);
    if image.starts_with(b"\x7fELF") {
        return Ok(image.to_vec());
    }
    let payload = payload(image).context("it is no bzImage")?;
    let Some(codec) = Codec::of(payload) else { bail!("it is packed in a way that is not known here") };
    // gzip ends with that length by itself.
    let tail = if codec == Codec::Gzip { 0 } else { 4 };
    let mut packed = payload.get(..payload.len().saturating_sub(tail)).unwrap_or_default();
    let mut unpacked = Vec::new();
    member(codec, &mut packed)
        .and_then(|reader| reader.take(LARGEST + 1).read_to_end(&mut unpacked))
        .with_context(|| format!("cannot unpack {codec} data"))?;
    if unpacked.len() as u64 > LARGEST {
        bail!("{codec} data comes to more than {} MiB", LARGEST >> 20);
    }
    Ok(unpacked)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::unified_image;
    use proptest::prelude::*;
    use std::io::Write;

    const LZ4: &[u8] = &[0x02, 0x21, 0x4c, 0x18];

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
        assert_eq!(unpack(&bz_image(&gzip)).unwrap(), text);
        let zstd = zstd::encode_all(&text[..], 1).unwrap();
        let lz4 = [LZ4, &block(b"the "), &block(b"kernel")].concat();
        for packed in [zstd, lz4] {
            assert_eq!(unpack(&bz_image(&[&packed, &size[..]].concat())).unwrap(), text);
        }
        assert_eq!(unpack(b"\x7fELF").unwrap(), b"\x7fELF");
        let unified = unified_image(&[(".osrel", b"ID=x"), (".linux", &bz_image(&gzip))]);
        assert_eq!(unpack(&unified).unwrap(), text);
    }

    #[test]
    fn what_is_no_kernel_or_packed_strangely_is_told() {
        assert!(unpack(b"MZ").unwrap_err().to_string().contains("no bzImage"));
        assert!(unpack(&bz_image(b"ZIP!")).unwrap_err().to_string().contains("not known"));
        assert!(unpack(&bz_image(&[LZ4, &[2, 0, 0, 0, 0xf0, 0xff]].concat())).is_err());
    }

    proptest! {
        #[test]
        fn any_payload_ends_in_a_result(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = unpack(&bz_image(&[LZ4, &bytes].concat()));
            let _ = unpack(&bz_image(&bytes));
            let _ = unpack(&bytes);
        }
    }
}
