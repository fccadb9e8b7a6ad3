//! `/init` of every image, and `modprobe` when called by that name.

use kdump_init::{aftermath, boot, modprobe, shell, supervisor};
use std::process::ExitCode;

fn main() -> ExitCode {
    // Words of the kernel command line come here; what is not UTF-8 among them must not end PID 1.
    let mut arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    let program = arguments.next().unwrap_or_default();
    let arguments: Vec<String> = arguments.collect();
    let argument = |index| arguments.get(index).map_or("", String::as_str);
    match (program.rsplit('/').next(), arguments.first().map(String::as_str)) {
        (Some("modprobe"), _) => modprobe::main(&arguments),
        (_, Some(boot::ROLE)) => boot::main(),
        (_, Some(aftermath::ROLE)) => aftermath::main(argument(1)),
        (_, Some(shell::ROLE)) => shell::main(argument(1), argument(2), argument(3)),
        _ if std::process::id() == 1 => supervisor::main(),
        _ => {
            eprintln!(
                "kdump-init is PID 1 of a capture image that mkdumprd builds; call it as `modprobe` to load a module"
            );
            ExitCode::FAILURE
        }
    }
}
