//! The vmcore: the crashed kernel's memory with ELF headers around it. In: a path. Out: [`Vmcore`] with its segments,
//! notes and readers.
//! May surprise: /proc/vmcore refuses nothing and checks nothing; whatever comes out of it is hostile.
//!
//! ```text
//!  ELF header, program headers   elf.rs        read once
//!  PT_NOTE                       notes.rs      CPUs, vmcoreinfo
//!  PT_LOAD … PT_LOAD             segments.rs   what memory is where
//!  memory                        read.rs       looked at through windows (map.rs), or copied
//! ```

pub mod elf;
mod map;
pub mod notes;
pub mod read;
pub mod segments;

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::arch::Arch;
use crate::error::Error;
use crate::input::Storage;
use crate::units::PageSize;
use crate::vmcoreinfo::Facts;

use elf::ElfError;
use notes::Notes;
use read::{FileReader, PhysMem, PhysReader, WINDOW};
use segments::Segments;

/// An open vmcore.
#[derive(Debug)]
pub struct Vmcore {
    file: Storage,
    size: u64,
    at_once: AtomicUsize,
    arch: &'static Arch,
    segments: Segments,
    note_bytes: Vec<u8>,
    notes: Notes,
    /// What was wrong with the headers but could be worked around.
    pub problems: Vec<String>,
}

impl Vmcore {
    /// Opens `path` and reads its headers. With `mapping` false the memory is copied instead of mapped.
    pub fn open(path: &Path, mapping: bool) -> Result<Vmcore, Error> {
        let open = |source| Error::OpenInput { path: path.into(), source };
        let file = File::open(path).map_err(open)?;
        let size = file.metadata().map_err(open)?.len();
        Vmcore::of(Storage::Plain(file), size, path, mapping, None)
    }

    /// The same of a file that is open already; `path` is its name in errors. `facts`, where they are known from
    /// elsewhere, have the last word on the page size.
    pub fn of(file: Storage, size: u64, path: &Path, mapping: bool, facts: Option<&Facts>) -> Result<Vmcore, Error> {
        let open = |source| Error::OpenInput { path: path.into(), source };
        let parts = elf::read(&file, size).map_err(|e| match e {
            ElfError::Io(source) => open(source),
            ElfError::Format(why) => Error::Input { path: path.into(), why },
            ElfError::Machine(why) => Error::WrongKernel { path: path.into(), why },
        })?;
        let mut problems = parts.problems;
        // What a page is, the kernel says in its notes; only then can memory be counted in pages.
        let notes = notes::parse(&parts.notes);
        let vmcoreinfo = notes.vmcoreinfo.clone().and_then(|range| parts.notes.get(range)).unwrap_or_default();
        let page = parts.arch.page(facts.unwrap_or(&Facts::parse(vmcoreinfo)));
        let segments = Segments::new(parts.loads, size, page, &mut problems);
        let at_once = AtomicUsize::new(if mapping { WINDOW } else { 0 });
        Ok(Vmcore { file, size, at_once, arch: parts.arch, segments, note_bytes: parts.notes, notes, problems })
    }

    /// The machine it comes from.
    pub fn arch(&self) -> &'static Arch {
        self.arch
    }

    /// The page size of the kernel in it.
    pub fn page(&self) -> PageSize {
        self.segments.page()
    }

    /// The bytes of the PT_NOTEs.
    pub fn note_bytes(&self) -> &[u8] {
        &self.note_bytes
    }

    /// What the notes hold.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// The vmcoreinfo text; empty if there is none.
    pub fn vmcoreinfo(&self) -> &[u8] {
        self.notes.vmcoreinfo.clone().and_then(|range| self.note_bytes.get(range)).unwrap_or_default()
    }
}

impl PhysMem for Vmcore {
    fn arch(&self) -> Option<&'static Arch> {
        Some(self.arch)
    }

    fn segments(&self) -> &Segments {
        &self.segments
    }

    fn map_at_most(&self, bytes: usize) {
        self.at_once.fetch_min(bytes, Ordering::Relaxed);
    }

    fn reader(&self) -> Box<dyn PhysReader + '_> {
        Box::new(FileReader::new(&self.file, self.size, &self.segments, self.at_once.load(Ordering::Relaxed)))
    }

    fn small_reader(&self) -> Box<dyn PhysReader + '_> {
        Box::new(FileReader::new(&self.file, self.size, &self.segments, 0))
    }
}
