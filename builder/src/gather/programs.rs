//! The programs of an image: ours, another collector, and what extra_bins names.
//!
//! In: the directory of our programs, paths of the machine. Out: files at the paths where they are run, with the
//! libraries or the interpreter that they need.

use super::elf;
use crate::config::OURS;
use crate::host::Tree;
use crate::plan::Entry;
use anyhow::{Context, bail};
use kdump_hooks::ProgramNeed;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Interpreters of interpreters: a script may be run by a script.
const MAX_INTERPRETERS: usize = 4;

/// Where the programs of an image look for others.
const PATH: &str = kdump_init::program::PATH;

/// Where packages put our programs that are not for people.
const INSTALLED: &str = "/usr/lib/kdump";

/// Our programs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `kdump-init`.
    pub init: PathBuf,
    /// `kdump-capture`.
    pub capture: PathBuf,
    /// Where they were looked for.
    dirs: Vec<PathBuf>,
}

impl Programs {
    /// Finds them in `dir`, or else beside this program or where packages put them.
    ///
    /// # Errors
    /// One is missing.
    pub fn find(dir: Option<&Path>) -> anyhow::Result<Programs> {
        let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.canonicalize().ok()?.parent()?.to_owned()));
        let dirs: Vec<PathBuf> = match dir {
            Some(dir) => vec![dir.to_owned()],
            None => beside.into_iter().chain([INSTALLED.into()]).collect(),
        };
        let [init, capture] = ["kdump-init", OURS].map(|name| find(&dirs, name));
        Ok(Programs { init: init?, capture: capture?, dirs })
    }

    /// Their files, those that not every image has as well.
    pub fn files(&self) -> Vec<PathBuf> {
        let send = find(&self.dirs, "kdump-send").ok();
        [self.init.clone(), self.capture.clone()].into_iter().chain(send).collect()
    }

    /// Where a program of ours is.
    ///
    /// # Errors
    /// It is missing.
    pub fn place(&self, name: &str) -> anyhow::Result<PathBuf> {
        find(&self.dirs, name)
    }

    /// One that not every image has, as entries.
    ///
    /// # Errors
    /// It is missing or cannot be read.
    pub fn gather_one(&self, name: &str, reason: &str) -> anyhow::Result<Vec<Entry>> {
        let file = find(&self.dirs, name)?;
        let bytes = read(&file)?;
        let mut entries = with_needs(&Tree::new(Path::new("/")), &file, &bytes, 0)?;
        entries.push(Entry::program(&format!("usr/bin/{name}"), bytes, reason));
        Ok(entries)
    }

    /// The programs of a capture image as entries.
    ///
    /// # Errors
    /// A program cannot be read, or init needs libraries.
    pub fn gather(&self, modprobe: &str) -> anyhow::Result<Vec<Entry>> {
        let mut entries = self.gather_init(modprobe)?;
        entries.extend(self.gather_one(OURS, "the collector")?);
        Ok(entries)
    }

    /// Init as entries; the kernel calls `modprobe`, which is init under another name.
    ///
    /// # Errors
    /// It cannot be read, or needs libraries.
    pub fn gather_init(&self, modprobe: &str) -> anyhow::Result<Vec<Entry>> {
        let init = read(&self.init)?;
        if !elf::is_static(&init).with_context(|| format!("cannot use {}", self.init.display()))? {
            bail!("{} needs shared libraries, which PID 1 of an image cannot; build it static", self.init.display());
        }
        Ok(vec![
            Entry::program("init", init, "PID 1"),
            Entry::symlink(modprobe, "/init", "the kernel asks for modules through it"),
        ])
    }
}

fn find(dirs: &[PathBuf], name: &str) -> anyhow::Result<PathBuf> {
    let places: Vec<PathBuf> = dirs.iter().map(|dir| dir.join(name)).collect();
    places.iter().find(|place| place.is_file()).cloned().with_context(|| {
        let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        format!("{name} is missing: {} is not there; name its directory with --programs", places.join(" or "))
    })
}

/// A file of the machine at its own path, and whatever it needs to run.
///
/// # Errors
/// It, its interpreter or a library is missing.
pub fn gather(tree: &Tree, path: &Path, reason: &str) -> anyhow::Result<Vec<Entry>> {
    gather_at(tree, path, reason, 0)
}

/// A program that is named with its path or without; then it is looked for where init would find it.
///
/// # Errors
/// It is nowhere; or as [`gather`].
pub fn gather_named(tree: &Tree, name: &Path, reason: &str) -> anyhow::Result<Vec<Entry>> {
    gather(tree, &found(tree, name)?, reason)
}

fn found(tree: &Tree, name: &Path) -> anyhow::Result<PathBuf> {
    if name.is_absolute() {
        return Ok(name.to_owned());
    }
    let places: Vec<PathBuf> = PATH.split(':').map(|dir| Path::new(dir).join(name)).collect();
    let there = places.into_iter().find(|place| tree.resolve(place).is_ok_and(|file| file.is_file()));
    there.with_context(|| format!("{} is in none of {PATH}", name.display()))
}

/// The first of the files that a hook names, as [`gather`] has it; none, if none is there and it is not required.
///
/// # Errors
/// None is there though one is required; or as [`gather`].
pub fn gather_first(tree: &Tree, need: &ProgramNeed) -> anyhow::Result<Vec<Entry>> {
    match need.paths.iter().find(|path| tree.resolve(path).is_ok_and(|file| file.exists())) {
        Some(path) => gather(tree, path, &need.reason),
        None if need.required => {
            let places: Vec<String> = need.paths.iter().map(|path| path.display().to_string()).collect();
            bail!("{} is missing ({}); install the package that has it", places.join(" or "), need.reason)
        }
        None => Ok(Vec::new()),
    }
}

fn gather_at(tree: &Tree, path: &Path, reason: &str, depth: usize) -> anyhow::Result<Vec<Entry>> {
    // A link stays one: what is there under many names, as busybox is, lies in memory once.
    let canonical = tree.canonical(path)?;
    if canonical != path {
        let [link, target] = [path, &canonical].map(|path| path.to_str().map(str::to_owned));
        let (Some(link), Some(target)) = (link, target) else { bail!("{} is not UTF-8", path.display()) };
        let mut entries = gather_at(tree, &canonical, reason, depth)?;
        entries.push(Entry::symlink(&link, &target, reason));
        return Ok(entries);
    }
    let file = tree.path(&canonical);
    let meta = fs::metadata(&file).with_context(|| format!("cannot read {}", file.display()))?;
    if !meta.is_file() {
        bail!("{} is not a file", file.display());
    }
    let bytes = read(&file)?;
    let mut entries = with_needs(tree, path, &bytes, depth)?;
    let name = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    let entry = match meta.permissions().mode() & 0o111 {
        0 => Entry::file(name, bytes, reason),
        _ => Entry::program(name, bytes, reason),
    };
    entries.push(entry);
    Ok(entries)
}

fn with_needs(tree: &Tree, path: &Path, bytes: &[u8], depth: usize) -> anyhow::Result<Vec<Entry>> {
    if elf::is_elf(bytes) {
        return elf::libraries(tree, path, bytes);
    }
    let first = bytes.split(|&byte| byte == b'\n').next().and_then(|line| line.strip_prefix(b"#!"));
    let Some(line) = first.and_then(|line| std::str::from_utf8(line).ok()) else { return Ok(Vec::new()) };
    let mut words = line.split_whitespace();
    let Some(interpreter) = words.next() else { return Ok(Vec::new()) };
    if depth >= MAX_INTERPRETERS {
        bail!("{} has too many interpreters of interpreters", path.display());
    }
    let take = |interpreter: &Path| {
        gather_at(tree, interpreter, &format!("interpreter of {}", path.display()), depth + 1)
            .with_context(|| format!("cannot take {}, the interpreter of {}", interpreter.display(), path.display()))
    };
    let mut entries = take(Path::new(interpreter))?;
    // env runs what it is told to find; without that, what is told is the path of env alone.
    if Path::new(interpreter).file_name().is_some_and(|name| name == "env")
        && let Some(name) = words.find(|word| !word.starts_with('-') && !word.contains('='))
    {
        let program = found(tree, Path::new(name));
        entries.extend(take(&program.with_context(|| format!("{} runs {name}", path.display()))?)?);
    }
    Ok(entries)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path());
        for (path, text) in [
            ("usr/bin/env", ""),
            ("usr/sbin/tool", "#!/bin/sh -e\n"),
            ("bin/sh", ""),
            ("opt/a", "#!/usr/bin/env tool\n"),
            ("opt/b", "#! /usr/bin/env -S X=1 tool --flag\n"),
            ("opt/c", "#!/usr/bin/env nothing\n"),
            ("usr/bin/many", "tool"),
        ] {
            let file = dir.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, text).unwrap();
        }
        std::os::unix::fs::symlink("many", dir.path().join("usr/bin/one")).unwrap();
        (dir, tree)
    }

    #[test]
    fn a_link_stays_a_link() {
        let (_dir, tree) = tree();
        let entries = gather(&tree, Path::new("/usr/bin/one"), "test").unwrap();
        assert_eq!(entries[0], Entry::file("usr/bin/many", b"tool".to_vec(), "test"));
        assert_eq!(entries[1], Entry::symlink("usr/bin/one", "/usr/bin/many", "test"));
    }

    fn paths(tree: &Tree, path: &str) -> anyhow::Result<Vec<String>> {
        let mut paths: Vec<_> = gather(tree, Path::new(path), "test")?.into_iter().map(|entry| entry.path).collect();
        paths.sort();
        Ok(paths)
    }

    #[test]
    fn env_brings_along_what_it_is_to_run_and_that_its_own_interpreter() {
        let (_dir, tree) = tree();
        for script in ["opt/a", "opt/b"] {
            let all = ["bin/sh", script, "usr/bin/env", "usr/sbin/tool"];
            assert_eq!(paths(&tree, &format!("/{script}")).unwrap(), all);
        }
        let error = format!("{:#}", paths(&tree, "/opt/c").unwrap_err());
        assert!(error.starts_with("/opt/c runs nothing: nothing is in none of /usr/bin:"), "{error}");
    }

    #[test]
    fn a_program_without_a_path_is_looked_for_where_it_would_be_run() {
        let (_dir, tree) = tree();
        let entries = gather_named(&tree, Path::new("tool"), "test").unwrap();
        assert!(entries.iter().any(|entry| entry.path == "usr/sbin/tool"));
        assert!(gather_named(&tree, Path::new("none"), "test").is_err());
    }
}
