//! The collector on real memory that has every kind of page, beside makedumpfile: the same pages are kept, and each is
//! what it was.
//!
//! The memory is that of `source::every_kind`. The ordinary run takes one kernel, some levels, and each codec in each
//! format; all levels of three kernels, and huge pages of 1 GiB, by an explicit command:
//!
//! ```text
//! cargo test -p qemu-tests --test matrix -- --ignored
//! ```
//!
//! Where ours and makedumpfile 1.7.8 differ, and why, is in [`explain`].

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use qemu_tests::collector::{Collected, Format, collect};
use qemu_tests::oracle::{Differences, KdumpFile, RawCore, StructPages, compare, compare_elf, differences, unflatten};
use qemu_tests::prelude::*;
use qemu_tests::provision::makedumpfile;
use qemu_tests::{folders, progress};

/// Level 0, each bit alone, all of them; with every codec that makedumpfile has too.
const SOME_LEVELS: [(u8, Codec); 7] = [
    (0, Codec::Lzo),
    (1, Codec::Zlib),
    (2, Codec::Zstd),
    (4, Codec::None),
    (8, Codec::Zstd),
    (16, Codec::Lzo),
    (31, Codec::Zstd),
];
/// What every kernel has.
const KINDS: [&str; 12] = [
    "anon",
    "anon-huge",
    "ksm",
    "shared",
    "shared-huge",
    "cache",
    "hugetlb",
    "buddy",
    "slab-compound",
    "offline",
    "above-4g",
    "nodes",
];

#[test]
fn kernel_6_12_at_some_levels() -> Result<()> {
    check(&source::every_kind(Suite::Trixie)?, &SOME_LEVELS)
}

#[test]
#[ignore = "takes minutes"]
fn kernel_6_1_at_every_level() -> Result<()> {
    check(&source::every_kind(Suite::Own)?, &every_level())
}

#[test]
#[ignore = "takes minutes"]
fn kernel_6_12_at_every_level() -> Result<()> {
    check(&source::every_kind(Suite::Trixie)?, &every_level())
}

#[test]
#[ignore = "takes minutes"]
fn the_newest_kernel_at_every_level() -> Result<()> {
    check(&source::every_kind(Suite::Sid)?, &every_level())
}

#[test]
#[ignore = "takes minutes, and 10 GB of disk"]
fn huge_pages_of_1_gib_are_left_out_whole() -> Result<()> {
    let source = source::gigantic(Suite::Trixie)?;
    source.expect_kinds(&["gigantic"])?;
    // `check` holds the number of user pages against the kernel's own count, which has these.
    check(&source, &[(0, Codec::Lzo), (8, Codec::Lzo), (31, Codec::Zstd)])
}

fn every_level() -> Vec<(u8, Codec)> {
    let codecs = [Codec::Lzo, Codec::Zlib, Codec::Zstd, Codec::None];
    (0..32).zip(codecs.into_iter().cycle()).collect()
}

fn check(source: &Source, levels: &[(u8, Codec)]) -> Result<()> {
    source.expect_kinds(&KINDS)?;
    let raw = RawCore::open(&source.raw)?;
    let run = Run::new(&format!("matrix-{}", source.release))?;
    for (level, codec) in levels {
        let ours = collect(&source.raw, *level, *codec, Format::Kdump, &run.folder)?;
        let dump = KdumpFile::open(&ours.files[0])?;
        let verdict = compare(&raw, &dump)?.or_fail().with_context(|| format!("level {level}, {codec:?}"))?;
        counts_agree(source, &ours, *level)?;

        let theirs = run.folder.join("reference");
        let _ = std::fs::remove_file(&theirs);
        makedumpfile()?.filter(*level, *codec, &source.raw, &theirs)?;
        let found = differences(&dump, &KdumpFile::open(&theirs)?);
        let explained = explain(&raw, *level, &found).with_context(|| format!("level {level}:\n{found}"))?;
        progress::note(&format!(
            "{} -d {level} {codec:?}: {} of {} pages kept, {explained}",
            source.release,
            verdict.pages,
            dump.in_source()
        ));
    }
    Ok(())
}

/// What the report counts is what the kernel had counted, and every kind was there to be counted.
fn counts_agree(source: &Source, ours: &Collected, level: u8) -> Result<()> {
    let census = |kind: &str| source.census.get(kind).copied().unwrap_or_default();
    let offline = ours.pages("offline")?;
    ensure!(offline == census("offline"), "{offline} offline pages, but the kernel had {}", census("offline"));
    if level == 0 {
        let (found, had) = (ours.pages("hwpoison")?, census("hwpoison") + census("hwpoison-hugetlb"));
        ensure!(found == had, "{found} broken pages, but the kernel had {had}");
    }
    if level == 31 {
        for kind in ["zero", "cache", "private_cache", "user", "free"] {
            ensure!(ours.pages(kind)? > 0, "no {kind} page in {}", ours.report);
        }
        // Single anonymous pages still come and go after the count.
        let (found, at_least) = (ours.pages("user")?, census("anon-huge") + census("hugetlb"));
        ensure!(found > at_least, "{found} user pages, but the kernel had {at_least} in huge pages alone");
    }
    Ok(())
}

/// Fails on any difference but these, and says how many there are:
///
/// - *We keep it, makedumpfile does not*: a tail on a kernel with `compound_info` (7.1 and later), which makedumpfile
///   1.7.8 does not ask for; it takes what tails hold elsewhere for a sign of user memory.
/// - *We leave it out, makedumpfile does not*: a tail marked as broken in a page that is kept. makedumpfile looks for the
///   mark on the first page only, and reads memory that may stop the machine.
/// - *We leave it out, makedumpfile does not*: a page in a balloon, at levels 0 and 1 of a kernel that knows no broken
///   pages. makedumpfile has no reason to look at struct pages then; at every other level, and on every other kernel,
///   it leaves those pages out too. Their content is not the guest's.
fn explain(source: &RawCore, level: u8, found: &Differences) -> Result<String> {
    ensure!(found.source.is_empty(), "bitmap 1 differs");
    let pages = StructPages::new(source)?;
    let new_tails = source.fact("OFFSET(page.compound_info)").is_some();
    let broken: Option<u32> = source.fact("NUMBER(PG_hwpoison)").map(str::parse).transpose()?;
    let offline: i64 = source.fact("NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)").context("no offline pages")?.parse()?;
    for pfn in &found.more {
        let page = pages.get(*pfn)?.context("no struct page")?;
        ensure!(new_tails && page.is_tail(), "unexplained: pfn {pfn:#x} is kept by us alone: {page:x?}");
    }
    let (mut broken_tails, mut ballooned) = (0, 0);
    for pfn in &found.fewer {
        let page = pages.get(*pfn)?.context("no struct page")?;
        if page.is_tail() && broken.is_some_and(|bit| page.flags >> bit & 1 == 1) {
            broken_tails += 1;
        } else if i64::from(page.map_count.cast_signed()) == offline && broken.is_none() && level <= 1 {
            ballooned += 1;
        } else {
            bail!("unexplained: pfn {pfn:#x} is left out by us alone: {page:x?}");
        }
    }
    Ok(match (found.more.len(), broken_tails, ballooned) {
        (0, 0, 0) => "as makedumpfile does".into(),
        (tails, ..) => {
            format!(
                "{tails} tails more, {broken_tails} broken tails and {ballooned} of a balloon fewer than makedumpfile"
            )
        }
    })
}

#[test]
fn every_codec_in_every_format_reads_back_as_the_source() -> Result<()> {
    let source = source::every_kind(Suite::Trixie)?;
    let raw = RawCore::open(&source.raw)?;
    let run = Run::new("formats")?;
    for level in [31, 0] {
        let mut kept = Vec::new();
        for codec in Codec::ALL {
            for format in [Format::Kdump, Format::Flattened, Format::Split] {
                let what = || format!("level {level}, {codec:?}, {format:?}");
                let collected = collect(&source.raw, level, codec, format, &run.folder)?;
                let pages = pages_of(&raw, &collected, format, &run.folder).with_context(what)?;
                if kept.is_empty() {
                    kept.clone_from(&pages);
                }
                ensure!(pages == kept, "{}: {} pages, {} in the first dump", what(), pages.len(), kept.len());
            }
        }
        for format in [Format::Elf, Format::FlattenedElf] {
            let collected = collect(&source.raw, level, Codec::None, format, &run.folder)?;
            let pages = pages_of(&raw, &collected, format, &run.folder)?;
            // Short runs of pages that are left out are written all the same; pages of zeros are not.
            let zero = |pfn: &u64| is_zero(&raw, *pfn);
            let missing = kept.iter().filter(|pfn| pages.binary_search(pfn).is_err());
            for pfn in missing {
                ensure!(level & 1 == 1 && zero(pfn)?, "{format:?} at level {level} lacks pfn {pfn:#x}");
            }
        }
    }
    Ok(())
}

/// Compares every page with the source, and returns them.
fn pages_of(raw: &RawCore, collected: &Collected, format: Format, folder: &Path) -> Result<Vec<u64>> {
    let rebuilt = folder.join("rebuilt");
    let file = match format {
        Format::Flattened | Format::FlattenedElf => {
            unflatten(&collected.files[0], &rebuilt)?;
            &rebuilt
        }
        _ => &collected.files[0],
    };
    match format {
        Format::Elf | Format::FlattenedElf => return compare_elf(raw, &RawCore::open(file)?, 4096),
        Format::Kdump | Format::Flattened => {
            let dump = KdumpFile::open(file)?;
            ensure!(dump.part.is_none(), "a whole dump calls itself a part");
            compare(raw, &dump)?.or_fail()?;
            return Ok(dump.kept());
        }
        Format::Split => {}
    }
    let mut pages = Vec::new();
    let mut next = 0;
    for part in &collected.files {
        let dump = KdumpFile::open(part)?;
        let range = dump.part.clone().context("a part does not call itself one")?;
        ensure!(range.start == next, "a part begins at pfn {:#x}, not {next:#x}", range.start);
        next = range.end;
        compare(raw, &dump)?.or_fail()?;
        pages.extend(dump.kept());
    }
    let last = KdumpFile::open(&collected.files[0])?.max_mapnr;
    ensure!(next == last, "the last part ends at pfn {next:#x}, not {last:#x}");
    Ok(pages)
}

fn is_zero(raw: &RawCore, pfn: u64) -> Result<bool> {
    let mut page = [0; 4096];
    raw.read_page(pfn * 4096, &mut page)?;
    Ok(page.iter().all(|byte| *byte == 0))
}

/// A folder for the dumps, which goes with the test unless it fails.
struct Run {
    folder: std::path::PathBuf,
}

impl Run {
    fn new(name: &str) -> Result<Run> {
        let folder = folders::qemu().join("runs").join(name);
        folders::fresh(&folder)?;
        Ok(Run { folder })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
