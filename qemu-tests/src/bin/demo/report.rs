//! The demo's last words: where the dump is, what is in it, how long it took.

use std::path::Path;

use anyhow::Result;
use qemu_tests::crash::Outcome;
use qemu_tests::oracle::{KdumpFile, Verdict};
use qemu_tests::status::Status;

/// Prints the report to standard output.
pub(crate) fn print(folder: &Path, outcome: &Outcome, checked: &(KdumpFile, Verdict, Status)) -> Result<()> {
    let (dump, verdict, status) = checked;
    let size = std::fs::metadata(folder.join("vmcore"))?.len();
    println!();
    println!("dump      {}", folder.join("vmcore").display());
    println!("kernel    {}", dump.release);
    println!("panic     {}", status.text("/vmcore/panic_line")?);
    println!("size      {:.1} MB, level {}, stored as {}", mb(size), dump.level, counts(verdict));
    println!();
    print_pages(status)?;
    println!();
    println!("stages, seen from outside");
    for stage in &outcome.stages {
        println!("  {:<32} {:>8.2} s", stage.name, stage.took.as_secs_f64());
    }
    println!("stages of the capture kernel");
    for (name, seconds, outcome) in status.stages()? {
        println!("  {name:<32} {seconds:>8.2} s  {outcome}");
    }
    println!();
    println!(
        "checked   {} pages read back, layout and SHA-256 right, marker found in the log ({:?} afterwards)",
        verdict.pages, outcome.ending,
    );
    Ok(())
}

fn print_pages(status: &Status) -> Result<()> {
    let mut pages = status.pages()?;
    let line =
        |name: &str, count: u64, what: &str| println!("{name:<9} {count:>9} {:>8.1} MB  {what}", mb(count * 4096));
    line("pages", pages.remove("total").unwrap_or_default(), "in the source");
    line("", pages.remove("kept").unwrap_or_default(), "kept");
    for (kind, count) in pages.iter().filter(|(_, count)| **count > 0) {
        line("", *count, &format!("left out: {}", kind.replace('_', " ")));
    }
    Ok(())
}

fn counts(verdict: &Verdict) -> String {
    let parts: Vec<String> = verdict.stored.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    parts.join(", ")
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit behind the point")]
fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
