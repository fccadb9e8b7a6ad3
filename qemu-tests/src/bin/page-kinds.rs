//! `page-kinds GIGANTIC BALLOON`: takes every kind of page that a dump filter tells apart, proves it, and holds them for ever.
//!
//! GIGANTIC is how many huge pages of 1 GiB the kernel was told to reserve; one of them is used. BALLOON is
//! how many pages the machine will take by the balloon. Out: lines for the
//! console; `waiting for the balloon` when the machine is to inflate it; a last line of counts, `census KIND=PAGES …`, as
//! the kernel itself tells them in /proc/kpageflags; then `ready`.
//!
//! Surprising: a page that is poisoned inside a transparent huge page is split off it. A poisoned tail of a compound page
//! that stays one is made of the kernel's own memory, which it refuses to give up, but marks all the same.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use qemu_tests::sys::{Memory, map_memory};

const MIB: usize = 1 << 20;
const PAGE: u64 = 4096;
const LIMIT: Duration = Duration::from_secs(60);
/// Of each kind of user memory.
const LOAD: usize = 16 * MIB;
/// The pool of huge pages; some are mapped, the rest stays free.
const HUGE_PAGES: usize = 12;

fn main() -> ExitCode {
    let Err(error) = run();
    println!("failed: page-kinds: {error:#}");
    ExitCode::FAILURE
}

fn run() -> Result<std::convert::Infallible> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [gigantic, balloon] = words.as_slice() else { bail!("usage: page-kinds GIGANTIC BALLOON") };
    let balloon: u64 = balloon.parse().context("BALLOON is not a number")?;
    tune()?;
    take_user_memory(gigantic.parse().context("GIGANTIC is not a number")?)?;
    take_page_cache()?;
    // Before the balloon takes what huge pages would need.
    break_pages();
    println!("waiting for the balloon");
    wait_until("the balloon has its pages", || Ok(vmstat("balloon_inflate")? >= balloon))?;
    wait_until("the kernel has merged equal pages", || Ok(number(MERGED_PAGES)? > 0))?;
    println!("census {}", census()?);
    println!("ready");
    std::io::stdout().flush()?;
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn tune() -> Result<()> {
    let settings = [
        ("/sys/kernel/mm/transparent_hugepage/enabled", "madvise"),
        ("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "always"),
        ("/proc/sys/vm/nr_hugepages", &HUGE_PAGES.to_string()),
        ("/sys/kernel/mm/ksm/pages_to_scan", "100000"),
        ("/sys/kernel/mm/ksm/sleep_millisecs", "20"),
        ("/sys/kernel/mm/ksm/run", "1"),
    ];
    for (file, value) in settings {
        fs::write(file, value).with_context(|| format!("unable to write {value} to {file}"))?;
    }
    Ok(())
}

fn take_user_memory(gigantic: usize) -> Result<()> {
    let kinds = [
        (Memory::Anonymous, LOAD),
        (Memory::Transparent, LOAD),
        (Memory::Shared, LOAD),
        (Memory::HugeTlb, HUGE_PAGES / 2 * 2 * MIB),
        (Memory::Gigantic, gigantic.min(1) << 30),
    ];
    for (seed, (kind, bytes)) in (1..).zip(kinds) {
        if let Some(bytes) = NonZeroUsize::new(bytes) {
            let memory = map_memory(kind, bytes)?;
            // One page in 64 is enough for a gigantic page to be in use.
            let step = if kind == Memory::Gigantic { 64 } else { 1 };
            scribble(memory, step, seed);
        }
    }
    if let Some(bytes) = NonZeroUsize::new(4 * MIB) {
        // Pages of zeros, and pages that are all the same.
        map_memory(Memory::Anonymous, bytes)?.chunks_mut(4096).for_each(|page| page[0] = 0);
        map_memory(Memory::Mergeable, bytes)?.fill(0x5a);
    }
    Ok(())
}

/// Every other page a pattern that compresses, the rest a cheap random sequence that hardly does.
fn scribble(memory: &mut [u8], step: usize, seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for (number, page) in memory.chunks_mut(4096).step_by(step).enumerate() {
        for word in page.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let value = if number % 2 == 0 { *b"kdump-rs" } else { state.to_le_bytes() };
            word.copy_from_slice(&value);
        }
    }
}

/// Cache with and without buffers attached, in single pages and, in the tmpfs, in huge ones.
fn take_page_cache() -> Result<()> {
    fs::create_dir_all("/shm")?;
    mount(Some("tmpfs"), "/shm", Some("tmpfs"), MsFlags::empty(), Some("huge=always")).context("unable to mount")?;
    for path in ["/shm/file", "/written"] {
        let mut file = File::create(path).with_context(|| format!("unable to make {path}"))?;
        let mut block = vec![0; MIB];
        for seed in 0..LOAD / MIB {
            scribble(&mut block, 1, 77 + seed as u64);
            file.write_all(&block)?;
        }
        file.sync_all()?;
    }
    for path in ["/usr/sbin/kdump-capture", "/dev/vda"] {
        let mut file = File::open(path).with_context(|| format!("unable to open {path}"))?.take(LOAD as u64);
        std::io::copy(&mut file, &mut std::io::sink()).with_context(|| format!("unable to read {path}"))?;
    }
    Ok(())
}

const HARD_OFFLINE: &str = "/sys/devices/system/memory/hard_offline_page";

/// Lets the kernel take a page of each kind for broken, as after a machine check, where it can; the census tells how
/// many it marked.
fn break_pages() {
    let kinds = [(Memory::Anonymous, MIB), (Memory::Transparent, 6 * MIB), (Memory::HugeTlb, 2 * MIB)];
    for (kind, bytes) in kinds {
        let broken = NonZeroUsize::new(bytes).context("no bytes").and_then(|bytes| {
            let memory = map_memory(kind, bytes)?;
            memory.fill(0x77);
            break_page(pfn_of(&memory[bytes.get() / 2 + 5 * 4096])?)
        });
        if let Err(error) = broken {
            println!("no broken page in {kind:?} memory: {error:#}");
        }
    }
    match break_a_tail_of_the_kernel() {
        Ok(pfn) => println!("poisoned-tail {pfn:#x}"),
        Err(error) => println!("no broken page in the kernel's memory: {error:#}"),
    }
}

/// The page in which a byte of this process lies.
fn pfn_of(byte: &u8) -> Result<u64> {
    let page = std::ptr::from_ref(byte).addr() as u64 / PAGE;
    let mut entry = [0; 8];
    File::open("/proc/self/pagemap")
        .context("unable to open /proc/self/pagemap")?
        .read_exact_at(&mut entry, page * 8)?;
    Ok(u64::from_le_bytes(entry) & ((1 << 55) - 1))
}

fn break_page(pfn: u64) -> Result<()> {
    ensure!(Path::new(HARD_OFFLINE).exists(), "this kernel takes no page off");
    // Of a page that it cannot do without, it says that it could not take it off, and marks it nevertheless.
    let answer = fs::write(HARD_OFFLINE, format!("{:#x}", pfn * PAGE));
    let marked = page_flags()?.get(usize::try_from(pfn)?).is_some_and(|flags| has(*flags, HWPOISON));
    ensure!(marked, "the kernel did not mark pfn {pfn:#x}: {answer:?}");
    Ok(())
}

fn break_a_tail_of_the_kernel() -> Result<u64> {
    let flags = page_flags()?;
    let tail = |flags: &u64| has(*flags, SLAB) && has(*flags, COMPOUND_TAIL);
    let pfn = flags.iter().rposition(tail).context("no slab has tail pages")? as u64;
    break_page(pfn)?;
    Ok(pfn)
}

// Bits of /proc/kpageflags, from the kernel's include/uapi/linux/kernel-page-flags.h.
const LRU: u32 = 5;
const SLAB: u32 = 7;
const BUDDY: u32 = 10;
const ANON: u32 = 12;
const SWAPBACKED: u32 = 14;
const COMPOUND_HEAD: u32 = 15;
const COMPOUND_TAIL: u32 = 16;
const HUGE: u32 = 17;
const HWPOISON: u32 = 19;
const NOPAGE: u32 = 20;
const THP: u32 = 22;
const OFFLINE: u32 = 23;

fn has(flags: u64, bit: u32) -> bool {
    flags >> bit & 1 == 1
}

fn page_flags() -> Result<Vec<u64>> {
    let bytes = fs::read("/proc/kpageflags").context("unable to read /proc/kpageflags")?;
    Ok(bytes.chunks_exact(8).filter_map(|word| word.try_into().ok().map(u64::from_le_bytes)).collect())
}

/// What the kernel says of its pages, kind by kind; kinds overlap.
fn census() -> Result<String> {
    type Test = fn(u64) -> bool;
    let kinds: [(&str, Test); 11] = [
        ("anon", |f| has(f, ANON) && !has(f, HUGE)),
        ("anon-huge", |f| has(f, ANON) && has(f, THP)),
        ("shared", |f| has(f, SWAPBACKED) && !has(f, ANON) && !has(f, HUGE)),
        ("shared-huge", |f| has(f, SWAPBACKED) && !has(f, ANON) && !has(f, HUGE) && has(f, THP)),
        ("cache", |f| has(f, LRU) && !has(f, SWAPBACKED)),
        ("hugetlb", |f| has(f, HUGE)),
        ("buddy", |f| has(f, BUDDY)),
        ("slab-compound", |f| has(f, SLAB) && (has(f, COMPOUND_HEAD) || has(f, COMPOUND_TAIL))),
        ("offline", |f| has(f, OFFLINE)),
        ("hwpoison", |f| has(f, HWPOISON) && !has(f, HUGE)),
        ("hwpoison-hugetlb", |f| has(f, HWPOISON) && has(f, HUGE) && has(f, COMPOUND_HEAD)),
    ];
    let flags = page_flags()?;
    let pages = || flags.iter().filter(|flags| !has(**flags, NOPAGE));
    let mut text = String::new();
    for (name, test) in kinds {
        text += &format!("{name}={} ", pages().filter(|flags| test(**flags)).count());
    }
    let high = (4_u64 << 30) / PAGE;
    let above = flags.iter().skip(usize::try_from(high)?).filter(|flags| !has(**flags, NOPAGE)).count();
    let nodes = fs::read_dir("/sys/devices/system/node")?.flatten();
    let nodes =
        nodes.filter(|entry| entry.file_name().to_string_lossy().trim_start_matches("node").parse::<u32>().is_ok());
    // Linux 6.12 calls every anonymous page one of KSM's in /proc/kpageflags.
    let (nodes, ksm, gigantic) = (nodes.count(), number(MERGED_PAGES)?, number(GIGANTIC_PAGES).unwrap_or(0));
    Ok(format!("{text}ksm={ksm} above-4g={above} nodes={nodes} gigantic={gigantic}"))
}

const MERGED_PAGES: &str = "/sys/kernel/mm/ksm/pages_shared";
const GIGANTIC_PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages";

fn vmstat(key: &str) -> Result<u64> {
    let text = fs::read_to_string("/proc/vmstat").context("unable to read /proc/vmstat")?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    Ok(line.unwrap_or("0").trim().parse()?)
}

fn number(file: &str) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("unable to read {file}"))?;
    text.trim().parse().with_context(|| format!("{file} holds no number"))
}

fn wait_until(what: &str, test: impl Fn() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !test()? {
        if began.elapsed() > LIMIT {
            bail!("waited {} s in vain until {what}", LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
