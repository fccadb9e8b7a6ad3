//! The firmware that the chosen modules ask for, as far as this machine has it.
//!
//! A module names all files that any of its devices may want; missing ones are the normal case and no error.

use crate::host::Tree;
use crate::plan::Entry;
use std::collections::BTreeMap;
use std::path::{Component, Path};

/// As distributions pack firmware; the kernel looks for these itself.
const SUFFIXES: [&str; 3] = ["", ".xz", ".zst"];

/// The files for these names, each with the module that asks.
pub fn gather(tree: &Tree, wanted: &BTreeMap<String, String>, release: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (name, module) in wanted {
        if !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
            continue;
        }
        let places = [format!("/lib/firmware/{release}"), "/lib/firmware".to_owned()];
        let found =
            places.iter().flat_map(|dir| SUFFIXES.map(|suffix| format!("{dir}/{name}{suffix}"))).find_map(|path| {
                let file = tree.resolve(Path::new(&path)).ok().filter(|file| file.is_file())?;
                Some((path, std::fs::read(file).ok()?))
            });
        if let Some((path, bytes)) = found {
            entries.push(Entry::file(&path, bytes, format!("firmware of {module}")));
        }
    }
    entries
}
