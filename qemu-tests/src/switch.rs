//! A switch between a guest's cards and QEMU's user network, for what that network itself does not know.
//!
//! ```text
//!  guest: card 0, card 1 ──▶ unix sockets ─▶ this switch ─▶ unix socket ──▶ hub ─▶ QEMU's user network
//! ```
//!
//! In: a [`Wiring`]. Out: words for QEMU's command line, and counts. Frames to the guest go to the card that spoke last, as
//! a bond wants it.
//!
//! - VLAN: a frame of the guest passes only with its tag, which is taken off; frames to the guest get it.
//! - DHCPv6: questions are answered here, with one address.
//! - Unplugging: after so many frames the card that has carried the last one loses its link for good.

use std::io::{Read, Write};
use std::net::Ipv6Addr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use serde_json::json;
use tempfile::TempDir;

use crate::{dhcp6_server, folders, monitor, progress};

/// Cards of the guest.
const CARDS: usize = 2;
const TAG: [u8; 2] = [0x81, 0x00];
/// Where a frame's type is, behind both addresses.
const TYPE: usize = 12;
const LARGEST: usize = 1 << 17;

/// What is unusual about a network.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wiring {
    /// The one VLAN.
    pub vlan: Option<u16>,
    /// The address that DHCPv6 gives.
    pub lease: Option<Ipv6Addr>,
    /// After how many frames of the guest a card is unplugged.
    pub unplug_after: Option<u64>,
}

/// What has passed.
#[derive(Debug, Default)]
pub struct Counts {
    /// Frames of the guest that passed, by card.
    pub passed: [AtomicU64; CARDS],
    /// Frames of the guest that were dropped, for want of the tag.
    pub dropped: AtomicU64,
    last: AtomicUsize,
    unplugged: AtomicBool,
}

impl Counts {
    /// Frames of all cards.
    pub fn all(&self) -> u64 {
        self.passed.iter().map(|card| card.load(Ordering::Relaxed)).sum()
    }

    /// The fewest frames that any card has carried.
    pub fn least(&self) -> u64 {
        self.passed.iter().map(|card| card.load(Ordering::Relaxed)).min().unwrap_or_default()
    }
}

/// A switch that runs as long as QEMU does.
#[derive(Debug)]
pub struct Switch {
    /// What has passed.
    pub counts: Arc<Counts>,
    /// What QEMU's command line needs for two cards and the user network behind them.
    pub qemu: Vec<String>,
    _sockets: TempDir,
}

impl Switch {
    /// Makes one.
    pub fn new(wiring: Wiring) -> Result<Switch> {
        let folder = folders::for_sockets()?;
        let counts = Arc::new(Counts::default());
        let mut qemu = Vec::new();
        let mut sockets = Vec::new();
        for name in ["card0", "card1", "uplink"] {
            let path = folder.path().join(name);
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
        let monitor = folder.path().join("monitor");
        qemu.extend(["-qmp".to_owned(), format!("unix:{},server=on,wait=off", monitor.display())]);
        let shared = Arc::clone(&counts);
        thread::spawn(move || {
            let streams: Vec<UnixStream> =
                sockets.iter().filter_map(|socket| socket.accept().ok()).map(|(stream, _)| stream).collect();
            forward(&streams, wiring, &shared, &monitor);
        });
        Ok(Switch { counts, qemu, _sockets: folder })
    }
}

/// Starts a thread per socket; each ends with it.
fn forward(streams: &[UnixStream], wiring: Wiring, counts: &Arc<Counts>, monitor: &Path) {
    let Ok(copies) = streams.iter().map(|stream| stream.try_clone().map(Mutex::new)).collect::<Result<Vec<_>, _>>()
    else {
        return;
    };
    let writers = Arc::new(copies);
    for (from, stream) in streams.iter().enumerate() {
        let Ok(reader) = stream.try_clone() else { return };
        let port = Port {
            from,
            wiring,
            writers: Arc::clone(&writers),
            counts: Arc::clone(counts),
            monitor: monitor.to_owned(),
        };
        thread::spawn(move || port.run(reader));
    }
}

/// One socket's side of the switch.
struct Port {
    from: usize,
    wiring: Wiring,
    writers: Arc<Vec<Mutex<UnixStream>>>,
    counts: Arc<Counts>,
    monitor: PathBuf,
}

impl Port {
    fn run(&self, mut reader: UnixStream) {
        while let Some(frame) = read_frame(&mut reader) {
            let sent = match self.from < CARDS {
                true => self.of_guest(frame),
                false => self.to_guest(&frame),
            };
            if sent.is_none() {
                return;
            }
        }
    }

    fn of_guest(&self, frame: Vec<u8>) -> Option<()> {
        let plain = match self.wiring.vlan {
            Some(vlan) => without_tag(&frame, vlan),
            None => Some(frame),
        };
        let Some(plain) = plain else {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            return Some(());
        };
        self.counts.passed.get(self.from)?.fetch_add(1, Ordering::Relaxed);
        self.counts.last.store(self.from, Ordering::Relaxed);
        if self.wiring.unplug_after.is_some_and(|frames| self.counts.all() >= frames)
            && !self.counts.unplugged.swap(true, Ordering::Relaxed)
        {
            self.unplug();
        }
        match self.wiring.lease.and_then(|lease| dhcp6_server::answer(&plain, lease)) {
            Some(answer) => self.to_guest(&answer),
            None => self.send(CARDS, &plain),
        }
    }

    fn to_guest(&self, frame: &[u8]) -> Option<()> {
        let card = self.counts.last.load(Ordering::Relaxed);
        match self.wiring.vlan {
            Some(vlan) => self.send(card, &with_tag(frame, vlan)),
            None => self.send(card, frame),
        }
    }

    /// In a thread of its own: QEMU may be busy with frames of ours.
    fn unplug(&self) {
        let (monitor, card) = (self.monitor.clone(), format!("card{}", self.from));
        progress::note(&format!("{card} is unplugged"));
        thread::spawn(move || {
            if let Err(error) = monitor::ask(&monitor, "set_link", &json!({"name": card, "up": false})) {
                progress::note(&format!("{error:#}"));
            }
        });
    }

    fn send(&self, to: usize, frame: &[u8]) -> Option<()> {
        let length = u32::try_from(frame.len()).ok()?.to_be_bytes();
        let message = [&length[..], frame].concat();
        self.writers.get(to)?.lock().unwrap_or_else(PoisonError::into_inner).write_all(&message).ok()
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
