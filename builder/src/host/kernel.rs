//! The kernel that an image is for: its release, its modules, and what it can decompress by itself.
//!
//! In: `--kver`, `--modules-dir` and the files of the machine. Out: [`Kernel`]. What cannot be known of a kernel is
//! taken for the worse: a module is then decompressed at build time, which costs memory and never a boot.

use super::Tree;
use crate::unpack::Codec;
use anyhow::{Context, bail};
use kdump_hooks::kernel_image::Naming;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// As `uname -r` prints it.
    pub release: String,
    /// Its `/lib/modules/RELEASE`.
    pub modules_dir: PathBuf,
    /// Whether it is installed on, or running, the machine that this program runs on.
    pub is_of_this_machine: bool,
    /// The module compression that it can undo itself.
    pub decompresses: Option<Compression>,
    /// The compressions of firmware that it can undo itself.
    pub reads_firmware: Vec<Compression>,
    /// The firmware that is built into it.
    pub builtin_firmware: Vec<String>,
    /// The compressions in which it takes an image; unknown without its configuration.
    pub unpacks: Option<Vec<Codec>>,
    /// The program that it calls to load a module.
    pub modprobe: String,
}

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// gzip, `.gz`.
    Gzip,
    /// xz, `.xz`.
    Xz,
    /// Zstandard, `.zst`.
    Zstd,
}

impl Compression {
    /// Tells it by the first bytes of a file.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0x1f, 0x8b, ..] => Some(Compression::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Compression::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Compression::Zstd),
            _ => None,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compression::Gzip => "gzip",
            Compression::Xz => "xz",
            Compression::Zstd => "zstd",
        })
    }
}

/// The release of the kernel that runs this machine.
///
/// # Errors
/// proc is not mounted.
pub fn running_release(tree: &Tree) -> anyhow::Result<String> {
    tree.line("proc/sys/kernel/osrelease")
        .context("cannot read /proc/sys/kernel/osrelease; name the kernel with --kver")
}

impl Kernel {
    /// Finds a kernel's modules: in `modules_dir` if that is given, else where a system has them.
    ///
    /// # Errors
    /// There is no such kernel.
    pub fn find(tree: &Tree, release: Option<&str>, modules_dir: Option<&Path>) -> anyhow::Result<Kernel> {
        let running = tree.line("proc/sys/kernel/osrelease");
        let release = match release {
            Some(release) => release.to_owned(),
            None => running_release(tree)?,
        };
        if release.is_empty() || release.contains('/') || release.starts_with('.') {
            bail!("`{release}` is not the release of a kernel; `uname -r` prints one");
        }
        let is_running = tree.is_this_machine() && running.as_deref() == Some(&release);
        let modules_dir_is_its_own = modules_dir.is_none();
        let modules_dir = match modules_dir {
            Some(dir) if dir.is_dir() => dir.to_owned(),
            Some(dir) => bail!("there is no modules directory {}, which --modules-dir names", dir.display()),
            None => usual_dir(tree, &release)?,
        };
        let config = config_of(tree, &release, &modules_dir);
        let compression = match (&config, is_running) {
            (_, true) => tree.line("sys/module/compression").and_then(|word| match word.as_str() {
                "gzip" => Some(Compression::Gzip),
                "xz" => Some(Compression::Xz),
                "zstd" => Some(Compression::Zstd),
                _ => None,
            }),
            (Some(config), false) => config.decompresses(),
            (None, false) => None,
        };
        let unpacks = config.as_ref().map(|config| Codec::all().filter(|codec| config.has(codec.option())).collect());
        let reads_firmware = config.as_ref().map(KernelConfig::reads_firmware).unwrap_or_default();
        let builtin_firmware =
            config.as_ref().and_then(|config| config.value("CONFIG_EXTRA_FIRMWARE")).unwrap_or_default();
        let modprobe = config.and_then(|config| config.value("CONFIG_MODPROBE_PATH"));
        Ok(Kernel {
            release,
            modules_dir,
            is_of_this_machine: tree.is_this_machine() && (is_running || modules_dir_is_its_own),
            decompresses: compression,
            reads_firmware,
            builtin_firmware: builtin_firmware.split_whitespace().map(str::to_owned).collect(),
            unpacks,
            modprobe: modprobe.filter(|path| path.starts_with('/')).unwrap_or_else(|| "/sbin/modprobe".to_owned()),
        })
    }
}

impl Kernel {
    /// Whether it can unpack an image that is compressed in this way; `None` if that is not known.
    pub fn can_unpack(&self, codec: Codec) -> Option<bool> {
        self.unpacks.as_ref().map(|known| known.contains(&codec))
    }
}

impl Kernel {
    /// The kernel itself, of the system whose modules these are, or else of the tree.
    ///
    /// # Errors
    /// It is not where kernels are.
    pub fn file(&self, tree: &Tree) -> anyhow::Result<PathBuf> {
        let find = |root: &Path| Naming::default().find(root, &self.release);
        let copy = Some(self.modules_dir.join("vmlinuz")).filter(|copy| copy.is_file());
        self.root().and_then(|root| find(root).ok()).or(copy).map_or_else(|| find(tree.root()), Ok)
    }

    /// The root of the system whose modules these are.
    fn root(&self) -> Option<&Path> {
        let modules = self.modules_dir.parent()?;
        let root = modules.ends_with("lib/modules").then(|| modules.ancestors().nth(2)).flatten()?;
        if root.ends_with("usr") { root.parent() } else { Some(root) }
    }
}

fn usual_dir(tree: &Tree, release: &str) -> anyhow::Result<PathBuf> {
    let parents = ["/lib/modules", "/usr/lib/modules"];
    for parent in parents {
        if let Ok(dir) = tree.resolve(&Path::new(parent).join(release))
            && dir.is_dir()
        {
            return Ok(dir);
        }
    }
    let mut installed: Vec<String> = parents
        .iter()
        .filter_map(|parent| fs::read_dir(tree.path(parent)).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect();
    installed.sort();
    installed.dedup();
    let others = match installed.is_empty() {
        true => "none is installed there; install one".to_owned(),
        false => format!("installed are {}", installed.join(", ")),
    };
    bail!(
        "there is no kernel {release}: neither {} nor its counterpart in usr/lib is there; {others}, or name its \
         modules with --modules-dir",
        tree.path("lib/modules").join(release).display()
    )
}

/// The configuration that a kernel was built with.
pub(crate) struct KernelConfig(String);

impl KernelConfig {
    pub(crate) fn has(&self, option: &str) -> bool {
        self.0.lines().any(|line| line.strip_prefix(option) == Some("=y"))
    }

    fn value(&self, option: &str) -> Option<String> {
        let value = self.0.lines().find_map(|line| line.strip_prefix(option)?.strip_prefix('='))?;
        Some(value.trim_matches('"').to_owned())
    }

    /// Kernels before 5.19 know xz alone, and have no word of its own for it.
    fn reads_firmware(&self) -> Vec<Compression> {
        let words =
            [("CONFIG_FW_LOADER_COMPRESS_ZSTD", Compression::Zstd), ("CONFIG_FW_LOADER_COMPRESS_XZ", Compression::Xz)];
        let is_old = !self.0.contains("CONFIG_FW_LOADER_COMPRESS_");
        match self.has("CONFIG_FW_LOADER_COMPRESS") {
            true if is_old => vec![Compression::Xz],
            true => words.into_iter().filter(|(option, _)| self.has(option)).map(|(_, packed)| packed).collect(),
            false => Vec::new(),
        }
    }

    fn decompresses(&self) -> Option<Compression> {
        if !self.has("CONFIG_MODULE_DECOMPRESS") {
            return None;
        }
        [
            ("CONFIG_MODULE_COMPRESS_GZIP", Compression::Gzip),
            ("CONFIG_MODULE_COMPRESS_XZ", Compression::Xz),
            ("CONFIG_MODULE_COMPRESS_ZSTD", Compression::Zstd),
        ]
        .into_iter()
        .find_map(|(option, compression)| self.has(option).then_some(compression))
    }
}

/// Looks in /boot, in the modules directory, and in the /boot that belongs to the tree of the modules directory.
pub(crate) fn config_of(tree: &Tree, release: &str, modules_dir: &Path) -> Option<KernelConfig> {
    let name = format!("config-{release}");
    let mut places = vec![modules_dir.join("config")];
    places.extend(modules_dir.ancestors().skip(3).take(2).map(|ancestor| ancestor.join("boot").join(&name)));
    places.push(tree.path("boot").join(&name));
    places.into_iter().find_map(|path| fs::read_to_string(path).ok()).map(KernelConfig)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Tree) {
        crate::fake::tree(files).unwrap()
    }

    #[test]
    fn modules_stay_packed_only_where_the_kernel_is_known_to_unpack_them() {
        for (config, expected) in [
            ("CONFIG_MODULE_COMPRESS_XZ=y\nCONFIG_MODULE_DECOMPRESS=y\n", Some(Compression::Xz)),
            ("CONFIG_MODULE_COMPRESS_ZSTD=y\nCONFIG_MODULE_DECOMPRESS=y\n", Some(Compression::Zstd)),
            ("CONFIG_MODULE_COMPRESS_XZ=y\n# CONFIG_MODULE_DECOMPRESS is not set\n", None),
            ("", None),
        ] {
            let (_dir, tree) = tree(&[("lib/modules/6.1/modules.dep", ""), ("boot/config-6.1", config)]);
            assert_eq!(Kernel::find(&tree, Some("6.1"), None).unwrap().decompresses, expected, "{config}");
        }
    }

    #[test]
    fn packed_firmware_is_read_by_kernels_that_say_so_and_xz_by_old_ones_that_do() {
        for (config, expected) in [
            ("CONFIG_FW_LOADER_COMPRESS=y\n", &[Compression::Xz][..]),
            (
                "CONFIG_FW_LOADER_COMPRESS=y\n# CONFIG_FW_LOADER_COMPRESS_XZ is not set\nCONFIG_FW_LOADER_COMPRESS_ZSTD=y\n",
                &[Compression::Zstd],
            ),
            ("# CONFIG_FW_LOADER_COMPRESS is not set\n", &[]),
        ] {
            let (_dir, tree) = tree(&[("lib/modules/6.1/modules.dep", ""), ("boot/config-6.1", config)]);
            assert_eq!(Kernel::find(&tree, Some("6.1"), None).unwrap().reads_firmware, expected, "{config}");
        }
    }

    #[test]
    fn the_configuration_is_found_beside_the_modules() {
        let text = "CONFIG_MODPROBE_PATH=\"/usr/sbin/modprobe\"\n";
        for place in ["k/usr/lib/modules/6.1/config", "k/boot/config-6.1", "k/usr/boot/config-6.1"] {
            let (dir, _) = tree(&[("k/usr/lib/modules/6.1/modules.dep", ""), (place, text)]);
            let empty = tempfile::tempdir().unwrap();
            let modules = dir.path().join("k/usr/lib/modules/6.1");
            let kernel = Kernel::find(&Tree::new(empty.path()), Some("6.1"), Some(&modules)).unwrap();
            assert_eq!(kernel.modprobe, "/usr/sbin/modprobe", "{place}");
        }
    }

    #[test]
    fn a_kernel_that_is_not_there_is_named_with_those_that_are() {
        let (_dir, tree) = tree(&[("lib/modules/6.1/modules.dep", ""), ("proc/sys/kernel/osrelease", "6.9\n")]);
        let error = Kernel::find(&tree, None, None).unwrap_err().to_string();
        assert!(error.contains("there is no kernel 6.9") && error.contains("installed are 6.1"), "{error}");
        assert!(Kernel::find(&tree, Some("../x"), None).is_err());
    }
}
