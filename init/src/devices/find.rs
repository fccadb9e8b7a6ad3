//! From a name in a configuration to a device node.

use super::superblock::{Superblock, probe};
use kdump_hooks::DeviceSpec;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The node of `spec`, if it is there now. `class` is `/sys/class/block`, `dev` is `/dev`.
pub fn find(spec: &DeviceSpec, class: &Path, dev: &Path) -> Option<PathBuf> {
    if let DeviceSpec::Path(path) = spec {
        let node = dev.join(path.strip_prefix("/dev").ok()?);
        return node.exists().then_some(node);
    }
    block_devices(class).into_iter().map(|name| dev.join(name)).find(|node| {
        superblock(node).is_some_and(|superblock| spec.matches(superblock.uuid.as_deref(), superblock.label.as_deref()))
    })
}

/// What is there, for the message that says what is not.
pub(super) fn inventory(class: &Path, dev: &Path) -> Vec<String> {
    block_devices(class)
        .into_iter()
        .map(|name| match superblock(&dev.join(&name)) {
            None => name,
            Some(Superblock { fstype, uuid, label }) => {
                let uuid = uuid.map(|uuid| format!(" UUID={uuid}")).unwrap_or_default();
                let label = label.map(|label| format!(" LABEL={label}")).unwrap_or_default();
                format!("{name} ({fstype}{uuid}{label})")
            }
        })
        .collect()
}

/// Block devices by name, those that hold no data of their own left out.
fn block_devices(class: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(class) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !["ram", "loop", "zram"].iter().any(|kind| name.starts_with(kind)))
        .collect();
    names.sort();
    names
}

fn superblock(node: &Path) -> Option<Superblock> {
    probe(&mut File::open(node).ok()?).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_by_what_is_on_it_and_the_rest_is_listed() {
        let tree = tempfile::tempdir().unwrap();
        let (class, dev) = (tree.path().join("class"), tree.path().join("dev"));
        for name in ["vda", "vdb", "loop0"] {
            fs::create_dir_all(class.join(name)).unwrap();
        }
        fs::create_dir_all(&dev).unwrap();
        let mut xfs = vec![0; 4096];
        xfs[..4].copy_from_slice(b"XFSB");
        xfs[108..113].copy_from_slice(b"crash");
        fs::write(dev.join("vda"), vec![0; 4096]).unwrap();
        fs::write(dev.join("vdb"), xfs).unwrap();
        let find = |spec: &str| find(&spec.parse().unwrap(), &class, &dev);
        assert_eq!(find("LABEL=crash"), Some(dev.join("vdb")));
        assert_eq!(find("/dev/vda"), Some(dev.join("vda")));
        assert_eq!(find("UUID=1"), None);
        assert_eq!(find("/dev/vdz"), None);
        assert_eq!(inventory(&class, &dev), ["vda", "vdb (xfs LABEL=crash)"]);
    }
}
