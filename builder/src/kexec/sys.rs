//! The one room of this crate where `unsafe` lives.
//!
//! Contract: every call is one system call whose arguments outlive it. The two functions take references, so nothing a
//! caller can do makes them unsound; the kernel checks everything else.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

// include/uapi/linux/kexec.h
const KEXEC_FILE_UNLOAD: libc::c_ulong = 1;
const KEXEC_FILE_ON_CRASH: libc::c_ulong = 2;

/// kexec_file_load(2) for the crash kernel.
pub(super) fn load_crash(kernel: &File, image: &File, cmdline: &CStr) -> io::Result<()> {
    let length = cmdline.to_bytes_with_nul().len();
    call(kernel.as_raw_fd(), image.as_raw_fd(), length, cmdline.as_ptr(), KEXEC_FILE_ON_CRASH)
}

/// kexec_file_load(2) that takes the crash kernel away.
pub(super) fn unload_crash() -> io::Result<()> {
    call(-1, -1, 0, ptr::null(), KEXEC_FILE_UNLOAD | KEXEC_FILE_ON_CRASH)
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
