//! Runs commands and keeps what they say: `NUMBER.out`, `NUMBER.err` and `NUMBER.code` in a folder of the disk.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use qemu_tests::live::{COMMANDS, FOLDER};

/// Runs all of them, one after the other; how they end is for the host to judge.
pub(crate) fn answer() -> Result<()> {
    fs::create_dir_all(FOLDER).with_context(|| format!("unable to make {FOLDER}"))?;
    let text = fs::read_to_string(COMMANDS).with_context(|| format!("unable to read {COMMANDS}"))?;
    for (number, line) in text.lines().enumerate() {
        super::say(&format!("run: {line}"));
        let keep = |what: &str| File::create(format!("{FOLDER}/{number}.{what}")).context("unable to keep an answer");
        let (words, is_waited_for) = match line.strip_prefix("& ") {
            Some(words) => (words, false),
            None => (line, true),
        };
        let mut words = words.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        command.stdout(keep("out")?).stderr(keep("err")?);
        let mut child = command.spawn().with_context(|| format!("unable to start {line}"))?;
        let code = match is_waited_for {
            true => {
                let status = child.wait()?;
                status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
            }
            false => 0,
        };
        fs::write(format!("{FOLDER}/{number}.code"), code.to_string()).context("unable to keep an exit code")?;
    }
    nix::unistd::sync();
    Ok(())
}
