//! Where things are kept: everything below cargo's `target/`, and only sockets elsewhere.
//!
//! ```text
//! target/qemu/kernels/NAME/   an unpacked kernel package, with modules.dep
//! target/qemu/oracle/         makedumpfile with the libraries it needs
//! target/qemu/readers/        crash and kdumpid, likewise; drgn/ beside it
//! target/qemu/debian-root/    the files of a small Debian system
//! target/qemu/sources/NAME/   a raw vmcore that serves many tests
//! target/qemu/apt/            a private apt state for Debian's later suites
//! target/qemu/slots/          one lock file per core: a guest holds one
//! target/qemu/runs/NAME/      one crash: disks, images, console.log, the dump taken off
//! target/demo/                what `cargo demo` leaves for the user
//! target/dist/                what `cargo dist` makes: packages, manual pages, completions
//! target/tools/               the programs that make packages
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::progress;

/// The workspace's root.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Cargo's target folder: the one this program was built in. Cargo marks it, and the folder of each target triple
/// inside it, with a CACHEDIR.TAG.
pub fn target() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let marked = exe.ancestors().filter(|folder| folder.join("CACHEDIR.TAG").exists());
    marked.last().map_or_else(|| workspace().join("target"), Path::to_path_buf)
}

/// The harness's own folder below the target folder.
pub fn qemu() -> PathBuf {
    target().join("qemu")
}

/// An empty folder for one run: what an earlier run of that name left is removed.
pub fn fresh(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path).with_context(|| format!("unable to clear {}", path.display()))?;
    }
    fs::create_dir_all(path).with_context(|| format!("unable to make the folder {}", path.display()))
}

/// An empty folder for Unix sockets, for as long as it is kept. Their names have at most 107 bytes (unix(7)), and the
/// target folder may lie deep.
pub fn for_sockets() -> Result<TempDir> {
    tempfile::tempdir_in("/tmp").context("unable to make a folder for sockets")
}

/// A lock that other test processes respect; it is released when the file is dropped, or when its process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Waits for the lock `name`, saying so when it is held by someone else.
pub fn lock(name: &str) -> Result<Lock> {
    let path = qemu().join(format!("{name}.lock"));
    let file = lock_file(&path)?;
    if file.try_lock().is_err() {
        progress::note(&format!("waiting for another process that holds {}", path.display()));
        file.lock().with_context(|| format!("unable to lock {}", path.display()))?;
    }
    Ok(Lock { _file: file })
}

/// Waits until one of `count` numbered locks of the group is free, and takes it.
pub fn lock_any(group: &str, count: usize) -> Result<Lock> {
    let folder = qemu().join(group);
    loop {
        for number in 0..count.max(1) {
            let file = lock_file(&folder.join(number.to_string()))?;
            if file.try_lock().is_ok() {
                return Ok(Lock { _file: file });
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn lock_file(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("unable to make the folder {}", folder.display()))?;
    }
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("unable to open the lock file {}", path.display()))
}

/// A folder that is made once: `make` fills a temporary sibling, which gets its name only when it is complete.
pub fn made_once(folder: &Path, what: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if folder.exists() {
        return Ok(());
    }
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let _lock = lock(&format!("provide-{name}"))?;
    if folder.exists() {
        return Ok(());
    }
    let parent = folder.parent().unwrap_or(folder);
    fs::create_dir_all(parent).with_context(|| format!("unable to make the folder {}", parent.display()))?;
    let prefix = format!(".unfinished-{name}-");
    remove_leftovers(parent, &prefix)?;
    progress::timed(what, || {
        let unfinished = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(parent)
            .with_context(|| format!("unable to make a temporary folder in {}", parent.display()))?;
        let content = unfinished.path().join("content");
        fs::create_dir(&content)?;
        make(&content).with_context(|| format!("unable to provide {what}"))?;
        fs::rename(&content, folder).with_context(|| format!("unable to rename to {}", folder.display()))
    })
}

/// What a process left that was killed while it made the folder; the lock says that none is at it now.
fn remove_leftovers(parent: &Path, prefix: &str) -> Result<()> {
    for entry in fs::read_dir(parent).with_context(|| format!("unable to list {}", parent.display()))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)) {
            fs::remove_dir_all(&path).with_context(|| format!("unable to remove {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_could_not_be_made_leaves_nothing_and_is_made_the_next_time() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("made-once-test");
        fs::create_dir(parent.path().join(".unfinished-made-once-test-x")).unwrap();
        made_once(&folder, "a test folder", |_| anyhow::bail!("no network")).unwrap_err();
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
        let make = |content: &Path| Ok(fs::write(content.join("file"), "1")?);
        made_once(&folder, "a test folder", make).unwrap();
        made_once(&folder, "a test folder", |_| anyhow::bail!("made twice")).unwrap();
        assert_eq!(fs::read(folder.join("file")).unwrap(), b"1");
    }
}
