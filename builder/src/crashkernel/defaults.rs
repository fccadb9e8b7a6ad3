//! What to write behind `crashkernel=` where nobody has measured: the values that distributions ship.
//!
//! In: processor architecture, page size, distribution. Out: a value. The numbers are theirs; what a machine really takes
//! is the matter of `kdumpctl estimate`.

use super::{Bytes, Crashkernel, Range, Value};
use crate::cli::Way;
use crate::host::Tree;
use anyhow::bail;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// A line of the kernel log is shorter.
const RECORD: usize = 8 << 10;
/// No kernel log has more lines.
const MOST_RECORDS: usize = 1 << 20;

/// A processor architecture that has defaults of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// AMD64 and Intel 64.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
    /// Little-endian POWER.
    Ppc64le,
    /// IBM Z.
    S390x,
    /// Any other.
    Other,
}

impl Arch {
    /// That of this program.
    pub fn ours() -> Arch {
        Arch::named(std::env::consts::ARCH)
    }

    /// That of a machine, which kernels since 6.1 tell; else that of this program.
    pub fn of(root: &Path) -> Arch {
        let told = std::fs::read_to_string(root.join("proc/sys/kernel/arch"));
        told.map_or_else(|_| Arch::ours(), |name| Arch::named(name.trim()))
    }

    /// As the kernel or the compiler calls it.
    fn named(name: &str) -> Arch {
        match name {
            "x86_64" => Arch::X86_64,
            "aarch64" => Arch::Aarch64,
            "ppc64le" | "powerpc64" => Arch::Ppc64le,
            "s390x" => Arch::S390x,
            _ => Arch::Other,
        }
    }
}

impl Default for Arch {
    fn default() -> Arch {
        Arch::ours()
    }
}

/// Whose values are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// RHEL, Fedora and what is made of them; any other that is not known, too.
    Rhel,
    /// SLES and openSUSE.
    Suse,
    /// Debian and what is made of it.
    Debian,
    /// Ubuntu and what is made of it.
    Ubuntu,
    /// SteamOS.
    SteamOs,
}

/// What the defaults depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The architecture.
    pub arch: Arch,
    /// Bytes of a page.
    pub page_size: u64,
    /// The distribution.
    pub distribution: Distribution,
    /// Memory is encrypted, so that devices need bounce buffers.
    pub encrypted: bool,
    /// There is a network card whose driver takes much memory.
    pub mlx5: bool,
    /// There is an IOMMU whose queues take much memory.
    pub smmu: bool,
    /// All memory.
    pub memory: u64,
}

impl Facts {
    /// Those of a machine.
    pub fn of(tree: &Tree) -> Facts {
        let line = tree.line("proc/cmdline").unwrap_or_default();
        let iommus = std::fs::read_dir(tree.path("sys/class/iommu")).into_iter().flatten().flatten();
        Facts {
            arch: Arch::of(tree.root()),
            page_size: page_size(tree),
            distribution: Distribution::of(&tree.line("etc/os-release").unwrap_or_default()),
            encrypted: line.split_whitespace().any(|word| word == "mem_encrypt=on") || says_encrypted(tree),
            mlx5: tree.path("sys/module/mlx5_core").is_dir(),
            smmu: iommus.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("smmu")),
            memory: memory(tree),
        }
    }
}

impl Distribution {
    /// Whether it is Debian or comes of it.
    pub fn is_debian(self) -> bool {
        matches!(self, Distribution::Debian | Distribution::Ubuntu)
    }

    /// Whether it is SLES or openSUSE.
    pub fn is_suse(self) -> bool {
        self == Distribution::Suse
    }

    /// By what os-release says.
    fn of(os_release: &str) -> Distribution {
        let fields = os_release.lines().filter_map(|line| line.split_once('='));
        let names: Vec<&str> = fields
            .filter(|(key, _)| matches!(*key, "ID" | "ID_LIKE"))
            .flat_map(|(_, value)| value.trim_matches(['"', '\'']).split_whitespace())
            .collect();
        let is = |wanted: &[&str]| names.iter().any(|name| wanted.contains(name) || wanted.contains(&first(name)));
        match () {
            () if is(&["steamos", "holo"]) => Distribution::SteamOs,
            () if is(&["suse", "opensuse", "sles"]) => Distribution::Suse,
            () if is(&["ubuntu"]) => Distribution::Ubuntu,
            () if is(&["debian"]) => Distribution::Debian,
            () => Distribution::Rhel,
        }
    }
}

/// `opensuse` of `opensuse-leap`.
fn first(name: &str) -> &str {
    name.split('-').next().unwrap_or(name)
}

/// `AT_PAGESZ` of this process; 4 KiB where it cannot be told.
fn page_size(tree: &Tree) -> u64 {
    const AT_PAGESZ: u64 = 6;
    let auxv = std::fs::read(tree.path("proc/self/auxv")).unwrap_or_default();
    let (pairs, _) = auxv.as_chunks::<16>();
    let pair = |bytes: &[u8; 16]| {
        let (key, value) = bytes.split_first_chunk::<8>()?;
        Some((u64::from_ne_bytes(*key), u64::from_ne_bytes(value.try_into().ok()?)))
    };
    pairs.iter().filter_map(pair).find(|(key, _)| *key == AT_PAGESZ).map_or(4096, |(_, value)| value)
}

/// Whether the kernel said at its start that it encrypts memory: on AMD's machines it may do so unasked. Only root is
/// told, and only as long as the log goes back to the start.
fn says_encrypted(tree: &Tree) -> bool {
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(tree.path("dev/kmsg"));
    let Ok(mut log) = opened else { return false };
    // Of the device, each of these is one line.
    let mut record = vec![0; RECORD];
    for _ in 0..MOST_RECORDS {
        match log.read(&mut record) {
            Ok(0) => return false,
            Ok(length) => {
                let text = String::from_utf8_lossy(record.get(..length).unwrap_or_default());
                let behind = text.split_once("Memory Encryption Features active:").map(|(_, behind)| behind);
                if behind.is_some_and(|names| names.contains("SME") || names.contains("SEV")) {
                    return true;
                }
            }
            // It was overwritten while it was read.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(_) => return false,
        }
    }
    false
}

/// All memory, what is reserved included, in bytes; 0 if that is not told.
pub(crate) fn memory(tree: &Tree) -> u64 {
    let text = tree.line("proc/meminfo").unwrap_or_default();
    let total =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    let reserved =
        ["sys/kernel/kexec_crash_size", "sys/kernel/kexec/crash_size"].iter().find_map(|file| tree.line(file));
    let reserved = reserved.and_then(|size| size.parse::<u64>().ok());
    total.map_or(0, |total| total.saturating_mul(1024).saturating_add(reserved.unwrap_or(0)))
}

/// What `crashkernel=` is by default.
///
/// # Errors
/// There is no such way of dumping on that machine.
pub fn default_value(facts: &Facts, way: Way) -> anyhow::Result<Crashkernel> {
    if way == Way::Fadump && facts.arch != Arch::Ppc64le {
        bail!("fadump is a matter of POWER machines (ppc64le) alone; ask for kdump");
    }
    let ranges = |text: &str| text.parse::<Crashkernel>();
    match (facts.distribution, facts.arch, way) {
        (Distribution::Debian, _, Way::Kdump) => ranges("384M-:128M"),
        (Distribution::Ubuntu, _, Way::Kdump) => {
            ranges("2G-4G:320M,4G-32G:512M,32G-64G:1024M,64G-128G:2048M,128G-:4096M")
        }
        (Distribution::SteamOs, _, Way::Kdump) => ranges("192M"),
        (Distribution::Suse, Arch::X86_64, Way::Kdump) if facts.memory > 4 * GIB => {
            ranges("192M,high crashkernel=72M,low")
        }
        (Distribution::Suse, Arch::Ppc64le, Way::Kdump) => ranges("384M"),
        (Distribution::Suse, _, Way::Kdump) => ranges("192M"),
        (_, Arch::Ppc64le, Way::Fadump) => ranges(
            "4G-16G:768M,16G-64G:1G,64G-128G:2G,128G-1T:4G,1T-2T:6G,2T-4T:12G,4T-8T:20G,8T-16T:36G,16T-32T:64G,\
             32T-64T:128G,64T-:180G",
        ),
        (_, Arch::Ppc64le, Way::Kdump) => {
            // 16 processors, 1 MiB for each.
            Ok(raised(ranges("2G-4G:384M,4G-16G:512M,16G-64G:1G,64G-128G:2G,128G-:4G")?, 16 * MIB))
        }
        (_, Arch::Aarch64, _) => {
            let large = facts.page_size >= 64 * 1024;
            let base = match large {
                true => "2G-4G:356M,4G-64G:420M,64G-:676M",
                false => "2G-4G:256M,4G-64G:320M,64G-:576M",
            };
            let card = if large { 200 * MIB } else { 150 * MIB };
            let more = if facts.mlx5 { card } else { 0 } + if facts.smmu && large { 384 * MIB } else { 0 };
            Ok(raised(ranges(base)?, more))
        }
        _ => Ok(raised(ranges("2G-64G:256M,64G-:512M")?, if facts.encrypted { 64 * MIB } else { 0 })),
    }
}

/// The same with more for every machine that reserves something.
fn raised(value: Crashkernel, more: u64) -> Crashkernel {
    let raise = |size: u64| if size == 0 { 0 } else { size.saturating_add(more) };
    let words = value.words.into_iter().map(|word| match word {
        Value::Ranges { ranges, at } => {
            let ranges = ranges.into_iter().map(|range| Range { size: raise(range.size), ..range }).collect();
            Value::Ranges { ranges, at }
        }
        Value::Size { size, at } => Value::Size { size: raise(size), at },
        other => other,
    });
    Crashkernel { words: words.collect() }
}

impl std::fmt::Display for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}, {:?}, pages of {}", self.distribution, self.arch, Bytes(self.page_size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Facts = Facts {
        arch: Arch::X86_64,
        page_size: 4096,
        distribution: Distribution::Rhel,
        encrypted: false,
        mlx5: false,
        smmu: false,
        memory: 8 << 30,
    };

    #[test]
    fn each_distribution_and_architecture_has_its_default() {
        let (suse, debian) = (Distribution::Suse, Distribution::Debian);
        for (facts, expected) in [
            (PLAIN, "2G-64G:256M,64G-:512M"),
            (Facts { encrypted: true, ..PLAIN }, "2G-64G:320M,64G-:576M"),
            (Facts { arch: Arch::S390x, ..PLAIN }, "2G-64G:256M,64G-:512M"),
            (Facts { arch: Arch::Aarch64, ..PLAIN }, "2G-4G:256M,4G-64G:320M,64G-:576M"),
            (Facts { arch: Arch::Aarch64, mlx5: true, smmu: true, ..PLAIN }, "2G-4G:406M,4G-64G:470M,64G-:726M"),
            (Facts { arch: Arch::Aarch64, page_size: 65536, smmu: true, ..PLAIN }, "2G-4G:740M,4G-64G:804M,64G-:1060M"),
            (
                Facts { arch: Arch::Ppc64le, page_size: 65536, ..PLAIN },
                "2G-4G:400M,4G-16G:528M,16G-64G:1040M,64G-128G:2064M,128G-:4112M",
            ),
            (Facts { distribution: debian, ..PLAIN }, "384M-:128M"),
            (
                Facts { distribution: Distribution::Ubuntu, ..PLAIN },
                "2G-4G:320M,4G-32G:512M,32G-64G:1G,64G-128G:2G,128G-:4G",
            ),
            (Facts { distribution: suse, ..PLAIN }, "192M,high crashkernel=72M,low"),
            (Facts { distribution: suse, memory: 2 << 30, ..PLAIN }, "192M"),
            (Facts { distribution: Distribution::SteamOs, ..PLAIN }, "192M"),
        ] {
            assert_eq!(default_value(&facts, Way::Kdump).unwrap().to_string(), expected, "{facts}");
        }
    }

    #[test]
    fn memory_that_the_kernel_encrypts_unasked_counts() {
        for (line, expected) in [
            ("6,1,2,-;Memory Encryption Features active: AMD SEV SEV-ES\n", true),
            ("6,1,2,-;AMD Memory Encryption Features active: SME\n", true),
            ("6,1,2,-;Memory Encryption Features active: Intel TDX\n", false),
            ("6,1,2,-;SME is not there\n", false),
        ] {
            let (_dir, tree) = crate::fake::tree(&[("dev/kmsg", line)]).unwrap();
            assert_eq!(Facts::of(&tree).encrypted, expected, "{line}");
        }
    }

    #[test]
    fn fadump_is_for_power_alone() {
        assert!(default_value(&PLAIN, Way::Fadump).unwrap_err().to_string().contains("POWER machines"));
        let power = Facts { arch: Arch::Ppc64le, ..PLAIN };
        assert_eq!(default_value(&power, Way::Fadump).unwrap().reserves(256 << 30), Some(4 << 30));
    }

    #[test]
    fn the_distribution_is_told_by_os_release() {
        for (text, expected) in [
            ("ID=debian\n", Distribution::Debian),
            ("NAME=x\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", Distribution::Ubuntu),
            ("ID=ubuntu\nID_LIKE=debian\n", Distribution::Ubuntu),
            ("ID=raspbian\nID_LIKE=debian\n", Distribution::Debian),
            ("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"", Distribution::Suse),
            ("ID=steamos\nID_LIKE=arch", Distribution::SteamOs),
            ("ID=\"rhel\"\nID_LIKE=\"fedora\"", Distribution::Rhel),
            ("", Distribution::Rhel),
        ] {
            assert_eq!(Distribution::of(text), expected, "{text}");
        }
    }
}
