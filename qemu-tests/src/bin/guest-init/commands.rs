//! Runs the commands that make a target, one line each: words between blanks, no shell.
//!
//! `mount TYPE DEVICE FOLDER [OPTIONS]` is done here; all else is a program of the disk.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};

/// Nobody but the tools themselves makes nodes here.
const WITHOUT_UDEV: [(&str, &str); 3] =
    [("DM_DISABLE_UDEV", "1"), ("MDADM_NO_UDEV", "1"), ("LVM_SUPPRESS_FD_WARNINGS", "1")];

/// Runs the commands in `file`, if there is one.
pub(crate) fn run(file: &str) -> Result<()> {
    let Ok(text) = fs::read_to_string(file) else { return Ok(()) };
    for line in text.lines() {
        super::say(&format!("run: {line}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["mount", kind, device, folder] => mount_at(kind, device, folder, None)?,
            ["mount", kind, device, folder, options] => mount_at(kind, device, folder, Some(options))?,
            [program, arguments @ ..] => start(program, arguments)?,
            [] => {}
        }
    }
    Ok(())
}

fn mount_at(kind: &str, device: &str, folder: &str, options: Option<&str>) -> Result<()> {
    fs::create_dir_all(folder)?;
    mount(Some(device), folder, Some(kind), MsFlags::empty(), options)
        .with_context(|| format!("unable to mount {device} on {folder}"))
}

fn start(program: &str, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").envs(WITHOUT_UDEV).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("unable to start {program}"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{program} ended with {}: {}", output.status, String::from_utf8_lossy(&said).trim().replace('\n', " | "));
    }
    Ok(())
}

/// Copies a folder and all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("unable to list {}", from.display()))? {
        let (entry, to) = (entry?, to);
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false => fs::copy(entry.path(), &target).map(drop)?,
        }
    }
    fs::set_permissions(to, fs::metadata(from)?.permissions()).context("unable to set permissions")
}
