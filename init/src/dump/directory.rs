//! The directory of one dump.
//!
//! `<path>/127.0.0.1-YYYY-MM-DD-HH:MM:SS/`, in UTC, with `.1`, `.2` … if taken. A file in it is named `NAME-incomplete`
//! until it is whole; then it is flushed, renamed, and the directory flushed, so that a name without the suffix is a
//! promise. Directories are 0700, files 0600.
//!
//! May surprise: where a name must not have a colon, as on vfat, it has a dash; where it must not be longer, as on
//! minix, a taken name is told apart by a later second.

use super::collect::Collector;
use super::digest::{hex, sha256_of};
use super::place::{Address, Place};
use super::{ENVIRONMENT_LOG, LOG, VMCORE};
use crate::beat::Pulse;
use crate::status::{self, FileReport, Outcome};
use anyhow::{Context, bail};
use kdump_hooks::calendar::civil;
use log::warn;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a name ends in until its file is whole.
pub(super) const INCOMPLETE: &str = "-incomplete";

/// The files that come after the dump, and the room that they need.
const RESERVED: [(&str, usize); 2] = [(ENVIRONMENT_LOG, 512 << 10), (status::FILE, 128 << 10)];

/// How many dumps of one second are told apart.
const SUFFIXES: u32 = 1000;

/// The directory of one dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpDir {
    path: PathBuf,
}

impl DumpDir {
    /// Makes the directory below `base`, which is made as well where it is missing.
    ///
    /// # Errors
    /// The file system refuses it.
    pub fn create(base: &Path, host: &str, now: SystemTime) -> anyhow::Result<DumpDir> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(base)
            .with_context(|| format!("cannot make the directory {}", base.display()))?;
        let (mut colons, mut suffixed) = (true, true);
        let mut number: u32 = 0;
        while number < SUFFIXES {
            let later = if suffixed { Duration::ZERO } else { Duration::from_secs(number.into()) };
            let mut name = name_of(host, now + later);
            if number > 0 && suffixed {
                name.push_str(&format!(".{number}"));
            }
            if !colons {
                name = name.replace(':', "-");
            }
            let path = base.join(name);
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    flush(base)?;
                    return Ok(DumpDir { path });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(error) if error.kind() == ErrorKind::InvalidInput && colons => colons = false,
                Err(error) if error.kind() == ErrorKind::InvalidFilename && suffixed && number > 0 => suffixed = false,
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot make the dump directory {}", path.display()));
                }
            }
        }
        bail!("{} has {SUFFIXES} dumps of {}", base.display(), stamp(now));
    }

    /// The same, if it is below `top`.
    ///
    /// # Errors
    /// A link on the way leads elsewhere, where nothing is kept.
    pub fn below(self, top: &Path) -> anyhow::Result<DumpDir> {
        let real = |path: &Path| fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()));
        let (place, top) = (real(&self.path)?, real(top)?);
        if !place.starts_with(&top) {
            bail!(
                "{} leads out of the target, to {}: there is a link on the way; write the directory that it leads to \
                 as `path`",
                self.path.display(),
                place.display()
            );
        }
        Ok(self)
    }

    /// A directory that another process has made.
    pub fn existing(path: PathBuf) -> DumpDir {
        DumpDir { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where `name` is written while it is not whole.
    pub fn pending(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}{INCOMPLETE}"))
    }

    /// Takes room for the files that come after the dump, so that a dump which fills the disk leaves them some. What
    /// cannot be had is told.
    pub fn reserve(&self) {
        for (name, bytes) in RESERVED {
            let written = File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(self.pending(name))
                .and_then(|mut file| file.write_all(&vec![0; bytes]).and_then(|()| file.sync_data()));
            if let Err(error) = written {
                warn!("cannot keep room for {name}, which comes after the dump: {error}");
            }
        }
    }

    /// Turns the pending file of `name` into the whole one.
    ///
    /// # Errors
    /// It could not be flushed or renamed.
    pub fn finish(&self, name: &str) -> anyhow::Result<()> {
        let pending = self.pending(name);
        let file = File::open(&pending).with_context(|| format!("cannot open {}", pending.display()))?;
        // A file system without modes, such as vfat, refuses this and has nothing to protect.
        let _ = file.set_permissions(Permissions::from_mode(0o600));
        file.sync_all().with_context(|| format!("cannot flush {}", pending.display()))?;
        fs::rename(&pending, self.path.join(name)).with_context(|| format!("cannot rename {}", pending.display()))?;
        flush(&self.path)
    }

    /// As [`DumpDir::finish`], for what a collector wrote.
    ///
    /// # Errors
    /// As there, and it wrote nothing.
    pub fn finish_collected(&self, name: &str) -> anyhow::Result<()> {
        // A log can be empty, a dump cannot.
        match fs::metadata(self.pending(name)) {
            Ok(metadata) if metadata.len() > 0 || name != VMCORE => self.finish(name),
            _ => bail!("the collector ended well but wrote nothing"),
        }
    }

    /// Comes back if the file system does anything at all.
    ///
    /// # Errors
    /// It refuses to make a file.
    pub fn probe(&self) -> anyhow::Result<()> {
        let probe = self.pending("probe");
        let made = File::create(&probe).and_then(|file| file.sync_all());
        fs::remove_file(&probe).and(made).with_context(|| format!("cannot make {}", probe.display()))
    }

    /// The length of `name` and its sha256 in hexadecimal digits. `tick` is called about every 64 MiB.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn digest(&self, name: &str, mut tick: impl FnMut()) -> anyhow::Result<(u64, String)> {
        let path = self.path.join(name);
        let read = File::open(&path).and_then(|mut file| sha256_of(&mut file, &mut tick));
        let (bytes, digest) = read.with_context(|| format!("cannot read {} back", path.display()))?;
        Ok((bytes, hex(&digest)))
    }
}

impl Place for DumpDir {
    fn address(&self) -> Address {
        Address::Directory(self.path.clone())
    }

    fn collect(&mut self, name: &str, collector: &Collector, pulse: &mut dyn Pulse) -> anyhow::Result<()> {
        let pending = self.pending(name);
        collector.into_file(&pending).run(pulse)?;
        self.finish_collected(name)
    }

    fn write(&mut self, name: &str, pieces: &mut dyn Iterator<Item = Vec<u8>>) -> anyhow::Result<()> {
        let pending = self.pending(name);
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&pending)
            .and_then(|file| {
                let mut file = BufWriter::new(file);
                for piece in pieces {
                    file.write_all(&piece)?;
                }
                file.flush()
            })
            .with_context(|| format!("cannot write {}", pending.display()))?;
        self.finish(name)
    }

    fn replace(&mut self, name: &str, text: Vec<u8>) -> anyhow::Result<()> {
        let replaced = self.write(name, &mut std::iter::once(text));
        if replaced.is_err() {
            // What is half of it is of no use beside what it was.
            let _ = fs::remove_file(self.pending(name));
        }
        replaced
    }

    fn outcome(&self) -> Outcome {
        match (self.path.join(VMCORE).exists(), self.pending(VMCORE).exists()) {
            (true, _) => Outcome::Complete,
            (false, true) => Outcome::Incomplete,
            (false, false) => Outcome::Failed,
        }
    }

    fn files(&self, most: u64, tick: &mut dyn FnMut()) -> Vec<FileReport> {
        let incomplete = format!("{VMCORE}{INCOMPLETE}");
        let names = [LOG, VMCORE, &incomplete, ENVIRONMENT_LOG];
        names
            .into_iter()
            .filter(|name| fs::metadata(self.path.join(name)).is_ok_and(|metadata| metadata.len() <= most))
            .filter_map(|name| match self.digest(name, &mut *tick) {
                Ok((bytes, sha256)) => Some(FileReport { name: name.to_owned(), bytes, sha256 }),
                Err(error) => {
                    warn!("{error:#}");
                    None
                }
            })
            .collect()
    }
}

fn flush(directory: &Path) -> anyhow::Result<()> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("cannot flush the directory {}", directory.display()))
}

/// What the dump of `host` at that time is called.
pub(super) fn name_of(host: &str, now: SystemTime) -> String {
    format!("{host}-{}", stamp(now))
}

/// `YYYY-MM-DD-HH:MM:SS` in UTC.
fn stamp(now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}-{:02}:{:02}:{:02}", time / 3600, time / 60 % 60, time % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01-00:00:00"),
            (951_782_399, "2000-02-28-23:59:59"),
            (951_782_400, "2000-02-29-00:00:00"),
            (1_795_294_158, "2026-11-21-20:49:18"),
            (4_107_542_399, "2100-02-28-23:59:59"),
            (4_107_542_400, "2100-03-01-00:00:00"),
        ] {
            assert_eq!(stamp(at(seconds)), text);
        }
    }

    #[test]
    fn two_dumps_of_one_second_have_their_own_directories() {
        let base = tempfile::tempdir().unwrap();
        let make = || DumpDir::create(&base.path().join("var/crash"), "127.0.0.1", at(0)).unwrap();
        let (first, second, third) = (make(), make(), make());
        assert!(first.path().ends_with("var/crash/127.0.0.1-1970-01-01-00:00:00"));
        assert!(second.path().ends_with("127.0.0.1-1970-01-01-00:00:00.1"));
        assert!(third.path().ends_with("127.0.0.1-1970-01-01-00:00:00.2"));
        assert_eq!(fs::metadata(first.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_link_that_leads_out_of_the_target_is_noticed() {
        let tree = tempfile::tempdir().unwrap();
        let (target, elsewhere) = (tree.path().join("target"), tree.path().join("elsewhere"));
        fs::create_dir_all(target.join("data")).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink("data", target.join("inside")).unwrap();
        std::os::unix::fs::symlink(&elsewhere, target.join("outside")).unwrap();
        let make = |base: &str| DumpDir::create(&target.join(base), "127.0.0.1", at(0))?.below(&target);
        assert!(make("inside/crash").is_ok());
        let error = make("outside").unwrap_err().to_string();
        assert!(error.contains("leads out of the target"), "{error}");
    }

    #[test]
    fn a_name_loses_its_suffix_only_when_the_file_is_whole() {
        let base = tempfile::tempdir().unwrap();
        let dir = DumpDir::create(base.path(), "h", at(0)).unwrap();
        fs::write(dir.pending("vmcore"), b"abc").unwrap();
        assert!(dir.path().join("vmcore-incomplete").exists());
        dir.finish("vmcore").unwrap();
        assert!(!dir.path().join("vmcore-incomplete").exists());
        let mode = fs::metadata(dir.path().join("vmcore")).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let (bytes, sha256) = dir.digest("vmcore", || {}).unwrap();
        assert_eq!(bytes, 3);
        assert_eq!(sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(dir.finish("nothing").is_err());
    }
}
