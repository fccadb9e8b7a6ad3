//! What is where on a raw target. The capture environment writes it, `kdumpctl recover` reads it.
//!
//! ```text
//!  0     header, 512 bytes: a sector, which a disk writes as a whole or not at all
//!        0  "KDUMPRAW"   8  version: u32   12  state: u32   16  time: u64, seconds since 1970
//!        24 kernel release, 64 bytes padded with NUL
//!        88 four parts: state: u64, offset: u64, length: u64, sha256: 32 bytes
//!        472 "KDUMPRAW"  480 sha256 of all before
//!  512   zeros, so that nothing that was there is taken for a file system
//!  4096  the parts, each at a multiple of 4096, in order of writing
//! ```
//!
//! Numbers have their little end first. The header is written as "begun" before anything else, and again, when the data
//! is on stable storage, as each part comes to its end: whenever the power fails, what it says is true. The dump is the
//! collector's flattened stream (any bytes, if the collector is neither ours nor makedumpfile).
//!
//! May surprise: of a part that is only begun nothing is known but where it begins; older dumps may lie behind it.

use sha2::{Digest, Sha256};
use std::fmt;

/// The first bytes of a header, and the last before its checksum: no single flaw makes one of ours a foreign one.
pub const MAGIC: &[u8; 8] = b"KDUMPRAW";
/// The only version so far.
pub const VERSION: u32 = 1;
/// Bytes of the header.
pub const HEADER: usize = 512;
/// Parts begin at multiples of this; the first one at this.
pub const ALIGNMENT: u64 = 4096;
/// The first bytes of a flattened stream.
pub const FLATTENED: &[u8; 16] = b"makedumpfile\0\0\0\0";

const RELEASE: usize = 24;
const RELEASE_LENGTH: usize = 64;
const PARTS: usize = RELEASE + RELEASE_LENGTH;
const PART: usize = 56;
const END_MAGIC: usize = 472;
const CHECKSUM: usize = 480;

/// The parts, in order of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// `vmcore-dmesg.txt`
    Log,
    /// `vmcore`
    Vmcore,
    /// `kexec-dmesg.log`
    EnvironmentLog,
    /// `status.json`
    Status,
}

impl Name {
    /// All of them.
    pub const ALL: [Name; 4] = [Name::Log, Name::Vmcore, Name::EnvironmentLog, Name::Status];

    /// What the file of a dump directory is called.
    pub fn file(self) -> &'static str {
        match self {
            Name::Log => "vmcore-dmesg.txt",
            Name::Vmcore => "vmcore",
            Name::EnvironmentLog => "kexec-dmesg.log",
            Name::Status => "status.json",
        }
    }

    /// The part that is the file of that name.
    pub fn of_file(file: &str) -> Option<Name> {
        Name::ALL.into_iter().find(|name| name.file() == file)
    }
}

/// How far it has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing has been written.
    #[default]
    Nothing,
    /// It is being written, or was when the capture kernel ended.
    Begun,
    /// It has come to its end, and something is missing.
    Incomplete,
    /// It is whole.
    Complete,
}

impl State {
    fn number(self) -> u32 {
        self as u32
    }

    fn of(number: u64) -> Option<State> {
        [State::Nothing, State::Begun, State::Incomplete, State::Complete]
            .into_iter()
            .find(|state| u64::from(state.number()) == number)
    }
}

/// One part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// How far it has come.
    pub state: State,
    /// Where it begins.
    pub offset: u64,
    /// How long it is; 0 until it has come to its end.
    pub length: u64,
    /// The sha256 of its bytes.
    pub sha256: [u8; 32],
}

impl Part {
    /// Where it ends.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    /// Whether there is anything of it that can be read.
    pub fn is_readable(&self) -> bool {
        matches!(self.state, State::Incomplete | State::Complete)
    }
}

/// What a raw target says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// How far the dump has come as a whole.
    pub state: State,
    /// When it was begun, in seconds since 1970.
    pub time: u64,
    /// The kernel release, at most 64 bytes.
    pub kernel_release: String,
    /// The parts, in the order of [`Name::ALL`].
    pub parts: [Part; 4],
}

/// Why there is no header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bad {
    /// It is something else.
    Foreign,
    /// Of a version that is not known.
    Version(u32),
    /// Damaged, and how.
    Corrupt(&'static str),
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bad::Foreign => f.write_str("it is no header of a raw target"),
            Bad::Version(version) => write!(f, "the header is of version {version}, this program knows {VERSION}"),
            Bad::Corrupt(how) => write!(f, "the header is damaged: {how}"),
        }
    }
}

impl std::error::Error for Bad {}

impl Header {
    /// Of a dump that has just been begun.
    pub fn begun(time: u64, kernel_release: &str) -> Header {
        let mut kernel_release = kernel_release.to_owned();
        while kernel_release.len() > RELEASE_LENGTH {
            kernel_release.pop();
        }
        Header { state: State::Begun, time, kernel_release, parts: [Part::default(); 4] }
    }

    /// A part.
    pub fn part(&self, name: Name) -> &Part {
        let [log, vmcore, environment_log, status] = &self.parts;
        match name {
            Name::Log => log,
            Name::Vmcore => vmcore,
            Name::EnvironmentLog => environment_log,
            Name::Status => status,
        }
    }

    /// A part, to be changed.
    pub fn part_mut(&mut self, name: Name) -> &mut Part {
        let [log, vmcore, environment_log, status] = &mut self.parts;
        match name {
            Name::Log => log,
            Name::Vmcore => vmcore,
            Name::EnvironmentLog => environment_log,
            Name::Status => status,
        }
    }

    /// As it is on the device.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.state.number().to_le_bytes());
        bytes.extend(self.time.to_le_bytes());
        bytes.extend(self.kernel_release.bytes().take(RELEASE_LENGTH));
        bytes.resize(PARTS, 0);
        for part in &self.parts {
            bytes.extend(u64::from(part.state.number()).to_le_bytes());
            bytes.extend(part.offset.to_le_bytes());
            bytes.extend(part.length.to_le_bytes());
            bytes.extend(part.sha256);
        }
        bytes.resize(END_MAGIC, 0);
        bytes.extend(MAGIC);
        let checksum = Sha256::digest(&bytes);
        bytes.extend(checksum);
        let mut header = [0; HEADER];
        for (to, from) in header.iter_mut().zip(bytes) {
            *to = from;
        }
        header
    }

    /// Reads the first bytes of a device.
    ///
    /// # Errors
    /// It is something else, or damaged, or says what cannot be.
    pub fn decode(bytes: &[u8]) -> Result<Header, Bad> {
        let field = |at: usize, length: usize| bytes.get(at..at + length);
        if field(0, 8) != Some(MAGIC) && field(END_MAGIC, 8) != Some(MAGIC) {
            return Err(Bad::Foreign);
        }
        let (Some(checked), Some(checksum)) = (field(0, CHECKSUM), field(CHECKSUM, HEADER - CHECKSUM)) else {
            return Err(Bad::Corrupt("it is cut short"));
        };
        if Sha256::digest(checked).as_slice() != checksum {
            return Err(Bad::Corrupt("its checksum is wrong"));
        }
        let number = |at: usize| field(at, 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        let version = u32::try_from(number(8) & u64::from(u32::MAX)).unwrap_or_default();
        if version != VERSION {
            return Err(Bad::Version(version));
        }
        let state = |number| State::of(number).ok_or(Bad::Corrupt("it has a state that is none"));
        let release = field(RELEASE, RELEASE_LENGTH).unwrap_or_default();
        let release = release.split(|byte| *byte == 0).next().unwrap_or_default();
        let release = std::str::from_utf8(release).map_err(|_| Bad::Corrupt("the kernel release is no text"))?;
        let mut header = Header {
            state: state(number(8) >> 32)?,
            time: number(16),
            kernel_release: release.to_owned(),
            parts: [Part::default(); 4],
        };
        for (index, part) in header.parts.iter_mut().enumerate() {
            let at = PARTS + index * PART;
            *part = Part {
                state: state(number(at))?,
                offset: number(at + 8),
                length: number(at + 16),
                sha256: field(at + 24, 32).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default(),
            };
        }
        header.check()?;
        Ok(header)
    }

    /// Parts are in order, behind the header and behind each other.
    fn check(&self) -> Result<(), Bad> {
        let mut free = ALIGNMENT;
        for part in &self.parts {
            if part.state == State::Nothing {
                if *part != Part::default() {
                    return Err(Bad::Corrupt("a part that is not there has a place"));
                }
                continue;
            }
            if part.offset < free || !part.offset.is_multiple_of(ALIGNMENT) {
                return Err(Bad::Corrupt("a part is where it cannot be"));
            }
            let end = part.offset.checked_add(part.length).and_then(aligned);
            free = end.ok_or(Bad::Corrupt("a part is longer than any device"))?;
        }
        Ok(())
    }
}

/// The next place where a part can begin.
pub fn aligned(offset: u64) -> Option<u64> {
    offset.checked_next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn header()(
            time: u64,
            kernel_release in "[ -~]{0,64}",
            state in 0..4u64,
            parts in proptest::array::uniform4((0..4u64, 0..1u64 << 40, any::<[u8; 32]>())),
        ) -> Header {
            let mut free = ALIGNMENT;
            let parts = parts.map(|(state, length, sha256)| {
                let state = State::of(state).unwrap();
                if state == State::Nothing {
                    return Part::default();
                }
                let part = Part { state, offset: free, length, sha256 };
                free = aligned(part.end()).unwrap();
                part
            });
            Header { state: State::of(state).unwrap(), time, kernel_release, parts }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(header in header()) {
            prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn a_flipped_bit_is_noticed_wherever_it_is(header in header(), bit in 0..HEADER * 8) {
            let mut bytes = header.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Header::decode(&bytes), Err(Bad::Corrupt("its checksum is wrong")));
        }

        #[test]
        fn a_header_that_is_cut_short_is_noticed(header in header(), length in 8..HEADER) {
            prop_assert_eq!(Header::decode(&header.encode()[..length]), Err(Bad::Corrupt("it is cut short")));
        }

        #[test]
        fn any_bytes_with_a_right_checksum_are_taken_in_peace(mut bytes in proptest::collection::vec(any::<u8>(), CHECKSUM)) {
            bytes[..8].copy_from_slice(MAGIC);
            bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
            bytes.extend(Sha256::digest(&bytes));
            if let Ok(header) = Header::decode(&bytes) {
                prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
            }
        }
    }

    #[test]
    fn another_version_and_anything_else_are_told_apart() {
        let mut bytes = Header::begun(7, "6.1").encode();
        bytes[8] = 2;
        let checksum = Sha256::digest(&bytes[..CHECKSUM]);
        bytes[CHECKSUM..].copy_from_slice(&checksum);
        assert_eq!(Header::decode(&bytes), Err(Bad::Version(2)));
        for other in [&[0; HEADER][..], FLATTENED, &[]] {
            assert_eq!(Header::decode(other), Err(Bad::Foreign));
        }
    }

    #[test]
    fn parts_that_overlap_or_lie_in_the_header_are_refused() {
        let part = |offset, length| Part { state: State::Complete, offset, length, sha256: [0; 32] };
        for (log, vmcore) in [
            (part(0, 1), Part::default()),
            (part(4097, 1), Part::default()),
            (part(4096, 5000), part(8192, 1)),
            (part(4096, u64::MAX), Part::default()),
        ] {
            let mut header = Header::begun(7, "6.1");
            (header.parts[0], header.parts[1]) = (log, vmcore);
            assert!(matches!(Header::decode(&header.encode()), Err(Bad::Corrupt(_))), "{header:?}");
        }
    }

    #[test]
    fn a_release_that_is_too_long_is_cut() {
        let header = Header::begun(7, &"ä".repeat(40));
        assert_eq!(Header::decode(&header.encode()).unwrap().kernel_release, "ä".repeat(32));
    }
}
