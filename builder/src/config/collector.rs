//! `core_collector`: the program that writes the dump, and its arguments.
//!
//! In: the directive's value. Out: the argv that the image configuration carries. `makedumpfile` means our collector,
//! which takes its arguments; whether they are good is asked of the collector itself, so that there is one judge.

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Our collector's name in the image.
pub const OURS: &str = "kdump-capture";

/// What collects the dump if nobody says anything.
pub const DEFAULT_COLLECTOR: [&str; 6] = [OURS, "-z", "--message-level", "7", "-d", "31"];

/// Options of our collector that make it do something else, or tell init less.
const NO_DUMP: [&str; 13] = [
    "-h",
    "--help",
    "-v",
    "--version",
    "-R",
    "--check-params",
    "--dry-run",
    "--dump-dmesg",
    "--partial-dmesg",
    "--mem-usage",
    "--reassemble",
    "--split",
    "--report",
];

/// Programs that RHEL's own examples name, and that know nothing of dumps.
const COPIES: [&str; 4] = ["scp", "cp", "dd", "cat"];

/// The program that writes the dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// Program and arguments as the image configuration has them.
    pub argv: Vec<String>,
}

impl Default for Collector {
    fn default() -> Self {
        Collector { argv: DEFAULT_COLLECTOR.map(str::to_owned).to_vec() }
    }
}

impl Collector {
    /// Reads a `core_collector` value: words between blanks.
    ///
    /// # Errors
    /// The program is neither ours nor an absolute path.
    pub fn parse(value: &str) -> anyhow::Result<Collector> {
        let mut argv: Vec<String> = value.split_whitespace().map(ours).collect();
        let Some(program) = argv.first() else { bail!("no program is named") };
        if program == OURS {
            if let Some(word) = argv.iter().find(|word| NO_DUMP.contains(&word.split('=').next().unwrap_or_default())) {
                bail!("with `{word}` the collector would write no dump or no report of it; take it out");
            }
            // Whether it goes to a file or into a stream is seen when it is done: each target has its own way.
            argv.retain(|word| word != "-F");
        } else if COPIES.contains(&program.as_str()) {
            bail!(
                "`{program}` would copy all of the memory; take the line out: every target has its way without it, and \
                 `makedumpfile -E -d 0` leaves nothing out either"
            );
        } else if !program.starts_with('/') || program.split('/').any(|part| part == "..") {
            bail!("`{program}` is neither makedumpfile nor {OURS} nor an absolute path; write where the program is");
        }
        Ok(Collector { argv })
    }

    /// The program, if it is not ours.
    pub fn other_program(&self) -> Option<PathBuf> {
        self.argv.first().filter(|program| *program != OURS).map(PathBuf::from)
    }

    /// Asks our collector at `program` whether it takes the arguments.
    ///
    /// # Errors
    /// It does not, in its own words; or it cannot be run.
    pub fn check(&self, program: &Path) -> anyhow::Result<()> {
        if self.other_program().is_some() {
            return Ok(());
        }
        let arguments = self.argv.get(1..).unwrap_or_default();
        let output = Command::new(program)
            .arg("--check-params")
            .args(arguments)
            .args(["/proc/vmcore", "dump"])
            .stdin(Stdio::null())
            .output()
            .with_context(|| {
                format!("cannot run {}, which is to check the collector's arguments", program.display())
            })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let said = if said.is_empty() { output.status.to_string() } else { said };
        bail!("the collector does not take `{}`: {said}", arguments.join(" "))
    }
}

fn ours(word: &str) -> String {
    match word {
        "makedumpfile" | OURS => OURS.to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kdump_hooks::fake;

    #[test]
    fn both_names_mean_our_collector_and_nothing_is_flattened_into_a_file() {
        for (value, argv) in [
            ("makedumpfile -F -l -d 31", "kdump-capture -l -d 31"),
            ("kdump-capture -d 1", "kdump-capture -d 1"),
            ("/usr/bin/strace -F makedumpfile -d 1", "/usr/bin/strace -F kdump-capture -d 1"),
        ] {
            assert_eq!(Collector::parse(value).unwrap().argv.join(" "), argv);
        }
    }

    #[test]
    fn what_would_write_no_dump_is_no_collector() {
        for value in ["makedumpfile -h", "kdump-capture --check-params -d 31", "makedumpfile --report=/x -d 31"] {
            let error = Collector::parse(value).unwrap_err().to_string();
            assert!(error.contains("take it out"), "{error}");
        }
    }

    #[test]
    fn a_program_that_only_copies_is_refused_with_what_takes_its_place() {
        for value in ["scp", "cp --sparse=always", "dd", "cat"] {
            let error = Collector::parse(value).unwrap_err().to_string();
            assert!(error.contains("take the line out") && error.contains("-d 0"), "{error}");
        }
    }

    #[test]
    fn the_collector_itself_judges_its_arguments() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("kdump-capture");
        let text = b"#!/bin/sh\n[ \"$3\" = 31 ] && [ \"$5\" = dump ] || { echo \"no $2 $3\" >&2; exit 1; }\n";
        fake::program(&program, text).unwrap();
        Collector::parse("makedumpfile -d 31").unwrap().check(&program).unwrap();
        let error = Collector::parse("makedumpfile -d 99").unwrap().check(&program).unwrap_err();
        assert_eq!(error.to_string(), "the collector does not take `-d 99`: no -d 99");
        let error = Collector::default().check(&dir.path().join("gone")).unwrap_err();
        assert!(error.to_string().contains("gone, which is to check"), "{error}");
    }
}
