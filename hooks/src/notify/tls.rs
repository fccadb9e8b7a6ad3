//! TLS for a notice, lent by kdump-send, since PID 1 has none.
//!
//! In: a server, who may vouch for it. Out: a connection over which the notice is spoken, as over a plain one.
//!
//! May surprise: it is a program at the other end of two pipes, which has asked a mail server for TLS already where that
//! is meant, so that no greeting comes. It says on standard error why it gives up, and that is the reason that counts.

use super::Server;
use crate::remote::PROGRAM;
use anyhow::{Context, anyhow};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How a connection is made secure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// Not at all.
    #[default]
    Off,
    /// From the start.
    On,
    /// Once the mail server has been asked for it.
    Starttls,
}

impl Tls {
    /// Whether there is none.
    pub fn is_off(&self) -> bool {
        *self == Tls::Off
    }
}

/// What TLS takes: a program, and the certificates of who may vouch for servers.
#[derive(Clone, Debug)]
pub struct Lender {
    /// kdump-send.
    pub program: PathBuf,
    /// PEM.
    pub authorities: PathBuf,
}

impl Lender {
    /// Where both are in an image.
    pub fn of_image() -> Lender {
        Lender { program: Path::new("/usr/bin").join(PROGRAM), authorities: super::AUTHORITIES.into() }
    }

    /// Connects to `address`, which is `server`.
    pub(super) fn connect(&self, server: Server<'_>, address: SocketAddr, end: Instant) -> anyhow::Result<Lent> {
        let protocol = if server.tls == Tls::Starttls { "smtp" } else { "tls" };
        // As long as there is time, in whole seconds; the rest is ours.
        let left = end.saturating_duration_since(Instant::now()).as_secs().max(1);
        let mut command = Command::new(&self.program);
        command.args(["--message-level", "4", "--timeout", &left.to_string(), "--host-name", server.host]);
        command.arg("--ca-file").arg(&self.authorities).arg(format!("{protocol}://{address}")).arg("talk");
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.with_context(|| {
            format!("cannot start {}, which has the TLS that {} asks for", self.program.display(), server.host)
        })?;
        Ok(Lent { child, end })
    }
}

/// A connection that a program holds; it ends with this.
#[derive(Debug)]
pub(super) struct Lent {
    child: Child,
    end: Instant,
}

impl Lent {
    /// The error, or what the program says of it.
    pub(super) fn explain(mut self, error: anyhow::Error) -> anyhow::Error {
        let _ = self.child.kill();
        let mut said = String::new();
        if let Some(pipe) = self.child.stderr.take() {
            let _ = pipe.take(4096).read_to_string(&mut said);
        }
        match said.trim() {
            "" => error,
            said => anyhow!("{}", said.trim_start_matches("kdump-send: ").replace('\n', "; ")),
        }
    }

    fn wait(&self, pipe: BorrowedFd<'_>, flags: PollFlags) -> io::Result<()> {
        let left = self.end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let limit = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pipe, flags)], limit)? {
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

impl Read for Lent {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let pipe = self.child.stdout.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        self.wait(pipe.as_fd(), PollFlags::POLLIN)?;
        self.child.stdout.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.read(bytes)
    }
}

impl Write for Lent {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // So little is always taken once anything is.
        const ATOMIC: usize = 4096;
        let pipe = self.child.stdin.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        self.wait(pipe.as_fd(), PollFlags::POLLOUT)?;
        let some = bytes.get(..bytes.len().min(ATOMIC)).unwrap_or_default();
        self.child.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write(some)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
