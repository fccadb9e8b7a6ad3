//! The hook for a dump target on another machine that is not mounted but sent to: by SSH, SFTP or FTP.
//!
//! *Into the image*: kdump-send, and what it logs in with: the private key and the known keys of the host, or the
//! password, each in a file of its own that only root reads. *At boot*: kdump-send says whether the server is there;
//! the files of the dump then go through it, one run for each.
//!
//! May surprise: kdump-send gets an address, and the name only to look it up among the known hosts: it has no resolver.

use crate::host::{Contribution, FileNeed, Host};
use crate::machine::{Machine, Program};
use crate::net::server;
use crate::ssh_key;
use crate::{Destination, Hook, TargetHook};
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// The program that delivers.
pub const PROGRAM: &str = "kdump-send";
/// What it ends with when nobody answers; that may change in a moment.
pub const NOBODY: i32 = 2;
/// How long the server is tried again while it does not answer, such as while a switch learns our address.
const BETWEEN_TRIES: Duration = Duration::from_secs(2);
/// What the name of a key's certificate ends in, beside the key.
const CERTIFICATE: &str = "-cert.pub";
/// Where the secrets are in an image.
const SECRETS: &str = "/etc/kdump/send";
/// Who vouches for servers, as distributions have them.
pub const AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// How the server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// A shell; a dump stays flattened.
    Ssh,
    /// Files at positions; a dump is ready to be opened.
    Sftp,
    /// FTP, in the clear.
    Ftp,
    /// FTP with TLS.
    Ftps,
}

impl Protocol {
    /// Whether one logs in with a key.
    pub fn is_ssh(self) -> bool {
        matches!(self, Protocol::Ssh | Protocol::Sftp)
    }

    /// The port that is meant where none is named.
    pub fn port(self) -> u16 {
        if self.is_ssh() { 22 } else { 21 }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Ssh => "ssh",
            Protocol::Sftp => "sftp",
            Protocol::Ftp => "ftp",
            Protocol::Ftps => "ftps",
        })
    }
}

/// A directory on another machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remote {
    /// How it is spoken to.
    pub protocol: Protocol,
    /// The server's name or address, without brackets.
    pub server: String,
    /// Its port, if not the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Who logs in; root, or with FTP nobody in particular.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The directory of all dumps there.
    pub path: PathBuf,
    /// What the name meant when the image was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// How many seconds the server is waited for, if not as long as a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<u64>,
    /// Whether any host is believed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any_host: bool,
    /// What the builder puts into the image, but not into its configuration.
    #[serde(skip)]
    pub login: Login,
}

/// What one logs in with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// The private key, on the host.
    pub identity: Option<PathBuf>,
    /// The server's keys, each as `known_hosts` has them behind the name: `ssh-ed25519 AAAA…`.
    pub host_keys: Vec<String>,
    /// The password.
    pub password: Password,
    /// The file on the host that has it in its first line, if it is not here.
    pub password_file: Option<PathBuf>,
}

/// Not to be shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Password(pub Option<String>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Password(…)" } else { "Password(none)" })
    }
}

impl Remote {
    /// A place of which nothing is known but what was said.
    pub fn new(protocol: Protocol, user: Option<&str>, server: &str, path: &Path) -> Remote {
        Remote {
            protocol,
            server: server.to_owned(),
            port: None,
            user: user.map(str::to_owned),
            path: path.to_owned(),
            address: None,
            wait: None,
            any_host: false,
            login: Login::default(),
        }
    }

    /// The server as `known_hosts` names it.
    pub fn known_as(&self) -> String {
        match self.port.filter(|port| *port != self.protocol.port()) {
            Some(port) => format!("[{}]:{port}", self.server),
            None => self.server.clone(),
        }
    }

    /// As messages and kdump-send have it, with `host` in the place of the server.
    fn url(&self, host: &str) -> String {
        let user = self.user.as_ref().map_or(String::new(), |user| format!("{}@", encoded(user)));
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let port = self.port.map_or(String::new(), |port| format!(":{port}"));
        format!("{}://{user}{host}{port}{}", self.protocol, encoded(&self.path.to_string_lossy()))
    }

    /// Where a secret is in an image: two targets on one server may differ in their ports, and with passwords in their
    /// users. A key and the host's are the same whoever logs in.
    fn secret(&self, name: &str) -> PathBuf {
        let user = self.user.as_ref().filter(|_| !self.protocol.is_ssh());
        let user = user.map_or(String::new(), |user| format!("{}@", encoded(user).replace('/', "%2F")));
        let port =
            self.port.filter(|port| *port != self.protocol.port()).map_or(String::new(), |port| format!(",{port}"));
        let server = self.server.replace(':', "_");
        Path::new(SECRETS).join(format!("{}-{user}{server}{port}.{name}", self.protocol))
    }

    /// The words of kdump-send's command line but for its verb.
    fn command(&self, address: IpAddr) -> Vec<String> {
        let mut words = vec![format!("/usr/bin/{PROGRAM}"), "--host-name".to_owned(), self.server.clone()];
        let mut option =
            |name: &str, file: &str| words.extend([name.to_owned(), self.secret(file).display().to_string()]);
        match self.protocol {
            Protocol::Ssh | Protocol::Sftp => {
                option("--identity", "key");
                match self.any_host {
                    true => words.push("--any-host".to_owned()),
                    false => option("--known-hosts", "hosts"),
                }
            }
            Protocol::Ftp | Protocol::Ftps => {
                if self.user.is_some() {
                    option("--password-file", "password");
                }
                if self.protocol == Protocol::Ftps {
                    option("--ca-file", "authorities");
                }
            }
        }
        words.push(self.url(&address.to_string()));
        words
    }
}

/// What a file with a password has in it.
fn first_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().to_owned()
}

/// The text of a URL for what a path or a user's name is.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// `PROTOCOL://[USER[:PASSWORD]@]HOST[:PORT]/PATH`, each part taken as it is, as SUSE does.
impl FromStr for Remote {
    type Err = String;

    fn from_str(text: &str) -> Result<Remote, String> {
        let (scheme, rest) = text.split_once("://").ok_or("it has no ://")?;
        let protocol = match scheme {
            "ssh" => Protocol::Ssh,
            "sftp" | "scp" => Protocol::Sftp,
            "ftp" => Protocol::Ftp,
            "ftps" => Protocol::Ftps,
            other => return Err(format!("{other}:// is neither ssh://, sftp://, ftp:// nor ftps://")),
        };
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let (login, place) =
            authority.rsplit_once('@').map_or((None, authority), |(login, place)| (Some(login), place));
        let (user, password) =
            match login.map(|login| login.split_once(':').map_or((login, None), |(u, p)| (u, Some(p)))) {
                Some((user, password)) => (Some(user), password),
                None => (None, None),
            };
        let (server, port) = match place.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or("the [ of its address is never closed")?,
            None => place.find(':').map_or((place, ""), |at| place.split_at(at)),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => Some(port.parse().ok().filter(|port| *port > 0).ok_or(format!("`{port}` is not a port"))?),
            None if port.is_empty() => None,
            None => return Err("it has something behind the ] of its address".to_owned()),
        };
        if !is_host(server) {
            return Err(format!("`{server}` is neither the name nor the address of a host"));
        }
        if user.is_some_and(str::is_empty) || text.chars().any(char::is_control) {
            return Err("it has no user before its @, or a control character".to_owned());
        }
        if path.split('/').any(|part| part == "..") {
            return Err(format!("`{path}` has `..` in it; write the directory without"));
        }
        let remote = Remote { port, ..Remote::new(protocol, user, server, Path::new(path)) };
        Ok(Remote { login: Login { password: Password(password.map(str::to_owned)), ..Login::default() }, ..remote })
    }
}

/// Where the certificate of a private key is, if it has one.
pub fn certificate_of(key: &Path) -> PathBuf {
    let mut certificate = key.as_os_str().to_owned();
    certificate.push(CERTIFICATE);
    certificate.into()
}

/// The machine's own file of those who vouch for servers.
pub(crate) fn authorities(host: &dyn Host, server: &str) -> anyhow::Result<&'static Path> {
    let known = AUTHORITIES.iter().map(Path::new).find(|file| host.has_file(file));
    known.with_context(|| format!("no file says who vouches for {server}: {} are not there", AUTHORITIES.join(", ")))
}

/// Whether it can be the name or the address of a host.
pub fn is_host(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    !text.is_empty() && !text.starts_with('-') && text.chars().all(good)
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url(&self.server))
    }
}

impl Hook for Remote {
    fn name(&self) -> &'static str {
        "remote"
    }

    fn gather(&self, host: &dyn Host) -> anyhow::Result<Contribution> {
        let mut files = Vec::new();
        let mut secret = |name: &str, bytes: Vec<u8>, what: &str| {
            let reason = format!("{what} of the target {self}");
            files.push(FileNeed { path: self.secret(name), bytes, secret: true, reason });
        };
        match self.protocol {
            Protocol::Ssh | Protocol::Sftp => {
                let identity = self.login.identity.as_deref().context("no private key is known")?;
                let key = host.read(identity).with_context(|| {
                    format!("the target {self} needs a private key; `kdumpctl propagate` makes and installs one")
                })?;
                ssh_key::check_private(&key, identity).with_context(|| format!("the target {self}"))?;
                secret("key", key, "private key");
                let certificate = certificate_of(identity);
                if host.has_file(&certificate) {
                    let bytes = host.read(&certificate)?;
                    secret(&format!("key{CERTIFICATE}"), bytes, "certificate of the private key");
                }
                if !self.any_host {
                    if self.login.host_keys.is_empty() {
                        bail!(
                            "no key of the host {} is known, so that anybody could take its place; `kdumpctl propagate` \
                             asks for it, or add what `ssh-keyscan {}` prints to /root/.ssh/known_hosts, after a look",
                            self.known_as(),
                            self.server
                        );
                    }
                    for key in &self.login.host_keys {
                        ssh_key::check_host_key(key)
                            .with_context(|| format!("what is known of the host {}", self.known_as()))?;
                    }
                    let line = |key: &String| format!("{} {key}\n", self.known_as());
                    let lines: String = self.login.host_keys.iter().map(line).collect();
                    secret("hosts", lines.into_bytes(), "known host keys");
                }
            }
            Protocol::Ftp | Protocol::Ftps => {
                if self.user.is_some() {
                    let password = match (&self.login.password.0, &self.login.password_file) {
                        (None, Some(file)) => first_line(&host.read(file)?),
                        (password, _) => password.clone().unwrap_or_default(),
                    };
                    secret("password", format!("{password}\n").into_bytes(), "password");
                }
                if self.protocol == Protocol::Ftps {
                    let file = authorities(host, &self.server)?;
                    secret("authorities", host.read(file)?, "authorities for the server");
                }
            }
        }
        Ok(Contribution {
            files,
            ours: vec![(PROGRAM, format!("delivers to the target {self}"))],
            ..Contribution::default()
        })
    }
}

impl TargetHook for Remote {
    fn open(&self, machine: &mut dyn Machine, limit: Duration) -> anyhow::Result<Destination> {
        let limit = self.wait.map_or(limit, Duration::from_secs);
        let address = server::find(machine.network(), &self.server, self.address)?;
        let command = self.command(address);
        let mut argv = command.clone();
        argv.push("check".to_owned());
        let began = machine.network().now();
        loop {
            // The program's own limits are shorter.
            let program = Program { argv: argv.clone(), env: Vec::new(), limit: limit.max(Duration::from_secs(90)) };
            let ended = machine.run(&program)?;
            let waited = machine.network().now().saturating_sub(began);
            if ended.code != NOBODY || waited + BETWEEN_TRIES >= limit {
                ended.well(PROGRAM)?;
                return Ok(Destination::Sender(command));
            }
            log::warn!("nobody answers at {address}; trying again, {} of {} s", waited.as_secs(), limit.as_secs());
            machine.network().pause(BETWEEN_TRIES);
        }
    }

    fn close(&self, _machine: &mut dyn Machine) -> anyhow::Result<()> {
        // Each file has been acknowledged.
        Ok(())
    }

    fn client(&self, machine: &mut dyn Machine) -> Option<IpAddr> {
        server::client(machine.network(), &self.server, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeHost, FakeMachine};
    use crate::{Ended, Target};
    use proptest::prelude::*;

    const LIMIT: Duration = Duration::from_secs(30);
    const KEY: &[u8] = b"-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKC\n-----END RSA PRIVATE KEY-----\n";

    fn remote(url: &str) -> Remote {
        url.parse().unwrap()
    }

    fn words(machine: &mut FakeMachine, url: &str) -> String {
        match remote(url).open(machine, LIMIT).unwrap() {
            Destination::Sender(command) => command.join(" "),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn kdump_send_gets_an_address_and_no_secret() {
        let mut machine = FakeMachine::near_a_server();
        assert_eq!(
            words(&mut machine, "ssh://me@nas.example:2222/srv/my crash"),
            "/usr/bin/kdump-send --host-name nas.example --identity /etc/kdump/send/ssh-nas.example,2222.key --known-hosts \
             /etc/kdump/send/ssh-nas.example,2222.hosts ssh://me@10.0.2.7:2222/srv/my%20crash"
        );
        assert!(machine.journal[0].ends_with("/srv/my%20crash check"), "{:?}", machine.journal);
        assert_eq!(
            words(&mut machine, "ftps://me:secret@[fec0::2]/x"),
            "/usr/bin/kdump-send --host-name fec0::2 --password-file /etc/kdump/send/ftps-me@fec0__2.password --ca-file \
             /etc/kdump/send/ftps-me@fec0__2.authorities ftps://me@[fec0::2]/x"
        );
        assert_eq!(
            words(&mut machine, "ftp://10.0.2.9/x"),
            "/usr/bin/kdump-send --host-name 10.0.2.9 ftp://10.0.2.9/x"
        );
        assert_eq!(remote("ssh://nas.example/x").client(&mut machine), Some("10.0.2.15".parse().unwrap()));
    }

    #[test]
    fn a_server_that_is_not_there_yet_is_tried_again_within_the_limit() {
        let mut machine = FakeMachine::near_a_server();
        machine.programs.insert(PROGRAM.into(), Ended { code: NOBODY, said: "Connection refused".into() });
        let error = remote("ssh://nas.example/x").open(&mut machine, LIMIT).unwrap_err();
        assert!(format!("{error:#}").contains("Connection refused"), "{error:#}");
        assert_eq!(machine.journal.len(), 15);
        machine.journal.clear();
        machine.programs.insert(PROGRAM.into(), Ended { code: 1, said: "the key has changed".into() });
        let error = remote("ssh://nas.example/x").open(&mut machine, LIMIT).unwrap_err();
        assert!(format!("{error:#}").contains("the key has changed") && machine.journal.len() == 1, "{error:#}");
    }

    #[test]
    fn the_image_gets_the_program_the_key_and_the_host_keys() {
        let mut host = FakeHost::default();
        let mut target = remote("sftp://nas:2222/x");
        target.login.identity = Some("/root/.ssh/key".into());
        let refusal = |target: &Remote, host: &FakeHost| format!("{:#}", target.gather(host).unwrap_err());
        assert!(refusal(&target, &host).contains("`kdumpctl propagate` makes"), "{}", refusal(&target, &host));
        host.files.insert("/root/.ssh/key".into(), b"junk".to_vec());
        assert!(refusal(&target, &host).contains("the target sftp://nas:2222/x: /root/.ssh/key is not a private key"));
        host.files.insert("/root/.ssh/key".into(), KEY.to_vec());
        assert!(refusal(&target, &host).contains("no key of the host [nas]:2222 is known"));
        target.login.host_keys = vec!["ssh-rsa AAAAnonsense".into()];
        assert!(refusal(&target, &host).contains("what is known of the host [nas]:2222: `ssh-rsa AAAAnonsense`"));
        target.login.host_keys = vec!["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5".into()];
        let Contribution { files, ours, .. } = target.gather(&host).unwrap();
        let files: Vec<_> = files.iter().map(|file| (file.bytes.as_slice(), file.secret)).collect();
        assert_eq!(files, [(KEY, true), (b"[nas]:2222 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5\n", true)]);
        assert_eq!(ours[0].0, PROGRAM);
        target.any_host = true;
        assert_eq!(target.gather(&host).unwrap().files.len(), 1);
        host.files.insert("/root/.ssh/key-cert.pub".into(), b"CERT".to_vec());
        let names: Vec<PathBuf> = target.gather(&host).unwrap().files.into_iter().map(|file| file.path).collect();
        assert_eq!(
            names,
            ["/etc/kdump/send/sftp-nas,2222.key", "/etc/kdump/send/sftp-nas,2222.key-cert.pub"].map(PathBuf::from)
        );
    }

    #[test]
    fn two_targets_on_one_server_have_secrets_of_their_own() {
        let secrets = |urls: &[&str]| -> std::collections::BTreeSet<PathBuf> {
            urls.iter().map(|url| remote(url).secret("password")).collect()
        };
        assert_eq!(secrets(&["ftp://a@nas/x", "ftp://b@nas/x", "ftp://b@nas:2121/x", "ftps://b@nas/x"]).len(), 4);
        assert_eq!(secrets(&["ssh://nas/x", "ssh://nas:2222/x", "sftp://nas/x"]).len(), 3);
        assert_eq!(secrets(&["ssh://a@nas/x", "ssh://b@nas:22/y"]).len(), 1, "the key is the same");
    }

    #[test]
    fn a_password_is_in_a_file_and_nowhere_else() {
        let target = Target::Remote(remote("ftp://me:secret@nas/x"));
        assert!(!format!("{target:?} {target}").contains("secret"));
        assert!(!toml::to_string(&target).unwrap().contains("secret"));
        let files = target.hook().gather(&FakeHost::default()).unwrap().files;
        assert_eq!((files[0].bytes.as_slice(), files[0].secret), (&b"secret\n"[..], true));
        let error = format!("{:#}", remote("ftps://nas/x").gather(&FakeHost::default()).unwrap_err());
        assert!(error.starts_with("no file says who vouches for nas"), "{error}");
    }

    #[test]
    fn what_is_no_place_is_told() {
        for (url, words) in [
            ("nas:/x", "no ://"),
            ("http://nas/x", "neither ssh://"),
            ("ssh://nas:x/x", "not a port"),
            ("ssh://[::1/x", "never closed"),
            ("ssh:///x", "neither the name"),
            ("ssh://@nas/x", "no user"),
            ("ftp://nas/a/../b", "`..`"),
        ] {
            let error = url.parse::<Remote>().unwrap_err();
            assert!(error.contains(words), "{url}: {error}");
        }
        assert_eq!(remote("scp://nas/x").protocol, Protocol::Sftp);
    }

    proptest! {
        #[test]
        fn a_place_is_read_as_it_is_written(user in "[a-z]{1,8}", server in "[a-z0-9][a-z0-9.-]{0,20}", port in 1u16..) {
            let text = format!("sftp://{user}@{server}:{port}/srv/crash");
            prop_assert_eq!(remote(&text).to_string(), text);
        }

        #[test]
        fn any_text_ends_in_a_result(text in "(ssh|ftp)://.{0,40}") {
            let _ = text.parse::<Remote>();
        }
    }
}
