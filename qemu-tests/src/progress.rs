//! What is going on, one line per step with its elapsed time, on stderr.
//!
//! The lines go past the test runner's capture, so that a test which first downloads a kernel does not look stuck.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::Result;

fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// Says one thing, with the time since the program's first line.
pub fn note(text: &str) {
    let elapsed = start().elapsed().as_secs_f64();
    // A closed stderr is no reason to fail a crash test.
    let _ = writeln!(std::io::stderr(), "[{elapsed:6.1}s] {text}");
}

/// Says that a step begins, does it, and says how long it took.
pub fn timed<T>(what: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
    note(&format!("{what} …"));
    let began = Instant::now();
    let result = step()?;
    note(&format!("{what}: {:.1} s", began.elapsed().as_secs_f64()));
    Ok(result)
}

/// Shows a line of a guest's console: indented, and dimmed where that can be seen.
pub(crate) fn guest(line: &str) {
    let mut stderr = std::io::stderr();
    let _ = if stderr.is_terminal() {
        writeln!(stderr, "          \u{1b}[2m{line}\u{1b}[0m")
    } else {
        writeln!(stderr, "          | {line}")
    };
}
