//! Whether a kernel would accept a module, known before it is asked.
//!
//! ```text
//!   module ─▶ Signature: who signed it ──┐
//!   rings, kernel image, firmware ─▶ Keys ─┼─▶ verdict ─▶ Accepted | Taints(why) | Refused(why) | Unknown(why)
//!   sig_enforce, lockdown, secure boot ─▶ Policy ─┘
//! ```
//!
//! In: a module's bytes, the kernel's rings, certificates wherever they were found. Out: a verdict. The builder asks for
//! the modules of an image, kpatch for a live patch.
//!
//! May surprise: the signature itself is not verified, the kernel does that; what is told is whether it has the key. A
//! signer is named by issuer and serial number, and the kernel's list of keys shows neither: without the certificate of a
//! key it cannot be told whose it is. So certificates are looked for where the kernel has them from: in its image
//! ([`built_in`]), in the firmware's variables, among those that images bring along. PID 1 has no room for what reads
//! certificates and images, and calls none of [`Signature::of`], [`Certificate::parse`] and [`built_in`].

mod certificate;
mod keys;
mod policy;
mod signature;
mod verdict;

pub use certificate::{Certificate, in_bytes, in_directories, in_signature_lists};
pub use keys::{Firmware, Key, Keys, Read, Ring, is_secure_boot};
pub use policy::{Line, Policy, locked_down, platform_counts};
pub use signature::{Signature, Signer};
pub use verdict::{Verdict, verdict};

use crate::kernel_image;
use anyhow::Context;
use std::fs;
use std::path::Path;

/// The certificates that are built into a kernel whose image is this.
///
/// # Errors
/// It cannot be read or looked into.
pub fn built_in(image: &Path) -> anyhow::Result<Vec<Certificate>> {
    let bytes = fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
    let kernel = kernel_image::unpack(&bytes).with_context(|| format!("cannot look into {}", image.display()))?;
    Ok(in_bytes(&kernel))
}

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use super::certificate::tests::{OURS, variable};
    pub(crate) use super::signature::tests::{DEBIAN, by, sign};
}
