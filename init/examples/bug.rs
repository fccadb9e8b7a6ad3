//! PID 1 with a bug: it panics when it is about to start the worker. For the tests that boot it.

use kdump_init::supervisor;
use std::process::ExitCode;

#[expect(clippy::panic, reason = "this is the bug")]
fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("this is for PID 1 of a test's image");
        return ExitCode::FAILURE;
    }
    supervisor::main_with(|| panic!("a bug of the test's"))
}
