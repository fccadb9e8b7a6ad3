//! The programs by which dumps are read, in the newest version there is: crash and libkdumpfile's kdumpid from Debian's
//! archive, drgn from PyPI with a libkdumpfile of its own.
//!
//! None is installed: the Debian programs lie with their libraries in one folder and are run by the dynamic loader
//! there; drgn lies in another, for the machine's Python.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{later, packages};
use crate::{folders, tools};

const SUITE: &str = "sid";
const PACKAGES: [&str; 2] = ["crash", "libkdumpfile-utils"];
/// Of PyPI.
const DRGN: &str = "drgn==0.3.0";

/// Programs that read dumps.
#[derive(Clone, Debug)]
pub struct Readers {
    debian: PathBuf,
    drgn: PathBuf,
}

/// The readers, fetched when they are not there.
pub fn readers() -> Result<Readers> {
    packages::for_readers()?;
    let debian = folders::qemu().join("readers");
    folders::made_once(&debian, "crash and kdumpid", |folder| {
        let apt = later::apt(SUITE)?;
        apt.unpack(&apt.with_libraries(&PACKAGES)?, folder)
    })?;
    let drgn = folders::qemu().join("drgn");
    folders::made_once(&drgn, "drgn", |folder| {
        let mut pip = tools::command("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
        tools::run(pip.args(["--only-binary", ":all:", "--target"]).arg(folder).arg(DRGN)).map(drop)
    })?;
    Ok(Readers { debian, drgn })
}

impl Readers {
    /// crash(8).
    pub fn crash(&self) -> Command {
        self.debian_program("crash")
    }

    /// libkdumpfile's kdumpid(1).
    pub fn kdumpid(&self) -> Command {
        self.debian_program("kdumpid")
    }

    /// Python with drgn, to run `script`.
    pub fn drgn(&self, script: &Path) -> Command {
        let mut command = tools::command("python3");
        command.env("PYTHONPATH", &self.drgn).env("PYTHONDONTWRITEBYTECODE", "1").arg(script);
        command
    }

    /// Runs crash's commands on a dump, with the debug information of its kernel, and returns what it says.
    pub fn ask_crash(&self, commands: &[&str], vmlinux: &Path, dump: &Path) -> Result<String> {
        let file = tempfile::NamedTempFile::new().context("unable to make a file of commands")?;
        std::fs::write(file.path(), commands.join("\n") + "\nquit\n")?;
        let mut crash = self.crash();
        // Without -s it waits at a pager, and says hello.
        crash.arg("-s").arg("-i").arg(file.path()).arg(vmlinux).arg(dump);
        tools::text(&mut crash)
    }

    fn debian_program(&self, name: &str) -> Command {
        let libraries = self.debian.join("usr/lib/x86_64-linux-gnu");
        let mut command = tools::command(&libraries.join("ld-linux-x86-64.so.2").to_string_lossy());
        command.arg("--library-path").arg(&libraries).arg(self.debian.join("usr/bin").join(name));
        command
    }
}
