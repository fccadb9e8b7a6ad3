//! The writes and flushes of a disk, recorded while a guest runs, and the disk as it is after any part of them: what a
//! power loss leaves.
//!
//! In: what QEMU's `blklogwrites` has recorded, in the format of Linux' dm-log-writes. Out: disk images.
//!
//! Surprising: what a disk has not been told to flush may be there after a power loss, or not, in any mixture, and the
//! last write may be there in part. What it has been told to flush is there.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::damage::Dice;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;

/// What was done to a disk, in order.
#[derive(Debug)]
pub struct WriteLog {
    file: File,
    sector: u64,
    entries: Vec<Entry>,
}

/// One write or flush.
#[derive(Clone, Copy, Debug)]
struct Entry {
    sector: u64,
    sectors: u64,
    flush: bool,
    /// Where the data is in the log.
    data: u64,
}

/// What becomes of writes that were not flushed when the power went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unflushed {
    /// All are there.
    Kept,
    /// Each is there or not, as the seed says.
    Some(u64),
    /// None is there.
    Lost,
}

impl WriteLog {
    /// Reads the list of what was done.
    pub fn open(path: &Path) -> Result<WriteLog> {
        let file = File::open(path).with_context(|| format!("unable to open the log {}", path.display()))?;
        let mut head = [0; 28];
        file.read_exact_at(&mut head, 0).context("the log has no header")?;
        ensure!(word(&head, 0) == MAGIC && word(&head, 1) == 1, "{} is not a log of writes", path.display());
        let (count, sector) = (word(&head, 2), u64::from(u32::from_le_bytes(head[24..28].try_into()?)));
        let mut entries = Vec::new();
        let mut at = sector;
        for _ in 0..count {
            let mut head = [0; 32];
            file.read_exact_at(&mut head, at).context("the log ends too early")?;
            let (flags, sectors) = (word(&head, 2), word(&head, 1));
            let data = at + sector;
            at = data + if flags & DISCARD == 0 { sectors * sector } else { 0 };
            // A discarded sector may keep what it had.
            if flags & DISCARD == 0 {
                entries.push(Entry { sector: word(&head, 0), sectors, flush: flags & FLUSH != 0, data });
            }
        }
        Ok(WriteLog { file, sector, entries })
    }

    /// How many writes and flushes there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was done.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many flushes there are.
    pub fn flushes(&self) -> usize {
        self.entries.iter().filter(|entry| entry.flush).count()
    }

    /// Makes of `image`, the disk as it was at first, the disk after the first `count` writes and flushes.
    pub fn replay(&self, count: usize, unflushed: Unflushed, image: &Path) -> Result<()> {
        let Some(done) = self.entries.get(..count) else { bail!("there are only {} entries", self.entries.len()) };
        let safe = done.iter().rposition(|entry| entry.flush).map_or(0, |last| last + 1);
        let disk = File::options().write(true).open(image).context("unable to open the disk")?;
        let mut dice = Dice(if let Unflushed::Some(seed) = unflushed { seed } else { 0 });
        for (number, entry) in done.iter().enumerate() {
            let mut sectors = entry.sectors;
            if number >= safe {
                match unflushed {
                    Unflushed::Kept => {}
                    Unflushed::Lost => continue,
                    Unflushed::Some(_) if number + 1 == count => sectors = dice.below(sectors + 1),
                    Unflushed::Some(_) if dice.below(2) == 0 => continue,
                    Unflushed::Some(_) => {}
                }
            }
            let mut data = vec![0; usize::try_from(sectors * self.sector)?];
            self.file.read_exact_at(&mut data, entry.data).context("the log ends too early")?;
            disk.write_all_at(&data, entry.sector * self.sector).context("unable to write to the disk")?;
        }
        Ok(())
    }
}

fn word(bytes: &[u8], number: usize) -> u64 {
    bytes.get(8 * number..8 * number + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// A copy that takes no more room than the original.
pub fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    let _ = fs::remove_file(to);
    crate::tools::run(crate::tools::command("cp").arg("--sparse=always").arg(from).arg(to)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of one-sector writes: the sector and its byte, or a flush.
    fn log(steps: &[Option<(u8, u8)>], path: &Path) {
        let mut bytes = vec![0; 512];
        bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8] = 1;
        bytes[16] = u8::try_from(steps.len()).unwrap();
        bytes[24..28].copy_from_slice(&512u32.to_le_bytes());
        for step in steps {
            let mut head = vec![0; 512];
            match step {
                None => head[16] = 1,
                Some((sector, _)) => (head[0], head[8]) = (*sector, 1),
            }
            bytes.extend(head);
            bytes.extend(step.map_or(Vec::new(), |(_, byte)| vec![byte; 512]));
        }
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn what_was_flushed_is_there_and_the_rest_as_asked() {
        let folder = tempfile::tempdir().unwrap();
        let (file, image) = (folder.path().join("log"), folder.path().join("image"));
        log(&[Some((0, 1)), None, Some((1, 2)), Some((2, 3)), None, Some((0, 4))], &file);
        let log = WriteLog::open(&file).unwrap();
        assert_eq!((log.len(), log.flushes()), (6, 2));
        let after = |count, unflushed| {
            fs::write(&image, vec![0; 2048]).unwrap();
            log.replay(count, unflushed, &image).unwrap();
            let bytes = fs::read(&image).unwrap();
            [bytes[0], bytes[512], bytes[1024]]
        };
        assert_eq!(after(0, Unflushed::Kept), [0, 0, 0]);
        assert_eq!(after(4, Unflushed::Kept), [1, 2, 3]);
        assert_eq!(after(4, Unflushed::Lost), [1, 0, 0]);
        assert_eq!(after(5, Unflushed::Lost), [1, 2, 3]);
        assert_eq!(after(6, Unflushed::Kept), [4, 2, 3]);
        let seen: std::collections::BTreeSet<_> = (0..40).map(|seed| after(4, Unflushed::Some(seed))).collect();
        assert_eq!(seen.len(), 4, "{seen:?}");
        assert!(log.replay(7, Unflushed::Kept, &image).is_err());
    }
}
