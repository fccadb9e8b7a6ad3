//! Real crashes to a disk without a file system, recovered from outside as the next boot would.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use qemu_tests::oracle::{KdumpFile, differences, read_back};
use qemu_tests::prelude::*;
use qemu_tests::programs::programs;
use qemu_tests::provision::makedumpfile;
use qemu_tests::{crash, disk, folders, tools};

const MIB: u64 = 1 << 20;
/// What `kdumpctl recover` says with its exit code if there is no dump.
const NO_DUMP: i32 = 3;

#[test]
fn a_dump_on_a_raw_disk_comes_back_as_a_directory_and_so_does_a_stream_of_makedumpfile() -> Result<()> {
    let disk = raw_disk("raw", 320)?;
    let scenario = Scenario { keep_raw: true, ..to_raw_disk("raw", &disk)? };
    let outcome = crash(&scenario)?;
    ensure!(outcome.ending == Ending::Reboot, "it ended with {:?}", outcome.ending);
    ensure!(outcome.dump.is_none(), "there is a dump on the other disk");
    let folder = outcome.folder.clone();

    let recovered = recover(&disk, &folder.join("recovered"), 0)?.context("no directory")?;
    let outcome = crash::Outcome { dump: Some(recovered.clone()), ..outcome };
    recover(&disk, &folder.join("again"), NO_DUMP)?;

    // The same memory as makedumpfile has it on a raw device: its stream alone.
    let (raw, stream) = (outcome.raw.clone().context("no source")?, folder.join("stream"));
    let mut oracle = Command::new(&makedumpfile()?.argv()[0]);
    oracle.args(&makedumpfile()?.argv()[1..]).args(["-F", "-z", "--message-level", "4", "-d", "31"]).arg(&raw);
    let output = oracle.stdout(fs::File::create(&stream)?).output().context("unable to run makedumpfile")?;
    ensure!(output.status.success(), "makedumpfile -F: {}", String::from_utf8_lossy(&output.stderr));
    // A disk goes on behind the stream.
    fs::File::options().write(true).open(&stream)?.set_len(320 * MIB)?;
    let theirs = recover(&stream, &folder.join("theirs"), 0)?.context("no directory")?;
    let dump = KdumpFile::open(&theirs.join("vmcore"))?;
    read_back(&dump)?.or_fail()?;
    let found = differences(&dump, &KdumpFile::open(&recovered.join("vmcore"))?);
    ensure!(found.are_none(), "makedumpfile's stream and ours differ:\n{found}");
    let log = |folder: &Path| fs::read(folder.join("vmcore-dmesg.txt"));
    ensure!(log(&theirs)? == log(&recovered)?, "the logs differ");

    judge::against_source(&scenario, &outcome)?;
    Ok(())
}

#[test]
#[ignore = "a boot of its own: a disk that is too small for the dump"]
fn a_raw_disk_that_is_full_has_an_incomplete_dump_its_log_and_its_status() -> Result<()> {
    let disk = raw_disk("raw-full", 12)?;
    let outcome = crash(&to_raw_disk("raw-full", &disk)?)?;
    let recovered = recover(&disk, &outcome.folder.join("recovered"), 1)?.context("no directory")?;
    let status = qemu_tests::status::Status::read(&recovered.join("status.json"))?;
    status.expect_outcome("incomplete")?;
    let reason = status.text("/reason")?;
    ensure!(reason.contains("the size limit of "), "the reason is: {reason}");
    let measures = status.text("/space/measures/0")?;
    ensure!(measures.contains("there is room for "), "it was not known beforehand: {measures}");
    ensure!(fs::read_to_string(recovered.join("vmcore-dmesg.txt"))?.contains(&outcome.marker), "no log");
    ensure!(recovered.join("vmcore-incomplete").metadata()?.len() > 8 * MIB, "next to nothing was saved");
    ensure!(KdumpFile::open(&recovered.join("vmcore-incomplete"))?.is_incomplete(), "it does not say so itself");
    Ok(())
}

fn raw_disk(name: &str, mib: u64) -> Result<PathBuf> {
    let folder = folders::qemu().join("runs");
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{name}-target.img"));
    disk::empty(&path, mib * MIB)?;
    Ok(path)
}

/// A crash whose dump goes to the disk with the serial number `dumps`.
fn to_raw_disk(name: &str, disk: &Path) -> Result<Scenario> {
    Ok(Scenario {
        target: "raw WWID=dumps".into(),
        qemu: [
            "-drive",
            &format!("file={},format=raw,if=none,id=dumps", disk.display()),
            "-device",
            "virtio-blk-pci,drive=dumps,serial=dumps",
        ]
        .map(str::to_owned)
        .to_vec(),
        ..Scenario::of(kernel(Suite::Own)?, name)
    })
}

/// Runs `kdumpctl recover` and gives the one directory that it made, if that is what it says.
fn recover(disk: &Path, to: &Path, code: i32) -> Result<Option<PathBuf>> {
    let mut command = Command::new(programs()?.path("kdumpctl"));
    command.arg("recover").arg(disk).arg("--to").arg(to).arg("--json");
    let output = tools::run_accepting(&mut command, &[code])?;
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).context("it said no JSON")?;
    Ok(said["directory"].as_str().map(PathBuf::from))
}
