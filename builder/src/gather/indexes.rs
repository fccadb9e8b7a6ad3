//! depmod's indexes for the modules of an image: the lines that concern them, otherwise as they are.
//!
//! In: the index files of the kernel, the chosen modules. Out: the same files, filtered. What may surprise: a module
//! that was decompressed has lost its suffix, so `modules.dep` is written with the names that the image has.

use super::modules::Chosen;
use crate::plan::Entry;
use kdump_hooks::kmod::{ModuleName, module_of_file};
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context;

/// The filtered indexes as entries below `into`.
///
/// # Errors
/// An index is there but cannot be read.
pub fn gather(modules_dir: &Path, into: &str, chosen: &BTreeMap<ModuleName, Chosen>) -> anyhow::Result<Vec<Entry>> {
    let read = |name: &str| -> anyhow::Result<String> {
        let path = modules_dir.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    };
    let of_word = |line: &str, word: usize| {
        line.split_whitespace().nth(word).is_some_and(|name| chosen.contains_key(&ModuleName::new(name)))
    };
    let lines = |text: &str, keep: &dyn Fn(&str) -> bool| -> String {
        text.lines().filter(|line| keep(line)).map(|line| format!("{line}\n")).collect()
    };
    let entry =
        |name: &str, text: String, reason: &str| Entry::file(&format!("{into}/{name}"), text.into_bytes(), reason);
    Ok(vec![
        entry("modules.dep", dependencies(&read("modules.dep")?, chosen), "which module needs which"),
        entry(
            "modules.alias",
            lines(&read("modules.alias")?, &|line| of_word(line, 2)),
            "which module a device asks for",
        ),
        entry(
            "modules.softdep",
            lines(&read("modules.softdep")?, &|line| of_word(line, 1)),
            "which module goes before which",
        ),
        entry("modules.builtin", read("modules.builtin")?, "what needs no loading"),
        entry(
            "modules.builtin.modinfo",
            builtin_aliases(&read("modules.builtin.modinfo")?),
            "aliases of what needs no loading",
        ),
    ])
}

fn dependencies(text: &str, chosen: &BTreeMap<ModuleName, Chosen>) -> String {
    let in_image = |path: &str| {
        let module = module_of_file(path).and_then(|name| chosen.get(&name));
        module.map(|module| module.index_path.clone())
    };
    let mut out = String::new();
    for line in text.lines() {
        let Some((path, needs)) = line.split_once(':') else { continue };
        let Some(path) = in_image(path) else { continue };
        out.extend([path.as_str(), ":"]);
        for need in needs.split_whitespace().filter_map(in_image) {
            out.extend([" ", need.as_str()]);
        }
        out.push('\n');
    }
    out
}

/// Only aliases are looked up at boot; licences and authors stay out.
fn builtin_aliases(text: &str) -> String {
    let is_alias = |entry: &&str| entry.split_once('=').is_some_and(|(key, _)| key.ends_with(".alias"));
    text.split('\0').filter(is_alias).map(|entry| format!("{entry}\0")).collect()
}
