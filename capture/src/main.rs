//! The program: parse, run, exit code. The story is in `kdump_capture::pipeline`.

use std::process::ExitCode;

use kdump_capture::cli::{self, Command};
use kdump_capture::{examine, pipeline, usage};

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("kdump-capture: {error}");
            return ExitCode::from(1);
        }
    };
    match command {
        Command::Say(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Command::Dump(options) => ExitCode::from(pipeline::dump(&options)),
        Command::Usage(options) => ExitCode::from(usage::usage(&options)),
        Command::Info(options) => ExitCode::from(examine::info(&options)),
        Command::Verify(options) => ExitCode::from(examine::verify(&options)),
        Command::Log(options) => ExitCode::from(pipeline::log(&options)),
        Command::Reassemble(options) => ExitCode::from(pipeline::reassemble(&options)),
        Command::Rebuild(options) => ExitCode::from(pipeline::rebuild(&options)),
    }
}
