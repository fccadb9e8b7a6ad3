//! Whether the host is the one that it is taken for.
//!
//! In: a file of known hosts, as OpenSSH writes it, plain or hashed. Out: yes, or a refusal with both fingerprints.

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};
use ssh2::{CheckResult, KnownHostFileKind, Session};
use std::fs;
use std::path::{Path, PathBuf};

/// The kinds of key, as `known_hosts` names them, and the signatures that each of them makes, the best first.
const KINDS: [(&str, &str); 5] = [
    ("ssh-ed25519", "ssh-ed25519"),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256"),
    ("ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384"),
    ("ecdsa-sha2-nistp521", "ecdsa-sha2-nistp521"),
    ("ssh-rsa", "rsa-sha2-512,rsa-sha2-256"),
];

/// What is known of one host.
pub(super) struct Known {
    file: PathBuf,
    host: String,
    port: u16,
    /// Its keys, as bytes.
    keys: Vec<Vec<u8>>,
    /// Keys that no host may have.
    revoked: Vec<Vec<u8>>,
}

impl Known {
    /// What `file` says of `host`.
    pub(super) fn read(session: &Session, file: &Path, host: &str, port: u16) -> anyhow::Result<Known> {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read the known hosts in {}", file.display()))?;
        Ok(Known::of(session, &text, file, host, port))
    }

    fn of(session: &Session, text: &str, file: &Path, host: &str, port: u16) -> Known {
        let (mut keys, mut revoked) = (Vec::new(), Vec::new());
        for line in text.lines().map(str::trim) {
            let mut words = line.split_whitespace();
            match words.next() {
                None => {}
                Some("@revoked") => revoked.extend(words.nth(2).and_then(bytes)),
                // Marks that this version does not know make the line say something else.
                Some(mark) if mark.starts_with(['#', '@']) => {}
                Some(_) => {
                    let Some(key) = words.nth(1).and_then(bytes) else { continue };
                    // Whether a line, plain or hashed, speaks of the host is asked of the library, line by line.
                    let Ok(mut lone) = session.known_hosts() else { continue };
                    if lone.read_str(line, KnownHostFileKind::OpenSSH).is_ok()
                        && matches!(lone.check_port(host, port, &key), CheckResult::Match)
                    {
                        keys.push(key);
                    }
                }
            }
        }
        Known { file: file.to_owned(), host: host.to_owned(), port, keys, revoked }
    }

    /// The kinds of key that the host should be asked for, so that it does not show one that nobody knows.
    pub(super) fn preference(&self) -> Option<String> {
        let known = |(name, signature): &(&'static str, &'static str)| {
            self.keys.iter().any(|key| kind(key) == *name).then_some(*signature)
        };
        let wanted: Vec<&str> = KINDS.iter().filter_map(known).collect();
        (!wanted.is_empty()).then(|| {
            let others = KINDS.iter().map(|(_, signature)| *signature).filter(|other| !wanted.contains(other));
            wanted.iter().copied().chain(others).collect::<Vec<_>>().join(",")
        })
    }

    /// Fails unless the host of a session after its handshake is the one that is known.
    pub(super) fn check(&self, session: &Session) -> anyhow::Result<()> {
        let (shown, _) = session.host_key().context("the host showed no key")?;
        self.judge(shown)
    }

    fn judge(&self, shown: &[u8]) -> anyhow::Result<()> {
        let Known { file, host, port, keys, revoked } = self;
        let file = file.display();
        let place = if *port == 22 { host.clone() } else { format!("[{host}]:{port}") };
        if revoked.iter().any(|key| key == shown) {
            bail!("{place} has a key that {file} revokes, {}; it may be another host", fingerprint(shown));
        }
        if keys.iter().any(|key| key == shown) {
            return Ok(());
        }
        if keys.is_empty() {
            bail!(
                "{place} is unknown: its key is {}, and {file} has none of it; compare that with what \
                 `ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub` says there, and add what `ssh-keyscan -p {port} {host}` \
                 prints to {file}",
                fingerprint(shown)
            );
        }
        let known: Vec<String> = keys.iter().map(|key| fingerprint(key)).collect();
        bail!(
            "the key of {place} has changed: it is {} now, and {file} has {}; either it was installed anew (then: \
             ssh-keygen -R {place} -f {file}, and add its new key), or it is another host",
            fingerprint(shown),
            known.join(", ")
        )
    }
}

fn bytes(base64: &str) -> Option<Vec<u8>> {
    openssl::base64::decode_block(base64).ok()
}

/// The kind of a key: the string at its start (RFC 4253, section 6.6).
fn kind(key: &[u8]) -> &str {
    let Some((length, rest)) = key.split_first_chunk::<4>() else { return "" };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    rest.get(..length).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or("")
}

/// `SHA256:…`, as every tool of OpenSSH prints it, with the kind of key.
fn fingerprint(key: &[u8]) -> String {
    let sum = openssl::base64::encode_block(&Sha256::digest(key));
    format!("SHA256:{} ({})", sum.trim_end_matches('='), kind(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    const RSA: &str = "AAAAB3NzaC1yc2EAAAADAQABAAAAAQC7";

    fn known(text: &str, host: &str, port: u16) -> Known {
        Known::of(&Session::new().unwrap(), text, Path::new("known"), host, port)
    }

    #[test]
    fn plain_hashed_and_numbered_lines_speak_of_a_host() {
        // ssh-keygen -H of the first line.
        let hashed = format!("|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= ssh-ed25519 {ED}");
        let text = format!(
            "# comment\nnas,10.0.0.7 ssh-ed25519 {ED} me@there\n[nas]:2222 ssh-rsa {RSA}\nnonsense\n@cert-authority * \
             ssh-rsa {RSA}\n"
        );
        assert_eq!(known(&text, "nas", 22).keys, [bytes(ED).unwrap()]);
        assert_eq!(known(&text, "10.0.0.7", 22).keys.len(), 1);
        assert_eq!(known(&text, "other", 22).keys.len(), 0);
        let with_port = known(&text, "nas", 2222);
        assert!(with_port.keys.contains(&bytes(RSA).unwrap()));
        assert!(with_port.preference().unwrap().contains("rsa-sha2-512,rsa-sha2-256"));
        assert_eq!(known(&hashed, "192.168.1.61", 22).keys.len(), 1);
        assert_eq!(known(&hashed, "192.168.1.62", 22).keys.len(), 0);
    }

    #[test]
    fn another_key_than_the_known_one_is_refused_with_both_fingerprints() {
        let known_one = known(&format!("nas ssh-ed25519 {ED}\n"), "nas", 22);
        known_one.judge(&bytes(ED).unwrap()).unwrap();
        let error = known_one.judge(&bytes(RSA).unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("the key of nas has changed: it is SHA256:"), "{error}");
        assert!(error.contains("(ssh-rsa) now, and known has SHA256:") && error.contains("(ssh-ed25519)"), "{error}");
        assert!(known_one.preference().unwrap().starts_with("ssh-ed25519,ecdsa"));
    }

    #[test]
    fn a_host_of_which_nothing_is_known_is_refused_with_the_remedy() {
        let error = known("", "nas", 2222).judge(&bytes(ED).unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("[nas]:2222 is unknown: its key is SHA256:"), "{error}");
        assert!(error.contains("`ssh-keyscan -p 2222 nas`"), "{error}");
        assert_eq!(known("", "nas", 22).preference(), None);
        let revoked = known(&format!("nas ssh-ed25519 {ED}\n@revoked * ssh-ed25519 {ED}\n"), "nas", 22);
        assert!(revoked.judge(&bytes(ED).unwrap()).unwrap_err().to_string().contains("revokes"));
    }
}
