//! A portmapper that says yes, for a server that will not start without one.
//!
//! In: a folder. Out: `rpcbind.sock` in it, whose listener answers every question of rpcbind (RFC 1833) with "done". Nobody
//! is told any ports: guests know them.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};

/// No question is longer.
const LARGEST: usize = 1 << 16;
/// A reply that was accepted, with no credentials.
const ACCEPTED: [u32; 5] = [1, 0, 0, 0, 0];
const DONE: u32 = 1;
const LAST_FRAGMENT: u32 = 1 << 31;

/// Starts one.
pub fn start(folder: &Path) -> Result<()> {
    let path = folder.join("rpcbind.sock");
    let socket = UnixListener::bind(&path).with_context(|| format!("unable to listen at {}", path.display()))?;
    thread::spawn(move || {
        for stream in socket.incoming().map_while(Result::ok) {
            thread::spawn(move || serve(stream));
        }
    });
    Ok(())
}

/// Answers until the other side has enough.
fn serve(mut stream: UnixStream) -> Option<()> {
    loop {
        let mut header = [0; 4];
        stream.read_exact(&mut header).ok()?;
        let length = usize::try_from(u32::from_be_bytes(header) & !LAST_FRAGMENT).ok()?;
        let mut call = vec![0; Some(length).filter(|length| *length <= LARGEST)?];
        stream.read_exact(&mut call).ok()?;
        stream.write_all(&reply(&call)?).ok()?;
    }
}

/// The number of the call, and that it is done.
fn reply(call: &[u8]) -> Option<Vec<u8>> {
    let words = ACCEPTED.iter().chain(&[DONE]).flat_map(|word| word.to_be_bytes());
    let body: Vec<u8> = call.get(..4)?.iter().copied().chain(words).collect();
    let header = LAST_FRAGMENT | u32::try_from(body.len()).ok()?;
    Some([&header.to_be_bytes(), &body[..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_has_the_number_of_the_question() {
        let reply = reply(&[0, 0, 0, 9, 0, 0, 0, 0]).unwrap();
        assert_eq!(reply[..12], [0x80, 0, 0, 28, 0, 0, 0, 9, 0, 0, 0, 1]);
        assert_eq!(reply.len(), 32);
    }
}
