//! Where the guard's marker is: a variable of the firmware, `KpatchBoots`, which can be written before any disk is there
//! and outlives whatever the kernel does.
//!
//! In and out: its text, behind four bytes of attributes, as efivarfs has it. May surprise: efivarfs makes variables that
//! it does not know immutable; the flag is taken off for as long as it is written. A machine without EFI has no such
//! place, and nothing else can be written that early, but by GRUB ([`super::grub`]).

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// Where variables are.
pub(super) const DIRECTORY: &str = "/sys/firmware/efi/efivars";
/// Ours: its name and the GUID of this project.
const NAME: &str = "KpatchBoots-b7c2a9f4-5d0e-4c1b-9a57-6b7061746368";
/// Non-volatile, for the boot services and at run time.
const ATTRIBUTES: [u8; 4] = [7, 0, 0, 0];

/// What the variable holds; nothing, if it is not there.
pub(super) fn read(directory: &Path) -> io::Result<String> {
    is_there(directory)?;
    match fs::read(directory.join(NAME)) {
        Ok(bytes) => Ok(String::from_utf8_lossy(bytes.get(ATTRIBUTES.len()..).unwrap_or_default()).into_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// Has it hold `text`; without any text it goes.
pub(super) fn write(directory: &Path, text: &str) -> io::Result<()> {
    is_there(directory)?;
    let path = directory.join(NAME);
    unlock(&path)?;
    if text.is_empty() {
        return match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    // One write is one variable, which then holds nothing else; efivarfs has no truncation.
    let bytes = [&ATTRIBUTES, text.as_bytes()].concat();
    OpenOptions::new().write(true).create(true).truncate(false).open(&path)?.write_all(&bytes)
}

/// Without a file system of variables there is nothing to write to.
fn is_there(directory: &Path) -> io::Result<()> {
    match fs::read_dir(directory)?.next() {
        // Firmware always has some.
        Some(_) => Ok(()),
        None => Err(io::Error::new(ErrorKind::Unsupported, "no variable of the firmware is to be seen")),
    }
}

/// Takes the immutable flag off, where there is one.
fn unlock(path: &Path) -> io::Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // Other file systems need not have flags.
    let Ok(flags) = ioctl_getflags(&file) else { return Ok(()) };
    match flags.contains(IFlags::IMMUTABLE) {
        true => Ok(ioctl_setflags(&file, flags.difference(IFlags::IMMUTABLE))?),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_goes_without_text() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()).unwrap_err().kind(), ErrorKind::Unsupported);
        fs::write(directory.path().join("Boot0000-8be4df61-93ca-11d2-aa0d-00e098032b8c"), "").unwrap();
        assert_eq!(read(directory.path()).unwrap(), "");
        write(directory.path(), "one 2\n").unwrap();
        assert_eq!(fs::read(directory.path().join(NAME)).unwrap(), b"\x07\0\0\0one 2\n");
        assert_eq!(read(directory.path()).unwrap(), "one 2\n");
        write(directory.path(), "").unwrap();
        write(directory.path(), "").unwrap();
        assert_eq!(
            (read(directory.path()).unwrap().as_str(), fs::read_dir(directory.path()).unwrap().count()),
            ("", 1)
        );
    }

    #[test]
    fn a_machine_without_firmware_variables_has_no_place() {
        let directory = tempfile::tempdir().unwrap();
        assert!(read(&directory.path().join("efivars")).is_err());
        assert!(write(&directory.path().join("efivars"), "x").is_err());
    }
}
