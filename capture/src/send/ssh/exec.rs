//! A far side that has nothing but a POSIX shell, `mkdir`, `cat` and `mv`.
//!
//! In: paths. Out: one command of the shell for each thing that is done. May surprise: what such a command says is only
//! told when it fails; `sync` is run where there is one, since a file that `cat` has written may not be on the disk yet.

use super::Ssh;
use super::quote::quoted;
use crate::send::far::{Far, FarFile, Made};
use anyhow::{Context, bail};
use ssh2::Channel;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// What `mkdir` gives back, by our own arrangement, when the name is taken.
const TAKEN: i32 = 17;
/// How often it is looked whether a command that takes nothing is still there.
const GLANCE: Duration = Duration::from_secs(1);
/// More of what a command says is not told.
const SAID: u64 = 1000;

/// See the module.
#[derive(Debug)]
pub struct Exec {
    ssh: Ssh,
}

impl Exec {
    /// Over a session.
    pub fn new(ssh: Ssh) -> Exec {
        Exec { ssh }
    }

    fn start(&self, command: &str) -> anyhow::Result<Channel> {
        let begin = || {
            let mut channel = self.ssh.session.channel_session()?;
            channel.exec(command)?;
            Ok(channel)
        };
        begin().map_err(|error| self.ssh.explain(error)).with_context(|| format!("cannot run `{command}` there"))
    }

    /// Waits for the end of a command; its exit code, and what it said.
    fn end(&self, channel: &mut Channel, mut said: Vec<u8>) -> io::Result<(i32, String)> {
        let explain = |error| self.ssh.explain(error);
        let _waiting = self.ssh.wait_for(self.ssh.patience.for_the_disk());
        channel.send_eof().map_err(explain)?;
        // Both streams are read to their ends, lest the command waits for a reader.
        for mut stream in [channel.stderr(), channel.stream(0)] {
            let limit = SAID.saturating_sub(said.len() as u64);
            Read::by_ref(&mut stream).take(limit).read_to_end(&mut said).map_err(|error| self.ssh.explain_io(error))?;
            io::copy(&mut stream, &mut io::sink()).map_err(|error| self.ssh.explain_io(error))?;
        }
        channel.close().map_err(explain)?;
        channel.wait_close().map_err(explain)?;
        let said = String::from_utf8_lossy(&said).split_whitespace().collect::<Vec<_>>().join(" ");
        // A command that a signal ended has no exit code.
        let signal = channel.exit_signal().ok().and_then(|signal| signal.exit_signal);
        match signal {
            Some(signal) => Err(io::Error::other(format!("it was ended by SIG{signal} ({said})"))),
            None => Ok((channel.exit_status().map_err(explain)?, said)),
        }
    }

    fn run(&self, command: &str) -> anyhow::Result<(i32, String)> {
        let mut channel = self.start(command)?;
        self.end(&mut channel, Vec::new()).with_context(|| format!("`{command}` did not end there"))
    }
}

fn refused(command: &str, code: i32, said: &str) -> String {
    match said {
        "" => format!("`{command}` failed there: exit code {code}"),
        said => format!("`{command}` failed there: exit code {code} ({said})"),
    }
}

impl Far for Exec {
    fn mkdir(&mut self, path: &str) -> anyhow::Result<Made> {
        let dir = quoted(path);
        let command = format!(
            "if [ -e {dir} ]; then exit {TAKEN}; fi; mkdir -m 700 {dir} || {{ [ -e {dir} ] && exit {TAKEN}; exit 1; }}"
        );
        match self.run(&command)? {
            (0, _) => Ok(Made::New),
            (TAKEN, _) => Ok(Made::Taken),
            (code, said) => bail!("cannot make the directory: {}", refused(&format!("mkdir {dir}"), code, &said)),
        }
    }

    fn create(&mut self, path: &str) -> anyhow::Result<Box<dyn FarFile + '_>> {
        let file = quoted(path);
        let command = format!("umask 077; cat > {file} && {{ sync {file} 2>/dev/null || :; }}");
        let channel = self.start(&command)?;
        Ok(Box::new(Cat { exec: self, channel, command: format!("cat > {file}"), said: Vec::new() }))
    }

    fn rename(&mut self, from: &str, to: &str) -> anyhow::Result<()> {
        let command = format!("mv -f {} {}", quoted(from), quoted(to));
        match self.run(&command)? {
            (0, _) => Ok(()),
            (code, said) => bail!(refused(&command, code, &said)),
        }
    }

    fn size(&mut self, _path: &str) -> anyhow::Result<Option<u64>> {
        // `cat` tells by its exit code whether everything was written.
        Ok(None)
    }
}

struct Cat<'a> {
    exec: &'a Exec,
    channel: Channel,
    command: String,
    /// What it has said so far.
    said: Vec<u8>,
}

impl FarFile for Cat<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let ssh = &self.exec.ssh;
        let began = Instant::now();
        // libssh2 waits for room even when the command has ended and there will be none.
        let _glancing = ssh.wait_for(GLANCE.min(ssh.patience.0));
        let error = loop {
            match self.channel.write(bytes) {
                Ok(sent) if sent > 0 => return Ok(sent),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                Err(error) => break ssh.explain_io(error),
            }
            // What it has said and nobody has read hides that it has ended.
            let mut last_words = [0; 1000];
            if let Ok(length) = self.channel.stderr().read(&mut last_words) {
                self.said.extend(last_words.iter().take(length));
            }
            if self.channel.eof() {
                break io::ErrorKind::BrokenPipe.into();
            }
            if began.elapsed() >= ssh.patience.0 {
                return Err(ssh.stalled());
            }
        };
        if error.kind() == io::ErrorKind::ConnectionReset {
            return Err(error);
        }
        // The command has ended before its time; it says why.
        Err(match self.exec.end(&mut self.channel, std::mem::take(&mut self.said)) {
            Ok((code, said)) => io::Error::other(refused(&self.command, code, &said)),
            Err(_) => error,
        })
    }

    fn close(mut self: Box<Self>) -> anyhow::Result<()> {
        match self.exec.end(&mut self.channel, std::mem::take(&mut self.said))? {
            (0, _) => Ok(()),
            (code, said) => bail!(refused(&self.command, code, &said)),
        }
    }
}
