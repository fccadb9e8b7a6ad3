//! Real crashes to an ext4 disk, each judged against its whole source and against makedumpfile.
//!
//! Over the table: 5- and 4-level page tables, plain and xz-compressed modules, every codec, a target by LABEL, UUID and
//! device, every ending, one and two processors in the capture kernel.

use anyhow::{Result, ensure};
use qemu_tests::prelude::*;

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

fn check(scenario: Scenario, five_levels: &str, ending: Ending) -> Result<()> {
    let outcome = crash(&scenario)?;
    let dump = judge::against_source(&scenario, &outcome)?;
    let found = dump.fact("NUMBER(pgtable_l5_enabled)");
    ensure!(found == Some(five_levels), "NUMBER(pgtable_l5_enabled) is {found:?}");
    ensure!(outcome.ending == ending, "the capture kernel's ending was {:?}", outcome.ending);
    Ok(())
}
