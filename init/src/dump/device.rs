//! A device without a file system as the place of one dump.
//!
//! What is where on it is told by [`kdump_hooks::raw::layout`]. A part has come to its end when its bytes have been
//! flushed and read back, and the header that says so has been flushed too.
//!
//! May surprise: some room at the end of the device is kept from a dump that does not fit, so that its status does; that
//! dump is cut shorter still. Where the length of a part is not known, what follows it goes there as well.

use super::collect::Collector;
use super::digest::{hex, sha256_of};
use super::place::{Address, Place};
use crate::beat::{Beat, Pulse};
use crate::devices;
use crate::status::{FileReport, Outcome};
use anyhow::{Context, anyhow, bail};
use kdump_hooks::raw::layout::{ALIGNMENT, FLATTENED, HEADER, Header, Name, Part, State, aligned};
use log::warn;
use nix::fcntl::OFlag;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The room for the last files of a dump that does not fit.
const KEPT: u64 = 1 << 20;
/// At most such a part of a stream is not the dump itself: the heads of its records.
const STREAM_PART: u64 = 256;
/// No dump fits into less.
const LEAST: u64 = 8 << 20;

/// A device, or a file in its place.
#[derive(Debug)]
pub struct RawDevice {
    node: PathBuf,
    /// As it is on the device; none, if that could not be read.
    header: Option<Header>,
}

impl RawDevice {
    /// Begins a dump: from here on, whatever was on the device is lost.
    ///
    /// # Errors
    /// It holds something that is not to be overwritten, is in use, or cannot be written to.
    pub fn begin(node: &Path, force: bool, kernel_release: &str, now: SystemTime) -> anyhow::Result<RawDevice> {
        let mut device = open(node, OFlag::O_EXCL)?;
        let size = device.seek(SeekFrom::End(0)).with_context(|| format!("cannot size {}", node.display()))?;
        if size < LEAST {
            bail!("{} has {size} bytes, which is too little for a dump", node.display());
        }
        let mut first = [0; HEADER];
        device.read_exact_at(&mut first, 0).with_context(|| format!("cannot read {}", node.display()))?;
        let old = Header::decode(&first);
        if let Ok(old) = &old {
            warn!(
                "the dump of kernel {} on {} was not recovered; it is overwritten",
                old.kernel_release,
                node.display()
            );
        } else if !force {
            refuse_what_is_not_ours(&mut device, node)?;
        }
        let time = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut place = RawDevice { node: node.to_owned(), header: Some(Header::begun(time, kernel_release)) };
        place.flush_header(&device)?;
        let rest = vec![0; usize::try_from(ALIGNMENT).unwrap_or_default().saturating_sub(HEADER)];
        device
            .write_all_at(&rest, HEADER as u64)
            .and_then(|()| device.sync_all())
            .with_context(|| format!("cannot write to {}", node.display()))?;
        Ok(place)
    }

    /// A device on which another process has begun.
    pub fn existing(node: PathBuf) -> RawDevice {
        let header = header_of(&node).inspect_err(|error| warn!("{error:#}")).ok();
        RawDevice { node, header }
    }

    fn header(&self) -> anyhow::Result<&Header> {
        self.header.as_ref().with_context(|| format!("{} has no header that can be used", self.node.display()))
    }

    /// Puts the header on stable storage.
    fn flush_header(&mut self, device: &File) -> anyhow::Result<()> {
        let header = self.header()?.encode();
        device
            .write_all_at(&header, 0)
            .and_then(|()| device.sync_all())
            .with_context(|| format!("cannot write the header of {}", self.node.display()))
    }

    /// Where a part begins on a device of that size: behind what was written before it.
    fn start_of(&self, name: Name, size: u64) -> anyhow::Result<u64> {
        let header = self.header()?;
        let mut offset = ALIGNMENT;
        for earlier in Name::ALL.into_iter().take_while(|earlier| *earlier != name) {
            let part = header.part(earlier);
            let end = match part.state {
                State::Nothing => offset,
                // Nobody knows how long it is.
                State::Begun => aligned(part.offset.max(size.saturating_sub(KEPT))).unwrap_or(size),
                State::Incomplete | State::Complete => aligned(part.end()).unwrap_or(size),
            };
            offset = end.max(offset);
        }
        Ok(offset)
    }

    /// Says that a part is being written; the device then stands where it begins.
    fn begin_part(&mut self, name: Name) -> anyhow::Result<Writing> {
        let node = self.node.display().to_string();
        let mut device = open(&self.node, OFlag::empty())?;
        let size = device.seek(SeekFrom::End(0)).with_context(|| format!("cannot size {node}"))?;
        let offset = self.start_of(name, size)?;
        if offset >= size {
            bail!("{node} is full: no room is left for {}", name.file());
        }
        if let Some(header) = &mut self.header {
            *header.part_mut(name) = Part { state: State::Begun, offset, ..Part::default() };
        }
        self.flush_header(&device)?;
        device.seek(SeekFrom::Start(offset)).with_context(|| format!("cannot write to {node}"))?;
        Ok(Writing { name, device, offset, size })
    }

    /// Notes how a part came out: its data first, then the header.
    fn end_part(
        &mut self,
        writing: Writing,
        written: anyhow::Result<()>,
        tick: &mut dyn FnMut(),
    ) -> anyhow::Result<()> {
        let Writing { name, mut device, offset, size } = writing;
        let node = self.node.display().to_string();
        let mut end = device.stream_position().with_context(|| format!("cannot tell the place on {node}"))?;
        let flushed = device.sync_all().with_context(|| format!("cannot flush {} on {node}", name.file()));
        // A file in place of a device grows where a device is full.
        let fits = if end <= size { Ok(()) } else { Err(anyhow!("{node} is full: it has {size} bytes")) };
        let outcome = written.and(flushed).and(fits);
        if outcome.is_err() {
            end = end.min(size.saturating_sub(KEPT)).max(offset);
        }
        let length = end - offset;
        let bytes = device.seek(SeekFrom::Start(offset)).and_then(|_| sha256_of(&mut (&device).take(length), tick));
        let (outcome, sha256) = match bytes.with_context(|| format!("cannot read {} back from {node}", name.file())) {
            Ok((read, sha256)) if read == length => (outcome, sha256),
            Ok((read, _)) => (Err(anyhow!("of {} on {node} only {read} bytes can be read back", name.file())), [0; 32]),
            Err(error) => (outcome.and(Err(error)), [0; 32]),
        };
        let state = if outcome.is_ok() { State::Complete } else { State::Incomplete };
        if let Some(header) = &mut self.header {
            *header.part_mut(name) = Part { state, offset, length, sha256 };
        }
        self.end_dump(name);
        let noted = self.flush_header(&device);
        outcome.and(noted)
    }

    /// After its last part a dump is what its most important one is.
    fn end_dump(&mut self, last: Name) {
        if let Some(header) = &mut self.header
            && last == Name::Status
        {
            let is_whole = header.part(Name::Vmcore).state == State::Complete;
            header.state = if is_whole { State::Complete } else { State::Incomplete };
        }
    }
}

/// A part in the making.
struct Writing {
    name: Name,
    device: File,
    offset: u64,
    size: u64,
}

impl Place for RawDevice {
    fn address(&self) -> Address {
        Address::Device(self.node.clone())
    }

    /// What lies behind the log, but for what is kept for the last files, and for what a stream says of its pieces.
    fn room(&self) -> Option<u64> {
        let size = File::open(&self.node).and_then(|mut device| device.seek(SeekFrom::End(0))).ok()?;
        let room = size.checked_sub(self.start_of(Name::Vmcore, size).ok()?)?.saturating_sub(KEPT);
        Some(room.saturating_sub(room / STREAM_PART).saturating_sub(ALIGNMENT))
    }

    fn collect(&mut self, name: &str, collector: &Collector, pulse: &mut dyn Pulse) -> anyhow::Result<()> {
        let part = part_of(name)?;
        let writing = self.begin_part(part)?;
        let output = writing.device.try_clone().context("cannot share the device");
        let written = output.and_then(|output| collector.into_stream(output).run(pulse)).and_then(|()| {
            // A log can be empty, a dump cannot.
            let is_empty = (&writing.device).stream_position().is_ok_and(|place| place == writing.offset);
            match is_empty && part == Name::Vmcore {
                true => bail!("the collector ended well but wrote nothing"),
                false => Ok(()),
            }
        });
        // Reading back takes about as long as writing; the supervisor is told now and then.
        let patience = collector.stall + Duration::from_secs(30);
        pulse.beat(Beat::Still(patience));
        self.end_part(writing, written, &mut || pulse.beat(Beat::Still(patience)))
    }

    fn write(&mut self, name: &str, pieces: &mut dyn Iterator<Item = Vec<u8>>) -> anyhow::Result<()> {
        let part = part_of(name)?;
        let begun = self.begin_part(part);
        let writing = match begun {
            Ok(writing) => writing,
            Err(error) => {
                self.end_dump(part);
                let noted = open(&self.node, OFlag::empty()).and_then(|device| self.flush_header(&device));
                noted.unwrap_or_else(|error| warn!("{error:#}"));
                return Err(error);
            }
        };
        let mut room = writing.size - writing.offset;
        let written: anyhow::Result<()> = (|| {
            for piece in pieces {
                room = room
                    .checked_sub(piece.len() as u64)
                    .with_context(|| format!("{} is full: no room is left for all of {name}", self.node.display()))?;
                (&writing.device).write_all(&piece)?;
            }
            Ok(())
        })();
        let written = written.with_context(|| format!("cannot write {name} to {}", self.node.display()));
        self.end_part(writing, written, &mut || ())
    }

    /// The header is sealed with the status, and tells nothing but the truth at any moment.
    fn replace(&mut self, _name: &str, _text: Vec<u8>) -> anyhow::Result<()> {
        bail!("nothing is written twice to {}", self.node.display())
    }

    fn outcome(&self) -> Outcome {
        match self.header.as_ref().map(|header| header.part(Name::Vmcore)) {
            Some(Part { state: State::Complete, .. }) => Outcome::Complete,
            Some(Part { state: State::Begun, .. }) => Outcome::Incomplete,
            Some(Part { state: State::Incomplete, length, .. }) if *length > 0 => Outcome::Incomplete,
            _ => Outcome::Failed,
        }
    }

    fn files(&self, most: u64, _tick: &mut dyn FnMut()) -> Vec<FileReport> {
        let Some(header) = &self.header else { return Vec::new() };
        let parts = Name::ALL.into_iter().map(|name| (name, header.part(name)));
        parts
            .filter(|(_, part)| part.is_readable() && part.length <= most)
            .map(|(name, part)| {
                let flat = if self.is_flattened(part) { ".flat" } else { "" };
                let incomplete = if part.state == State::Incomplete { "-incomplete" } else { "" };
                let name = format!("{}{flat}{incomplete}", name.file());
                FileReport { name, bytes: part.length, sha256: hex(&part.sha256) }
            })
            .collect()
    }
}

impl RawDevice {
    fn is_flattened(&self, part: &Part) -> bool {
        let mut first = [0; FLATTENED.len()];
        let read = File::open(&self.node).and_then(|device| device.read_exact_at(&mut first, part.offset));
        read.is_ok() && part.length >= first.len() as u64 && first == *FLATTENED
    }
}

/// What was free when the image was built may have been put to use, or have got another disk's name.
fn refuse_what_is_not_ours(device: &mut File, node: &Path) -> anyhow::Result<()> {
    let content = devices::content(device).with_context(|| format!("cannot read {}", node.display()))?;
    let partitions = devices::has_partitions(device, Path::new("/sys"))
        .with_context(|| format!("cannot look at {}", node.display()))?;
    match content.or(partitions.then_some("partitions")) {
        None => Ok(()),
        Some(what) => bail!(
            "{} holds {what}, which is not overwritten; name another device in kdump.conf, or `raw_force yes`",
            node.display()
        ),
    }
}

fn part_of(name: &str) -> anyhow::Result<Name> {
    Name::of_file(name).with_context(|| format!("a raw target has no place for {name}"))
}

fn open(node: &Path, flags: OFlag) -> anyhow::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .custom_flags(flags.bits())
        .open(node)
        .with_context(|| format!("cannot open {} for writing", node.display()))
}

fn header_of(node: &Path) -> anyhow::Result<Header> {
    let mut first = [0; HEADER];
    let reading = || format!("cannot read the header of {}", node.display());
    File::open(node).and_then(|device| device.read_exact_at(&mut first, 0)).with_context(reading)?;
    Header::decode(&first).with_context(reading)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::{ENVIRONMENT_LOG, LOG, VMCORE};
    use crate::status;

    const SIZE: u64 = 16 << 20;

    fn disk(size: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        file
    }

    fn begin(disk: &tempfile::NamedTempFile) -> RawDevice {
        RawDevice::begin(disk.path(), false, "6.1", UNIX_EPOCH + Duration::from_secs(77)).unwrap()
    }

    fn collect(place: &mut RawDevice, name: &str, script: &str) -> anyhow::Result<()> {
        let command = ["sh", "-c", script].map(str::to_owned);
        let stall = Duration::from_secs(20);
        let collector = Collector { command: &command, vmcore: "/v".as_ref(), report: "/r".as_ref(), stall };
        place.collect(name, &collector, &mut Vec::new())
    }

    fn write(place: &mut RawDevice, name: &str, text: &str) -> anyhow::Result<()> {
        place.write(name, &mut std::iter::once(text.as_bytes().to_vec()))
    }

    /// What the header says and what is in the part.
    fn part(disk: &tempfile::NamedTempFile, name: Name) -> (State, Vec<u8>) {
        let part = *header_of(disk.path()).unwrap().part(name);
        let mut bytes = vec![0; usize::try_from(part.length).unwrap()];
        disk.as_file().read_exact_at(&mut bytes, part.offset).unwrap();
        if part.is_readable() {
            assert_eq!(sha256_of(&mut &bytes[..], &mut || ()).unwrap().1, part.sha256);
        }
        (part.state, bytes)
    }

    #[test]
    fn parts_follow_each_other_and_the_header_knows_them() {
        let disk = disk(SIZE);
        let mut place = begin(&disk);
        assert_eq!(header_of(disk.path()).unwrap(), Header::begun(77, "6.1"));
        collect(&mut place, LOG, "echo log").unwrap();
        assert_eq!((part(&disk, Name::Log), place.outcome()), ((State::Complete, b"log\n".to_vec()), Outcome::Failed));
        collect(&mut place, VMCORE, "printf 'makedumpfile\\0\\0\\0\\0 and more'").unwrap();
        assert_eq!((header_of(disk.path()).unwrap().state, place.outcome()), (State::Begun, Outcome::Complete));
        write(&mut place, ENVIRONMENT_LOG, "own log").unwrap();
        let names: Vec<String> = place.files(u64::MAX, &mut || ()).into_iter().map(|file| file.name).collect();
        assert_eq!(names, [LOG, "vmcore.flat", ENVIRONMENT_LOG]);
        write(&mut place, status::FILE, "{}").unwrap();
        let header = header_of(disk.path()).unwrap();
        assert_eq!(header.state, State::Complete);
        assert_eq!(header.parts.map(|part| part.offset), [4096, 8192, 12288, 16384]);
        assert_eq!(part(&disk, Name::Status), (State::Complete, b"{}".to_vec()));
    }

    #[test]
    fn a_collector_that_fails_leaves_an_incomplete_part_with_what_it_wrote() {
        let disk = disk(SIZE);
        let mut place = begin(&disk);
        let error = collect(&mut place, VMCORE, "echo half; echo no room >&2; exit 1").unwrap_err();
        assert!(format!("{error:#}").contains("no room"), "{error:#}");
        assert_eq!(part(&disk, Name::Vmcore), (State::Incomplete, b"half\n".to_vec()));
        assert_eq!(place.outcome(), Outcome::Incomplete);
        assert_eq!(place.files(u64::MAX, &mut || ())[0].name, "vmcore-incomplete");
        write(&mut place, status::FILE, "{}").unwrap();
        assert_eq!(header_of(disk.path()).unwrap().state, State::Incomplete);
    }

    #[test]
    fn a_device_that_is_full_has_an_incomplete_dump_and_yet_room_for_its_status() {
        let disk = disk(SIZE);
        let mut place = begin(&disk);
        collect(&mut place, LOG, "echo log").unwrap();
        let error = collect(&mut place, VMCORE, "head -c 20000000 /dev/zero").unwrap_err();
        assert!(format!("{error:#}").contains("is full"), "{error:#}");
        // A device would not have grown.
        disk.as_file().set_len(SIZE).unwrap();
        write(&mut place, ENVIRONMENT_LOG, "own log").unwrap();
        write(&mut place, status::FILE, "{}").unwrap();
        let header = header_of(disk.path()).unwrap();
        assert_eq!((header.state, header.part(Name::Vmcore).end()), (State::Incomplete, SIZE - KEPT));
        assert_eq!(part(&disk, Name::Status), (State::Complete, b"{}".to_vec()));
        // What does not fit even there is told, and the status that is cut is not called complete.
        let error = write(&mut place, status::FILE, &"x".repeat(2 << 20)).unwrap_err();
        assert!(format!("{error:#}").contains("no room is left for all of status.json"), "{error:#}");
        assert_eq!(part(&disk, Name::Status).0, State::Incomplete);
    }

    #[test]
    fn a_dump_that_fills_the_device_to_its_last_byte_is_complete_though_there_is_no_room_for_more() {
        let disk = disk(SIZE);
        let mut place = begin(&disk);
        collect(&mut place, VMCORE, &format!("head -c {} /dev/zero", SIZE - ALIGNMENT)).unwrap();
        for name in [ENVIRONMENT_LOG, status::FILE] {
            let error = write(&mut place, name, "{}").unwrap_err();
            assert!(format!("{error:#}").contains(&format!("no room is left for {name}")), "{error:#}");
        }
        let header = header_of(disk.path()).unwrap();
        assert_eq!((header.state, header.part(Name::Status).state), (State::Complete, State::Nothing));
    }

    #[test]
    fn after_a_part_of_which_nobody_knows_the_length_the_aftermath_still_finds_room() {
        let disk = disk(SIZE);
        let mut place = begin(&disk);
        collect(&mut place, LOG, "echo log").unwrap();
        place.begin_part(Name::Vmcore).unwrap();
        let mut place = Address::Device(disk.path().to_owned()).place();
        assert_eq!(place.outcome(), Outcome::Incomplete);
        place.write(status::FILE, &mut std::iter::once(b"{}".to_vec())).unwrap();
        let header = header_of(disk.path()).unwrap();
        assert_eq!((header.state, header.part(Name::Vmcore).state), (State::Incomplete, State::Begun));
        assert_eq!(header.part(Name::Status).offset, SIZE - KEPT);
    }

    #[test]
    fn a_file_system_is_overwritten_only_by_force_and_an_older_dump_always() {
        let disk = disk(SIZE);
        let ext = |at| disk.as_file().write_all_at(&[0x53, 0xef], at).unwrap();
        ext(1024 + 56);
        let begin = |force| RawDevice::begin(disk.path(), force, "6.1", UNIX_EPOCH);
        let error = begin(false).unwrap_err().to_string();
        assert!(error.contains("holds ext, which is not overwritten") && error.contains("raw_force"), "{error}");
        begin(true).unwrap();
        assert_eq!(devices::probe(&mut File::open(disk.path()).unwrap()).unwrap(), None);
        begin(false).unwrap();
        // makedumpfile's own raw stream is no reason either.
        disk.as_file().write_all_at(FLATTENED, 0).unwrap();
        ext(1024 + 56);
        begin(false).unwrap();
    }

    #[test]
    fn what_came_onto_the_device_after_the_build_is_not_overwritten() {
        for (what, at, magic) in [
            ("a partition table", 512, &b"EFI PART"[..]),
            ("swap", 4086, b"SWAPSPACE2"),
            ("ntfs", 3, b"NTFS    "),
            ("minix", 1048, &[0x5a, 0x4d]),
        ] {
            let disk = disk(SIZE);
            disk.as_file().write_all_at(magic, at).unwrap();
            let before = std::fs::read(disk.path()).unwrap();
            let begin = |force| RawDevice::begin(disk.path(), force, "6.1", UNIX_EPOCH);
            let error = begin(false).unwrap_err().to_string();
            assert!(error.contains(&format!("holds {what}, which is not overwritten")), "{error}");
            assert!(std::fs::read(disk.path()).unwrap() == before, "{what} has been touched");
            begin(true).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_a_target_is_refused_with_its_reason() {
        let small = disk(4096);
        let begin = |path: &Path| RawDevice::begin(path, false, "6.1", UNIX_EPOCH).unwrap_err();
        assert!(begin(small.path()).to_string().contains("too little"));
        assert!(begin("/nonexistent".as_ref()).to_string().contains("cannot open /nonexistent"));
        let mut place = RawDevice::existing(small.path().to_owned());
        assert_eq!(place.outcome(), Outcome::Failed);
        let error = place.write(status::FILE, &mut std::iter::empty()).unwrap_err();
        assert!(error.to_string().contains("has no header"), "{error}");
        assert!(place.write("surprise", &mut std::iter::empty()).is_err());
    }

    #[test]
    fn a_device_that_takes_nothing_says_so() {
        // Writing to /dev/full fails as a full disk does.
        let mut place = RawDevice { node: "/dev/full".into(), header: Some(Header::begun(7, "6.1")) };
        let device = open("/dev/full".as_ref(), OFlag::empty()).unwrap();
        let error = format!("{:#}", place.flush_header(&device).unwrap_err());
        assert!(error.contains("cannot write the header of /dev/full: No space left"), "{error}");
    }
}
