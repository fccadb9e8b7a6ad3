//! Tells people that a machine has crashed: by mail, and by a POST to a web server.
//!
//! In: the text of `status.json`. Out: a mail with it ([`smtp`]), the same text as the body of a request ([`http`]).
//!
//! *Into the image*: the file with the password for the mail server, if there is one; where somebody is told over TLS,
//! kdump-send, which has it ([`tls`]), and the certificates of who vouches for servers. *At boot*: when the status is
//! written, and there is a network. Where there is none, `kdumpctl start` does it at the next boot, for the dumps that
//! lack the mark [`MARK`]. What became of each notice is a [`Notice`], for `status.json`.
//!
//! May surprise: whether anybody could be told changes nothing about how the boot ends. A password goes to a mail server
//! over TLS alone, unless the configuration explicitly says that it may be sent in the clear.

pub mod http;
pub mod smtp;
pub mod tls;

use crate::Hook;
use crate::calendar::civil;
use crate::cifs::Credentials;
use crate::host::{Contribution, FileNeed, Host};
use crate::net::{Net, server};
use crate::remote::PROGRAM;
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tls::{Lender, Tls};

/// The name of the file in a dump directory that says that it has been told of.
pub const MARK: &str = ".notified";

/// Where an image has the certificates of those who vouch for servers.
const AUTHORITIES: &str = "/etc/kdump/notify.authorities";

/// Who is told, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notify {
    /// The name of the machine.
    pub host: String,
    /// Who gets mail, and by which server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail: Option<smtp::Mail>,
    /// Where a request goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<http::Webhook>,
    /// The certificates of those who vouch for servers with TLS, on the host; the host's own if not said.
    #[serde(skip)]
    pub authorities: Option<PathBuf>,
}

/// What there is to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// How it came out, in a word.
    pub outcome: String,
    /// The text of `status.json`.
    pub status: String,
    /// When it is told, in seconds since 1970.
    pub time: u64,
    /// Who tells it.
    pub by: String,
}

/// What became of one notice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Who was to be told, and by which server.
    pub to: String,
    /// Who tried: `capture kernel`, or `kdumpctl start` after the reboot.
    pub by: String,
    /// When, in seconds since 1970.
    pub time: u64,
    /// Why it could not be told; nothing if it was.
    pub error: Option<String>,
    /// Those among them whom the server did not take, and why, though others were told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
}

impl Notice {
    /// Puts `new` into the place of what is known of the same ones, or behind it.
    pub fn settle(known: &mut Vec<Notice>, new: Vec<Notice>) {
        known.retain(|old| new.iter().all(|new| new.to != old.to));
        known.extend(new);
    }

    /// What could not be told, and why, in one line; nothing if everything could.
    pub fn failures(notices: &[Notice]) -> Option<String> {
        let failed = |notice: &Notice| Some(format!("cannot tell {}: {}", notice.to, notice.error.as_ref()?));
        let failures: Vec<String> = notices.iter().filter_map(failed).collect();
        (!failures.is_empty()).then(|| failures.join("; "))
    }
}

impl Notify {
    /// Tells everybody who is not in `known` as told, and says of each what became of it. What one cannot be told does
    /// not keep the others from it.
    pub fn tell(
        &self,
        news: &News,
        known: &[Notice],
        net: &mut dyn Net,
        lender: &Lender,
        limit: Duration,
    ) -> Vec<Notice> {
        let end = Instant::now() + limit;
        self.each(news, known, &mut |way| match way {
            Way::Webhook(webhook) => {
                talk(webhook.server(), net, lender, end, &mut |line| webhook.tell(news, line).map(|()| Vec::new()))
            }
            Way::Mail(mail) => {
                let read = || mail.credentials.as_ref().map(|file| read(file, net)).transpose();
                let credentials = mail.login.clone().map_or_else(read, |login| Ok(Some(login)))?;
                talk(mail.server(), net, lender, end, &mut |line| {
                    mail.tell(&self.host, news, credentials.as_ref(), line)
                })
            }
        })
    }

    /// Whether anybody is told over TLS.
    pub fn needs_tls(&self) -> bool {
        let mut servers =
            self.webhook.iter().map(http::Webhook::server).chain(self.mail.iter().map(smtp::Mail::server));
        servers.any(|server| !server.tls.is_off())
    }

    /// The notices of a boot that cannot tell anybody: why.
    pub fn untold(&self, news: &News, why: &str) -> Vec<Notice> {
        self.each(news, &[], &mut |_| bail!("{why}"))
    }

    fn each(&self, news: &News, known: &[Notice], tell: &mut Tell) -> Vec<Notice> {
        let ways = self.webhook.iter().map(Way::Webhook).chain(self.mail.iter().map(Way::Mail));
        let is_told = |to: &String| known.iter().any(|notice| notice.to == *to && notice.error.is_none());
        ways.map(|way| (way.to_string(), way))
            .filter(|(to, _)| !is_told(to))
            .map(|(to, way)| {
                let (refused, error) = match tell(way) {
                    Ok(refused) => (refused, None),
                    Err(error) => (Vec::new(), Some(format!("{error:#}"))),
                };
                refused.iter().for_each(|why| log::warn!("not everybody has been told: {why}"));
                Notice { to, by: news.by.clone(), time: news.time, error, refused }
            })
            .collect()
    }
}

/// Tells in one way; whom the server refused.
type Tell<'a> = dyn FnMut(Way) -> anyhow::Result<Vec<String>> + 'a;

/// One way to tell.
enum Way<'a> {
    Webhook(&'a http::Webhook),
    Mail(&'a smtp::Mail),
}

impl fmt::Display for Way<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Webhook(webhook) => webhook.fmt(f),
            Way::Mail(mail) => {
                let all: Vec<&str> = mail.to.iter().chain(&mail.cc).map(String::as_str).collect();
                write!(f, "{} by {mail}", all.join(", "))
            }
        }
    }
}

impl Hook for Notify {
    fn name(&self) -> &'static str {
        "notify"
    }

    fn gather(&self, host: &dyn Host) -> anyhow::Result<Contribution> {
        let mut files = Vec::new();
        let mut ours = Vec::new();
        if self.needs_tls() {
            let file = match &self.authorities {
                Some(file) => file,
                None => crate::remote::authorities(host, "those who are told")?,
            };
            let bytes = host.read(file).with_context(|| format!("the authorities in {}", file.display()))?;
            let reason = "who vouches for the servers that are told".to_owned();
            files.push(FileNeed { path: AUTHORITIES.into(), bytes, secret: false, reason });
            ours.push((PROGRAM, "has the TLS by which others are told".to_owned()));
        }
        if let Some((mail, path)) = self.mail.as_ref().and_then(|mail| Some((mail, mail.credentials.as_ref()?))) {
            let reading = || format!("the credentials file {} of the mail server", path.display());
            let credentials = match &mail.login {
                Some(login) => login.clone(),
                None => {
                    let text = String::from_utf8(host.read(path).with_context(reading)?).ok().with_context(reading)?;
                    Credentials::parse(&text).with_context(reading)?
                }
            };
            files.push(FileNeed {
                path: path.clone(),
                bytes: credentials.text().into_bytes(),
                secret: true,
                reason: "user and password for the mail server".to_owned(),
            });
        }
        Ok(Contribution { files, ours, ..Contribution::default() })
    }
}

fn read(file: &Path, net: &mut dyn Net) -> anyhow::Result<Credentials> {
    let text = file.to_str().and_then(|path| net.read(path));
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    Credentials::parse(&text).with_context(|| format!("the credentials file {}", file.display()))
}

/// Who is connected to.
#[derive(Clone, Copy, Debug)]
struct Server<'a> {
    host: &'a str,
    port: u16,
    tls: Tls,
}

/// What one can talk over.
trait Speak: Read + Write {}

impl<S: Read + Write> Speak for S {}

/// Connects, as secure as is asked for, and talks.
fn talk<T>(
    server: Server<'_>,
    net: &mut dyn Net,
    lender: &Lender,
    end: Instant,
    talk: &mut dyn FnMut(&mut dyn Speak) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let address = SocketAddr::new(server::find(net, server.host, None)?, server.port);
    if server.tls.is_off() {
        return talk(&mut connect(address, end)?);
    }
    let mut lent = lender.connect(server, address, end)?;
    talk(&mut lent).map_err(|error| lent.explain(error))
}

/// A connection that ends in time, whatever the other side does.
#[derive(Debug)]
struct Line {
    stream: TcpStream,
    end: Instant,
}

fn connect(address: SocketAddr, end: Instant) -> anyhow::Result<Line> {
    let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let stream = TcpStream::connect_timeout(&address, left).with_context(|| format!("cannot connect to {address}"))?;
    Ok(Line { stream, end })
}

impl Line {
    fn left(&self) -> std::io::Result<Option<Duration>> {
        let left = self.end.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(std::io::ErrorKind::TimedOut.into()),
            false => Ok(Some(left)),
        }
    }
}

impl Read for Line {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(bytes)
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

/// `HOST`, `HOST:PORT`, an IPv6 address in brackets.
pub(crate) fn host_and_port(text: &str, port: u16) -> Option<(String, u16)> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(inner) => {
            let (host, rest) = inner.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, rest)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match rest.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port > 0)?,
        None if rest.is_empty() => port,
        None => return None,
    };
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':' | '%');
    (!host.is_empty() && host.chars().all(good)).then(|| (host.to_owned(), port))
}

/// A time as mail has it, in UTC (RFC 5322, 3.3).
fn date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let week_day = DAYS.iter().cycle().nth(usize::try_from(days % 7).unwrap_or_default()).copied().unwrap_or_default();
    let (year, month, day_of_month) = civil(days);
    let month =
        month.checked_sub(1).and_then(|month| MONTHS.get(usize::try_from(month).ok()?)).copied().unwrap_or_default();
    format!(
        "{week_day}, {day_of_month} {month} {year} {:02}:{:02}:{:02} +0000",
        rest / 3600,
        rest % 3600 / 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeNet;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    #[test]
    fn dates_are_those_of_mail() {
        assert_eq!(date(0), "Thu, 1 Jan 1970 00:00:00 +0000");
        assert_eq!(date(951_782_399), "Mon, 28 Feb 2000 23:59:59 +0000");
        assert_eq!(date(951_782_400), "Tue, 29 Feb 2000 00:00:00 +0000");
        assert_eq!(date(1_795_316_757), "Sun, 22 Nov 2026 03:05:57 +0000");
    }

    #[test]
    fn what_is_known_of_a_notice_is_what_became_of_it_last() {
        let notice = |to: &str, time, error: Option<&str>| Notice {
            to: to.into(),
            by: "test".into(),
            time,
            error: error.map(str::to_owned),
            refused: Vec::new(),
        };
        let mut known = vec![notice("a", 1, Some("no")), notice("b", 1, Some("down"))];
        Notice::settle(&mut known, vec![notice("a", 2, None)]);
        assert_eq!(known, [notice("b", 1, Some("down")), notice("a", 2, None)]);
        assert_eq!(Notice::failures(&known).unwrap(), "cannot tell b: down");
    }

    #[test]
    fn servers_are_named_with_or_without_a_port() {
        assert_eq!(host_and_port("mail", 25), Some(("mail".into(), 25)));
        assert_eq!(host_and_port("10.0.2.2:2525", 25), Some(("10.0.2.2".into(), 2525)));
        assert_eq!(host_and_port("[fec0::2]:1", 25), Some(("fec0::2".into(), 1)));
        for text in ["", ":1", "a:", "a:0", "a:x", "[x]", "[::1]x", "a b"] {
            assert_eq!(host_and_port(text, 25), None, "{text}");
        }
    }

    #[test]
    fn who_is_not_there_or_does_not_answer_is_named_in_time() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let notify = Notify {
            webhook: Some(format!("http://{}/x", silent.local_addr().unwrap()).parse().unwrap()),
            ..Notify::default()
        };
        let began = Instant::now();
        let notices = notify.tell(
            &News::default(),
            &[],
            &mut FakeNet::default(),
            &Lender::of_image(),
            Duration::from_millis(300),
        );
        let said = Notice::failures(&notices).unwrap();
        assert!(said.starts_with("cannot tell http://127.0.0.1:"), "{said}");
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_web_server_gets_the_status_over_a_real_connection() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/kdump", server.local_addr().unwrap());
        let serving = std::thread::spawn(move || {
            let mut stream = BufReader::new(server.accept().unwrap().0);
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                if line == "\r\n" {
                    break;
                }
                lines.push(line);
            }
            let mut body = [0; 2];
            stream.read_exact(&mut body).unwrap();
            stream.get_mut().write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            (lines.concat(), body)
        });
        let notify = Notify { webhook: Some(url.parse().unwrap()), ..Notify::default() };
        let news = News { status: "{}".into(), ..News::default() };
        let tell = |known: &[Notice]| {
            notify.tell(&news, known, &mut FakeNet::default(), &Lender::of_image(), Duration::from_secs(20))
        };
        let notices = tell(&[]);
        assert_eq!((notices.len(), Notice::failures(&notices)), (1, None));
        assert_eq!(tell(&notices), [], "told once");
        let (head, body) = serving.join().unwrap();
        assert!(head.starts_with("POST /kdump HTTP/1.1\r\n") && head.contains("Content-Length: 2\r\n"), "{head}");
        assert_eq!(&body, b"{}");
    }
}
