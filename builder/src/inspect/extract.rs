//! An image as files below a directory.
//!
//! In: an archive of strangers. Out: its files, as the kernel would have them: links in the image are followed as if the
//! directory were `/`. The kernel itself sees to it that no name and no link leads out of it (`RESOLVE_IN_ROOT`), even
//! while somebody changes the directory. Unless it is asked for, and root asks, there are no device nodes, no owners and
//! no set-user-ID bits: what is unpacked to be looked at is to give nobody anything.

use super::printable;
use crate::cpio::read::{Archive, Entry};
use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, futimens};
use nix::sys::stat::{makedev, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// What is unpacked, and how.
#[derive(Clone, Debug, Default)]
pub struct Extract {
    /// Only these files, and what is below these directories; everything, if empty.
    pub only: Vec<String>,
    /// The parts for the kernel itself, microcode for one, instead of the rest.
    pub early: bool,
    /// Owners, all bits of the mode and device nodes as well.
    pub preserve: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extracted {
    /// How many entries are there now.
    pub done: usize,
    /// How many device nodes, pipes and sockets are not.
    pub left_out: usize,
}

/// Unpacks an image below `dir`, which is there and empty.
///
/// # Errors
/// The image cannot be read, the directory is not empty, or a file cannot be made.
pub fn extract(image: &[u8], dir: &Path, how: &Extract) -> anyhow::Result<Extracted> {
    if how.preserve && !Uid::effective().is_root() {
        bail!("only root can make device nodes and give files to others; leave --preserve away");
    }
    let mut there = fs::read_dir(dir).with_context(|| format!("cannot unpack to {}", dir.display()))?;
    if there.next().is_some() {
        bail!("{} is not empty; make a directory for it and name that with --directory", dir.display());
    }
    let archive = Archive::read(image)?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open(dir, flags, Mode::empty()).with_context(|| format!("cannot unpack to {}", dir.display()))?;
    let mut target = Target { root, preserve: how.preserve, links: BTreeMap::new(), directories: Vec::new() };
    let mut extracted = Extracted::default();
    let early = archive.early_parts();
    for (number, part) in archive.parts.iter().enumerate() {
        if how.early != (number < early) {
            continue;
        }
        for entry in archive.entries.get(part.entries.clone()).unwrap_or_default() {
            if !how.only.is_empty() && !how.only.iter().any(|wanted| is_below(&entry.path(), wanted)) {
                continue;
            }
            let done = target.make(&archive, entry);
            match done.with_context(|| format!("cannot unpack {}", printable(&entry.path())))? {
                true => extracted.done += 1,
                false => extracted.left_out += 1,
            }
        }
    }
    if extracted == Extracted::default() {
        bail!("{}", if how.only.is_empty() { "there is no such part in it" } else { "there is no such file in it" });
    }
    target.finish()?;
    Ok(extracted)
}

fn is_below(path: &str, wanted: &str) -> bool {
    let wanted = wanted.trim_start_matches("./").trim_matches('/');
    path.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

struct Target {
    root: OwnedFd,
    preserve: bool,
    /// The first name of each file that has several.
    links: BTreeMap<(usize, u32, u32, u32), String>,
    /// Directories get their modes last: that may be one in which nothing can be made.
    directories: Vec<(String, Entry)>,
}

impl Target {
    /// Makes one entry; whether it did.
    fn make(&mut self, archive: &Archive, entry: &Entry) -> anyhow::Result<bool> {
        let path = entry.path().into_owned();
        let (dir, name) = match path.trim_end_matches('/').rsplit_once('/') {
            Some((dir, name)) => (dir, name),
            None => ("", path.as_str()),
        };
        if name.is_empty() || name == "." {
            return Ok(true);
        }
        if name == ".." {
            bail!("a name that ends in .. names nothing");
        }
        let parent = self.directory(dir)?;
        if entry.is(libc::S_IFDIR) {
            make_directory(&parent, name)?;
            self.directories.push((path, entry.clone()));
            return Ok(true);
        }
        match unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(Errno::EISDIR) => unlinkat(&parent, name, UnlinkatFlags::RemoveDir)?,
            Err(error) => return Err(error.into()),
        }
        if entry.is(libc::S_IFREG) {
            let first = entry.inode().and_then(|inode| self.links.get(&inode));
            if let Some((dir, first)) = first.map(|path| path.rsplit_once('/').unwrap_or(("", path))) {
                let from = self.directory(dir)?;
                linkat(&from, first, &parent, name, AtFlags::empty())?;
                return Ok(true);
            }
            self.file(&parent, name, archive.data(entry), entry)?;
            if let Some(inode) = entry.inode() {
                self.links.insert(inode, path);
            }
            return Ok(true);
        }
        if entry.is(libc::S_IFLNK) {
            symlinkat(String::from_utf8_lossy(archive.data(entry)).as_ref(), &parent, name)?;
        } else if !self.preserve {
            return Ok(false);
        } else {
            let kind = SFlag::from_bits_truncate(entry.header.mode & libc::S_IFMT);
            let device = makedev(entry.header.rdevmajor.into(), entry.header.rdevminor.into());
            mknodat(&parent, name, kind, Mode::empty(), device)?;
        }
        self.dress(&parent, name, entry)?;
        Ok(true)
    }

    /// The directory that the image means by `path`; what is missing of it is made.
    fn directory(&self, path: &str) -> anyhow::Result<OwnedFd> {
        let look = |at: &OwnedFd, path: &str| {
            let how = OpenHow::new()
                .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
                .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
            openat2(at, path, how)
        };
        match look(&self.root, if path.is_empty() { "." } else { path }) {
            Err(Errno::ENOENT) if !path.is_empty() => {}
            found => return Ok(found?),
        }
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.directory(above)?;
        match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        look(&self.root, path).with_context(|| format!("{path} leads nowhere"))
    }

    fn file(&self, parent: &OwnedFd, name: &str, data: &[u8], entry: &Entry) -> anyhow::Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(parent, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        file.write_all(data)?;
        if self.preserve {
            fchown(file.as_fd(), Some(owner(entry).0), Some(owner(entry).1))?;
        }
        fchmod(file.as_fd(), self.mode(entry))?;
        Ok(futimens(file.as_fd(), &time(entry), &time(entry))?)
    }

    /// Gives an entry that is no file its owner, mode and time.
    fn dress(&self, parent: &OwnedFd, name: &str, entry: &Entry) -> anyhow::Result<()> {
        if self.preserve {
            fchownat(parent, name, Some(owner(entry).0), Some(owner(entry).1), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        }
        if !entry.is(libc::S_IFLNK) {
            fchmodat(parent, name, self.mode(entry), FchmodatFlags::NoFollowSymlink)?;
        }
        Ok(utimensat(parent, name, &time(entry), &time(entry), UtimensatFlags::NoFollowSymlink)?)
    }

    fn mode(&self, entry: &Entry) -> Mode {
        Mode::from_bits_truncate(entry.header.mode & if self.preserve { 0o7777 } else { 0o777 })
    }

    /// Gives the directories their modes, the innermost first.
    fn finish(&self) -> anyhow::Result<()> {
        for (path, entry) in self.directories.iter().rev() {
            let what = || format!("cannot set the mode of {}", printable(path));
            let dir = self.directory(path).with_context(what)?;
            // A descriptor that is only a place cannot be changed by itself; its name in itself can.
            self.dress(&dir, ".", entry).with_context(what)?;
        }
        Ok(())
    }
}

/// A directory where there may be one already, or something else from an earlier part.
fn make_directory(parent: &OwnedFd, name: &str) -> nix::Result<()> {
    match mkdirat(parent, name, Mode::S_IRWXU) {
        Err(Errno::EEXIST) => {}
        made => return made,
    }
    let there = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if there.st_mode & libc::S_IFMT == libc::S_IFDIR {
        return Ok(());
    }
    unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)?;
    mkdirat(parent, name, Mode::S_IRWXU)
}

fn owner(entry: &Entry) -> (Uid, Gid) {
    (Uid::from_raw(entry.header.uid), Gid::from_raw(entry.header.gid))
}

fn time(entry: &Entry) -> TimeSpec {
    TimeSpec::new(entry.header.mtime.into(), 0)
}
