//! `cargo dist`: a Debian package and an RPM of the programs, their manual pages and completions.
//!
//! ```text
//!  programs, release ────────────────────────────────────────────┐
//!  examples/manual of builder and capture ─▶ target/dist/ ─▶ staged beside the programs ─▶ cargo-deb, cargo-generate-rpm
//!                                                                ┘                                │
//!                                          target/dist/kdump-rs_VERSION_amd64.deb, kdump-rs-VERSION.x86_64.rpm
//! ```
//!
//! What is in a package stands in `builder/Cargo.toml`, and its files in `builder/dist/`. Surprising: the two packagers
//! look for built files beside the programs alone, so that pages and completions are copied there. They are compiled and
//! installed below `target/tools` when they are not there.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::programs::{TARGET, programs};
use crate::{folders, progress, tools};

/// All crates are of one version, and so are the packages.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Manual pages, and completions in a folder for each shell.
#[derive(Clone, Debug)]
pub struct Pages {
    /// Manual pages, not packed.
    pub man: PathBuf,
    /// Completions.
    pub completions: PathBuf,
}

/// Writes manual pages and completions to `target/dist`, once per process.
pub fn pages() -> Result<Pages> {
    static MADE: OnceLock<Result<Pages, String>> = OnceLock::new();
    let make = || {
        let _lock = folders::lock("dist")?;
        let folder = folders::target().join("dist");
        let pages = Pages { man: folder.join("man"), completions: folder.join("completions") };
        folders::fresh(&pages.man)?;
        folders::fresh(&pages.completions)?;
        progress::timed("manual pages and completions", || {
            ["kdump-builder", "kdump-capture"].iter().try_for_each(|package| manual(package, &folder))
        })?;
        stage(&pages, &programs()?.path("dist"))?;
        Ok(pages)
    };
    once(&MADE, make)
}

/// Makes the Debian package, in `target/dist`, once per process.
pub fn deb() -> Result<PathBuf> {
    static MADE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let make = || {
        pages()?;
        let packager = packager("cargo-deb", "3.8.0")?;
        let file = folders::target().join("dist").join(format!("kdump-rs_{VERSION}-1_amd64.deb"));
        let _lock = folders::lock("dist")?;
        progress::timed("the Debian package", || {
            let mut command = Command::new(packager);
            command.args(["--package", "kdump-builder", "--no-build", "--no-strip", "--quiet", "--target", TARGET]);
            package(command.arg("--output").arg(&file))
        })?;
        Ok(file)
    };
    once(&MADE, make)
}

/// Makes the RPM, in `target/dist`.
pub fn rpm() -> Result<PathBuf> {
    pages()?;
    let packager = packager("cargo-generate-rpm", "0.21.1")?;
    let file = folders::target().join("dist").join(format!("kdump-rs-{VERSION}-1.x86_64.rpm"));
    let _lock = folders::lock("dist")?;
    progress::timed("the RPM", || {
        let mut command = Command::new(packager);
        command.args(["--package", "builder", "--target", TARGET, "--target-dir"]).arg(folders::target());
        package(command.arg("--output").arg(&file))
    })?;
    Ok(file)
}

fn once<T: Clone>(made: &OnceLock<Result<T, String>>, make: impl FnOnce() -> Result<T>) -> Result<T> {
    let made = made.get_or_init(|| make().map_err(|error| format!("{error:#}")));
    made.clone().map_err(|error| anyhow!(error))
}

fn package(command: &mut Command) -> Result<()> {
    command.current_dir(folders::workspace()).env("CARGO_TARGET_DIR", folders::target());
    tools::run(command).map(drop)
}

/// Has one crate write its pages and completions.
fn manual(package: &str, folder: &Path) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(folders::workspace()).args(["run", "--quiet", "--target", TARGET, "--target-dir"]);
    command.arg(folders::target()).args(["--package", package, "--example", "manual", "--"]).arg(folder);
    tools::run(&mut command).map(drop)
}

/// Where each page and completion goes: as it is called in the package, and apart what another package may have as well.
fn stage(pages: &Pages, stage: &Path) -> Result<()> {
    folders::fresh(stage)?;
    let aside = stage.join("aside");
    for page in entries(&pages.man)? {
        let name = page.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let folder = if name.starts_with(ASIDE) { aside.clone() } else { stage.join("man") };
        fs::create_dir_all(&folder)?;
        let mut packed = GzEncoder::new(File::create(folder.join(format!("{name}.gz")))?, Compression::best());
        packed.write_all(&fs::read(&page)?)?;
        packed.finish()?;
    }
    for shell in entries(&pages.completions)? {
        let name = shell.file_name().unwrap_or_default();
        let folder = stage.join("completions").join(name);
        for file in entries(&shell)? {
            let called = file.file_name().unwrap_or_default();
            match called.to_string_lossy().contains(ASIDE) {
                false => tools::copy(&file, &folder.join(called))?,
                true if name == "bash" => tools::copy(&file, &aside.join(format!("{ASIDE}.bash")))?,
                true => {}
            }
        }
    }
    Ok(())
}

/// dracut has a program of this name; `package-setup` gives it the name, page and completion where they are free.
const ASIDE: &str = "lsinitrd";

/// The files of a folder, by name.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = fs::read_dir(folder).with_context(|| format!("unable to list {}", folder.display()))?;
    let mut entries: Vec<PathBuf> = list.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    entries.sort();
    Ok(entries)
}

/// A packager, compiled if it is not there.
fn packager(name: &str, version: &str) -> Result<PathBuf> {
    let root = folders::target().join("tools").join(format!("{name}-{version}"));
    folders::made_once(&root, &format!("compiling {name} {version}"), |folder| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        // Elsewhere, since the workspace has everything built static, for a target that it names.
        command.current_dir(std::env::temp_dir()).args(["install", "--quiet", "--locked", "--version", version, name]);
        command.env_remove("CARGO_BUILD_TARGET").env_remove("RUSTFLAGS");
        command.arg("--root").arg(folder).arg("--target-dir").arg(folder.join("build"));
        tools::run(&mut command)?;
        fs::remove_dir_all(folder.join("build")).context("unable to remove what only the compiler needed")
    })?;
    Ok(root.join("bin").join(name))
}
