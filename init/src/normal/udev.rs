//! What the system's udev has to find of the volumes that were put together before it ran.
//!
//! In: the device-mapper devices in sysfs. Out: an entry for each in udev's database below `/run/udev/data`, as a udev in
//! the image would have left it. Without one, device-mapper's own rules take a device for one that is not ready: it gets
//! no links below `/dev/disk`, and whatever waits for it in the system, such as a `/usr` or a swap in fstab, waits in vain
//! (`10-dm.rules` or `55-dm.rules`, "spurious events").
//! May surprise: only what those rules read back is written; udev finds out the rest itself when it looks at the device.

use anyhow::Context;
use std::fs;
use std::path::Path;

/// The database of systemd's udev, which no version has moved yet.
pub(super) const DATA: &str = "/run/udev/data";

/// Writes the entries; gives their number.
///
/// # Errors
/// The database cannot be written.
pub(super) fn note(class: &Path, data: &Path) -> anyhow::Result<usize> {
    let mut noted = 0;
    let Ok(entries) = fs::read_dir(class) else { return Ok(0) };
    for device in entries.flatten().map(|entry| entry.path()) {
        let line = |file: &str| fs::read_to_string(device.join(file)).ok().map(|text| text.trim_end().to_owned());
        let (Some(number), Some(name)) = (line("dev"), line("dm/name")) else { continue };
        let uuid = line("dm/uuid").unwrap_or_default();
        let file = data.join(format!("b{number}"));
        fs::create_dir_all(data)
            .and_then(|()| fs::write(&file, entry(&name, &uuid)))
            .with_context(|| format!("cannot write {}", file.display()))?;
        noted += 1;
    }
    Ok(noted)
}

/// `I:` is when the device was first seen, in microseconds, and must not be 0.
fn entry(name: &str, uuid: &str) -> String {
    format!(
        "I:1\nE:DM_UDEV_PRIMARY_SOURCE_FLAG=1\nE:DM_ACTIVATION=1\nE:DM_UDEV_RULES_VSN=2\nE:DM_NAME={name}\n\
         E:DM_UUID={uuid}\nE:DM_SUSPENDED=0\nV:1\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_volume_has_an_entry_under_its_number_and_nothing_else_has() {
        let dir = tempfile::tempdir().unwrap();
        let (class, data) = (dir.path().join("class"), dir.path().join("run/udev/data"));
        fs::create_dir_all(class.join("dm-0/dm")).unwrap();
        fs::write(class.join("dm-0/dev"), "254:0\n").unwrap();
        fs::write(class.join("dm-0/dm/name"), "vg-root\n").unwrap();
        fs::write(class.join("dm-0/dm/uuid"), "LVM-abc\n").unwrap();
        fs::create_dir_all(class.join("vda")).unwrap();
        fs::write(class.join("vda/dev"), "253:0\n").unwrap();
        assert_eq!(note(&class, &data).unwrap(), 1);
        let written = fs::read_to_string(data.join("b254:0")).unwrap();
        assert!(written.contains("E:DM_UDEV_PRIMARY_SOURCE_FLAG=1\n") && written.contains("E:DM_NAME=vg-root\n"));
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1);
        assert_eq!(note(&dir.path().join("none"), &data).unwrap(), 0);
    }
}
