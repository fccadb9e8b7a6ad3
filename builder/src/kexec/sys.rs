//! The one room of this crate where `unsafe` lives.
//!
//! Contract: every call is one system call whose arguments outlive it. The functions take references, so nothing a
//! caller can do makes them unsound; the kernel checks everything else.
#![allow(unsafe_code)]

use super::{Purpose, Segment};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

// include/uapi/linux/kexec.h
const KEXEC_FILE_UNLOAD: libc::c_ulong = 1;
const KEXEC_FILE_ON_CRASH: libc::c_ulong = 2;
const KEXEC_FILE_NO_INITRAMFS: libc::c_ulong = 4;
const KEXEC_ON_CRASH: libc::c_ulong = 1;
const KEXEC_UPDATE_ELFCOREHDR: libc::c_ulong = 4;

/// `struct kexec_segment`.
#[repr(C)]
struct RawSegment {
    buf: *const u8,
    bufsz: usize,
    mem: usize,
    memsz: usize,
}

/// kexec_file_load(2).
pub(super) fn load_files(purpose: Purpose, kernel: &File, image: Option<&File>, cmdline: &CStr) -> io::Result<()> {
    let length = cmdline.to_bytes_with_nul().len();
    let (image, without) = match image {
        Some(image) => (image.as_raw_fd(), 0),
        None => (-1, KEXEC_FILE_NO_INITRAMFS),
    };
    call(kernel.as_raw_fd(), image, length, cmdline.as_ptr(), without | file_flags(purpose))
}

/// kexec_file_load(2) that takes away what is loaded.
pub(super) fn unload_files(purpose: Purpose) -> io::Result<()> {
    call(-1, -1, 0, ptr::null(), KEXEC_FILE_UNLOAD | file_flags(purpose))
}

fn file_flags(purpose: Purpose) -> libc::c_ulong {
    match purpose {
        Purpose::Crash => KEXEC_FILE_ON_CRASH,
        Purpose::Reboot => 0,
    }
}

fn call(
    kernel: RawFd,
    image: RawFd,
    length: usize,
    cmdline: *const libc::c_char,
    flags: libc::c_ulong,
) -> io::Result<()> {
    // SAFETY: `cmdline` is null with a length of 0, or points to `length` bytes that a caller in this file has borrowed
    // for longer than the call; the kernel only reads them. The descriptors are checked by the kernel.
    let result = unsafe { libc::syscall(libc::SYS_kexec_file_load, kernel, image, length, cmdline, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// kexec_load(2); without segments, it takes away what is loaded.
pub(super) fn load_segments(purpose: Purpose, entry: u64, segments: &[Segment], follows: bool) -> io::Result<()> {
    let too_large = |_| io::Error::from_raw_os_error(libc::EADDRNOTAVAIL);
    let raw = segments.iter().map(|segment| {
        Ok(RawSegment {
            buf: segment.bytes.as_ptr(),
            bufsz: segment.bytes.len(),
            mem: usize::try_from(segment.place).map_err(too_large)?,
            memsz: usize::try_from(segment.size).map_err(too_large)?,
        })
    });
    let raw = raw.collect::<io::Result<Vec<RawSegment>>>()?;
    let mut flags = if purpose == Purpose::Crash { KEXEC_ON_CRASH } else { 0 };
    if follows {
        flags |= KEXEC_UPDATE_ELFCOREHDR;
    }
    // SAFETY: `raw` holds as many segments as it says, each with the start and length of a buffer that `segments` lends
    // for longer than the call; the kernel only reads them.
    let result = unsafe { libc::syscall(libc::SYS_kexec_load, entry, raw.len(), raw.as_ptr(), flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// reboot(2) into the kernel that is loaded.
pub(super) fn boot() -> io::Result<()> {
    // SAFETY: there are no pointers in it.
    unsafe { libc::reboot(libc::RB_KEXEC) };
    Err(io::Error::last_os_error())
}
