//! `modprobe [-abqv] [--] NAME [PARAMETER=VALUE…]`: how the kernel itself asks for a module (`request_module()` runs
//! `/sbin/modprobe -q -- NAME`), and how a program of the administrator does.
//!
//! It ends as kmod's does: 0 for what is loaded, built in, or kept away by a blacklist; 1 for the rest. With `-a` every
//! word is a name, and each is tried. What kmod can do besides is refused by name. May surprise: the work is done by a
//! second process. The kernel waits for the first; one with a thread inside a driver that hangs could not even end, so
//! the first waits for a limited time and lets the other be.

use crate::boot;
use crate::kmsg;
use crate::run::Places;
use kdump_hooks::kmod::ModuleName;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Tells the second process from the first.
const SECOND: &str = "KDUMP_MODPROBE_SECOND";
/// How much longer than a driver may take the kernel is kept waiting.
const MARGIN: Duration = Duration::from_secs(30);
/// Nobody is kept waiting longer, however many modules are asked for.
const LONGEST: Duration = Duration::from_secs(600);

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Asked {
    names: Vec<String>,
    /// For the one name, as init_module(2) takes them.
    parameters: String,
    /// Failures are not talked about.
    quiet: bool,
    /// A blacklist counts for names as well, not only for aliases.
    blacklist: bool,
}

/// Loads what is asked for. A name that nothing answers to is a quiet failure with `-q`.
pub fn main(arguments: &[String]) -> ExitCode {
    let asked = match parse(arguments) {
        Ok(asked) => asked,
        Err(problem) => {
            eprintln!("modprobe: {problem}");
            return ExitCode::FAILURE;
        }
    };
    if std::env::var_os(SECOND).is_some() { load(&asked) } else { have_it_loaded(arguments, &asked) }
}

/// Reads the command line. Whatever follows `--` is no option.
fn parse(arguments: &[String]) -> Result<Asked, String> {
    let mut asked = Asked::default();
    let (mut all, mut options_end) = (false, false);
    let mut words = Vec::new();
    for argument in arguments {
        let options: Vec<String> = match argument.as_str() {
            _ if options_end => Vec::new(),
            "--" => {
                options_end = true;
                continue;
            }
            long if long.starts_with("--") => vec![long.to_owned()],
            short if short.starts_with('-') && short.len() > 1 => {
                short.chars().skip(1).map(|letter| format!("-{letter}")).collect()
            }
            _ => Vec::new(),
        };
        if options.is_empty() {
            words.push(argument.as_str());
        }
        for option in options {
            match option.as_str() {
                "-q" | "--quiet" => asked.quiet = true,
                "-b" | "--use-blacklist" => asked.blacklist = true,
                "-a" | "--all" => all = true,
                // The log tells what is loaded, always.
                "-v" | "--verbose" | "-s" | "--syslog" => {}
                "-r" | "--remove" => {
                    return Err(format!("{option}: nothing is unloaded in an image; the machine restarts soon"));
                }
                _ => return Err(format!("{option} is not supported in an image; -a, -b, -q and -v are")),
            }
        }
    }
    let mut words = words.into_iter().map(str::to_owned);
    asked.names = words.by_ref().take(if all { usize::MAX } else { 1 }).collect();
    asked.parameters = words.map(|word| quoted(&word)).collect::<Vec<_>>().join(" ");
    match asked.names.is_empty() {
        true => Err("no module is named; usage: modprobe [-abqv] [--] NAME [PARAMETER=VALUE…]".to_owned()),
        false => Ok(asked),
    }
}

/// A parameter as the kernel splits it: a value with blanks in it needs quotes.
fn quoted(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, value)) if value.contains(char::is_whitespace) && !value.starts_with('"') => {
            format!("{name}=\"{value}\"")
        }
        _ => parameter.to_owned(),
    }
}

fn have_it_loaded(arguments: &[String], asked: &Asked) -> ExitCode {
    let names = asked.names.join(", ");
    let second = Command::new("/proc/self/exe").arg0("modprobe").args(arguments).env(SECOND, "1").spawn();
    let mut second = match second {
        Ok(second) => second,
        Err(error) => {
            eprintln!("modprobe: cannot start the process that loads {names}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let count = u32::try_from(asked.names.len()).unwrap_or(u32::MAX);
    let limit = boot::limits_of_this_image().driver().saturating_mul(count).min(LONGEST) + MARGIN;
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || sender.send(second.wait()));
    match ended.recv_timeout(limit) {
        Ok(Ok(status)) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(_) => {
            if !asked.quiet {
                eprintln!("modprobe: {names}: still being loaded after {} s", limit.as_secs());
            }
            ExitCode::FAILURE
        }
    }
}

fn load(asked: &Asked) -> ExitCode {
    kmsg::install();
    let first = asked.names.first().map_or("", String::as_str);
    let loader = match boot::loader_with(first, &asked.parameters) {
        Ok(loader) => loader,
        Err(error) => {
            eprintln!("modprobe: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let mut well = true;
    for name in &asked.names {
        if asked.blacklist && loader.config().is_blacklisted(&ModuleName::new(name)) {
            continue;
        }
        let before = loader.report();
        if let Err(reason) = loader.load(name, "the kernel") {
            let report = loader.report();
            // A blacklist is obeyed, which is no failure.
            let is_obedience = report.blacklisted.len() > before.blacklisted.len();
            if !is_obedience || report.refused.len() > before.refused.len() {
                well = false;
                if !asked.quiet {
                    eprintln!("modprobe: {reason}");
                }
            }
        }
    }
    loader.report().append(&Places::real().state);
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asked(line: &str) -> Result<Asked, String> {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_kernel_s_way_of_asking_is_understood() {
        for (line, name, quiet) in [
            ("-q -- fs-ext4", "fs-ext4", true),
            ("virtio_blk", "virtio_blk", false),
            ("-q -- -odd", "-odd", true),
            ("-- -q", "-q", false),
            ("-", "-", false),
        ] {
            let expected = Asked { names: vec![name.to_owned()], quiet, ..Asked::default() };
            assert_eq!(asked(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn a_script_names_parameters_or_several_modules() {
        let one = asked("-qb loop max_loop=2 -- max_part=4").unwrap();
        assert_eq!(
            (one.names.as_slice(), one.parameters.as_str()),
            (&["loop".to_owned()][..], "max_loop=2 max_part=4")
        );
        assert!(one.quiet && one.blacklist);
        let many = asked("-va loop dummy ifb").unwrap();
        assert_eq!((many.names.join(" ").as_str(), many.parameters.as_str()), ("loop dummy ifb", ""));
        let blank = parse(&["snd".to_owned(), "id=my card".to_owned()]).unwrap();
        assert_eq!(blank.parameters, "id=\"my card\"");
    }

    #[test]
    fn what_is_not_done_here_is_refused_by_name() {
        for (line, problem) in [
            ("-r loop", "-r: nothing is unloaded"),
            ("-qr loop", "-r: nothing is unloaded"),
            ("--remove loop", "--remove: nothing is unloaded"),
            ("-n loop", "-n is not supported"),
            ("--show-depends loop", "--show-depends is not supported"),
            ("-q --", "no module is named"),
            ("-q", "no module is named"),
        ] {
            assert!(asked(line).unwrap_err().starts_with(problem), "{line}");
        }
    }

    proptest! {
        #[test]
        fn what_stands_behind_two_dashes_is_taken_as_it_is(words in prop::collection::vec("[-a-z_=]{1,12}", 1..4)) {
            let arguments: Vec<String> = ["-aq", "--"].iter().map(|word| (*word).to_owned()).chain(words.clone()).collect();
            prop_assert_eq!(parse(&arguments).map(|asked| asked.names), Ok(words));
        }

        #[test]
        fn any_arguments_end_in_a_result(words in prop::collection::vec("[-abrqé= ]{0,6}", 0..5)) {
            if let Ok(asked) = parse(&words) {
                prop_assert!(!asked.names.is_empty());
            }
        }
    }
}
