//! What the file of a patch says about itself, and whether it is for the kernel that runs.

use super::kernel::Kernel;
use super::patch::name_of;
use crate::kernel::is_signed;
use crate::kmod::{ModInfo, ModuleName, section};
use anyhow::{Context, bail};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// A longer file is no patch.
const LONGEST: u64 = 64 << 20;

/// The section with the note of a build; the kernel shows it of a module that is loaded.
const BUILD: &str = ".note.gnu.build-id";

/// What the file of a patch says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The file.
    pub file: PathBuf,
    /// The name that the kernel will give it.
    pub name: ModuleName,
    /// The release of the kernel that it was built for.
    pub release: String,
    /// Whether a signature is appended to it.
    pub is_signed: bool,
    /// The sha256 of the whole file, in hexadecimal digits.
    pub sha256: String,
    /// The note that tells one build from another.
    pub build: Option<Vec<u8>>,
    /// Everything that its `.modinfo` says.
    pub info: ModInfo,
}

impl Identity {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, is no kernel module, or one that is no live patch.
    pub fn read(file: &Path) -> anyhow::Result<Identity> {
        let reading = || format!("cannot read the patch module {}", file.display());
        let mut open = File::open(file).with_context(reading)?;
        if open.metadata().with_context(reading)?.len() > LONGEST {
            bail!("{} is longer than {} MiB: it is no patch module", file.display(), LONGEST >> 20);
        }
        let is_signed = is_signed(&mut open).unwrap_or(false);
        let content = fs::read(file).with_context(reading)?;
        let info = ModInfo::read(&content).with_context(|| format!("{} is no kernel module", file.display()))?;
        if info.values("livepatch").next() != Some("Y") {
            bail!("{} is a kernel module, but no live patch (its .modinfo has no livepatch=Y)", file.display());
        }
        let release = info.values("vermagic").next().and_then(|magic| magic.split(' ').next()).unwrap_or_default();
        let release = release.to_owned();
        let name = info.values("name").next().map_or_else(|| name_of(&file.to_string_lossy()), ModuleName::from);
        let sha256 = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        let build = section(&content, BUILD)?.map(<[u8]>::to_owned);
        Ok(Identity { file: file.to_owned(), name, release, is_signed, sha256, build, info })
    }

    /// Whether the module of that name that is loaded is another build than this file. Where neither says which build it
    /// is, it is taken for the same.
    pub fn is_another_build(&self, kernel: &dyn Kernel) -> bool {
        let module = Path::new("/sys/module").join(self.name.as_str());
        if let (Some(ours), Ok(theirs)) = (&self.build, kernel.read_bytes(&module.join("notes").join(BUILD))) {
            return *ours != theirs;
        }
        let theirs = kernel.read(&module.join("srcversion"));
        matches!((self.info.values("srcversion").next(), theirs), (Some(ours), Ok(theirs)) if ours != theirs)
    }

    /// Whether it was built for the kernel that runs.
    ///
    /// # Errors
    /// It was not, with the remedy.
    pub fn check(&self, kernel: &dyn Kernel) -> anyhow::Result<()> {
        let running = kernel.release().context("cannot tell the release of the running kernel")?;
        if self.release != running {
            bail!(
                "{} was built for kernel {}, and {running} is running; install the patch for {running}, or boot {}",
                self.file.display(),
                self.release,
                self.release
            );
        }
        Ok(())
    }
}
