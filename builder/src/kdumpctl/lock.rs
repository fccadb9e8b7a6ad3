//! One kdumpctl at a time.
//!
//! In: the tree. Out: a locked file; the lock goes with it. Who has to wait says so.

use crate::host::Tree;
use anyhow::{Context, bail};
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::{Duration, Instant};

/// How long to wait for another kdumpctl.
const PATIENCE: Duration = Duration::from_secs(60);

/// Takes the lock.
pub(super) fn take(tree: &Tree, out: &mut dyn Write) -> anyhow::Result<File> {
    // /run belongs to root alone; where others may write, others may lock.
    let dir = tree.path("run");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let path = dir.join("kdump.lock");
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.with_context(|| format!("cannot open the lock {}; run it as root", path.display()))?;
    let since = Instant::now();
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if since.elapsed() > PATIENCE => {
                bail!(
                    "another kdumpctl holds {} for more than {} s; see what it waits for",
                    path.display(),
                    PATIENCE.as_secs()
                )
            }
            Err(TryLockError::WouldBlock) => {
                if !told && since.elapsed() > Duration::from_secs(1) {
                    told = true;
                    writeln!(out, "Another kdumpctl is at work, waiting for it to end")?;
                }
                thread::sleep(Duration::from_millis(100));
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
    }
}
