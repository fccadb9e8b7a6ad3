//! From a plan to a file: whole or not at all.
//!
//! The image grows in a pending file that has no name, is flushed to the disk and takes the output's name in one step.
//! Whatever goes wrong before that, be it a signal, the pending file is gone and an older image is what it was.

use crate::build::Built;
use crate::cpio::layout::padding;
use crate::cpio::write::{self, Packing};
use crate::plan::Plan;
use crate::reuse::Old;
use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::linkat;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// The file that is written for `output`: a link, such as Debian's `/var/lib/kdump/initrd.img`, stays and what it names
/// becomes the image.
///
/// # Errors
/// The links cannot be followed.
pub fn behind_links(output: &Path) -> anyhow::Result<PathBuf> {
    let mut path = output.to_owned();
    // As many as the kernel follows.
    for _ in 0..40 {
        match fs::read_link(&path) {
            Ok(target) => path = directory(&path).join(target),
            // What is no link, or not there, is told by check_output.
            Err(_) => return Ok(path),
        }
    }
    bail!("the links of {} go in circles; choose another name", output.display())
}

/// Fails early if `output` cannot become an image.
///
/// # Errors
/// Something is in the way.
pub fn check_output(output: &Path, force: bool) -> anyhow::Result<()> {
    match fs::symlink_metadata(output) {
        Ok(meta) if !meta.is_file() => bail!("{} is there and is not a file; choose another name", output.display()),
        Ok(_) if !force => bail!("{} is already there; -f overwrites it", output.display()),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot look at {}", output.display())),
    }
    let dir = directory(output);
    match fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => bail!("cannot write {}: {} is not a directory", output.display(), dir.display()),
        Err(error) => Err(error).with_context(|| {
            format!("cannot write {}: {} is not there; make the directory first", output.display(), dir.display())
        }),
    }
}

/// What an image is put together of, in its order.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// An archive for the kernel itself, never compressed.
    pub early: &'a Plan,
    /// The image.
    pub plan: &'a Plan,
    /// How that is written.
    pub packing: Packing,
    /// An archive that is finished already.
    pub overlay: &'a [u8],
    /// An image from which compressed parts may be copied.
    pub old: Option<&'a Old>,
}

impl Parts<'_> {
    /// Those of what was planned.
    pub fn of(built: &Built) -> Parts<'_> {
        Parts {
            early: &built.early,
            plan: &built.plan,
            packing: built.packing,
            overlay: &built.overlay,
            old: built.old.as_ref(),
        }
    }

    fn write(&self, mtime: u32, out: &mut dyn Write) -> anyhow::Result<()> {
        let mut out = Counted { out, bytes: 0 };
        if self.early.entries().next().is_some() {
            write::write(self.early, mtime, Packing::None, &mut out)?;
            out.pad()?;
        }
        let old = self.old.map(Old::members);
        write::write_again(self.plan, mtime, self.packing, old.as_ref(), &mut out)?;
        if !self.overlay.is_empty() {
            out.pad()?;
            out.write_all(self.overlay)?;
        }
        Ok(())
    }
}

/// Knows how much has been written.
struct Counted<'a> {
    out: &'a mut dyn Write,
    bytes: usize,
}

impl Counted<'_> {
    /// An archive begins at a multiple of four.
    fn pad(&mut self) -> std::io::Result<()> {
        let gap = padding(self.bytes);
        self.write_all([0; 3].get(..gap).unwrap_or_default())
    }
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// Writes the image `output`; its size.
///
/// # Errors
/// The directory cannot be written to or is full. Nothing is left behind then.
pub fn write(parts: &Parts<'_>, output: &Path, force: bool) -> anyhow::Result<u64> {
    check_output(output, force)?;
    let dir = directory(output);
    let what =
        || format!("cannot write the image {}; is {} writable and has it room?", output.display(), dir.display());
    let pending = Pending::create(dir, output).with_context(what)?;
    let mut buffer = BufWriter::with_capacity(1 << 18, pending.file());
    parts.write(mtime()?, &mut buffer).with_context(what)?;
    buffer.flush().with_context(what)?;
    drop(buffer);
    pending.file().sync_all().with_context(what)?;
    let size = pending.file().metadata().with_context(what)?.len();
    pending.finish(output, force).with_context(what)?;
    File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| format!("cannot flush {}", dir.display()))?;
    Ok(size)
}

/// How large the image would be.
///
/// # Errors
/// An entry does not fit the format.
pub fn measure(parts: &Parts<'_>) -> anyhow::Result<u64> {
    let mut nowhere = std::io::sink();
    let mut count = Counted { out: &mut nowhere, bytes: 0 };
    parts.write(0, &mut count).context("cannot pack the image")?;
    Ok(count.bytes as u64)
}

/// An image that is not whole yet.
enum Pending {
    /// Without a name, so that nothing is left however this program ends.
    Unnamed(File),
    /// With one, where the file system knows no other way.
    Named(NamedTempFile),
}

impl Pending {
    fn create(dir: &Path, output: &Path) -> std::io::Result<Pending> {
        let unnamed = File::options().write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(dir);
        match unnamed {
            Ok(file) => Ok(Pending::Unnamed(file)),
            Err(_) => {
                let prefix = pending_name(output);
                Ok(Pending::Named(tempfile::Builder::new().prefix(&prefix).tempfile_in(dir)?))
            }
        }
    }

    fn file(&self) -> &File {
        match self {
            Pending::Unnamed(file) => file,
            Pending::Named(file) => file.as_file(),
        }
    }

    fn finish(self, output: &Path, force: bool) -> std::io::Result<()> {
        match self {
            Pending::Named(file) if force => file.persist(output).map(drop).map_err(|error| error.error),
            Pending::Named(file) => file.persist_noclobber(output).map(drop).map_err(|error| error.error),
            Pending::Unnamed(file) => match name(&file, output) {
                // A name can be given, but not taken over: the file gets another one for a moment.
                Err(Errno::EEXIST) if force => {
                    let other = output.with_file_name(pending_name(output));
                    let _ = fs::remove_file(&other);
                    name(&file, &other)?;
                    fs::rename(&other, output).inspect_err(|_| {
                        let _ = fs::remove_file(&other);
                    })
                }
                named => Ok(named?),
            },
        }
    }
}

/// Gives a name to a file that has none.
fn name(file: &File, path: &Path) -> nix::Result<()> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(AT_FDCWD, link.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)
}

fn pending_name(output: &Path) -> OsString {
    let mut name = OsString::from(".");
    name.push(output.file_name().unwrap_or_default());
    name.push(".pending");
    name
}

/// The time that all entries bear: `SOURCE_DATE_EPOCH`, or none.
fn mtime() -> anyhow::Result<u32> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => {
            text.parse().with_context(|| format!("SOURCE_DATE_EPOCH=`{text}` is not a number of seconds; unset it"))
        }
        Err(_) => Ok(0),
    }
}

fn directory(output: &Path) -> &Path {
    match output.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Entry;
    use std::os::unix::fs::PermissionsExt;

    fn plan(text: &str) -> Plan {
        let mut plan = Plan::default();
        plan.add(Entry::file("a", text.as_bytes().to_vec(), "test")).unwrap();
        plan
    }

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn parts<'a>(early: &'a Plan, plan: &'a Plan) -> Parts<'a> {
        Parts { early, plan, packing: Packing::None, overlay: &[], old: None }
    }

    #[test]
    fn what_is_for_the_kernel_itself_is_in_an_archive_of_its_own_in_front() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("image");
        let mut early = Plan::default();
        early.add(Entry::file("kernel/x86/microcode/GenuineIntel.bin", vec![1, 2, 3], "microcode")).unwrap();
        let plan = plan("x");
        let packed = Parts { packing: Packing::Zstd, ..parts(&early, &plan) };
        let size = write(&packed, &output, false).unwrap();
        assert_eq!(size, measure(&packed).unwrap());
        let image = fs::read(&output).unwrap();
        assert!(image.starts_with(b"070701"), "it is not compressed");
        let archive = crate::cpio::read::Archive::read(&image).unwrap();
        let at = |wanted: &str| archive.entries.iter().position(|entry| entry.path() == wanted).unwrap();
        assert!(at("kernel/x86/microcode/GenuineIntel.bin") < at("a"));
    }

    #[test]
    fn an_image_is_private_and_the_only_thing_left() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("image");
        let size = write(&parts(&Plan::default(), &plan("x")), &output, false).unwrap();
        let meta = fs::metadata(&output).unwrap();
        assert_eq!((meta.len(), meta.permissions().mode() & 0o777), (size, 0o600));
        assert_eq!(names(dir.path()), ["image"]);
    }

    #[test]
    fn a_link_stays_and_what_it_names_becomes_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, at(name)).unwrap();
        link("image-6.1", "image");
        link("image", "first");
        assert_eq!(behind_links(&at("first")).unwrap(), at("image-6.1"));
        assert_eq!(behind_links(&at("image-6.1")).unwrap(), at("image-6.1"), "which is not there yet");
        check_output(&behind_links(&at("image")).unwrap(), false).unwrap();
        link("b", "a");
        link("a", "b");
        let error = behind_links(&at("a")).unwrap_err().to_string();
        assert!(error.contains("go in circles"), "{error}");
    }

    #[test]
    fn an_image_that_is_there_is_only_overwritten_by_force() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("image");
        write(&parts(&Plan::default(), &plan("old")), &output, false).unwrap();
        let old = fs::read(&output).unwrap();
        let error = write(&parts(&Plan::default(), &plan("new")), &output, false).unwrap_err().to_string();
        assert!(error.ends_with("image is already there; -f overwrites it"), "{error}");
        assert_eq!(fs::read(&output).unwrap(), old);
        write(&parts(&Plan::default(), &plan("new")), &output, true).unwrap();
        assert_ne!(fs::read(&output).unwrap(), old);
    }

    #[test]
    fn a_failure_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let mut bad = plan("x");
        bad.add(Entry::file(&"n".repeat(5000), vec![], "too long a name")).unwrap();
        assert!(write(&parts(&Plan::default(), &bad), &dir.path().join("image"), false).is_err());
        assert!(names(dir.path()).is_empty());
        let error = format!(
            "{:#}",
            write(&parts(&Plan::default(), &plan("x")), &dir.path().join("no/image"), false).unwrap_err()
        );
        assert!(error.contains("make the directory first"), "{error}");
        let error = format!("{:#}", write(&parts(&Plan::default(), &plan("x")), dir.path(), true).unwrap_err());
        assert!(error.contains("is not a file"), "{error}");
    }
}
