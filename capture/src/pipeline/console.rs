//! What the program says. In: how it went. Out: the lines that people and other tools look for, and the report.
//! May surprise: stdout belongs to the dump where that is a stream; then everything is said on stderr.

use std::io::Write;
use std::path::Path;

use crate::output;
use crate::progress::Messages;
use crate::report::{DumpReport, Outcome};

/// Sends the log to stderr, as far as `messages` wants it.
pub(crate) fn start_log(messages: Messages) {
    use simplelog::{ConfigBuilder, LevelFilter, WriteLogger};
    let level = if messages.shows(Messages::DEBUG) {
        LevelFilter::Debug
    } else if messages.shows(Messages::COMMON) {
        LevelFilter::Info
    } else if messages.shows(Messages::ERROR) {
        LevelFilter::Warn
    } else {
        LevelFilter::Off
    };
    let off = LevelFilter::Off;
    let mut config = ConfigBuilder::new();
    config.set_time_level(off).set_thread_level(off).set_target_level(off).set_location_level(off).set_max_level(off);
    config.add_filter_allow_str("kdump_capture"); // goblin logs every note, byte by byte
    // A second call finds a logger in place, which is fine.
    let _ = WriteLogger::init(level, config.build(), std::io::stderr());
}

/// Logs what should be known, and what went wrong.
pub(crate) fn tell(problems: &[String], error: Option<&str>) {
    for problem in problems {
        log::warn!("kdump-capture: {problem}");
    }
    if let Some(error) = error {
        log::error!("kdump-capture: {error}");
    }
}

/// The lines other tools look for.
pub(super) fn ending(what: &str, path: &Path, outcome: Outcome) -> String {
    let is = if what.ends_with('s') { "are" } else { "is" };
    match outcome {
        Outcome::Complete => format!("\nThe {what} {is} saved to {}.\n\nmakedumpfile Completed.\n", path.display()),
        Outcome::Incomplete => {
            format!("\nThe {what} {is} saved to {}, incomplete.\n\nmakedumpfile Failed.\n", path.display())
        }
        Outcome::Failed => "\nmakedumpfile Failed.\n".into(),
    }
}

/// How a dry run ends.
pub(super) fn would_be(report: &DumpReport) -> String {
    match report.outcome {
        Outcome::Failed => "\nmakedumpfile Failed.\n".into(),
        Outcome::Incomplete => {
            format!("\nThe dumpfile would have {} bytes, incomplete.\n\nmakedumpfile Failed.\n", report.bytes)
        }
        Outcome::Complete => {
            format!("\nThe dumpfile would have {} bytes.\n\nmakedumpfile Completed.\n", report.bytes)
        }
    }
}

/// Says it on stdout, or on stderr where stdout is the dump's.
pub(crate) fn say(text: &str, on_stderr: bool) {
    // Nobody may be listening; the exit code tells all the same.
    let _ = if on_stderr {
        std::io::stderr().lock().write_all(text.as_bytes())
    } else {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush())
    };
}

/// Writes the report, if one is wanted. One that cannot be written is told, and nothing more: it lies in the little memory
/// of a capture kernel, and a dump that is complete is so without it.
pub(crate) fn save(path: Option<&Path>, report: &impl serde::Serialize) {
    let Some(path) = path else { return };
    let written = serde_json::to_vec(report)
        .map_err(std::io::Error::other)
        .and_then(|json| output::create(path, true, &[]).map_err(std::io::Error::other)?.write_all(&json));
    if let Err(e) = written {
        log::error!("kdump-capture: unable to write the report to {}: {e}", path.display());
    }
}

/// What to do about an error of writing; may be empty.
pub(super) fn remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::StorageFull => " (make room on the target, or leave out more with -d)",
        _ => "",
    }
}
