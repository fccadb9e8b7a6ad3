//! Where the far side is: `PROTOCOL://[USER@]HOST[:PORT][/PATH]`, as RFC 3986 writes it.
//!
//! In: the word from the command line. Out: a [`Url`]. May surprise: a password in it is refused, because whoever lists
//! the processes of a machine reads it; and nothing that could end a command of FTP or a line of a file may stand in a
//! path, however it is written.

use anyhow::{Context, bail};
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// How the far side is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Commands of a POSIX shell, over SSH.
    Ssh,
    /// The file transfer of SSH.
    Sftp,
    /// FTP, in the clear.
    Ftp,
    /// FTP that asks for TLS before it says anything else.
    Ftps,
    /// Anything, over TLS; only to talk.
    Tls,
    /// A mail server that is asked for TLS first; only to talk.
    Smtp,
}

impl Protocol {
    const ALL: [(&str, Protocol); 6] = [
        ("ssh", Protocol::Ssh),
        ("sftp", Protocol::Sftp),
        ("ftp", Protocol::Ftp),
        ("ftps", Protocol::Ftps),
        ("tls", Protocol::Tls),
        ("smtp", Protocol::Smtp),
    ];

    /// The port if none is given. Explicit TLS begins on the port of FTP.
    pub fn port(self) -> u16 {
        match self {
            Protocol::Ssh | Protocol::Sftp => 22,
            Protocol::Ftp | Protocol::Ftps => 21,
            Protocol::Tls => 443,
            Protocol::Smtp => 25,
        }
    }

    /// Whether it is one of the two that are only talked to.
    pub fn is_talk(self) -> bool {
        matches!(self, Protocol::Tls | Protocol::Smtp)
    }

    /// Whether it is one of the two that run over SSH.
    pub fn is_ssh(self) -> bool {
        matches!(self, Protocol::Ssh | Protocol::Sftp)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Protocol::ALL.iter().find(|(_, protocol)| protocol == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

/// A place on the far side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Who logs in.
    pub user: Option<String>,
    /// A name or an address, without brackets.
    pub host: String,
    /// The port, if it is not the usual one.
    pub port: Option<u16>,
    /// An absolute directory.
    pub path: String,
}

impl Url {
    /// The port that is connected to.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(self.protocol.port())
    }

    /// `name` below the directory.
    pub fn below(&self, name: &str) -> String {
        format!("{}/{name}", self.path.trim_end_matches('/'))
    }
}

impl FromStr for Url {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Url> {
        let (protocol, rest) = text.split_once("://").with_context(|| wrong(text))?;
        let known = Protocol::ALL.iter().find(|(name, _)| *name == protocol);
        let protocol =
            known.with_context(|| format!("{protocol}:// is neither ssh://, sftp://, ftp:// nor ftps://"))?.1;
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => bail!(
                "there is a password in the address, and everybody can read the command line of a process; write it to \
                 a file of mode 0600 and name that with --password-file"
            ),
            Some((user, place)) => (Some(decoded(user)?), place),
            None => (None, authority),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').with_context(|| wrong(text))?;
                host.parse::<Ipv6Addr>().with_context(|| format!("[{host}] is not an IPv6 address"))?;
                (host, rest)
            }
            None => place.find(':').map_or((place, ""), |at| place.split_at(at)),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => {
                let number = port.parse::<u16>().ok().filter(|port| *port > 0);
                Some(number.with_context(|| format!("`{port}` is not a port; write a number from 1 to 65535"))?)
            }
            None if port.is_empty() => None,
            None => bail!(wrong(text)),
        };
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
        if host.is_empty() || host.starts_with('-') || !host.chars().all(good) {
            bail!("`{host}` is neither the name nor the address of a host");
        }
        if user.as_ref().is_some_and(|user| user.is_empty()) {
            bail!("the address has an @ but no user before it");
        }
        let path = absolute(&decoded(path)?)?;
        Ok(Url { protocol, user, host: host.to_owned(), port, path })
    }
}

/// As messages name it; never with a secret.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.protocol)?;
        if let Some(user) = &self.user {
            write!(f, "{}@", encoded(user, ""))?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(&encoded(&self.path, "/"))
    }
}

fn wrong(text: &str) -> String {
    format!("`{text}` is not an address; write PROTOCOL://[USER@]HOST[:PORT][/PATH], such as sftp://dump@nas/srv/crash")
}

/// What `%41` and its like stand for.
fn decoded(text: &str) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next(), rest.next()].map(|digit| char::from(digit.unwrap_or(b'?')).to_digit(16));
                let [Some(high), Some(low)] = digits else {
                    bail!("`{text}`: a % needs two hexadecimal digits after it; a % itself is %25")
                };
                u8::try_from(high * 16 + low)?
            }
            byte => byte,
        });
    }
    let decoded = String::from_utf8(bytes).with_context(|| format!("`{text}` is not UTF-8"))?;
    if decoded.chars().any(char::is_control) {
        bail!("`{text}` has a control character in it");
    }
    Ok(decoded)
}

fn encoded(text: &str, also: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || also.as_bytes().contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// A path from the root on, without empty parts.
fn absolute(path: &str) -> anyhow::Result<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        bail!("`{path}` has `..` in it; write the directory without");
    }
    Ok(format!("/{}", parts.join("/")))
}

/// A name below the directory of the address: `DIR` or `DIR/NAME`.
///
/// # Errors
/// It could lead elsewhere, or cannot be said in every protocol.
pub fn relative(name: &str) -> anyhow::Result<String> {
    let good = |part: &str| !part.is_empty() && part != "." && part != "..";
    if name.chars().any(char::is_control) || !name.split('/').all(good) {
        bail!("`{name}` is not a name below the directory of the address; write DIR or DIR/NAME");
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_part_is_found() {
        let url: Url = "sftp://dump%40site@nas.example:2222//srv/./my%20crash/".parse().unwrap();
        assert_eq!((url.protocol, url.user.as_deref(), url.port()), (Protocol::Sftp, Some("dump@site"), 2222));
        assert_eq!((url.host.as_str(), url.path.as_str()), ("nas.example", "/srv/my crash"));
        assert_eq!(url.to_string(), "sftp://dump%40site@nas.example:2222/srv/my%20crash");
        assert_eq!(url.below("d/vmcore"), "/srv/my crash/d/vmcore");
        let url: Url = "ftp://[fe80::1]".parse().unwrap();
        assert_eq!((url.host.as_str(), url.port(), url.path.as_str()), ("fe80::1", 21, "/"));
        assert_eq!(url.below("d"), "/d");
    }

    #[test]
    fn what_cannot_be_meant_is_told() {
        for (text, words) in [
            ("nas:/srv", "is not an address"),
            ("http://nas/", "neither ssh://"),
            ("ftp://me:secret@nas/", "--password-file"),
            ("ssh://nas:0/", "not a port"),
            ("ssh://nas:/", "not a port"),
            ("ssh://@nas/", "no user"),
            ("ssh:///x", "neither the name"),
            ("ssh://-oProxy/x", "neither the name"),
            ("ssh://[nas]/x", "not an IPv6 address"),
            ("ssh://nas/a/../b", "`..`"),
            ("ftp://nas/a%0d%0aDELE%20b", "control character"),
            ("ftp://nas/100%", "%25"),
        ] {
            let error = format!("{:#}", text.parse::<Url>().unwrap_err());
            assert!(error.contains(words) && !error.contains("secret"), "{text}: {error}");
        }
        for name in ["", "/x", "a//b", "../x", "a/..", "a\nb", "."] {
            assert!(relative(name).is_err(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(user in "[ -~]{1,9}", host in "[a-z][a-z0-9.-]{0,9}", port in 1u16.., path in "(/[ -.0-~é]{1,5}){0,3}") {
            prop_assume!(!path.split('/').any(|part| part == "." || part == ".."));
            let path = if path.is_empty() { "/".to_owned() } else { path };
            let url = Url { protocol: Protocol::Ftps, user: Some(user), host, port: Some(port), path };
            prop_assert_eq!(url.to_string().parse::<Url>().unwrap(), url);
        }

        #[test]
        fn any_text_ends_in_a_result(text in "(ssh|sftp|ftps?)://.{0,40}") {
            if let Ok(url) = text.parse::<Url>() {
                prop_assert!(!url.path.contains(['\r', '\n', '\0']));
            }
        }
    }
}
