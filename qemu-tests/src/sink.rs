//! A mail server and a web server on the host's loopback that take what comes and keep it.
//!
//! In: nothing. Out: what was said to them, once somebody asks. Each is a thread that takes one connection after the other
//! until the process ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};

/// One that listens.
#[derive(Debug)]
pub struct Sink {
    /// Where.
    pub port: u16,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Sink {
    /// A mail server that takes any mail, and passwords.
    pub fn mail() -> Result<Sink> {
        Sink::start(take_mail)
    }

    /// A web server that takes any request.
    pub fn web() -> Result<Sink> {
        Sink::start(take_request)
    }

    fn start(take: fn(TcpStream) -> Result<String>) -> Result<Sink> {
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

    /// What was said, one text for each connection.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn take_mail(mut to: TcpStream) -> Result<String> {
    let mut from = BufReader::new(to.try_clone()?);
    let (mut heard, mut is_mail) = (String::new(), false);
    to.write_all(b"220 sink\r\n")?;
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Ok(heard);
        }
        heard.push_str(&line);
        let reply: &[u8] = match line.trim_end() {
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
                to.write_all(b"221 bye\r\n")?;
                return Ok(heard);
            }
            word if word.starts_with("EHLO") => b"250-sink\r\n250 AUTH PLAIN\r\n",
            word if word.starts_with("AUTH") => b"235 welcome\r\n",
            _ => b"250 ok\r\n",
        };
        to.write_all(reply)?;
    }
}

fn take_request(mut to: TcpStream) -> Result<String> {
    let mut from = BufReader::new(to.try_clone()?);
    let (mut heard, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        heard.push_str(&line);
        if line.trim_end().is_empty() {
            break;
        }
        if let Some(number) = line.strip_prefix("Content-Length: ") {
            length = number.trim_end().parse()?;
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    heard.push_str(&String::from_utf8_lossy(&body));
    to.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
    Ok(heard)
}
