//! Loads a kernel and its image by the system call that suits the machine.
//!
//! In: two files and a command line. Out: a kernel that waits. kexec_file_load comes first: the kernel reads the files
//! itself and checks what has to be signed. Only where it does not know that call or that kind of image, and where nothing
//! asks for signatures, everything is laid out here and given to kexec_load.

use super::{Guard, Kexec, Purpose, explain, segments};
use crate::config::Syscall;
use crate::host::Tree;
use anyhow::{Context, bail};
use kdump_hooks::kernel_image::unified;
use std::borrow::Cow;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// The kernel.
    pub kernel: &'a Path,
    /// Its image.
    pub image: Option<&'a Path>,
    /// Its command line.
    pub cmdline: &'a CStr,
}

/// Loads it; by which call it was done.
///
/// # Errors
/// Why it could not be done, and what to do.
pub fn load(
    tree: &Tree,
    kexec: &dyn Kexec,
    purpose: Purpose,
    files: Files,
    syscall: Syscall,
) -> anyhow::Result<Syscall> {
    let guard = Guard::of(tree);
    if syscall != Syscall::Load {
        let kernel = open(files.kernel, "kernel", |bytes| unified::kernel(bytes).map(Cow::Borrowed))?;
        let image = files.image.map(|image| open(image, "image", |bytes| Some(unified::initrd(bytes))));
        let image = image.transpose()?;
        match kexec.load_files(purpose, &kernel, image.as_ref(), files.cmdline) {
            Ok(()) => return Ok(Syscall::File),
            Err(error) => {
                let is_lacking = matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::ENOEXEC));
                let explained = explain(error, &guard);
                if !is_lacking || syscall == Syscall::File {
                    return Err(explained);
                }
                if let Some(why) = guard.forbids_unsigned() {
                    return Err(explained.context(format!("{why}, so that kexec_load cannot take its place")));
                }
                log::info!("kexec_file_load cannot load {}: {explained:#}; kexec_load is used", files.kernel.display());
            }
        }
    }
    if let Some(why) = guard.forbids_unsigned() {
        bail!("kexec_load checks no signatures, and {why}; use kexec_file_load (--syscall file)");
    }
    let kernel =
        fs::read(files.kernel).with_context(|| format!("cannot read the kernel {}", files.kernel.display()))?;
    let image = match files.image {
        Some(image) => fs::read(image).with_context(|| format!("cannot read the image {}", image.display()))?,
        None => Vec::new(),
    };
    let image = unified::initrd(&image).into_owned();
    let kernel = unified::kernel(&kernel).unwrap_or(&kernel);
    let layout = segments::lay_out(tree, purpose, kernel, image, files.cmdline)
        .with_context(|| format!("cannot lay {} out in memory", files.kernel.display()))?;
    let load = |follows| kexec.load_segments(purpose, layout.entry, &layout.segments, follows);
    match load(layout.follows) {
        // A kernel that does not know the flag.
        Err(error) if layout.follows && error.raw_os_error() == Some(libc::EINVAL) => load(false),
        done => done,
    }
    .map_err(|error| explain(error, &guard))?;
    Ok(Syscall::Load)
}

/// A file; of a unified image, which no kernel takes, the part that is asked for, in a file without a name.
fn open(path: &Path, what: &str, part: fn(&[u8]) -> Option<Cow<'_, [u8]>>) -> anyhow::Result<File> {
    let mut file = File::open(path).with_context(|| format!("cannot read the {what} {}", path.display()))?;
    let mut start = [0; 2];
    if file.read_exact_at(&mut start, 0).is_err() || start != *b"MZ" {
        return Ok(file);
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).with_context(|| format!("cannot read the {what} {}", path.display()))?;
    file.rewind()?;
    let Some(part) = part(&bytes) else { return Ok(file) };
    let taken = || format!("cannot take the {what} out of {}", path.display());
    let mut inner = tempfile::tempfile().with_context(taken)?;
    inner.write_all(&part).with_context(taken)?;
    // Written files cannot be loaded while somebody may still write to them.
    File::open(format!("/proc/self/fd/{}", inner.as_raw_fd())).with_context(taken)
}
