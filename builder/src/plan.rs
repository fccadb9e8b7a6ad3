//! What goes into an image and why: pure data.
//!
//! In: entries from `gather`, in any order. Out: one list, directories first, each part sorted bytewise, so that parents
//! stand before children and two runs give the same bytes. Two answers to what is at one path are an error, not a race.

use anyhow::bail;
use std::collections::BTreeMap;
use std::fmt;

/// One entry of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path in the image, without the leading slash.
    pub path: String,
    /// What is there.
    pub kind: Kind,
    /// Permissions.
    pub mode: u32,
    /// Why, in a few words.
    pub reason: String,
}

/// What is at a path.
#[derive(Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file with these bytes.
    File(Vec<u8>),
    /// A symbolic link to this path.
    Symlink(String),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Directory => f.write_str("Directory"),
            Kind::File(bytes) => write!(f, "File({} bytes)", bytes.len()),
            Kind::Symlink(target) => write!(f, "Symlink({target})"),
            Kind::CharDevice { major, minor } => write!(f, "CharDevice({major}:{minor})"),
        }
    }
}

impl Entry {
    /// A directory.
    pub fn directory(path: &str, reason: &str) -> Self {
        Entry { path: clean(path), kind: Kind::Directory, mode: 0o755, reason: reason.to_owned() }
    }

    /// A file that is read.
    pub fn file(path: &str, bytes: Vec<u8>, reason: impl Into<String>) -> Self {
        Entry { path: clean(path), kind: Kind::File(bytes), mode: 0o644, reason: reason.into() }
    }

    /// A file that is run.
    pub fn program(path: &str, bytes: Vec<u8>, reason: impl Into<String>) -> Self {
        Entry { mode: 0o755, ..Entry::file(path, bytes, reason) }
    }

    /// A symbolic link.
    pub fn symlink(path: &str, target: &str, reason: &str) -> Self {
        Entry { path: clean(path), kind: Kind::Symlink(target.to_owned()), mode: 0o777, reason: reason.to_owned() }
    }

    /// The bytes it brings along.
    pub fn size(&self) -> u64 {
        match &self.kind {
            Kind::File(bytes) => bytes.len() as u64,
            Kind::Symlink(target) => target.len() as u64,
            Kind::Directory | Kind::CharDevice { .. } => 0,
        }
    }
}

/// Everything that goes into an image.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    entries: BTreeMap<String, Entry>,
}

impl Plan {
    /// Adds an entry and the directories that it is in.
    ///
    /// # Errors
    /// Something else is planned for the same path.
    pub fn add(&mut self, entry: Entry) -> anyhow::Result<()> {
        for (slash, _) in entry.path.match_indices('/') {
            let parent = entry.path.get(..slash).unwrap_or_default();
            match self.entries.get(parent) {
                Some(Entry { kind: Kind::Directory, .. }) => {}
                Some(other) => bail!("/{parent} ({}) is no directory, and /{} is below it", other.reason, entry.path),
                None => {
                    let directory = Entry::directory(parent, "holds what is below it");
                    self.entries.insert(directory.path.clone(), directory);
                }
            }
        }
        match self.entries.get_mut(&entry.path) {
            Some(other) if other.kind == entry.kind => other.mode |= entry.mode,
            Some(other) => {
                bail!("/{} is wanted twice with different content: {}; {}", entry.path, other.reason, entry.reason)
            }
            None => {
                self.entries.insert(entry.path.clone(), entry);
            }
        }
        Ok(())
    }

    /// Puts an entry in the place of the one with its path.
    pub fn replace(&mut self, entry: Entry) {
        self.entries.insert(entry.path.clone(), entry);
    }

    /// Adds entries.
    ///
    /// # Errors
    /// As [`Plan::add`].
    pub fn extend(&mut self, entries: impl IntoIterator<Item = Entry>) -> anyhow::Result<()> {
        entries.into_iter().try_for_each(|entry| self.add(entry))
    }

    /// The entries in the order of the image.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        let is_dir = |entry: &&Entry| entry.kind == Kind::Directory;
        self.entries.values().filter(is_dir).chain(self.entries.values().filter(move |entry| !is_dir(entry)))
    }

    /// The entry at `path`.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(&clean(path))
    }

    /// One line per entry: path, tab, reason.
    pub fn manifest(&self) -> String {
        self.entries().map(|entry| format!("{}\t{}\n", entry.path, one_line(&entry.reason))).collect()
    }

    /// The bytes of all files.
    pub fn content_size(&self) -> u64 {
        self.entries.values().map(Entry::size).sum()
    }

    /// The memory that the unpacked image keeps for the whole life of the capture kernel: whole pages.
    pub fn unpacked_size(&self) -> u64 {
        self.entries.values().map(|entry| entry.size().div_ceil(4096) * 4096).sum()
    }

    /// All entries with their reasons, for people: size and path, then why.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.entries().map(|entry| format!("{:>9} /{}: {}", entry.size(), entry.path, one_line(&entry.reason)))
    }
}

fn clean(path: &str) -> String {
    path.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

fn one_line(reason: &str) -> String {
    reason.replace(['\n', '\t'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_stand_before_children_and_files_are_sorted() {
        let mut plan = Plan::default();
        plan.add(Entry::program("/init", vec![1], "first")).unwrap();
        plan.add(Entry::file("etc/kdump/b", vec![], "b")).unwrap();
        plan.add(Entry::file("//etc/a", vec![2, 3], "a")).unwrap();
        let paths: Vec<_> = plan.entries().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["etc", "etc/kdump", "etc/a", "etc/kdump/b", "init"]);
        assert!(plan.manifest().contains("etc/a\ta\n"));
        assert_eq!((plan.content_size(), plan.unpacked_size()), (3, 8192));
    }

    #[test]
    fn the_same_file_for_two_reasons_is_one_entry_and_a_different_one_an_error() {
        let mut plan = Plan::default();
        plan.add(Entry::file("a", vec![1], "one")).unwrap();
        plan.add(Entry::file("a", vec![1], "two")).unwrap();
        assert_eq!(plan.entries().count(), 1);
        let error = plan.add(Entry::file("a", vec![2], "three")).unwrap_err().to_string();
        assert_eq!(error, "/a is wanted twice with different content: one; three");
        let error = plan.add(Entry::file("a/b", vec![2], "four")).unwrap_err().to_string();
        assert_eq!(error, "/a (one) is no directory, and /a/b is below it");
    }
}
