//! The host's programs: found also where an ordinary user's PATH does not look, run with errors that carry their output.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Finds a program in PATH or in the folders of the administrator's programs.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let admin = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(admin).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// A command for a host program, in the C locale, with nothing on its standard input.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(find(program).unwrap_or_else(|| PathBuf::from(program)));
    command.env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// Runs to the end; an exit other than success is an error that shows what the program said.
pub fn run(command: &mut Command) -> Result<Output> {
    run_accepting(command, &[0])
}

/// Runs to the end; an exit status outside `accepted` is an error that shows what the program said.
pub fn run_accepting(command: &mut Command, accepted: &[i32]) -> Result<Output> {
    let output = command.output().with_context(|| format!("unable to start {}", shown(command)))?;
    if !output.status.code().is_some_and(|code| accepted.contains(&code)) {
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        bail!("{} ended with {}:\n{}", shown(command), output.status, tail(&said, 30));
    }
    Ok(output)
}

/// Runs to the end and returns its standard output as text.
pub fn text(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&run(command)?.stdout).into_owned())
}

/// The command as one would type it.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Copies a file, naming both ends if that fails; parents of the destination are made.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("unable to make the folder {}", folder.display()))?;
    }
    std::fs::copy(from, to).map(drop).with_context(|| format!("unable to copy {} to {}", from.display(), to.display()))
}
