//! Has the kernel keep the keys of encrypted targets for the capture kernel.
//!
//! In: the image configuration. Out: one directory per key below `crash_dm_crypt_keys` in configfs, in which the kernel
//! reads what the key is called; it takes the key itself from root's keyring when the capture kernel is loaded.

use crate::host::Tree;
use anyhow::{Context, anyhow};
use kdump_hooks::storage::{Crypt, Key, Layer};
use kdump_init::config::ImageConfig;
use std::fs;
use std::io::ErrorKind;

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

/// What to do when the kernel cannot find a key.
pub(super) const REMEDY: &str = "the keys of encrypted targets must be in root's keyring: put \
    link-volume-key=@u::%logon:kdump-cryptsetup:vk-UUID into the volume's options in /etc/crypttab, and open it again";

/// What is said in the place of RHEL's `setup-crypttab`: which volumes hold dumps is for the administrator to say.
pub(super) fn set_up_by_hand() -> anyhow::Error {
    anyhow!(
        "this kdumpctl does not write /etc/crypttab: {REMEDY}; `kdumpctl start` then hands it to the capture kernel"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let description = fs::read_to_string(tree.path(KEYS).join("vk-ab/description")).unwrap();
        assert_eq!(description, "kdump-cryptsetup:vk-ab");
    }
}
