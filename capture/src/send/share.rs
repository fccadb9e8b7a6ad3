//! How much of a dump has come, told from the dump itself as it passes. In: its bytes with their positions, in the order
//! of a stream. Out: a share, for progress and the time that is left.
//! May surprise: how long a stream will be nobody knows, as its pages are packed on the way. But bitmap 2, which comes
//! early, says how many pages there will be, and each page's descriptor comes with its data. An ELF dump has neither:
//! nothing is told of it.

use crate::dumpfile::layout::{DESCRIPTOR, Header};
use crate::dumpfile::memory::ones;
use crate::output::Output;
use crate::progress::Meter;
use crate::units::{FileOffset, to_usize};
use std::io;
use std::sync::{Mutex, PoisonError};

/// The header and what follows it lie within so many bytes, with pages of any size.
const START: usize = (64 << 10) + 4096;

/// What has been seen of a dump.
#[derive(Debug, Default)]
pub struct Share {
    start: Vec<u8>,
    header: Option<Header>,
    kept: u64,
    described: u64,
}

impl Share {
    /// `bytes` have come, which belong at `at`.
    pub fn see(&mut self, at: u64, bytes: &[u8]) {
        if self.header.is_none() {
            self.header = self.begin(at, bytes);
        }
        let Some(header) = &self.header else { return };
        let (bitmap, descriptors) = (header.bitmap2_at().0, header.descriptors_at().0);
        self.kept += ones(inside(at, bytes, bitmap, bitmap + header.bitmap_bytes()));
        let end = descriptors.saturating_add(self.kept.saturating_mul(DESCRIPTOR as u64));
        self.described += inside(at, bytes, descriptors, end).len() as u64;
    }

    fn begin(&mut self, at: u64, bytes: &[u8]) -> Option<Header> {
        let from = to_usize(at).filter(|at| *at < START)?;
        let end = from.saturating_add(bytes.len()).min(START);
        self.start.resize(self.start.len().max(end), 0);
        self.start.get_mut(from..end)?.copy_from_slice(bytes.get(..end - from)?);
        Header::read(&self.start).ok()
    }

    /// What has come, and what will have come in the end, in the same unit; `None` if that is not known.
    pub fn known(&self) -> Option<(u64, u64)> {
        let all = self.kept * DESCRIPTOR as u64;
        (all > 0).then(|| (self.described.min(all), all))
    }
}

/// The part of `bytes`, which are at `at`, that lies from `start` on and before `end`.
fn inside(at: u64, bytes: &[u8], start: u64, end: u64) -> &[u8] {
    let place = |position: u64| to_usize(position.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len());
    bytes.get(place(start)..place(end)).unwrap_or_default()
}

/// Passes everything on to `out`, and tells `meter` how much there is to come.
pub struct Shared<'a> {
    out: &'a dyn Output,
    share: Mutex<Share>,
    meter: &'a Meter,
}

impl std::fmt::Debug for Shared<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("share", &self.share).finish_non_exhaustive()
    }
}

impl<'a> Shared<'a> {
    /// Of a dump of which nothing has come yet.
    pub fn new(out: &'a dyn Output, meter: &'a Meter) -> Shared<'a> {
        Shared { out, share: Mutex::default(), meter }
    }
}

impl Output for Shared<'_> {
    fn write_at(&self, at: FileOffset, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.out.write_at(at, bytes)?;
        let mut share = self.share.lock().unwrap_or_else(PoisonError::into_inner);
        share.see(at.0, bytes.get(..sent).unwrap_or_default());
        if let Some((came, all)) = share.known() {
            self.meter.share(came, all);
        }
        Ok(sent)
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        self.out.reserve(len)
    }

    fn in_order(&self) -> bool {
        self.out.in_order()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dumpfile::layout::UTSNAME;
    use crate::units::{PageSize, Pfn};
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            utsname: Box::new([0; UTSNAME]),
            crash_time: 0,
            status: 0,
            block: PageSize::K4,
            max_pfn: Pfn(1000),
            cpus: 1,
            phys_base: 0,
            level: 0,
            split: None,
            notes_len: 0,
            vmcoreinfo: (0, 0),
            eraseinfo: None,
            placed: None,
        }
    }

    proptest! {
        #[test]
        fn the_share_is_that_of_the_pages_however_the_bytes_come_in_pieces(
            pages in 1u64..1000,
            described in 0u64..1000,
            piece in 1usize..5000,
        ) {
            let (header, described) = (header(), described.min(pages));
            let mut file = header.header_block();
            file.extend(header.sub_header());
            file.resize(to_usize(header.bitmap1_at().0).unwrap(), 0);
            // Bitmap 1 has all pages and is not counted.
            file.resize(to_usize(header.bitmap2_at().0).unwrap(), 0xff);
            file.extend((0..1000u64 / 8 + 1).map(|byte| (0..8).fold(0, |bits, bit| bits | u8::from(byte * 8 + bit < pages) << bit)));
            file.resize(to_usize(header.descriptors_at().0).unwrap(), 0);
            let mut share = Share::default();
            let pieces = file.chunks(piece).scan(0, |at, bytes| { *at += bytes.len() as u64; Some((*at - bytes.len() as u64, bytes)) });
            pieces.for_each(|(at, bytes)| share.see(at, bytes));
            prop_assert_eq!(share.known(), Some((0, pages * 24)));
            share.see(header.data_at(pages).0, &[7; 4096]);
            share.see(header.descriptors_at().0, &vec![1; to_usize(described * 24).unwrap()]);
            prop_assert_eq!(share.known(), Some((described * 24, pages * 24)));
        }

        #[test]
        fn nonsense_is_no_dump(at in any::<u64>(), bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut share = Share::default();
            share.see(at, &bytes);
            prop_assert_eq!(share.known(), None);
        }
    }
}
