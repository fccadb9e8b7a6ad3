//! Is it a good dump? Two answers: from the dump alone, and against the whole source with the incumbent as witness.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::crash::Outcome;
use crate::oracle::{Differences, KdumpFile, RawCore, Verdict, compare, differences, read_back};
use crate::provision::makedumpfile;
use crate::scenario::Scenario;
use crate::status::Status;

/// The four files of a dump's directory, in the order of writing.
const FILES: [&str; 4] = ["vmcore-dmesg.txt", "vmcore", "kexec-dmesg.log", "status.json"];

/// Reads a dump back: it is whole, every page unpacks, its files are the ones that its status vouches for, and its log
/// has the marker.
pub fn dump_alone(folder: &Path, release: &str, marker: &str) -> Result<(KdumpFile, Verdict, Status)> {
    for name in FILES {
        ensure!(folder.join(name).is_file(), "{name} is missing in {}", folder.display());
    }
    let status = Status::read(&folder.join("status.json"))?;
    status.expect_outcome("complete")?;
    status.check_files(folder)?;
    let dump = KdumpFile::open(&folder.join("vmcore"))?;
    ensure!(!dump.is_incomplete(), "the dump calls itself incomplete");
    for (place, found) in [("utsname", Some(dump.release.as_str())), ("vmcoreinfo", dump.fact("OSRELEASE"))] {
        ensure!(found == Some(release), "the dump's {place} says {found:?}, not {release}");
    }
    let verdict = read_back(&dump)?.or_fail()?;
    let pages = status.pages()?;
    let count = |kind: &str| pages.get(kind).copied().unwrap_or_default();
    // A zero page costs a descriptor, and is kept in that sense.
    ensure!(count("kept") + count("zero") == verdict.pages, "{} pages are in the dump, but {pages:?}", verdict.pages);
    ensure!(count("total") == dump.in_source(), "{} pages are in bitmap 1, but {pages:?}", dump.in_source());
    let log = fs::read_to_string(folder.join("vmcore-dmesg.txt")).context("the log is not text")?;
    ensure!(log.contains(marker), "the log lacks the marker {marker}");
    ensure!(log.contains("Kernel panic"), "the log lacks the panic");
    Ok((dump, verdict, status))
}

/// Everything that [`dump_alone`] checks, and: every kept page equals the source; makedumpfile keeps the same pages of
/// the same source; the log equals makedumpfile's byte for byte. What was needed for it is then removed.
pub fn against_source(scenario: &Scenario, outcome: &Outcome) -> Result<KdumpFile> {
    against_source_except(scenario, outcome, |_, _, found| {
        ensure!(found.are_none(), "the dump and makedumpfile's differ:\n{found}");
        Ok(())
    })
}

/// As [`against_source`], for a kernel on which makedumpfile is known to be wrong: `explain` fails on any difference that
/// it cannot explain.
pub fn against_source_except(
    scenario: &Scenario,
    outcome: &Outcome,
    explain: impl Fn(&RawCore, &KdumpFile, &Differences) -> Result<()>,
) -> Result<KdumpFile> {
    let folder = outcome.dump()?;
    let (dump, ..) = dump_alone(folder, &scenario.kernel.release, &outcome.marker)?;
    ensure!(dump.level == u32::from(scenario.level), "the dump's level is {}, not {}", dump.level, scenario.level);
    let raw = outcome.raw.as_deref().context("the scenario did not keep its source")?;
    let source = RawCore::open(raw)?;
    compare(&source, &dump)?.or_fail()?;
    notices_a_flipped_byte(&source, &dump, &folder.join("vmcore"), &outcome.folder.join("spoilt"))?;

    let oracle = makedumpfile()?;
    let (reference, log) = (outcome.folder.join("reference"), outcome.folder.join("reference.log"));
    oracle.filter(scenario.level, scenario.codec, raw, &reference)?;
    explain(&source, &dump, &differences(&dump, &KdumpFile::open(&reference)?))?;
    let ours = fs::read(folder.join("vmcore-dmesg.txt"))?;
    let theirs = oracle.log(raw, &log)?;
    let place = ours.iter().zip(&theirs).position(|(ours, theirs)| ours != theirs);
    ensure!(
        ours == theirs,
        "the log of {} bytes and makedumpfile's of {} bytes differ at {place:?}; see {}",
        ours.len(),
        theirs.len(),
        log.display(),
    );
    for done in [reference.as_path(), log.as_path(), raw] {
        fs::remove_file(done).with_context(|| format!("unable to remove {}", done.display()))?;
    }
    Ok(dump)
}

/// The comparison that has just passed must be able to fail: with one byte of one page changed, it does.
fn notices_a_flipped_byte(source: &RawCore, dump: &KdumpFile, file: &Path, spoilt: &Path) -> Result<()> {
    let place = dump.place(dump.kept().len() as u64 / 2)?;
    let middle = place.offset + u64::from(place.size) / 2;
    fs::copy(file, spoilt).with_context(|| format!("unable to copy the dump to {}", spoilt.display()))?;
    fs::set_permissions(spoilt, fs::Permissions::from_mode(0o600))?;
    let copy = File::options().read(true).write(true).open(spoilt)?;
    let mut byte = [0];
    copy.read_exact_at(&mut byte, middle)?;
    copy.write_all_at(&[!byte[0]], middle)?;
    let verdict = compare(source, &KdumpFile::open(spoilt)?)?;
    ensure!(verdict.wrong > 0, "a changed byte at {middle:#x} of the dump went unnoticed");
    fs::remove_file(spoilt).with_context(|| format!("unable to remove {}", spoilt.display()))
}
