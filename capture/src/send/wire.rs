//! The connection, and how long it may stand still.
//!
//! In: addresses, a limit. Out: a TCP connection on which nothing waits longer than that. May surprise: the limit is on
//! standing still, not on the whole: a slow line may take all night.

use anyhow::Context;
use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(20);
/// After how long a silent connection is asked whether it is still there, how often, and how many times.
const KEEPALIVE: [u32; 3] = [10, 5, 4];

/// Without progress for this long, a connection has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience(pub Duration);

impl Patience {
    /// If nobody says otherwise.
    pub const DEFAULT: Patience = Patience(Duration::from_secs(60));

    /// For the end of a file: the far side may have gigabytes in its memory that it has to bring to its disk.
    pub fn for_the_disk(self) -> Duration {
        self.0.saturating_mul(5)
    }

    /// What has happened when it is at its end.
    fn lost(self) -> String {
        format!("the far side accepted nothing for {} s", self.0.as_secs())
    }

    /// The error of a connection that stands still.
    pub fn stalled(self) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, self.lost())
    }

    /// Says what a timeout of the socket means.
    pub fn explain(self, error: io::Error) -> io::Error {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => self.stalled(),
            _ => error,
        }
    }
}

/// Nobody answers; that may change in a moment.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {0}")]
pub struct Nobody(String);

/// As poll(2) and libssh2 count.
pub fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// The addresses of `host`.
///
/// # Errors
/// It has none. A static program only knows names that need no module of the C library.
pub fn resolve(host: &str, port: u16) -> anyhow::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let found = (host, port).to_socket_addrs().with_context(|| {
        format!("cannot find the address of {host}; write it in place of the name, and the name behind --host-name")
    })?;
    Ok(found.collect())
}

/// Connects to the first address that answers.
///
/// # Errors
/// None does, and why.
pub fn connect(addresses: &[SocketAddr], patience: Patience) -> anyhow::Result<TcpStream> {
    let mut refusals = Vec::new();
    for address in addresses {
        match TcpStream::connect_timeout(address, CONNECT.min(patience.0)) {
            Ok(stream) => {
                limit(&stream, patience).with_context(|| format!("cannot set the limits of {address}"))?;
                return Ok(stream);
            }
            Err(error) => refusals.push(format!("{address}: {error}")),
        }
    }
    Err(Nobody(refusals.join("; ")).into())
}

fn limit(stream: &TcpStream, patience: Patience) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience.0))?;
    stream.set_write_timeout(Some(patience.0))?;
    let [idle, interval, count] = KEEPALIVE;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &idle)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &interval)?;
    setsockopt(stream, sockopt::TcpKeepCount, &count)?;
    // Later than our own limits, which say what was going on.
    Ok(setsockopt(stream, sockopt::TcpUserTimeout, &milliseconds(patience.0.saturating_mul(2)))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn who_is_not_there_is_named_with_the_reason() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = connect(&resolve("127.0.0.1", port).unwrap(), Patience::DEFAULT).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot connect to 127.0.0.1:{port}: Connection refused")), "{error}");
    }

    #[test]
    fn a_connection_that_stands_still_is_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let patience = Patience(Duration::from_millis(200));
        let mut stream = connect(&[listener.local_addr().unwrap()], patience).unwrap();
        let full = std::iter::repeat_with(|| stream.write(&[0; 1 << 20])).find_map(Result::err).unwrap();
        assert_eq!(patience.explain(full).to_string(), "the far side accepted nothing for 0 s");
        assert!(stream.read(&mut [0; 1]).is_err());
    }
}
