//! The crate's one room for `unsafe`: a hook run between fork and exec, and memory mapped by kind.
//!
//! The contract on the door: nothing here returns a pointer, and what is mapped is never unmapped, so a returned
//! slice is valid for as long as the process lives.

#![allow(unsafe_code)]

use std::num::NonZeroUsize;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

/// Kinds of user memory that a dump filter must tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Anonymous pages of the base size.
    Anonymous,
    /// Anonymous memory that the kernel is asked to back with transparent huge pages.
    Transparent,
    /// Shared anonymous memory, which the kernel keeps in a hidden tmpfs.
    Shared,
    /// Pages out of the hugetlb pool.
    HugeTlb,
    /// Pages out of the hugetlb pool of 1 GiB.
    Gigantic,
    /// Anonymous pages of which the kernel may keep one for several that are the same.
    Mergeable,
}

/// Makes the program that `command` starts die with the thread that starts it, however that ends.
pub fn die_with_parent(command: &mut Command) {
    let hook = || set_pdeathsig(Signal::SIGKILL).map_err(std::io::Error::from);
    // SAFETY: between fork and exec the hook makes one system call, and neither allocates nor takes a lock.
    unsafe { command.pre_exec(hook) };
}

/// Maps `bytes` of zeroed memory of the given kind, for ever.
pub fn map_memory(kind: Memory, bytes: NonZeroUsize) -> Result<&'static mut [u8]> {
    let flags = match kind {
        Memory::Anonymous | Memory::Transparent | Memory::Mergeable => MapFlags::MAP_PRIVATE,
        Memory::Shared => MapFlags::MAP_SHARED,
        Memory::HugeTlb => MapFlags::MAP_PRIVATE | MapFlags::MAP_HUGETLB,
        Memory::Gigantic => MapFlags::MAP_PRIVATE | MapFlags::MAP_HUGETLB | MapFlags::MAP_HUGE_1GB,
    };
    // SAFETY: a new anonymous mapping at an address of the kernel's choice aliases nothing.
    let start = unsafe { mmap_anonymous(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags) }
        .with_context(|| format!("unable to map {bytes} bytes of {kind:?} memory"))?;
    let advice = match kind {
        Memory::Anonymous => Some(MmapAdvise::MADV_NOHUGEPAGE),
        Memory::Transparent => Some(MmapAdvise::MADV_HUGEPAGE),
        Memory::Mergeable => Some(MmapAdvise::MADV_MERGEABLE),
        Memory::Shared | Memory::HugeTlb | Memory::Gigantic => None,
    };
    if let Some(advice) = advice {
        // SAFETY: the range is the mapping just made; no such advice changes its contents.
        unsafe { madvise(start, bytes.get(), advice) }.with_context(|| format!("unable to ask for {advice:?}"))?;
    }
    // SAFETY: the mapping is readable, writable, zeroed, page aligned, `bytes` long, never unmapped, and nothing else
    // knows of it.
    Ok(unsafe { std::slice::from_raw_parts_mut(start.as_ptr().cast(), bytes.get()) })
}
