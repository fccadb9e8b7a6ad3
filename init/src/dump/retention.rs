//! Old dumps: which are ours, and which may go.
//!
//! In: the directory of all dumps and how many stay. Out: what is removed, oldest first.
//!
//! A directory is ours if its name is that of a dump of the same host, its `status.json` is one that we wrote, and it
//! holds nothing but files of a dump. Anything else is not looked into twice and never removed: a symbolic link, a
//! directory that another program made, one to which somebody has added a file.
//!
//! Of the complete dumps the newest `keep` stay, the new one among them; of the others those that are among the newest
//! `keep` of all. Until the new one is complete the newest complete one stays in any case.
//!
//! May surprise: what was cut off before it had a status is not known for ours and stays. Age is what the name says, so
//! a machine whose clock begins at 1970 takes its last dumps for its oldest; the new one never counts as old.

use super::{ENVIRONMENT_LOG, LOG, VMCORE, directory};
use crate::status;
use anyhow::Context;
use kdump_hooks::notify::MARK;
use log::{info, warn};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

/// A dump as a stream, where one could not be written otherwise.
const FLATTENED: &str = "vmcore.flat";
/// No `status.json` is longer.
const LONGEST_STATUS: u64 = 4 << 20;

/// The name of a dump directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    /// `YYYY-MM-DD-HH:MM:SS`.
    stamp: String,
    /// What tells two of one second apart.
    suffix: u32,
    host: String,
}

impl Name {
    fn parse(name: &str) -> Option<Name> {
        let (rest, suffix) = match name.rsplit_once('.') {
            Some((rest, digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) && is_stamped(rest) => {
                (rest, digits.parse().ok().filter(|number| *number > 0 && !digits.starts_with('0'))?)
            }
            _ => (name, 0),
        };
        if !is_stamped(rest) {
            return None;
        }
        let (host, stamp) = rest.split_at_checked(rest.len().checked_sub(STAMP.len())?)?;
        let host = host.strip_suffix('-').filter(|host| !host.is_empty())?;
        // Where a name must not have a colon it has a dash.
        let stamp = stamp.replace(':', "-");
        Some(Name { stamp, suffix, host: host.to_owned() })
    }
}

/// What a stamp looks like: `0` is any digit.
const STAMP: &str = "0000-00-00-00:00:00";

fn is_stamped(name: &str) -> bool {
    let Some(start) = name.len().checked_sub(STAMP.len()) else { return false };
    let Some(stamp) = name.get(start..) else { return false };
    stamp.bytes().zip(STAMP.bytes()).all(|(byte, like)| match like {
        b'0' => byte.is_ascii_digit(),
        b':' => matches!(byte, b':' | b'-'),
        like => byte == like,
    })
}

/// A dump of ours from an earlier crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldDump {
    name: Name,
    /// Where it is.
    pub path: PathBuf,
    /// Whether it is complete.
    pub complete: bool,
    files: Vec<String>,
}

/// The dumps of this host beside `new`, newest first.
pub fn beside(new: &Path) -> Vec<OldDump> {
    let name = |path: &Path| Name::parse(path.file_name()?.to_str()?);
    let (Some(base), Some(own)) = (new.parent(), name(new)) else { return Vec::new() };
    let entries = fs::read_dir(base).into_iter().flatten().filter_map(Result::ok);
    let mut dumps: Vec<OldDump> = entries
        .filter(|entry| entry.path() != new && entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| {
            let name = name(&entry.path()).filter(|name| name.host == own.host)?;
            OldDump::read(name, entry.path())
        })
        .collect();
    dumps.sort_by(|one, other| other.name.cmp(&one.name));
    dumps
}

/// All dumps in a directory, those of each host by themselves and newest first.
pub fn within(base: &Path) -> Vec<Vec<OldDump>> {
    let entries = fs::read_dir(base).into_iter().flatten().filter_map(Result::ok);
    let mut hosts: BTreeMap<String, Vec<OldDump>> = BTreeMap::new();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let name = entry.file_name().to_str().and_then(Name::parse);
        if let Some(dump) = name.and_then(|name| OldDump::read(name, entry.path())) {
            hosts.entry(dump.name.host.clone()).or_default().push(dump);
        }
    }
    for dumps in hosts.values_mut() {
        dumps.sort_by(|one, other| other.name.cmp(&one.name));
    }
    hosts.into_values().collect()
}

/// Those of `dumps`, newest first, that may go when so many stay: oldest first. `complete` says whether the new one,
/// which is not among them, is complete yet.
pub fn removable(dumps: &[OldDump], keep: NonZeroU32, complete: bool) -> Vec<&OldDump> {
    let others = usize::try_from(keep.get() - 1).unwrap_or(usize::MAX);
    let mut whole = 0;
    let mut go: Vec<&OldDump> = dumps
        .iter()
        .enumerate()
        .filter(|(age, dump)| match dump.complete {
            true => {
                whole += 1;
                whole > others && (complete || whole > 1)
            }
            false => *age >= others,
        })
        .map(|(_, dump)| dump)
        .collect();
    go.reverse();
    go
}

/// After the new dump is complete: removes what need not stay, and names it.
pub fn settle(new: &Path, keep: NonZeroU32, removed: &mut Vec<String>, mut tick: impl FnMut()) {
    let dumps = beside(new);
    for dump in removable(&dumps, keep, true) {
        tick();
        match dump.remove() {
            Ok(()) => removed.push(dump.to_string()),
            Err(error) => warn!("{error:#}"),
        }
    }
}

/// Whether a status is of a dump that was to be the log alone, and is.
pub fn is_log_alone(status: &Value) -> bool {
    let files = status.get("files").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let names = || files.iter().filter_map(|file| file.get("name")?.as_str());
    let is_core = |name: &str| name != LOG && name.starts_with(VMCORE);
    status.get("outcome").and_then(Value::as_str) == Some("complete")
        && names().any(|name| name == LOG)
        && !names().any(is_core)
}

impl OldDump {
    /// What is at `path`, if it is ours.
    fn read(name: Name, path: PathBuf) -> Option<OldDump> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&path).ok()? {
            let entry = entry.ok()?;
            let file = entry.file_name().into_string().ok().filter(|file| is_of_a_dump(file))?;
            entry.file_type().is_ok_and(|kind| kind.is_file()).then_some(())?;
            files.push(file);
        }
        let mut text = Vec::new();
        File::open(path.join(status::FILE)).ok()?.take(LONGEST_STATUS).read_to_end(&mut text).ok()?;
        let status: Value = serde_json::from_slice(&text).ok()?;
        let outcome = status.get("outcome")?.as_str()?;
        // What was recovered from a raw target may have lost its status, and with it what only the capture kernel knew.
        if status.get("recovered_from").and_then(Value::as_str).is_none() {
            status.get("capture_kernel")?.as_str()?;
            status.get("stages")?.as_array()?;
        }
        let has = |name: &str| files.iter().any(|file| file == name);
        let has_all = has(VMCORE) || has(FLATTENED) || (is_log_alone(&status) && has(LOG));
        Some(OldDump { name, path, complete: outcome == "complete" && has_all, files })
    }

    /// Removes it.
    ///
    /// # Errors
    /// A file could not be removed.
    pub fn remove(&self) -> anyhow::Result<()> {
        let mut files: Vec<&String> = self.files.iter().collect();
        // What takes the room first, and last the file by which it is known for ours, so that what is cut off here can
        // be gone on with.
        files.sort_by_key(|file| (*file == status::FILE, !file.starts_with(VMCORE), *file));
        let gone = files.iter().try_for_each(|file| fs::remove_file(self.path.join(file)));
        gone.and_then(|()| fs::remove_dir(&self.path))
            .with_context(|| format!("cannot remove the old dump {}", self.path.display()))?;
        info!("removed the old dump {}", self.path.display());
        Ok(())
    }
}

impl std::fmt::Display for OldDump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.path.file_name().unwrap_or_default().to_string_lossy())
    }
}

fn is_of_a_dump(file: &str) -> bool {
    let file = file.strip_suffix(directory::INCOMPLETE).unwrap_or(file);
    // The mark is ours too: of a dump that has been told of after the reboot.
    [LOG, VMCORE, FLATTENED, ENVIRONMENT_LOG, status::FILE, MARK].contains(&file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// What a test puts into the directory of all dumps.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Entry {
        Complete,
        /// The log alone was wanted.
        LogAlone,
        /// Its status says so, but the dump is gone.
        Hollow,
        Incomplete,
        NoStatus,
        ForeignStatus,
        ForeignFile,
        Subdirectory,
        LinkInside,
        File,
        Link,
    }

    const ENTRIES: [Entry; 11] = [
        Entry::Complete,
        Entry::LogAlone,
        Entry::Hollow,
        Entry::Incomplete,
        Entry::NoStatus,
        Entry::ForeignStatus,
        Entry::ForeignFile,
        Entry::Subdirectory,
        Entry::LinkInside,
        Entry::File,
        Entry::Link,
    ];

    impl Entry {
        fn make(self, path: &Path, elsewhere: &Path) {
            let status = |outcome: &str, files: &[&str]| {
                let files: Vec<Value> = files.iter().map(|name| serde_json::json!({ "name": name })).collect();
                serde_json::json!({"outcome": outcome, "capture_kernel": "6", "stages": [], "files": files}).to_string()
            };
            match self {
                Entry::File => return fs::write(path, "x").unwrap(),
                Entry::Link => return std::os::unix::fs::symlink(elsewhere, path).unwrap(),
                _ => fs::create_dir(path).unwrap(),
            }
            let put = |name: &str, text: &str| fs::write(path.join(name), text).unwrap();
            put(LOG, "log");
            match self {
                Entry::Complete | Entry::NoStatus | Entry::ForeignStatus => put(VMCORE, "core"),
                Entry::Incomplete => put("vmcore-incomplete", "co"),
                Entry::ForeignFile => put("notes.txt", "mine"),
                Entry::Subdirectory => fs::create_dir(path.join(VMCORE)).unwrap(),
                Entry::LinkInside => std::os::unix::fs::symlink(elsewhere.join("precious"), path.join(VMCORE)).unwrap(),
                Entry::LogAlone | Entry::Hollow | Entry::File | Entry::Link => {}
            }
            match self {
                Entry::NoStatus => {}
                Entry::ForeignStatus => put(status::FILE, "{}"),
                Entry::Incomplete => put(status::FILE, &status("incomplete", &[LOG])),
                Entry::LogAlone => put(status::FILE, &status("complete", &[LOG])),
                _ => put(status::FILE, &status("complete", &[LOG, VMCORE])),
            }
        }

        fn is_ours(self) -> bool {
            self.is_whole() || matches!(self, Entry::Hollow | Entry::Incomplete)
        }

        fn is_whole(self) -> bool {
            matches!(self, Entry::Complete | Entry::LogAlone)
        }
    }

    /// A directory of dumps with these in it by name, a new dump, and a place that links lead to.
    struct Shelf {
        tree: tempfile::TempDir,
    }

    impl Shelf {
        fn of(entries: &BTreeMap<String, Entry>) -> Shelf {
            let tree = tempfile::tempdir().unwrap();
            let elsewhere = tree.path().join("elsewhere");
            for folder in ["crash", "elsewhere"] {
                fs::create_dir(tree.path().join(folder)).unwrap();
            }
            Entry::Complete.make(&elsewhere.join("127.0.0.1-1999-01-01-00:00:00"), &elsewhere);
            fs::write(elsewhere.join("precious"), "precious").unwrap();
            fs::write(
                elsewhere.join(status::FILE),
                "{\"outcome\":\"complete\",\"capture_kernel\":\"6\",\"stages\":[]}",
            )
            .unwrap();
            let shelf = Shelf { tree };
            for (name, entry) in entries {
                entry.make(&shelf.crash().join(name), &elsewhere);
            }
            fs::create_dir(shelf.new_dump()).unwrap();
            shelf
        }

        fn crash(&self) -> PathBuf {
            self.tree.path().join("crash")
        }

        fn new_dump(&self) -> PathBuf {
            // A clock that has lost its battery.
            self.crash().join("127.0.0.1-1970-01-01-00:00:07")
        }

        fn names(&self) -> BTreeSet<String> {
            let names = fs::read_dir(self.crash()).unwrap();
            let mut names: BTreeSet<String> = names.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
            assert!(names.remove("127.0.0.1-1970-01-01-00:00:07"));
            assert_eq!(fs::read_dir(self.tree.path().join("elsewhere")).unwrap().count(), 3);
            assert_eq!(fs::read_to_string(self.tree.path().join("elsewhere/precious")).unwrap(), "precious");
            names
        }
    }

    fn settled(entries: &[(&str, Entry)], keep: u32) -> (Vec<String>, Vec<String>) {
        let shelf = Shelf::of(&entries.iter().map(|(name, entry)| ((*name).to_owned(), *entry)).collect());
        let mut removed = Vec::new();
        settle(&shelf.new_dump(), NonZeroU32::new(keep).unwrap(), &mut removed, || {});
        (removed, shelf.names().into_iter().collect())
    }

    #[test]
    fn the_newest_complete_ones_stay_and_the_oldest_go_first() {
        let entries = [
            ("127.0.0.1-2026-01-01-00:00:00", Entry::Complete),
            ("127.0.0.1-2026-01-02-00-00-00", Entry::Complete),
            ("127.0.0.1-2026-01-02-00:00:00.10", Entry::Incomplete),
            ("127.0.0.1-2026-01-02-00:00:00.9", Entry::Complete),
            ("127.0.0.1-2026-01-03-00:00:00", Entry::Incomplete),
        ];
        let (removed, _) = settled(&entries, 3);
        assert_eq!(removed, ["127.0.0.1-2026-01-01-00:00:00"]);
        let (removed, left) = settled(&entries, 2);
        assert_eq!(
            removed,
            ["127.0.0.1-2026-01-01-00:00:00", "127.0.0.1-2026-01-02-00-00-00", "127.0.0.1-2026-01-02-00:00:00.10"]
        );
        assert_eq!(left, ["127.0.0.1-2026-01-02-00:00:00.9", "127.0.0.1-2026-01-03-00:00:00"]);
        assert_eq!(settled(&entries, 1).1, [""; 0]);
    }

    #[test]
    fn what_other_programs_and_other_hosts_made_is_never_touched() {
        let entries = [
            ("10.0.0.7-2026-01-01-00:00:00", Entry::Complete),
            ("2026-01-01-00:00", Entry::Complete),
            ("202601010000", Entry::Complete),
            ("127.0.0.1-2026-01-01-00:00", Entry::Complete),
            ("127.0.0.1-2026-01-01-00:00:00.old", Entry::Complete),
            ("127.0.0.1-2026-01-01-00:00:00.01", Entry::Complete),
            ("x127.0.0.1-2026-01-01-00:00:00", Entry::Complete),
            ("127.0.0.1-2026-01-01-00:00:0é", Entry::Complete),
        ];
        let (removed, left) = settled(&entries, 1);
        assert_eq!((removed.len(), left.len()), (0, entries.len()));
    }

    #[test]
    fn a_dump_that_somebody_has_been_told_of_is_still_ours() {
        let shelf = Shelf::of(&BTreeMap::from([("127.0.0.1-2026-01-01-00:00:00".to_owned(), Entry::Complete)]));
        fs::write(shelf.crash().join("127.0.0.1-2026-01-01-00:00:00").join(MARK), "").unwrap();
        settle(&shelf.new_dump(), NonZeroU32::MIN, &mut Vec::new(), || {});
        assert_eq!(shelf.names().len(), 0);
    }

    #[test]
    fn hosts_are_told_apart_and_without_a_new_one_the_newest_complete_one_stays() {
        let shelf = Shelf::of(&BTreeMap::from([
            ("127.0.0.1-2026-01-01-00:00:00".to_owned(), Entry::Complete),
            ("127.0.0.1-2026-01-02-00:00:00".to_owned(), Entry::Incomplete),
            ("10.0.0.7-2026-01-01-00:00:00".to_owned(), Entry::Complete),
            ("10.0.0.7-2026-01-02-00:00:00".to_owned(), Entry::Complete),
        ]));
        let hosts = within(&shelf.crash());
        assert_eq!(hosts.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
        let go = |dumps| {
            removable(dumps, NonZeroU32::new(2).unwrap(), false).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(go(&hosts[0]), ["10.0.0.7-2026-01-01-00:00:00"]);
        assert_eq!(go(&hosts[1]), [""; 0]);
    }

    #[test]
    fn a_removal_that_was_cut_off_can_be_gone_on_with() {
        let shelf = Shelf::of(&BTreeMap::from([("127.0.0.1-2026-01-01-00:00:00".to_owned(), Entry::Hollow)]));
        let dumps = beside(&shelf.new_dump());
        assert!(!dumps[0].complete);
        dumps[0].remove().unwrap();
        assert_eq!(shelf.names().len(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn whatever_is_there_only_ours_goes_and_what_must_stay_stays(
            kinds in proptest::collection::vec((0..ENTRIES.len(), 1..5u32, 0..3u32), 0..12),
            keep in 1..5u32,
            complete in any::<bool>(),
        ) {
            let name = |(_, day, suffix): &(usize, u32, u32)| {
                let suffix = if *suffix == 0 { String::new() } else { format!(".{suffix}") };
                format!("127.0.0.1-2026-01-{day:02}-00:00:00{suffix}")
            };
            let entries: BTreeMap<String, Entry> = kinds.iter().map(|kind| (name(kind), ENTRIES[kind.0])).collect();
            let shelf = Shelf::of(&entries);
            let dumps = beside(&shelf.new_dump());
            let keep = NonZeroU32::new(keep).unwrap();
            let go: Vec<String> = removable(&dumps, keep, complete).iter().map(|dump| dump.to_string()).collect();
            removable(&dumps, keep, complete).iter().for_each(|dump| dump.remove().unwrap());
            let left = shelf.names();

            // The model: names sort by age here, since days and suffixes have one digit.
            let newest_first: Vec<&String> = entries.keys().rev().filter(|name| entries[*name].is_ours()).collect();
            let whole: Vec<&&String> = newest_first.iter().filter(|name| entries[**name].is_whole()).collect();
            let others = keep.get() as usize - 1;
            for (name, entry) in &entries {
                let stays = match entry {
                    entry if !entry.is_ours() => true,
                    entry if entry.is_whole() => {
                        let rank = whole.iter().position(|it| **it == name).unwrap();
                        rank < others || (rank == 0 && !complete)
                    }
                    _ => newest_first.iter().position(|it| *it == name).unwrap() < others,
                };
                prop_assert_eq!(left.contains(name), stays, "{} {:?}", name, entry);
            }
            prop_assert!(go.is_sorted(), "the oldest goes first: {go:?}");
        }

        #[test]
        fn any_name_is_taken_in_peace(name in "(127\\.0\\.0\\.1|é|-)?-?[0-9é:.-]{0,24}") {
            if let Some(name) = Name::parse(&name) {
                prop_assert_eq!(name.stamp.len(), STAMP.len());
            }
        }
    }
}
