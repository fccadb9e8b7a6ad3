//! Disks with too little room: what is done, in which order, and that old dumps go only when they may.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use qemu_tests::prelude::*;

/// An old dump of ours of so many MiB.
fn old_dump(tree: &Path, name: &str, mib: usize, outcome: &str) -> Result<()> {
    let folder = tree.join("var/crash").join(name);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(if outcome == "complete" { "vmcore" } else { "vmcore-incomplete" }), vec![7; mib << 20])?;
    fs::write(
        folder.join("status.json"),
        format!("{{\"outcome\":\"{outcome}\",\"capture_kernel\":\"6\",\"stages\":[]}}"),
    )?;
    Ok(())
}

/// One old dump has to go before there is room, another one goes when the new one is complete; the newest of them, the
/// failed one that is newer still, and what is not ours, stay.
#[test]
fn old_dumps_make_room_and_the_rest_of_them_go_afterwards() -> Result<()> {
    let disk = TargetDisk::ext4("space-keep", 160, |tree| {
        old_dump(tree, "127.0.0.1-2020-01-01-00:00:00", 40, "complete")?;
        old_dump(tree, "127.0.0.1-2020-01-02-00:00:00", 40, "complete")?;
        old_dump(tree, "127.0.0.1-2020-01-03-00:00:00", 30, "complete")?;
        old_dump(tree, "127.0.0.1-2020-01-04-00:00:00", 1, "incomplete")?;
        old_dump(tree, "2019-01-01-00:00", 1, "complete")
    })?;
    let scenario = Scenario {
        target: format!("ext4 LABEL={}", target_disk::LABEL),
        sysconfig: vec!["KDUMP_KEEP_OLD_DUMPS=1".into(), "KDUMP_FREE_DISK_SIZE=2".into()],
        codec: Codec::None,
        qemu: disk.plain(),
        ..Scenario::of(kernel(Suite::Own)?, "space-keep")
    };
    let outcome = crash(&scenario)?;
    let dumps = disk.dumps()?;
    let left: Vec<_> = dumps.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    let new = dumps.iter().find(|dump| dump.join("kexec-dmesg.log").exists());
    let new = new.with_context(|| format!("there is no new dump: {left:?}\n{}", outcome.console))?;
    let (_, _, status) = judge::dump_alone(new, &scenario.kernel.release, &outcome.marker)?;
    println!("{}", status.at("/space")?);
    let removed = status.names("/space/removed")?;
    ensure!(removed == ["127.0.0.1-2020-01-01-00:00:00", "127.0.0.1-2020-01-02-00:00:00"], "removed: {removed:?}");
    let measures = status.names("/space/measures")?;
    ensure!(measures.len() == 2 && measures[1].contains("2020-01-01"), "one was enough: {measures:?}");
    for name in ["127.0.0.1-2020-01-03-00:00:00", "127.0.0.1-2020-01-04-00:00:00", "2019-01-01-00:00"] {
        ensure!(left.contains(&name), "{name} is gone: {left:?}");
    }
    ensure!(left.len() == 4, "{left:?}");
    Ok(())
}

/// Without old dumps that may go: a stricter level, then a stronger codec, then what fits.
#[test]
#[ignore = "a matrix of its own: a small disk"]
fn a_small_disk_gets_a_smaller_dump_and_a_tiny_one_a_part() -> Result<()> {
    for (name, mib, complete) in [("space-small", 48, true), ("space-tiny", 14, false)] {
        let disk = TargetDisk::ext4(name, mib, |tree| old_dump(tree, "127.0.0.1-2020-01-01-00:00:00", 1, "complete"))?;
        let scenario = Scenario {
            target: format!("ext4 LABEL={}", target_disk::LABEL),
            conf: vec!["failure_action poweroff".into()],
            level: 1,
            codec: Codec::None,
            qemu: disk.plain(),
            ..Scenario::of(kernel(Suite::Own)?, name)
        };
        let outcome = crash(&scenario)?;
        let dumps = disk.dumps()?;
        ensure!(dumps.len() == 2, "{dumps:?}\n{}", outcome.console);
        let status = qemu_tests::status::Status::read(&dumps[1].join("status.json"))?;
        println!("{name}: {}", status.at("/space")?);
        let measures = status.at("/space/measures")?.to_string();
        ensure!(measures.contains("level 31 instead of 1") || complete, "{measures}");
        status.expect_outcome(if complete { "complete" } else { "incomplete" })?;
        let dump = dumps[1].join(if complete { "vmcore" } else { "vmcore-incomplete" });
        let program = qemu_tests::programs::programs()?.path("kdump-capture");
        let mut info = std::process::Command::new(program);
        let said = qemu_tests::tools::text(info.arg("info").arg(&dump))?;
        ensure!(said.contains("6.1"), "{said}");
    }
    Ok(())
}
