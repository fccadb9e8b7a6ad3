//! A kdump-compressed dump as input. In: its bytes. Out: memory, notes, and what it says of itself.
//! May surprise: what it says is carried over as it is, even where memory would say it again, so that filtering a dump
//! changes nothing but its pages. Version 3 had vmcoreinfo without a note around it; it gets one.

use std::path::Path;

use crate::dumpfile::layout::INCOMPLETE;
use crate::dumpfile::memory::DumpMem;
use crate::dumpfile::read::Source;
use crate::error::Error;
use crate::kernel::Kernel;
use crate::units::{VirtAddr, to_usize};
use crate::vmcore::read::PhysMem;

use super::direct_map::DirectMap;
use super::{Carried, Notes};

/// An open dump.
#[derive(Debug)]
pub struct KdumpInput<'a> {
    mem: DumpMem<'a>,
    notes: Vec<u8>,
    vmcoreinfo: (u64, u64),
    eraseinfo: Vec<u8>,
}

impl<'a> KdumpInput<'a> {
    /// Reads the headers and bitmaps of `source`; `path` is its name in errors.
    pub fn open(
        source: &'a (dyn Source + 'a),
        path: &Path,
        problems: &mut Vec<String>,
    ) -> Result<KdumpInput<'a>, Error> {
        let fail = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::InvalidData => Error::Input { path: path.into(), why: source.to_string() },
            _ => Error::OpenInput { path: path.into(), source },
        };
        let mem = DumpMem::new(source).map_err(fail)?;
        let header = &mem.dump().header;
        if header.split.is_some() {
            let why = "it is one part of a split dump; make one of all parts first: \
                       kdump-capture --reassemble PART PART... DUMPFILE";
            return Err(Error::Input { path: path.into(), why: why.into() });
        }
        let (mut notes, mut vmcoreinfo) = (mem.dump().notes().map_err(fail)?, header.vmcoreinfo);
        if header.has_bare_vmcoreinfo() {
            (notes, vmcoreinfo) = noted(&notes);
        }
        if (notes.len() as u64) < header.notes_len {
            problems.push(format!("only {} of {} note bytes could be read", notes.len(), header.notes_len));
        }
        if vmcoreinfo.0 + vmcoreinfo.1 > notes.len() as u64 {
            problems.push("vmcoreinfo lies beyond the notes that could be read".into());
            vmcoreinfo = (0, 0);
        }
        let eraseinfo = mem.dump().eraseinfo().map_err(fail)?;
        if (eraseinfo.len() as u64) < header.eraseinfo.map_or(0, |(_, len)| len) {
            problems.push("what was erased is told by the dump only in part; as much is carried over".into());
        }
        Ok(KdumpInput { mem, notes, vmcoreinfo, eraseinfo })
    }

    /// The memory.
    pub fn mem(&self) -> &dyn PhysMem {
        &self.mem
    }

    /// The vmcoreinfo text.
    pub fn vmcoreinfo(&self) -> &[u8] {
        let place = to_usize(self.vmcoreinfo.0).zip(to_usize(self.vmcoreinfo.1));
        place.and_then(|(at, len)| self.notes.get(at..)?.get(..len)).unwrap_or_default()
    }

    /// Gives its segments the virtual addresses of `kernel`'s direct map, if that can be found.
    pub fn place(&mut self, kernel: &Kernel) {
        if let Some(map) = DirectMap::find(kernel, &self.mem) {
            self.mem.place(|phys| map.virt(phys));
        } else {
            self.mem.place(|_| VirtAddr(0));
        }
    }
}

/// `text` as the one note that it would have been, and where in it the text lies.
fn noted(text: &[u8]) -> (Vec<u8>, (u64, u64)) {
    let mut note = Vec::with_capacity(24 + text.len());
    let len = u32::try_from(text.len()).unwrap_or(0);
    if len == 0 {
        return (note, (0, 0));
    }
    for n in [11, len, 0] {
        note.extend(n.to_le_bytes());
    }
    note.extend(b"VMCOREINFO\0\0");
    let at = note.len() as u64;
    note.extend(text);
    note.resize(note.len().next_multiple_of(4), 0);
    (note, (at, u64::from(len)))
}

impl Notes for KdumpInput<'_> {
    fn bytes(&self) -> &[u8] {
        &self.notes
    }

    fn vmcoreinfo_place(&self) -> (u64, u64) {
        self.vmcoreinfo
    }

    fn cpus(&self) -> u32 {
        self.mem.dump().header.cpus
    }

    fn carried(&self) -> Option<Carried<'_>> {
        Some(Carried { header: &self.mem.dump().header, eraseinfo: &self.eraseinfo })
    }

    fn is_incomplete(&self) -> bool {
        self.mem.dump().header.status & INCOMPLETE != 0
    }
}
