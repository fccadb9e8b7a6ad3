//! The incumbent as oracle: a newer makedumpfile than the machine's release has, with its own libraries.
//!
//! It is not installed: package and libraries lie side by side in one folder, and its own dynamic loader runs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::later;
use crate::{folders, tools};

const SUITE: &str = "sid";

/// How it is called in a guest on whose disk it is.
pub const ORACLE_IN_GUEST: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    "--library-path",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/bin/makedumpfile",
];

/// How pages are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// As they are.
    None,
    /// `-c`
    Zlib,
    /// `-l`
    Lzo,
    /// `-p`, which Debian's makedumpfile cannot.
    Snappy,
    /// `-z`
    Zstd,
}

impl Codec {
    /// All of them.
    pub const ALL: [Codec; 5] = [Codec::None, Codec::Zlib, Codec::Lzo, Codec::Snappy, Codec::Zstd];

    /// The option by which both collectors know it.
    pub fn option(self) -> Option<&'static str> {
        match self {
            Codec::None => None,
            Codec::Zlib => Some("-c"),
            Codec::Lzo => Some("-l"),
            Codec::Snappy => Some("-p"),
            Codec::Zstd => Some("-z"),
        }
    }
}

/// A makedumpfile that can be run.
#[derive(Clone, Debug)]
pub struct Makedumpfile {
    folder: PathBuf,
}

/// The oracle, fetched when it is not there.
pub fn makedumpfile() -> Result<Makedumpfile> {
    let folder = folders::qemu().join("oracle");
    folders::made_once(&folder, "makedumpfile, as oracle", |folder| {
        let apt = later::apt(SUITE)?;
        apt.unpack(&apt.with_libraries(&["makedumpfile"])?, folder)
    })?;
    Ok(Makedumpfile { folder })
}

impl Makedumpfile {
    /// Filters a raw vmcore.
    pub fn filter(&self, level: u8, codec: Codec, vmcore: &Path, dump: &Path) -> Result<()> {
        let mut command = self.command();
        command.args(["--message-level", "4", "-d", &level.to_string()]).args(codec.option()).arg(vmcore).arg(dump);
        tools::run(&mut command).map(drop)
    }

    /// The kernel log of a raw vmcore or of a dump, byte for byte.
    pub fn log(&self, vmcore: &Path, text: &Path) -> Result<Vec<u8>> {
        let mut command = self.command();
        command.args(["--message-level", "4", "--dump-dmesg"]).arg(vmcore).arg(text);
        tools::run(&mut command)?;
        std::fs::read(text).with_context(|| format!("makedumpfile wrote no {}", text.display()))
    }

    /// Puts it and its libraries on the disk below `tree`.
    pub(crate) fn install(&self, tree: &Path) -> Result<()> {
        tools::copy(&self.folder.join("usr/bin/makedumpfile"), &tree.join("usr/bin/makedumpfile"))?;
        let mut copy = tools::command("cp");
        copy.arg("-aL").arg(self.folder.join("usr/lib/x86_64-linux-gnu"));
        std::fs::create_dir_all(tree.join("usr/lib"))?;
        tools::run(copy.arg(tree.join("usr/lib"))).map(drop)
    }

    /// It, without arguments.
    pub fn command(&self) -> Command {
        let [loader, option, libraries, program] = self.argv();
        let mut command = Command::new(loader);
        command.arg(option).arg(libraries).arg(program);
        command
    }

    /// The words that run it, for whoever runs it otherwise; its own arguments follow.
    pub fn argv(&self) -> [PathBuf; 4] {
        let libraries = self.folder.join("usr/lib/x86_64-linux-gnu");
        let loader = libraries.join("ld-linux-x86-64.so.2");
        [loader, "--library-path".into(), libraries, self.folder.join("usr/bin/makedumpfile")]
    }
}
