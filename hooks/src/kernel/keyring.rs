//! add_key(2) and keyctl(2). The one room of this crate where `unsafe` lives.
//!
//! Contract: every call is one system call whose arguments outlive it. The functions take references and hand the kernel
//! their exact length, so nothing a caller can do makes them unsound; the kernel checks everything else.
#![allow(unsafe_code)]

use crate::keys::{KeyId, Keys, Listed};
use nix::libc;
use std::ffi::CString;
use std::fs;
use std::io;

// include/uapi/linux/keyctl.h
const KEYCTL_UNLINK: libc::c_long = 9;
const KEYCTL_READ: libc::c_long = 11;

/// More keys than that are in no ring of the kernel.
const MOST_KEYS: usize = 1 << 14;

/// The keys of the kernel that is running.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinuxKeys;

impl Keys for LinuxKeys {
    fn add(&mut self, kind: &str, description: &str, payload: &[u8], ring: KeyId) -> io::Result<KeyId> {
        let (kind, description) = (CString::new(kind)?, CString::new(description)?);
        // SAFETY: both strings end with a NUL, `payload` has as many bytes as its length says, all three outlive the call,
        // and the kernel only reads them.
        let result = unsafe {
            libc::syscall(
                libc::SYS_add_key,
                kind.as_ptr(),
                description.as_ptr(),
                payload.as_ptr(),
                payload.len(),
                libc::c_long::from(ring.0),
            )
        };
        number(result)
    }

    fn unlink(&mut self, key: KeyId, ring: KeyId) -> io::Result<()> {
        let (key, ring) = (libc::c_long::from(key.0), libc::c_long::from(ring.0));
        // SAFETY: all arguments are numbers.
        let result = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_UNLINK, key, ring) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn members(&self, ring: KeyId) -> io::Result<Vec<KeyId>> {
        let mut room = vec![0_i32; 256];
        loop {
            let bytes = std::mem::size_of_val(room.as_slice());
            let number = libc::c_long::from(ring.0);
            // SAFETY: the kernel writes at most `bytes` bytes to `room`, which has them and outlives the call.
            let result = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_READ, number, room.as_mut_ptr(), bytes) };
            let Ok(length) = usize::try_from(result) else { return Err(io::Error::last_os_error()) };
            // What it gives is what there is, though it may not have fitted.
            let count = length / size_of::<i32>();
            if count <= room.len() || room.len() >= MOST_KEYS {
                room.truncate(count);
                return Ok(room.into_iter().map(KeyId).collect());
            }
            room.resize(count.min(MOST_KEYS), 0);
        }
    }

    fn all(&self) -> io::Result<Vec<Listed>> {
        let text = fs::read("/proc/keys")?;
        Ok(Listed::parse(&String::from_utf8_lossy(&text)))
    }
}

/// A key's number is positive.
fn number(result: libc::c_long) -> io::Result<KeyId> {
    match i32::try_from(result) {
        Ok(number) if number >= 0 => Ok(KeyId(number)),
        _ => Err(io::Error::last_os_error()),
    }
}
