//! A POST to a web server (RFC 9112).

use super::tls::Tls;
use super::{News, Server, host_and_port};
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::str::FromStr;

/// A longer first line is no answer.
const LONGEST: u64 = 1024;

/// Where the request goes: `http://HOST[:PORT]/PATH`, or `https://`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Webhook {
    /// The server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// Whether it goes there over TLS.
    pub secure: bool,
}

impl FromStr for Webhook {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{url}` is not a web address; write http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH");
        let (secure, rest) = match url.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, url.strip_prefix("http://").ok_or_else(wrong)?),
        };
        let (place, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = host_and_port(place, if secure { 443 } else { 80 }).ok_or_else(wrong)?;
        let path = if path.is_empty() { "/" } else { path };
        if !path.chars().all(|c| c.is_ascii_graphic()) {
            return Err(wrong());
        }
        Ok(Webhook { host, port, path: path.to_owned(), secure })
    }
}

impl TryFrom<String> for Webhook {
    type Error = String;

    fn try_from(url: String) -> Result<Self, String> {
        url.parse()
    }
}

impl From<Webhook> for String {
    fn from(webhook: Webhook) -> String {
        format!("{webhook}{}", webhook.path)
    }
}

/// Without path and query, which may be as good as a password.
impl fmt::Display for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.secure { "https" } else { "http" }, self.place())
    }
}

impl Webhook {
    pub(super) fn server(&self) -> Server<'_> {
        Server { host: &self.host, port: self.port, tls: if self.secure { Tls::On } else { Tls::Off } }
    }

    fn place(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// One request.
    pub(super) fn tell(&self, news: &News, mut line: impl Read + Write) -> anyhow::Result<()> {
        let request = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: kdump-rs\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{}",
            self.path,
            self.place(),
            news.status.len(),
            news.status
        );
        line.write_all(request.as_bytes()).and_then(|()| line.flush()).context("cannot send the request")?;
        let mut answer = Vec::new();
        BufReader::new(line.take(LONGEST)).read_until(b'\n', &mut answer).context("there is no answer")?;
        match status(&answer) {
            Some(200..=299) => Ok(()),
            Some(status) => bail!("the server answers with {status}"),
            None => bail!("what answers does not speak HTTP"),
        }
    }
}

/// The number in the first line of an answer.
pub fn status(line: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    let number = words.next()?.trim_end();
    (number.len() == 3).then(|| number.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn web_addresses_are_read() {
        let hook: Webhook = "http://[fec0::2]:8080/a?b=c".parse().unwrap();
        assert_eq!((hook.host.as_str(), hook.port, hook.path.as_str()), ("fec0::2", 8080, "/a?b=c"));
        assert_eq!(String::from(hook.clone()), "http://[fec0::2]:8080/a?b=c");
        assert_eq!(hook.to_string(), "http://[fec0::2]:8080");
        assert_eq!("http://h".parse::<Webhook>().unwrap().path, "/");
        let hook: Webhook = "https://h/x".parse().unwrap();
        assert_eq!((hook.port, hook.secure, String::from(hook.clone()).as_str()), (443, true, "https://h:443/x"));
        for url in ["", "ftp://h/", "http://", "http://h/a b", "http://u:p@h/", "http://h/\r\nX: y"] {
            assert!(url.parse::<Webhook>().is_err(), "{url}");
        }
    }

    #[test]
    fn only_a_success_is_one() {
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\n"), Some(204));
        assert_eq!(status(b"HTTP/1.0 500\r\n"), Some(500));
        for line in [&b""[..], b"SSH-2.0", b"HTTP/1.1 2 x", b"HTTP/1.1 -20 x", b"\xff"] {
            assert_eq!(status(line), None);
        }
    }
}
