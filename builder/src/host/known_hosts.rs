//! What a file of known hosts says of one host, as OpenSSH writes it (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").
//!
//! In: the text, and the host's name as it stands there (`nas`, `[nas]:2222`). Out: its keys. May surprise: names may be
//! hashed, patterns, or excluded by a `!`; of the lines with a mark, those that revoke a key take it away again, and
//! those of certificate authorities are passed over: kdump-send does not know certificates of hosts.

use kdump_hooks::ssh_key::base64;
use sha1::{Digest, Sha1};
use std::collections::BTreeSet;

/// The block of SHA-1, which HMAC (RFC 2104) needs.
const BLOCK: usize = 64;

/// The keys of `host`, each as `ssh-ed25519 AAAA…`.
pub fn keys_of(text: &str, host: &str) -> Vec<String> {
    let (mut keys, mut revoked) = (Vec::new(), BTreeSet::new());
    for line in text.lines() {
        let mut words = line.split_whitespace().peekable();
        let mark = words.next_if(|word| word.starts_with('@'));
        let (Some(names), Some(kind), Some(key)) = (words.next(), words.next(), words.next()) else { continue };
        if names.starts_with('#') || !speaks_of(names, host) {
            continue;
        }
        let key = format!("{kind} {key}");
        match mark {
            None if !keys.contains(&key) => keys.push(key),
            Some("@revoked") => {
                revoked.insert(key);
            }
            _ => {}
        }
    }
    keys.retain(|key| !revoked.contains(key));
    keys
}

/// Whether the names of a line are those of `host`.
fn speaks_of(names: &str, host: &str) -> bool {
    if let Some(hashed) = names.strip_prefix("|1|") {
        let Some((salt, sum)) = hashed.split_once('|') else { return false };
        let (Some(salt), Some(sum)) = (base64(salt), base64(sum)) else { return false };
        return hmac_sha1(&salt, host.as_bytes()) == sum;
    }
    let mut found = false;
    for name in names.split(',') {
        match name.strip_prefix('!') {
            Some(not) if matches(not.as_bytes(), host.as_bytes()) => return false,
            Some(_) => {}
            None => found |= matches(name.as_bytes(), host.as_bytes()),
        }
    }
    found
}

/// Whether a pattern of `*` and `?` matches, in any case of letters. It goes back to the last `*` alone, so that no
/// pattern takes long.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut in_text) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(in_text) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, in_text));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted.eq_ignore_ascii_case(byte) => {
                at += 1;
                in_text += 1;
            }
            _ => {
                let Some((back, taken)) = star else { return false };
                star = Some((back, taken + 1));
                at = back + 1;
                in_text = taken + 1;
            }
        }
    }
    pattern.get(at..).is_none_or(|rest| rest.iter().all(|byte| *byte == b'*'))
}

fn hmac_sha1(key: &[u8], text: &[u8]) -> Vec<u8> {
    let key = if key.len() > BLOCK { Sha1::digest(key).to_vec() } else { key.to_vec() };
    let padded = |pad: u8| (0..BLOCK).map(|at| key.get(at).copied().unwrap_or(0) ^ pad).collect::<Vec<u8>>();
    let inner = Sha1::new().chain_update(padded(0x36)).chain_update(text).finalize();
    Sha1::new().chain_update(padded(0x5c)).chain_update(inner).finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_patterns_ports_and_marks_are_understood() {
        let text = "# nas ssh-rsa X\nnas,10.0.0.7 ssh-ed25519 A comment\n[nas]:2222 ssh-rsa B\n*.example,!bad.example \
                    ssh-rsa C\n@cert-authority * ssh-rsa D\nNAS ssh-dss E\nnas\n@revoked * ssh-dss E\n";
        assert_eq!(keys_of(text, "nas"), ["ssh-ed25519 A"]);
        assert_eq!(keys_of(text, "10.0.0.7"), ["ssh-ed25519 A"]);
        assert_eq!(keys_of(text, "[nas]:2222"), ["ssh-rsa B"]);
        assert_eq!(keys_of(text, "good.example"), ["ssh-rsa C"]);
        assert!(keys_of(text, "bad.example").is_empty() && keys_of(text, "example").is_empty());
    }

    #[test]
    fn hashed_names_are_recognised() {
        // As `ssh-keygen -H` made it of 192.168.1.61; the example of sshd(8).
        let text = "|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= ssh-rsa K";
        assert_eq!(keys_of(text, "192.168.1.61"), ["ssh-rsa K"]);
        assert!(keys_of(text, "192.168.1.62").is_empty());
    }

    proptest! {
        #[test]
        fn any_text_ends_in_an_answer(text in "[|1!*?,@ a-zA-Z0-9+/=\n]{0,200}", host in "[a-z*?]{0,20}") {
            keys_of(&text, &host);
        }

        #[test]
        fn every_name_matches_itself_and_a_star(host in "[a-z0-9.:]{1,20}") {
            prop_assert!(speaks_of(&host, &host) && speaks_of("*", &host));
            let longer = format!("{host}x");
            prop_assert!(!speaks_of(&longer, &host));
        }
    }
}
