//! A flattened stream, as its readers see it, back to the file it tells.
//!
//! ```text
//! 0      "makedumpfile", type 1, version 1 (big endian), zeros up to 4096
//! 4096   records: offset, size (big endian), then so many bytes; the last has -1 for both
//! ```

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

const HEADER: usize = 4096;

/// Writes to `dump` what the stream tells, and returns how many records there were.
pub fn unflatten(stream: &Path, dump: &Path) -> Result<u64> {
    let records = || {
        let mut stream = BufReader::new(File::open(stream)?);
        let dump = File::create(dump)?;
        let mut header = vec![0; HEADER];
        stream.read_exact(&mut header).context("it is too short for its header")?;
        ensure!(header.starts_with(b"makedumpfile\0\0\0\0"), "its signature is another");
        ensure!(header[16..32] == [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1], "its type or version is not 1");
        ensure!(header[32..].iter().all(|byte| *byte == 0), "its header is not filled with zeros");
        let mut count = 0;
        loop {
            let (offset, size) = (number(&mut stream)?, number(&mut stream)?);
            if (offset, size) == (-1, -1) {
                break;
            }
            let mut bytes = vec![0; usize::try_from(size).context("a record has a negative size")?];
            stream.read_exact(&mut bytes).context("a record is cut off")?;
            dump.write_all_at(&bytes, u64::try_from(offset).context("a record has a negative offset")?)?;
            count += 1;
        }
        ensure!(stream.read(&mut [0])? == 0, "bytes follow the last record");
        Ok::<_, anyhow::Error>(count)
    };
    records().with_context(|| format!("unable to read the flattened stream {}", stream.display()))
}

fn number(stream: &mut impl Read) -> Result<i64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes).context("the stream ends without its last record")?;
    Ok(i64::from_be_bytes(bytes))
}
