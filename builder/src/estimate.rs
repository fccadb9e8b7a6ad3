//! How much memory a capture kernel takes, and what to reserve for it.
//!
//! In: the kernel, what the image weighs, and the memory of the machine. Out: [`Estimate`], a sum of parts each of which
//! can be explained. May surprise: memory is short at two moments, and the worse of them counts: while the image is
//! unpacked, and it lies in memory both ways, and while the dump is written, when the kernel has given back what only its
//! start took. Held against what `least-crashkernel` finds for Debian's 6.1 cloud kernel (72M to a disk, 76M over NFS),
//! it comes to a fifth to a third more.

use crate::build::Built;
use crate::host::{SystemHost, Tree};
use kdump_hooks::storage::{Crypt, Key, Layer};
use serde::Serialize;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

const MIB: u64 = 1 << 20;

/// What a kernel takes besides its own code and data before the image is unpacked: page tables, caches, drivers, and the
/// struct pages of what is reserved.
const KERNEL_BESIDES: u64 = 10 * MIB;
/// A kernel whose file says nothing of it.
const KERNEL: u64 = 64 * MIB;
/// The collector's budget, and what more it has for each TiB of the machine.
const COLLECTOR: u64 = 24 * MIB;
const COLLECTOR_PER_TIB: u64 = 32 * MIB;
/// What a network brings along: buffers of cards and sockets.
const NETWORK: u64 = 8 * MIB;
/// What is reserved beyond the sum, for what nobody has measured: this part of it, and at least so much.
const SPARE_PART: u64 = 16;
const SPARE_LEAST: u64 = 4 * MIB;
/// What is reserved is a multiple of it.
const STEP: u64 = 8 * MIB;
/// The part of a kernel that it does not give back once it has started.
const LASTS: (u64, u64) = (2, 3);
/// Modules are loaded out of their files into memory of their own, unpacked and with what the kernel adds.
const LOADED: u64 = 3;

/// What takes memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// The kernel, until it has unpacked itself.
    pub kernel: u64,
    /// What it takes besides.
    pub kernel_besides: u64,
    /// The image as it is loaded.
    pub image: u64,
    /// What is unpacked of it.
    pub unpacked: u64,
    /// The modules once they are loaded.
    pub modules: u64,
    /// The collector's budget.
    pub collector: u64,
    /// The network.
    pub network: u64,
    /// Opening encrypted volumes.
    pub luks: u64,
}

impl Estimate {
    /// The parts, each in words.
    pub fn parts(&self) -> [(&'static str, u64); 8] {
        [
            ("kernel", self.kernel),
            ("what the kernel allocates", self.kernel_besides),
            ("image", self.image),
            ("image, unpacked", self.unpacked),
            ("modules, loaded", self.modules),
            ("collector", self.collector),
            ("network", self.network),
            ("encrypted volumes", self.luks),
        ]
    }

    /// The most that is in use at one moment.
    pub fn sum(&self) -> u64 {
        let start = [self.kernel, self.kernel_besides, self.image, self.unpacked];
        let kernel = self.kernel / LASTS.1 * LASTS.0;
        let work = self.collector.max(self.luks);
        let dump = [kernel, self.kernel_besides, self.unpacked, self.modules, self.network, work];
        let total = |parts: &[u64]| parts.iter().fold(0u64, |sum, part| sum.saturating_add(*part));
        total(&start).max(total(&dump))
    }

    /// What to reserve.
    pub fn recommended(&self) -> u64 {
        let sum = self.sum();
        sum.saturating_add((sum / SPARE_PART).max(SPARE_LEAST)).next_multiple_of(STEP)
    }
}

/// `80M`, as `crashkernel=` takes it.
impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}M", self.recommended() / MIB)
    }
}

/// The estimate for a plan whose image has that many bytes. `kernel` is the file of the kernel, if it is here.
pub fn of_plan(built: &Built, image: u64, kernel: Option<&Path>, host: &SystemHost) -> Estimate {
    let modules = built.modules.iter().map(|module| module.size).sum::<u64>();
    let storage = &built.config.hooks.storage;
    let opened = |layer: &&Layer| matches!(layer, Layer::Crypt(Crypt { key: Key::File { .. }, .. }));
    Estimate {
        kernel: kernel.and_then(kernel_size).unwrap_or(KERNEL),
        kernel_besides: KERNEL_BESIDES,
        image,
        unpacked: built.plan.unpacked_size(),
        modules: modules.saturating_mul(LOADED),
        collector: COLLECTOR + memory(&host.tree).div_ceil(1 << 40).saturating_sub(1) * COLLECTOR_PER_TIB,
        network: if built.config.hooks.network.is_some() { NETWORK } else { 0 },
        luks: storage.iter().filter(opened).map(|layer| host.memory_of(layer)).max().unwrap_or(0),
    }
}

/// What a kernel takes until it runs: of a bzImage that is in its head, any other is taken for three times its file.
fn kernel_size(path: &Path) -> Option<u64> {
    let mut head = Vec::new();
    let file = File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    file.take(0x264).read_to_end(&mut head).ok()?;
    match (head.get(0x202..0x206)?, head.get(0x260..0x264)?.first_chunk::<4>()) {
        (b"HdrS", Some(size)) => Some(u32::from_le_bytes(*size).into()),
        _ => Some(3 * size),
    }
}

/// All memory of the machine, in bytes.
fn memory(tree: &Tree) -> u64 {
    let meminfo = tree.line("proc/meminfo").unwrap_or_default();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    total.and_then(|total| total.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_reserve_is_the_sum_with_something_to_spare_in_whole_steps() {
        let small = Estimate { kernel: 30 * MIB, image: 3 * MIB, collector: COLLECTOR, ..Estimate::default() };
        assert_eq!(small.sum(), 44 * MIB);
        assert_eq!((small.recommended(), small.to_string().as_str()), (48 * MIB, "48M"));
        assert_eq!(Estimate { image: 30 * MIB, ..small.clone() }.sum(), 60 * MIB);
        let large = Estimate { luks: 1 << 30, ..small };
        assert_eq!(large.recommended() % STEP, 0);
        assert!(large.recommended() > large.sum() + large.sum() / 17);
    }

    #[test]
    fn a_bzimage_says_itself_what_it_takes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut head = vec![0; 0x300];
        std::fs::write(file.path(), &head).unwrap();
        assert_eq!(kernel_size(file.path()), Some(3 * 0x300));
        head[0x202..0x206].copy_from_slice(b"HdrS");
        head[0x260..0x264].copy_from_slice(&(40u32 << 20).to_le_bytes());
        std::fs::write(file.path(), &head).unwrap();
        assert_eq!(kernel_size(file.path()), Some(40 * MIB));
    }
}
