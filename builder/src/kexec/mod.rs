//! Kernels that wait to be booted by the one that runs: the capture kernel in its reserved memory, or the next kernel.
//!
//! [`Kexec`] is the door to the system; [`Linux`] is what is behind it, [`fake`] what tests put there.
//!
//! | file | has |
//! |---|---|
//! | `load.rs` | the story: which system call, and what is done when it is refused |
//! | `guard.rs` | what forbids a load: lockdown, Secure Boot, `kexec_load_disabled` |
//! | `explain.rs` | a refusal comes back as an errno that means several things; which, and what to do |
//! | `cmdline.rs` | the command line of the capture kernel |
//! | `segments/` | what kexec_load is given, since it reads no files: the whole layout of memory |
//! | `sys.rs` | the system calls; the one room with `unsafe` |

pub mod cmdline;
pub mod explain;
pub mod fake;
pub mod guard;
pub mod load;
pub mod segments;
mod sys;

pub use explain::explain;
pub use guard::Guard;
pub use load::{Files, load};
pub use segments::Segment;

use std::ffi::CStr;
use std::fmt;
use std::fs::File;
use std::io;

/// What a loaded kernel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The next panic.
    Crash,
    /// The next reboot.
    Reboot,
}

/// What can be done with kernels that wait.
pub trait Kexec: fmt::Debug {
    /// Loads kernel and image by their files, in place of what is there.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn load_files(&self, purpose: Purpose, kernel: &File, image: Option<&File>, cmdline: &CStr) -> io::Result<()>;

    /// Loads what is laid out already, in place of what is there. With `follows`, the running kernel keeps the list of
    /// memory in it up to date.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn load_segments(&self, purpose: Purpose, entry: u64, segments: &[Segment], follows: bool) -> io::Result<()>;

    /// Takes away what is loaded; nothing happens if there is nothing.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn unload(&self, purpose: Purpose) -> io::Result<()>;

    /// Boots the kernel that waits for a reboot, at once.
    ///
    /// # Errors
    /// The kernel's refusal: none is loaded.
    fn boot(&self) -> io::Result<()>;
}

/// This machine.
#[derive(Clone, Copy, Debug)]
pub struct Linux;

impl Kexec for Linux {
    fn load_files(&self, purpose: Purpose, kernel: &File, image: Option<&File>, cmdline: &CStr) -> io::Result<()> {
        sys::load_files(purpose, kernel, image, cmdline)
    }

    fn load_segments(&self, purpose: Purpose, entry: u64, segments: &[Segment], follows: bool) -> io::Result<()> {
        sys::load_segments(purpose, entry, segments, follows)
    }

    fn unload(&self, purpose: Purpose) -> io::Result<()> {
        match sys::unload_files(purpose) {
            // Such a kernel has only the older call.
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => sys::load_segments(purpose, 0, &[], false),
            done => done,
        }
    }

    fn boot(&self) -> io::Result<()> {
        nix::unistd::sync();
        sys::boot()
    }
}
