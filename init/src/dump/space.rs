//! Room for the dump: known before it is written, where it can be known.
//!
//! In: the collector's command line, the room on the target, the length of the vmcore. Out: the command line with which
//! the dump fits, or the reason why none does.
//!
//! ```text
//!   room for the whole vmcore ─ yes ─▶ as configured, nothing is counted
//!            │ no
//!   the dry count, not packed (no time is spent on packing) ─ fits ─▶ as configured
//!            │ no
//!   the dry count, packed ─ fits ─▶ as configured
//!            │ no
//!   measure by measure, in the order configured ─ fits ─▶ with what the measures have changed
//! ```
//!
//! May surprise: a measure that is not enough stays in effect for the next one. Nothing can be counted beforehand for a
//! collector that is not ours; it is run as it is. A file system may hold the dump and yet not in one file: vfat ends
//! at 4 GiB.

use super::retention;
use crate::config::{Dump, Measure};
use anyhow::{Context, bail};
use log::{info, warn};
use nix::sys::statfs::statfs;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What is left for the files that come after the dump.
const FOR_THE_REST: u64 = 1 << 20;

/// File systems with small files: the number that statfs gives, and the longest file.
const SHORT_FILES: [(i64, u64); 6] = [
    (0x4d44, (1 << 32) - 1),
    (0x137f, 268_966_912),
    (0x138f, 268_966_912),
    (0x2468, (1 << 31) - 1),
    (0x2478, (1 << 31) - 1),
    (0x4d5a, (1 << 31) - 1),
];

/// What is known of room, for `status.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceReport {
    /// Bytes that the dump could have.
    pub room: u64,
    /// Bytes that it was going to have at most: counted, or the length of the vmcore if that was enough to know.
    pub needed: u64,
    /// What was done for want of room, in order.
    pub measures: Vec<String>,
    /// Old dumps that were removed, before or after.
    pub removed: Vec<String>,
}

/// What a dry count says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Size of the dump.
    pub bytes: u64,
    /// The level that was in effect.
    pub level: u8,
    /// Whether its pages are packed by zstd.
    pub zstd: bool,
    /// Whether pages can be packed at all.
    pub packable: bool,
}

/// What deciding needs of the world.
pub trait Ground {
    /// Bytes that a new file could have.
    ///
    /// # Errors
    /// The target does not tell.
    fn room(&mut self) -> anyhow::Result<u64>;

    /// What a collector with these options would write.
    ///
    /// # Errors
    /// The collector failed.
    fn count(&mut self, command: &[String]) -> anyhow::Result<Counted>;

    /// Removes the next old dump that may go; `None` if there is none.
    fn remove_one(&mut self) -> Option<String>;
}

/// Levels of the collector that leave out more than `level`, the next kind of page each: zeros, free pages, cache,
/// private cache, user memory.
fn stricter(level: u8) -> Vec<u8> {
    const KINDS: [u8; 5] = [1, 16, 2, 4, 8];
    let mut levels: Vec<u8> = Vec::new();
    let mut now = level;
    for kind in KINDS {
        now |= kind;
        if now != level && levels.last() != Some(&now) {
            levels.push(now);
        }
    }
    levels
}

/// Where the options of our collector begin in a command; `None` if it is another one.
fn options_at(command: &[String]) -> Option<usize> {
    let is_ours = |word: &String| Path::new(word).file_name().is_some_and(|name| name == "kdump-capture");
    command.iter().position(is_ours).map(|at| at + 1)
}

/// The command without the options that name a codec.
fn unpacked(command: &[String], options: usize) -> Vec<String> {
    const CODECS: [&str; 4] = ["-c", "-l", "-p", "-z"];
    let mut words = Vec::new();
    let mut level_follows = false;
    for (at, word) in command.iter().enumerate() {
        let is_level = std::mem::take(&mut level_follows);
        let inside = at >= options;
        if inside && (is_level || word.starts_with("--compress-level=") || CODECS.contains(&word.as_str())) {
            continue;
        }
        if inside && word == "--compress-level" {
            level_follows = true;
            continue;
        }
        words.push(word.clone());
    }
    words
}

/// The command to write the dump with. `vmcore` is the length of the source.
///
/// # Errors
/// It cannot fit, whatever is allowed to be done.
pub fn decide(
    dump: &Dump,
    vmcore: u64,
    ground: &mut dyn Ground,
    report: &mut SpaceReport,
) -> anyhow::Result<Vec<String>> {
    let command = &dump.collector;
    report.room = match ground.room() {
        Ok(room) => room,
        Err(error) => {
            warn!("{error:#}");
            return Ok(command.clone());
        }
    };
    report.needed = margin(vmcore);
    let Some(options) = options_at(command).filter(|_| report.room < report.needed) else { return Ok(command.clone()) };
    info!("{} of room, the vmcore has {}: counting what the dump will take", mib(report.room), mib(vmcore));
    let counted = counted(command, options, ground);
    let counted = match counted {
        Ok(counted) => counted,
        Err(error) => {
            // Whoever cannot count may still be able to write.
            let said = format!("the room that the dump needs could not be counted: {error:#}");
            warn!("{said}");
            report.measures.push(said);
            return Ok(command.clone());
        }
    };
    report.needed = margin(counted.bytes);
    let mut attempt = Attempt { command: command.clone(), counted, ground, report };
    if attempt.fits() {
        return Ok(attempt.command);
    }
    attempt.said(format!(
        "the dump needs {}, and there is room for {}",
        mib(attempt.report.needed),
        mib(attempt.report.room)
    ));
    for measure in &dump.when_short {
        match measure {
            Measure::Remove => attempt.remove(),
            Measure::Level => attempt.with_other_levels(),
            Measure::Codec => attempt.with_other_codecs(),
            Measure::Incomplete => {
                let room = attempt.report.room;
                // `-L` makes our collector write in the order of use, which an ELF dump cannot have.
                let elf = attempt.command.iter().skip(options).any(|word| word == "-E");
                let order = if elf { "in the order of memory" } else { "the most useful pages first" };
                attempt.said(format!("an incomplete dump of {} is written, {order}", mib(room)));
                attempt.command.extend(["-L".to_owned(), room.max(1).to_string()]);
                return Ok(attempt.command);
            }
        }
        if attempt.fits() {
            return Ok(attempt.command);
        }
    }
    bail!(
        "there is too little room: the dump needs {}, {} can be had; make room, let `keep` remove old dumps, or allow \
         an incomplete one",
        mib(attempt.report.needed),
        mib(attempt.report.room)
    )
}

/// What the configured command takes, counted without packing first, which is quick, if packing need not be looked at.
fn counted(command: &[String], options: usize, ground: &mut dyn Ground) -> anyhow::Result<Counted> {
    let plain = unpacked(command, options);
    let most = ground.count(&plain)?;
    if plain.len() == command.len() || margin(most.bytes) <= ground.room()? {
        return Ok(most);
    }
    ground.count(command)
}

/// The command so far, and what it takes.
struct Attempt<'a> {
    command: Vec<String>,
    counted: Counted,
    ground: &'a mut dyn Ground,
    report: &'a mut SpaceReport,
}

impl Attempt<'_> {
    fn fits(&self) -> bool {
        self.report.needed <= self.report.room
    }

    fn said(&mut self, text: String) {
        warn!("{text}");
        self.report.measures.push(text);
    }

    fn remove(&mut self) {
        while !self.fits() {
            let Some(name) = self.ground.remove_one() else { return };
            self.said(format!("the old dump {name} is removed"));
            self.report.removed.push(name);
            match self.ground.room() {
                Ok(room) => self.report.room = room,
                Err(error) => return warn!("{error:#}"),
            }
        }
    }

    fn with_other_levels(&mut self) {
        let configured = self.counted.level;
        let before = self.command.clone();
        stricter(configured).into_iter().find(|level| self.fits_with(&before, &["-d", &level.to_string()]));
        if self.counted.level != configured {
            let level = self.counted.level;
            self.said(format!("level {level} instead of {configured}: {}", mib(self.report.needed)));
        }
    }

    fn with_other_codecs(&mut self) {
        const ZSTD: [[&str; 3]; 2] = [["-z", "--compress-level", "3"], ["-z", "--compress-level", "9"]];
        if !self.counted.packable {
            return;
        }
        let before = self.command.clone();
        for options in ZSTD.iter().skip(usize::from(self.counted.zstd)) {
            let fits = self.fits_with(&before, options);
            self.said(format!("{}: {}", options.join(" "), mib(self.report.needed)));
            if fits {
                return;
            }
        }
    }

    /// Takes these options in addition to those of `before`; whether that is enough.
    fn fits_with(&mut self, before: &[String], options: &[&str]) -> bool {
        let command: Vec<String> =
            before.iter().cloned().chain(options.iter().map(|word| (*word).to_owned())).collect();
        match self.ground.count(&command) {
            Ok(counted) => {
                (self.counted, self.command) = (counted, command);
                self.report.needed = margin(counted.bytes);
                self.fits()
            }
            Err(error) => {
                self.said(format!("with {} it could not be counted: {error:#}", options.join(" ")));
                false
            }
        }
    }
}

/// With what a file system takes for itself.
fn margin(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 64)
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}

/// Bytes that a new file in `dir` can have when `free` are to be left.
///
/// # Errors
/// The file system does not tell.
pub fn room(dir: &Path, free: u64) -> anyhow::Result<u64> {
    let stat = statfs(dir).with_context(|| format!("cannot tell how much room is in {}", dir.display()))?;
    let block = u64::try_from(stat.block_size()).unwrap_or_default();
    let available = stat.blocks_available().saturating_mul(block).saturating_sub(free.max(FOR_THE_REST));
    let short = SHORT_FILES.iter().find(|(kind, _)| *kind == stat.filesystem_type().0).map(|(_, most)| *most);
    Ok(available.min(short.unwrap_or(u64::MAX)))
}

/// Old dumps that may go before the new one is complete, one at a time.
#[derive(Debug)]
pub struct Removals {
    dumps: std::vec::IntoIter<retention::OldDump>,
}

impl Removals {
    /// There are none.
    pub fn none() -> Removals {
        Removals { dumps: Vec::new().into_iter() }
    }

    /// Those beside `new`; none if all are kept.
    pub fn beside(new: &Path, keep: Option<std::num::NonZeroU32>) -> Removals {
        let dumps = keep.map(|_| retention::beside(new)).unwrap_or_default();
        let go: Vec<_> = keep.iter().flat_map(|keep| retention::removable(&dumps, *keep, false)).cloned().collect();
        Removals { dumps: go.into_iter() }
    }
}

impl Iterator for Removals {
    type Item = String;

    /// Removes the next one that can be removed, and names it.
    fn next(&mut self) -> Option<String> {
        self.dumps.find_map(|dump| match dump.remove() {
            Ok(()) => Some(dump.to_string()),
            Err(error) => {
                warn!("{error:#}");
                None
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A disk, and a collector whose dumps have sizes that follow from level and codec.
    #[derive(Debug)]
    struct FakeGround {
        room: u64,
        /// Old dumps that may go, with their sizes, oldest first.
        old: Vec<u64>,
        level: u8,
        unit: u64,
        counts: Vec<String>,
        broken: bool,
    }

    impl FakeGround {
        fn of(room: u64, old: &[u64]) -> FakeGround {
            FakeGround { room, old: old.to_vec(), level: 0, unit: 1 << 20, counts: Vec::new(), broken: false }
        }

        /// Each kind of page is 64 units, as are the kernel's own; zstd halves, and its level 9 takes a third.
        fn size(&self, command: &[String]) -> Counted {
            let mut level = self.level;
            let mut words = command.iter();
            let (mut zstd, mut packed, mut hard) = (false, false, false);
            while let Some(word) = words.next() {
                match word.as_str() {
                    "-d" => level = words.next().unwrap().parse().unwrap(),
                    "-z" => (zstd, packed) = (true, true),
                    "-l" => (zstd, packed) = (false, true),
                    "--compress-level" => hard = words.next().unwrap() == "9",
                    _ => {}
                }
            }
            let kinds = 6 - u64::from(level.count_ones());
            let per_kind = match (zstd, packed, hard) {
                (true, _, true) => 16,
                (true, ..) => 32,
                (_, true, _) => 48,
                _ => 64,
            };
            Counted { bytes: kinds * per_kind * self.unit, level, zstd, packable: true }
        }
    }

    impl Ground for FakeGround {
        fn room(&mut self) -> anyhow::Result<u64> {
            Ok(self.room)
        }

        fn count(&mut self, command: &[String]) -> anyhow::Result<Counted> {
            if self.broken {
                bail!("no memory");
            }
            self.counts.push(command.join(" "));
            Ok(self.size(command))
        }

        fn remove_one(&mut self) -> Option<String> {
            if self.old.is_empty() {
                return None;
            }
            self.room += self.old.remove(0);
            Some("old".to_owned())
        }
    }

    const MIB: u64 = 1 << 20;
    const VMCORE: u64 = 400 * MIB;

    fn dump(collector: &str) -> Dump {
        Dump::new("/var/crash".into(), collector.split(' ').map(str::to_owned).collect())
    }

    fn decided(collector: &str, ground: &mut FakeGround) -> (String, SpaceReport) {
        let mut report = SpaceReport::default();
        let command = decide(&dump(collector), VMCORE, ground, &mut report).unwrap();
        (command.join(" "), report)
    }

    #[test]
    fn with_room_for_the_whole_vmcore_nothing_is_counted() {
        let mut ground = FakeGround::of(410 * MIB, &[MIB]);
        let (command, report) = decided("kdump-capture -l -d 1", &mut ground);
        assert_eq!((command.as_str(), ground.counts.len(), ground.old.len()), ("kdump-capture -l -d 1", 0, 1));
        assert_eq!(report.measures, [""; 0]);
    }

    #[test]
    fn what_fits_unpacked_is_not_packed_for_the_count() {
        let mut ground = FakeGround::of(330 * MIB, &[MIB]);
        let (command, _) = decided("/usr/bin/wrap -z kdump-capture -l --compress-level 3 -d 1", &mut ground);
        assert_eq!(command, "/usr/bin/wrap -z kdump-capture -l --compress-level 3 -d 1");
        assert_eq!(ground.counts, ["/usr/bin/wrap -z kdump-capture -d 1"]);
        let mut ground = FakeGround::of(250 * MIB, &[MIB]);
        let (command, report) = decided("kdump-capture -l -d 1", &mut ground);
        assert_eq!((command.as_str(), report.measures.len()), ("kdump-capture -l -d 1", 0));
        assert_eq!(ground.counts, ["kdump-capture -d 1", "kdump-capture -l -d 1"]);
    }

    #[test]
    fn measures_are_taken_in_order_and_no_more_than_needed() {
        let mut ground = FakeGround::of(100 * MIB, &[100 * MIB, 100 * MIB, 100 * MIB]);
        let (command, report) = decided("kdump-capture -l -d 1", &mut ground);
        assert_eq!((command.as_str(), report.removed.len()), ("kdump-capture -l -d 1", 2));

        let mut ground = FakeGround::of(150 * MIB, &[]);
        let (command, report) = decided("kdump-capture -l -d 1", &mut ground);
        assert_eq!(command, "kdump-capture -l -d 1 -d 19");
        assert!(report.measures[1].starts_with("level 19 instead of 1"), "{:?}", report.measures);

        let mut ground = FakeGround::of(33 * MIB, &[]);
        let (command, _) = decided("kdump-capture -l -d 1", &mut ground);
        assert_eq!(command, "kdump-capture -l -d 1 -d 31 -z --compress-level 3");
        let mut ground = FakeGround::of(17 * MIB, &[]);
        let (command, _) = decided("kdump-capture -z -d 31", &mut ground);
        assert_eq!(command, "kdump-capture -z -d 31 -z --compress-level 9");

        let mut ground = FakeGround::of(9 * MIB, &[MIB]);
        let (command, report) = decided("kdump-capture -l -d 1", &mut ground);
        assert!(command.ends_with(&format!("-d 31 -z --compress-level 9 -L {}", 10 * MIB)), "{command}");
        let said = "an incomplete dump of 10.0 MiB is written, the most useful pages first";
        assert_eq!(report.measures.last().unwrap(), said);
        let report = decided("kdump-capture -E -d 31", &mut FakeGround::of(9 * MIB, &[])).1;
        assert!(report.measures.last().unwrap().ends_with("in the order of memory"), "{:?}", report.measures);
    }

    #[test]
    fn without_a_measure_left_the_target_has_failed() {
        let mut ground = FakeGround::of(10 * MIB, &[]);
        let dump = Dump { when_short: vec![Measure::Remove], ..dump("kdump-capture -d 31") };
        let error = decide(&dump, VMCORE, &mut ground, &mut SpaceReport::default()).unwrap_err().to_string();
        assert!(error.starts_with("there is too little room: the dump needs 65.0 MiB, 10.0 MiB can be had"), "{error}");
    }

    #[test]
    fn another_collector_and_one_that_cannot_count_are_run_as_they_are() {
        let mut ground = FakeGround::of(MIB, &[MIB]);
        assert_eq!(decided("/bin/cp", &mut ground).0, "/bin/cp");
        let mut ground = FakeGround { broken: true, ..FakeGround::of(MIB, &[MIB]) };
        let (command, report) = decided("kdump-capture -d 31", &mut ground);
        assert_eq!((command.as_str(), ground.old.len()), ("kdump-capture -d 31", 1));
        assert!(report.measures[0].contains("no memory"));
    }

    #[test]
    fn stricter_levels_leave_out_one_kind_more_each() {
        assert_eq!(stricter(0), [1, 17, 19, 23, 31]);
        assert_eq!(stricter(17), [19, 23, 31]);
        assert_eq!(stricter(31), [0; 0]);
    }

    #[test]
    fn the_room_of_a_real_directory_leaves_what_is_to_be_free() {
        let dir = tempfile::tempdir().unwrap();
        let (all, less) = (room(dir.path(), 0).unwrap(), room(dir.path(), 1 << 30).unwrap());
        assert!(less < all && less + (2 << 30) > all, "{all} {less}");
        assert_eq!(room(dir.path(), u64::MAX).unwrap(), 0);
    }

    proptest! {
        #[test]
        fn whatever_is_decided_fits_or_says_that_it_does_not(
            level in 0..32u8,
            codec in 0..3usize,
            room in 0..450u64,
            old in proptest::collection::vec(1..100u64, 0..4),
            order in Just(Measure::all()).prop_shuffle(),
            measures in 0..5usize,
        ) {
            let codec = ["", "-l ", "-z "][codec];
            let collector = format!("kdump-capture {codec}-d {level}");
            let dump = Dump { when_short: order[..measures].to_vec(), ..dump(&collector) };
            let old: Vec<u64> = old.iter().map(|size| size * MIB).collect();
            let mut ground = FakeGround::of(room * MIB, &old);
            let mut report = SpaceReport::default();
            let outcome = decide(&dump, VMCORE, &mut ground, &mut report);
            let gone: u64 = old[..old.len() - ground.old.len()].iter().sum();
            prop_assert_eq!(ground.room, room * MIB + gone);
            prop_assert_eq!(report.removed.len(), old.len() - ground.old.len());
            if let Ok(command) = &outcome {
                let limited = command.iter().any(|word| word == "-L");
                prop_assert!(limited || margin(ground.size(command).bytes) <= ground.room || VMCORE < ground.room);
                prop_assert!(!limited || dump.when_short.contains(&Measure::Incomplete));
                // No more is removed than was needed then: without the last one it would not have fitted.
                prop_assert!(ground.size(command).level & level == level);
            } else {
                prop_assert!(!dump.when_short.contains(&Measure::Incomplete));
            }
            let plain = dump.collector.join(" ");
            if margin(ground.size(&dump.collector).bytes) <= room * MIB {
                prop_assert_eq!((outcome.unwrap().join(" "), gone), (plain, 0));
            }
        }
    }
}
