//! Dumps of machines described in `recipes/golden.toml`, of every format and codec, against descriptions of what they
//! were when someone last looked: `golden/*.txt`. Each is also read back, and its pages compared with the machine's.
//! `KDUMP_GOLDEN=update cargo test -p kdump-capture --test golden` writes the descriptions anew.
//!
//! May surprise: they have the sha256 of whole files, so they change with the codecs' own versions. Cargo.lock pins
//! those; a change to it may be a reason to update, and then only sums, packed bytes and positions may differ. A change
//! to the machine in `common` is another.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::panic, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use common::{Bytes, Era, Leaf, Machine, kept};
use kdump_capture::cli::Format;
use kdump_capture::compress::Kind;
use kdump_capture::dumpfile::flatten::{END, Flattened, HEADER, RECORD};
use kdump_capture::dumpfile::read::{Dump, Source};
use kdump_capture::dumpfile::reassemble::Parts;
use kdump_capture::dumpfile::rebuild;
use kdump_capture::fake::MemFile;
use kdump_capture::input::{KdumpInput, Notes};
use kdump_capture::kernel::{Kernel, name};
use kdump_capture::output::Output;
use kdump_capture::pipeline::{Plan, Wanted, write_dump};
use kdump_capture::report::{DumpReport, Outcome};
use kdump_capture::units::{DumpLevel, PageSize, Pfn};
use kdump_capture::vmcore::Vmcore;
use kdump_capture::vmcore::read::Pages;
use serde::Deserialize;
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
struct Recipes {
    machine: Vec<MachineRecipe>,
    case: Vec<Case>,
}

#[derive(Deserialize)]
struct MachineRecipe {
    name: String,
    kernel: String,
    levels: u32,
    pages: Vec<Page>,
}

#[derive(Deserialize)]
struct Page {
    at: u64,
    is: Vec<String>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    machine: String,
    #[serde(flatten)]
    how: How,
    again: Option<How>,
    #[serde(default)]
    write: Write,
}

#[derive(Deserialize)]
struct How {
    level: u8,
    codec: String,
}

#[derive(Deserialize, Default, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Write {
    #[default]
    Kdump,
    Elf,
    Flattened,
    Split,
}

impl How {
    fn codec(&self) -> Kind {
        Kind::ALL
            .into_iter()
            .find(|kind| kind.name() == self.codec)
            .unwrap_or_else(|| panic!("no codec {}", self.codec))
    }
}

impl Write {
    fn format(self) -> Format {
        if self == Write::Elf { Format::Elf } else { Format::Kdump }
    }
}

#[test]
fn every_format_is_what_it_was() {
    let recipes: Recipes = toml::from_str(include_str!("recipes/golden.toml")).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let update = std::env::var_os("KDUMP_GOLDEN").is_some_and(|word| word == "update");
    let mut different = vec![];
    for case in &recipes.case {
        let recipe = recipes.machine.iter().find(|machine| machine.name == case.machine).unwrap();
        let machine = build(recipe);
        let files = write(case, &machine);
        read_back(case, &machine, &files);
        let text = files.iter().map(|file| describe(file)).collect::<Vec<_>>().join("\n");
        let path = folder.join(format!("{}.txt", case.name));
        if update {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, &text).unwrap();
        } else if fs::read_to_string(&path).unwrap_or_default() != text {
            different.push(format!("{} should be:\n{text}", path.display()));
        }
    }
    assert!(different.is_empty(), "{}\nKDUMP_GOLDEN=update writes them anew", different.join("\n"));
}

#[test]
fn every_description_has_its_recipe() {
    let recipes: Recipes = toml::from_str(include_str!("recipes/golden.toml")).unwrap();
    let mut names: Vec<String> = recipes.case.iter().map(|case| format!("{}.txt", case.name)).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut found: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    found.sort();
    assert_eq!(found, names);
}

fn build(recipe: &MachineRecipe) -> Machine {
    let mut machine = Machine::new(Era::named(&recipe.kernel), recipe.levels, Leaf::M2);
    for page in &recipe.pages {
        machine.set(page.at, &page.is.iter().map(String::as_str).collect::<Vec<_>>());
    }
    machine
}

/// The files of the dump.
fn write(case: &Case, machine: &Machine) -> Vec<Vec<u8>> {
    let memory = machine.memory();
    let run = |outs: &[&dyn Output]| {
        let report = match &case.again {
            None => machine.split_to(&memory, case.how.level, case.write.format(), case.how.codec(), 2, outs),
            Some(how) => {
                let (_, source) = machine.dump(&memory, case.how.level, case.how.codec(), 2, usize::MAX);
                again(&Bytes(source), how, case.write.format(), outs)
            }
        };
        assert_eq!((report.outcome, &report.error), (Outcome::Complete, &None), "{}: {:?}", case.name, report.problems);
    };
    match case.write {
        Write::Kdump | Write::Elf => {
            let out = MemFile::new(usize::MAX);
            run(&[&out]);
            vec![out.into_bytes()]
        }
        Write::Flattened => {
            let out = Flattened::new(Vec::new()).unwrap();
            run(&[&out]);
            out.finish().unwrap();
            vec![out.into_inner()]
        }
        Write::Split => {
            let outs = [MemFile::new(usize::MAX), MemFile::new(usize::MAX)];
            run(&[&outs[0], &outs[1]]);
            outs.map(MemFile::into_bytes).to_vec()
        }
    }
}

fn again(source: &Bytes, how: &How, format: Format, outs: &[&dyn Output]) -> DumpReport {
    let mut report = DumpReport::default();
    let input = KdumpInput::open(source, Path::new("dump"), &mut report.problems).unwrap();
    let level = DumpLevel::new(how.level).unwrap().with(input.carried().unwrap().level());
    let kernel = Kernel::learn(input.vmcoreinfo(), input.mem(), &mut report.problems);
    let wanted = Wanted { threads: 2, level, format, codec: how.codec(), ..Wanted::default() };
    let plan = Plan::within(input.mem().segments(), &wanted);
    write_dump(input.mem(), &input, &kernel, outs, &plan, &mut report).unwrap();
    report
}

/// Every page in the dump is the machine's.
fn read_back(case: &Case, machine: &Machine, files: &[Vec<u8>]) {
    let whole = match case.write {
        Write::Kdump => files[0].clone(),
        Write::Flattened => rebuilt(&files[0]),
        Write::Split => {
            let parts: Vec<Bytes> = files.iter().map(|file| Bytes(file.clone())).collect();
            let sources: Vec<&dyn Source> = parts.iter().map(|part| part as &dyn Source).collect();
            let out = MemFile::new(usize::MAX);
            Parts::open(&sources).unwrap().unwrap().write(&out).unwrap();
            out.into_bytes()
        }
        Write::Elf => {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("elf");
            fs::write(&path, &files[0]).unwrap();
            let vmcore = Vmcore::open(&path, true).unwrap();
            let mut pages = Pages::new(&vmcore, PageSize::K4);
            let mut found = 0;
            for pfn in 0x100..0x600 {
                if let Ok(page) = pages.page(Pfn(pfn)) {
                    assert!(page == machine.page(pfn), "{}: pfn {pfn:#x}", case.name);
                    found += 1;
                }
            }
            assert!(found > 0x100, "{}: {found} pages", case.name);
            return;
        }
    };
    let pages = kept(&whole);
    assert!(pages.len() > 0x100, "{}: {} pages", case.name, pages.len());
    for (pfn, page) in pages {
        assert!(page.as_deref() == Some(machine.page(pfn.0)), "{}: pfn {pfn}", case.name);
    }
}

fn rebuilt(stream: &[u8]) -> Vec<u8> {
    let mut from = stream;
    rebuild::header(&mut from).unwrap().unwrap();
    let out = MemFile::new(usize::MAX);
    assert!(rebuild::records(&mut from, &out).ended.is_none());
    out.into_bytes()
}

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn describe(bytes: &[u8]) -> String {
    let mut text = format!("file          {} bytes, sha256 {}\n", bytes.len(), sum(bytes));
    if bytes.starts_with(b"makedumpfile") {
        text += &records(bytes);
        let inside = rebuilt(bytes);
        text += &format!("holds a file  {} bytes, sha256 {}\n", inside.len(), sum(&inside));
        text += &kdump(inside);
    } else if bytes.starts_with(b"\x7fELF") {
        text += &elf(bytes);
    } else {
        text += &kdump(bytes.to_vec());
    }
    text
}

fn records(stream: &[u8]) -> String {
    let (mut text, mut at) = (String::new(), HEADER);
    let number = |at: usize| i64::from_be_bytes(stream[at..at + 8].try_into().unwrap());
    while [number(at), number(at + 8)] != END {
        let (place, len) = (number(at), number(at + 8));
        let _ = writeln!(text, "record        {len} bytes at {place:#x}");
        at += RECORD + len as usize;
    }
    text
}

fn elf(bytes: &[u8]) -> String {
    let u64 = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let u32 = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let count = usize::from(u16::from_le_bytes(bytes[56..58].try_into().unwrap()));
    let mut text = format!("elf           machine {}, flags {}\n", bytes[18], u32(48));
    for at in (0..count).map(|n| 64 + 56 * n) {
        let kind = if u32(at) == 4 { "note" } else { "load" };
        let [offset, virt, phys, filesz, memsz] = [8, 16, 24, 32, 40].map(|field| u64(at + field));
        let _ =
            writeln!(text, "{kind}          at {offset:#x}: {virt:#x} = {phys:#x}, {filesz:#x} of {memsz:#x} bytes");
    }
    text
}

fn gather(runs: &mut Vec<(u64, u64)>, pfn: Pfn) -> std::io::Result<()> {
    match runs.last_mut() {
        Some((_, end)) if *end == pfn.0 => *end += 1,
        _ => runs.push((pfn.0, pfn.0 + 1)),
    }
    Ok(())
}

fn runs(runs: &[(u64, u64)]) -> String {
    runs.iter().map(|(start, end)| format!("{start:#x}-{end:#x}")).collect::<Vec<_>>().join(" ")
}

fn kdump(bytes: Vec<u8>) -> String {
    let source = Bytes(bytes);
    let dump = Dump::open(&source).unwrap();
    let h = &dump.header;
    let mut text = String::new();
    let mut line = |key: &str, value: String| {
        let _ = writeln!(text, "{key:<13} {value}");
    };
    line("version", h.version().to_string());
    line("utsname", (0..6).map(|n| name(&h.utsname, n)).collect::<Vec<_>>().join(" | "));
    line("crash time", h.crash_time.to_string());
    line("status", format!("{:#x}", h.status));
    line("page size", h.block.bytes().to_string());
    line("max pfn", h.max_pfn.to_string());
    line("cpus", h.cpus.to_string());
    line("phys_base", format!("{:#x}", h.phys_base));
    line("level", h.level.to_string());
    if let Some((start, end)) = h.split {
        line("part", format!("{start} to {end}"));
    }
    line("notes", format!("{} bytes, sha256 {}", h.notes_len, sum(&dump.notes().unwrap())));
    line("vmcoreinfo", format!("{} bytes at {:#x} of the notes", h.vmcoreinfo.1, h.vmcoreinfo.0));
    let (mut present, mut kept) = (vec![], vec![]);
    dump.present(&mut |pfn| gather(&mut present, pfn)).unwrap();
    dump.kept_pages(&mut |pfn| gather(&mut kept, pfn)).unwrap();
    line("bitmap 1", runs(&present));
    line("bitmap 2", runs(&kept));
    let (mut raw, mut packed, mut missing, mut packed_bytes, mut places) = (0, 0, 0, 0, BTreeMap::new());
    dump.kept(&mut |_, d| {
        *places.entry(d.offset).or_insert(0) += 1;
        match (d.is_missing(), d.flags) {
            (true, _) => missing += 1,
            (_, 0) => raw += 1,
            _ => (packed, packed_bytes) = (packed + 1, packed_bytes + d.size),
        }
        Ok(())
    })
    .unwrap();
    line("descriptors", format!("{raw} as they are, {packed} packed ({packed_bytes} bytes), {missing} empty"));
    let zero = places.values().max().unwrap();
    line(
        "data",
        format!("{} places from {} on, {zero} pages share one", places.len(), h.data_at(raw + packed + missing)),
    );
    text
}
