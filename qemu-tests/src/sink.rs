//! A mail server and a web server on the host's loopback that take what comes and keep it, in the clear or over TLS.
//!
//! In: nothing, or a certificate. Out: what was said to them, once somebody asks. Each is a thread that takes one
//! connection after the other until the process ends.
//!
//! May surprise: those with TLS take turns, in the whole process. In a static program OpenSSL has no threads: its build
//! leaves the locks out where it sees `-static`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use openssl::ssl::{SslAcceptor, SslFiletype, SslMethod};

use crate::{provision, tools};

/// How long it may take until what was said is kept.
const KEPT: Duration = Duration::from_secs(10);

/// Held by whoever uses OpenSSL.
static OPENSSL: Mutex<()> = Mutex::new(());

/// One that listens.
#[derive(Debug)]
pub struct Sink {
    /// Where.
    pub port: u16,
    heard: Arc<Mutex<Vec<String>>>,
}

/// A certificate that vouches for itself, and its key.
pub struct Identity {
    /// The certificate, PEM.
    pub certificate: String,
    acceptor: Arc<SslAcceptor>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Identity {
    /// A new one for `address`, made in `folder`.
    pub fn of(address: &str, folder: &Path) -> Result<Identity> {
        provision::openssl()?;
        let (key, certificate) = (folder.join("sink.key"), folder.join("sink.pem"));
        let mut openssl = tools::command("openssl");
        openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=sink", "-addext"]);
        openssl.arg(format!("subjectAltName=IP:{address}")).arg("-keyout").arg(&key).arg("-out").arg(&certificate);
        tools::run(&mut openssl)?;
        let _turn = OPENSSL.lock().unwrap_or_else(PoisonError::into_inner);
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
        builder.set_private_key_file(&key, SslFiletype::PEM)?;
        builder.set_certificate_chain_file(&certificate)?;
        let certificate = std::fs::read_to_string(&certificate)?;
        Ok(Identity { certificate, acceptor: Arc::new(builder.build()) })
    }
}

impl Sink {
    /// A mail server that takes any mail, and passwords.
    pub fn mail() -> Result<Sink> {
        Sink::start(|stream| take_mail(&mut BufReader::new(stream), true))
    }

    /// A web server that takes any request.
    pub fn web() -> Result<Sink> {
        Sink::start(|stream| take_request(&mut BufReader::new(stream)))
    }

    /// A mail server that takes nothing before it has been asked for TLS.
    pub fn mail_after_starttls(identity: &Identity) -> Result<Sink> {
        let acceptor = identity.acceptor.clone();
        Sink::start(move |stream| {
            start_tls(&stream)?;
            let _turn = OPENSSL.lock().unwrap_or_else(PoisonError::into_inner);
            take_mail(&mut BufReader::new(acceptor.accept(stream)?), false)
        })
    }

    /// A web server that speaks TLS.
    pub fn secure_web(identity: &Identity) -> Result<Sink> {
        let acceptor = identity.acceptor.clone();
        Sink::start(move |stream| {
            let _turn = OPENSSL.lock().unwrap_or_else(PoisonError::into_inner);
            take_request(&mut BufReader::new(acceptor.accept(stream)?))
        })
    }

    fn start(take: impl Fn(TcpStream) -> Result<String> + Send + 'static) -> Result<Sink> {
        let listener = TcpListener::bind("127.0.0.1:0").context("unable to listen")?;
        let sink = Sink { port: listener.local_addr()?.port(), heard: Arc::default() };
        let heard = sink.heard.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let said = take(stream).unwrap_or_else(|error| format!("unable to listen: {error:#}"));
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(said);
            }
        });
        Ok(sink)
    }

    /// What was said in the last connection. Who has said it may be gone before it is kept: this waits for that.
    pub fn last(&self) -> Result<String> {
        let since = Instant::now();
        loop {
            match self.heard().pop() {
                Some(said) => return Ok(said),
                None if since.elapsed() > KEPT => bail!("nothing was heard within {} s", KEPT.as_secs()),
                None => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// What was said, one text for each connection that has ended.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn start_tls(stream: &TcpStream) -> Result<()> {
    let (mut to, mut from) = (stream.try_clone()?, BufReader::new(stream.try_clone()?));
    to.write_all(b"220 sink\r\n")?;
    for (wanted, reply) in [("EHLO ", "250-sink\r\n250 STARTTLS\r\n"), ("STARTTLS\r\n", "220 go on\r\n")] {
        let mut line = String::new();
        from.read_line(&mut line)?;
        ensure!(line.starts_with(wanted), "before TLS it is said: {line}");
        to.write_all(reply.as_bytes())?;
    }
    Ok(())
}

fn take_mail(line: &mut BufReader<impl Read + Write>, greeting: bool) -> Result<String> {
    let (mut heard, mut is_mail) = (String::new(), false);
    if greeting {
        line.get_mut().write_all(b"220 sink\r\n")?;
    }
    loop {
        let mut word = String::new();
        if line.read_line(&mut word)? == 0 {
            return Ok(heard);
        }
        heard.push_str(&word);
        let reply: &[u8] = match word.trim_end() {
            "." if is_mail => {
                is_mail = false;
                b"250 kept\r\n"
            }
            _ if is_mail => continue,
            "DATA" => {
                is_mail = true;
                b"354 go on\r\n"
            }
            "QUIT" => {
                line.get_mut().write_all(b"221 bye\r\n")?;
                return Ok(heard);
            }
            word if word.starts_with("EHLO") => b"250-sink\r\n250 AUTH PLAIN\r\n",
            word if word.starts_with("AUTH") => b"235 welcome\r\n",
            _ => b"250 ok\r\n",
        };
        line.get_mut().write_all(reply)?;
    }
}

fn take_request(line: &mut BufReader<impl Read + Write>) -> Result<String> {
    let (mut heard, mut length) = (String::new(), 0);
    loop {
        let mut word = String::new();
        line.read_line(&mut word)?;
        heard.push_str(&word);
        if word.trim_end().is_empty() {
            break;
        }
        if let Some(number) = word.strip_prefix("Content-Length: ") {
            length = number.trim_end().parse()?;
        }
    }
    let mut body = vec![0; length];
    line.read_exact(&mut body)?;
    heard.push_str(&String::from_utf8_lossy(&body));
    line.get_mut().write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
    Ok(heard)
}
