//! Fills memory with every kind of page that a dump level can leave out, and keeps it so until the crash.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::num::NonZeroUsize;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use qemu_tests::sys::{Memory, map_memory};

const MIB: usize = 1 << 20;
const HUGE_PAGE: usize = 2 * MIB;

/// Takes `load` MiB of each kind of user memory and page cache, and `huge` pages of the hugetlb pool; returns MiB taken.
pub(crate) fn memory(load: usize, huge: usize) -> Result<usize> {
    reserve_huge_pages(huge)?;
    let _ = fs::write("/sys/kernel/mm/transparent_hugepage/enabled", "always");
    let kinds = [
        (Memory::Anonymous, load * MIB),
        (Memory::Transparent, load * MIB),
        (Memory::Shared, load * MIB),
        (Memory::HugeTlb, huge / 2 * HUGE_PAGE),
    ];
    let mut taken = 0;
    for (seed, (kind, bytes)) in (1..).zip(kinds) {
        if let Some(bytes) = NonZeroUsize::new(bytes) {
            scribble(map_memory(kind, bytes)?, seed);
            taken += bytes.get();
        }
    }
    zero_file("/tmp", load * MIB)?;
    // Through a file system and through the block device: cache pages without and with buffers attached.
    read_into_cache("/usr/sbin", load * MIB)?;
    read_file("/dev/vda", load * MIB)?;
    Ok((taken + 3 * load * MIB) / MIB)
}

/// Lets `page-kinds` do it, and says what it says; returns MiB taken.
pub(crate) fn with_every_kind(gigantic: usize, balloon: usize) -> Result<usize> {
    let mut command = Command::new("/usr/libexec/page-kinds");
    command.args([gigantic.to_string(), balloon.to_string()]).stdout(Stdio::piped());
    let mut child = command.spawn().context("unable to run page-kinds")?;
    let said = child.stdout.take().context("page-kinds has no standard output")?;
    for line in BufReader::new(said).lines() {
        match line?.as_str() {
            "ready" => return used_mib(),
            said => crate::say(said),
        }
    }
    bail!("page-kinds ended with {}", child.wait()?)
}

fn used_mib() -> Result<usize> {
    let text = fs::read_to_string("/proc/meminfo").context("unable to read /proc/meminfo")?;
    let kib = |key| text.lines().find_map(|line: &str| line.strip_prefix(key)?.split_whitespace().nth(1)?.parse().ok());
    let (total, free): (usize, usize) =
        kib("MemTotal").zip(kib("MemFree")).context("/proc/meminfo lacks MemTotal or MemFree")?;
    Ok((total - free) / 1024)
}

/// Half of the pool is used later; free huge pages are a kind of their own.
fn reserve_huge_pages(count: usize) -> Result<()> {
    fs::write("/proc/sys/vm/nr_hugepages", count.to_string()).context("unable to reserve huge pages")
}

/// Every other page a pattern that compresses, the rest a cheap random sequence that hardly does.
fn scribble(memory: &mut [u8], seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for (number, page) in memory.chunks_mut(4096).enumerate() {
        for word in page.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let value = if number % 2 == 0 { *b"kdump-rs" } else { state.to_le_bytes() };
            word.copy_from_slice(&value);
        }
    }
}

fn zero_file(folder: &str, bytes: usize) -> Result<()> {
    fs::create_dir_all(folder)?;
    mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), None::<&str>).context("unable to mount a tmpfs")?;
    let mut file = File::create(format!("{folder}/zeros")).context("unable to make a file of zeros")?;
    for _ in 0..bytes / MIB {
        file.write_all(&[0; MIB])?;
    }
    Ok(())
}

fn read_into_cache(folder: &str, limit: usize) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("unable to list {folder}"))? {
        let path = entry?.path();
        if path.is_file() {
            read_file(&path.to_string_lossy(), limit)?;
        }
    }
    Ok(())
}

fn read_file(path: &str, limit: usize) -> Result<()> {
    let mut file = File::open(path).with_context(|| format!("unable to open {path}"))?.take(limit as u64);
    std::io::copy(&mut file, &mut std::io::sink()).with_context(|| format!("unable to read {path}"))?;
    Ok(())
}
