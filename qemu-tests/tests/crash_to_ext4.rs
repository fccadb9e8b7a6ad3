//! Real crashes to an ext4 disk, each judged against its whole source and against makedumpfile.
//!
//! Over the table: 5- and 4-level page tables, plain and xz-compressed modules, every codec, a target by LABEL, UUID and
//! device, every ending, one and two processors in the capture kernel.

use std::process::Command;

use anyhow::{Result, ensure};
use qemu_tests::oracle::StructPages;
use qemu_tests::prelude::*;
use qemu_tests::programs::programs;
use qemu_tests::tools;

#[test]
fn kernel_6_1_with_five_level_page_tables() -> Result<()> {
    check(
        Scenario { codec: Codec::Zstd, keep_raw: true, ..Scenario::of(kernel(Suite::Own)?, "five-level") },
        "1",
        Ending::Reboot,
    )
}

#[test]
fn kernel_6_1_with_four_level_page_tables() -> Result<()> {
    check(
        Scenario {
            page_tables: PageTables::Four,
            target: format!("ext4 UUID={UUID}"),
            codec: Codec::Zlib,
            conf: vec!["final_action poweroff".into()],
            keep_raw: true,
            ..Scenario::of(kernel(Suite::Own)?, "four-level")
        },
        "0",
        Ending::PowerOff,
    )
}

#[test]
fn kernel_6_12_with_compressed_modules() -> Result<()> {
    check(
        Scenario {
            target: "ext4 /dev/vda".into(),
            codec: Codec::None,
            conf: vec!["final_action halt".into()],
            capture_cpus: 2,
            keep_raw: true,
            ..Scenario::of(kernel(Suite::Trixie)?, "six-twelve")
        },
        "1",
        Ending::Halt,
    )
}

/// Since Linux 7.1 a tail page is known by `compound_info` instead of `compound_head`. makedumpfile 1.7.8 does not ask for
/// it, takes what tails hold elsewhere for the sign of user memory, and leaves out tails of pages that it keeps.
#[test]
fn the_newest_kernel_whose_tail_pages_makedumpfile_mistakes_for_user_memory() -> Result<()> {
    let scenario = Scenario { keep_raw: true, ..Scenario::of(kernel(Suite::Sid)?, "newest") };
    let outcome = crash(&scenario)?;
    judge::against_source_except(&scenario, &outcome, |source, dump, found| {
        ensure!(found.fewer.is_empty() && found.source.is_empty(), "unexplained:\n{found}");
        if dump.fact("OFFSET(page.compound_info)").is_none() {
            ensure!(found.are_none(), "unexplained:\n{found}");
            return Ok(());
        }
        let pages = StructPages::new(source)?;
        for pfn in &found.more {
            let tail = pages.get(*pfn)?.is_some_and(|page| page.is_tail());
            ensure!(tail, "pfn {pfn:#x} is kept, is no tail, and makedumpfile leaves it out");
        }
        Ok(())
    })?;
    Ok(())
}

/// The line of RHEL's template, as it stands there.
#[test]
fn the_stock_core_collector_of_rhel_writes_a_sound_dump() -> Result<()> {
    let scenario = Scenario {
        other_collector: Some("makedumpfile -l --message-level 7 -d 31".into()),
        conf: vec!["auto_reset_crashkernel yes".into()],
        ..Scenario::of(kernel(Suite::Own)?, "stock-rhel")
    };
    let outcome = crash(&scenario)?;
    let status = outcome.status()?;
    status.expect_outcome("complete")?;
    ensure!(status.text("/vmcore/codec")? == "lzo", "the codec is {}", status.at("/vmcore/codec")?);
    let dump = outcome.dump()?.join("vmcore");
    let verdict = tools::text(Command::new(programs()?.path("kdump-capture")).arg("verify").arg(&dump))?;
    ensure!(verdict.contains("The dump is sound."), "{verdict}");
    Ok(())
}

fn check(scenario: Scenario, five_levels: &str, ending: Ending) -> Result<()> {
    let outcome = crash(&scenario)?;
    let dump = judge::against_source(&scenario, &outcome)?;
    let found = dump.fact("NUMBER(pgtable_l5_enabled)");
    ensure!(found == Some(five_levels), "NUMBER(pgtable_l5_enabled) is {found:?}");
    ensure!(outcome.ending == ending, "the capture kernel's ending was {:?}", outcome.ending);
    Ok(())
}
