//! IMA and EVM: their keys, their certificates and the policy, told to the kernel by its own interfaces.
//!
//! ```text
//!   master key ─▶ @u ◀─ evm-key (encrypted with it)   certificates ─▶ .evm or _evm ─▶ securityfs evm: bits ─▶ EVM at work
//!   certificates ─▶ .ima or _ima                      policy ─▶ securityfs ima/policy ─▶ IMA at work
//! ```
//!
//! *Into the image*: the files that dracut's modules `integrity` and `masterkey` read, each where the system has it, and
//! the modules for keys and a TPM. *At boot*: in a normal one when the root is there and before its first program runs; in
//! a capture kernel before a target is opened, so that what is written to it bears EVM's marks. The kernel command line
//! can name others: `evmkey=`, `evmx509=`, `masterkey=`, `masterkeytype=`. What is not in the image is read from the
//! root, once that is there; of two that differ, that of the image is used, and it is told.
//!
//! May surprise: what the kernel refuses stops nothing else and is told with what is missing. A policy that appraises is
//! at work from then on for everybody; a capture image is in memory without any signatures, so a policy for it has to pass
//! over tmpfs and ramfs (`dont_appraise fsmagic=0x01021994`, `0x858458f6`). Files of a cpio have no `security.ima`, so a
//! kernel that takes only signed policies is shown the root's own file. EVM's key is kept from kernels before 6.6 that have
//! the BPF LSM at work and no SELinux, as Debian's do: they crash with it.

mod boot;

use crate::host::{Contribution, FileNeed, Host, ModuleNeed};
use crate::keys::check_certificate;
use crate::machine::Machine;
use crate::{Hook, Moment, Next, Stage};
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The longest payload that the kernel takes.
const LONGEST_KEY: usize = 32_767;

/// What an IMA or EVM at work needs; each path is the same on the host and in the image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Integrity {
    /// The key that other keys are encrypted with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<MasterKey>,
    /// The key of EVM's HMAC, as `keyctl pipe` gives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evm_key: Option<PathBuf>,
    /// Certificates by which EVM trusts signatures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evm_certificates: Vec<PathBuf>,
    /// Bits that EVM is told besides those of what was loaded.
    #[serde(skip_serializing_if = "is_zero")]
    pub evm_bits: u32,
    /// Certificates by which IMA trusts signatures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ima_certificates: Vec<PathBuf>,
    /// IMA's policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PathBuf>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(bits: &u32) -> bool {
    *bits == 0
}

/// The key that other keys are encrypted with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MasterKey {
    /// What it is.
    pub kind: MasterKind,
    /// Where it is.
    pub path: PathBuf,
    /// The PCR that is extended once it is loaded, so that the TPM unseals it only once in a boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcrlock: Option<u32>,
}

/// What a master key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MasterKind {
    /// Bytes in a file.
    User,
    /// Sealed by a TPM.
    Trusted,
}

impl MasterKind {
    /// What the kernel calls the type.
    pub fn name(self) -> &'static str {
        match self {
            MasterKind::User => "user",
            MasterKind::Trusted => "trusted",
        }
    }

    /// What the key is called.
    pub fn description(self) -> &'static str {
        match self {
            MasterKind::User => "kmk-user",
            MasterKind::Trusted => "kmk-trusted",
        }
    }
}

impl fmt::Display for MasterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for MasterKind {
    type Err = String;

    fn from_str(word: &str) -> Result<MasterKind, String> {
        match word {
            "user" => Ok(MasterKind::User),
            "trusted" => Ok(MasterKind::Trusted),
            _ => Err(format!("`{word}` is no type of a master key; write user or trusted")),
        }
    }
}

impl Integrity {
    /// The files, each with what it is and whether nobody but root may read it.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &'static str, bool)> {
        let master = self.master.iter().map(|key| (key.path.as_path(), "the master key", true));
        let evm = self.evm_key.iter().map(|path| (path.as_path(), "EVM's key", true));
        let theirs = self.evm_certificates.iter().map(|path| (path.as_path(), "a certificate for EVM", false));
        let ours = self.ima_certificates.iter().map(|path| (path.as_path(), "a certificate for IMA", false));
        let policy = self.policy.iter().map(|path| (path.as_path(), "IMA's policy", false));
        master.chain(evm).chain(theirs).chain(ours).chain(policy)
    }

    /// Whether what is in the files can be what the kernel takes.
    fn check(&self, path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
        if self.evm_certificates.iter().chain(&self.ima_certificates).any(|certificate| certificate == path) {
            return check_certificate(bytes);
        }
        if bytes.is_empty() || bytes.len() > LONGEST_KEY {
            bail!("it has {} bytes, and the kernel takes 1 to {LONGEST_KEY}", bytes.len());
        }
        if self.evm_key.as_deref() == Some(path) {
            let kind = self.master.as_ref().map(|master| master.kind);
            check_encrypted(bytes, kind).context("it is no encrypted key as `keyctl pipe` gives it")?;
        }
        Ok(())
    }
}

/// `[FORMAT] TYPE:MASTER LENGTH HEX`, encrypted with the master key that comes along.
fn check_encrypted(bytes: &[u8], master: Option<MasterKind>) -> anyhow::Result<()> {
    let text = std::str::from_utf8(bytes).context("it is not text")?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let Some(name) = words.iter().take(2).find(|word| word.contains(':')) else {
        bail!("it names no master key");
    };
    match master {
        Some(kind) if *name == format!("{kind}:{}", kind.description()) => Ok(()),
        Some(kind) => bail!("it is encrypted with {name}, and the master key is {kind}:{}", kind.description()),
        None => bail!("it is encrypted with {name}, and there is no such master key in /etc/keys"),
    }
}

impl Hook for Integrity {
    fn name(&self) -> &'static str {
        "integrity"
    }

    fn gather(&self, host: &dyn Host) -> anyhow::Result<Contribution> {
        let mut files: Vec<FileNeed> = Vec::new();
        for (path, what, secret) in self.files() {
            if let Some(same) = files.iter_mut().find(|file| file.path == path) {
                same.secret |= secret;
                continue;
            }
            let bytes = host.read(path).with_context(|| format!("cannot take {what} along"))?;
            self.check(path, &bytes).with_context(|| format!("cannot use {}, {what}", path.display()))?;
            files.push(FileNeed { path: path.to_owned(), bytes, secret, reason: what.to_owned() });
        }
        let mut requests = Vec::new();
        if self.evm_key.is_some() {
            // EVM's HMAC is one of sha1 unless the kernel was built otherwise.
            requests.extend([
                "encrypted_keys",
                "crypto-sha256",
                "crypto-sha1",
                "crypto-hmac",
                "crypto-cbc",
                "crypto-aes",
            ]);
        }
        if self.master.as_ref().is_some_and(|master| master.kind == MasterKind::Trusted) {
            requests.extend(["trusted", "tpm_tis", "tpm_crb"]);
        }
        if !self.evm_certificates.is_empty() || !self.ima_certificates.is_empty() {
            requests.extend(["asymmetric_keys", "public_key", "x509_key_parser"]);
        }
        let modules = requests.into_iter().map(|request| ModuleNeed {
            request: request.to_owned(),
            reason: "keys of IMA and EVM".to_owned(),
            required: false,
            by_device: false,
        });
        Ok(Contribution { modules: modules.collect(), files, ..Contribution::default() })
    }

    fn stages(&self) -> &'static [Stage] {
        &[Stage::Switch, Stage::Target]
    }

    fn act(&self, moment: &Moment, machine: &mut dyn Machine) -> anyhow::Result<Next> {
        boot::activate(self, moment, machine)?;
        Ok(Next::GoOn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeHost;

    fn der() -> Vec<u8> {
        [&[0x30, 0x82, 0x01, 0x00][..], &[0; 256]].concat()
    }

    fn everything() -> Integrity {
        Integrity {
            master: Some(MasterKey { kind: MasterKind::User, path: "/etc/keys/kmk-user.blob".into(), pcrlock: None }),
            evm_key: Some("/etc/keys/evm-trusted.blob".into()),
            evm_certificates: vec!["/etc/keys/x509_evm.der".into()],
            evm_bits: 0,
            ima_certificates: vec!["/etc/keys/ima/a.der".into()],
            policy: Some("/etc/sysconfig/ima-policy".into()),
        }
    }

    fn host() -> FakeHost {
        let mut host = FakeHost::default();
        for (path, bytes) in [
            ("/etc/keys/kmk-user.blob", b"secret".to_vec()),
            ("/etc/keys/evm-trusted.blob", b"default user:kmk-user 32 00ff\n".to_vec()),
            ("/etc/keys/x509_evm.der", der()),
            ("/etc/keys/ima/a.der", der()),
            ("/etc/sysconfig/ima-policy", b"measure func=BPRM_CHECK\n".to_vec()),
        ] {
            host.files.insert(path.into(), bytes);
        }
        host
    }

    #[test]
    fn every_file_comes_along_and_keys_are_for_root_alone() {
        let files = everything().gather(&host()).unwrap().files;
        let seen: Vec<_> = files.iter().map(|file| (file.path.to_str().unwrap(), file.secret)).collect();
        assert_eq!(
            seen,
            [
                ("/etc/keys/kmk-user.blob", true),
                ("/etc/keys/evm-trusted.blob", true),
                ("/etc/keys/x509_evm.der", false),
                ("/etc/keys/ima/a.der", false),
                ("/etc/sysconfig/ima-policy", false)
            ]
        );
    }

    #[test]
    fn what_the_kernel_would_refuse_is_refused_when_the_image_is_built() {
        let refusal = |path: &str, bytes: &[u8]| {
            let mut host = host();
            host.files.insert(path.into(), bytes.to_vec());
            format!("{:#}", everything().gather(&host).unwrap_err())
        };
        for (path, bytes, expected) in [
            ("/etc/keys/ima/a.der", &b"-----BEGIN"[..], "-outform der"),
            ("/etc/keys/x509_evm.der", b"", "no X.509"),
            ("/etc/keys/kmk-user.blob", b"", "it has 0 bytes"),
            ("/etc/keys/evm-trusted.blob", b"garbage", "names no master key"),
            (
                "/etc/keys/evm-trusted.blob",
                b"default trusted:kmk-trusted 32 00",
                "encrypted with trusted:kmk-trusted, and the master key is user:kmk-user",
            ),
        ] {
            let said = refusal(path, bytes);
            assert!(said.contains(expected) && said.contains(path), "{said}");
        }
        let alone = Integrity { master: None, ..everything() };
        assert!(format!("{:#}", alone.gather(&host()).unwrap_err()).contains("no such master key"));
    }

    #[test]
    fn a_tpm_is_only_for_what_it_has_sealed() {
        let mut integrity = everything();
        let asks = |integrity: &Integrity, host: &FakeHost| {
            let modules = integrity.gather(host).unwrap().modules;
            modules.iter().any(|module| module.request == "tpm_crb")
        };
        assert!(!asks(&integrity, &host()));
        integrity.master =
            Some(MasterKey { kind: MasterKind::Trusted, path: "/etc/keys/kmk-trusted.blob".into(), pcrlock: Some(11) });
        let mut host = host();
        host.files.insert("/etc/keys/kmk-trusted.blob".into(), b"00ff".to_vec());
        host.files.insert("/etc/keys/evm-trusted.blob".into(), b"trusted:kmk-trusted 32 00ff".to_vec());
        assert!(asks(&integrity, &host));
    }

    #[test]
    fn what_is_written_is_read_back() {
        for integrity in [everything(), Integrity::default()] {
            let text = toml::to_string(&integrity).unwrap();
            assert_eq!(toml::from_str::<Integrity>(&text).unwrap(), integrity);
        }
    }
}
