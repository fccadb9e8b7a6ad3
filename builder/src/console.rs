//! How the programs speak: warnings as they come, one error chain at the end, all on stderr.

use simplelog::{ColorChoice, ConfigBuilder, LevelFilter, TermLogger, TerminalMode};
use std::io::Write;
use std::process::ExitCode;

/// Sends the log to stderr.
pub fn start(verbose: bool) {
    let config = ConfigBuilder::new()
        .set_time_level(LevelFilter::Off)
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        // The libraries' own words help nobody.
        .add_filter_allow_str("kdump")
        .build();
    let level = if verbose { LevelFilter::Debug } else { LevelFilter::Info };
    // A second call, as in tests, finds a logger and is content with it.
    let _ = TermLogger::init(LevelFilter::Debug, config, TerminalMode::Stderr, ColorChoice::Never);
    log::set_max_level(level);
}

/// Says as much as the configuration asks for: from 0 (nothing) to 4.
pub fn say(level: u8) {
    log::set_max_level(match level {
        0 => LevelFilter::Off,
        1 => LevelFilter::Error,
        2 => LevelFilter::Warn,
        3 => LevelFilter::Info,
        _ => LevelFilter::Debug,
    });
}

/// What was typed is no command, or a call for help. RHEL's kdumpctl ends with 1 then, and scripts know 2 as something else.
pub fn usage(usage: &clap::Error) -> ExitCode {
    // Nobody may be listening; the exit says it too.
    let _ = usage.print();
    if usage.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Turns a result into an exit, the error printed as one chain.
pub fn exit(program: &str, result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) => {
            // Nobody may be listening; the exit says it too.
            let _ = writeln!(std::io::stderr(), "{program}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
