//! What is on a raw target.

use super::stream::{self, Stream};
use anyhow::Context;
use kdump_hooks::raw::layout::{ALIGNMENT, Bad, FLATTENED, HEADER, Header};
use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long to wait for whoever has locked the device.
const PATIENCE: Duration = Duration::from_secs(10);

/// A device, or a file that was made of one.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) device: File,
    pub(super) size: u64,
}

/// What is on it.
#[derive(Debug)]
pub(super) enum Found {
    /// No dump.
    Nothing,
    /// A dump of ours.
    Ours(Box<Header>),
    /// A stream of makedumpfile from the start of the device on.
    Stream(Stream),
}

impl Source {
    pub(super) fn open(path: &Path, writable: bool) -> anyhow::Result<Source> {
        let opened = File::options().read(true).write(writable).open(path);
        let mut device = opened.with_context(|| format!("cannot open {}", path.display()))?;
        let size = device.seek(SeekFrom::End(0)).with_context(|| format!("cannot size {}", path.display()))?;
        Ok(Source { path: path.to_owned(), device, size })
    }

    /// Makes sure that nobody else recovers it. The lock goes with the file.
    pub(super) fn lock(&self) -> anyhow::Result<()> {
        let since = Instant::now();
        loop {
            match self.device.try_lock() {
                Ok(()) => return Ok(()),
                // udev locks a device for as long as it looks at it.
                Err(TryLockError::WouldBlock) if since.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(error) => {
                    return Err(io::Error::from(error))
                        .with_context(|| format!("cannot lock {}; see who else has it open", self.path.display()));
                }
            }
        }
    }

    /// # Errors
    /// There is a dump, and it is damaged.
    pub(super) fn look(&self) -> anyhow::Result<Found> {
        let first = self.first().with_context(|| format!("cannot read {}", self.path.display()))?;
        if first.starts_with(FLATTENED) {
            let stream = stream::measure(&self.device, 0, self.size);
            let stream = stream.with_context(|| format!("the dump on {} is damaged", self.path.display()))?;
            return Ok(Found::Stream(stream));
        }
        match Header::decode(&first) {
            Ok(header) => Ok(Found::Ours(Box::new(header))),
            Err(Bad::Foreign) => Ok(Found::Nothing),
            Err(bad) => Err(bad).with_context(|| format!("cannot use the dump on {}", self.path.display())),
        }
    }

    /// The bytes of the header, fewer if the device has no more.
    pub(super) fn first(&self) -> io::Result<Vec<u8>> {
        let mut first = Vec::new();
        (&self.device).seek(SeekFrom::Start(0))?;
        (&self.device).take(HEADER as u64).read_to_end(&mut first)?;
        Ok(first)
    }

    /// Whether a flattened stream begins there.
    pub(super) fn is_flattened_at(&self, at: u64) -> bool {
        let mut first = [0; FLATTENED.len()];
        self.device.read_exact_at(&mut first, at).is_ok() && first == *FLATTENED
    }

    /// Makes the device one on which no dump is.
    pub(super) fn clear(&self) -> anyhow::Result<()> {
        let zeros = vec![0; usize::try_from(ALIGNMENT.min(self.size)).unwrap_or_default()];
        self.device
            .write_all_at(&zeros, 0)
            .and_then(|()| self.device.sync_all())
            .with_context(|| format!("cannot clear the header of {}", self.path.display()))
    }
}
