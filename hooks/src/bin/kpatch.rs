//! kpatch: live patches of the kernel.

use clap::Parser;
use kdump_hooks::livepatch::LinuxKernel;
use kdump_hooks::livepatch::cli::{self, Kpatch};
use std::io;
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
    match cli::run(&typed, Path::new("/"), &mut LinuxKernel, &mut io::stdout(), &mut io::stderr()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kpatch: {error:#}");
            ExitCode::FAILURE
        }
    }
}
