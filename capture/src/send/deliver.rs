//! How a file is delivered: under a name that says that it is incomplete, and then under its own.
//!
//! In: a far side, a name, a stream. Out: the file, and what is known of it. May surprise: of a stream that is stored as
//! it comes, the sum is made while it passes; a file that was written at positions is read back for it.

use super::far::{Far, FarFile, Made};
use super::share::Shared;
use super::url::Url;
use crate::dumpfile::rebuild;
use crate::output::Output;
use crate::progress::Meter;
use crate::units::{FileOffset, to_usize};
use anyhow::{Context, anyhow, bail};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What a name ends in until its file is whole.
pub const INCOMPLETE: &str = "-incomplete";
/// What the name of a flattened dump ends in where it stays flattened.
pub const FLAT: &str = ".flat";

/// How many dumps of one second are told apart.
const SUFFIXES: u32 = 1000;
/// Read and sent at once.
const CHUNK: usize = 256 << 10;

/// What was delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delivery {
    /// The file's name in its directory.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its sum, in hexadecimal digits.
    pub sha256: String,
}

/// Makes the directory of the address, with those above it.
///
/// # Errors
/// One cannot be made.
pub fn make_base(far: &mut dyn Far, url: &Url) -> anyhow::Result<()> {
    let ends = url.path.match_indices('/').map(|(at, _)| at).skip(1).chain([url.path.len()]);
    for path in ends.filter_map(|end| url.path.get(..end)).filter(|path| *path != "/") {
        far.mkdir(path)?;
    }
    Ok(())
}

/// Makes the directory of one dump, `dir` with `.1`, `.2` … behind it if the name is taken, and gives its name.
///
/// # Errors
/// It cannot be made.
pub fn make_dir(far: &mut dyn Far, url: &Url, dir: &str) -> anyhow::Result<String> {
    make_base(far, url)?;
    for suffix in 0..SUFFIXES {
        let name = if suffix == 0 { dir.to_owned() } else { format!("{dir}.{suffix}") };
        if far.mkdir(&url.below(&name))? == Made::New {
            return Ok(name);
        }
    }
    bail!("{} has {SUFFIXES} dumps of {dir}", url.path)
}

/// Stores `from` as it is.
///
/// # Errors
/// What went wrong, and how much had been sent.
pub fn put(far: &mut dyn Far, url: &Url, name: &str, from: &mut dyn Read, meter: &Meter) -> anyhow::Result<Delivery> {
    stored(far, url, name, from, meter, &mut |tee| tee.drain())
}

/// Stores the dump in a flattened stream: as the file it was made of where the far side can seek, else as it is, with
/// [`FLAT`] behind its name.
///
/// # Errors
/// As [`put`]; and the stream is none, or ends early, as one does whose collector died.
pub fn put_flattened(
    far: &mut dyn Far,
    url: &Url,
    name: &str,
    from: &mut dyn Read,
    meter: &Meter,
) -> anyhow::Result<Delivery> {
    if far.is_positioned() {
        return rebuilt(far, url, name, from, meter);
    }
    stored(far, url, &format!("{name}{FLAT}"), from, meter, &mut |tee| {
        let header = rebuild::header(tee);
        tee.said(header)?.map_err(|why| anyhow!("what is to be stored is no flattened dump: {why}"))?;
        let meter = tee.meter;
        let ended = rebuild::records(tee, &Shared::new(&Nowhere, meter)).ended;
        tee.said(Ok(()))?;
        if let Some(ended) = ended {
            return Err(ended.into());
        }
        tee.drain()
    })
}

/// Stores what `pass` lets through.
fn stored(
    far: &mut dyn Far,
    url: &Url,
    name: &str,
    from: &mut dyn Read,
    meter: &Meter,
    pass: &mut dyn FnMut(&mut Tee) -> anyhow::Result<()>,
) -> anyhow::Result<Delivery> {
    let path = url.below(name);
    let pending = format!("{path}{INCOMPLETE}");
    let (hash, bytes) = {
        let mut tee = Tee { from, to: far.create(&pending)?, hash: Sha256::new(), bytes: 0, refused: None, meter };
        let passed = pass(&mut tee);
        let Tee { to, hash, bytes, .. } = tee;
        passed.and_then(|()| meter.waiting(|| to.close())).with_context(|| after(&pending, bytes))?;
        (hash, bytes)
    };
    finish(far, &path, bytes)?;
    Ok(Delivery { name: last(name), bytes, sha256: hex(hash) })
}

/// Stores the file that a stream was made of.
fn rebuilt(far: &mut dyn Far, url: &Url, name: &str, from: &mut dyn Read, meter: &Meter) -> anyhow::Result<Delivery> {
    let path = url.below(name);
    let pending = format!("{path}{INCOMPLETE}");
    if let Err(why) = rebuild::header(from).context("cannot read the stream")? {
        bail!("what is to be stored as {path} is no flattened dump: {why}");
    }
    let length = {
        let out = Positioned { file: Mutex::new((far.create(&pending)?, 0)), sent: AtomicU64::new(0), meter };
        let rebuilt = rebuild::records(from, &Shared::new(&out, meter));
        let sent = out.sent.load(Ordering::Relaxed);
        let (file, _) = out.file.into_inner().unwrap_or_else(PoisonError::into_inner);
        let closed = match rebuilt.ended {
            None => meter.waiting(|| file.close()),
            Some(ended) => Err(ended.into()),
        };
        closed.with_context(|| after(&pending, sent))?;
        rebuilt.bytes
    };
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    far.read(&pending, &mut |chunk| {
        hash.update(chunk);
        bytes += chunk.len() as u64;
    })?;
    if bytes != length {
        bail!("{pending} has {bytes} bytes when it is read back, {length} were sent; the far disk may be full");
    }
    finish(far, &path, length)?;
    Ok(Delivery { name: last(name), bytes, sha256: hex(hash) })
}

fn after(pending: &str, bytes: u64) -> String {
    format!("cannot store {pending}: {bytes} bytes had been sent")
}

/// The last step: a file of the right length gets its name.
fn finish(far: &mut dyn Far, path: &str, bytes: u64) -> anyhow::Result<()> {
    let pending = format!("{path}{INCOMPLETE}");
    if let Some(there) = far.size(&pending)?.filter(|there| *there != bytes) {
        bail!("{pending} has {there} bytes on the far side, {bytes} were sent; its disk may be full");
    }
    far.rename(&pending, path)
}

fn last(name: &str) -> String {
    name.rsplit('/').next().unwrap_or(name).to_owned()
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A stream that is sent on while it is read.
struct Tee<'a> {
    from: &'a mut dyn Read,
    to: Box<dyn FarFile + 'a>,
    hash: Sha256,
    bytes: u64,
    /// Why nothing more can be sent.
    refused: Option<io::Error>,
    meter: &'a Meter,
}

impl Tee<'_> {
    /// Sends the rest on.
    fn drain(&mut self) -> anyhow::Result<()> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = self.read(&mut chunk);
            if self.said(read)? == 0 {
                return Ok(());
            }
        }
    }

    /// What reading gave, unless it failed because sending did.
    fn said<T>(&mut self, read: io::Result<T>) -> anyhow::Result<T> {
        match self.refused.take() {
            Some(refused) => Err(refused.into()),
            None => read.context("cannot read what is to be sent"),
        }
    }
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        let mut chunk = buffer.get(..length).unwrap_or_default();
        self.hash.update(chunk);
        while !chunk.is_empty() {
            match self.to.write(chunk) {
                Ok(sent) => {
                    self.bytes += sent as u64;
                    self.meter.add(sent as u64);
                    chunk = chunk.get(sent..).unwrap_or_default();
                }
                Err(refused) => {
                    self.refused = Some(refused);
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
            }
        }
        Ok(length)
    }
}

/// A file of the far side, for who writes at positions.
struct Positioned<'a> {
    file: Mutex<(Box<dyn FarFile + 'a>, u64)>,
    sent: AtomicU64,
    meter: &'a Meter,
}

impl Output for Positioned<'_> {
    fn write_at(&self, at: FileOffset, bytes: &[u8]) -> io::Result<usize> {
        let mut guard = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, position) = &mut *guard;
        if *position != at.0 {
            file.seek(at.0)?;
            *position = at.0;
        }
        let sent = file.write(bytes)? as u64;
        *position += sent;
        self.sent.fetch_add(sent, Ordering::Relaxed);
        self.meter.add(sent);
        Ok(to_usize(sent).unwrap_or(bytes.len()))
    }

    fn reserve(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn in_order(&self) -> bool {
        true
    }
}

/// Nothing is kept: the stream is only looked at.
struct Nowhere;

impl Output for Nowhere {
    fn write_at(&self, _at: FileOffset, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn reserve(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dumpfile::flatten::Flattened;
    use crate::progress::Messages;
    use crate::send::fake::FakeFar;

    fn url() -> Url {
        "sftp://nas/srv/crash".parse().unwrap()
    }

    fn meter() -> Meter {
        Meter::endless("Sending", Messages(0))
    }

    /// A stream that writes its start last, as a dump does.
    fn stream() -> Vec<u8> {
        let flat = Flattened::new(Vec::new()).unwrap();
        flat.write_at(FileOffset(4), b"body, and more").unwrap();
        flat.write_at(FileOffset(0), b"HEAD").unwrap();
        flat.finish().unwrap();
        flat.into_inner()
    }

    fn sum(bytes: &[u8]) -> String {
        hex(Sha256::new_with_prefix(bytes))
    }

    #[test]
    fn a_file_is_incomplete_until_it_is_whole() {
        let mut far = FakeFar::default();
        let delivery = put(&mut far, &url(), "d/log", &mut &b"hello"[..], &meter()).unwrap();
        assert_eq!(far.journal, ["create /srv/crash/d/log-incomplete", "close", "rename /srv/crash/d/log"]);
        assert_eq!(far.files["/srv/crash/d/log"], b"hello");
        assert_eq!((delivery.name.as_str(), delivery.bytes, delivery.sha256), ("log", 5, sum(b"hello")));
    }

    #[test]
    fn a_stream_becomes_a_dump_where_the_far_side_can_seek() {
        let mut far = FakeFar { positioned: true, ..FakeFar::default() };
        let delivery = put_flattened(&mut far, &url(), "d/vmcore", &mut &stream()[..], &meter()).unwrap();
        assert_eq!(far.files["/srv/crash/d/vmcore"], b"HEADbody, and more");
        assert_eq!((delivery.bytes, delivery.sha256), (18, sum(b"HEADbody, and more")));
    }

    #[test]
    fn a_stream_stays_one_where_it_cannot() {
        let mut far = FakeFar::default();
        let delivery = put_flattened(&mut far, &url(), "d/vmcore", &mut &stream()[..], &meter()).unwrap();
        assert_eq!(far.files["/srv/crash/d/vmcore.flat"], stream());
        assert_eq!((delivery.name.as_str(), delivery.sha256), ("vmcore.flat", sum(&stream())));
    }

    #[test]
    fn a_stream_that_ends_early_gets_no_final_name() {
        let whole = stream();
        for positioned in [false, true] {
            let mut far = FakeFar { positioned, ..FakeFar::default() };
            let cut = &mut &whole[..whole.len() - 3];
            let error = put_flattened(&mut far, &url(), "d/vmcore", cut, &meter()).unwrap_err();
            assert!(format!("{error:#}").contains("the stream ends early"), "{error:#}");
            assert!(far.files.keys().all(|name| name.ends_with(INCOMPLETE)), "{:?}", far.files.keys());
            let error = put_flattened(&mut far, &url(), "d/vmcore", &mut &b"nonsense"[..], &meter()).unwrap_err();
            assert!(format!("{error:#}").contains("no flattened dump"), "{error:#}");
        }
    }

    #[test]
    fn a_refusal_in_mid_stream_is_told_with_what_had_been_sent() {
        let whole = stream();
        let mut far = FakeFar { room: Some(100), ..FakeFar::default() };
        let error = put_flattened(&mut far, &url(), "d/vmcore", &mut &whole[..], &meter()).unwrap_err();
        let text = format!("{error:#}");
        assert_eq!(text, "cannot store /srv/crash/d/vmcore.flat-incomplete: 100 bytes had been sent: no room");
        let mut far = FakeFar { positioned: true, room: Some(2), ..FakeFar::default() };
        let error = put_flattened(&mut far, &url(), "d/vmcore", &mut &whole[..], &meter()).unwrap_err();
        assert!(
            format!("{error:#}").ends_with("2 bytes had been sent: unable to write all data: no room"),
            "{error:#}"
        );
    }

    #[test]
    fn a_file_that_is_shorter_there_gets_no_final_name() {
        let mut far = FakeFar { loses: 1, ..FakeFar::default() };
        let error = put(&mut far, &url(), "d/log", &mut &b"hello"[..], &meter()).unwrap_err();
        assert!(error.to_string().contains("has 4 bytes on the far side, 5 were sent"), "{error}");
        assert!(!far.files.contains_key("/srv/crash/d/log"));
    }

    #[test]
    fn a_name_that_is_taken_gets_a_number() {
        let mut far = FakeFar::default();
        let names: Vec<String> = (0..3).map(|_| make_dir(&mut far, &url(), "d").unwrap()).collect();
        assert_eq!(names, ["d", "d.1", "d.2"]);
        assert_eq!(far.journal[..3], ["mkdir /srv", "mkdir /srv/crash", "mkdir /srv/crash/d"]);
        let root: Url = "ftp://nas".parse().unwrap();
        assert_eq!(make_dir(&mut far, &root, "d").unwrap(), "d");
        assert_eq!(far.journal.last().unwrap(), "mkdir /d");
    }
}
