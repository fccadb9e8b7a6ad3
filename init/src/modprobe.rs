//! `modprobe [-q] [-v] [--] NAME`: how the kernel itself asks for a module (`request_module()` runs
//! `/sbin/modprobe -q -- NAME`).

use crate::boot;
use crate::kmsg;
use std::process::ExitCode;

/// Loads what is asked for. A name that nothing answers to is a quiet failure with `-q`.
pub fn main(arguments: &[String]) -> ExitCode {
    let quiet = arguments.iter().any(|argument| argument == "-q" || argument == "--quiet");
    let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let [name] = names.as_slice() else {
        eprintln!("usage: modprobe [-q] [--] NAME");
        return ExitCode::FAILURE;
    };
    kmsg::install();
    let outcome =
        boot::loader_of_this_image().map_err(|error| format!("{error:#}")).and_then(|loader| loader.load(name));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            if !quiet {
                eprintln!("modprobe: {reason}");
            }
            ExitCode::FAILURE
        }
    }
}
