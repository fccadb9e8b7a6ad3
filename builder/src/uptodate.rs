//! Whether an image is still what would be built now.
//!
//! In: the files that were looked at while the image was planned. Out: a list of them in the image, and later those that
//! have changed since. A file whose size, time and inode are the same is the same; any other is read, and counts as
//! changed when its content has: what was touched, unpacked again or copied is no reason to build an image.
//!
//! ```text
//!   KIND SIZE TIME INODE SHA256 PATH      f: a file, d: a directory (its names are summed), -: nothing was there
//! ```
//!
//! May surprise: with `SOURCE_DATE_EPOCH` times and inodes are left out, so that equal files make equal images; then all of
//! them are read at each look. What proc and sysfs say is not in the list; the network is compared by itself, and
//! [`place`] compares where dumps go.

pub mod place;

use crate::config::{Files, dracut};
use crate::cpio::read::Archive;
use crate::gather::programs::Programs;
use crate::host::{Kernel, Tree};
use crate::scripts;
use anyhow::Context;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where the list is in the image.
pub const PATH: &str = "etc/kdump/inputs";

/// Where all is that an image says of itself.
const ITSELF: &str = "etc/kdump/";

/// Directories that others put files into.
const SHARED: [&str; 9] = [
    "etc/modprobe.d",
    "run/modprobe.d",
    "usr/local/lib/modprobe.d",
    "usr/lib/modprobe.d",
    "lib/modprobe.d",
    "etc/modules-load.d",
    "run/modules-load.d",
    "usr/lib/modules-load.d",
    "etc/ld.so.conf.d",
];

/// The indexes of a kernel's modules, and what says how it was built.
const INDEXES: [&str; 7] = [
    "modules.dep",
    "modules.alias",
    "modules.softdep",
    "modules.symbols",
    "modules.builtin",
    "modules.builtin.modinfo",
    "config",
];

/// What changes all the time and is not what the image is made of, or is compared elsewhere.
const PASSED_OVER: [&str; 8] = ["proc", "sys", "dev", "run", "tmp", "etc/mtab", "etc/resolv.conf", "etc/hostname"];

/// What a file was, or is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    kind: char,
    size: u64,
    time: i128,
    inode: u64,
    sum: String,
}

impl State {
    /// Whether all is as stat(2) told it before.
    fn is_untouched(&self, is: &State) -> bool {
        let is_same = is.size == self.size && is.time == self.time && is.inode == self.inode;
        is.kind == self.kind && (is.kind == '-' || is_same)
    }
}

/// The files that an image is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs(BTreeMap<String, State>);

/// Everything that was looked at for an image: what `tree` was asked for, the configuration, the kernel, our programs, and
/// `more`. What `old` knows and nobody has touched is not read again.
pub fn inputs(
    tree: &Tree,
    files: &Files,
    kernel: &Kernel,
    programs: &Programs,
    more: Vec<PathBuf>,
    old: Option<&Inputs>,
) -> Inputs {
    let mut paths: BTreeSet<PathBuf> = tree.asked().into_iter().filter(|path| is_input(tree, path)).collect();
    paths.extend(more);
    paths.extend([files.kdump_conf.clone(), files.sysconfig.clone(), files.debian.clone()]);
    paths.extend(files.native.clone());
    // It counts from the moment when somebody writes it.
    paths.insert(tree.path(dracut::FILE));
    paths.extend(INDEXES.map(|name| kernel.modules_dir.join(name)));
    paths.extend(kernel.file(tree));
    paths.extend(programs.files());
    for dir in SHARED.iter().chain(&dracut::DIRECTORIES).chain(&scripts::DIRECTORIES) {
        let dir = tree.path(dir);
        paths.extend(names(&dir).unwrap_or_default().into_iter().map(|name| dir.join(name)));
        paths.insert(dir);
    }
    let dated = std::env::var_os("SOURCE_DATE_EPOCH").is_none();
    let named = |path: PathBuf| {
        let name = name_of(tree, &path)?;
        let known = old.and_then(|old| old.0.get(&name)).filter(|was| dated && was.is_untouched(&look(&path)));
        let state = known.cloned().unwrap_or_else(|| state(&path, dated));
        Some((name, state))
    };
    Inputs(paths.into_iter().filter_map(named).collect())
}

/// Reads an image with what it says of itself, which is all that has to be known here.
///
/// # Errors
/// The image cannot be read.
pub fn read(image: &[u8]) -> anyhow::Result<Archive> {
    Archive::read_with(image, &|entry| entry.path().starts_with(ITSELF))
}

/// What has changed since the image was built: path and how, nothing if nothing has.
///
/// # Errors
/// It does not say what it was made of.
pub fn changed(tree: &Tree, archive: &Archive) -> anyhow::Result<Vec<String>> {
    let files = archive.files();
    let text = files.get(PATH).context("it does not say what it was made of")?;
    let inputs = Inputs::parse(std::str::from_utf8(archive.data(text)).context(PATH)?)?;
    Ok(inputs.changes(tree))
}

impl Inputs {
    /// As it is written into an image.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (path, State { kind, size, time, inode, sum }) in &self.0 {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{kind} {size} {time} {inode} {sum} {path}");
        }
        text
    }

    /// Reads the list of an image.
    ///
    /// # Errors
    /// A line of it is damaged.
    pub fn parse(text: &str) -> anyhow::Result<Inputs> {
        let line = |line: &str| {
            let mut words = line.splitn(6, ' ');
            let mut next = || words.next().context("it is cut off");
            let kind = next()?.chars().next().context("it says no kind")?;
            let (size, time, inode) = (next()?.parse()?, next()?.parse()?, next()?.parse()?);
            let (sum, path) = (next()?.to_owned(), next()?.to_owned());
            anyhow::Ok((path, State { kind, size, time, inode, sum }))
        };
        let numbered = text.lines().enumerate();
        numbered
            .map(|(number, text)| line(text).with_context(|| format!("{PATH}:{}", number + 1)))
            .collect::<Result<_, _>>()
            .map(Inputs)
    }

    /// The sum of the file of that name, if it has not been touched.
    pub fn untouched(&self, tree: &Tree, name: &str) -> Option<&str> {
        let was = self.0.get(name)?;
        (was.kind == 'f' && was.is_untouched(&look(&path_of(tree, name)))).then_some(&was.sum)
    }

    fn changes(&self, tree: &Tree) -> Vec<String> {
        let mut changes = Vec::new();
        for (name, was) in &self.0 {
            let path = path_of(tree, name);
            let is = look(&path);
            if was.is_untouched(&is) {
                continue;
            }
            match (was.kind, is.kind) {
                ('-', _) => changes.push(format!("{} is there now", path.display())),
                (_, '-') => changes.push(format!("{} is gone", path.display())),
                _ if summed(is, &path).sum != was.sum => changes.push(format!("{} has changed", path.display())),
                _ => log::debug!("{} was touched and is the same", path.display()),
            }
        }
        changes
    }
}

/// Whether a file that was looked at is one of those that count.
fn is_input(tree: &Tree, path: &Path) -> bool {
    let Ok(inside) = path.strip_prefix(tree.root()) else { return false };
    let is_hosts = inside.file_name().is_some_and(|name| name.to_string_lossy().contains("known_hosts"));
    let passed = PASSED_OVER.iter().any(|passed| inside.starts_with(passed)) || is_hosts;
    // What is not there counts where an administrator would put it, or a package that is told of.
    let is_awaited = ["etc", "lib/firmware"].iter().any(|dir| inside.starts_with(dir));
    !passed && (path.is_file() || (is_awaited && !path.exists()))
}

/// The name in the list: below the root as the machine calls it, elsewhere with a mark.
pub(crate) fn name_of(tree: &Tree, path: &Path) -> Option<String> {
    let name = match path.strip_prefix(tree.root()) {
        Ok(inside) => format!("/{}", inside.to_str()?),
        Err(_) => format!("={}", path.to_str()?),
    };
    (!name.contains('\n')).then_some(name)
}

fn path_of(tree: &Tree, name: &str) -> PathBuf {
    name.strip_prefix('=').map_or_else(|| tree.path(name), PathBuf::from)
}

/// All of a file's state; `dated` with what tells that it was not touched.
fn state(path: &Path, dated: bool) -> State {
    let state = summed(look(path), path);
    if dated { state } else { State { time: 0, inode: 0, ..state } }
}

/// What stat(2) tells.
fn look(path: &Path) -> State {
    let none = State { kind: '-', size: 0, time: 0, inode: 0, sum: "-".to_owned() };
    let Ok(meta) = fs::metadata(path) else { return none };
    let kind = match meta.file_type() {
        kind if kind.is_dir() => 'd',
        kind if kind.is_file() => 'f',
        // What is read for ever, or waits for somebody who writes, is not looked into.
        _ => 'o',
    };
    let time = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    State { kind, size: meta.len(), time, inode: meta.ino(), ..none }
}

/// The same with the sum of what is in it; what cannot be read has none.
fn summed(state: State, path: &Path) -> State {
    let mut hasher = Sha256::new();
    let read = match state.kind {
        'f' => fs::File::open(path).and_then(|mut file| copy(&mut file, &mut hasher)),
        'd' => names(path).map(|names| names.iter().for_each(|name| hasher.update([name.as_bytes(), b"\0"].concat()))),
        _ => return state,
    };
    let sum = match read {
        Ok(()) => digits(&hasher.finalize()),
        Err(_) => "-".to_owned(),
    };
    State { sum, ..state }
}

/// The sum of some bytes.
pub(crate) fn sum(bytes: &[u8]) -> String {
    digits(&Sha256::digest(bytes))
}

fn digits(sum: &[u8]) -> String {
    sum.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn copy(file: &mut fs::File, hasher: &mut Sha256) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        let read = io::Read::read(file, &mut buffer)?;
        match buffer.get(..read) {
            None | Some([]) => return Ok(()),
            Some(bytes) => hasher.update(bytes),
        }
    }
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    fn inputs_of(tree: &Tree, paths: &[&str]) -> Inputs {
        let named = |path: &&str| (format!("/{path}"), state(&tree.path(path), true));
        Inputs(paths.iter().map(named).collect())
    }

    #[test]
    fn what_was_touched_is_the_same_and_what_was_written_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path());
        for name in ["a", "b", "c"] {
            fs::write(tree.path(name), "same").unwrap();
        }
        fs::create_dir(tree.path("d")).unwrap();
        let inputs = inputs_of(&tree, &["a", "b", "c", "d", "none"]);
        assert_eq!(inputs.changes(&tree), [] as [&str; 0]);
        let file = fs::File::open(tree.path("a")).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(60)).unwrap();
        fs::write(tree.path("b.new"), "same").unwrap();
        fs::rename(tree.path("b.new"), tree.path("b")).unwrap();
        assert_eq!(inputs.changes(&tree), [] as [&str; 0]);
        // Of the same size, and with the time of before.
        let before = fs::metadata(tree.path("c")).unwrap().modified().unwrap();
        fs::write(tree.path("c.new"), "else").unwrap();
        fs::rename(tree.path("c.new"), tree.path("c")).unwrap();
        fs::File::open(tree.path("c")).unwrap().set_modified(before).unwrap();
        fs::write(tree.path("d/new"), "").unwrap();
        fs::write(tree.path("none"), "").unwrap();
        fs::remove_file(tree.path("a")).unwrap();
        let words = ["a is gone", "c has changed", "d has changed", "none is there now"];
        for (line, words) in inputs.changes(&tree).iter().zip(words) {
            assert!(line.ends_with(words), "{line}");
        }
        assert_eq!(inputs.changes(&tree).len(), 4);
    }

    #[test]
    fn what_would_be_read_for_ever_is_looked_at_alone() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path());
        nix::unistd::mkfifo(&tree.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("/dev/zero", tree.path("zero")).unwrap();
        let inputs = inputs_of(&tree, &["fifo", "zero"]);
        assert!(inputs.0.values().all(|state| (state.kind, state.sum.as_str()) == ('o', "-")), "{inputs:?}");
        assert_eq!(inputs.changes(&tree), [] as [&str; 0]);
        fs::remove_file(tree.path("fifo")).unwrap();
        fs::write(tree.path("fifo"), "").unwrap();
        assert_eq!(inputs.changes(&tree).len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn a_list_is_read_back(entries in proptest::collection::btree_map(
            "[/=][a-z /]{1,9}",
            ("[fdo-]", proptest::prelude::any::<u64>(), proptest::prelude::any::<i64>(), "[0-9a-f]{64}|-"),
            0..9,
        )) {
            let states = entries.into_iter().map(|(path, (kind, size, time, sum))| {
                let kind = kind.chars().next().unwrap();
                (path, State { kind, size, time: time.into(), inode: size / 2, sum })
            });
            let inputs = Inputs(states.collect());
            proptest::prop_assert_eq!(Inputs::parse(&inputs.to_text()).unwrap(), inputs);
        }
    }

    #[test]
    fn a_list_that_is_damaged_is_refused_with_its_line() {
        for text in ["f 1 2 3 x", "f x 2 3 y /a", ""] {
            let parsed = Inputs::parse(text);
            assert_eq!(parsed.is_ok(), text.is_empty(), "{text}");
            if let Err(error) = parsed {
                assert!(error.to_string().starts_with("etc/kdump/inputs:1"), "{error}");
            }
        }
    }
}
