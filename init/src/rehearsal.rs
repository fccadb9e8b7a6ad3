//! A rehearsal: a capture boot in a virtual machine, watched from outside by `kdumpctl rehearse`.
//!
//! In: the status as it is written to the target. Out: the same on the console, as one line that begins with [`MARK`], if
//! the kernel command line has the word [`WORD`]. May surprise: nothing else differs; a rehearsal that took another way
//! than a crash would prove nothing.

use crate::boot::command_line;
use crate::status::Status;
use std::fs::File;
use std::io::Write;

/// The word of the kernel command line.
pub const WORD: &str = "kdump.rehearsal";
/// What the line begins with.
pub const MARK: &str = "kdump-rs rehearsal: ";

/// Tells whoever watches, if somebody does.
pub fn tell(status: &Status) {
    if !command_line().options().any(|(name, _)| name == WORD) {
        return;
    }
    let Ok(json) = serde_json::to_string(status) else { return };
    // Nobody is helped by an error: who watches misses the line.
    let console = File::options().write(true).open("/dev/console");
    let _ = console.and_then(|mut console| console.write_all(format!("\n{MARK}{json}\n").as_bytes()));
}
