//! One program of a kind at a time: a locked file.
//!
//! In: a folder, and whose lock it is. Out: a locked file; the lock goes with it. Who has to wait says so after a second,
//! and gives up when its patience is over.

use anyhow::Context;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// After that long it is said that one waits.
const UNSAID: Duration = Duration::from_secs(1);

/// Whose lock it is.
#[derive(Clone, Copy, Debug)]
pub struct Lock {
    /// The file's name.
    pub file: &'static str,
    /// The program.
    pub program: &'static str,
    /// How long to wait for another one.
    pub patience: Duration,
}

impl Lock {
    /// Takes the lock, which lies in `dir`: `/run`, which belongs to root alone. Where others may write, others may lock.
    ///
    /// # Errors
    /// Another one holds it for too long (an I/O error EBUSY is the cause), or there can be no such file.
    pub fn take(&self, dir: &Path, out: &mut dyn Write) -> anyhow::Result<File> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let path = dir.join(self.file);
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.with_context(|| format!("cannot open the lock {}; run it as root", path.display()))?;
        let since = Instant::now();
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if since.elapsed() > self.patience => {
                    // Who asks may know what to do with that.
                    return Err(std::io::Error::from_raw_os_error(nix::libc::EBUSY)).with_context(|| {
                        format!(
                            "another {} holds {} for more than {} s; see what it waits for",
                            self.program,
                            path.display(),
                            self.patience.as_secs()
                        )
                    });
                }
                Err(TryLockError::WouldBlock) => {
                    if !told && since.elapsed() > UNSAID {
                        told = true;
                        // Nobody may be listening; it is waited for all the same.
                        let _ = writeln!(out, "Another {} is at work, waiting for it to end", self.program);
                    }
                    thread::sleep(Duration::from_millis(100));
                }
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::UntilTold;

    #[test]
    fn a_lock_that_another_one_holds_is_waited_for_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let lock = |millis| Lock { file: "a.lock", program: "a", patience: Duration::from_millis(millis) };
        let mut said = Vec::new();
        let held = lock(0).take(dir.path(), &mut said).unwrap();
        let error = lock(300).take(dir.path(), &mut said).unwrap_err().to_string();
        assert!(error.contains("another a holds") && error.contains("/a.lock"), "{error}");
        assert!(said.is_empty(), "nobody is told of a moment");
        let mut said = UntilTold::holding(held);
        lock(60_000).take(dir.path(), &mut said).unwrap();
        assert_eq!((said.held.is_none(), said.text.as_str()), (true, "Another a is at work, waiting for it to end\n"));
    }
}
