//! The release of a kernel that is named by its file: Debian's `KDUMP_KERNEL`, or a path in SUSE's `KDUMP_KERNELVER`.
//!
//! ```text
//!   bzImage:  0x202 "HdrS"   0x20e u16: where the version is, less 0x200   "6.1.0-18-amd64 (who@where) #1 SMP …"
//! ```
//!
//! A unified image tells by its section `.uname`. Any other kernel tells by its name, `vmlinuz-RELEASE`, or by its directory, `modules/RELEASE/vmlinuz`.

use crate::config::Sysconfig;
use crate::host::Tree;
use anyhow::Context;
use kdump_hooks::kernel_image::unified;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

/// The header and what it points to.
const ENOUGH: u64 = 0x200 + 0x1_0000 + 256;

/// The release of the capture kernel, if the configuration names one.
///
/// # Errors
/// It names a file that is not there or does not tell.
pub(crate) fn release(tree: &Tree, system: &Sysconfig) -> anyhow::Result<Option<String>> {
    if let Some(given) = &system.kernelver {
        return Ok(Some(given.value.clone()));
    }
    let Some(given) = &system.kernel_file else { return Ok(None) };
    let file = tree.resolve(&given.value).with_context(|| format!("{}: the kernel", given.origin))?;
    let mut start = Vec::new();
    File::open(&file)
        .and_then(|file| file.take(ENOUGH).read_to_end(&mut start))
        .with_context(|| format!("{}: cannot read the kernel {}", given.origin, file.display()))?;
    let release = of_header(&start).or_else(|| of_unified(&file)).or_else(|| of_name(&file)).with_context(|| {
        format!(
            "{}: {} does not tell which kernel it is; name its release instead, as `uname -r` prints it",
            given.origin,
            file.display()
        )
    })?;
    Ok(Some(release))
}

/// What a bzImage says of itself.
fn of_header(bytes: &[u8]) -> Option<String> {
    if bytes.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let [low, high] = *bytes.get(0x20e..0x210)? else { return None };
    let text = bytes.get(0x200 + usize::from(u16::from_le_bytes([low, high]))..)?;
    let text = text.split(|&byte| byte == 0 || byte == b' ').next()?;
    let text = std::str::from_utf8(text).ok()?;
    is_release(text).then(|| text.to_owned())
}

/// What a unified image says of its kernel, or this one of itself.
fn of_unified(file: &Path) -> Option<String> {
    let bytes = fs::read(file).ok()?;
    let said = unified::release(&bytes).filter(|text| is_release(text)).map(str::to_owned);
    said.or_else(|| of_header(unified::kernel(&bytes)?))
}

fn of_name(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    let release = match name.split_once('-') {
        Some((_, release)) => release,
        None => {
            let dir = file.parent()?;
            dir.parent()?.ends_with("modules").then(|| dir.file_name()?.to_str()).flatten()?
        }
    };
    is_release(release).then(|| release.to_owned())
}

fn is_release(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "._+-~".contains(c);
    text.starts_with(|c: char| c.is_ascii_digit()) && text.len() < 64 && text.chars().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Given, Origin};
    use kdump_hooks::fake::unified_image;
    use proptest::prelude::*;

    fn image(version: &str) -> Vec<u8> {
        let mut bytes = vec![0; 0x500];
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
        bytes[0x300..0x300 + version.len()].copy_from_slice(version.as_bytes());
        bytes
    }

    #[test]
    fn a_kernel_tells_its_release_by_its_header_its_name_or_its_directory() {
        let root = tempfile::tempdir().unwrap();
        for (path, bytes, release) in [
            ("boot/anything", image("6.1.0-18-amd64 (who@where) #1 SMP"), Some("6.1.0-18-amd64")),
            ("boot/vmlinuz-6.2-x", b"kernel".to_vec(), Some("6.2-x")),
            ("lib/modules/6.3-y/vmlinuz", b"kernel".to_vec(), Some("6.3-y")),
            ("efi/EFI/Linux/a.efi", unified_image(&[(".linux", b"x"), (".uname", b"6.4-z\n")]), Some("6.4-z")),
            ("efi/EFI/Linux/b.efi", unified_image(&[(".linux", &image("6.5-z (who)"))]), Some("6.5-z")),
            ("boot/vmlinuz", b"kernel".to_vec(), None),
        ] {
            let file = root.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, bytes).unwrap();
            let origin = Origin::Line("kdump-tools".into(), 3);
            let given = Given { value: Path::new("/").join(path), origin };
            let system = Sysconfig { kernel_file: Some(given), ..Sysconfig::default() };
            match release {
                Some(_) => assert_eq!(super::release(&Tree::new(root.path()), &system).unwrap().as_deref(), release),
                None => {
                    let error = super::release(&Tree::new(root.path()), &system).unwrap_err().to_string();
                    assert!(error.starts_with("kdump-tools:3: ") && error.contains("does not tell"), "{error}");
                }
            }
        }
        assert_eq!(super::release(&Tree::new(root.path()), &Sysconfig::default()).unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_header_ends_in_an_answer(at: u16, version in "[0-9a-z. -]{0,40}", cut in 0usize..0x500) {
            let mut bytes = image(&version);
            bytes[0x20e..0x210].copy_from_slice(&at.to_le_bytes());
            bytes.truncate(cut);
            let _ = of_header(&bytes);
        }
    }
}
