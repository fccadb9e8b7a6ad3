//! What starting any server on the host's loopback takes: a port for it, and to wait until it listens there.
//!
//! Surprising: it dies with the thread that started it, however that ends.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{sys, tools};

/// The slowest takes two seconds where nothing else runs.
const START: Duration = Duration::from_secs(60);
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// Where servers listen if nothing else is asked.
pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Below the ports that the kernel gives to whoever asks for any (`ip_local_port_range`), so that a server finds its own
/// still free, however long it takes to start.
const PORTS: Range<u32> = 16_384..32_768;

/// A port of `address` on which nobody listens, and which nobody else of this process is given.
pub(crate) fn free_port(address: IpAddr) -> Result<u16> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(251);
    let count = PORTS.end - PORTS.start;
    for _ in 0..count {
        let at = first.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % count;
        let port = u16::try_from(PORTS.start + at)?;
        if TcpListener::bind((address, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port on {address}")
}

/// Starts the server that `command` is, and waits until it listens; an error shows the end of its `log`.
pub(crate) fn start(mut command: Command, name: &str, (address, port): (IpAddr, u16), log: &Path) -> Result<Child> {
    sys::die_with_parent(&mut command);
    let mut child = command.spawn().with_context(|| format!("unable to start {}", tools::shown(&command)))?;
    let began = Instant::now();
    while TcpStream::connect((address, port)).is_err() {
        let ended = child.try_wait().with_context(|| format!("unable to wait for the {name} server"))?;
        if ended.is_some() || began.elapsed() > START {
            let _ = child.kill();
            let _ = child.wait();
            let said = fs::read_to_string(log).unwrap_or_default();
            bail!("the {name} server does not listen ({ended:?}):\n{}", tools::tail(&said, 20));
        }
        std::thread::sleep(BETWEEN_TRIES);
    }
    Ok(child)
}
