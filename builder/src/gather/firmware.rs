//! The firmware that the chosen modules ask for, as far as this machine has it.
//!
//! A module names all files that any of its devices may want; missing ones are the normal case and no error.

use crate::host::Tree;
use crate::plan::Entry;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// As distributions pack firmware; the kernel looks for these itself.
const SUFFIXES: [&str; 3] = ["", ".xz", ".zst"];

/// The files for these names, each with the module that asks. `others` are looked at before the usual places; the kernel
/// finds what is there in the usual one.
pub fn gather(tree: &Tree, wanted: &BTreeMap<String, String>, release: &str, others: &[PathBuf]) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (name, module) in wanted {
        if !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
            continue;
        }
        let usual = [format!("/lib/firmware/{release}"), "/lib/firmware".to_owned()];
        let places = others.iter().map(|dir| (dir.display().to_string(), "/lib/firmware".to_owned()));
        let found = places
            .chain(usual.into_iter().map(|dir| (dir.clone(), dir)))
            .flat_map(|(from, to)| {
                SUFFIXES.map(|suffix| (format!("{from}/{name}{suffix}"), format!("{to}/{name}{suffix}")))
            })
            .find_map(|(from, to)| {
                let file = tree.resolve(Path::new(&from)).ok().filter(|file| file.is_file())?;
                Some((to, std::fs::read(file).ok()?))
            });
        if let Some((path, bytes)) = found {
            entries.push(Entry::file(&path, bytes, format!("firmware of {module}")));
        }
    }
    entries
}
