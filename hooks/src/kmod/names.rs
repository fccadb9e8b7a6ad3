//! How modules and aliases are spelled.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A module's name as the kernel spells it: `-` is `_`, no directory, no suffix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct ModuleName(String);

impl ModuleName {
    /// Takes a name as people write it; everything from the first dot on is dropped, as kmod does.
    pub fn new(name: &str) -> Self {
        let stem = name.split('.').next().unwrap_or_default();
        ModuleName(stem.replace('-', "_"))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for ModuleName {
    fn from(name: String) -> Self {
        ModuleName::new(&name)
    }
}

impl From<&str> for ModuleName {
    fn from(name: &str) -> Self {
        ModuleName::new(name)
    }
}

impl From<ModuleName> for String {
    fn from(name: ModuleName) -> String {
        name.0
    }
}

/// The module that a file of a module tree holds: `kernel/drivers/block/virtio_blk.ko.xz` is `virtio_blk`. `None` if it
/// is no module.
pub fn module_of_file(path: &str) -> Option<ModuleName> {
    let file = path.rsplit('/').next()?;
    let (stem, suffix) = file.split_once(".ko")?;
    matches!(suffix, "" | ".xz" | ".zst" | ".gz").then(|| ModuleName::new(stem))
}

/// An alias or request with `-` as `_` except inside `[…]`, where it is a range.
pub fn normalise_alias(alias: &str) -> String {
    let mut in_set = false;
    alias
        .chars()
        .map(|c| {
            match c {
                '[' => in_set = true,
                ']' => in_set = false,
                '-' if !in_set => return '_',
                _ => {}
            }
            c
        })
        .collect()
}

/// Whether every set of an alias is closed; one that is not asks for nothing.
pub(super) fn is_balanced(alias: &str) -> bool {
    let mut open = false;
    for c in alias.chars() {
        match c {
            '[' if !open => open = true,
            ']' if open => open = false,
            ']' => return false,
            _ => {}
        }
    }
    !open
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelled_as_the_kernel_does() {
        assert_eq!(ModuleName::new("virtio-rng").as_str(), "virtio_rng");
        assert_eq!(ModuleName::new("snd-pcm.ko").as_str(), "snd_pcm");
        assert_eq!(module_of_file("kernel/a/virtio-rng.ko.xz"), Some(ModuleName::new("virtio_rng")));
        assert_eq!(module_of_file("kernel/a/modules.dep"), None);
        assert_eq!(module_of_file("kernel/a/x.ko.bak"), None);
    }

    #[test]
    fn a_dash_in_a_set_is_a_range_and_stays() {
        assert_eq!(normalise_alias("cpu:type:x86-64[0-9]*-x"), "cpu:type:x86_64[0-9]*_x");
    }
}
