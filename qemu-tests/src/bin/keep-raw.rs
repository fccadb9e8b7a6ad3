//! `keep-raw SERIAL PROGRAM ARGS… VMCORE DUMP`: a core collector for tests that first keeps the whole source.
//!
//! With `-F` among the arguments, a stream on stdout is the dump, and VMCORE is the last word.
//!
//! It copies VMCORE to the virtio disk with that serial number, and then becomes `PROGRAM ARGS… VMCORE DUMP`. The copy
//! begins at the disk's start, so that the disk's image file, cut to length, is the ELF file; the length is written last,
//! into the disk's last 4096 bytes, behind a magic word.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

const BLOCK: usize = 1 << 20;
const TOLD_EVERY: u64 = 128 << 20;
const LIMIT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let Err(error) = run();
    eprintln!("keep-raw: {error:#}");
    ExitCode::FAILURE
}

fn run() -> Result<std::convert::Infallible> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (words, dump) = match words.split_last() {
        Some((dump, words)) if !words.iter().any(|word| word == "-F") => (words, Some(dump)),
        _ => (&words[..], None),
    };
    let [serial, program, arguments @ .., vmcore] = words else {
        bail!("usage: keep-raw SERIAL PROGRAM ARGS… VMCORE DUMP");
    };
    let disk = disk_with_serial(serial)?;
    let length = copy(Path::new(vmcore), &disk)
        .with_context(|| format!("unable to copy {vmcore} to the disk {}", disk.display()))?;
    eprintln!("keep-raw: {length} bytes of {vmcore} are on {}", disk.display());
    let error = Command::new(program).args(arguments).arg(vmcore).args(dump).exec();
    Err(error).with_context(|| format!("unable to run {program}"))
}

fn disk_with_serial(serial: &str) -> Result<PathBuf> {
    let began = Instant::now();
    while began.elapsed() < LIMIT {
        for entry in fs::read_dir("/sys/block").context("unable to list /sys/block")? {
            let entry = entry?;
            let found = fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
            if found.trim() == serial {
                return Ok(Path::new("/dev").join(entry.file_name()));
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("no disk with the serial number {serial} appeared within {} s", LIMIT.as_secs())
}

fn copy(vmcore: &Path, disk: &Path) -> Result<u64> {
    let length = fs::metadata(vmcore)?.len();
    let mut source = File::open(vmcore)?.take(length);
    let mut disk = File::options().write(true).open(disk)?;
    let room = disk.seek(SeekFrom::End(0))?;
    ensure!(length + 4096 <= room, "{length} bytes do not fit into {room}");
    disk.rewind()?;
    let mut block = vec![0; BLOCK];
    let mut copied = 0;
    loop {
        let count = source.read(&mut block)?;
        if count == 0 {
            break;
        }
        disk.write_all(&block[..count])?;
        copied += count as u64;
        // A collector that is silent for long is taken for stuck.
        if copied / TOLD_EVERY != (copied - count as u64) / TOLD_EVERY {
            eprintln!("keep-raw: {} of {} MiB", copied >> 20, length >> 20);
        }
    }
    ensure!(copied == length, "{copied} of {length} bytes could be read");
    disk.sync_all()?;
    let mut trailer = [0; 4096];
    trailer[..8].copy_from_slice(b"KEEP-RAW");
    trailer[8..16].copy_from_slice(&length.to_le_bytes());
    disk.seek(SeekFrom::Start(room - 4096))?;
    disk.write_all(&trailer)?;
    disk.sync_all()?;
    Ok(length)
}
