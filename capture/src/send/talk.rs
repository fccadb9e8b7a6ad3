//! A conversation over TLS, for whoever has no TLS: standard input goes to the server, and what it says to standard output.
//!
//! In: an address, who may vouch for the server. Out: the other end's words. May surprise: a mail server is asked for TLS
//! first (STARTTLS, RFC 3207), and what it has said until then is not passed on, its greeting included: whoever is in
//! between could have said it. So is the reason why anything that follows in the same breath is refused.

use super::cli::Options;
use super::url::Protocol;
use super::wire::{self, Patience};
use super::{cli::Trust, trust};
use anyhow::{Context, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use openssl::ssl::{ErrorCode, SslStream};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

/// Passed on at once.
const CHUNK: usize = 16 << 10;
/// A longer reply is none.
const LONGEST: usize = 8 << 10;

/// Talks until the server has said its last word.
///
/// # Errors
/// There is no connection, nobody vouches for the server, or it stands still.
pub fn run(options: &Options, trusted: &Trust) -> anyhow::Result<()> {
    let Options { url, patience, .. } = options;
    let mut stream = wire::connect(&wire::resolve(&url.host, url.port())?, *patience)?;
    if url.protocol == Protocol::Smtp {
        start_tls(&mut stream).context("the server does not change to TLS")?;
    }
    let name = trusted.host_name.as_deref().unwrap_or(&url.host);
    let connector = trust::connector(trusted.ca_file.as_deref())?.build();
    let secured = connector.connect(name, stream).with_context(|| format!("cannot begin TLS with {name}"))?;
    secured.get_ref().set_nonblocking(true)?;
    Relay { secured, patience: *patience }.run(io::stdin().as_fd(), &mut io::stdout().lock())
}

/// Asks a mail server for TLS, in the clear.
fn start_tls(stream: &mut (impl Read + Write)) -> anyhow::Result<()> {
    hear(stream, "220").context("greeting")?;
    stream.write_all(b"EHLO localhost\r\n")?;
    let extensions = hear(stream, "250").context("EHLO")?;
    if !extensions.lines().any(|line| line.get(4..).is_some_and(|word| word.trim().eq_ignore_ascii_case("STARTTLS"))) {
        bail!("it does not offer STARTTLS");
    }
    stream.write_all(b"STARTTLS\r\n")?;
    hear(stream, "220").context("STARTTLS").map(drop)
}

/// Reads a reply of one or more lines, which must be `wanted`, and nothing behind it.
fn hear(stream: &mut impl Read, wanted: &str) -> anyhow::Result<String> {
    let (mut heard, mut chunk) = (Vec::new(), [0; 1024]);
    loop {
        let read = stream.read(&mut chunk).context("there is no reply")?;
        if read == 0 {
            bail!("the connection is closed");
        }
        heard.extend_from_slice(chunk.get(..read).unwrap_or_default());
        let text = String::from_utf8_lossy(&heard).into_owned();
        let mut lines = text.split_inclusive('\n');
        let end = lines.find(|line| line.ends_with('\n') && line.get(3..4) != Some("-"));
        match end {
            Some(_) if lines.next().is_some() => bail!("it says more than it was asked for"),
            Some(end) if end.starts_with(wanted) => return Ok(text),
            Some(end) => bail!("the server says: {}", end.trim_end()),
            None if heard.len() > LONGEST => bail!("the reply does not end"),
            None => {}
        }
    }
}

/// Both ends.
struct Relay {
    secured: SslStream<TcpStream>,
    patience: Patience,
}

/// What the connection has to do before it can go on.
enum Waits {
    Read,
    Write,
}

impl Relay {
    fn run(&mut self, input: BorrowedFd<'_>, output: &mut impl Write) -> anyhow::Result<()> {
        let mut input = Some(input);
        let mut chunk = [0; CHUNK];
        loop {
            // What has come is passed on before anything is waited for.
            loop {
                match self.secured.ssl_read(&mut chunk) {
                    Ok(0) => return Ok(output.flush()?),
                    Ok(length) => output.write_all(chunk.get(..length).unwrap_or_default())?,
                    Err(error) if error.code() == ErrorCode::ZERO_RETURN => return Ok(output.flush()?),
                    Err(error) if error.code() == ErrorCode::WANT_READ => break,
                    Err(error) if error.code() == ErrorCode::WANT_WRITE => self.wait(&Waits::Write)?,
                    Err(error) => return Err(error).context("the connection is lost"),
                }
            }
            output.flush()?;
            let Some(from) = input else {
                self.wait(&Waits::Read)?;
                continue;
            };
            let socket = self.secured.get_ref().try_clone()?;
            let mut both = [PollFd::new(from, PollFlags::POLLIN), PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
            if poll(&mut both, self.limit())? == 0 {
                return Err(self.patience.stalled().into());
            }
            if both.first().and_then(PollFd::any).unwrap_or(false) {
                let length = nix::unistd::read(from, &mut chunk)?;
                match length {
                    // Whoever asked has said all; the answer may still come.
                    0 => input = None,
                    _ => self.send(chunk.get(..length).unwrap_or_default())?,
                }
            }
        }
    }

    fn send(&mut self, mut bytes: &[u8]) -> anyhow::Result<()> {
        while !bytes.is_empty() {
            match self.secured.ssl_write(bytes) {
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Err(error) if error.code() == ErrorCode::WANT_WRITE => self.wait(&Waits::Write)?,
                Err(error) if error.code() == ErrorCode::WANT_READ => self.wait(&Waits::Read)?,
                Err(error) => return Err(error).context("the connection is lost"),
            }
        }
        Ok(())
    }

    fn wait(&self, what: &Waits) -> anyhow::Result<()> {
        let flags = match what {
            Waits::Read => PollFlags::POLLIN,
            Waits::Write => PollFlags::POLLOUT,
        };
        match poll(&mut [PollFd::new(self.secured.get_ref().as_fd(), flags)], self.limit())? {
            0 => Err(self.patience.stalled().into()),
            _ => Ok(()),
        }
    }

    fn limit(&self) -> PollTimeout {
        PollTimeout::try_from(self.patience.0).unwrap_or(PollTimeout::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that says its lines, one for each time it is listened to.
    struct Script<'a>(Vec<&'a str>, Vec<u8>);

    impl Read for Script<'_> {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let line = if self.0.is_empty() { "" } else { self.0.remove(0) };
            bytes[..line.len()].copy_from_slice(line.as_bytes());
            Ok(line.len())
        }
    }

    impl Write for Script<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_mail_server_is_asked_for_tls_and_nothing_is_said_before() {
        let mut script = Script(
            vec!["220-hi\r\n", "220 mail\r\n", "250-mail\r\n250-starttls\r\n250 SIZE\r\n", "220 go\r\n"],
            vec![],
        );
        start_tls(&mut script).unwrap();
        assert_eq!(script.1, b"EHLO localhost\r\nSTARTTLS\r\n");
    }

    #[test]
    fn a_server_without_tls_and_one_that_somebody_speaks_for_are_refused() {
        for (says, words) in [
            (vec!["220 hi\r\n", "250 mail\r\n"], "does not offer STARTTLS"),
            (vec!["220 hi\r\n", "250 STARTTLS\r\n", "454 not now\r\n"], "454 not now"),
            (vec!["220 hi\r\n", "250 STARTTLS\r\n", "220 go\r\n250 hello\r\n"], "more than it was asked for"),
            (vec!["HTTP/1.1 200 OK\r\n"], "the server says: HTTP"),
            (vec!["220 hi\r\n"], "closed"),
        ] {
            let error = format!("{:#}", start_tls(&mut Script(says, vec![])).unwrap_err());
            assert!(error.contains(words), "{error}");
        }
        let long = "220-".to_owned() + &"x".repeat(1000);
        assert!(hear(&mut Script(vec![&long; 20], vec![]), "220").unwrap_err().to_string().contains("does not end"));
    }
}
