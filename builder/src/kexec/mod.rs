//! The capture kernel in its reserved memory: loaded and unloaded by the kernel's file system call.
//!
//! [`Kexec`] is the door to the system; [`Linux`] is what is behind it, [`fake`] what tests put there. A refusal comes
//! back as an errno that means several things; [`explain`] says which, and what to do.

pub mod cmdline;
pub mod fake;
mod sys;

use anyhow::Context;
use std::ffi::CStr;
use std::fmt;
use std::fs::File;
use std::io;

/// What can be done with the reserved memory.
pub trait Kexec: fmt::Debug {
    /// Loads kernel and image as the capture kernel, in place of one that is there.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn load(&self, kernel: &File, image: &File, cmdline: &CStr) -> io::Result<()>;

    /// Unloads the capture kernel; nothing happens if there is none.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn unload(&self) -> io::Result<()>;
}

/// This machine.
#[derive(Clone, Copy, Debug)]
pub struct Linux;

impl Kexec for Linux {
    fn load(&self, kernel: &File, image: &File, cmdline: &CStr) -> io::Result<()> {
        sys::load_crash(kernel, image, cmdline)
    }

    fn unload(&self) -> io::Result<()> {
        sys::unload_crash()
    }
}

/// Says what a refusal means.
pub fn explain(error: io::Error, load_disabled: bool) -> anyhow::Error {
    let meaning = match error.raw_os_error() {
        Some(libc::EPERM) if load_disabled => {
            "kernel.kexec_load_disabled is 1, which only a reboot takes back; load the capture kernel before it is set"
        }
        Some(libc::EPERM) => {
            "only root may do this, and not with a locked down kernel that was given an unsigned one; run it as root"
        }
        Some(libc::ENOEXEC) => "the kernel does not know this kind of kernel image; name a bzImage with KDUMP_IMG",
        Some(libc::EADDRNOTAVAIL | libc::ENOMEM) => {
            "the reserved memory is too small for kernel and image, or the system has none left; raise crashkernel= and reboot"
        }
        Some(libc::EKEYREJECTED | libc::ENOKEY | libc::EBADMSG | libc::ENODATA) => {
            "the kernel image is not signed with a key that this kernel trusts; use the distribution's signed kernel"
        }
        Some(libc::ENOSYS) => {
            "this kernel was built without kexec_file_load; boot one with CONFIG_KEXEC_FILE and CONFIG_CRASH_DUMP"
        }
        Some(libc::EBUSY) => "another load is under way; try again",
        Some(libc::EINVAL) => "the command line is too long for the capture kernel or the files are of no use to it",
        _ => return anyhow::Error::new(error),
    };
    Err::<(), _>(error).context(meaning).err().unwrap_or_else(|| anyhow::anyhow!(meaning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_comes_with_its_meaning() {
        for (errno, disabled, words) in [
            (libc::EPERM, true, "kexec_load_disabled is 1"),
            (libc::EPERM, false, "run it as root"),
            (libc::ENOEXEC, false, "bzImage"),
            (libc::EADDRNOTAVAIL, false, "raise crashkernel="),
            (libc::EKEYREJECTED, false, "signed"),
            (libc::ENOSYS, false, "CONFIG_KEXEC_FILE"),
            (libc::EIO, false, "os error 5"),
        ] {
            let text = format!("{:#}", explain(io::Error::from_raw_os_error(errno), disabled));
            assert!(text.contains(words), "{text}");
        }
    }
}
