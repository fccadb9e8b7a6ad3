//! Debian's cloud kernels, downloaded and unpacked, never installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::apt::{Apt, update_machine_once};
use super::later;
use crate::{folders, tools};

/// The kernel for virtual machines: small.
const CLOUD: &str = "linux-image-cloud-amd64";
/// The kernel for any machine, with ten times the aliases.
const GENERIC: &str = "linux-image-amd64";

/// Where a kernel comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// The machine's own release; Debian 12 has 6.1, its modules uncompressed.
    Own,
    /// The release after Debian 12; it has 6.12, its modules compressed by xz.
    Trixie,
    /// What is under development; the newest kernel there is.
    Sid,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Suite::Own => "own",
            Suite::Trixie => "trixie",
            Suite::Sid => "sid",
        }
    }

    fn apt(self) -> Result<Apt> {
        match self {
            Suite::Own => Ok(Apt::default()),
            Suite::Trixie | Suite::Sid => later::apt(self.name()),
        }
    }
}

/// A kernel with its modules, ready to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// What `uname -r` says under it.
    pub release: String,
    /// The bootable image.
    pub vmlinuz: PathBuf,
    /// Its `…/lib/modules/RELEASE`, with modules.dep.
    pub modules: PathBuf,
}

/// The cloud kernel of a suite.
pub fn kernel(suite: Suite) -> Result<Kernel> {
    fetch(suite, CLOUD, suite.name())
}

/// The kernel for any machine, of the machine's own release; only to be looked at, for it is large.
pub fn generic_kernel() -> Result<Kernel> {
    fetch(Suite::Own, GENERIC, "generic")
}

fn fetch(suite: Suite, meta: &str, name: &str) -> Result<Kernel> {
    let root = folders::qemu().join("kernels").join(name);
    folders::made_once(&root, &format!("Debian's kernel ({name})"), |folder| {
        let apt = suite.apt()?;
        let unpack = || apt.unpack(&packages(&apt, meta)?, folder);
        // The name of a kernel that an old list has may be gone: what is asked for is resolved anew.
        let unpacked = unpack().or_else(|_| {
            update_machine_once();
            unpack()
        });
        unpacked.context("apt cannot get the kernel package; run as root: apt-get update")?;
        let modules = folder.join("usr/lib/modules");
        if modules.exists() && !folder.join("lib").exists() {
            std::os::unix::fs::symlink("usr/lib", folder.join("lib"))?;
        }
        index_modules(folder, &only_entry(&folder.join("lib/modules"))?)
    })?;
    let release = only_entry(&root.join("lib/modules"))?;
    let modules = root.join("lib/modules").join(&release);
    let places = [root.join("boot").join(format!("vmlinuz-{release}")), modules.join("vmlinuz")];
    let vmlinuz = places.into_iter().find(|place| place.exists());
    Ok(Kernel { vmlinuz: vmlinuz.context("the kernel package has no vmlinuz")?, modules, release })
}

/// The packages of which the kernel consists: one, or since Debian 14 several, for the kernel, its modules and what is
/// known of both. They are named after its release.
fn packages(apt: &Apt, meta: &str) -> Result<Vec<String>> {
    let mut dependencies = apt.dependencies(meta)?.into_iter();
    let image = dependencies.find(|name| name.starts_with("linux-image-"));
    let image = image.with_context(|| format!("{meta} depends on no kernel"))?;
    let release = image.trim_start_matches("linux-image-");
    let parts = apt.dependencies(&image)?.into_iter().filter(|name| name.ends_with(release));
    Ok(parts.chain([image.clone()]).collect())
}

impl Kernel {
    /// A kernel of the user's: `modules` is its `…/lib/modules/RELEASE`, whose last part names the release. A tree
    /// without modules.dep is copied first and indexed there.
    pub fn from_files(vmlinuz: &Path, modules: &Path) -> Result<Kernel> {
        let modules = modules.canonicalize().with_context(|| format!("no such folder: {}", modules.display()))?;
        let vmlinuz = vmlinuz.canonicalize().with_context(|| format!("no such kernel: {}", vmlinuz.display()))?;
        let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(says) = release_in(&vmlinuz)?
            && says != release
        {
            bail!(
                "{} is kernel {says}, but the modules in {} are for {release}; give that kernel's own lib/modules/{says}",
                vmlinuz.display(),
                modules.display(),
            );
        }
        if modules.join("modules.dep").exists() {
            return Ok(Kernel { release, vmlinuz, modules });
        }
        let root = folders::qemu().join("kernels/given");
        folders::fresh(&root.join("lib/modules"))?;
        tools::run(tools::command("cp").arg("-a").arg(&modules).arg(root.join("lib/modules")))?;
        index_modules(&root, &release)?;
        Ok(Kernel { modules: root.join("lib/modules").join(&release), vmlinuz, release })
    }

    /// The folder that `modprobe -d` and `depmod -b` call the root of these modules.
    pub fn modules_root(&self) -> Result<&Path> {
        let root = self.modules.ancestors().nth(3);
        root.with_context(|| format!("{} does not end in lib/modules/RELEASE", self.modules.display()))
    }

    /// Module files in the order of loading that kmod itself gives for `name`; none for one that is built in.
    pub fn load_order(&self, name: &str) -> Result<Vec<PathBuf>> {
        let mut command = tools::command("modprobe");
        command.arg("-d").arg(self.modules_root()?).args(["-S", &self.release, "--show-depends", name]);
        let listing = tools::text(&mut command)?;
        let files = listing.lines().filter_map(|line| line.strip_prefix("insmod "));
        Ok(files.filter_map(|line| line.split_whitespace().next()).map(PathBuf::from).collect())
    }
}

/// The kernel of the machine's release with debug information: large, for the crash utility alone.
pub fn debug_vmlinux(kernel: &Kernel) -> Result<PathBuf> {
    let name = format!("vmlinux-{}", kernel.release);
    let folder = folders::qemu().join("debug").join(&kernel.release);
    folders::made_once(&folder, &format!("the debug package of {}", kernel.release), |folder| {
        let packages = [format!("linux-image-{}-dbg", kernel.release)];
        let downloads = tempfile::tempdir_in(folder)?;
        let files = Apt::default().download(&packages, downloads.path()).context(
            "apt keeps debug packages of current kernels only; for a newer kernel remove target/qemu/kernels/own",
        )?;
        let content = downloads.path().join("content.tar");
        for file in files {
            let mut unpack = tools::command("dpkg-deb");
            unpack.arg("--fsys-tarfile").arg(file).stdout(fs::File::create(&content)?);
            if !unpack.status()?.success() {
                bail!("{} failed", tools::shown(&unpack));
            }
            let member = format!("./usr/lib/debug/boot/{name}");
            tools::run(tools::command("tar").arg("-x").arg("-f").arg(&content).arg("-C").arg(folder).arg(member))?;
        }
        fs::rename(folder.join("usr/lib/debug/boot").join(&name), folder.join(&name))
            .context("no vmlinux in the package")
    })?;
    Ok(folder.join(name))
}

fn index_modules(root: &Path, release: &str) -> Result<()> {
    tools::run(tools::command("depmod").arg("-b").arg(root).arg(release)).map(drop)
}

fn only_entry(folder: &Path) -> Result<String> {
    let mut entries = folder.read_dir().with_context(|| format!("unable to list {}", folder.display()))?;
    let first = entries.next().with_context(|| format!("{} is empty", folder.display()))??;
    Ok(first.file_name().to_string_lossy().into_owned())
}

/// The release that a bzImage's setup header tells, if it tells one.
fn release_in(vmlinuz: &Path) -> Result<Option<String>> {
    let bytes = fs::read(vmlinuz).with_context(|| format!("unable to read {}", vmlinuz.display()))?;
    if bytes.get(0x202..0x206) != Some(b"HdrS") {
        bail!("{} is not a bzImage, the form in which x86 kernels are booted", vmlinuz.display());
    }
    let offset = bytes.get(0x20e..0x210).map(|field| 0x200 + usize::from(u16::from_le_bytes([field[0], field[1]])));
    let text = offset.and_then(|offset| bytes.get(offset..)).unwrap_or_default();
    let release = text.split(|byte| *byte == b' ' || *byte == 0).next().unwrap_or_default();
    Ok(Some(String::from_utf8_lossy(release).into_owned()).filter(|release| !release.is_empty()))
}
