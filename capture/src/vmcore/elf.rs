//! The ELF side of a vmcore. In: an open file and its size. Out: its PT_LOADs and its notes, checked.
//! May surprise: with 0xffff or more program headers their count is in section header 0 (`PN_XNUM`, see elf(5)).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::header::header64::{Header, SIZEOF_EHDR};
use goblin::elf::header::{EI_CLASS, EI_DATA, ELFCLASS64, ELFDATA2LSB, ELFDATA2MSB, ELFMAG};
use goblin::elf::program_header::{PT_LOAD, PT_NOTE, ProgramHeader};

use crate::arch::Arch;
use crate::dumpfile::read::Source;
use crate::units::{FileOffset, PhysAddr, VirtAddr, le32, to_usize};

use super::segments::Load;

/// Program headers beyond this number are not read: the kernel writes one per memory range, of which machines with
/// every node, hole and hotplugged block have some thousands.
const MAX_HEADERS: u64 = 1 << 18;

/// Note bytes beyond this are not read: some 400 per CPU and one page of vmcoreinfo.
const MAX_NOTES: u64 = 64 << 20;

const PN_XNUM: u16 = 0xffff;

/// What the ELF headers say, in the order of the file.
#[derive(Debug)]
pub struct ElfParts {
    /// What `e_machine` means.
    pub arch: &'static Arch,
    /// The PT_LOADs.
    pub loads: Vec<Load>,
    /// The bytes of all PT_NOTEs, one after the other, each padded to 4 bytes.
    pub notes: Vec<u8>,
    /// What was wrong but could be worked around.
    pub problems: Vec<String>,
}

/// Why a file is not a vmcore.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// Reading failed.
    #[error("its ELF header cannot be read")]
    Io(#[from] io::Error),
    /// Wrong format; the text says which was found and what to do.
    #[error("{0}")]
    Format(String),
    /// An ELF file of another architecture.
    #[error("{0}")]
    Machine(String),
}

/// Reads headers and notes of `file`, whose size is `size`.
pub fn read(file: &dyn Source, size: u64) -> Result<ElfParts, ElfError> {
    let mut start = [0u8; SIZEOF_EHDR];
    let got = file.read_at(FileOffset(0), &mut start)?;
    let start = &start[..got];
    recognise(start)?;
    let header = Header::parse(start).map_err(|e| ElfError::Format(format!("its ELF header is damaged ({e})")))?;
    let arch = Arch::of_elf(header.e_machine).ok_or_else(|| {
        let found = Arch::describe(header.e_machine);
        ElfError::Machine(format!("it is of {found}; this program knows {}", Arch::names()))
    })?;
    let mut parts = ElfParts { arch, loads: Vec::new(), notes: Vec::new(), problems: Vec::new() };
    let ctx = Ctx::new(Container::Big, Endian::Little);
    let entry = ProgramHeader::size(ctx);
    if usize::from(header.e_phentsize) != entry {
        return Err(ElfError::Format(format!("program headers of {} bytes instead of {entry}", header.e_phentsize)));
    }

    let declared = match header.e_phnum {
        PN_XNUM => u64::from(extended_count(file, header.e_shoff)?),
        n => u64::from(n),
    };
    let room = size.saturating_sub(header.e_phoff) / entry as u64;
    let count = declared.min(room).min(MAX_HEADERS);
    if count < declared {
        parts.problems.push(format!("only {count} of {declared} program headers could be read"));
    }

    let mut table = vec![0u8; 1024 * entry];
    let mut done = 0u64;
    while done < count {
        let batch = to_usize(count - done).unwrap_or(usize::MAX).min(1024);
        let bytes = &mut table[..batch * entry];
        let got = file.read_at(FileOffset(header.e_phoff + done * entry as u64), bytes)? / entry;
        let headers = ProgramHeader::parse(&bytes[..got * entry], 0, got, ctx)
            .map_err(|e| ElfError::Format(format!("its program headers are damaged ({e})")))?;
        for h in &headers {
            match h.p_type {
                PT_LOAD => parts.loads.push(Load {
                    phys: PhysAddr(h.p_paddr),
                    virt: VirtAddr(h.p_vaddr),
                    offset: FileOffset(h.p_offset),
                    filesz: h.p_filesz,
                    memsz: h.p_memsz.max(h.p_filesz),
                }),
                PT_NOTE => read_notes(file, size, h, &mut parts)?,
                _ => {}
            }
        }
        if got < batch {
            parts.problems.push(format!("only {} of {declared} program headers could be read", done + got as u64));
            break;
        }
        done += batch as u64;
    }
    if parts.loads.is_empty() {
        return Err(ElfError::Format("it has no PT_LOAD segment, so no memory is in it".into()));
    }
    Ok(parts)
}

fn recognise(start: &[u8]) -> Result<(), ElfError> {
    let format = |text: &str| Err(ElfError::Format(text.into()));
    if start.is_empty() {
        return format("it is empty; was a crash kernel loaded when the machine panicked?");
    }
    if !start.starts_with(ELFMAG) || start.len() < SIZEOF_EHDR {
        return format("it does not begin with an ELF header");
    }
    if start[EI_CLASS] != ELFCLASS64 || start[EI_DATA] != ELFDATA2LSB {
        let machine = start.get(18..20).and_then(|b| b.first_chunk()).copied().unwrap_or_default();
        let (order, machine) = match start[EI_DATA] {
            ELFDATA2MSB => ("big-endian", u16::from_be_bytes(machine)),
            _ => ("little-endian", u16::from_le_bytes(machine)),
        };
        let (bits, found) = (if start[EI_CLASS] == ELFCLASS64 { 64 } else { 32 }, Arch::describe(machine));
        return Err(ElfError::Machine(format!(
            "it is a {bits}-bit {order} ELF file of {found}; this program knows 64-bit little-endian ones of {}",
            Arch::names()
        )));
    }
    Ok(())
}

/// `sh_info` of section header 0, at byte 44 of it.
fn extended_count(file: &dyn Source, e_shoff: u64) -> Result<u32, ElfError> {
    let mut section = [0u8; 64];
    let got = file.read_at(FileOffset(e_shoff), &mut section)?;
    le32(&section[..got], 44).ok_or_else(|| ElfError::Format("its program header count is cut off".into()))
}

fn read_notes(file: &dyn Source, size: u64, h: &ProgramHeader, parts: &mut ElfParts) -> Result<(), ElfError> {
    let left = size.saturating_sub(h.p_offset).min(MAX_NOTES.saturating_sub(parts.notes.len() as u64));
    let len = to_usize(h.p_filesz.min(left)).unwrap_or(0);
    if (len as u64) < h.p_filesz {
        parts.problems.push(format!("only {len} of {} note bytes could be read", h.p_filesz));
    }
    let from = parts.notes.len();
    parts.notes.resize(from + len, 0);
    let got = file.read_at(FileOffset(h.p_offset), &mut parts.notes[from..])?;
    parts.notes.truncate(from + got);
    parts.notes.resize(parts.notes.len().next_multiple_of(4), 0);
    Ok(())
}

/// Reads until `buffer` is full or the file ends; returns how much came.
pub(crate) fn read_up_to(file: &File, at: FileOffset, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match FileExt::read_at(file, &mut buffer[got..], at.0.saturating_add(got as u64)) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // An offset no file can have: for a damaged header that is the same as past the end.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => break,
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}
