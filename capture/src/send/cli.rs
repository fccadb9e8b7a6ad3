//! The command line. In: words. Out: what is meant, or why it cannot be.
//! May surprise: secrets are only taken from files.

use super::url::{Protocol, Url, relative};
use super::wire::Patience;
use super::{ftp, ssh};
use crate::progress::Messages;
use anyhow::{Context, bail};
use lexopt::Arg;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The text of `--help`.
pub const HELP: &str = "\
Usage: kdump-send [OPTIONS] URL VERB

Delivers what comes on standard input to another machine: under NAME-incomplete
until it is whole, then under its own name. Directories and files are for nobody
but their owner.

  URL    PROTOCOL://[USER@]HOST[:PORT][/PATH]; PATH is an absolute directory
         ssh     to a shell that has mkdir, cat and mv; a dump stays flattened
         sftp    to OpenSSH's or another sftp; a dump is ready to be opened
         ftp     in the clear, without a user as anonymous; stays flattened
         ftps    the same with TLS, which is asked for before anything else
         tls     whatever is spoken, over TLS; to talk to
         smtp    a mail server, which is asked for TLS before anything else; to
                 talk to

  check                     log in, and make PATH
  mkdir DIR                 make PATH/DIR, with .1, .2 and so on behind it if that
                            is taken, and print the name that was made
  put DIR/NAME              store standard input as PATH/DIR/NAME
  put --flattened DIR/NAME  store a flattened dump (kdump-capture -F, makedumpfile
                            -F): as a dump where the far side can seek, else as
                            NAME.flat. A stream that ends early gets no final name
  talk                      with tls and smtp: send standard input, and print what
                            HOST says, until it has said its last word

Options:
  --identity FILE       the private key for ssh and sftp, without a passphrase
                        (id_ed25519, id_ecdsa or id_rsa in ~/.ssh if not given);
                        a certificate for it is FILE-cert.pub
  --known-hosts FILE    the hosts that are known (~/.ssh/known_hosts)
  --any-host            believe that HOST is who it says it is: whoever is in
                        between can read the dump
  --host-name NAME      the name of HOST among the known hosts, or in its
                        certificate, where HOST is an address
  --password-file FILE  the password for ftp, in a file that only its owner reads
  --ca-file FILE        who vouches for a server with TLS, or its own certificate;
                        PEM
  --timeout SECONDS     without progress for so long it has failed (60)
  --report FILE         write what was made to FILE, as JSON: its name, and of a
                        file also its bytes and sha256
  --message-level N     1 progress, 2 what is good to know, 4 errors (7)
  -h, --help            this text

Exit: 0 done, 1 failed, 2 nobody answers at HOST.
";

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Log in.
    Check,
    /// Make the directory of a dump.
    Mkdir(String),
    /// Store standard input.
    Put {
        /// The file.
        name: String,
        /// Whether it is a flattened dump.
        flattened: bool,
    },
    /// Pass on what both sides say.
    Talk,
}

/// How one logs in.
#[derive(Clone, Debug)]
pub enum Login {
    /// With a key.
    Ssh(ssh::Credentials),
    /// With a password.
    Ftp(ftp::Credentials),
    /// Not at all, or in the course of the talk.
    Talk(Trust),
}

/// Who may vouch for a server, as whom.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The certificates of those who vouch for it, or its own.
    pub ca_file: Option<PathBuf>,
    /// The name in its certificate, where the host is an address.
    pub host_name: Option<String>,
}

/// What is meant.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to.
    pub url: Url,
    /// What.
    pub verb: Verb,
    /// As whom.
    pub login: Login,
    /// How long it may stand still.
    pub patience: Patience,
    /// Where the report goes.
    pub report: Option<PathBuf>,
    /// Which messages appear.
    pub messages: Messages,
}

/// What the command line asks for.
#[derive(Clone, Debug)]
pub enum Command {
    /// A text.
    Say(&'static str),
    /// Work.
    Send(Box<Options>),
}

#[derive(Debug, Default)]
struct Typed {
    words: Vec<String>,
    identity: Option<PathBuf>,
    known_hosts: Option<PathBuf>,
    any_host: bool,
    host_name: Option<String>,
    password_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    timeout: Option<u64>,
    report: Option<PathBuf>,
    messages: Option<u8>,
    flattened: bool,
}

/// Reads the arguments, the program's own name first; `home` is where one's keys are.
///
/// # Errors
/// What cannot be meant, with the remedy.
pub fn parse(args: impl IntoIterator<Item = OsString>, home: Option<&Path>) -> anyhow::Result<Command> {
    let mut typed = Typed::default();
    let mut parser = lexopt::Parser::from_iter(args);
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Value(word) => {
                let word = word.into_string();
                typed.words.push(word.map_err(|word| anyhow::anyhow!("{} is not UTF-8", word.display()))?);
            }
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Say(HELP)),
            Arg::Long("identity") => typed.identity = Some(parser.value()?.into()),
            Arg::Long("known-hosts") => typed.known_hosts = Some(parser.value()?.into()),
            Arg::Long("any-host") => typed.any_host = true,
            Arg::Long("host-name") => typed.host_name = Some(parser.value()?.to_string_lossy().into_owned()),
            Arg::Long("password-file") => typed.password_file = Some(parser.value()?.into()),
            Arg::Long("ca-file") => typed.ca_file = Some(parser.value()?.into()),
            Arg::Long("timeout") => typed.timeout = Some(number(&parser.value()?, "--timeout", 1..=86400)?),
            Arg::Long("report") => typed.report = Some(parser.value()?.into()),
            Arg::Long("message-level") => {
                typed.messages = Some(u8::try_from(number(&parser.value()?, "--message-level", 0..=31)?)?);
            }
            Arg::Long("flattened") => typed.flattened = true,
            other => return Err(other.unexpected()).context("see --help"),
        }
    }
    meant(typed, home).map(|options| Command::Send(Box::new(options)))
}

fn number(value: &OsString, name: &str, range: std::ops::RangeInclusive<u64>) -> anyhow::Result<u64> {
    let number = value.to_str().and_then(|text| text.parse().ok()).filter(|number| range.contains(number));
    let wrong = || format!("{name} takes a number from {} to {}", range.start(), range.end());
    number.with_context(wrong)
}

fn meant(typed: Typed, home: Option<&Path>) -> anyhow::Result<Options> {
    let words: Vec<&str> = typed.words.iter().map(String::as_str).collect();
    let (url, verb) = match words.as_slice() {
        [] => bail!("where to? see --help"),
        [_] => bail!("what is to be done there? write check, mkdir, put or talk; see --help"),
        [url, "talk"] => (url, Verb::Talk),
        [url, "check"] => (url, Verb::Check),
        [url, "mkdir", dir] => (url, Verb::Mkdir(relative(dir)?)),
        [url, "put", name] => (url, Verb::Put { name: relative(name)?, flattened: typed.flattened }),
        [_, verb @ ("mkdir" | "put"), ..] => bail!("{verb} takes one name; see --help"),
        [_, verb, ..] => bail!("`{verb}` is none of check, mkdir, put and talk; see --help"),
    };
    if typed.flattened && !matches!(verb, Verb::Put { .. }) {
        bail!("--flattened goes with put");
    }
    let url: Url = url.parse()?;
    let (ssh, talk) = (url.protocol.is_ssh(), url.protocol.is_talk());
    if talk != (verb == Verb::Talk) {
        bail!("talk goes with tls:// and smtp://, and nothing else does; see --help");
    }
    let idle = [
        (!ssh && typed.identity.is_some(), "--identity"),
        (!ssh && typed.known_hosts.is_some(), "--known-hosts"),
        (!ssh && typed.any_host, "--any-host"),
        ((ssh || talk) && typed.password_file.is_some(), "--password-file"),
        (!talk && url.protocol != Protocol::Ftps && typed.ca_file.is_some(), "--ca-file"),
    ];
    if let Some((_, option)) = idle.iter().find(|(idle, _)| *idle) {
        bail!("{option} does not go with {}://; see --help", url.protocol);
    }
    let login = match url.protocol {
        Protocol::Ssh | Protocol::Sftp => Login::Ssh(key(&typed, home)?),
        Protocol::Tls | Protocol::Smtp => Login::Talk(Trust { ca_file: typed.ca_file, host_name: typed.host_name }),
        Protocol::Ftp | Protocol::Ftps => Login::Ftp(ftp::Credentials {
            password: typed.password_file.as_deref().map(password).transpose()?,
            ca_file: typed.ca_file,
            host_name: typed.host_name,
        }),
    };
    Ok(Options {
        url,
        verb,
        login,
        patience: typed.timeout.map_or(Patience::DEFAULT, |seconds| Patience(Duration::from_secs(seconds))),
        report: typed.report,
        messages: Messages(typed.messages.unwrap_or(7)),
    })
}

fn key(typed: &Typed, home: Option<&Path>) -> anyhow::Result<ssh::Credentials> {
    let own = |name: &str| home.map(|home| home.join(".ssh").join(name));
    let usual = || ["id_ed25519", "id_ecdsa", "id_rsa"].into_iter().filter_map(own).find(|file| file.exists());
    let identity = typed.identity.clone().or_else(usual);
    let known_hosts = match (typed.any_host, &typed.known_hosts) {
        (true, Some(_)) => bail!("--any-host and --known-hosts contradict each other"),
        (true, None) => None,
        (false, Some(file)) => Some(file.clone()),
        (false, None) => Some(own("known_hosts").context("there is no home directory; write --known-hosts")?),
    };
    Ok(ssh::Credentials {
        identity: identity.context("there is no private key in ~/.ssh; name one with --identity")?,
        known_hosts,
        host_name: typed.host_name.clone(),
    })
}

/// The first line of a file that only its owner can read.
fn password(file: &Path) -> anyhow::Result<String> {
    let reading = || format!("cannot read the password from {}", file.display());
    let mode = fs::metadata(file).with_context(reading)?.permissions().mode();
    if mode & 0o077 != 0 {
        bail!("others can read the password in {0}; chmod 600 {0}", file.display());
    }
    let text = fs::read_to_string(file).with_context(reading)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> anyhow::Result<Options> {
        let words = std::iter::once("kdump-send").chain(line.split_whitespace()).map(OsString::from);
        match parse(words, Some(Path::new("/nowhere")))? {
            Command::Send(options) => Ok(*options),
            Command::Say(text) => bail!("{text}"),
        }
    }

    #[test]
    fn verbs_and_options_find_their_place() {
        let options = parsed("--identity k sftp://nas/srv put --flattened d/vmcore --timeout 9 --host-name n").unwrap();
        assert_eq!(options.verb, Verb::Put { name: "d/vmcore".into(), flattened: true });
        assert_eq!(options.patience, Patience(Duration::from_secs(9)));
        let Login::Ssh(credentials) = options.login else { panic!("not by ssh") };
        assert_eq!(credentials.known_hosts, Some("/nowhere/.ssh/known_hosts".into()));
        assert_eq!(credentials.host_name.as_deref(), Some("n"));
        assert_eq!(parsed("ftp://nas mkdir d").unwrap().verb, Verb::Mkdir("d".into()));
    }

    #[test]
    fn what_cannot_be_meant_is_told() {
        for (line, words) in [
            ("", "where to?"),
            ("ssh://nas", "what is to be done"),
            ("ssh://nas get x", "none of check, mkdir, put and talk"),
            ("ssh://nas talk", "talk goes with"),
            ("tls://nas check", "talk goes with"),
            ("smtp://nas talk --password-file f", "does not go with smtp://"),
            ("ssh://nas put", "one name"),
            ("ssh://nas check", "no private key"),
            ("ftp://nas put /x", "below the directory"),
            ("ftp://nas check --identity k", "does not go with ftp://"),
            ("ftp://nas check --flattened", "goes with put"),
            ("ftp://nas check --timeout 0", "from 1 to 86400"),
            ("ssh://nas check --identity k --any-host --known-hosts f", "contradict"),
            ("ftp://nas check --frob", "see --help"),
        ] {
            let error = format!("{:#}", parsed(line).unwrap_err());
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn a_password_that_others_can_read_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "secret\n").unwrap();
        assert_eq!(password(file.path()).unwrap(), "secret");
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o640)).unwrap();
        let error = password(file.path()).unwrap_err().to_string();
        assert!(error.contains("chmod 600") && !error.contains("secret"), "{error}");
    }
}
