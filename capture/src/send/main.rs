//! The program: parse, run, exit code. The story is in `kdump_capture::send`.

use kdump_capture::send::{self, cli, wire};
use std::process::ExitCode;

fn main() -> ExitCode {
    let home = std::env::var_os("HOME").map(std::path::PathBuf::from);
    let said = cli::parse(std::env::args_os(), home.as_deref()).and_then(|command| match command {
        cli::Command::Say(text) => Ok(text.to_owned()),
        cli::Command::Send(options) => send::run(&options),
    });
    match said {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("kdump-send: {error:#}");
            let nobody = error.chain().any(|cause| cause.is::<wire::Nobody>());
            ExitCode::from(if nobody { 2 } else { 1 })
        }
    }
}
