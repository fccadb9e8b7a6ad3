//! Real sources that are kept: a kernel is crashed once, and its whole memory serves many tests.
//!
//! In: what the memory shall hold. Out: the raw vmcore, and what the crashed kernel itself had said of its pages.
//!
//! ```text
//!  crash(Scenario { keep_raw }) ─▶ target/qemu/sources/NAME-KEY/{raw, console.log}   made once, again when KEY changes
//! ```
//!
//! Surprising: KEY is made of the kernel, the machine and the programs that fill memory, not of the collector: what a
//! test judges never decides what it is judged against.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::crash::crash;
use crate::folders;
use crate::provision::{Suite, kernel};
use crate::scenario::{Filling, Scenario};

/// A kept source.
#[derive(Clone, Debug)]
pub struct Source {
    /// The release of the kernel that crashed.
    pub release: String,
    /// The whole `/proc/vmcore`.
    pub raw: PathBuf,
    /// Pages by kind, and other counts, as the kernel told them before it crashed; empty if it was not asked.
    pub census: BTreeMap<String, u64>,
    /// Tails of the kernel's own compound pages that were marked as broken.
    pub poisoned_tails: Vec<u64>,
}

/// 960 MiB on two NUMA nodes, 256 of it above 4 GiB, with every kind of page that `page-kinds` can make. A capture kernel
/// which learns from the firmware that there is memory above 4 GiB takes 64 MiB of its own for bounce buffers; and
/// wherever the first kernel puts itself, the part below 4 GiB must have room for it.
pub fn every_kind(suite: Suite) -> Result<Source> {
    let nodes = ["near", "far"].map(|name| format!("memory-backend-ram,id={name},size=480M"));
    let words = [
        ["-machine", "max-ram-below-4g=704M"],
        ["-object", &nodes[0]],
        ["-object", &nodes[1]],
        ["-numa", "node,nodeid=0,cpus=0,memdev=near"],
        ["-numa", "node,nodeid=1,cpus=1,memdev=far"],
    ];
    kept("every-kind", suite, |scenario| Scenario {
        memory_mib: 960,
        crashkernel_mib: 192,
        qemu: words.concat().into_iter().map(String::from).collect(),
        devices: vec!["virtio-balloon-pci".into()],
        filling: Filling::EveryKind { balloon_mib: 32, gigantic: 0 },
        ..scenario
    })
}

/// As [`every_kind`], with huge pages of 1 GiB, one in use and one free.
pub fn gigantic(suite: Suite) -> Result<Source> {
    kept("gigantic", suite, |scenario| Scenario {
        memory_mib: 5120,
        crashkernel_mib: 192,
        devices: vec!["virtio-balloon-pci".into()],
        filling: Filling::EveryKind { balloon_mib: 32, gigantic: 2 },
        ..scenario
    })
}

/// 3 GiB with every kind of page: what collectors are timed on.
pub fn large(suite: Suite) -> Result<Source> {
    kept("large", suite, |scenario| Scenario {
        memory_mib: 3072,
        crashkernel_mib: 192,
        devices: vec!["virtio-balloon-pci".into()],
        filling: Filling::EveryKind { balloon_mib: 32, gigantic: 0 },
        ..scenario
    })
}

/// The smallest guest that crashes and is captured.
pub fn small(suite: Suite) -> Result<Source> {
    kept("small", suite, |scenario| Scenario {
        memory_mib: 320,
        crashkernel_mib: 128,
        filling: Filling::Little,
        ..scenario
    })
}

fn kept(name: &str, suite: Suite, different: impl Fn(Scenario) -> Scenario) -> Result<Source> {
    let kernel = kernel(suite)?;
    let release = kernel.release.clone();
    let name = format!("{name}-{release}");
    let scenario = different(Scenario { keep_raw: true, ..Scenario::of(kernel, &format!("source-{name}")) });
    let folder = folders::qemu().join("sources").join(format!("{name}-{}", key(&scenario)));
    folders::made_once(&folder, &format!("a raw vmcore: {name}"), |folder| {
        let outcome = crash(&scenario)?;
        let raw = outcome.raw.as_deref().context("the scenario did not keep its source")?;
        fs::rename(raw, folder.join("raw")).context("unable to keep the raw vmcore")?;
        fs::write(folder.join("console.log"), &outcome.console).context("unable to keep the console")?;
        fs::remove_dir_all(&outcome.folder).context("unable to clear the run's folder")
    })?;
    remove_others(&folder, &name)?;
    let console = fs::read_to_string(folder.join("console.log")).context("the source's console is missing")?;
    Ok(Source { release, raw: folder.join("raw"), census: census(&console), poisoned_tails: poisoned_tails(&console)? })
}

/// What fills memory and keeps it.
const FILLERS: [&str; 6] = [
    include_str!("bin/guest-init/main.rs"),
    include_str!("bin/guest-init/fill.rs"),
    include_str!("bin/guest-init/prepare.rs"),
    include_str!("bin/page-kinds.rs"),
    include_str!("bin/keep-raw.rs"),
    include_str!("sys.rs"),
];

/// What decides the content of memory, in few characters.
fn key(scenario: &Scenario) -> String {
    let mut hash = Sha256::new();
    let Scenario { memory_mib, crashkernel_mib, devices, qemu, filling, page_tables, .. } = scenario;
    hash.update(format!("{memory_mib} {crashkernel_mib} {devices:?} {qemu:?} {filling:?} {page_tables:?}"));
    FILLERS.iter().for_each(|text| hash.update(text));
    hash.finalize().iter().take(5).map(|byte| format!("{byte:02x}")).collect()
}

/// Sources of that name made by earlier programs.
fn remove_others(folder: &Path, name: &str) -> Result<()> {
    for entry in fs::read_dir(folder.parent().unwrap_or(folder))? {
        let path = entry?.path();
        let is_source = path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name));
        if is_source && path != folder {
            fs::remove_dir_all(&path).with_context(|| format!("unable to remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn census(console: &str) -> BTreeMap<String, u64> {
    let pairs = crate::console::said(console, "GUEST: census ")
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|word| word.split_once('='));
    pairs.filter_map(|(kind, count)| Some((kind.to_owned(), count.parse().ok()?))).collect()
}

fn poisoned_tails(console: &str) -> Result<Vec<u64>> {
    let pfns = console.lines().filter_map(|line| line.split_once("GUEST: poisoned-tail 0x"));
    // One that a record of the kernel's came into follows as a whole.
    let whole = pfns.map(|(_, pfn)| pfn).filter(|pfn| !pfn.contains('['));
    whole.map(|pfn| u64::from_str_radix(pfn.trim(), 16).context("a broken pfn on the console")).collect()
}

impl Source {
    /// Fails unless the kernel had pages of each of these kinds.
    pub fn expect_kinds(&self, kinds: &[&str]) -> Result<()> {
        for kind in kinds {
            let count = self.census.get(*kind).copied().unwrap_or_default();
            ensure!(count > 0, "{} has no {kind}: {:?}", self.raw.display(), self.census);
        }
        Ok(())
    }
}
