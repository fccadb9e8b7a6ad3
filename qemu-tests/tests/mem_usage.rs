//! What a dump of a running kernel would hold, as our collector and as makedumpfile count it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use qemu_tests::mem_usage::mem_usage;
use qemu_tests::provision::{Suite, kernel};

/// The guest goes on between two counts: programs are read from the disk, memory is freed. So many pages may have changed
/// their kind; what threads do to each other that read through one open /proc/kcore moves more.
const MOVED: u64 = 2048;
const PAGE: u64 = 4096;

/// makedumpfile 1.7.8 counts the crash kernel's memory too, and the kernel image a second time, as /proc/kcore lists it
/// twice; what is not in both counts is kernel data and pages of zeros.
#[test]
fn the_running_kernel_s_pages_are_counted_as_makedumpfile_counts_them() -> Result<()> {
    let answers = mem_usage(&kernel(Suite::Own)?, "mem-usage")?;
    let (ours, theirs) = (table(&answers.table)?, table(&answers.makedumpfile)?);
    for (kind, key, least) in [
        ("NON_PRI_CACHE", "cache", 1000),
        ("PRI_CACHE", "private_cache", 0),
        ("USER", "user", 8000),
        ("FREE", "free", 1000),
    ] {
        let json = number(&answers.ours, key)?;
        for (who, found) in [("JSON", json), ("our table", ours[kind]), ("makedumpfile", theirs[kind])] {
            ensure!(found >= least, "{who}: {found} pages of kind {kind} in a guest with more of them");
            ensure!(
                found.abs_diff(ours[kind]) <= MOVED,
                "{who}: {found} pages of kind {kind}, in our table {}",
                ours[kind]
            );
        }
    }

    let (ram, reserved) = (pages(&answers.iomem, "System RAM"), pages(&answers.iomem, "Crash kernel"));
    let total = number(&answers.ours, "total")?;
    ensure!(reserved > 0 && total == ram - reserved, "{total} pages, of {ram} in RAM and {reserved} reserved");
    ensure!(ours["total"] == total, "the table has {} pages, the JSON {total}", ours["total"]);
    let kinds = ["zero", "cache", "private_cache", "user", "free", "hwpoison", "offline", "kernel_data", "unreadable"];
    let sum = kinds.iter().map(|kind| number(&answers.ours, kind)).sum::<Result<u64>>()?;
    ensure!(sum == total, "the kinds have {sum} pages, all together are {total}");
    ensure!(answers.ours["problems"] == serde_json::json!([]), "problems: {}", answers.ours["problems"]);

    // Without what the other one counts besides, the rest agrees too.
    let image = theirs["total"].checked_sub(ram).context("makedumpfile counts less than there is")?;
    let rest = |of: &BTreeMap<String, u64>| of["KERN_DATA"] + of["ZERO"];
    let common = rest(&theirs).checked_sub(image + reserved).context("makedumpfile counts less kernel data")?;
    ensure!(common.abs_diff(rest(&ours)) <= MOVED, "{common} pages of kernel data, ours {}", rest(&ours));
    Ok(())
}

/// The numbers of a table by their kind, and the total.
fn table(text: &str) -> Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [kind, pages, "yes" | "no", ..] => found.insert(kind.to_owned(), pages.parse()?),
            ["Total", "pages", "on", "system:", pages] => found.insert("total".to_owned(), pages.parse()?),
            _ => None,
        };
    }
    for kind in ["ZERO", "NON_PRI_CACHE", "PRI_CACHE", "USER", "FREE", "KERN_DATA", "total"] {
        ensure!(found.contains_key(kind), "no {kind} in\n{text}");
    }
    Ok(found)
}

fn number(ours: &serde_json::Value, key: &str) -> Result<u64> {
    ours["pages"][key].as_u64().with_context(|| format!("no number pages.{key} in {ours}"))
}

/// Whole pages of all ranges of that name in /proc/iomem.
fn pages(iomem: &str, name: &str) -> u64 {
    let range = |line: &str| {
        let (range, _) = line.trim().split_once(" : ").filter(|(_, found)| *found == name)?;
        let (start, last) = range.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some((number(last)? + 1) / PAGE - number(start)?.div_ceil(PAGE))
    };
    iomem.lines().filter_map(range).sum()
}
