//! How a configuration names a block device.
//!
//! In: `/dev/…`, `UUID=`, `LABEL=`, `PARTUUID=`, `PARTLABEL=` and what udev makes of each below `/dev/disk`. Out: a
//! [`DeviceSpec`], which is compared with the [`Facts`] of a device. May surprise: the names below `by-id` and `by-path`
//! are made by rules of udev that nobody can make again without it; they stay paths, which the builder turns into
//! something that is written on the device, or refuses.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A block device as kdump.conf, fstab and the kernel command line name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceSpec {
    /// A device node, such as `/dev/vda1`.
    Path(PathBuf),
    /// The UUID in the superblock, compared without regard to case: `UUID=…`, `/dev/disk/by-uuid/…`.
    Uuid(String),
    /// The label in the superblock: `LABEL=…`, `/dev/disk/by-label/…`.
    Label(String),
    /// The UUID in the partition table, in any case: `PARTUUID=…`, `/dev/disk/by-partuuid/…`.
    PartUuid(String),
    /// The partition's name in a GPT: `PARTLABEL=…`, `/dev/disk/by-partlabel/…`.
    PartLabel(String),
    /// The identifier that the disk itself gives (`device/wwid`, `wwid` or `serial` in sysfs), the same on every path to
    /// it: `WWID=…`.
    Wwid(String),
}

/// What a block device says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The UUID in the superblock.
    pub uuid: Option<String>,
    /// The label in the superblock.
    pub label: Option<String>,
    /// The UUID in the partition table.
    pub partuuid: Option<String>,
    /// The name in the partition table.
    pub partlabel: Option<String>,
    /// The disk's own identifier; partitions have none.
    pub wwid: Option<String>,
}

/// Makes a name of its text.
type Named = fn(String) -> DeviceSpec;

/// The spellings of each kind of name: as fstab writes it, and the directory of udev's links.
const SPELLINGS: [(&str, Option<&str>, Named); 5] = [
    ("UUID=", Some("/dev/disk/by-uuid/"), DeviceSpec::Uuid),
    ("LABEL=", Some("/dev/disk/by-label/"), DeviceSpec::Label),
    ("PARTUUID=", Some("/dev/disk/by-partuuid/"), DeviceSpec::PartUuid),
    ("PARTLABEL=", Some("/dev/disk/by-partlabel/"), DeviceSpec::PartLabel),
    ("WWID=", None, DeviceSpec::Wwid),
];

impl DeviceSpec {
    /// Whether a device of which this is known is the one meant. Never true for a path.
    pub fn matches(&self, facts: &Facts) -> bool {
        let same = |have: &Option<String>, wanted: &str| have.as_deref() == Some(wanted);
        let alike =
            |have: &Option<String>, wanted: &str| have.as_deref().is_some_and(|have| have.eq_ignore_ascii_case(wanted));
        match self {
            DeviceSpec::Path(_) => false,
            DeviceSpec::Uuid(wanted) => alike(&facts.uuid, wanted),
            DeviceSpec::Label(wanted) => same(&facts.label, wanted),
            DeviceSpec::PartUuid(wanted) => alike(&facts.partuuid, wanted),
            DeviceSpec::PartLabel(wanted) => same(&facts.partlabel, wanted),
            DeviceSpec::Wwid(wanted) => same(&facts.wwid, wanted),
        }
    }

    /// Whether it is told by what is inside the device, so that a part of a RAID or one of several paths may look like
    /// the whole.
    pub fn is_of_content(&self) -> bool {
        matches!(self, DeviceSpec::Uuid(_) | DeviceSpec::Label(_))
    }

    /// The directory below `/dev/disk` whose links are this kind of name.
    pub fn links(&self) -> Option<&'static str> {
        match self {
            DeviceSpec::Path(_) | DeviceSpec::Wwid(_) => None,
            DeviceSpec::Uuid(_) => Some("/dev/disk/by-uuid"),
            DeviceSpec::Label(_) => Some("/dev/disk/by-label"),
            DeviceSpec::PartUuid(_) => Some("/dev/disk/by-partuuid"),
            DeviceSpec::PartLabel(_) => Some("/dev/disk/by-partlabel"),
        }
    }
}

impl FromStr for DeviceSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        for (tag, links, name) in SPELLINGS {
            let value = match (text.strip_prefix(tag), links.and_then(|links| text.strip_prefix(links))) {
                (Some(value), _) => value.trim_matches('"').to_owned(),
                (_, Some(link)) => unescape_udev(link),
                _ => continue,
            };
            return match value.is_empty() {
                true => Err(format!("`{text}` names no device")),
                false => Ok(name(value)),
            };
        }
        match text.strip_prefix("/dev/") {
            Some(name) if !name.is_empty() => Ok(DeviceSpec::Path(PathBuf::from(text))),
            _ => Err(format!("`{text}` is not a block device; write /dev/NAME, UUID=… or LABEL=…")),
        }
    }
}

/// udev writes bytes that a file name should not have as `\xNN`.
fn unescape_udev(name: &str) -> String {
    let mut out = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = match tail {
            [b'x', high, low, ..] if byte == b'\\' => {
                std::str::from_utf8(&[*high, *low]).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok())
            }
            _ => None,
        };
        out.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceSpec::Path(path) => path.display().fmt(f),
            DeviceSpec::Uuid(uuid) => write!(f, "UUID={uuid}"),
            DeviceSpec::Label(label) => write!(f, "LABEL={label}"),
            DeviceSpec::PartUuid(uuid) => write!(f, "PARTUUID={uuid}"),
            DeviceSpec::PartLabel(label) => write!(f, "PARTLABEL={label}"),
            DeviceSpec::Wwid(wwid) => write!(f, "WWID={wwid}"),
        }
    }
}

impl TryFrom<String> for DeviceSpec {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<DeviceSpec> for String {
    fn from(spec: DeviceSpec) -> String {
        spec.to_string()
    }
}

impl From<&Path> for DeviceSpec {
    fn from(path: &Path) -> Self {
        DeviceSpec::Path(path.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_names_its_device() {
        for (text, spec) in [
            ("/dev/vda1", DeviceSpec::Path("/dev/vda1".into())),
            ("/dev/mapper/vg-crash", DeviceSpec::Path("/dev/mapper/vg-crash".into())),
            ("UUID=1234-ABCD", DeviceSpec::Uuid("1234-ABCD".into())),
            ("/dev/disk/by-uuid/1234-ABCD", DeviceSpec::Uuid("1234-ABCD".into())),
            ("LABEL=\"crash\"", DeviceSpec::Label("crash".into())),
            ("PARTUUID=6b64756d-01", DeviceSpec::PartUuid("6b64756d-01".into())),
            ("/dev/disk/by-partlabel/EFI\\x20System", DeviceSpec::PartLabel("EFI System".into())),
            ("/dev/disk/by-id/virtio-x", DeviceSpec::Path("/dev/disk/by-id/virtio-x".into())),
            ("/dev/disk/by-label/my\\x20dumps", DeviceSpec::Label("my dumps".into())),
        ] {
            assert_eq!(text.parse(), Ok(spec));
        }
    }

    #[test]
    fn what_names_no_device_is_refused() {
        for text in ["", "vda", "/dev/", "UUID=", "LABEL=", "PARTUUID=", "/dev/disk/by-label/", "nfs:/export"] {
            assert!(text.parse::<DeviceSpec>().is_err(), "{text}");
        }
    }

    #[test]
    fn uuids_match_in_any_case_and_labels_exactly() {
        let facts = |uuid: &str, label: &str| Facts {
            uuid: Some(uuid.into()),
            label: Some(label.into()),
            partuuid: Some(uuid.into()),
            partlabel: Some(label.into()),
            wwid: None,
        };
        for spec in ["UUID=ABCD-12", "PARTUUID=ABCD-12"] {
            assert!(spec.parse::<DeviceSpec>().unwrap().matches(&facts("abcd-12", "")), "{spec}");
        }
        for spec in ["LABEL=crash", "PARTLABEL=crash"] {
            let spec: DeviceSpec = spec.parse().unwrap();
            assert!(spec.matches(&facts("", "crash")) && !spec.matches(&facts("", "Crash")), "{spec}");
        }
        assert!(!DeviceSpec::Path("/dev/x".into()).matches(&Facts::default()));
    }
}
