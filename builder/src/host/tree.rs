//! A root directory whose symbolic links are followed as if it were `/`.
//!
//! A sysroot's `/lib64 -> /usr/lib64` must lead to the sysroot's own `/usr/lib64`, not to this machine's.

use anyhow::Context;
use kdump_hooks::links;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// The files of a machine. It remembers what it was asked for: that is what an image is made of.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
    asked: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl Tree {
    /// The files below `root`.
    pub fn new(root: &Path) -> Self {
        Tree { root: root.to_owned(), asked: Arc::default() }
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether these are the files of the machine that this program runs on.
    pub fn is_this_machine(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where an absolute path of the machine is found, its links not looked at.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = links::below(&self.root, path.as_ref());
        self.note(&path);
        path
    }

    /// Remembers a file that was found in another way.
    pub fn note(&self, path: &Path) {
        if let Ok(mut asked) = self.asked.lock()
            && !asked.contains(path)
        {
            asked.insert(path.to_owned());
        }
    }

    /// Every path that this tree and its copies were asked for, there or not.
    pub fn asked(&self) -> Vec<PathBuf> {
        self.asked.lock().map(|asked| asked.iter().cloned().collect()).unwrap_or_default()
    }

    /// The path without links and without the root in front: what the machine itself calls the file.
    ///
    /// # Errors
    /// A part of it is missing or unreadable, or the links go in circles.
    pub fn canonical(&self, path: &Path) -> anyhow::Result<PathBuf> {
        let canonical = links::canonical(&self.root, path)?;
        // Where a link leads may change.
        if canonical != path {
            self.path(path);
        }
        Ok(canonical)
    }

    /// The file that the machine means by `path`.
    ///
    /// # Errors
    /// As [`Tree::canonical`].
    pub fn resolve(&self, path: &Path) -> anyhow::Result<PathBuf> {
        Ok(self.path(self.canonical(path)?))
    }

    /// Reads a file of the machine.
    ///
    /// # Errors
    /// It is not there or cannot be read.
    pub fn read(&self, path: &Path) -> anyhow::Result<Vec<u8>> {
        let file = self.resolve(path)?;
        fs::read(&file).with_context(|| format!("cannot read {}", file.display()))
    }

    /// The text of a small file such as those of proc and sysfs, without the line end. `None` if it cannot be read.
    pub fn line(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok().map(|text| text.trim_end().to_owned())
    }
}
