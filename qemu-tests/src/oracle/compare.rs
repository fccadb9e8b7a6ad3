//! Dump against source, and dump against dump.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, ensure};

use super::kdump_file::{KdumpFile, PageReader, pfns};
use super::raw_core::RawCore;

const THREADS: usize = 2;
const SHOWN: usize = 12;

/// What a look at every page of a dump found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Pages read.
    pub pages: u64,
    /// How many are stored in which way.
    pub stored: BTreeMap<&'static str, u64>,
    /// How many are wrong.
    pub wrong: u64,
    /// The first of those, each with what is wrong.
    pub first_wrong: Vec<String>,
}

/// Pages that only one of two dumps keeps.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Kept by the judged dump alone.
    pub more: Vec<u64>,
    /// Kept by the reference alone.
    pub fewer: Vec<u64>,
    /// In bitmap 1 of one of the two alone.
    pub source: Vec<u64>,
}

/// Compares every kept page with the source.
pub fn compare(raw: &RawCore, dump: &KdumpFile) -> Result<Verdict> {
    let block = dump.block_size;
    look_at_every_page(dump, |pfn, page, want| {
        if !raw.read_page(pfn * block as u64, want)? {
            return Ok(Some("is not in the source".into()));
        }
        let wrong = page.iter().zip(want.iter()).position(|(got, want)| got != want);
        Ok(wrong.map(|offset| format!("differs from the source at byte {offset:#x}")))
    })
}

/// Compares every page of a dump in ELF form with the source; returns them.
pub fn compare_elf(raw: &RawCore, dump: &RawCore, block: usize) -> Result<Vec<u64>> {
    let (mut page, mut want) = (vec![0; block], vec![0; block]);
    let pages = dump.pages(block as u64);
    for pfn in &pages {
        let address = pfn * block as u64;
        dump.read_page(address, &mut page)?;
        ensure!(raw.read_page(address, &mut want)?, "pfn {pfn:#x} is not in the source");
        let wrong = page.iter().zip(&want).position(|(got, want)| got != want);
        ensure!(wrong.is_none(), "pfn {pfn:#x} differs from the source at byte {wrong:x?}");
    }
    Ok(pages)
}

/// Reads every kept page without a source: each must unpack to exactly one page.
pub fn read_back(dump: &KdumpFile) -> Result<Verdict> {
    look_at_every_page(dump, |_, _, _| Ok(None))
}

/// Which pages the dump keeps and the reference does not, and the other way round.
pub fn differences(dump: &KdumpFile, reference: &KdumpFile) -> Differences {
    Differences {
        more: only_in(&dump.bitmap2, &reference.bitmap2),
        fewer: only_in(&reference.bitmap2, &dump.bitmap2),
        source: [only_in(&dump.bitmap1, &reference.bitmap1), only_in(&reference.bitmap1, &dump.bitmap1)].concat(),
    }
}

fn only_in(one: &[u8], other: &[u8]) -> Vec<u64> {
    let other = other.iter().chain(std::iter::repeat(&0));
    pfns(&one.iter().zip(other).map(|(one, other)| one & !other).collect::<Vec<u8>>())
}

/// A question about one page: its pfn, its content, and a buffer to use; the answer is what is wrong with it.
trait Question: Fn(u64, &[u8], &mut [u8]) -> Result<Option<String>> + Sync {}
impl<T: Fn(u64, &[u8], &mut [u8]) -> Result<Option<String>> + Sync> Question for T {}

fn look_at_every_page(dump: &KdumpFile, question: impl Question) -> Result<Verdict> {
    let kept = dump.kept();
    let share = kept.len().div_ceil(THREADS).max(1);
    let parts = std::thread::scope(|scope| {
        let look = |(part, pfns): (usize, &[u64])| {
            let (first, pfns) = ((part * share) as u64, pfns.to_vec());
            let question = &question;
            scope.spawn(move || look_at(dump.pages()?, first, &pfns, question))
        };
        let threads: Vec<_> = kept.chunks(share).enumerate().map(look).collect();
        threads.into_iter().map(|thread| thread.join().ok().context("a comparing thread died")?).collect::<Vec<_>>()
    });
    let mut verdict = Verdict::default();
    for part in parts {
        let part: Verdict = part?;
        verdict.pages += part.pages;
        verdict.wrong += part.wrong;
        verdict.first_wrong.extend(part.first_wrong);
        for (kind, count) in part.stored {
            *verdict.stored.entry(kind).or_default() += count;
        }
    }
    verdict.first_wrong.truncate(SHOWN);
    Ok(verdict)
}

fn look_at(mut pages: PageReader<'_>, first: u64, pfns: &[u64], question: &impl Question) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let block = pages.block_size();
    let (mut page, mut buffer) = (vec![0; block], vec![0; block]);
    for (index, pfn) in (first..).zip(pfns) {
        verdict.pages += 1;
        let wrong = match pages.read(index, &mut page) {
            Ok(stored) => {
                *verdict.stored.entry(stored.name()).or_default() += 1;
                question(*pfn, &page, &mut buffer)?
            }
            Err(error) => Some(format!("{error:#}")),
        };
        if let Some(wrong) = wrong {
            verdict.wrong += 1;
            if verdict.first_wrong.len() < SHOWN {
                verdict.first_wrong.push(format!("pfn {pfn:#x}: {wrong}"));
            }
        }
    }
    Ok(verdict)
}

impl Verdict {
    /// Fails when a page is wrong, and shows the first of them.
    pub fn or_fail(self) -> Result<Verdict> {
        ensure!(self.wrong == 0, "{} of {} pages are wrong:\n{}", self.wrong, self.pages, self.first_wrong.join("\n"));
        Ok(self)
    }
}

impl Differences {
    /// Whether both keep the same pages of the same source.
    pub fn are_none(&self) -> bool {
        self == &Differences::default()
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, pfns) in [("kept more", &self.more), ("kept fewer", &self.fewer), ("bitmap 1 differs", &self.source)]
        {
            let first: Vec<String> = pfns.iter().take(SHOWN).map(|pfn| format!("{pfn:#x}")).collect();
            writeln!(formatter, "{name}: {} {}", pfns.len(), first.join(" "))?;
        }
        Ok(())
    }
}
