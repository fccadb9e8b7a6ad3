//! The headers of the `/proc/vmcore` that the capture kernel will have.
//!
//! In: where the running kernel keeps the notes of each processor and vmcoreinfo, and which memory there is. Out: an ELF
//! header and program headers, as kexec_file_load makes them: a note for each processor, one for vmcoreinfo, the kernel's
//! own mapping, and all memory.
//!
//! May surprise: processors that are offline have notes too, which stay empty. Virtual addresses come from `/proc/kcore`,
//! where that is; without them the dump is as good, since vmcoreinfo has what is needed to find them.

use super::Iomem;
use crate::host::Tree;
use anyhow::Context;
use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;

const HEADER: usize = 64;
const ENTRY: usize = 56;
const LOAD: u32 = 1;
const NOTE: u32 = 4;
const X86_64: u16 = 62;
/// Where x86 maps its own text.
const TEXT: u64 = 0xffff_ffff_8000_0000;
/// More program headers have no place in the count of a header.
const MOST: usize = 65_534;

/// A program header.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    kind: u32,
    physical: Range<u64>,
    virtual_address: u64,
}

/// Makes them.
pub(super) fn make(tree: &Tree, iomem: &Iomem) -> anyhow::Result<Vec<u8>> {
    let mut entries = processors(tree)?;
    entries.push(vmcoreinfo(tree)?);
    let known = kcore(tree);
    let direct = known.iter().find(|entry| entry.virtual_address < TEXT);
    let offset = direct.map(|entry| entry.virtual_address.wrapping_sub(entry.physical.start));
    entries.extend(known.iter().find(|entry| entry.virtual_address >= TEXT).cloned());
    for physical in iomem.dumped() {
        let virtual_address = offset.map_or(0, |offset| physical.start.wrapping_add(offset));
        entries.push(Entry { kind: LOAD, physical, virtual_address });
    }
    entries.truncate(MOST);
    Ok(bytes(&entries))
}

fn note(start: u64, size: u64) -> Entry {
    Entry { kind: NOTE, physical: start..start.saturating_add(size), virtual_address: 0 }
}

/// Where each processor leaves its registers.
fn processors(tree: &Tree) -> anyhow::Result<Vec<Entry>> {
    let mut numbers: Vec<u32> = fs::read_dir(tree.path("sys/devices/system/cpu"))
        .context("cannot list the processors in /sys/devices/system/cpu")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("cpu")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    let mut notes = Vec::new();
    for number in numbers {
        let file = |name: &str| tree.line(&format!("sys/devices/system/cpu/cpu{number}/{name}"));
        // A processor that is only possible has none.
        let Some(start) = file("crash_notes").and_then(|text| u64::from_str_radix(&text, 16).ok()) else { continue };
        let size = file("crash_notes_size").and_then(|text| text.parse().ok());
        let size: u64 = size.with_context(|| format!("the size of the notes of processor {number} is not known"))?;
        notes.push(note(start, size));
    }
    Ok(notes)
}

fn vmcoreinfo(tree: &Tree) -> anyhow::Result<Entry> {
    let text = tree.line("sys/kernel/vmcoreinfo").context("cannot read /sys/kernel/vmcoreinfo")?;
    let mut numbers = text.split_whitespace().map(|number| u64::from_str_radix(number.trim_start_matches("0x"), 16));
    match (numbers.next(), numbers.next()) {
        (Some(Ok(start)), Some(Ok(size))) => Ok(note(start, size)),
        _ => anyhow::bail!("/sys/kernel/vmcoreinfo has `{text}` in it, and not an address and a size"),
    }
}

/// What `/proc/kcore` says of virtual addresses that have physical ones.
fn kcore(tree: &Tree) -> Vec<Entry> {
    let mut start = Vec::new();
    let read = File::open(tree.path("proc/kcore")).and_then(|file| file.take(1 << 16).read_to_end(&mut start));
    if read.is_err() || !start.starts_with(b"\x7fELF\x02\x01") {
        return Vec::new();
    }
    let number = |place: usize, length: usize| -> Option<u64> {
        let mut bytes = [0; 8];
        bytes.get_mut(..length)?.copy_from_slice(start.get(place..place.checked_add(length)?)?);
        Some(u64::from_le_bytes(bytes))
    };
    let table = number(32, 8).and_then(|place| usize::try_from(place).ok()).unwrap_or(usize::MAX);
    let count = number(56, 2).and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
    let entry = |index: usize| {
        let place = table.checked_add(index.checked_mul(ENTRY)?)?;
        let field = |offset: usize, length| number(place.checked_add(offset)?, length);
        let (kind, virtual_address, physical, size) = (field(0, 4)?, field(16, 8)?, field(24, 8)?, field(40, 8)?);
        // What has no physical address says 0 or -1.
        let is_known = kind == u64::from(LOAD) && physical != 0 && physical != u64::MAX;
        let end = physical.checked_add(size)?;
        is_known.then_some(Entry { kind: LOAD, physical: physical..end, virtual_address })
    };
    (0..count).filter_map(entry).collect()
}

fn bytes(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + entries.len() * ENTRY);
    // 64 bits, little-endian, version 1; a core file.
    bytes.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    bytes.extend([4_u16, X86_64].iter().flat_map(|half| half.to_le_bytes()));
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend([0, HEADER as u64, 0].iter().flat_map(|wide| wide.to_le_bytes()));
    bytes.extend(0_u32.to_le_bytes());
    let count = u16::try_from(entries.len()).unwrap_or(u16::MAX);
    let sizes = [HEADER as u64, ENTRY as u64].map(|size| u16::try_from(size).unwrap_or(0));
    let [header, entry] = sizes;
    bytes.extend([header, entry, count, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    for Entry { kind, physical, virtual_address } in entries {
        let size = physical.end - physical.start;
        let flags: u32 = if *kind == LOAD { 7 } else { 0 };
        bytes.extend([*kind, flags].iter().flat_map(|word| word.to_le_bytes()));
        // The kernel finds a piece of memory by an offset that is its address.
        let numbers = [physical.start, *virtual_address, physical.start, size, size, 0];
        bytes.extend(numbers.iter().flat_map(|wide| wide.to_le_bytes()));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use goblin::elf::Elf;

    fn tree(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path());
        for (path, bytes) in files {
            fs::create_dir_all(tree.path(path).parent().unwrap()).unwrap();
            fs::write(tree.path(path), bytes).unwrap();
        }
        (dir, tree)
    }

    const CPU: &str = "sys/devices/system/cpu";

    #[test]
    fn another_reader_finds_notes_text_and_memory_in_them() {
        let kcore = bytes(&[
            Entry { kind: LOAD, physical: 0x200_0000..0x300_0000, virtual_address: 0xffff_ffff_8200_0000 },
            Entry { kind: LOAD, physical: 0x10_0000..0x4000_0000, virtual_address: 0xffff_8880_0010_0000 },
        ]);
        let cpus = [0, 1, 10]
            .map(|number| [format!("{CPU}/cpu{number}/crash_notes"), format!("{CPU}/cpu{number}/crash_notes_size")]);
        let mut files: Vec<(&str, &[u8])> = vec![("sys/kernel/vmcoreinfo", b"1e0b000 1024\n"), ("proc/kcore", &kcore)];
        for [notes, size] in &cpus {
            files.push((notes, b"1fe12340\n"));
            files.push((size, b"376\n"));
        }
        let (_dir, tree) = tree(&files);
        fs::create_dir_all(tree.path(CPU).join("cpufreq")).unwrap();
        let iomem = Iomem::parse("00100000-3fffffff : System RAM\n  30000000-37ffffff : Crash kernel\n");
        let made = make(&tree, &iomem).unwrap();
        let elf = Elf::parse(&made).unwrap();
        assert_eq!((elf.header.e_type, elf.header.e_machine), (4, 62));
        let found: Vec<(u32, u64, u64, u64)> =
            elf.program_headers.iter().map(|it| (it.p_type, it.p_paddr, it.p_vaddr, it.p_memsz)).collect();
        assert_eq!(
            found,
            [
                (NOTE, 0x1fe1_2340, 0, 376),
                (NOTE, 0x1fe1_2340, 0, 376),
                (NOTE, 0x1fe1_2340, 0, 376),
                (NOTE, 0x1e0_b000, 0, 0x1024),
                (LOAD, 0x200_0000, 0xffff_ffff_8200_0000, 0x100_0000),
                (LOAD, 0x10_0000, 0xffff_8880_0010_0000, 0x2ff0_0000),
                (LOAD, 0x3800_0000, 0xffff_8880_3800_0000, 0x800_0000),
            ]
        );
        assert!(elf.program_headers.iter().all(|it| it.p_offset == it.p_paddr && it.p_filesz == it.p_memsz));
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_named() {
        let iomem = Iomem::parse("00100000-3fffffff : System RAM\n");
        let (_dir, tree) = tree(&[("sys/devices/system/cpu/cpu0/crash_notes", b"1000\n")]);
        let error = make(&tree, &iomem).unwrap_err().to_string();
        assert!(error.contains("notes of processor 0"), "{error}");
        fs::write(tree.path(CPU).join("cpu0/crash_notes_size"), "376\n").unwrap();
        assert!(make(&tree, &iomem).unwrap_err().to_string().contains("/sys/kernel/vmcoreinfo"));
    }
}
