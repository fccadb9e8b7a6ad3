//! A program that a test writes and runs at once.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes one.
///
/// Another process does it: a child that another thread starts meanwhile has what this process has open for writing until
/// it has become another program, and as long the kernel runs no such file (ETXTBSY).
///
/// # Errors
/// It cannot be written.
pub fn program(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut shell = Command::new("sh");
    shell.args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "sh"]).arg(path).stdin(Stdio::piped());
    let mut shell = shell.spawn()?;
    if let Some(mut input) = shell.stdin.take() {
        input.write_all(text)?;
    }
    match shell.wait()?.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("cannot write {}", path.display()))),
    }
}
