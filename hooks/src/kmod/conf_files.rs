//! Configuration directories that exist several times: modprobe.d, modules-load.d, sysctl.d.

use anyhow::Context;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where they are, strongest first; a file shadows those of the same name in weaker ones.
const PARENTS: [&str; 5] = ["etc", "run", "usr/local/lib", "usr/lib", "lib"];

/// The files of the directories called `name` that count below `root`, in the order in which they are read: by file
/// name over all directories, a file in a stronger directory in place of its namesakes.
///
/// # Errors
/// A directory is there but cannot be listed.
pub(crate) fn conf_files(root: &Path, name: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut files: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for directory in PARENTS.map(|parent| root.join(parent).join(name)) {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(error).with_context(|| format!("cannot list {}", directory.display())),
        };
        for entry in entries {
            let path = entry.with_context(|| format!("cannot list {}", directory.display()))?.path();
            let file = path.file_name().unwrap_or_default();
            let is_conf = path.extension().is_some_and(|extension| extension == "conf" || extension == "alias");
            if is_conf && !file.as_encoded_bytes().starts_with(b".") && !path.is_dir() {
                files.entry(file.to_owned()).or_insert_with(|| path.clone());
            }
        }
    }
    Ok(files.into_values().collect())
}
