//! crash, drgn and libkdumpfile open what the collector writes, in every format and with every codec.
//!
//! Here is what they can do without the kernel's debug package; `tests/crash_utility.rs` has the rest.
//!
//! Surprising: the log is not asked for. Without debug information crash 9.0.2 only knows the log buffer that Linux had
//! before 5.10, and says so of makedumpfile's dumps and of the raw vmcore as well.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};
use qemu_tests::collector::{Cut, Format, collect, collect_cut};
use qemu_tests::oracle::{KdumpFile, RawCore, unflatten};
use qemu_tests::prelude::*;
use qemu_tests::programs::programs;
use qemu_tests::provision::{makedumpfile, readers};
use qemu_tests::{folders, tools};
use sha2::{Digest, Sha256};

/// Pages that drgn is asked for in each dump.
const SAMPLES: usize = 3000;

/// The dump that had too little room.
const CUT: &str = "cut";

/// One file that a reader is to open.
#[derive(Clone, Debug)]
struct Dump {
    name: String,
    file: PathBuf,
    /// The pages that are in it.
    pages: Vec<u64>,
}

#[derive(Clone, Debug)]
struct Dumps {
    source: Source,
    all: Vec<Dump>,
}

/// Every format, made once for all tests here.
fn dumps() -> Result<Dumps> {
    static MADE: OnceLock<Result<Dumps, String>> = OnceLock::new();
    MADE.get_or_init(|| make().map_err(|error| format!("{error:#}"))).clone().map_err(|error| anyhow!(error))
}

fn make() -> Result<Dumps> {
    let source = source::every_kind(Suite::Trixie)?;
    let folder = folders::qemu().join("runs/readers");
    folders::fresh(&folder)?;
    let mut all = Vec::new();
    let mut add = |name: String, file: PathBuf, pages: Vec<u64>| all.push(Dump { name, file, pages });
    for codec in Codec::ALL {
        let name = format!("{codec:?}");
        let dump = written(&source, codec, Format::Kdump, &folder, &name)?.remove(0);
        add(name, dump.clone(), KdumpFile::open(&dump)?.kept());
    }
    let stream = written(&source, Codec::Zstd, Format::Flattened, &folder, "flattened")?.remove(0);
    let rebuilt = folder.join("rebuilt");
    let mut rebuild = Command::new(programs()?.path("kdump-capture"));
    tools::run(rebuild.arg("-R").arg(&rebuilt).stdin(File::open(&stream)?))?;
    let kept = KdumpFile::open(&rebuilt)?.kept();
    add("flattened".into(), stream, kept.clone());
    add("rebuilt".into(), rebuilt, kept);
    let elf = written(&source, Codec::None, Format::Elf, &folder, "elf")?.remove(0);
    add("elf".into(), elf.clone(), RawCore::open(&elf)?.pages(4096));
    let stream = written(&source, Codec::None, Format::FlattenedElf, &folder, "flattened-elf")?.remove(0);
    let told = folder.join("told");
    unflatten(&stream, &told)?;
    add("flattened-elf".into(), stream, RawCore::open(&told)?.pages(4096));
    for (part, number) in written(&source, Codec::Zlib, Format::Split, &folder, "split")?.into_iter().zip(1..) {
        add(format!("part {number}"), part.clone(), KdumpFile::open(&part)?.kept());
    }
    let folder = folder.join("cut");
    fs::create_dir_all(&folder)?;
    let cut = collect_cut(&source.raw, 17, 40, Cut::ByUse, &folder)?;
    let pages = stored(&KdumpFile::open(&cut)?);
    add(CUT.into(), cut, pages);
    Ok(Dumps { source, all })
}

/// The pages that an incomplete dump has in fact.
fn stored(dump: &KdumpFile) -> Vec<u64> {
    let kept = (0..).zip(dump.kept());
    kept.filter(|(index, _)| dump.place(*index).is_ok()).map(|(_, pfn)| pfn).collect()
}

fn written(source: &Source, codec: Codec, format: Format, folder: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let folder = folder.join(name);
    fs::create_dir_all(&folder)?;
    Ok(collect(&source.raw, 31, codec, format, &folder)?.files)
}

#[test]
fn drgn_reads_every_format() -> Result<()> {
    let (Dumps { source, all }, readers) = (dumps()?, readers()?);
    let raw = RawCore::open(&source.raw)?;
    let vmcoreinfo = raw.vmcoreinfo().trim_end_matches('\0');
    for dump in all {
        ensure!(dump.pages.len() > 1000, "{} has {} pages", dump.name, dump.pages.len());
        let mut expected = format!("release {}\nvmcoreinfo {}\n", source.release, hex(vmcoreinfo.as_bytes()));
        let (mut asked, mut page) = (String::new(), [0; 4096]);
        for pfn in dump.pages.iter().step_by((dump.pages.len() / SAMPLES).max(1)) {
            raw.read_page(pfn * 4096, &mut page)?;
            writeln!(asked, "{pfn}")?;
            writeln!(expected, "{pfn} {}", hex(&page))?;
        }
        let script = folders::workspace().join("qemu-tests/tests/scripts/pages.py");
        let said = answer(readers.drgn(&script).arg(&dump.file), &asked)?;
        let (platform, rest) = said.split_once('\n').context("drgn says nothing")?;
        ensure!(platform == "platform X86_64 ProgramFlags.IS_LINUX_KERNEL", "{}: {platform}", dump.name);
        let wrong = rest.lines().zip(expected.lines()).find(|(got, want)| got != want);
        ensure!(wrong.is_none() && rest == expected, "{}: (drgn, expected): {wrong:?}", dump.name);
    }
    Ok(())
}

#[test]
fn libkdumpfile_identifies_every_format() -> Result<()> {
    let (Dumps { source, all }, readers) = (dumps()?, readers()?);
    for dump in all {
        let said = tools::text(readers.kdumpid().arg("-v").arg(&dump.file))?;
        let is_elf = dump.name.contains("elf");
        let format = if is_elf { "Format: elf" } else { "Format: diskdump" };
        let banner = format!("Banner: Linux version {} ", source.release);
        for expected in [format, "Arch: x86_64", &format!("Version: {}\n", source.release)] {
            ensure!(said.contains(expected), "{}: kdumpid does not say {expected}:\n{said}", dump.name);
        }
        // The banner lies in memory; one of the parts has it.
        ensure!(said.contains(&banner) || dump.name.starts_with("part"), "{}: kdumpid says:\n{said}", dump.name);
    }
    Ok(())
}

#[test]
fn crash_knows_the_release_in_every_format() -> Result<()> {
    let (Dumps { source, all }, readers) = (dumps()?, readers()?);
    for dump in all {
        let said = tools::text(readers.crash().arg("--osrelease").arg(&dump.file))?;
        ensure!(said.trim() == source.release, "{}: crash says {said}", dump.name);
    }
    Ok(())
}

/// A dump in the order of use is filtered once more by makedumpfile and by our own collector, which keep the same pages.
#[test]
fn a_dump_that_was_cut_can_be_filtered_once_more() -> Result<()> {
    let Dumps { source, all } = dumps()?;
    let cut = all.into_iter().find(|dump| dump.name == CUT).context("there is no such dump")?;
    let folder = folders::qemu().join("runs/readers-again");
    folders::fresh(&folder)?;
    let (theirs, ours) = (folder.join("theirs"), folder.join("ours"));
    let raw = RawCore::open(&source.raw)?;
    tools::run_accepting(makedumpfile()?.command().args(["-z", "-d", "31"]).arg(&cut.file).arg(&theirs), &[0, 1])?;
    let mut again = Command::new(programs()?.path("kdump-capture"));
    tools::run_accepting(again.args(["-z", "-d", "31"]).arg(&cut.file).arg(&ours), &[1])?;
    for file in [theirs, ours] {
        let dump = KdumpFile::open(&file)?;
        let (mut pages, mut found, mut page) = (dump.pages()?, 0, [0; 4096]);
        for (index, pfn) in (0..).zip(dump.kept()).filter(|(index, _)| dump.place(*index).is_ok()) {
            let mut copy = [0; 4096];
            pages.read(index, &mut copy)?;
            raw.read_page(pfn * 4096, &mut page)?;
            ensure!(copy == page, "{}: page {pfn:#x} is another one", file.display());
            found += 1;
        }
        println!("{}: {found} pages", file.display());
        ensure!(found > 1000, "{} has {found} pages", file.display());
    }
    Ok(())
}

/// Runs a reader with `asked` on its standard input.
fn answer(command: &mut Command, asked: &str) -> Result<String> {
    let mut input = tempfile::tempfile()?;
    input.write_all(asked.as_bytes())?;
    std::io::Seek::rewind(&mut input)?;
    tools::text(command.stdin(Stdio::from(input)))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
