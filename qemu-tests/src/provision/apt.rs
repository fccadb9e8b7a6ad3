//! The machine's own apt: installs packages, downloads and unpacks others without installing them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use anyhow::{Context, Result, bail};

use crate::{folders, progress, tools};

/// Libraries that only programs need which nobody runs here, and large ones at that.
const LEFT_OUT: [&str; 3] = ["libicu", "libpython", "libperl"];

/// Which apt answers: its options come before the command's own words.
#[derive(Clone, Debug, Default)]
pub(super) struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// An apt with these `-o` options; without any it is the machine's.
    pub(super) fn with_options(options: Vec<String>) -> Self {
        Apt { options }
    }

    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = tools::command(program);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        for option in &self.options {
            command.arg("-o").arg(option);
        }
        command
    }

    /// Fetches the package lists; one at a time does, as apt does not wait.
    pub(super) fn update(&self) -> Result<()> {
        let _lock = folders::lock("package-lists")?;
        tools::run(self.command("apt-get").arg("update")).map(drop).context("unable to fetch apt's package lists")
    }

    /// The packages that `package` depends on in the version that would be installed.
    pub(super) fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let listing = tools::text(self.command("apt-cache").args(["depends", package]))?;
        Ok(listing.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).map(str::to_owned).collect())
    }

    /// These packages and all libraries below them.
    pub(super) fn with_libraries(&self, wanted: &[&str]) -> Result<Vec<String>> {
        const ALONE: [&str; 7] = [
            "--recurse",
            "--no-recommends",
            "--no-suggests",
            "--no-conflicts",
            "--no-breaks",
            "--no-replaces",
            "--no-enhances",
        ];
        let listing = tools::text(self.command("apt-cache").arg("depends").args(ALONE).args(wanted))?;
        let mut needs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut package = "";
        for line in listing.lines() {
            match line.trim().strip_prefix("Depends: ") {
                Some(name) => needs.entry(package).or_default().push(name),
                None if line.starts_with(char::is_alphanumeric) => package = line,
                None => {}
            }
        }
        let is_library = |name: &&str| {
            (name.starts_with("lib") || *name == "zlib1g") && !LEFT_OUT.iter().any(|out| name.starts_with(out))
        };
        let (mut found, mut todo) = (BTreeSet::new(), wanted.to_vec());
        while let Some(package) = todo.pop() {
            if found.insert(package.to_owned()) {
                todo.extend(needs.get(package).into_iter().flatten().copied().filter(is_library));
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Downloads packages into `folder` and returns the files.
    pub(super) fn download(&self, packages: &[String], folder: &Path) -> Result<Vec<PathBuf>> {
        let fetch = || tools::run(self.command("apt-get").arg("download").args(packages).current_dir(folder));
        if let Err(error) = fetch() {
            // A list from last month names files that the archive has dropped since.
            progress::note("the download failed; fetching newer package lists, then once more");
            if self.update().is_err() {
                return Err(error);
            }
            fetch()?;
        }
        let mut files = Vec::new();
        for entry in folder.read_dir().with_context(|| format!("unable to list {}", folder.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                files.push(path);
            }
        }
        if files.len() < packages.len() {
            bail!("apt-get downloaded {} of these packages: {}", files.len(), packages.join(" "));
        }
        Ok(files)
    }

    /// Downloads packages and unpacks them, side by side, into `folder`.
    pub(super) fn unpack(&self, packages: &[String], folder: &Path) -> Result<()> {
        let downloads = tempfile::tempdir_in(folder.parent().unwrap_or(folder))
            .with_context(|| format!("unable to make a temporary folder beside {}", folder.display()))?;
        for file in self.download(packages, downloads.path())? {
            tools::run(tools::command("dpkg-deb").arg("-x").arg(file).arg(folder))?;
        }
        Ok(())
    }
}

/// Fetches the machine's package lists, once per process, when there are none; only root can.
pub(super) fn update_machine_once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if nix::unistd::geteuid().is_root() {
            progress::note("fetching the machine's package lists");
            if let Err(error) = Apt::default().update() {
                progress::note(&format!("{error:#}"));
            }
        }
    });
}

/// Unpacks packages of the machine's archive below `folder`, none of them installed; the lists are fetched when it fails.
pub(super) fn unpack(packages: &[&str], folder: &Path) -> Result<()> {
    let packages: Vec<String> = packages.iter().map(|name| (*name).to_owned()).collect();
    Apt::default().unpack(&packages, folder).or_else(|_| {
        update_machine_once();
        Apt::default().unpack(&packages, folder).context("run as root: apt-get update")
    })
}

/// Installs packages; the lists are fetched first when the machine has none, and again when the install fails.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    let apt = Apt::default();
    let install = || {
        let words = ["install", "--yes", "--no-install-recommends"];
        tools::run(apt.command("apt-get").args(words).args(packages))
    };
    if install().is_err() {
        apt.update()?;
        install()?;
    }
    Ok(())
}
