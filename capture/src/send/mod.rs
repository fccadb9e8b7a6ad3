//! kdump-send: what comes on standard input is delivered to another machine.
//!
//! ```text
//!  kdump-capture -F ──▶ stdin ─▶ deliver: NAME-incomplete ─▶ verified ─▶ NAME       report: bytes, sha256
//!                                   │ Far: mkdir, create, write, seek, close, size, read back, rename
//!                        ┌──────────┼──────────────┐
//!                    ssh/exec    ssh/sftp         ftp
//!                  mkdir cat mv  at positions   STOR RNTO, plain or TLS
//!                        └────┬─────┘              │
//!                     ssh: host known, key     ftp/tls: who vouches for it
//!                             └──── wire: limits ──┘
//! ```
//!
//! How much is to come, a dump says itself as it passes: `share`. Beside all that, `talk` lends its TLS to those who
//! have none and tell people of a dump.
//!
//! | noun | is |
//! |---|---|
//! | far side | the other machine, logged in to: [`far::Far`] |
//! | delivery | a file that is there whole, with its length and sum: [`deliver::Delivery`] |
//! | patience | how long a connection may stand still before it counts as lost: [`wire::Patience`] |
//!
//! May surprise: this is the only part of the crate that knows a network, and it is a program of its own, so that an
//! image without such a target has nothing of it. A protocol is one module with one [`far::Far`], and one line in
//! `reach`. One thread alone may use SSH and TLS: OpenSSL's build leaves its locks out of a static program.

pub mod cli;
pub mod deliver;
#[cfg(test)]
mod fake;
pub mod far;
pub mod ftp;
pub mod share;
pub mod ssh;
pub mod talk;
mod trust;
pub mod url;
pub mod wire;

use crate::pipeline::console;
use crate::progress::{Messages, Meter};
use anyhow::{Context, bail};
use cli::{Login, Options, Verb};
use far::Far;
use std::io::{self, Read};
use std::os::fd::AsFd;
use url::Protocol;

/// What a pipe may hold, so that the collector works while a record is on its way.
const PIPE: usize = 1 << 20;

/// Does what is asked; what is to be said on standard output.
///
/// # Errors
/// Why the far side does not have it.
pub fn run(options: &Options) -> anyhow::Result<String> {
    let Options { url, verb, login, messages, .. } = options;
    if let Login::Talk(trusted) = login {
        return talk::run(options, trusted).map(|()| String::new()).with_context(|| format!("cannot talk to {url}"));
    }
    let mut far = reach(options).with_context(|| format!("cannot reach {url}"))?;
    let far = &mut *far;
    let (name, flattened) = match verb {
        Verb::Check => {
            return deliver::make_base(far, url).map(|()| String::new()).with_context(|| format!("cannot use {url}"));
        }
        Verb::Mkdir(dir) => {
            let made = deliver::make_dir(far, url, dir).with_context(|| format!("cannot use {url}"))?;
            console::save(options.report.as_deref(), &serde_json::json!({ "name": made }));
            return Ok(format!("{made}\n"));
        }
        Verb::Put { name, flattened } => (name, *flattened),
        Verb::Talk => bail!("{url} is not to be talked to"),
    };
    // A stream tells by itself how much is to come; a file has its length.
    let length = nix::sys::stat::fstat(io::stdin().as_fd()).ok().and_then(|stat| u64::try_from(stat.st_size).ok());
    let delivered = metered(length.filter(|length| *length > 0 && !flattened), *messages, |meter| {
        let mut stdin = io::stdin().lock();
        // It may be a file.
        let _ = nix::fcntl::fcntl(io::stdin().as_fd(), nix::fcntl::FcntlArg::F_SETPIPE_SZ(PIPE.try_into()?));
        let stdin: &mut dyn Read = &mut stdin;
        match flattened {
            true => deliver::put_flattened(far, url, name, stdin, meter),
            false => deliver::put(far, url, name, stdin, meter),
        }
    });
    let delivery = delivered.with_context(|| format!("cannot deliver {name} to {url}"))?;
    console::save(options.report.as_deref(), &delivery);
    Ok(String::new())
}

/// Logs in.
fn reach(options: &Options) -> anyhow::Result<Box<dyn Far>> {
    let Options { url, login, patience, .. } = options;
    Ok(match login {
        Login::Ssh(credentials) => {
            let session = ssh::Ssh::connect(url, credentials, *patience)?;
            match url.protocol {
                Protocol::Sftp => Box::new(ssh::Sftp::new(session)?),
                _ => Box::new(ssh::Exec::new(session)),
            }
        }
        Login::Ftp(credentials) => Box::new(ftp::Ftp::connect(url, credentials, *patience)?),
        Login::Talk(_) => bail!("{url} stores nothing"),
    })
}

/// Shows progress while `work` is done, which is to send `length` bytes, if that is known.
fn metered<T>(
    length: Option<u64>,
    messages: Messages,
    work: impl FnOnce(&Meter) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let name = "Sending";
    let meter = length.map_or_else(|| Meter::endless(name, messages), |length| Meter::new(name, length, 1, messages));
    std::thread::scope(|scope| {
        let working = meter.worker();
        scope.spawn(|| meter.watch());
        let done = work(&meter);
        drop(working);
        done
    })
}
