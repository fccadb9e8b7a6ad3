//! The directories and the one device node that an image starts with.

use crate::plan::{Entry, Kind};

/// What is mounted or made there at boot.
const DIRECTORIES: [(&str, &str); 7] = [
    ("dev", "devtmpfs is mounted on it"),
    ("proc", "proc is mounted on it"),
    ("sys", "sysfs is mounted on it"),
    ("run", "tmpfs is mounted on it"),
    ("tmp", "room for programs"),
    ("kdump", "the target is mounted below it"),
    ("kdump/target", "the target is mounted on it"),
];

/// The entries that do not depend on anything.
pub fn gather() -> Vec<Entry> {
    let mut entries: Vec<Entry> = DIRECTORIES.iter().map(|(path, reason)| Entry::directory(path, reason)).collect();
    entries.push(Entry {
        path: "dev/console".into(),
        kind: Kind::CharDevice { major: 5, minor: 1 },
        mode: 0o600,
        reason: "PID 1 is started with it before devtmpfs is there".into(),
    });
    entries
}
