//! A kernel that trusts us: Debian's, with a certificate of ours in the place of the one that it was built with.
//!
//! ```text
//!  vmlinuz ─▶ unpacked ─▶ its one certificate, found by how one begins
//!                          ─▶ ours, padded by a comment to the very length ─▶ vmlinux
//! ```
//!
//! Surprising: what comes of it is a plain ELF file. QEMU boots one by the entry that Xen's guests have (PVH), and neither
//! firmware nor `kexec_file_load` boots it at all. Debian's own modules are strangers to this kernel, and those that are
//! to be loaded have to be signed anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::provision::Kernel;
use crate::signer::Signer;
use crate::tools;

/// How the blocks of an lz4 kernel begin, and what one holds at most.
const LZ4: &[u8] = &[0x02, 0x21, 0x4c, 0x18];
const BLOCK: usize = 8 << 20;
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// What a certificate begins with, its lengths apart.
const BEGIN: [u8; 2] = [0x30, 0x82];
const VERSION: [u8; 5] = [0xa0, 0x03, 0x02, 0x01, 0x02];

/// Makes one in `folder`, with whom it trusts.
pub fn trusting(kernel: &Kernel, folder: &Path) -> Result<(Kernel, Signer)> {
    let packed = fs::read(&kernel.vmlinuz).context("unable to read the kernel")?;
    let mut vmlinux = unpacked(&packed).with_context(|| format!("unable to unpack {}", kernel.vmlinuz.display()))?;
    let theirs = certificates(&vmlinux);
    let [(at, length)] = theirs[..] else { bail!("the kernel has {} certificates, not one", theirs.len()) };
    let signer = Signer::of_length(&folder.join("trusted"), "trusted", length)?;
    let place = vmlinux.get_mut(at..at + length).context("a certificate lies beyond the kernel")?;
    place.copy_from_slice(&signer.certificate()?);
    let made = folder.join(format!("vmlinux-{}", kernel.release));
    fs::write(&made, vmlinux).with_context(|| format!("unable to write {}", made.display()))?;
    let config = format!("config-{}", kernel.release);
    tools::copy(&kernel.vmlinuz.with_file_name(&config), &made.with_file_name(&config))?;
    let modules = folder.join("lib/modules").join(&kernel.release);
    fs::create_dir_all(modules.parent().unwrap_or(folder))?;
    tools::run(tools::command("cp").arg("-a").arg(&kernel.modules).arg(&modules))?;
    Ok((Kernel { release: kernel.release.clone(), vmlinuz: made, modules }, signer))
}

impl Kernel {
    /// Signs these modules anew, and those that they need.
    pub fn sign(&self, signer: &Signer, names: &[&str]) -> Result<()> {
        let files = names.iter().map(|name| self.load_order(name)).collect::<Result<Vec<_>>>()?;
        for file in files.into_iter().flatten().collect::<BTreeSet<_>>() {
            let module = fs::read(&file).with_context(|| format!("unable to read {}", file.display()))?;
            ensure!(module.starts_with(b"\x7fELF"), "{} is packed", file.display());
            fs::write(&file, signer.sign(&module)?).with_context(|| format!("unable to write {}", file.display()))?;
        }
        Ok(())
    }
}

/// The kernel in a bzImage. Its setup header says how many sectors the setup has, and where behind it the payload is.
fn unpacked(image: &[u8]) -> Result<Vec<u8>> {
    ensure!(image.get(0x202..0x206) == Some(b"HdrS"), "it is no bzImage");
    let start = (usize::from(image[0x1f1]) + 1) * 512 + number(image, 0x248)?;
    let payload =
        image.get(start..).and_then(|rest| rest.get(..number(image, 0x24c).ok()?)).context("it is cut short")?;
    let size = number(payload, payload.len().saturating_sub(4))?;
    let kernel = if payload.starts_with(ZSTD) {
        zstd::stream::read::Decoder::with_buffer(payload).map(|decoder| decoder.single_frame()).and_then(
            |mut decoder| {
                let mut kernel = Vec::new();
                std::io::Read::read_to_end(&mut decoder, &mut kernel).map(|_| kernel)
            },
        )?
    } else if payload.starts_with(LZ4) {
        blocks(payload, size)?
    } else {
        bail!("it is packed in a way that is not known here")
    };
    ensure!(kernel.len() == size, "it came to {} bytes, not to {size}", kernel.len());
    Ok(kernel)
}

/// One block behind the other, each behind its length.
fn blocks(payload: &[u8], size: usize) -> Result<Vec<u8>> {
    let (mut kernel, mut at) = (Vec::with_capacity(size), LZ4.len());
    while kernel.len() < size {
        let length = number(payload, at)?;
        let block = payload.get(at + 4..at + 4 + length).context("a block is cut short")?;
        kernel.extend(lz4_flex::block::decompress(block, BLOCK)?);
        at += 4 + length;
    }
    Ok(kernel)
}

fn number(bytes: &[u8], at: usize) -> Result<usize> {
    let field: [u8; 4] = bytes.get(at..at + 4).context("it is cut short")?.try_into()?;
    Ok(usize::try_from(u32::from_le_bytes(field))?)
}

/// Where each certificate begins, and how long it is.
fn certificates(bytes: &[u8]) -> Vec<(usize, usize)> {
    let begins = |at: &usize| {
        bytes.get(*at..*at + 2) == Some(&BEGIN)
            && bytes.get(*at + 4..*at + 6) == Some(&BEGIN)
            && bytes.get(*at + 8..*at + 13) == Some(&VERSION)
    };
    let length = |at: usize| 4 + (usize::from(bytes[at + 2]) << 8 | usize::from(bytes[at + 3]));
    (0..bytes.len()).filter(begins).map(|at| (at, length(at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_of_any_length_is_found_where_it_lies() -> Result<()> {
        let folder = tempfile::tempdir()?;
        for length in [1324, 1000] {
            let certificate = Signer::of_length(folder.path(), "trusted", length)?.certificate()?;
            assert_eq!(certificate.len(), length);
            let kernel = [b"before", &certificate[..], b"behind"].concat();
            assert_eq!(certificates(&kernel), [(6, length)]);
        }
        Ok(())
    }
}
