//! What the devices that were there before us ask for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The modaliases of all devices below `devices` (`/sys/devices`), each with one device that has it. A device that goes
/// away meanwhile is passed over.
pub fn modaliases(devices: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut pending: Vec<PathBuf> = vec![devices.to_owned()];
    while let Some(directory) = pending.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            // Symbolic links lead back into the tree: only true directories are walked.
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                pending.push(entry.path());
            } else if entry.file_name() == "modalias"
                && let Ok(alias) = fs::read_to_string(entry.path())
                && !alias.trim().is_empty()
            {
                found.insert(alias.trim().to_owned(), directory.clone());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_modalias_is_found_once_and_links_are_not_followed() {
        let sys = tempfile::tempdir().unwrap();
        let device = |path: &str, alias: &str| {
            let path = sys.path().join(path);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("modalias"), format!("{alias}\n")).unwrap();
        };
        device("pci0/0000:00:01.0", "pci:v1");
        device("pci0/0000:00:01.0/virtio0", "virtio:d2");
        device("pci0/0000:00:02.0", "pci:v1");
        device("platform/empty", "");
        std::os::unix::fs::symlink(sys.path(), sys.path().join("pci0/subsystem")).unwrap();
        let found = modaliases(sys.path());
        assert_eq!(found.keys().collect::<Vec<_>>(), ["pci:v1", "virtio:d2"]);
        assert!(found.get("virtio:d2").unwrap().ends_with("0000:00:01.0/virtio0"), "{found:?}");
    }
}
