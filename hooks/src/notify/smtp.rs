//! A mail, handed to a mail server (RFC 5321; AUTH: RFC 4954).
//!
//! May surprise: without TLS a password is only sent if the configuration says `clear`, and never to be read by accident.

use super::tls::Tls;
use super::{News, Server, date, host_and_port};
use crate::cifs::Credentials;
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;

/// Longer lines and more of them are no reply.
const LONGEST: u64 = 2048;
const MOST: usize = 64;

/// Who gets mail, and by which server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mail {
    /// The server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The sender.
    pub from: String,
    /// Who it is for.
    pub to: Vec<String>,
    /// Who gets a copy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cc: Vec<String>,
    /// How the server is spoken to.
    #[serde(default, skip_serializing_if = "Tls::is_off")]
    pub tls: Tls,
    /// The file with user and password, in the image and, without `login`, on the host. Without TLS what is in it is sent
    /// in the clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<PathBuf>,
    /// User and password, where they are in no file on the host.
    #[serde(skip)]
    pub login: Option<Credentials>,
}

impl fmt::Display for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// `HOST[:PORT]`, with or without `smtp://`; or `smtps://HOST[:PORT]`, with TLS from the start.
///
/// # Errors
/// What to write instead.
pub fn server(text: &str) -> Result<(String, u16, Tls), String> {
    let (place, port, tls) = match text.strip_prefix("smtps://") {
        Some(place) => (place, 465, Tls::On),
        None => (text.strip_prefix("smtp://").unwrap_or(text), 25, Tls::Off),
    };
    let found = host_and_port(place.trim_end_matches('/'), port);
    let (host, port) = found.ok_or_else(|| format!("`{text}` is not a mail server; write HOST or HOST:PORT"))?;
    Ok((host, port, tls))
}

/// The addresses of a list, divided by commas or blanks.
///
/// # Errors
/// The word that is no address.
pub fn addresses(text: &str) -> Result<Vec<String>, String> {
    let words = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
    words.map(address).collect()
}

/// One address. It goes into commands as it is.
fn address(word: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_graphic() && !matches!(c, '<' | '>' | '(' | ')' | '"' | '\\' | ':' | ';' | ',');
    match !word.is_empty() && word.len() < 256 && word.chars().all(good) {
        true => Ok(word.to_owned()),
        false => Err(format!("`{word}` is not a mail address; write NAME@DOMAIN")),
    }
}

/// A mail server's reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Its number.
    pub code: u16,
    /// Its lines without number.
    pub lines: Vec<String>,
}

impl Reply {
    /// Reads one, which may have several lines.
    ///
    /// # Errors
    /// There is none, or what comes is none.
    pub fn read(from: &mut impl BufRead) -> anyhow::Result<Reply> {
        let mut reply = Reply::default();
        for _ in 0..MOST {
            let mut line = Vec::new();
            from.by_ref().take(LONGEST).read_until(b'\n', &mut line).context("there is no reply")?;
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            let (code, rest) = line.split_at_checked(3).with_context(|| match line.is_empty() {
                true => "the connection is closed".to_owned(),
                false => format!("`{line}` is not the reply of a mail server"),
            })?;
            let digits = code.bytes().all(|byte| byte.is_ascii_digit());
            let code: Option<u16> = code.parse().ok().filter(|_| digits);
            let code = code.with_context(|| format!("`{line}` is not the reply of a mail server"))?;
            if !reply.lines.is_empty() && code != reply.code {
                bail!("the reply changes its mind: {} and {code}", reply.code);
            }
            reply.code = code;
            reply.lines.push(rest.trim_start_matches(['-', ' ']).to_owned());
            if !rest.starts_with('-') {
                return Ok(reply);
            }
        }
        bail!("the reply does not end")
    }

    /// 251 is as good as 250: the server knows better where it goes.
    fn is_about(&self, wanted: u16) -> bool {
        self.code / 10 == wanted / 10
    }

    fn must_be(self, what: &str, wanted: u16) -> anyhow::Result<Reply> {
        match self.is_about(wanted) {
            true => Ok(self),
            false => bail!("{what}: the server says: {}", self.text()),
        }
    }

    fn text(&self) -> String {
        format!("{} {}", self.code, self.lines.join(" ")).trim_end().to_owned()
    }
}

/// A conversation. What is sent that is secret appears in no error.
struct Talk<S> {
    line: BufReader<S>,
}

impl<S: Read + Write> Talk<S> {
    fn hear(&mut self, what: &str, wanted: u16) -> anyhow::Result<Reply> {
        self.reply(what)?.must_be(what, wanted)
    }

    fn reply(&mut self, what: &str) -> anyhow::Result<Reply> {
        Reply::read(&mut self.line).with_context(|| what.to_owned())
    }

    fn ask(&mut self, what: &str, line: &str) -> anyhow::Result<Reply> {
        let to = self.line.get_mut();
        let said = to.write_all(format!("{line}\r\n").as_bytes()).and_then(|()| to.flush());
        said.with_context(|| what.to_owned())?;
        self.reply(what)
    }

    fn say(&mut self, what: &str, line: &str, wanted: u16) -> anyhow::Result<Reply> {
        self.ask(what, line)?.must_be(what, wanted)
    }
}

impl Mail {
    pub(super) fn server(&self) -> Server<'_> {
        Server { host: &self.host, port: self.port, tls: self.tls }
    }

    /// Hands the mail over; those whom the server does not take, and why. One at least is taken.
    pub(super) fn tell(
        &self,
        host: &str,
        news: &News,
        credentials: Option<&Credentials>,
        line: impl Read + Write,
    ) -> anyhow::Result<Vec<String>> {
        let mut talk = Talk { line: BufReader::new(line) };
        if self.tls != Tls::Starttls {
            talk.hear("greeting", 220)?;
        }
        let name: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')).collect();
        let name = if name.is_empty() { "localhost".to_owned() } else { name };
        let extensions = talk.say("EHLO", &format!("EHLO {name}"), 250)?;
        if let Some(credentials) = credentials {
            self.authenticate(&mut talk, &extensions, credentials)?;
        }
        talk.say("MAIL FROM", &format!("MAIL FROM:<{}>", self.from), 250)?;
        let mut refused = Vec::new();
        for to in self.to.iter().chain(&self.cc) {
            let reply = talk.ask(&format!("RCPT TO {to}"), &format!("RCPT TO:<{to}>"))?;
            if !reply.is_about(250) {
                refused.push(format!("RCPT TO {to}: the server says: {}", reply.text()));
            }
        }
        if refused.len() == self.to.len() + self.cc.len() {
            bail!("{}", refused.join("; "));
        }
        talk.say("DATA", "DATA", 354)?;
        talk.say("the mail itself", &format!("{}.", self.text(&name, news)), 250)?;
        // It is the server's now, whatever it says to this.
        let _ = talk.say("QUIT", "QUIT", 221);
        Ok(refused)
    }

    fn authenticate<S: Read + Write>(
        &self,
        talk: &mut Talk<S>,
        extensions: &Reply,
        credentials: &Credentials,
    ) -> anyhow::Result<()> {
        let ways =
            extensions.lines.iter().find_map(|line| line.to_ascii_uppercase().strip_prefix("AUTH ").map(str::to_owned));
        let has = |way: &str| ways.iter().flat_map(|ways| ways.split(' ')).any(|word| word == way);
        let Credentials { user, password, .. } = credentials;
        if has("PLAIN") {
            let secret = base64(format!("\0{user}\0{password}").as_bytes());
            talk.say("AUTH PLAIN", &format!("AUTH PLAIN {secret}"), 235)?;
        } else if has("LOGIN") {
            talk.say("AUTH LOGIN", "AUTH LOGIN", 334)?;
            talk.say("the user's name", &base64(user.as_bytes()), 334)?;
            talk.say("the password", &base64(password.as_bytes()), 235)?;
        } else {
            let without = if self.tls.is_off() { " without TLS" } else { "" };
            bail!("the server takes neither AUTH PLAIN nor AUTH LOGIN{without}");
        }
        Ok(())
    }

    /// Header and body, each line ended, a leading `.` doubled.
    fn text(&self, host: &str, news: &News) -> String {
        let cc = if self.cc.is_empty() { String::new() } else { format!("Cc: {}\n", self.cc.join(", ")) };
        let mail = format!(
            "From: {}\nTo: {}\n{cc}Date: {}\nSubject: kdump on {host}: {}\nMIME-Version: 1.0\n\
             Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n\
             The kernel of {host} has crashed. This is what became of the dump:\n\n{}\n",
            self.from,
            self.to.join(", "),
            date(news.time),
            news.outcome,
            news.status.trim_end()
        );
        mail.lines()
            .flat_map(pieces)
            .map(|line| match line.starts_with('.') {
                true => format!(".{line}\r\n"),
                false => format!("{line}\r\n"),
            })
            .collect()
    }
}

/// A line in parts that are short enough for a mail: at most 998 bytes.
fn pieces(line: &str) -> Vec<String> {
    const MOST_CHARS: usize = 240;
    let clean: Vec<char> = line.chars().filter(|c| !c.is_control()).collect();
    match clean.is_empty() {
        true => vec![String::new()],
        false => clean.chunks(MOST_CHARS).map(|piece| piece.iter().collect()).collect(),
    }
}

/// RFC 4648.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let number = chunk.iter().chain(&[0, 0]).take(3).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        for place in 0..4 {
            let index = usize::try_from(number >> (18 - 6 * place) & 63).unwrap_or_default();
            let letter = LETTERS.get(index).map_or('=', |letter| char::from(*letter));
            text.push(if place <= chunk.len() { letter } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    /// A server that says its lines whatever it hears.
    struct Script {
        says: VecDeque<u8>,
        heard: Vec<u8>,
    }

    impl Read for Script {
        fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
            self.says.read(bytes)
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.heard.write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn mail() -> Mail {
        Mail {
            host: "mail".into(),
            port: 25,
            from: "root@web1".into(),
            to: vec!["a@x".into()],
            cc: vec!["b@x".into()],
            tls: Tls::Off,
            credentials: None,
            login: None,
        }
    }

    fn tell(says: &str, credentials: Option<&Credentials>) -> (anyhow::Result<Vec<String>>, String) {
        let mut script = Script { says: says.bytes().collect(), heard: Vec::new() };
        let news = News { outcome: "complete".into(), status: "{\n.\n}".into(), ..News::default() };
        let told = mail().tell("web1", &news, credentials, &mut script);
        (told, String::from_utf8(script.heard).unwrap())
    }

    #[test]
    fn a_mail_is_handed_over_line_by_line() {
        let (told, heard) = tell(
            "220 hi\r\n250-mail\r\n250 8BITMIME\r\n250 ok\r\n250 ok\r\n251 ok\r\n354 go\r\n250 ok\r\n221 bye\r\n",
            None,
        );
        assert!(told.unwrap().is_empty());
        assert!(heard.starts_with("EHLO web1\r\nMAIL FROM:<root@web1>\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n"));
        assert!(
            heard.contains("Subject: kdump on web1: complete\r\n") && heard.contains("\r\n{\r\n..\r\n}\r\n.\r\nQUIT")
        );
    }

    #[test]
    fn a_refusal_is_quoted_and_a_password_is_not() {
        let (told, heard) = tell("220 hi\r\n250 mail\r\n250 ok\r\n550 no such user\r\n551 nor this\r\n", None);
        assert_eq!(
            told.unwrap_err().to_string(),
            "RCPT TO a@x: the server says: 550 no such user; RCPT TO b@x: the server says: 551 nor this"
        );
        assert!(!heard.contains("DATA"));
        let credentials = Credentials { user: "u".into(), password: "topsecret".into(), domain: None };
        let (told, heard) = tell("220 hi\r\n250-mail\r\n250 AUTH LOGIN PLAIN\r\n535 no\r\n", Some(&credentials));
        assert_eq!(told.unwrap_err().to_string(), "AUTH PLAIN: the server says: 535 no");
        assert!(heard.contains("AUTH PLAIN AHUAdG9wc2VjcmV0\r\n"), "{heard}");
        let (told, heard) = tell("220 hi\r\n250 mail\r\n", Some(&credentials));
        assert!(told.unwrap_err().to_string().contains("neither AUTH PLAIN nor AUTH LOGIN"));
        assert!(!heard.contains("AUTH"));
    }

    #[test]
    fn one_who_is_refused_does_not_keep_the_others_from_their_mail() {
        let says = "220 hi\r\n250 mail\r\n250 ok\r\n550 no such user\r\n250 ok\r\n354 go\r\n250 ok\r\n221 bye\r\n";
        let (told, heard) = tell(says, None);
        assert_eq!(told.unwrap(), ["RCPT TO a@x: the server says: 550 no such user"]);
        assert!(heard.contains("DATA\r\nFrom: ") && heard.ends_with("\r\n.\r\nQUIT\r\n"), "{heard}");
    }

    #[test]
    fn servers_and_addresses_are_read_and_nothing_slips_into_a_command() {
        assert_eq!(server("smtp://mail:587"), Ok(("mail".into(), 587, Tls::Off)));
        assert_eq!(server("smtps://mail"), Ok(("mail".into(), 465, Tls::On)));
        assert_eq!(addresses("a@x, b@y c").unwrap(), ["a@x", "b@y", "c"]);
        assert!(addresses("a@x>\r\nDATA").is_err());
    }

    proptest! {
        #[test]
        fn no_line_of_a_mail_ends_it_or_is_too_long(status in "(\\.|[ -~\r\n]|é){0,400}", repeat in 1_usize..20) {
            let news = News { status: status.repeat(repeat), ..News::default() };
            let text = mail().text("web1", &news);
            prop_assert!(text.ends_with("\r\n"));
            for line in text.trim_end_matches("\r\n").split("\r\n") {
                prop_assert!(line.len() <= 998 && line != "." && !line.contains(['\r', '\n']));
            }
        }

        #[test]
        fn any_reply_ends_in_a_result(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Reply::read(&mut &bytes[..]);
        }

        #[test]
        fn base64_has_four_letters_for_three_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(base64(&bytes).len(), bytes.len().div_ceil(3) * 4);
        }
    }
}
