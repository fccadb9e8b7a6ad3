//! How a configuration names a block device.

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
}

impl DeviceSpec {
    /// Whether a superblock with that UUID and label is the device meant. Never true for a path.
    pub fn matches(&self, uuid: Option<&str>, label: Option<&str>) -> bool {
        match self {
            DeviceSpec::Path(_) => false,
            DeviceSpec::Uuid(wanted) => uuid.is_some_and(|uuid| uuid.eq_ignore_ascii_case(wanted)),
            DeviceSpec::Label(wanted) => label == Some(wanted),
        }
    }
}

impl FromStr for DeviceSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let quoted = |value: &str| value.trim_matches('"').to_owned();
        let spec = if let Some(uuid) = text.strip_prefix("UUID=").or(text.strip_prefix("/dev/disk/by-uuid/")) {
            DeviceSpec::Uuid(quoted(uuid))
        } else if let Some(label) = text.strip_prefix("LABEL=") {
            DeviceSpec::Label(quoted(label))
        } else if let Some(label) = text.strip_prefix("/dev/disk/by-label/") {
            DeviceSpec::Label(unescape_udev(label))
        } else if text.starts_with("/dev/disk/") || text.starts_with("PARTUUID=") || text.starts_with("PARTLABEL=") {
            return Err(format!("`{text}` is not a name this version can resolve without udev; use UUID= or LABEL="));
        } else if text.starts_with("/dev/") && text.len() > "/dev/".len() {
            DeviceSpec::Path(PathBuf::from(text))
        } else {
            return Err(format!("`{text}` is not a block device; write /dev/NAME, UUID=… or LABEL=…"));
        };
        match &spec {
            DeviceSpec::Uuid(value) | DeviceSpec::Label(value) if value.is_empty() => {
                Err(format!("`{text}` names no device"))
            }
            _ => Ok(spec),
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
            ("/dev/disk/by-label/my\\x20dumps", DeviceSpec::Label("my dumps".into())),
        ] {
            assert_eq!(text.parse(), Ok(spec));
        }
    }

    #[test]
    fn what_names_no_device_is_refused() {
        for text in ["", "vda", "/dev/", "UUID=", "LABEL=", "PARTUUID=12", "/dev/disk/by-id/x", "nfs:/export"] {
            assert!(text.parse::<DeviceSpec>().is_err(), "{text}");
        }
    }

    #[test]
    fn uuids_match_in_any_case_and_labels_exactly() {
        let uuid: DeviceSpec = "UUID=ABCD-12".parse().unwrap();
        assert!(uuid.matches(Some("abcd-12"), None));
        let label: DeviceSpec = "LABEL=crash".parse().unwrap();
        assert!(label.matches(None, Some("crash")));
        assert!(!label.matches(None, Some("Crash")));
        assert!(!DeviceSpec::Path("/dev/x".into()).matches(None, None));
    }
}
