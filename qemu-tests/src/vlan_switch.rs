//! A switch between a guest's cards and QEMU's user network, which itself knows no VLANs.
//!
//! ```text
//!  guest: card 0, card 1 ──tagged──▶ unix sockets ─▶ this switch ─▶ unix socket ──plain──▶ hub ─▶ QEMU's user network
//! ```
//!
//! In: a VLAN. Out: words for QEMU's command line, and counts. A frame of the guest passes only with the tag of that
//! VLAN, which is taken off; frames to the guest get it, and go to the card that spoke last, as a bond wants it.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};

/// Cards of the guest.
const CARDS: usize = 2;
const TAG: [u8; 2] = [0x81, 0x00];
/// Where a frame's type is, behind both addresses.
const TYPE: usize = 12;
const LARGEST: usize = 1 << 17;

/// What has passed.
#[derive(Debug, Default)]
pub struct Counts {
    /// Frames of the guest with the right tag.
    pub tagged: AtomicU64,
    /// Frames of the guest that were dropped, for want of the tag.
    pub dropped: AtomicU64,
    last: AtomicUsize,
}

/// A switch that runs as long as QEMU does.
#[derive(Debug)]
pub struct VlanSwitch {
    /// What has passed.
    pub counts: Arc<Counts>,
    /// What QEMU's command line needs for two cards and the user network behind them.
    pub qemu: Vec<String>,
}

impl VlanSwitch {
    /// Makes one for the VLAN, with its sockets in `folder`, whose path must be short.
    pub fn new(folder: &Path, vlan: u16) -> Result<VlanSwitch> {
        let counts = Arc::new(Counts::default());
        let mut qemu = Vec::new();
        let mut sockets = Vec::new();
        for name in ["card0", "card1", "uplink"] {
            let path = folder.join(name);
            sockets.push(UnixListener::bind(&path).with_context(|| format!("unable to listen at {}", path.display()))?);
            let stream = format!("stream,id={name},server=off,addr.type=unix,addr.path={}", path.display());
            qemu.extend(["-netdev".to_owned(), stream]);
        }
        for card in 0..CARDS {
            let device = format!("virtio-net-pci,netdev=card{card},mac=52:54:00:12:34:5{card}");
            qemu.extend(["-device".to_owned(), device]);
        }
        for netdev in ["user,id=user", "hubport,id=hub0,hubid=0,netdev=user", "hubport,id=hub1,hubid=0,netdev=uplink"] {
            qemu.extend(["-netdev".to_owned(), netdev.to_owned()]);
        }
        let shared = Arc::clone(&counts);
        thread::spawn(move || {
            let streams: Vec<UnixStream> =
                sockets.iter().filter_map(|socket| socket.accept().ok()).map(|(stream, _)| stream).collect();
            forward(&streams, vlan, &shared);
        });
        Ok(VlanSwitch { counts, qemu })
    }
}

/// Starts a thread per socket; each ends with it.
fn forward(streams: &[UnixStream], vlan: u16, counts: &Arc<Counts>) {
    let Ok(copies) = streams.iter().map(|stream| stream.try_clone().map(Mutex::new)).collect::<Result<Vec<_>, _>>()
    else {
        return;
    };
    let writers = Arc::new(copies);
    for (from, stream) in streams.iter().enumerate() {
        let Ok(mut reader) = stream.try_clone() else { return };
        let (writers, counts) = (Arc::clone(&writers), Arc::clone(counts));
        thread::spawn(move || {
            while let Some(frame) = read_frame(&mut reader) {
                let (to, frame) = if from < CARDS {
                    let Some(plain) = without_tag(&frame, vlan) else {
                        counts.dropped.fetch_add(1, Ordering::Relaxed);
                        continue;
                    };
                    counts.tagged.fetch_add(1, Ordering::Relaxed);
                    counts.last.store(from, Ordering::Relaxed);
                    (CARDS, plain)
                } else {
                    (counts.last.load(Ordering::Relaxed), with_tag(&frame, vlan))
                };
                let Some(writer) = writers.get(to) else { return };
                let length = u32::try_from(frame.len()).unwrap_or_default().to_be_bytes();
                let message = [&length[..], &frame].concat();
                if writer.lock().unwrap_or_else(PoisonError::into_inner).write_all(&message).is_err() {
                    return;
                }
            }
        });
    }
}

/// A length of four bytes, then the frame.
fn read_frame(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let length = usize::try_from(u32::from_be_bytes(length)).ok().filter(|length| *length <= LARGEST)?;
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).ok()?;
    Some(frame)
}

fn without_tag(frame: &[u8], vlan: u16) -> Option<Vec<u8>> {
    let tag = frame.get(TYPE..TYPE + 4)?;
    let number = u16::from_be_bytes([*tag.get(2)?, *tag.get(3)?]) & 0x0fff;
    let (addresses, rest) = (frame.get(..TYPE)?, frame.get(TYPE + 4..)?);
    (tag.starts_with(&TAG) && number == vlan).then(|| [addresses, rest].concat())
}

fn with_tag(frame: &[u8], vlan: u16) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(TYPE.min(frame.len()));
    [addresses, &TAG, &vlan.to_be_bytes(), rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_frames_of_the_vlan_pass() {
        let frame: Vec<u8> = (0..60).collect();
        let tagged = with_tag(&frame, 42);
        assert_eq!(tagged.len(), 64);
        assert_eq!(without_tag(&tagged, 42), Some(frame.clone()));
        assert_eq!(without_tag(&tagged, 43), None);
        assert_eq!(without_tag(&frame, 42), None);
        assert_eq!(without_tag(&[], 42), None);
    }
}
