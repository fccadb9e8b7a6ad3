//! The kernel log, `/dev/kmsg`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

/// Reads what the kernel log holds, or what is added to it.
#[derive(Debug)]
pub struct KernelLog {
    file: File,
}

impl KernelLog {
    /// From the oldest record on.
    ///
    /// # Errors
    /// `/dev/kmsg` cannot be opened.
    pub fn from_start() -> io::Result<KernelLog> {
        let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open("/dev/kmsg")?;
        Ok(KernelLog { file })
    }

    /// Only what comes from now on.
    ///
    /// # Errors
    /// `/dev/kmsg` cannot be opened.
    pub fn from_now() -> io::Result<KernelLog> {
        let mut log = KernelLog::from_start()?;
        log.file.seek(SeekFrom::End(0))?;
        Ok(log)
    }

    /// The next record as dmesg(1) prints it, if there is one now.
    pub fn next_line(&mut self) -> Option<String> {
        let mut record = [0; 8192];
        // EPIPE says that records were overwritten before they could be read; the next read goes on behind the gap.
        for _ in 0..16 {
            match self.file.read(&mut record) {
                Ok(length) => return format_record(&String::from_utf8_lossy(record.get(..length)?)),
                Err(error) if error.raw_os_error() == Some(nix::libc::EPIPE) => {}
                Err(_) => return None,
            }
        }
        None
    }
}

/// `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS;TEXT` and continuation lines of ` KEY=value`, as `Documentation/ABI/testing/
/// dev-kmsg` describes it.
fn format_record(record: &str) -> Option<String> {
    let (prefix, text) = record.split_once(';')?;
    let micros: u64 = prefix.split(',').nth(2)?.parse().ok()?;
    let text = text.lines().next().unwrap_or_default();
    Some(format!("[{:>5}.{:06}] {text}", micros / 1_000_000, micros % 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_looks_as_dmesg_shows_it() {
        let record = "6,1217,12345678,-;usb 1-1: new device\n SUBSYSTEM=usb\n DEVICE=c189:2\n";
        assert_eq!(format_record(record).as_deref(), Some("[   12.345678] usb 1-1: new device"));
        assert_eq!(format_record("garbage"), None);
    }
}
