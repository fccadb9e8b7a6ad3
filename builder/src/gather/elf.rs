//! The shared libraries of a program, found as its loader would find them below a sysroot.
//!
//! In: an ELF file. Out: the loader and every library, each at the path where the loader looks for it in the image. An
//! image has no `ld.so.cache`, so a library from a directory that only ld.so.conf names is put beside the C library.

use crate::host::Tree;
use crate::plan::Entry;
use anyhow::{Context, bail};
use goblin::elf::Elf;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where loaders look without being told.
const STANDARD: [&str; 6] =
    ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];

/// More libraries than any program has.
const MAX_LIBRARIES: usize = 512;

/// Whether these bytes begin an ELF file.
pub fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

/// Whether a program brings everything that it needs.
///
/// # Errors
/// It is not an ELF file.
pub fn is_static(bytes: &[u8]) -> anyhow::Result<bool> {
    let elf = Elf::parse(bytes).context("it is not a program for this machine")?;
    Ok(elf.interpreter.is_none() && elf.libraries.is_empty())
}

/// The loader and the libraries of the program at `path`.
///
/// # Errors
/// One of them is missing below the sysroot.
pub fn libraries(tree: &Tree, path: &Path, bytes: &[u8]) -> anyhow::Result<Vec<Entry>> {
    let mut found: BTreeMap<String, (PathBuf, Vec<u8>, String)> = BTreeMap::new();
    let mut entries = Vec::new();
    let mut todo: Vec<(PathBuf, Vec<u8>)> = vec![(path.to_owned(), bytes.to_vec())];
    let configured = configured(tree);
    while let Some((path, bytes)) = todo.pop() {
        let elf = Elf::parse(&bytes).with_context(|| format!("cannot read {} as ELF", path.display()))?;
        let reason = format!("needed by {}", path.display());
        if let Some(loader) = elf.interpreter {
            let bytes = tree
                .read(Path::new(loader))
                .with_context(|| format!("cannot take the loader of {}", path.display()))?;
            entries.push(Entry::program(loader, bytes, reason.clone()));
        }
        let origin = path.parent().unwrap_or(Path::new("/"));
        let own: Vec<PathBuf> = match elf.runpaths.is_empty() {
            true => &elf.rpaths,
            false => &elf.runpaths,
        }
        .iter()
        .flat_map(|list| list.split(':'))
        .filter(|dir| !dir.is_empty())
        .map(|dir| dir.replace("${ORIGIN}", "$ORIGIN").replace("$ORIGIN", &origin.to_string_lossy()).into())
        .collect();
        for name in &elf.libraries {
            if found.contains_key(*name)
                || entries.iter().any(|entry: &Entry| entry.path.ends_with(&format!("/{name}")))
            {
                continue;
            }
            if found.len() >= MAX_LIBRARIES {
                bail!("{} needs more than {MAX_LIBRARIES} libraries", path.display());
            }
            let dirs = own.iter().map(PathBuf::as_path).chain(STANDARD.iter().map(Path::new));
            let candidates = dirs.chain(configured.iter().map(PathBuf::as_path)).map(|dir| dir.join(name));
            let Some((place, library)) = candidates.into_iter().find_map(|place| same_kind(tree, place, &elf)) else {
                bail!("{} needs {name}, which is in no library directory of {}", path.display(), tree.root().display());
            };
            found.insert((*name).to_owned(), (place.clone(), library.clone(), reason.clone()));
            todo.push((place, library));
        }
    }
    let beside = found.get("libc.so.6").and_then(|(place, _, _)| place.parent()).map(Path::to_owned);
    for (name, (place, bytes, reason)) in found {
        let only_configured = place.parent().is_some_and(|dir| configured.iter().any(|other| other == dir));
        let standard = place.parent().is_some_and(|dir| STANDARD.iter().any(|other| Path::new(other) == dir));
        let place = match &beside {
            Some(dir) if only_configured && !standard => dir.join(name),
            _ => place,
        };
        entries.push(Entry::program(&place.to_string_lossy(), bytes, reason));
    }
    Ok(entries)
}

/// The library at `place`, if there is one for the same machine.
fn same_kind(tree: &Tree, place: PathBuf, of: &Elf) -> Option<(PathBuf, Vec<u8>)> {
    let bytes = tree.read(&place).ok()?;
    let header = Elf::parse_header(&bytes).ok()?;
    let same = header.e_machine == of.header.e_machine && header.e_ident.get(4) == of.header.e_ident.get(4);
    same.then_some((place, bytes))
}

/// The directories of ld.so.conf and of the files that it usually includes.
fn configured(tree: &Tree) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(tree.path("etc/ld.so.conf.d"))
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "conf"));
    files.sort();
    files.insert(0, tree.path("etc/ld.so.conf"));
    let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    texts
        .flat_map(|text| {
            let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim().to_owned());
            lines.filter(|line| line.starts_with('/')).map(PathBuf::from).collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts the entries below a directory, as an image has them.
    fn lay_out(dir: &Path, entries: &[Entry]) {
        for entry in entries {
            let crate::plan::Kind::File(bytes) = &entry.kind else { continue };
            let path = dir.join(&entry.path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    #[test]
    fn a_program_of_this_machine_comes_with_all_that_its_loader_asks_for() {
        let shell = Path::new("/bin/sh");
        let tree = Tree::new(Path::new("/"));
        let bytes = tree.read(shell).unwrap();
        if is_static(&bytes).unwrap() {
            eprintln!("skipped: /bin/sh needs no libraries here");
            return;
        }
        let entries = libraries(&tree, shell, &bytes).unwrap();
        let loader = Elf::parse(&bytes).unwrap().interpreter.unwrap().trim_start_matches('/').to_owned();
        assert!(entries.iter().any(|entry| entry.path == loader), "{entries:?}");
        let libc = entries.iter().find(|entry| entry.path.ends_with("/libc.so.6")).unwrap();
        assert_eq!(libc.reason, "needed by /bin/sh");

        // What was found is enough for a second look that sees nothing else, and without it the first gap is named.
        let dir = tempfile::tempdir().unwrap();
        lay_out(dir.path(), &entries);
        let alone = Tree::new(dir.path());
        let again = libraries(&alone, shell, &bytes).unwrap();
        assert_eq!(again.len(), entries.len());
        fs::remove_file(dir.path().join(&libc.path)).unwrap();
        let error = libraries(&alone, shell, &bytes).unwrap_err().to_string();
        assert!(error.contains("needs libc.so.6, which is in no library directory of"), "{error}");
    }

    #[test]
    fn what_is_no_program_is_no_static_program() {
        assert!(is_static(b"#!/bin/sh").is_err());
        assert!(is_static(&crate::fake::object(&[])).unwrap());
    }
}
