//! What the command line of mkdumprd asks into an image besides what the configuration does.
//!
//! In: dracut's words for it. Out: the same as lines of the configuration, each with the option as its place and the word
//! as its line; files for other places of the image. May surprise: what is included is copied as it is, links and all;
//! only programs that are installed bring their libraries along.

use crate::config::{Config, Given, Origin};
use crate::gather::drivers;
use crate::host::Tree;
use crate::plan::Entry;
use anyhow::{Context, bail};
use kdump_hooks::kmod::{Index, ModuleName};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Modules that must be in it.
    pub add_drivers: Vec<String>,
    /// Modules that must not be loaded, and so stay out of it.
    pub omit_drivers: Vec<String>,
    /// Programs and files of the host, at their own paths.
    pub install: Vec<PathBuf>,
    /// Files and directories of the host, each with its path in the image.
    pub include: Vec<(PathBuf, PathBuf)>,
    /// The drivers of most machines as well.
    pub generic: bool,
}

impl Asked {
    /// Says the same in the configuration.
    pub fn write_to(&self, config: &mut Config, index: &Index) {
        let dump = &mut config.dump;
        dump.extra_modules.extend(given("--add-drivers", &self.add_drivers));
        dump.forbid_modules.extend(given("--omit-drivers", &self.omit_drivers));
        let (paths, names): (Vec<PathBuf>, Vec<PathBuf>) =
            self.install.iter().cloned().partition(|path| path.is_absolute());
        dump.extra_bins.extend(given("--install", &paths));
        config.system.required_programs.extend(given("--install", &names));
        if self.generic {
            let requests = drivers::generic().into_iter().map(|need| need.request);
            let known: Vec<String> =
                requests.filter(|request| index.get(&ModuleName::new(request)).is_some()).collect();
            config.dump.extra_modules.extend(given("--no-hostonly", &known));
        }
    }

    /// What is included.
    ///
    /// # Errors
    /// It is not there or cannot be read.
    pub fn entries(&self, tree: &Tree) -> anyhow::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for (from, to) in &self.include {
            let what = || format!("cannot include {} as {}", from.display(), to.display());
            // A link is followed where it is named, and kept where it is found.
            copy(&tree.resolve(from).with_context(what)?, to, tree, &mut entries).with_context(what)?;
        }
        Ok(entries)
    }
}

/// Words of an option, each with its place.
fn given<T: Clone>(option: &str, words: &[T]) -> Vec<Given<T>> {
    let origin = |number: usize| Origin::Line(PathBuf::from(option), number + 1);
    words.iter().enumerate().map(|(number, word)| Given { value: word.clone(), origin: origin(number) }).collect()
}

/// A file or directory at another place in the image.
fn copy(from: &Path, to: &Path, tree: &Tree, entries: &mut Vec<Entry>) -> anyhow::Result<()> {
    const REASON: &str = "--include names it";
    let name = to.to_str().with_context(|| format!("{} is not UTF-8", to.display()))?;
    let meta = fs::symlink_metadata(from).with_context(|| format!("cannot look at {}", from.display()))?;
    let mode = meta.permissions().mode() & 0o7777;
    if meta.is_symlink() {
        let target = fs::read_link(from)?;
        entries.push(Entry::symlink(name, target.to_str().context("a link's target is not UTF-8")?, REASON));
    } else if meta.is_dir() {
        if to != Path::new("/") {
            entries.push(Entry { mode, ..Entry::directory(name, REASON) });
        }
        let mut names = fs::read_dir(from)?.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<Vec<_>>>()?;
        names.sort();
        names.iter().try_for_each(|name| copy(&from.join(name), &to.join(name), tree, entries))?;
    } else if meta.is_file() {
        tree.note(from);
        let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        entries.push(Entry { mode, ..Entry::file(name, bytes, REASON) });
    } else {
        bail!("{} is neither a file nor a directory", from.display());
    }
    Ok(())
}
