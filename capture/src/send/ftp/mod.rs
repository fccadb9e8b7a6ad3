//! A far side that speaks FTP, in the clear or with TLS that is asked for first (RFC 959, 4217).
//!
//! In: an address, a user, a password. Out: files, one stream after the other over connections of their own, which we
//! open (passive mode). May surprise: the address that the server names for them is not believed, only the port; who
//! could make us connect elsewhere would get the dump. Modes of files are set where the server lets us.

mod tls;

use super::far::{Far, FarFile, Made};
use super::url::{Protocol, Url};
use super::wire::{self, Patience};
use anyhow::{Context, anyhow, bail};
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::time::Instant;
use suppaftp::types::FileType;
use suppaftp::{FtpError, ImplFtpStream, Mode, Status, TransferStream};
use tls::Secured;

/// What a server wants to know of who is nobody there.
const ANONYMOUS: (&str, &str) = ("anonymous", "kdump@");

/// What an FTP session needs besides the address.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The user's password.
    pub password: Option<String>,
    /// Who may vouch for the server, in PEM.
    pub ca_file: Option<PathBuf>,
    /// The server's name in its certificate, if it is not the one that is connected to.
    pub host_name: Option<String>,
}

/// See the module.
pub struct Ftp {
    client: ImplFtpStream<Secured>,
    control: TcpStream,
    patience: Patience,
}

impl std::fmt::Debug for Ftp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ftp").field("control", &self.control).finish_non_exhaustive()
    }
}

impl Ftp {
    /// Connects and logs in.
    ///
    /// # Errors
    /// Nobody answers, the certificate is not good, or the server does not let us in.
    pub fn connect(url: &Url, credentials: &Credentials, patience: Patience) -> anyhow::Result<Ftp> {
        let addresses = wire::resolve(&url.host, url.port())?;
        let control = wire::connect(&addresses, patience)?;
        let six = control.peer_addr().context("the connection is gone")?.is_ipv6();
        let shared = control.try_clone().context("cannot share the connection")?;
        let explain = |error| explained(error, patience);
        let mut client: ImplFtpStream<Secured> =
            ImplFtpStream::connect_with_stream(shared).map_err(explain).context("the server did not greet us")?;
        client = client.passive_stream_builder(move |address| {
            wire::connect(&[address], patience).map_err(|error| FtpError::ConnectionError(io::Error::other(error)))
        });
        client.set_mode(if six { Mode::ExtendedPassive } else { Mode::Passive });
        client.set_passive_nat_workaround(true);
        if url.protocol == Protocol::Ftps {
            let name = credentials.host_name.as_deref().unwrap_or(&url.host);
            let connector = tls::Connector::new(credentials.ca_file.as_deref())?;
            client =
                client.into_secure(connector, name).map_err(explain).with_context(|| match &credentials.ca_file {
                    Some(file) => format!("cannot make sure that the server is {name}, by {}", file.display()),
                    None => {
                        format!("cannot make sure that the server is {name}; name who vouches for it with --ca-file")
                    }
                })?;
        }
        let (user, password) = match (&url.user, &credentials.password) {
            (Some(user), Some(password)) => (user.as_str(), password.as_str()),
            (Some(user), None) => (user.as_str(), ""),
            (None, _) => ANONYMOUS,
        };
        client.login(user, password).map_err(explain).with_context(|| {
            format!("{} does not let {user} in; is the password in --password-file right?", url.host)
        })?;
        client
            .transfer_type(FileType::Binary)
            .map_err(explain)
            .context("the server does not store bytes as they are")?;
        Ok(Ftp { client, control, patience })
    }

    fn explain(&self, error: FtpError) -> io::Error {
        let error = explained(error, self.patience);
        if error.kind() == io::ErrorKind::TimedOut {
            // Nothing is to wait for it once more.
            let _ = self.control.shutdown(Shutdown::Both);
        }
        error
    }

    /// Keeps others out, where the server lets us.
    fn protect(&mut self, path: &str, mode: &str) {
        let _ = self.client.site(format!("CHMOD {mode} {path}"));
    }
}

/// What went wrong, in the server's own words where it has any.
fn explained(error: FtpError, patience: Patience) -> io::Error {
    match error {
        FtpError::ConnectionError(error) => patience.explain(error),
        FtpError::UnexpectedResponse(response) => {
            let body = String::from_utf8_lossy(&response.body);
            io::Error::other(body.split_whitespace().collect::<Vec<_>>().join(" "))
        }
        other => io::Error::other(other.to_string()),
    }
}

impl Far for Ftp {
    fn mkdir(&mut self, path: &str) -> anyhow::Result<Made> {
        let error = match self.client.mkdir(path) {
            Ok(()) => {
                self.protect(path, "700");
                return Ok(Made::New);
            }
            Err(FtpError::UnexpectedResponse(response)) if response.status == Status::PathCreated => {
                return Ok(Made::New);
            }
            Err(error) => error,
        };
        match matches!(error, FtpError::UnexpectedResponse(_)) && self.client.cwd(path).is_ok() {
            true => Ok(Made::Taken),
            false => Err(anyhow!(self.explain(error)).context(format!("cannot make the directory {path}"))),
        }
    }

    fn create(&mut self, path: &str) -> anyhow::Result<Box<dyn FarFile + '_>> {
        match self.client.put_with_stream(path) {
            Ok(stream) => Ok(Box::new(Upload { stream: Some(stream), path: path.to_owned(), ftp: self })),
            Err(error) => Err(anyhow!(self.explain(error)).context(format!("cannot create {path}"))),
        }
    }

    fn rename(&mut self, from: &str, to: &str) -> anyhow::Result<()> {
        let renamed = self.client.rename(from, to);
        renamed.map_err(|error| self.explain(error)).with_context(|| format!("cannot rename {from} to {to}"))
    }

    fn size(&mut self, path: &str) -> anyhow::Result<Option<u64>> {
        match self.client.size(path) {
            Ok(size) => Ok(Some(size as u64)),
            // Not every server knows the word (RFC 3659).
            Err(FtpError::UnexpectedResponse(_) | FtpError::BadResponse) => Ok(None),
            Err(error) => Err(self.explain(error).into()),
        }
    }
}

struct Upload<'a> {
    stream: Option<TransferStream<Secured>>,
    path: String,
    ftp: &'a mut Ftp,
}

impl Upload<'_> {
    /// Ends the data connection and hears what the server says of it.
    fn end(&mut self) -> Result<(), FtpError> {
        let Some(stream) = self.stream.take() else { return Ok(()) };
        let longer = self.ftp.patience.for_the_disk();
        let _ = self.ftp.control.set_read_timeout(Some(longer));
        let ended = stream.finish();
        let _ = self.ftp.control.set_read_timeout(Some(self.ftp.patience.0));
        ended
    }

    /// After a stall nothing is said any more.
    fn abandon(&mut self) {
        let _ = self.ftp.control.shutdown(Shutdown::Both);
        if let Some(stream) = self.stream.take() {
            let _ = stream.get_ref().get_ref().shutdown(Shutdown::Both);
        }
    }
}

impl FarFile for Upload<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(stream) = &mut self.stream else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let began = Instant::now();
        let error = match stream.write(bytes) {
            Ok(0) => io::ErrorKind::WriteZero.into(),
            Ok(sent) => return Ok(sent),
            Err(error) => self.ftp.patience.explain(error),
        };
        // OpenSSL does not always say that it was the socket's limit.
        if error.kind() == io::ErrorKind::TimedOut || began.elapsed() >= self.ftp.patience.0 {
            self.abandon();
            return Err(self.ftp.patience.stalled());
        }
        // The server has closed the data connection; on the other one it says why.
        match self.end() {
            Ok(()) => Err(error),
            Err(FtpError::UnexpectedResponse(response)) => {
                Err(explained(FtpError::UnexpectedResponse(response), self.ftp.patience))
            }
            Err(_) => Err(io::Error::new(error.kind(), format!("the connection is gone: {error}"))),
        }
    }

    fn close(mut self: Box<Self>) -> anyhow::Result<()> {
        if let Some(stream) = &mut self.stream {
            stream.flush().map_err(|error| self.ftp.patience.explain(error))?;
        }
        if let Err(error) = self.end() {
            let error = self.ftp.explain(error);
            bail!(anyhow!(error).context("the server did not take the end of the file"));
        }
        let path = std::mem::take(&mut self.path);
        self.ftp.protect(&path, "600");
        Ok(())
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        // Who did not close it has failed, and does not want to hear how the server sees that.
        if self.stream.is_some() {
            self.abandon();
        }
    }
}
