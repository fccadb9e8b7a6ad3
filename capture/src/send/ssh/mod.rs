//! An SSH session: connected, the host known, logged in with a key.
//!
//! In: an address, the file of known hosts, a private key, and the certificate beside it if there is one (`KEY-cert.pub`,
//! as ssh has it). Out: a session of libssh2. May surprise: there is no agent, no configuration file and nobody to be
//! asked: what is not in these files is refused, with what to do about it. Where a certificate is of no use, the key
//! alone may be.

mod exec;
mod host_key;
mod quote;
mod sftp;

pub use exec::Exec;
pub use sftp::Sftp;

use super::url::Url;
use super::wire::{self, Patience};
use anyhow::{Context, anyhow, bail};
use ssh2::{ErrorCode, MethodType, Session};
use std::fs;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The cheapest first, on a machine that has AES in hardware, as nearly all have.
const CIPHERS: &str = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,\
                       aes256-ctr";
/// `LIBSSH2_ERROR_TIMEOUT` and `LIBSSH2_ERROR_SOCKET_TIMEOUT`.
const TIMEOUTS: [i32; 2] = [-9, -30];
/// `LIBSSH2_ERROR_SOCKET_SEND`, `LIBSSH2_ERROR_SOCKET_DISCONNECT` and `LIBSSH2_ERROR_SOCKET_RECV`.
const GONE: [i32; 3] = [-7, -13, -43];
/// `LIBSSH2_ERROR_AUTHENTICATION_FAILED` and `LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED`.
const REFUSED: [i32; 2] = [-18, -19];

/// What an SSH session needs besides the address.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The private key, without a passphrase.
    pub identity: PathBuf,
    /// Who the host may be; `None` believes any host.
    pub known_hosts: Option<PathBuf>,
    /// The host's name in that file, if it is not the one that is connected to.
    pub host_name: Option<String>,
}

/// A session, and what is needed to end it at once.
pub struct Ssh {
    session: Session,
    socket: TcpStream,
    patience: Patience,
}

impl std::fmt::Debug for Ssh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ssh").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Ssh {
    /// Connects, makes sure who that is, and logs in.
    ///
    /// # Errors
    /// Nobody answers, somebody else does, or the key is refused.
    pub fn connect(url: &Url, credentials: &Credentials, patience: Patience) -> anyhow::Result<Ssh> {
        let key = private_key(&credentials.identity)?;
        let certificate = certificate(&credentials.identity)?;
        let socket = wire::connect(&wire::resolve(&url.host, url.port())?, patience)?;
        let mut session = Session::new().context("cannot begin an SSH session")?;
        session.set_timeout(wire::milliseconds(patience.0));
        session.set_tcp_stream(socket.try_clone().context("cannot share the connection")?);
        for direction in [MethodType::CryptCs, MethodType::CryptSc] {
            // A library that has none of them uses what it has.
            let _ = session.method_pref(direction, CIPHERS);
        }
        let name = credentials.host_name.as_deref().unwrap_or(&url.host);
        let file = credentials.known_hosts.as_deref();
        let known = file.map(|file| host_key::Known::read(&session, file, name, url.port())).transpose()?;
        if let Some(preference) = known.as_ref().and_then(host_key::Known::preference) {
            session.method_pref(MethodType::HostKey, &preference).context("cannot choose the kind of host key")?;
        }
        let ssh = Ssh { session, socket, patience };
        let mut session = ssh.session.clone();
        session.handshake().map_err(|error| ssh.explain(error)).context("the SSH handshake failed")?;
        if let Some(known) = known {
            known.check(&ssh.session)?;
        }
        let user = url.user.as_deref().unwrap_or("root");
        let mut also = String::new();
        if let Some(certificate) = &certificate {
            match ssh.session.userauth_pubkey_memory(user, Some(certificate), &key, None) {
                Ok(()) => return Ok(ssh),
                Err(error) if is_of_the_connection(&error) => return Err(ssh.explain(error).into()),
                Err(error) => also = format!(", nor with its certificate ({})", error.message()),
            }
        }
        ssh.session.userauth_pubkey_memory(user, None, &key, None).map_err(|error| match error.code() {
            ErrorCode::Session(code) if REFUSED.contains(&code) => anyhow!(
                "{name} does not let {user} in with the key {}: {}{also}; put the public key into \
                 ~{user}/.ssh/authorized_keys there, as `kdumpctl propagate` does",
                credentials.identity.display(),
                error.message()
            ),
            _ => anyhow!(ssh.explain(error))
                .context(format!("cannot log in to {name} with the key {}", credentials.identity.display())),
        })?;
        Ok(ssh)
    }

    /// What an error of libssh2 means.
    fn explain(&self, error: ssh2::Error) -> io::Error {
        match error.code() {
            ErrorCode::Session(code) if TIMEOUTS.contains(&code) => self.stalled(),
            ErrorCode::Session(code) if GONE.contains(&code) => {
                self.cut();
                io::Error::new(io::ErrorKind::ConnectionReset, format!("the connection is gone: {}", error.message()))
            }
            _ => io::Error::other(error.message().to_owned()),
        }
    }

    /// As [`Ssh::explain`], of an error that has become one of the standard library and lost its code on the way.
    fn explain_io(&self, error: io::Error) -> io::Error {
        match ssh2::Error::last_session_error(&self.session) {
            Some(last) if is_of_the_connection(&last) => self.explain(last),
            _ if error.kind() == io::ErrorKind::TimedOut => self.stalled(),
            _ => error,
        }
    }

    fn cut(&self) {
        // It may be gone already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// After a stall the connection is cut, so that nothing waits for it once more.
    fn stalled(&self) -> io::Error {
        self.cut();
        self.patience.stalled()
    }

    /// Waits that long for each answer, until the guard is dropped.
    fn wait_for(&self, time: Duration) -> Waiting<'_> {
        self.session.set_timeout(wire::milliseconds(time));
        Waiting(self)
    }
}

fn is_of_the_connection(error: &ssh2::Error) -> bool {
    matches!(error.code(), ErrorCode::Session(code) if TIMEOUTS.contains(&code) || GONE.contains(&code))
}

/// See [`Ssh::wait_for`].
struct Waiting<'a>(&'a Ssh);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.session.set_timeout(wire::milliseconds(self.0.patience.0));
    }
}

/// The text of a private key that can be used without a passphrase.
fn private_key(file: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read the private key {}", file.display()))?;
    if !text.contains("PRIVATE KEY-----") {
        bail!("{} is not a private key; name the file without .pub", file.display());
    }
    if is_locked(&text) {
        bail!(
            "the private key {} has a passphrase, and after a crash nobody is there to type it; make one without: \
             ssh-keygen -t ed25519 -N '' -f FILE",
            file.display()
        );
    }
    Ok(text)
}

/// The certificate beside a private key, if there is one.
fn certificate(key: &Path) -> anyhow::Result<Option<String>> {
    let mut file = key.as_os_str().to_owned();
    file.push("-cert.pub");
    match fs::read_to_string(&file) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read the certificate {}", Path::new(&file).display())),
    }
}

/// Whether a key is encrypted: by a header of PEM, or by the name of a cipher that begins OpenSSH's own format
/// (PROTOCOL.key: "openssh-key-v1", 0, the cipher's length and name, `none` if there is none).
fn is_locked(text: &str) -> bool {
    const OPEN: &[u8] = b"openssh-key-v1\0\0\0\0\x04none";
    if !text.contains("BEGIN OPENSSH PRIVATE KEY") {
        return text.contains("ENCRYPTED");
    }
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    !openssl::base64::decode_block(&body).is_ok_and(|bytes| bytes.starts_with(OPEN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        private_key(file.path()).map(|_| String::new()).unwrap_or_else(|error| format!("{error:#}"))
    }

    fn openssh(cipher: &str) -> String {
        let mut bytes = b"openssh-key-v1\0".to_vec();
        bytes.extend(u32::try_from(cipher.len()).unwrap().to_be_bytes());
        bytes.extend(cipher.bytes());
        bytes.extend([0; 40]);
        let body = openssl::base64::encode_block(&bytes);
        format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----\n")
    }

    #[test]
    fn a_key_with_a_passphrase_is_refused_in_so_many_words() {
        assert_eq!(refusal(&openssh("none")), "");
        let pem = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n";
        for locked in [&openssh("aes256-ctr"), pem, "-----BEGIN ENCRYPTED PRIVATE KEY-----\n"] {
            assert!(refusal(locked).contains("has a passphrase"), "{locked}");
        }
        assert!(refusal("ssh-ed25519 AAAA").contains("without .pub"));
    }
}
