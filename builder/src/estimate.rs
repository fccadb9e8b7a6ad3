//! How much memory a capture kernel takes, and what to reserve for it.
//!
//! In: the kernel, what the image weighs, and the memory of the machine. Out: [`Estimate`], a sum of parts each of which
//! can be explained. May surprise: memory is short at two moments, and the worse of them counts: while the image is
//! unpacked, and it lies in memory both ways, and while the dump is written, with all that the collector may take. So it
//! is more than `least-crashkernel` finds for Debian's 6.1 cloud kernel (72M to a disk, 76M over NFS).

use crate::build::Built;
use crate::cpio::read::Archive;
use crate::crashkernel;
use crate::host::{SystemHost, Tree, luks, stack, sysfs};
use crate::kexec::segments::BzImage;
use anyhow::Context;
use kdump_hooks::DeviceSpec;
use kdump_hooks::kernel_image::unified;
use kdump_hooks::storage::{Crypt, Key, Layer};
use kdump_init::config::ImageConfig;
use serde::Serialize;
use std::fmt;
use std::fs;
use std::path::Path;

const MIB: u64 = 1 << 20;

/// What a kernel takes besides what it asks for to unpack itself, which it gives back and uses for page tables, caches and
/// drivers. Measured in a rehearsal with 128 MiB: of Debian's 6.1 cloud kernel, which asks for 51.5 MiB, and 9 MiB of
/// unpacked image, 65.4 MiB were left, so that it took 2 MiB more than that. Machines have more devices.
const KERNEL_BESIDES: u64 = 8 * MIB;
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
/// What a packed module takes once it is loaded, as often as its file.
const LOADED: u64 = 3;
/// The name of every module's file has it; of one that is not packed it is the end.
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
        let work = self.collector.max(self.luks);
        let dump = [self.kernel, self.kernel_besides, self.unpacked, self.modules, self.network, work];
        let total = |parts: &[u64]| parts.iter().fold(0u64, |sum, part| sum.saturating_add(*part));
        total(&start).max(total(&dump))
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

/// `80M`, as `crashkernel=` takes it.
impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}M", self.recommended() / MIB)
    }
}

/// What an image weighs, be it planned or on disk.
struct Weight {
    image: u64,
    unpacked: u64,
    modules: u64,
}

/// The estimate for a plan; the size of its image is still to be put in. `kernel` is the file of the kernel, if it is here.
pub fn of_plan(built: &Built, kernel: Option<&Path>, host: &SystemHost) -> Estimate {
    let modules = built.modules.iter().map(|module| loaded(&module.path, module.size)).sum();
    let weight = Weight { image: 0, unpacked: built.plan.unpacked_size(), modules };
    let kernel = kernel.and_then(|path| kernel_size(path).ok()).unwrap_or(KERNEL);
    estimate(&host.tree, &built.config, kernel, weight)
}

/// The estimate for a kernel and image on disk.
///
/// # Errors
/// One of the files cannot be read.
pub fn for_image(tree: &Tree, config: &ImageConfig, kernel: &Path, image: &Path) -> anyhow::Result<Estimate> {
    let kernel = kernel_size(kernel).with_context(|| format!("cannot read the kernel {}", kernel.display()))?;
    let what = || format!("cannot read the image {}", image.display());
    let bytes = fs::read(image).with_context(what)?;
    let archive = Archive::read_with(&bytes, &|_| false).with_context(what)?;
    let mut weight = Weight { image: bytes.len() as u64, unpacked: 0, modules: 0 };
    for (path, entry) in archive.files() {
        let size = archive.size(entry);
        weight.unpacked += size.next_multiple_of(4096);
        weight.modules += loaded(&path, size);
    }
    Ok(estimate(tree, config, kernel, weight))
}

fn estimate(tree: &Tree, config: &ImageConfig, kernel: u64, weight: Weight) -> Estimate {
    let memory = crashkernel::memory(tree);
    Estimate {
        kernel,
        kernel_besides: KERNEL_BESIDES,
        image: weight.image,
        unpacked: weight.unpacked,
        modules: weight.modules,
        collector: COLLECTOR + memory.div_ceil(1 << 40).saturating_sub(1) * COLLECTOR_PER_TIB,
        network: if config.hooks.network.is_some() { NETWORK } else { 0 },
        luks: luks_memory(tree, config),
    }
}

/// What a file of the image takes as a module that is loaded; nothing, if it is none.
fn loaded(path: &str, size: u64) -> u64 {
    match path.rsplit_once(MODULE) {
        Some((_, "")) => size,
        Some((_, suffix)) if suffix.starts_with('.') => size.saturating_mul(LOADED),
        _ => 0,
    }
}

/// What a kernel takes until it runs: a bzImage says so, any other is taken for three times its file, and no less than one
/// of which nothing is known.
fn kernel_size(path: &Path) -> anyhow::Result<u64> {
    let file = fs::read(path)?;
    let kernel = unified::kernel(&file).unwrap_or(&file);
    Ok(BzImage::parse(kernel).map_or_else(|_| KERNEL.max(3 * kernel.len() as u64), |kernel| kernel.size))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_reserve_is_the_sum_with_something_to_spare_in_whole_steps() {
        let small = Estimate { kernel: 30 * MIB, image: 3 * MIB, collector: COLLECTOR, ..Estimate::default() };
        assert_eq!(small.sum(), 54 * MIB);
        assert_eq!((small.recommended(), small.to_string().as_str()), (64 * MIB, "64M"));
        assert_eq!(Estimate { image: 30 * MIB, ..small.clone() }.sum(), 60 * MIB);
        assert_eq!(small.calibrated(16 << 30).high, 64);
        assert_eq!((small.calibrated(16 << 30).low, small.calibrated(16 << 30).max_high), (72, 12 << 10));
        assert_eq!((small.calibrated(1 << 30).low, small.calibrated(1 << 30).high), (64, 0));
        let large = Estimate { luks: 1 << 30, ..small };
        assert_eq!(large.recommended() % STEP, 0);
        assert!(large.recommended() > large.sum() + large.sum() / 17);
    }

    #[test]
    fn packed_modules_take_more_than_their_files() {
        assert_eq!(["a/b.ko", "a/b.ko.xz", "a/b.kot", "init"].map(|path| loaded(path, 10)), [10, 30, 0, 0]);
    }
}
