//! A real vmcore, damaged in seeded ways: the collector never panics, never hangs, and saves what is undamaged.
//!
//! The ordinary run takes some seeds; a thousand by an explicit command. `SEEDS=FROM..TO` takes others:
//!
//! ```text
//! cargo test -p qemu-tests --test corruption -- --ignored
//! ```
//!
//! What is held, whatever the damage: an exit code of 0, 1 or 2 within the limit, no panic, a reason where there is no
//! dump, and every page of a dump is what the damaged vmcore has in its place. Which pages are in it depends on what was
//! hit, see [`Rule`].
//!
//! Surprising: every other seed is run by a collector that is built to panic on arithmetic overflow.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use qemu_tests::collector::{Format, collect};
use qemu_tests::damage::{Damage, Dice, Patient};
use qemu_tests::oracle::{KdumpFile, RawCore, compare, compare_elf, unflatten};
use qemu_tests::prelude::*;
use qemu_tests::programs::{checked_collector, programs};
use qemu_tests::{folders, progress, tools};

/// The dump of the healthy source takes a tenth of a second.
const LIMIT: Duration = Duration::from_secs(10);
/// Pages in a block of the largest order.
const BLOCK: u64 = 1 << 10;
const SHOWN: usize = 20;

#[test]
fn forty_damages_cost_what_they_hit_and_no_more() -> Result<()> {
    survive(0..40)
}

#[test]
#[ignore = "takes minutes"]
fn a_thousand_damages_cost_what_they_hit_and_no_more() -> Result<()> {
    let seeds = std::env::var("SEEDS").unwrap_or_else(|_| "0..1000".into());
    let (from, to) = seeds.split_once("..").context("SEEDS is not FROM..TO")?;
    survive(from.parse()?..to.parse()?)
}

/// Which pages a dump must have, given those that the dump of the healthy source has.
enum Rule {
    /// What tells pages apart is not what it was, everywhere: any.
    Any,
    /// What tells pages apart is gone: all of them at least.
    AtLeast,
    /// As `AtLeast`, of the pages that are still in the file.
    AtLeastInFile,
    /// What tells these pages apart is not what it was: the same, but for these.
    SameBut(Range<u64>),
    /// Nothing that tells pages apart was hit: the same.
    Same,
}

fn rule(damage: &Damage) -> Rule {
    const SECTION: u64 = 1 << 15;
    match *damage {
        Damage::ElfHeader | Damage::ProgramHeaders | Damage::Notes | Damage::TableScribbled | Damage::Anywhere => {
            Rule::Any
        }
        Damage::NotesErased | Damage::TableCleared | Damage::SectionCleared(_) => Rule::AtLeast,
        Damage::SectionScribbled(section) => Rule::SameBut(section * SECTION..(section + 1) * SECTION),
        // The second struct page of a block tells its order.
        Damage::StructPages(first, last) => {
            Rule::SameBut(first.saturating_sub(1) / BLOCK * BLOCK..(last + 1).next_multiple_of(BLOCK))
        }
        Damage::EnormousClaim(pfn) => Rule::SameBut(pfn / BLOCK * BLOCK..(pfn / BLOCK + 1) * BLOCK),
        Damage::Log | Damage::Memory => Rule::Same,
        Damage::Truncated(_) => Rule::AtLeastInFile,
    }
}

/// Whether the collector may end without a complete dump, or without the log.
fn may_fail(damage: &Damage, task: Task) -> bool {
    // The log is found through page tables, and there is nothing that could be saved instead.
    let is_log =
        matches!((damage, task), (Damage::TableScribbled | Damage::TableCleared | Damage::NotesErased, Task::Log));
    is_log
        || matches!(
            damage,
            Damage::ElfHeader | Damage::ProgramHeaders | Damage::Notes | Damage::Anywhere | Damage::Truncated(_)
        )
}

/// What the collector is asked for.
#[derive(Clone, Copy, Debug)]
enum Task {
    Dump(Format, u8, Codec),
    Log,
}

impl Task {
    fn of(dice: &mut Dice) -> Task {
        let codec = Codec::ALL[usize::try_from(dice.below(5)).unwrap_or_default()];
        match dice.below(10) {
            0..=4 => Task::Dump(Format::Kdump, 31, codec),
            5 => Task::Dump(Format::Kdump, 0, codec),
            6 => Task::Dump(Format::Elf, 31, Codec::None),
            7 => Task::Dump(Format::Flattened, 31, codec),
            8 => Task::Dump(Format::FlattenedElf, 31, Codec::None),
            _ => Task::Log,
        }
    }
}

/// What the healthy source gives.
struct Healthy {
    everything: BTreeSet<u64>,
    filtered: BTreeSet<u64>,
    log: Vec<u8>,
}

struct Trial {
    folder: PathBuf,
    patient: Patient,
    healthy: Healthy,
    collectors: [PathBuf; 2],
    longest: Duration,
    without_dump: u64,
}

fn survive(seeds: Range<u64>) -> Result<()> {
    let source = source::small(Suite::Trixie)?;
    let folder = folders::qemu().join("runs").join(format!("corruption-{}", seeds.end));
    folders::fresh(&folder)?;
    let kept = |level| {
        let dump = collect(&source.raw, level, Codec::None, Format::Kdump, &folder)?.files.remove(0);
        Ok::<BTreeSet<u64>, anyhow::Error>(KdumpFile::open(&dump)?.kept().into_iter().collect())
    };
    let collector = programs()?.path("kdump-capture");
    let log = folder.join("healthy-log");
    tools::run(Command::new(&collector).arg("--dump-dmesg").arg(&source.raw).arg(&log))?;
    let healthy = Healthy { everything: kept(0)?, filtered: kept(31)?, log: fs::read(&log)? };
    ensure!(healthy.filtered.len() > 1000 && healthy.filtered.len() < healthy.everything.len(), "a poor source");
    let patient = Patient::new(&source.raw, &folder.join("vmcore"))?;
    let collectors = [collector, checked_collector()?];
    let (longest, without_dump) = (Duration::ZERO, 0);
    let mut trial = Trial { folder: folder.clone(), patient, healthy, collectors, longest, without_dump };
    let mut failures = Vec::new();
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let damage = trial.patient.hurt(seed)?;
        let task = Task::of(&mut Dice(!seed));
        if let Err(error) = trial.run(seed, &damage, task) {
            failures.push(format!("seed {seed}, {damage:x?}, {task:?}: {error:#}"));
            progress::note(failures.last().map_or("", String::as_str));
        }
        trial.patient.heal()?;
        if (seed + 1) % 100 == 0 {
            progress::note(&format!("{} damages, {} of them cost more than they hit", seed + 1, failures.len()));
        }
    }
    let Trial { longest, without_dump, .. } = trial;
    progress::note(&format!("{count} damages: {without_dump} without a dump, the longest run took {longest:?}"));
    let first: Vec<&str> = failures.iter().map(String::as_str).take(SHOWN).collect();
    ensure!(failures.is_empty(), "{} of {count} damages cost more:\n{}", failures.len(), first.join("\n"));
    fs::remove_dir_all(&folder)?;
    Ok(())
}

impl Trial {
    fn run(&mut self, seed: u64, damage: &Damage, task: Task) -> Result<()> {
        let (dump, report) = (self.folder.join("dump"), self.folder.join("report.json"));
        for file in [&dump, &report].into_iter().filter(|file| file.exists()) {
            fs::remove_file(file)?;
        }
        let collector = &self.collectors[usize::from(seed % 2 == 1)];
        let mut command = Command::new(collector);
        command.args(["--message-level", "4"]);
        match task {
            Task::Log => command.arg("--dump-dmesg").arg(&self.patient.path).arg(&dump),
            Task::Dump(format, level, codec) => {
                command.args(["-d", &level.to_string()]).args(codec.option()).args(format.options());
                command.arg("--report").arg(&report).arg(&self.patient.path);
                if format.is_stream() { command.stdout(File::create(&dump)?) } else { command.arg(&dump) }
            }
        };
        let ended = self.end_within_limit(&mut command)?;
        if ended.code != 0 {
            ensure!(!ended.said.trim().is_empty(), "it failed without a reason");
            ensure!(may_fail(damage, task), "it ended with {}: {}", ended.code, ended.said.trim());
        }
        match task {
            Task::Log => {
                let same = matches!(rule(damage), Rule::Same | Rule::SameBut(_)) && *damage != Damage::Log;
                ensure!(!same || fs::read(&dump)? == self.healthy.log, "the log is another");
                Ok(())
            }
            Task::Dump(format, level, _) => self.judge(damage, format, level, &dump, &ended),
        }
    }

    fn judge(&mut self, damage: &Damage, format: Format, level: u8, dump: &Path, ended: &Ended) -> Result<()> {
        // What the judge cannot read, it has no opinion on, unless the collector calls it a success.
        let Ok(source) = RawCore::open(&self.patient.path) else {
            ensure!(!matches!(rule(damage), Rule::Same | Rule::SameBut(_)), "the judge cannot read the damaged vmcore");
            return Ok(());
        };
        if format.is_stream() {
            let told = self.folder.join("told");
            let empty = dump.metadata()?.len() == 0;
            if !empty {
                unflatten(dump, &told)?;
                fs::rename(&told, dump)?;
            }
        }
        let there = dump.metadata().is_ok_and(|file| file.len() > 0);
        if !there {
            ensure!(ended.code != 0, "it reports success, and there is no dump");
            self.without_dump += 1;
            return Ok(());
        }
        let headers_hit = matches!(damage, Damage::ElfHeader | Damage::ProgramHeaders | Damage::Anywhere);
        let kept: BTreeSet<u64> = match format {
            Format::Elf | Format::FlattenedElf => {
                let file = RawCore::open(dump)?;
                // Where segments overlap in contradiction, there is no right answer.
                if headers_hit {
                    return Ok(());
                }
                compare_elf(&source, &file, 4096)?.into_iter().collect()
            }
            _ => {
                let file = KdumpFile::open_without_notes(dump)?;
                ensure!(
                    file.is_incomplete() == (ended.code != 0),
                    "it ended with {}, and the dump says no such thing",
                    ended.code
                );
                if headers_hit {
                    return Ok(());
                }
                compare(&source, &file)?.or_fail()?;
                file.kept().into_iter().collect()
            }
        };
        let is_elf = matches!(format, Format::Elf | Format::FlattenedElf);
        let healthy = if level == 0 { &self.healthy.everything } else { &self.healthy.filtered };
        self.pages_are_there(&source, damage, healthy, &kept, is_elf)
    }

    fn pages_are_there(
        &self,
        source: &RawCore,
        damage: &Damage,
        healthy: &BTreeSet<u64>,
        kept: &BTreeSet<u64>,
        is_elf: bool,
    ) -> Result<()> {
        let rule = rule(damage);
        let excused = |pfn: &u64| match &rule {
            Rule::Any => true,
            Rule::SameBut(pages) => pages.contains(pfn),
            Rule::AtLeastInFile => !source.is_readable(pfn * 4096, 4096),
            Rule::AtLeast | Rule::Same => false,
        };
        // In ELF form, pages of zeros are not written.
        let absent = |pfn: &u64| is_elf && is_zero(source, *pfn);
        let lost: Vec<u64> = healthy.difference(kept).filter(|pfn| !excused(pfn) && !absent(pfn)).copied().collect();
        ensure!(lost.is_empty(), "{} undamaged pages are lost: {:x?}", lost.len(), &lost[..lost.len().min(8)]);
        if let (Rule::Same | Rule::SameBut(_), false) = (&rule, is_elf) {
            let more: Vec<u64> = kept.difference(healthy).filter(|pfn| !excused(pfn)).copied().collect();
            ensure!(
                more.is_empty(),
                "{} pages are kept that need not be: {:x?}",
                more.len(),
                &more[..more.len().min(8)]
            );
        }
        Ok(())
    }

    fn end_within_limit(&mut self, command: &mut Command) -> Result<Ended> {
        let errors = self.folder.join("errors");
        let began = Instant::now();
        let mut child = command.stderr(File::create(&errors)?).spawn().context("unable to start the collector")?;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if began.elapsed() > LIMIT {
                child.kill()?;
                child.wait()?;
                bail!("it ran for more than {LIMIT:?}: {}", tools::shown(command));
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        self.longest = self.longest.max(began.elapsed());
        let said = String::from_utf8_lossy(&fs::read(&errors)?).into_owned();
        ensure!(!said.contains("panicked"), "it panicked: {said}");
        let code = status.code().with_context(|| format!("it was killed by signal {:?}: {said}", status.signal()))?;
        ensure!((0..=2).contains(&code), "it ended with {code}: {said}");
        Ok(Ended { code, said })
    }
}

struct Ended {
    code: i32,
    said: String,
}

fn is_zero(source: &RawCore, pfn: u64) -> bool {
    let mut page = [0; 4096];
    source.read_page(pfn * 4096, &mut page).is_ok() && page.iter().all(|byte| *byte == 0)
}
