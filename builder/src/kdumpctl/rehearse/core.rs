//! A small prepared memory of a kernel that never ran, for a capture kernel that nobody crashed.
//!
//! In: where in the virtual machine's memory it will lie, and the release that it names. Out: its bytes, which begin with
//! the ELF headers that `elfcorehdr=` points at:
//!
//! ```text
//!  0      headers of the next /proc/vmcore
//!  0x1000 notes: vmcoreinfo, a processor
//!  0x3000 page tables: three, the last maps all of this at 0xffffffff80000000
//!  0x6000 variables: names of the kernel, its log
//!  0x8000 pages to be dumped: zeros, text, noise
//! ```
//!
//! May surprise: there are no struct pages, so the collector keeps every page but those of zeros, and says so. What is
//! rehearsed is the way of a dump, not what is left out of it.

/// How large it is.
pub(super) const SIZE: u64 = 16 << 20;
/// What its place must be a multiple of.
pub(super) const ALIGNMENT: u64 = 2 << 20;
/// Why that kernel went down.
pub(super) const PANIC: &str = "Kernel panic - not syncing: kdumpctl rehearsal";

/// Where the kernel's own mapping begins.
const MAP: u64 = 0xffff_ffff_8000_0000;
const NOTES: u64 = 0x1000;
const PROCESSOR: u64 = 0x2000;
const TABLES: u64 = 0x3000;
const NAMES: u64 = 0x6000;
const LOG_POINTER: u64 = 0x6800;
const LOG_LENGTH: u64 = 0x6808;
const LOG_FIRST: u64 = 0x680c;
const LOG_NEXT: u64 = 0x6810;
const LOG: u64 = 0x7000;
const CONTENT: u64 = 0x8000;
const PAGE: usize = 4096;

/// One name of utsname.
const NAME: u64 = 65;
/// Bytes of `struct elf_prstatus` on x86_64.
const PRSTATUS: usize = 336;
/// `struct printk_log` of Linux 3.5 to 5.9, the simplest log there was.
const RECORD: u64 = 16;

/// Makes it, for physical address `place`.
pub(super) fn make(place: u64, release: &str, now: u64) -> Vec<u8> {
    let mut memory = Memory(vec![0; usize::try_from(SIZE).unwrap_or(0)]);
    let vmcoreinfo = note("VMCOREINFO", 0, facts(place, release, now).as_bytes());
    let processor = note("CORE", 1, &[0; PRSTATUS]);
    memory.put(NOTES, &vmcoreinfo);
    memory.put(PROCESSOR, &processor);
    memory.put(0, &headers(place, &[(NOTES, vmcoreinfo.len()), (PROCESSOR, processor.len())]));
    tables(&mut memory, place);
    for (index, text) in [(0, "Linux"), (1, "rehearsal"), (2, release), (3, "#1"), (4, "x86_64")] {
        memory.put(NAMES + index * NAME, text.as_bytes());
    }
    log(&mut memory);
    content(&mut memory);
    memory.0
}

struct Memory(Vec<u8>);

impl Memory {
    fn put(&mut self, place: u64, bytes: &[u8]) {
        let target = usize::try_from(place).ok().and_then(|place| self.0.get_mut(place..place + bytes.len()));
        if let Some(target) = target {
            target.copy_from_slice(bytes);
        }
    }
}

/// The text of vmcoreinfo: what a collector needs to find the log.
fn facts(place: u64, release: &str, now: u64) -> String {
    let mut text = format!(
        "OSRELEASE={release}\nPAGESIZE=4096\nNUMBER(phys_base)={place}\nNUMBER(pgtable_l5_enabled)=0\n\
         OFFSET(uts_namespace.name)=0\nSIZE(printk_log)={RECORD}\nOFFSET(printk_log.ts_nsec)=0\n\
         OFFSET(printk_log.len)=8\nOFFSET(printk_log.text_len)=10\nOFFSET(printk_log.dict_len)=12\nCRASHTIME={now}\n"
    );
    for (symbol, place) in [
        ("init_uts_ns", NAMES),
        ("init_top_pgt", TABLES),
        ("log_buf", LOG_POINTER),
        ("log_buf_len", LOG_LENGTH),
        ("log_first_idx", LOG_FIRST),
        ("log_next_idx", LOG_NEXT),
    ] {
        text.push_str(&format!("SYMBOL({symbol})={:x}\n", MAP + place));
    }
    text
}

fn note(name: &str, kind: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in [name.len() + 1, content.len()] {
        bytes.extend(u32::try_from(number).unwrap_or(0).to_le_bytes());
    }
    bytes.extend(kind.to_le_bytes());
    for part in [format!("{name}\0").as_bytes(), content] {
        bytes.extend(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

fn headers(place: u64, notes: &[(u64, usize)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    // 64 bits, little-endian, version 1; a core file of x86_64 with its program headers behind this.
    bytes.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    bytes.extend([4_u16, 62].iter().flat_map(|half| half.to_le_bytes()));
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend([0_u64, 64, 0].iter().flat_map(|wide| wide.to_le_bytes()));
    bytes.extend(0_u32.to_le_bytes());
    let count = u16::try_from(notes.len() + 1).unwrap_or(0);
    bytes.extend([64_u16, 56, count, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    let mut entry = |kind: u32, flags: u32, at: u64, virtual_address: u64, size: u64| {
        bytes.extend([kind, flags].iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend([at, virtual_address, at, size, size, 0].iter().flat_map(|wide| wide.to_le_bytes()));
    };
    for (start, size) in notes {
        entry(4, 0, place + start, 0, *size as u64);
    }
    entry(1, 7, place, MAP, SIZE);
    bytes
}

/// The last gigabyte but one of virtual memory, by leaves of 2 MiB.
fn tables(memory: &mut Memory, place: u64) {
    const PRESENT: u64 = 1;
    const LEAF: u64 = 1 << 7;
    let next = |table: u64| place + TABLES + table * PAGE as u64 | PRESENT;
    memory.put(TABLES + 511 * 8, &next(1).to_le_bytes());
    memory.put(TABLES + PAGE as u64 + 510 * 8, &next(2).to_le_bytes());
    for leaf in 0..SIZE / ALIGNMENT {
        let entry = place + leaf * ALIGNMENT | PRESENT | LEAF;
        memory.put(TABLES + 2 * PAGE as u64 + leaf * 8, &entry.to_le_bytes());
    }
}

fn log(memory: &mut Memory) {
    let mut records = Vec::new();
    for (second, text) in (1_u64..).zip(["kdumpctl rehearsal: this kernel never ran", PANIC]) {
        let length = (RECORD + text.len() as u64).next_multiple_of(4);
        records.extend((second * 1_000_000_000).to_le_bytes());
        for number in [length, text.len() as u64, 0] {
            records.extend(u16::try_from(number).unwrap_or(0).to_le_bytes());
        }
        records.extend([0, 0]);
        records.extend(text.as_bytes());
        records.resize(records.len().next_multiple_of(4), 0);
    }
    memory.put(LOG, &records);
    memory.put(LOG_POINTER, &(MAP + LOG).to_le_bytes());
    memory.put(LOG_LENGTH, &u32::try_from(CONTENT - LOG).unwrap_or(0).to_le_bytes());
    memory.put(LOG_FIRST, &0_u32.to_le_bytes());
    memory.put(LOG_NEXT, &u32::try_from(records.len()).unwrap_or(0).to_le_bytes());
}

/// Of four pages, two of zeros, one of text, one of noise.
fn content(memory: &mut Memory) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let start = usize::try_from(CONTENT).unwrap_or(0);
    for (number, page) in memory.0.get_mut(start..).into_iter().flat_map(|rest| rest.chunks_mut(PAGE)).enumerate() {
        if number % 4 < 2 {
            continue;
        }
        for word in page.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(if number % 4 == 2 { *b"rehearse" } else { state.to_le_bytes() }.as_slice());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use goblin::elf::Elf;

    #[test]
    fn another_reader_finds_memory_and_notes_where_the_headers_say() {
        let place = 0x1000_0000;
        let core = make(place, "6.1-test", 7);
        assert_eq!(core.len() as u64, SIZE);
        let elf = Elf::parse(&core[..PAGE]).unwrap();
        let found: Vec<(u32, u64, u64)> =
            elf.program_headers.iter().map(|header| (header.p_type, header.p_offset, header.p_vaddr)).collect();
        assert_eq!(found, [(4, place + NOTES, 0), (4, place + PROCESSOR, 0), (1, place, MAP)]);
        let size = elf.program_headers[0].p_filesz as usize;
        let notes = goblin::elf::note::NoteDataIterator {
            data: &core,
            size: NOTES as usize + size,
            offset: NOTES as usize,
            ctx: (4, goblin::container::Ctx::default()),
        };
        let notes: Vec<_> = notes.map(Result::unwrap).collect();
        let [vmcoreinfo] = &notes[..] else { panic!("{notes:?}") };
        assert_eq!(vmcoreinfo.name.trim_end_matches('\0'), "VMCOREINFO");
        let text = std::str::from_utf8(vmcoreinfo.desc).unwrap();
        assert!(
            text.starts_with("OSRELEASE=6.1-test\n") && text.contains("SYMBOL(log_buf)=ffffffff80006800\n"),
            "{text}"
        );
    }
}
