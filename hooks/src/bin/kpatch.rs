//! kpatch: live patches of the kernel.

use clap::Parser;
use kdump_hooks::livepatch::cli::{self, Kpatch};
use kdump_hooks::livepatch::{LinuxKernel, interrupt};
use kdump_hooks::reader;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let typed = match Kpatch::try_parse() {
        Ok(typed) => typed,
        Err(error) => {
            let _ = error.print();
            // kpatch knows one code for all that goes wrong.
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    // Without that a signal ends kpatch wherever it is.
    if let Err(error) = interrupt::watch() {
        let _ = writeln!(std::io::stderr(), "kpatch: cannot wait for signals: {error}");
    }
    match cli::run(&typed, Path::new("/"), &mut LinuxKernel, &mut reader::stdout(), &mut reader::stderr()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be listening; the exit says it too.
            let _ = writeln!(std::io::stderr(), "kpatch: {error:#}");
            ExitCode::FAILURE
        }
    }
}
