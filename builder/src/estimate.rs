//! How much memory a capture kernel takes, and what to reserve for it.
//!
//! In: the kernel and the image that will be loaded, and the memory of the machine. Out: [`Estimate`], a sum of parts each
//! of which can be explained. May surprise: the image counts twice, since for a moment it lies in memory both packed and
//! unpacked; what the collector takes grows with the machine.

use crate::cpio::read::Archive;
use crate::crashkernel::Bytes;
use crate::host::{Tree, luks, stack, sysfs};
use crate::kexec::segments::BzImage;
use anyhow::Context;
use kdump_hooks::DeviceSpec;
use kdump_hooks::storage::{Crypt, Key, Layer};
use kdump_init::config::ImageConfig;
use serde::Serialize;
use std::fs;
use std::path::Path;

const MIB: u64 = 1 << 20;

/// What a kernel takes besides what it asks for to unpack itself, which it gives back and uses for page tables, caches and
/// drivers. Measured in a rehearsal with 128 MiB: of Debian's 6.1 cloud kernel, which asks for 51.5 MiB, and 9 MiB of
/// unpacked image, 65.4 MiB were left, so that it took 2 MiB more than that. Machines have more devices.
const KERNEL_BESIDES: u64 = 8 * MIB;
/// What the collector is allowed, and what more for each TiB of the machine.
const COLLECTOR: u64 = 24 * MIB;
const COLLECTOR_PER_TIB: u64 = 32 * MIB;
/// What a network brings along: buffers of cards and sockets.
const NETWORK: u64 = 16 * MIB;
/// What is reserved beyond the sum, for what nobody has measured: this part of it, and at least so much.
const SPARE_PART: u64 = 8;
const SPARE_LEAST: u64 = 8 * MIB;
/// What is reserved is a multiple of it.
const STEP: u64 = 16 * MIB;
/// The name of every module's file has it.
const MODULE: &str = ".ko";

/// What takes memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// What the kernel asks for to unpack itself.
    pub kernel: u64,
    /// What it takes besides.
    pub kernel_besides: u64,
    /// The image as it is loaded.
    pub image: u64,
    /// What is unpacked of it.
    pub unpacked: u64,
    /// The modules in it, as they are packed there.
    pub modules: u64,
    /// The collector's budget.
    pub collector: u64,
    /// The network.
    pub network: u64,
    /// Opening encrypted volumes.
    pub luks: u64,
}

impl Estimate {
    /// All of it together.
    pub fn sum(&self) -> u64 {
        // Modules are part of what is unpacked; loaded, they take as much again.
        let parts = [
            self.kernel,
            self.kernel_besides,
            self.image,
            self.unpacked,
            self.modules,
            self.collector,
            self.network,
            self.luks,
        ];
        parts.iter().fold(0, |sum, part| sum.saturating_add(*part))
    }

    /// What to reserve.
    pub fn recommended(&self) -> u64 {
        let sum = self.sum();
        sum.saturating_add((sum / SPARE_PART).max(SPARE_LEAST)).next_multiple_of(STEP)
    }
}

/// The figures of SUSE's `kdumptool calibrate`, in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Calibrated {
    /// All memory.
    pub total: u64,
    /// What to reserve below 4 GiB.
    pub low: u64,
    /// What to reserve above.
    pub high: u64,
    /// The least and the most that makes sense below.
    pub min_low: u64,
    /// See `min_low`.
    pub max_low: u64,
    /// The least and the most that makes sense above.
    pub min_high: u64,
    /// See `min_high`.
    pub max_high: u64,
}

impl Estimate {
    /// The same in SUSE's terms, on a machine with so much memory. Above 4 GiB all but what devices need goes up there.
    pub fn calibrated(&self, memory: u64) -> Calibrated {
        const LOW: u64 = 72;
        let (total, need) = (memory / MIB, self.recommended() / MIB);
        let below = total.min(4096);
        match memory > 4 << 30 {
            true => {
                let max_high = total - below;
                Calibrated {
                    total,
                    low: LOW,
                    high: need.min(max_high),
                    min_low: LOW,
                    max_low: below,
                    min_high: 0,
                    max_high,
                }
            }
            false => Calibrated {
                total,
                low: need.min(total),
                high: 0,
                min_low: LOW.min(total),
                max_low: below,
                min_high: 0,
                max_high: 0,
            },
        }
    }
}

/// The estimate for a kernel and image on disk.
///
/// # Errors
/// One of the files cannot be read.
pub fn for_image(tree: &Tree, config: &ImageConfig, kernel: &Path, image: &Path) -> anyhow::Result<Estimate> {
    let kernel = fs::read(kernel).with_context(|| format!("cannot read the kernel {}", kernel.display()))?;
    // Any other kernel is taken for as large as three times its file.
    let kernel = BzImage::parse(&kernel).map_or_else(|_| 3 * kernel.len() as u64, |kernel| kernel.size);
    let bytes = fs::read(image).with_context(|| format!("cannot read the image {}", image.display()))?;
    let archive = Archive::read(&bytes).with_context(|| format!("cannot read the image {}", image.display()))?;
    let (mut unpacked, mut modules) = (0, 0);
    for (path, entry) in archive.files() {
        let size = archive.data(entry).len() as u64;
        unpacked += size.next_multiple_of(4096);
        modules += if path.contains(MODULE) { size } else { 0 };
    }
    let memory = crate::crashkernel::memory(tree);
    let needs_network = config.hooks.network.is_some();
    Ok(Estimate {
        kernel,
        kernel_besides: KERNEL_BESIDES,
        image: bytes.len() as u64,
        unpacked,
        modules,
        collector: COLLECTOR + memory.div_ceil(1 << 40).saturating_sub(1) * COLLECTOR_PER_TIB,
        network: if needs_network { NETWORK } else { 0 },
        luks: luks_memory(tree, config),
    })
}

/// The most that opening one of the volumes takes; the kernel hands over keys that need no opening.
fn luks_memory(tree: &Tree, config: &ImageConfig) -> u64 {
    let opened = |layer: &Layer| match layer {
        Layer::Crypt(Crypt { name, key: Key::File { .. }, .. }) => Some(name.clone()),
        _ => None,
    };
    let names = config.hooks.storage.iter().filter_map(opened);
    let volumes = names.flat_map(|name| {
        let device = DeviceSpec::Path(Path::new("/dev/mapper").join(name));
        sysfs::block_names(tree, &device).iter().flat_map(|name| stack::below(tree, name)).collect::<Vec<_>>()
    });
    let nodes = volumes.map(|name| tree.path("dev").join(name));
    nodes.filter_map(|node| luks::memory(&node)).max().unwrap_or(0).saturating_mul(1024)
}

/// `image 3.2M`.
impl std::fmt::Display for Estimate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", Bytes(self.recommended()), Bytes(self.sum()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_reserve_is_the_sum_with_something_to_spare_in_whole_steps() {
        let small = Estimate { kernel: 30 * MIB, image: 3 * MIB, collector: COLLECTOR, ..Estimate::default() };
        assert_eq!(small.sum(), 57 * MIB);
        assert_eq!(small.recommended(), 80 * MIB);
        assert_eq!(small.calibrated(16 << 30).high, 80);
        assert_eq!((small.calibrated(16 << 30).low, small.calibrated(16 << 30).max_high), (72, 12 << 10));
        assert_eq!((small.calibrated(1 << 30).low, small.calibrated(1 << 30).high), (80, 0));
        let large = Estimate { luks: 1 << 30, ..small };
        assert_eq!(large.recommended() % STEP, 0);
        assert!(large.recommended() > large.sum() + large.sum() / 9);
    }
}
