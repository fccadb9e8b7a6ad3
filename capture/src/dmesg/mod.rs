//! The kernel log. In: the ring buffer in the crashed kernel's memory. Out: records, and the text `dmesg` would show.
//! May surprise: it is read record by record straight from the dump, so that a log of 100 MiB takes no memory.
//!
//! | kernel | known by | file |
//! |---|---|---|
//! | 5.10 and later | `SYMBOL(prb)` | `lockless.rs` |
//! | 3.5 to 5.9 | `SYMBOL(log_first_idx)` | `record_buffer.rs` |
//!
//! Another log format is one file here and one line in [`records`].

mod lockless;
mod record_buffer;

use std::io::{self, Write};

use crate::paging::Virtual;
use crate::vmcoreinfo::Facts;

/// One record.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Nanoseconds since boot.
    pub ts_nsec: u64,
    /// Who logged it: a thread, or with bit 31 a CPU. `None` if the kernel does not export it.
    pub caller: Option<u32>,
    /// The text; any bytes, newlines among them.
    pub text: &'a [u8],
}

/// How much of the log was there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Records with text.
    pub records: u64,
    /// Records that were overwritten, damaged or not readable.
    pub lost: u64,
}

/// Which records are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Since {
    /// All that are there.
    #[default]
    Boot,
    /// Those that came after the log was last cleared (`dmesg --clear`).
    Clear,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The kernel has another kind of log, or does not say where it is.
    #[error("{0}")]
    Missing(String),
    /// The reader of the records failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Calls `each` for every record that is wanted, oldest first.
pub fn records(
    facts: &Facts,
    mem: &mut Virtual<'_>,
    since: Since,
    each: &mut dyn FnMut(&Record<'_>) -> io::Result<()>,
) -> Result<Found, LogError> {
    if facts.symbol("prb").is_some() {
        return lockless::records(facts, mem, since, each);
    }
    if facts.symbol("log_first_idx").is_some() {
        return record_buffer::records(facts, mem, since, each);
    }
    let why = if facts.symbol("log_buf").is_some() {
        "it is plain bytes without records, as kernels before 3.5 kept it; reading that is not built into this \
         program, use makedumpfile --dump-dmesg"
    } else {
        "neither SYMBOL(prb) nor SYMBOL(log_first_idx) is in vmcoreinfo"
    };
    Err(LogError::Missing(why.into()))
}

fn need<T>(value: Option<T>, key: &str) -> Result<T, LogError> {
    value.ok_or_else(|| LogError::Missing(format!("no {key} in vmcoreinfo")))
}

impl Record<'_> {
    /// Appends the record to `out` as text: a time stamp, the caller if known, and the lines, further ones indented.
    ///
    /// The same text as makedumpfile's, except that bytes beyond ASCII are `\xNN` and never sign-extended.
    pub fn print(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let (seconds, micros) = (self.ts_nsec / 1_000_000_000, self.ts_nsec % 1_000_000_000 / 1000);
        // Writing to a Vec cannot fail.
        let _ = write!(out, "[{seconds:5}.{micros:06}] ");
        if let Some(caller) = self.caller {
            let kind = if caller >> 31 == 1 { 'C' } else { 'T' };
            let _ = write!(out, "[{:>8}] ", format!("{kind}{}", caller & 0x7fff_ffff));
        }
        let indent = out.len() - start;
        for byte in self.text {
            match byte {
                b'\n' => {
                    out.push(b'\n');
                    out.resize(out.len() + indent, b' ');
                }
                b' '..=b'~' | b'\t'..=b'\r' => out.push(*byte),
                _ => {
                    let _ = write!(out, "\\x{byte:02x}");
                }
            }
        }
        out.push(b'\n');
    }
}

/// Looks for the line that says why the machine went down, while records pass by.
#[derive(Debug, Default)]
pub struct PanicLine {
    panic: Option<String>,
    oops: Option<String>,
}

impl PanicLine {
    /// Looks at one record.
    pub fn see(&mut self, text: &[u8]) {
        for line in text.split(|b| *b == b'\n') {
            let from = |mark: &[u8]| line.windows(mark.len()).position(|w| w == mark);
            let text = |at: usize| Some(String::from_utf8_lossy(&line[at..]).chars().take(400).collect());
            if let Some(at) = from(b"Kernel panic - not syncing") {
                self.panic = text(at);
            } else if let Some(at) = from(b"BUG:").or_else(|| from(b"Oops")) {
                self.oops = text(at);
            }
        }
    }

    /// The last panic, else the last oops.
    pub fn get(self) -> Option<String> {
        self.panic.or(self.oops)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(record: &Record<'_>) -> String {
        let mut out = vec![];
        record.print(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn further_lines_are_indented_below_the_first() {
        let text = b"one\ntwo";
        assert_eq!(
            printed(&Record { ts_nsec: 1_234_567_890, caller: Some(42), text }),
            "[    1.234567] [     T42] one\n                          two\n"
        );
        assert_eq!(printed(&Record { ts_nsec: 0, caller: None, text }), "[    0.000000] one\n               two\n");
    }

    #[test]
    fn a_cpu_is_named_c_and_odd_bytes_are_escaped() {
        let record = Record { ts_nsec: 99_999_000_000_000, caller: Some(0x8000_0003), text: b"\x1b[\xc3\xa9\t~" };
        assert_eq!(printed(&record), "[99999.000000] [      C3] \\x1b[\\xc3\\xa9\t~\n");
    }

    #[test]
    fn the_panic_outranks_the_oops_before_and_after_it() {
        let mut line = PanicLine::default();
        line.see(b"BUG: kernel NULL pointer dereference");
        assert_eq!(
            PanicLine { panic: None, oops: line.oops.clone() }.get().unwrap(),
            "BUG: kernel NULL pointer dereference"
        );
        line.see(b"x\nKernel panic - not syncing: Fatal exception");
        line.see(b"---[ end Kernel panic - not syncing: Fatal exception ]---");
        line.see(b"Oops: 0002");
        assert_eq!(line.get().unwrap(), "Kernel panic - not syncing: Fatal exception ]---");
    }
}
