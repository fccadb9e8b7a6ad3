//! A kernel's image: where it is, what is in it, and the kernel itself.
//!
//! ```text
//!   release ─▶ find ─▶ vmlinuz ────────────▶ unpack ─▶ the kernel's own bytes
//!                   └▶ unified image ─▶ kernel ─┘
//! ```
//!
//! In: a system's root and a release, or a file. Out: a path, or bytes. The builder, kdumpctl and kpatch ask; PID 1 has no
//! room for what unpacks a kernel and calls nothing of it.
//! Facts: RHEL's `/boot/vmlinuz-RELEASE` and, with kernel-install, `$BOOT/TOKEN/RELEASE/linux` or
//! `$BOOT/EFI/Linux/TOKEN-RELEASE.efi`, which the boot counting of the UAPI group's boot loader specification may lengthen
//! to `TOKEN-RELEASE+LEFT-DONE.efi`; Fedora's kernel-uki-virt has `lib/modules/RELEASE/vmlinuz-virt.efi`.

pub mod unified;
mod unpacked;

pub use unpacked::unpack;

use crate::links::below;
use anyhow::bail;
use std::fs;
use std::path::{Path, PathBuf};

/// Where kernels are, if nobody says otherwise.
const DIRECTORIES: [&str; 4] = ["/boot", "/boot/efi", "/efi", "/"];
/// Where the modules of each release are, often with a copy of their kernel.
const MODULES: [&str; 2] = ["lib/modules", "usr/lib/modules"];

/// What a system calls its kernels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// Where they are.
    pub directories: Vec<PathBuf>,
    /// What stands before the release.
    pub name: String,
    /// What stands behind it.
    pub extension: String,
}

impl Default for Naming {
    fn default() -> Self {
        let directories = DIRECTORIES.map(PathBuf::from).to_vec();
        Naming { directories, name: "vmlinuz".to_owned(), extension: String::new() }
    }
}

impl Naming {
    /// The image of a kernel of that release. One that is a file by itself goes before a unified one, which has to be read
    /// to take it out.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, root: &Path, release: &str) -> anyhow::Result<PathBuf> {
        let own = tokens(root);
        let Naming { name, extension, .. } = self;
        let directories = || self.directories.iter().map(|directory| below(root, directory));
        let modules = || MODULES.map(|modules| root.join(modules).join(release)).into_iter();
        let named = directories().map(|directory| directory.join(format!("{name}-{release}{extension}")));
        let installed = directories().flat_map(|directory| own_first(&directory, &own)).flat_map(|token| {
            let directory = token.join(release);
            [directory.join("linux"), directory.join(name)]
        });
        let unified = directories().map(|directory| directory.join("EFI/Linux")).chain(modules());
        let unified = unified.flat_map(|directory| own_first(&directory, &own));
        let mut unified = unified.filter(|path| is_unified(path, release));
        let mut alone = named.chain(installed).chain(modules().map(|directory| directory.join(name)));
        if let Some(found) = alone.find(|path| path.is_file()).or_else(|| unified.find(|path| path.is_file())) {
            return Ok(found);
        }
        let directories: Vec<String> = directories().map(|directory| directory.display().to_string()).collect();
        bail!(
            "there is no kernel {release}: neither {name}-{release}{extension} nor */{release}/linux nor \
             EFI/Linux/*-{release}.efi in {}, nor {name} in lib/modules/{release}",
            directories.join(", ")
        )
    }
}

/// What the system calls itself where several share a boot directory.
fn tokens(root: &Path) -> Vec<String> {
    let line = |path| fs::read_to_string(root.join(path)).ok().map(|text| text.trim().to_owned());
    let tokens = ["etc/kernel/entry-token", "etc/machine-id"].into_iter().filter_map(line);
    tokens.filter(|token| !token.is_empty()).collect()
}

/// What is in a directory, the system's own before what others have put there, and each by name.
fn own_first(directory: &Path, own: &[String]) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    let is_own = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        own.iter()
            .any(|token| name.strip_prefix(token.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-')))
    };
    paths.sort_by_key(|path| (!is_own(path), path.clone()));
    paths
}

/// Whether a file's name is that of a unified image of this release, or lies beside the release's modules.
fn is_unified(path: &Path, release: &str) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some(name) = name.strip_suffix(".efi") else { return false };
    let of_release =
        |name: &str| name.strip_suffix(release).is_some_and(|token| token.is_empty() || token.ends_with('-'));
    let is_count = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let counted = name.rsplit_once('+').filter(|(_, count)| is_count(count));
    of_release(name)
        || counted.is_some_and(|(name, _)| of_release(name))
        || path.parent().is_some_and(|directory| directory.ends_with(Path::new("modules").join(release)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_found_wherever_distributions_put_it() {
        let system = tempfile::tempdir().unwrap();
        let root = system.path();
        let put = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("etc/machine-id", "cafe\n");
        // The last comes before all those above it.
        for path in [
            "usr/lib/modules/6.1+x/vmlinuz-virt.efi",
            "efi/EFI/Linux/fedora-6.1+x+3-1.efi",
            "efi/EFI/Linux/cafe-6.1+x.efi",
            "boot/efi/EFI/Linux/other-6.1+x.efi",
            "lib/modules/6.1+x/vmlinuz",
            "efi/other/6.1+x/linux",
            "efi/cafe/6.1+x/linux",
            "boot/vmlinuz-6.1+x",
        ] {
            put(path, "");
            // Those of other releases, which are none of ours.
            put(&path.replace("6.1+x", "16.1+x"), "");
            put(&path.replace("6.1+x", "6.1"), "");
            assert_eq!(Naming::default().find(root, "6.1+x").unwrap(), root.join(path));
        }
        let error = Naming::default().find(root, "6.9").unwrap_err().to_string();
        assert!(error.contains("no kernel 6.9") && error.contains("EFI/Linux/*-6.9.efi"), "{error}");
        put("mnt/Image-6.9.gz", "");
        let naming = Naming { directories: vec!["/mnt".into()], name: "Image".into(), extension: ".gz".into() };
        assert_eq!(naming.find(root, "6.9").unwrap(), root.join("mnt/Image-6.9.gz"));
    }
}
