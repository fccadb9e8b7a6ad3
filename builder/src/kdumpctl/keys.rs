//! Has the kernel keep the keys of encrypted targets for the capture kernel.
//!
//! In: the image configuration. Out: one directory per key below `crash_dm_crypt_keys` in configfs, in which the kernel
//! reads what the key is called; it takes the key itself from root's keyring when the capture kernel is loaded.

use crate::host::Tree;
use crate::inspect;
use anyhow::Context;
use kdump_hooks::storage::{Crypt, Key, Layer};
use kdump_init::config::ImageConfig;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const KEYS: &str = "sys/kernel/config/crash_dm_crypt_keys";

/// Names the keys to the kernel; how many there are.
///
/// # Errors
/// The kernel refuses one.
pub(super) fn hand_over(tree: &Tree, config: &ImageConfig) -> anyhow::Result<usize> {
    let mut count = 0;
    for layer in &config.hooks.storage {
        let Layer::Crypt(Crypt { name, key: Key::Kernel(description), .. }) = layer else { continue };
        let directory = tree.path(KEYS).join(description.rsplit(':').next().unwrap_or(description));
        let made = match fs::create_dir(&directory) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => fs::write(directory.join("description"), description),
        };
        made.with_context(|| {
            format!(
                "cannot name the key of {name} to the kernel in {}; put a key file into /etc/crypttab",
                directory.display()
            )
        })?;
        count += 1;
    }
    Ok(count)
}

/// The files that the keys in an image are from.
pub(super) fn files(tree: &Tree, image: &Path) -> Vec<PathBuf> {
    let config = fs::read(image).ok().and_then(|image| inspect::config(&image).ok());
    let layers = config.map(|config| config.hooks.storage).unwrap_or_default();
    let keys = layers.iter().filter_map(|layer| match layer {
        Layer::Crypt(Crypt { key: Key::File { path, .. }, .. }) => Some(tree.path(path)),
        _ => None,
    });
    let mut files: Vec<PathBuf> = keys.collect();
    if !files.is_empty() {
        files.push(tree.path("etc/crypttab"));
    }
    files
}

/// What to do when the kernel cannot find a key.
pub(super) const REMEDY: &str = "the keys of encrypted targets must be in root's keyring: put \
    link-volume-key=@u::%logon:kdump-cryptsetup:vk-UUID into the volume's options in /etc/crypttab, and open it again";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_in_an_image_is_one_that_the_image_depends_on() {
        use crate::cpio::write::{self, Packing};
        use crate::plan::{Entry, Plan};
        let text = "version = 1\nkernel_release = '6.16'\nbuilt_by = 'test'\n[dump]\npath = '/'\ncollector = []\n\
             [endings]\nfailure_action = 'halt'\nfinal_action = 'halt'\n[limits]\n[hooks]\ntargets = []\n\
             [[hooks.storage]]\nlayer = 'crypt'\nname = 'b'\ndevice = 'UUID=cd'\nkey = { file = { path = '/k' } }\n";
        let mut plan = Plan::default();
        plan.add(Entry::file(kdump_init::config::PATH, text.into(), "test")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (tree, image) = (Tree::new(dir.path()), dir.path().join("image"));
        write::write(&plan, 0, Packing::None, &mut fs::File::create(&image).unwrap()).unwrap();
        assert_eq!(files(&tree, &image), [dir.path().join("k"), dir.path().join("etc/crypttab")]);
    }

    #[test]
    fn each_key_that_the_kernel_hands_over_is_named_to_it() {
        let text = "version = 1\nkernel_release = '6.16'\nbuilt_by = 'test'\n[dump]\npath = '/'\ncollector = []\n\
             [endings]\nfailure_action = 'halt'\nfinal_action = 'halt'\n[limits]\n[hooks]\ntargets = []\n\
             [[hooks.storage]]\nlayer = 'crypt'\nname = 'a'\ndevice = 'UUID=ab'\nkey = { kernel = 'kdump-cryptsetup:vk-ab' }\n\
             [[hooks.storage]]\nlayer = 'crypt'\nname = 'b'\ndevice = 'UUID=cd'\nkey = { file = { path = '/k' } }\n";
        let config = ImageConfig::parse(text).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path());
        let error = format!("{:#}", hand_over(&tree, &config).unwrap_err());
        assert!(error.contains("cannot name the key of a to the kernel"), "{error}");
        fs::create_dir_all(tree.path(KEYS)).unwrap();
        for _ in 0..2 {
            assert_eq!(hand_over(&tree, &config).unwrap(), 1);
        }
        // An image without a configuration has no keys.
        assert!(files(&tree, Path::new("/dev/null")).is_empty());
        let description = fs::read_to_string(tree.path(KEYS).join("vk-ab/description")).unwrap();
        assert_eq!(description, "kdump-cryptsetup:vk-ab");
    }
}
