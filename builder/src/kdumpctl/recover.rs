//! `kdumpctl recover`: turns the dump on a raw target into a dump directory.
//!
//! In: a device or a file, and the directory of all dumps. Out: a directory as the capture environment makes them on a
//! file system, its `vmcore` rebuilt by the collector, which is run as a program; then the device's header is cleared.
//! Reads the raw streams of makedumpfile too, which have no header.
//!
//! May surprise: nothing is cleared unless everything has been saved and flushed. Until then the directory has a file
//! `recovery-incomplete` that says of which dump it is, so that another attempt goes on in the same directory,
//! with those files that are not finished.

mod source;
pub mod stream;

use crate::gather::programs::Programs;
use anyhow::{Context, bail};
use kdump_hooks::raw::layout::{Header, Name, Part, State};
use kdump_init::dump::{DumpDir, hex, retention, sha256_of};
use nix::sys::statvfs::statvfs;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use source::{Found, Source};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::num::NonZeroU32;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The name of the file that is there until all is done.
const MARK: &str = "recovery-incomplete";
/// Room for what is small.
const SLACK: u64 = 1 << 20;
/// A dump of this machine is named after this address.
const LOCAL: &str = "127.0.0.1";
/// What the collector says of a stream whose end is missing.
const CUT: &str = "the stream ends early";

/// What was recovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The dump's directory.
    pub directory: PathBuf,
    /// `complete`, `incomplete` or `failed`, as `status.json` has it.
    pub outcome: String,
    /// Why it is not complete.
    pub reason: Option<String>,
}

/// How the room below a directory of dumps is shared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Room {
    /// So many dumps stay once the new one is complete; all of them, if nothing is said.
    pub keep: Option<NonZeroU32>,
    /// Bytes that stay free.
    pub free: u64,
}

/// Recovers the dump on `device` into a new directory below `base`. `None` if there is no dump on it.
///
/// # Errors
/// There is one, and it is damaged, or there is no room for it, or it cannot be written. The device is as it was.
pub fn recover(device: &Path, base: &Path, room: Room, programs: Option<&Path>) -> anyhow::Result<Option<Recovered>> {
    if matches!(Source::open(device, false)?.look()?, Found::Nothing) {
        return Ok(None);
    }
    // What cannot be cleared would be recovered again and again.
    let source = Source::open(device, true)?;
    source.lock()?;
    let found = source.look()?;
    if matches!(found, Found::Nothing) {
        return Ok(None);
    }
    let collector = Programs::find(programs)?.capture;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(base)
        .with_context(|| format!("cannot make the directory {}", base.display()))?;
    let job = Job::of(&source, found)?;
    let earlier = job.earlier(base)?;
    job.fits(base, earlier.as_deref(), room.free)?;
    let dir = job.directory(base, earlier)?;
    let recovered = job.save(&dir, &collector)?;
    source.clear()?;
    fs::remove_file(dir.path().join(MARK)).with_context(|| format!("cannot remove {MARK}"))?;
    if let Some(keep) = room.keep.filter(|_| recovered.outcome == "complete") {
        let mut removed = Vec::new();
        retention::settle(dir.path(), keep, &mut removed, || ());
        removed.iter().for_each(|old| log::info!("{old} is removed: {keep} dumps stay"));
    }
    Ok(Some(recovered))
}

/// Whether a dump is on `device`, damaged or not.
///
/// # Errors
/// It cannot be read.
pub fn has_dump(device: &Path) -> anyhow::Result<bool> {
    Ok(!matches!(Source::open(device, false)?.look(), Ok(Found::Nothing)))
}

/// A dump that is to be recovered.
struct Job<'a> {
    source: &'a Source,
    /// Tells this dump from any other.
    id: String,
    time: SystemTime,
    kernel_release: Option<String>,
    parts: Vec<(Name, Piece)>,
    /// Parts that were being written when the capture kernel ended.
    lost: Vec<Name>,
}

/// A part, and what is to be made of it.
#[derive(Clone, Copy, Debug)]
struct Piece {
    offset: u64,
    length: u64,
    /// Its length as a file, holes left out.
    data: u64,
    sha256: Option<[u8; 32]>,
    is_stream: bool,
    is_whole: bool,
}

impl<'a> Job<'a> {
    fn of(source: &'a Source, found: Found) -> anyhow::Result<Job<'a>> {
        let first = source.first().with_context(|| format!("cannot read {}", source.path.display()))?;
        let mut job = Job {
            source,
            id: hex(&Sha256::digest(&first)),
            time: SystemTime::now(),
            kernel_release: None,
            parts: Vec::new(),
            lost: Vec::new(),
        };
        match found {
            Found::Nothing => {}
            Found::Ours(header) => job.take(&header)?,
            Found::Stream(stream) => job.parts.push((
                Name::Vmcore,
                Piece {
                    offset: 0,
                    length: stream.length,
                    data: stream.data,
                    sha256: None,
                    is_stream: true,
                    is_whole: stream.is_whole,
                },
            )),
        }
        Ok(job)
    }

    /// Takes over what the header says.
    fn take(&mut self, header: &Header) -> anyhow::Result<()> {
        self.time = UNIX_EPOCH + Duration::from_secs(header.time);
        self.kernel_release = Some(header.kernel_release.clone());
        for name in Name::ALL {
            let part = header.part(name);
            match part.state {
                State::Nothing => {}
                State::Begun => self.lost.push(name),
                State::Incomplete | State::Complete => self.parts.push((name, self.piece(name, part)?)),
            }
        }
        Ok(())
    }

    fn piece(&self, name: Name, part: &Part) -> anyhow::Result<Piece> {
        let damaged = || format!("{} on {} is damaged", name.file(), self.source.path.display());
        if part.end() > self.source.size {
            return Err(anyhow::anyhow!("it ends behind the end of the device")).with_context(damaged);
        }
        let mut piece = Piece {
            offset: part.offset,
            length: part.length,
            data: part.length,
            sha256: Some(part.sha256),
            is_stream: name == Name::Vmcore && self.source.is_flattened_at(part.offset),
            is_whole: part.state == State::Complete,
        };
        if piece.is_stream {
            let stream = stream::measure(&self.source.device, part.offset, part.end()).with_context(damaged)?;
            if piece.is_whole && (!stream.is_whole || stream.length != part.length) {
                return Err(anyhow::anyhow!("its stream has another length")).with_context(damaged);
            }
            piece.data = stream.data;
        }
        Ok(piece)
    }

    /// Whether there is room for it. What an earlier attempt has taken is there already, or is given back.
    fn fits(&self, base: &Path, earlier: Option<&Path>, free: u64) -> anyhow::Result<()> {
        let room = statvfs(base).with_context(|| format!("cannot tell the room in {}", base.display()))?;
        let room = room.blocks_available().saturating_mul(room.fragment_size()).saturating_sub(free);
        let taken = earlier.into_iter().flat_map(fs::read_dir).flatten().flatten();
        let taken: u64 = taken.filter_map(|file| Some(file.metadata().ok()?.blocks().saturating_mul(512))).sum();
        let needed = self.parts.iter().fold(SLACK, |sum, (_, piece)| sum.saturating_add(piece.data));
        if needed > room.saturating_add(taken) {
            let but = if free > 0 { format!(" besides the {} MiB that stay free", free >> 20) } else { String::new() };
            bail!(
                "the dump on {} needs {} MiB, {} has {} MiB left{but}; make room, or name another directory with --to",
                self.source.path.display(),
                needed.saturating_sub(taken).div_ceil(1 << 20),
                base.display(),
                room >> 20
            );
        }
        Ok(())
    }

    /// The directory of an earlier attempt with the same dump.
    fn earlier(&self, base: &Path) -> anyhow::Result<Option<PathBuf>> {
        let entries = fs::read_dir(base).with_context(|| format!("cannot read {}", base.display()))?;
        Ok(entries.flatten().map(|entry| entry.path()).find(|path| {
            let is_ours = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(LOCAL));
            is_ours && fs::read_to_string(path.join(MARK)).is_ok_and(|id| id.trim() == self.id)
        }))
    }

    /// That directory, else a new one.
    fn directory(&self, base: &Path, earlier: Option<PathBuf>) -> anyhow::Result<DumpDir> {
        if let Some(path) = earlier {
            log::info!("going on in {}", path.display());
            return Ok(DumpDir::existing(path));
        }
        let dir = DumpDir::create(base, LOCAL, self.time)?;
        let mark = create(&dir.path().join(MARK)).and_then(|mut mark| {
            writeln!(mark, "{}", self.id)?;
            mark.sync_all()
        });
        mark.with_context(|| format!("cannot write {}", dir.path().join(MARK).display()))?;
        Ok(dir)
    }

    /// Saves every part, and then what there is to be said of them.
    fn save(&self, dir: &DumpDir, collector: &Path) -> anyhow::Result<Recovered> {
        let mut files = Vec::new();
        let mut status = None;
        for (name, piece) in &self.parts {
            let pending = dir.pending(name.file());
            // An earlier attempt has given it its name only after all of it was flushed.
            let is_saved = piece.is_whole && *name != Name::Status && dir.path().join(name.file()).is_file();
            match piece.is_stream {
                _ if is_saved => log::info!("{} is there already", name.file()),
                true => self.rebuild(piece, &pending, collector)?,
                false => self.copy(piece, &pending)?,
            }
            if *name == Name::Status {
                status = fs::read(&pending).ok().and_then(|text| serde_json::from_slice(&text).ok());
                continue;
            }
            let file = match piece.is_whole {
                true => name.file().to_owned(),
                false => format!("{}-incomplete", name.file()),
            };
            match piece.is_whole {
                true if is_saved => {}
                true => dir.finish(name.file())?,
                false => flush(&pending)?,
            }
            let (bytes, sha256) = dir.digest(&file, || ())?;
            files.push(json!({ "name": file, "bytes": bytes, "sha256": sha256 }));
        }
        if self.kernel_release.is_none() {
            self.save_log(dir, collector, &mut files);
        }
        let is_cut = |piece: &&(Name, Piece)| piece.1.sha256.is_none() && !piece.1.is_whole;
        if self.parts.iter().any(|piece| is_cut(&piece)) {
            bail!(
                "the stream on {} ends at the end of the device; what came is in {}, and the device is left as it is",
                self.source.path.display(),
                dir.path().display()
            );
        }
        let status = self.status(status, files);
        let text = format!("{status:#}\n");
        let pending = dir.pending(Name::Status.file());
        create(&pending)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write {}", pending.display()))?;
        dir.finish(Name::Status.file())?;
        let word = |key: &str| status.get(key).and_then(Value::as_str).map(str::to_owned);
        let outcome = word("outcome").unwrap_or_default();
        let reason = word("reason").filter(|_| outcome != "complete");
        Ok(Recovered { directory: dir.path().to_owned(), outcome, reason })
    }

    /// The status that the capture environment wrote, with the files as they are here; a new one, if there is none.
    fn status(&self, written: Option<Value>, files: Vec<Value>) -> Value {
        let whole = |name| self.parts.iter().any(|(part, piece)| *part == name && piece.is_whole);
        let some = self.parts.iter().any(|(part, piece)| *part == Name::Vmcore && piece.length > 0);
        let outcome = match (whole(Name::Vmcore), some || self.lost.contains(&Name::Vmcore)) {
            (true, _) => "complete",
            (false, true) => "incomplete",
            (false, false) => "failed",
        };
        let mut status = written.filter(Value::is_object).unwrap_or_else(|| {
            let mut reason = None;
            if self.kernel_release.is_some() {
                let lost: Vec<&str> = self.lost.iter().map(|name| name.file()).collect();
                let while_writing =
                    if lost.is_empty() { String::new() } else { format!(" while it wrote {}", lost.join(", ")) };
                reason = Some(format!("the capture kernel ended{while_writing}, before it could say why"));
            }
            json!({ "outcome": outcome, "reason": reason, "capture_kernel": self.kernel_release, "stages": [] })
        });
        if let Some(status) = status.as_object_mut() {
            status.insert("files".to_owned(), files.into());
            status.insert("recovered_from".to_owned(), self.source.path.display().to_string().into());
        }
        status
    }

    /// Copies a part as it is.
    fn copy(&self, piece: &Piece, to: &Path) -> anyhow::Result<()> {
        let mut file = create(to).with_context(|| format!("cannot write {}", to.display()))?;
        self.feed(piece, &mut file)?.with_context(|| format!("cannot write {}", to.display()))
    }

    /// Has the collector make a file of a stream.
    fn rebuild(&self, piece: &Piece, to: &Path, collector: &Path) -> anyhow::Result<()> {
        let report = to.with_extension("report");
        let mut child = Command::new(collector)
            .args(["-f", "--message-level", "0", "--report"])
            .arg(&report)
            .arg("-R")
            .arg(to)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}, which is to rebuild the dump", collector.display()))?;
        let fed = match child.stdin.take() {
            Some(mut pipe) => self.feed(piece, &mut pipe),
            None => Ok(Ok(())),
        };
        let output = child.wait_with_output().context("cannot wait for the collector")?;
        let told: Value =
            fs::read(&report).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let _ = fs::remove_file(&report);
        let fed = fed?;
        // A collector that ends early is why it could not be fed; its own words come first.
        let error = told.get("error").and_then(Value::as_str).unwrap_or_default();
        let is_as_expected =
            output.status.success() || (!piece.is_whole && (error.is_empty() || error.starts_with(CUT)));
        if !is_as_expected || output.status.code().is_none() {
            let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " / ");
            bail!(
                "cannot rebuild {} with {}: {} ({})",
                to.display(),
                collector.display(),
                output.status,
                if error.is_empty() { &said } else { error }
            );
        }
        fed.with_context(|| format!("cannot feed {}", collector.display()))
    }

    /// Gives the bytes of a part to `to`. The outer error is about the dump, the inner one about `to`.
    fn feed(&self, piece: &Piece, to: &mut dyn Write) -> anyhow::Result<io::Result<()>> {
        let mut device = &self.source.device;
        let reading = || format!("cannot read the dump on {}", self.source.path.display());
        device.seek(SeekFrom::Start(piece.offset)).with_context(reading)?;
        let mut tee = Tee { from: device.take(piece.length), to, failed: None };
        let (bytes, sha256) = sha256_of(&mut tee, &mut || ()).with_context(reading)?;
        if let Some(error) = tee.failed {
            return Ok(Err(error));
        }
        let is_right = piece.sha256.is_none_or(|expected| expected == sha256);
        if bytes != piece.length || !is_right {
            bail!(
                "the dump on {} is damaged: what is from byte {} on has not the sha256 that its header tells",
                self.source.path.display(),
                piece.offset
            );
        }
        Ok(Ok(()))
    }

    /// The kernel log out of the dump, where there was none beside it.
    fn save_log(&self, dir: &DumpDir, collector: &Path, files: &mut Vec<Value>) {
        let name = Name::Log.file();
        let output = Command::new(collector)
            .args(["-f", "--message-level", "0", "--dump-dmesg"])
            .args([dir.path().join(Name::Vmcore.file()), dir.pending(name)])
            .stdin(Stdio::null())
            .output();
        let saved = match output {
            Ok(output) if output.status.success() => dir.finish(name).and_then(|()| dir.digest(name, || ())),
            Ok(output) => Err(anyhow::anyhow!("{}", String::from_utf8_lossy(&output.stderr).trim())),
            Err(error) => Err(error.into()),
        };
        match saved {
            Ok((bytes, sha256)) => files.insert(0, json!({ "name": name, "bytes": bytes, "sha256": sha256 })),
            Err(error) => {
                let _ = fs::remove_file(dir.pending(name));
                log::warn!("the kernel log is not taken out of the dump: {error:#}");
            }
        }
    }
}

/// Hands on what is read.
struct Tee<'a, R> {
    from: R,
    to: &'a mut dyn Write,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.failed.is_some() {
            return Ok(0);
        }
        let length = self.from.read(buffer)?;
        self.failed = self.to.write_all(buffer.get(..length).unwrap_or_default()).err();
        Ok(length)
    }
}

fn create(path: &Path) -> io::Result<File> {
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn flush(path: &Path) -> anyhow::Result<()> {
    File::open(path).and_then(|file| file.sync_all()).with_context(|| format!("cannot flush {}", path.display()))
}
