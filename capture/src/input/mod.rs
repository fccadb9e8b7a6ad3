//! What is read: one door for all of it. In: a path. Out: [`Input`]: memory, notes and what an earlier dump said, so
//! that the rest of the program need not care what it reads.
//! May surprise: a flattened stream is looked into where it lies. What an input misses is no error here: it is told by
//! [`Input::incomplete`], and a dump made of it says so of itself.
//!
//! ```text
//!  file  -- flattened? --> FlatFile \
//!        \------------------ File ----> Storage -- ELF ----> Vmcore     \
//!                                              \-- KDUMP --> KdumpInput --> Input: PhysMem + Notes
//! ```

mod direct_map;
mod kdump;

pub(crate) use direct_map::DirectMap;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::arch::Arch;
use crate::dumpfile::flat_file::{FlatError, FlatFile, StreamFacts};
use crate::dumpfile::flatten;
use crate::dumpfile::layout::{Header, SIGNATURE};
use crate::dumpfile::read::Source;
use crate::error::{Error, chain};
use crate::kernel::Kernel;
use crate::units::{DumpLevel, FileOffset, le16, le32};
use crate::vmcore::Vmcore;
use crate::vmcore::read::{Bitmaps, PhysMem, PhysReader};
use crate::vmcore::segments::Segments;
use crate::vmcoreinfo::Facts;

pub use kdump::KdumpInput;

/// The bytes of a dump: a file, or what a stream in a file stands for.
#[derive(Debug)]
pub enum Storage {
    /// As they are.
    Plain(File),
    /// In a flattened stream.
    Flat(FlatFile<File>),
}

impl Storage {
    /// The file, if it has the bytes as they are.
    pub fn plain(&self) -> Option<&File> {
        if let Storage::Plain(file) = self { Some(file) } else { None }
    }

    /// The file, whatever is in it.
    pub fn file(&self) -> &File {
        match self {
            Storage::Plain(file) => file,
            Storage::Flat(flat) => flat.stream(),
        }
    }

    /// What the stream is like, if it is one.
    pub fn stream(&self) -> Option<&StreamFacts> {
        if let Storage::Flat(flat) = self { Some(&flat.facts) } else { None }
    }
}

impl Source for Storage {
    fn read_at(&self, at: FileOffset, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Storage::Plain(file) => file.read_at(at, buffer),
            Storage::Flat(flat) => flat.read_at(at, buffer),
        }
    }
}

/// What the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A vmcore as the kernel shows it, or an ELF dump.
    Elf,
    /// A kdump-compressed dump.
    Kdump,
}

/// A file that was recognised.
#[derive(Debug)]
pub struct Recognised {
    /// Its bytes.
    pub storage: Storage,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of the dump: not the same if it is in a stream.
    pub bytes: u64,
    /// What it is; `None` if it begins as no dump does.
    pub format: Option<Format>,
}

/// Opens `path` and looks at its first bytes; of a stream, at all its records.
pub fn recognise(path: &Path) -> Result<Recognised, Error> {
    let fail = |source| Error::OpenInput { path: path.into(), source };
    let file = File::open(path).map_err(fail)?;
    let file_bytes = file.metadata().map_err(fail)?.len();
    let mut start = [0; 16];
    let got = Source::read_at(&file, FileOffset(0), &mut start).map_err(fail)?;
    let (mut storage, mut bytes) = (Storage::Plain(file), file_bytes);
    if start[..got].starts_with(flatten::SIGNATURE)
        && let Storage::Plain(stream) = storage
    {
        let flat = FlatFile::open(stream, file_bytes).map_err(|e| match e {
            FlatError::Io(source) => fail(source),
            other => Error::Input { path: path.into(), why: format!("as a flattened dump, {other}") },
        })?;
        bytes = flat.len();
        storage = Storage::Flat(flat);
    }
    let got = storage.read_at(FileOffset(0), &mut start).map_err(fail)?;
    let format = match &start[..got] {
        kdump if kdump.starts_with(SIGNATURE) => Some(Format::Kdump),
        elf if elf.starts_with(b"\x7fELF") => Some(Format::Elf),
        _ => None,
    };
    Ok(Recognised { storage, file_bytes, bytes, format })
}

/// An open input: it owns what [`Input`] looks at.
#[derive(Debug)]
pub struct Opened {
    path: PathBuf,
    what: What,
    incomplete: Vec<String>,
}

#[derive(Debug)]
enum What {
    Elf(Box<Vmcore>),
    Kdump(Storage),
}

/// Opens `path`, whatever it is. With `mapping` false memory is copied instead of mapped. `facts` are what is known of
/// the kernel from elsewhere.
pub fn open(path: &Path, mapping: bool, facts: Option<&Facts>) -> Result<Opened, Error> {
    let found = recognise(path)?;
    let mut incomplete = Vec::new();
    if let Some(ended) = found.storage.stream().and_then(|facts| facts.ended.as_ref()) {
        incomplete.push(format!("as a flattened dump, {} is not whole: {}", path.display(), chain(ended)));
    }
    let marked = |marked: bool| marked.then(|| format!("{} says of itself that it is incomplete", path.display()));
    let what = match found.format {
        Some(Format::Kdump) => What::Kdump(found.storage),
        _ => {
            incomplete.extend(marked(elf_is_incomplete(&found.storage)));
            let vmcore = Vmcore::of(found.storage, found.bytes, path, mapping, facts)?;
            What::Elf(Box::new(vmcore))
        }
    };
    Ok(Opened { path: path.into(), what, incomplete })
}

/// makedumpfile and this program mark an incomplete ELF dump in `e_flags`, which on some machines has other meanings.
pub fn elf_is_incomplete(source: &dyn Source) -> bool {
    const X86_64: u16 = 62;
    const AARCH64: u16 = 183;
    let mut start = [0; 64];
    let got = source.read_at(FileOffset(0), &mut start).unwrap_or(0);
    let start = &start[..got];
    le16(start, 18).is_some_and(|machine| [X86_64, AARCH64].contains(&machine))
        && le32(start, 48).is_some_and(|flags| flags & 1 == 1)
}

impl Opened {
    /// What is in it.
    pub fn input(&mut self) -> Result<Input<'_>, Error> {
        let mut incomplete = std::mem::take(&mut self.incomplete);
        let mut problems = Vec::new();
        let kind = match &mut self.what {
            What::Elf(vmcore) => {
                problems.append(&mut vmcore.problems);
                Kind::Elf(vmcore)
            }
            What::Kdump(storage) => {
                let kdump = KdumpInput::open(storage, &self.path, &mut problems)?;
                if kdump.is_incomplete() {
                    incomplete.push(format!("{} says of itself that it is incomplete", self.path.display()));
                }
                Kind::Kdump(Box::new(kdump))
            }
        };
        Ok(Input { kind, problems, incomplete })
    }
}

/// What the crashed machine left, in whatever form.
#[derive(Debug)]
pub struct Input<'a> {
    kind: Kind<'a>,
    /// What is wrong but could be worked around.
    pub problems: Vec<String>,
    /// Why a dump made of it is incomplete whatever becomes of its pages.
    pub incomplete: Vec<String>,
}

#[derive(Debug)]
enum Kind<'a> {
    Elf(&'a Vmcore),
    Kdump(Box<KdumpInput<'a>>),
}

impl Input<'_> {
    fn mem(&self) -> &dyn PhysMem {
        match &self.kind {
            Kind::Elf(vmcore) => *vmcore,
            Kind::Kdump(kdump) => kdump.mem(),
        }
    }

    fn notes(&self) -> &dyn Notes {
        match &self.kind {
            Kind::Elf(vmcore) => *vmcore,
            Kind::Kdump(kdump) => kdump.as_ref(),
        }
    }

    /// The vmcoreinfo text; empty if there is none.
    pub fn vmcoreinfo(&self) -> &[u8] {
        match &self.kind {
            Kind::Elf(vmcore) => vmcore.vmcoreinfo(),
            Kind::Kdump(kdump) => kdump.vmcoreinfo(),
        }
    }

    /// What was left out already.
    pub fn level(&self) -> DumpLevel {
        self.notes().carried().map_or(DumpLevel::default(), Carried::level)
    }

    /// Gives the segments of a kdump-compressed dump, which has none, the virtual addresses that `kernel` had them at.
    pub fn place(&mut self, kernel: &Kernel) {
        if let Kind::Kdump(kdump) = &mut self.kind {
            kdump.place(kernel);
        }
    }
}

impl PhysMem for Input<'_> {
    fn arch(&self) -> Option<&'static Arch> {
        self.mem().arch()
    }

    fn segments(&self) -> &Segments {
        self.mem().segments()
    }

    fn reader(&self) -> Box<dyn PhysReader + '_> {
        self.mem().reader()
    }

    fn small_reader(&self) -> Box<dyn PhysReader + '_> {
        self.mem().small_reader()
    }

    fn map_at_most(&self, bytes: usize) {
        self.mem().map_at_most(bytes);
    }

    fn bitmaps(&self) -> Option<&dyn Bitmaps> {
        self.mem().bitmaps()
    }
}

/// What the headers of a dump need of the input beside memory.
pub trait Notes {
    /// The bytes of the PT_NOTEs.
    fn bytes(&self) -> &[u8];
    /// Where in them vmcoreinfo lies, and its length.
    fn vmcoreinfo_place(&self) -> (u64, u64);
    /// CPUs whose registers were saved.
    fn cpus(&self) -> u32;
    /// What an earlier dump says, if the input is one.
    fn carried(&self) -> Option<Carried<'_>> {
        None
    }
    /// Whether a dump made of it is incomplete whatever becomes of its pages.
    fn is_incomplete(&self) -> bool {
        false
    }
}

/// What is carried over from an earlier dump.
#[derive(Debug, Clone, Copy)]
pub struct Carried<'a> {
    /// Its header.
    pub header: &'a Header,
    /// The text that says what was erased from it.
    pub eraseinfo: &'a [u8],
}

impl Carried<'_> {
    /// What was left out of it.
    pub fn level(self) -> DumpLevel {
        DumpLevel::new(self.header.level & 31).unwrap_or_default()
    }
}

impl Notes for Vmcore {
    fn bytes(&self) -> &[u8] {
        self.note_bytes()
    }

    fn vmcoreinfo_place(&self) -> (u64, u64) {
        self.notes().vmcoreinfo.as_ref().map_or((0, 0), |range| (range.start as u64, range.len() as u64))
    }

    fn cpus(&self) -> u32 {
        self.notes().cpus
    }
}

impl Notes for Input<'_> {
    fn bytes(&self) -> &[u8] {
        self.notes().bytes()
    }

    fn vmcoreinfo_place(&self) -> (u64, u64) {
        self.notes().vmcoreinfo_place()
    }

    fn cpus(&self) -> u32 {
        self.notes().cpus()
    }

    fn carried(&self) -> Option<Carried<'_>> {
        self.notes().carried()
    }

    fn is_incomplete(&self) -> bool {
        !self.incomplete.is_empty()
    }
}
