//! A dump directory on a file system that may stop answering at any moment: a server that is gone, a disk that hangs.
//!
//! Each access has a limit ([`within`](crate::within)). One that does not come back is the last: the place is lost, and
//! everything that is asked of it later fails at once, so that the next target gets its turn.

use super::collect::Collector;
use super::directory::DumpDir;
use super::place::{Address, Place};
use crate::beat::{Beat, Pulse};
use crate::status::{FileReport, Outcome};
use crate::within::{Late, Tick, alive_within, within};
use anyhow::{Context, bail};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// After a collector has failed, an access to a file system that is well takes no longer.
const AFTER_A_FAILURE: Duration = Duration::from_secs(15);
/// The supervisor's patience is that much longer than ours.
const GRACE: Duration = Duration::from_secs(30);

/// A dump directory, with a limit for each access.
#[derive(Debug)]
pub struct Patient {
    dir: DumpDir,
    limit: Cell<Duration>,
    lost: Cell<bool>,
}

impl Patient {
    /// As [`DumpDir::create`], in `path` below `root`.
    ///
    /// # Errors
    /// As there, or the file system does not answer.
    pub fn create(
        root: PathBuf,
        path: PathBuf,
        host: String,
        now: SystemTime,
        limit: Duration,
    ) -> anyhow::Result<Patient> {
        let base = root.join(path);
        let shown = base.display().to_string();
        let dir = within(limit, move || DumpDir::create(&base, &host, now)?.below(&root));
        let dir = dir.with_context(|| format!("cannot make a dump directory below {shown}"))?;
        Ok(Patient { dir, limit: Cell::new(limit), lost: Cell::new(false) })
    }

    fn check(&self) -> anyhow::Result<()> {
        match self.lost.get() {
            true => bail!("{} does not answer any more", self.dir.path().display()),
            false => Ok(()),
        }
    }

    /// One access.
    fn access<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce(DumpDir) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        self.check()?;
        let dir = self.dir.clone();
        self.note(what, within(self.limit.get(), move || work(dir)))
    }

    /// Remembers an access that did not come back.
    fn note<T>(&self, what: &str, came: anyhow::Result<T>) -> anyhow::Result<T> {
        came.map_err(|error| match error.downcast_ref::<Late>() {
            Some(_) => {
                self.lost.set(true);
                error.context(format!("{}: {what}", self.dir.path().display()))
            }
            None => error,
        })
    }
}

impl Place for Patient {
    fn address(&self) -> Address {
        self.dir.address()
    }

    fn collect(&mut self, name: &str, collector: &Collector, pulse: &mut dyn Pulse) -> anyhow::Result<()> {
        self.check()?;
        let ran = collector.into_file(&self.dir.pending(name)).run(pulse);
        pulse.beat(Beat::Still(self.limit.get() + GRACE));
        let Err(error) = ran else {
            let name = name.to_owned();
            return self.access("flushing it", move |dir| dir.finish_collected(&name));
        };
        self.limit.set(self.limit.get().min(AFTER_A_FAILURE));
        match self.access("looking whether it still answers", |dir| dir.probe()) {
            Err(late) if self.lost.get() => Err(error.context(format!("{late:#}"))),
            _ => Err(error),
        }
    }

    fn write(&mut self, name: &str, pieces: &mut dyn Iterator<Item = Vec<u8>>) -> anyhow::Result<()> {
        self.check()?;
        let (name, pieces) = (name.to_owned(), pieces.collect::<Vec<_>>());
        let what = format!("writing {name}");
        self.access(&what, move |mut dir| dir.write(&name, &mut pieces.into_iter()))
    }

    fn replace(&mut self, name: &str, text: Vec<u8>) -> anyhow::Result<()> {
        self.check()?;
        let (name, what) = (name.to_owned(), format!("writing {name} once more"));
        self.access(&what, move |mut dir| dir.replace(&name, text))
    }

    fn outcome(&self) -> Outcome {
        self.access("looking for the dump", |dir| Ok(dir.outcome())).unwrap_or(Outcome::Failed)
    }

    fn files(&self, most: u64, tick: &mut dyn FnMut()) -> Vec<FileReport> {
        if self.lost.get() {
            return Vec::new();
        }
        let dir = self.dir.clone();
        let work = move |say: &Tick<_>| Ok(dir.files(most, &mut || say.tick()));
        let files = self.note("reading it back", alive_within(self.limit.get(), work, tick));
        files.unwrap_or_else(|error| {
            log::warn!("{error:#}");
            Vec::new()
        })
    }

    fn is_lost(&self) -> bool {
        self.lost.get()
    }
}

/// The length of a file that grows, looked at by a thread: where the file system hangs, only that hangs.
#[derive(Debug)]
pub(super) struct Length {
    bytes: Arc<AtomicU64>,
    alive: Arc<()>,
}

impl Length {
    /// How often it is looked at.
    const GLANCE: Duration = Duration::from_millis(100);

    /// Watches the file for as long as this lives.
    pub(super) fn watch(path: &Path) -> Length {
        let length = Length { bytes: Arc::default(), alive: Arc::default() };
        let (path, bytes) = (path.to_owned(), length.bytes.clone());
        let wanted = Arc::downgrade(&length.alive);
        let watching = crate::start::in_thread("length", move || {
            while wanted.upgrade().is_some() {
                let now = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
                bytes.store(now, Ordering::Relaxed);
                std::thread::sleep(Length::GLANCE);
            }
        });
        watching.unwrap_or_else(|error| log::warn!("cannot watch the dump grow: {error}"));
        length
    }

    /// As it was seen last.
    pub(super) fn now(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_answers_is_as_good_as_without_limits() {
        let base = tempfile::tempdir().unwrap();
        let limit = Duration::from_secs(20);
        let mut place =
            Patient::create(base.path().into(), "dumps".into(), "127.0.0.1".into(), SystemTime::now(), limit).unwrap();
        place.write("vmcore", &mut [b"a".to_vec(), b"bc".to_vec()].into_iter()).unwrap();
        assert_eq!(place.outcome(), Outcome::Complete);
        assert_eq!(place.files(u64::MAX, &mut || ())[0].bytes, 3);
        assert!(!place.is_lost());
    }

    #[test]
    fn a_file_system_that_hangs_is_lost_at_once_for_everything_else() {
        let base = tempfile::tempdir().unwrap();
        let limit = Duration::from_secs(20);
        let mut place =
            Patient::create(base.path().into(), "dumps".into(), "127.0.0.1".into(), SystemTime::now(), limit).unwrap();
        place.limit.set(Duration::from_millis(200));
        let hang = |_| {
            std::thread::sleep(Duration::from_secs(60));
            Ok(())
        };
        let error = format!("{:#}", place.access("waiting", hang).unwrap_err());
        assert!(error.contains(": waiting: no answer within 0 s") && place.is_lost(), "{error}");
        let began = std::time::Instant::now();
        assert_eq!(place.outcome(), Outcome::Failed);
        assert!(place.write("status.json", &mut std::iter::once(Vec::new())).is_err());
        assert!(place.files(u64::MAX, &mut || ()).is_empty());
        assert!(began.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn after_a_collector_has_failed_there_is_less_patience() {
        let base = tempfile::tempdir().unwrap();
        let limit = Duration::from_secs(100);
        let mut place =
            Patient::create(base.path().into(), "dumps".into(), "127.0.0.1".into(), SystemTime::now(), limit).unwrap();
        let command = ["false".to_owned()];
        let collector =
            Collector { command: &command, vmcore: Path::new("/dev/null"), report: Path::new("/r"), stall: limit };
        assert!(place.collect("vmcore", &collector, &mut Vec::new()).is_err());
        assert_eq!((place.limit.get(), place.is_lost()), (AFTER_A_FAILURE, false));
        assert_eq!(std::fs::read_dir(place.dir.path()).unwrap().count(), 0, "the probe is gone");
    }
}
