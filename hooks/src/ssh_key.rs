//! Whether what one logs in with by SSH is of any use, as far as it can be told without the server.
//!
//! In: the file of a private key; a host's key, as `known_hosts` has it behind the name. Out: yes, or what is wrong and
//! what to do. May surprise: only the outside of a key is looked at: its armour, whether a passphrase locks it, whether
//! it is of the kind that it says. kdump-send, which can do more, asks the same questions again.

use anyhow::{Context, bail};
use std::path::Path;

/// How OpenSSH's own format begins where nothing is encrypted (PROTOCOL.key: "openssh-key-v1", 0, the length and the name
/// of the cipher).
const OPEN: &[u8] = b"openssh-key-v1\0\0\0\0\x04none";

/// That a private key can be used by a machine on which nobody types a passphrase.
///
/// # Errors
/// It is no private key, or it is locked.
pub fn check_private(bytes: &[u8], file: &Path) -> anyhow::Result<()> {
    let text = String::from_utf8_lossy(bytes);
    // The parameters of an elliptic curve may stand before it.
    let mut lines = text.lines().map(str::trim);
    let Some(begin) = lines.find(|line| line.starts_with("-----BEGIN ") && line.ends_with("PRIVATE KEY-----")) else {
        bail!("{} is not a private key; name the file without .pub", file.display());
    };
    let is_openssh = begin.contains("OPENSSH");
    let body: String = lines.take_while(|line| !line.starts_with("-----")).filter(|line| !line.contains(':')).collect();
    let decoded = base64(&body).filter(|bytes| !bytes.is_empty());
    let is_locked = match is_openssh {
        true => {
            decoded.as_ref().is_some_and(|bytes| bytes.starts_with(b"openssh-key-v1\0") && !bytes.starts_with(OPEN))
        }
        false => text.contains("ENCRYPTED"),
    };
    if is_locked {
        bail!(
            "the private key {} has a passphrase, and after a crash nobody is there to type it; name another key, made by \
             `ssh-keygen -t ed25519 -N '' -f FILE`, as `kdumpctl propagate` does where there is none",
            file.display()
        );
    }
    if decoded.is_none_or(|bytes| is_openssh && !bytes.starts_with(OPEN)) {
        bail!(
            "the private key {} is damaged: `ssh-keygen -y -f` would not read it either; make another",
            file.display()
        );
    }
    Ok(())
}

/// That a host's key, `ssh-ed25519 AAAA…`, is one of the kind that it says.
///
/// # Errors
/// It is not.
pub fn check_host_key(key: &str) -> anyhow::Result<()> {
    let (kind, blob) = key.trim().split_once(char::is_whitespace).context("it has no key behind its kind")?;
    // A key begins with its kind, and the length of that (RFC 4253, section 6.6).
    let is_it = base64(blob.trim()).is_some_and(|blob| {
        blob.split_first_chunk::<4>().is_some_and(|(length, rest)| {
            usize::try_from(u32::from_be_bytes(*length)).is_ok_and(|length| length == kind.len())
                && rest.starts_with(kind.as_bytes())
        })
    });
    match is_it {
        true => Ok(()),
        false => {
            bail!("`{key}` is not a host's key; write what `ssh-keyscan HOST` prints behind the name, after a look")
        }
    }
}

/// The bytes that a text stands for (RFC 4648, section 4).
pub fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn armoured(kind: &str, body: &str) -> String {
        format!("-----BEGIN {kind}PRIVATE KEY-----\n{body}\n-----END {kind}PRIVATE KEY-----\n")
    }

    fn refusal(text: &str) -> String {
        check_private(text.as_bytes(), Path::new("/k")).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn a_key_that_nobody_could_use_after_a_crash_is_refused_with_the_remedy() {
        // "openssh-key-v1", 0, 4, "none", and with "aes256-ctr".
        let open = armoured("OPENSSH ", "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAE\nbm9uZQAAAAA=");
        let locked = armoured("OPENSSH ", "b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAG\nYmNyeXB0");
        let curve = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        for good in [open, armoured("RSA ", "MIIEpAIBAAKCAQEA"), format!("{curve}{}", armoured("EC ", "MHcCAQEE"))] {
            assert_eq!(refusal(&good), "", "{good}");
        }
        for text in [
            locked,
            armoured("RSA ", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMIIEpAIBAAKC"),
            armoured("ENCRYPTED ", "MIIFHDBOBgkq"),
        ] {
            assert!(refusal(&text).contains("has a passphrase") && refusal(&text).contains("-N ''"), "{text}");
        }
        for text in ["", "junk", "ssh-ed25519 AAAA me@here\n"] {
            assert!(refusal(text).contains("is not a private key"), "{text}");
        }
        for text in [armoured("OPENSSH ", "AAAA"), armoured("RSA ", ""), armoured("RSA ", "not base64!")] {
            assert!(refusal(&text).contains("is damaged"), "{text}");
        }
    }

    #[test]
    fn a_host_s_key_is_of_the_kind_that_it_says() {
        check_host_key("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl").unwrap();
        for key in ["ssh-rsa AAAAnonsense", "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAA", "ssh-rsa", "ssh-rsa !", "ssh-rsa AAAA"]
        {
            assert!(check_host_key(key).is_err(), "{key}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_and_any_text_end_in_a_result(bytes in proptest::collection::vec(any::<u8>(), 0..80), text in ".{0,60}") {
            let _ = (check_private(&bytes, Path::new("/k")), check_host_key(&text));
        }
    }
}
