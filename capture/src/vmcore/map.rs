//! Maps a window of a file. In: an open file, a page-aligned position, a length. Out: its bytes, looked at in place.
//! May surprise: this is the one room of the collector with `unsafe` in it; kdump-send has `send/ftp/tls.rs`.
//!
//! # Contract of the door
//!
//! A [`Window`] is read-only and private, and never reaches past the size the file had when it was opened: the caller
//! gives that size and the window is clipped to it, so that a file shorter than its headers claim cannot raise SIGBUS.
//! What is left is a file truncated by someone else *while* it is being read. /proc/vmcore cannot shrink, and a vmcore
//! file that is being cut short ends the program with a signal, which its supervisor reports.
//! The memory behind the window belongs to a dead kernel and does not change.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::units::FileOffset;

/// A mapped, read-only part of a file.
#[derive(Debug)]
pub(super) struct Window {
    start: NonNull<std::ffi::c_void>,
    len: NonZeroUsize,
    offset: FileOffset,
}

// SAFETY: the mapping is private, read-only memory that is owned by this value alone; no thread state is tied to it.
unsafe impl Send for Window {}

impl Window {
    /// Maps `len` bytes at `offset` (a multiple of the running kernel's page size), clipped to `file_size`.
    pub(super) fn map(file: &File, offset: FileOffset, len: usize, file_size: u64) -> io::Result<Window> {
        let left = file_size.saturating_sub(offset.0);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(len);
        let len = NonZeroUsize::new(len).ok_or(io::ErrorKind::UnexpectedEof)?;
        let position = i64::try_from(offset.0).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours; the file lives on its
        // own once mapped, and the length is not zero and inside the file.
        let start = unsafe { mmap(None, len, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE, file, position) }?;
        Ok(Window { start, len, offset })
    }

    /// Where in the file the window begins.
    pub(super) fn offset(&self) -> FileOffset {
        self.offset
    }

    /// The bytes of the window.
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `start` is the address of `len` mapped, readable bytes that live as long as `self` and that nobody
        // in this process writes to.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast::<u8>(), self.len.get()) }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: exactly the range that was mapped; `bytes` lends it for no longer than `self` lives.
        let _ = unsafe { munmap(self.start, self.len.get()) };
    }
}
