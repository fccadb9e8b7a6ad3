//! A far side that exists only in memory, for tests.

use super::far::{Far, FarFile, Made};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// What it has, and how it fails.
#[derive(Debug, Default)]
pub(crate) struct FakeFar {
    /// Its directories.
    pub(crate) dirs: BTreeSet<String>,
    /// Its files.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Whether it can seek.
    pub(crate) positioned: bool,
    /// How many bytes fit on it.
    pub(crate) room: Option<usize>,
    /// How many bytes of each file get lost.
    pub(crate) loses: usize,
    /// What it was asked.
    pub(crate) journal: Vec<String>,
}

struct FakeFile<'a> {
    far: &'a mut FakeFar,
    path: String,
    at: usize,
}

impl Far for FakeFar {
    fn mkdir(&mut self, path: &str) -> anyhow::Result<Made> {
        self.journal.push(format!("mkdir {path}"));
        Ok(if self.dirs.insert(path.to_owned()) { Made::New } else { Made::Taken })
    }

    fn create(&mut self, path: &str) -> anyhow::Result<Box<dyn FarFile + '_>> {
        self.journal.push(format!("create {path}"));
        self.files.insert(path.to_owned(), Vec::new());
        Ok(Box::new(FakeFile { far: self, path: path.to_owned(), at: 0 }))
    }

    fn rename(&mut self, from: &str, to: &str) -> anyhow::Result<()> {
        self.journal.push(format!("rename {to}"));
        let file = self.files.remove(from).unwrap_or_default();
        self.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn size(&mut self, path: &str) -> anyhow::Result<Option<u64>> {
        Ok(self.files.get(path).map(|file| file.len() as u64))
    }

    fn is_positioned(&self) -> bool {
        self.positioned
    }

    fn read(&mut self, path: &str, each: &mut dyn FnMut(&[u8])) -> anyhow::Result<()> {
        each(self.files.get(path).map_or(&[], Vec::as_slice));
        Ok(())
    }
}

impl FarFile for FakeFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.far.room.unwrap_or(usize::MAX);
        let length = bytes.len().min(room);
        if length == 0 {
            return Err(io::Error::other("no room"));
        }
        self.far.room = self.far.room.map(|room| room - length);
        let file = self.far.files.entry(self.path.clone()).or_default();
        let end = self.at + length;
        file.resize(file.len().max(end), 0);
        file[self.at..end].copy_from_slice(&bytes[..length]);
        self.at = end;
        Ok(length)
    }

    fn seek(&mut self, at: u64) -> io::Result<()> {
        assert!(self.far.positioned, "it cannot seek");
        self.at = at as usize;
        Ok(())
    }

    fn close(self: Box<Self>) -> anyhow::Result<()> {
        self.far.journal.push("close".to_owned());
        let loses = self.far.loses;
        if let Some(file) = self.far.files.get_mut(&self.path) {
            file.truncate(file.len() - loses);
        }
        Ok(())
    }
}
