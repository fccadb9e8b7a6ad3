//! What the devices that were there before us ask for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The modaliases of all devices below `devices` (`/sys/devices`). A device that goes away meanwhile is passed over.
pub fn modaliases(devices: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
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
                found.insert(alias.trim().to_owned());
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
        assert_eq!(modaliases(sys.path()), BTreeSet::from(["pci:v1".to_owned(), "virtio:d2".to_owned()]));
    }
}
