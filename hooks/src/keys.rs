//! The kernel's keyrings, as hooks look into them and fill them.
//!
//! In: a type, a description, a payload and a ring. Out: a key's number, or the kernel's refusal in words that say what is
//! missing ([`refusal`]). `/proc/keys` is the only list of what there is ([`Listed::parse`]).
//!
//! May surprise: a ring whose name begins with a dot is the kernel's own. What may go in is decided by the keys that are
//! in it already or by others that vouch, never by who asks: root is refused like anybody.

use std::fmt;
use std::io;

/// The number of a key or ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub i32);

/// The ring of the user that asks, `@u` (`KEY_SPEC_USER_KEYRING` of linux/keyctl.h).
pub const USER_RING: KeyId = KeyId(-4);

/// What is asked of the kernel's keys. `kernel` does so on a running machine; [`crate::fake::FakeKeys`] records.
pub trait Keys {
    /// Adds a key, or a ring if the type is `keyring`. Without a description the kernel takes one from the payload.
    ///
    /// # Errors
    /// The kernel's refusal; [`refusal`] has words for it.
    fn add(&mut self, kind: &str, description: &str, payload: &[u8], ring: KeyId) -> io::Result<KeyId>;

    /// Takes a key out of a ring.
    ///
    /// # Errors
    /// It is not in there, or the ring may not be changed.
    fn unlink(&mut self, key: KeyId, ring: KeyId) -> io::Result<()>;

    /// The keys in a ring.
    ///
    /// # Errors
    /// The ring may not be read.
    fn members(&self, ring: KeyId) -> io::Result<Vec<KeyId>>;

    /// Every key that may be seen.
    ///
    /// # Errors
    /// The kernel has no `/proc/keys`.
    fn all(&self) -> io::Result<Vec<Listed>>;

    /// The ring of that name, if there is one.
    fn ring(&self, name: &str) -> Option<KeyId> {
        let all = self.all().unwrap_or_default();
        all.into_iter().find(|key| key.kind == "keyring" && key.description == name).map(|key| key.id)
    }
}

/// A key as `/proc/keys` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its number.
    pub id: KeyId,
    /// Its type, cut to nine letters by the kernel: `asymmetri` is one.
    pub kind: String,
    /// Its description, without what the type says behind it.
    pub description: String,
}

impl Listed {
    /// Reads `/proc/keys`: number, flags, uses, time, permissions, user, group, type, description. A line that is none is
    /// passed over.
    pub fn parse(text: &str) -> Vec<Listed> {
        text.lines().filter_map(Listed::line).collect()
    }

    fn line(line: &str) -> Option<Listed> {
        let mut rest = line.trim_start();
        let mut fields = Vec::with_capacity(8);
        for _ in 0..8 {
            let (field, behind) = rest.split_once(' ')?;
            fields.push(field);
            rest = behind.trim_start();
        }
        // The kernel prints a signed number without its sign.
        let id = KeyId(u32::from_str_radix(fields.first()?, 16).ok()?.cast_signed());
        let kind = (*fields.get(7)?).to_owned();
        // `.ima: empty`, `SUBJECT: SKID: X509.rsa 1234abcd []`; a description may hold colons of its own.
        let description = rest.rsplit_once(": ").map_or(rest, |(description, _)| description).to_owned();
        Some(Listed { id, kind, description })
    }
}

/// A key that the kernel did not take.
#[derive(Debug)]
pub struct Refusal {
    /// What came back.
    pub error: io::Error,
    /// What it means.
    pub meaning: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error, self.meaning)
    }
}

impl std::error::Error for Refusal {}

/// What it means that a key of that type cannot be added to the ring of that name.
pub fn refusal(error: io::Error, kind: &str, ring: &str) -> Refusal {
    use nix::libc;
    let meaning = match error.raw_os_error().unwrap_or_default() {
        libc::ENOSYS => "the kernel has no keys at all (CONFIG_KEYS)".to_owned(),
        libc::ENODEV => match kind {
            "trusted" => "the kernel has no trusted keys: there is no TPM, its driver is not in the image, or \
                          CONFIG_TRUSTED_KEYS is not set"
                .to_owned(),
            "encrypted" => "the kernel has no encrypted keys (CONFIG_ENCRYPTED_KEYS)".to_owned(),
            "asymmetric" => "the kernel has no public keys (CONFIG_ASYMMETRIC_KEY_TYPE)".to_owned(),
            _ => format!("the kernel has no keys of type {kind}"),
        },
        libc::ENOKEY if kind == "encrypted" => "the master key that it is encrypted with is not there".to_owned(),
        libc::ENOKEY if ring == ".ima" || ring == ".evm" => format!(
            "no certificate that the kernel trusts vouches for it: {ring} takes what a CA in .builtin_trusted_keys has \
             signed, and in .secondary_trusted_keys or .machine (a MOK) where the kernel was built so \
             (CONFIG_IMA_KEYRINGS_PERMIT_SIGNED_BY_BUILTIN_OR_SECONDARY)"
        ),
        libc::ENOKEY => format!(
            "no certificate that the kernel trusts vouches for it: {ring} takes what a CA in .builtin_trusted_keys, in \
             {ring} itself or, as a MOK, in .machine has signed; enrol it with mokutil instead"
        ),
        libc::EKEYREJECTED => {
            "it is on the kernel's blacklist, or what is in it was not signed by whom it says".to_owned()
        }
        libc::EKEYEXPIRED => "it has expired".to_owned(),
        libc::EBADMSG => "it is no X.509 certificate in DER, or a damaged one".to_owned(),
        libc::ENOPKG => "the kernel lacks the algorithm of its key or of its signature".to_owned(),
        libc::EINVAL if kind == "encrypted" => {
            "it is damaged, or was encrypted with another master key than the one that is there".to_owned()
        }
        libc::EINVAL => "its content is not what a key of that type has".to_owned(),
        libc::EPERM | libc::EIO if kind == "trusted" => {
            "the TPM does not unseal it: it was sealed by another TPM, or what was booted is not what it is sealed to"
                .to_owned()
        }
        libc::EPERM | libc::EACCES if ring.starts_with('.') => {
            format!("{ring} is closed: this kernel lets nobody add to it")
        }
        libc::EDQUOT => "root has too many keys (kernel.keys.root_maxbytes)".to_owned(),
        _ => format!("a key of type {kind} cannot be added to {ring}"),
    };
    Refusal { error, meaning }
}

/// Adds a certificate to the ring of that name.
///
/// # Errors
/// The kernel's refusal, explained.
pub fn add_certificate(keys: &mut dyn Keys, certificate: &[u8], ring: KeyId, name: &str) -> Result<KeyId, Refusal> {
    keys.add("asymmetric", "", certificate, ring).map_err(|error| refusal(error, "asymmetric", name))
}

/// Whether these bytes can be a certificate as the kernel reads it.
///
/// # Errors
/// Why not, with the remedy.
pub fn check_certificate(bytes: &[u8]) -> anyhow::Result<()> {
    match bytes {
        [b'-', b'-', b'-', b'-', b'-', ..] => anyhow::bail!(
            "it is a certificate in PEM, and the kernel reads DER alone; convert it with `openssl x509 -outform der`"
        ),
        // A sequence whose length takes two bytes.
        [0x30, 0x82, high, low, rest @ ..] if rest.len() == usize::from(*high) << 8 | usize::from(*low) => Ok(()),
        _ => anyhow::bail!("it is no X.509 certificate in DER"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::libc;
    use proptest::prelude::*;

    const PROC_KEYS: &str = "\
1b0b2f16 I------     1 perm 1f030000     0     0 asymmetri Build time autogenerated kernel key: 08a7a2557f: X509.rsa 7f152709 []
ac7b9f3c I------     4 perm 1f0b0000     0     0 keyring   .builtin_trusted_keys: 1
1234abcd I--Q---     1 perm 3f010000     0     0 user      kmk-user: 32
3a1c55aa I--Q--- 2 1h 1f3f0000 0 65534 keyring _uid.0: empty
garbage
";

    #[test]
    fn proc_keys_tells_number_type_and_description() {
        let keys = Listed::parse(PROC_KEYS);
        let seen: Vec<_> = keys.iter().map(|key| (key.kind.as_str(), key.description.as_str())).collect();
        assert_eq!(
            seen,
            [
                ("asymmetri", "Build time autogenerated kernel key: 08a7a2557f"),
                ("keyring", ".builtin_trusted_keys"),
                ("user", "kmk-user"),
                ("keyring", "_uid.0")
            ]
        );
        assert_eq!(keys[1].id, KeyId(0xac7b_9f3c_u32.cast_signed()));
    }

    #[test]
    fn every_refusal_says_what_is_missing() {
        for (errno, kind, ring, expected) in [
            (libc::ENOSYS, "user", "@u", "CONFIG_KEYS"),
            (libc::ENODEV, "trusted", "@u", "no TPM"),
            (libc::ENODEV, "encrypted", "@u", "CONFIG_ENCRYPTED_KEYS"),
            (libc::ENODEV, "asymmetric", ".ima", "CONFIG_ASYMMETRIC_KEY_TYPE"),
            (libc::ENOKEY, "encrypted", "@u", "the master key"),
            (libc::ENOKEY, "asymmetric", ".ima", "a CA in .builtin_trusted_keys"),
            (libc::ENOKEY, "asymmetric", ".secondary_trusted_keys", "mokutil"),
            (libc::EKEYREJECTED, "asymmetric", ".ima", "blacklist"),
            (libc::EBADMSG, "asymmetric", ".ima", "no X.509 certificate"),
            (libc::ENOPKG, "asymmetric", ".ima", "algorithm"),
            (libc::EINVAL, "encrypted", "@u", "another master key"),
            (libc::EPERM, "trusted", "@u", "another TPM"),
            (libc::EACCES, "asymmetric", ".builtin_trusted_keys", "is closed"),
            (libc::EDQUOT, "user", "@u", "too many keys"),
            (libc::EIO, "user", "@u", "cannot be added to @u"),
        ] {
            let said = refusal(io::Error::from_raw_os_error(errno), kind, ring).to_string();
            assert!(said.contains(expected), "{errno} {kind} {ring}: {said}");
        }
    }

    #[test]
    fn a_certificate_is_one_sequence_and_nothing_else() {
        let mut der = vec![0x30, 0x82, 0x01, 0x00];
        der.extend([0; 256]);
        check_certificate(&der).unwrap();
        for (wrong, expected) in [
            (&b"-----BEGIN CERTIFICATE-----"[..], "-outform der"),
            (&der[..100], "no X.509"),
            (&[][..], "no X.509"),
            (&[&der[..], &[0]].concat(), "no X.509"),
        ] {
            assert!(check_certificate(wrong).unwrap_err().to_string().contains(expected));
        }
    }

    proptest! {
        #[test]
        fn what_the_kernel_prints_is_read_back(
            id: u32,
            kind in "[a-z_]{1,9}",
            description in "[!-~]([ -~]{0,40}[!-~])?",
            more in "[!-9;-~]{1,12}",
        ) {
            let line = format!("{id:08x} I--Q---     1 perm 1f030000     0     0 {kind:<9} {description}: {more}\n");
            let expected = Listed { id: KeyId(id.cast_signed()), kind, description };
            prop_assert_eq!(Listed::parse(&line), [expected]);
        }

        #[test]
        fn any_text_is_taken_in_peace(text in "(?s).{0,200}") {
            prop_assert!(Listed::parse(&text).len() <= text.lines().count());
        }
    }
}
