//! The sha256 of what has been written, read back.

use sha2::{Digest, Sha256};
use std::io::{self, Read};

/// What is read at a time.
const CHUNK: usize = 1 << 18;
/// How often it is told that all is well: about every 64 MiB.
const CHUNKS_PER_TICK: u64 = 256;

/// Length and sha256 of all that `from` gives. `tick` is called now and then.
///
/// # Errors
/// It cannot be read.
pub fn sha256_of(from: &mut dyn Read, tick: &mut dyn FnMut()) -> io::Result<(u64, [u8; 32])> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let (mut bytes, mut chunks) = (0, 0);
    loop {
        let length = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            length => length?,
        };
        let Some(chunk) = buffer.get(..length).filter(|chunk| !chunk.is_empty()) else { break };
        hash.update(chunk);
        bytes += chunk.len() as u64;
        chunks += 1;
        if chunks % CHUNKS_PER_TICK == 0 {
            tick();
        }
    }
    Ok((bytes, hash.finalize().into()))
}

/// A digest in hexadecimal digits.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
