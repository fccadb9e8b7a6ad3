//! Keys of our own: a certificate and modules signed by it, and a key that is encrypted as the kernel encrypts keys.
//!
//! ```text
//!   encrypted key:  FORMAT TYPE:MASTER LENGTH hex(IV │ 0 │ AES-256-CBC of the key │ HMAC-SHA256 of all before, NULs between)
//! ```
//!
//! Facts: `scripts/sign-file.c` and `security/keys/encrypted-keys/encrypted.c` of the kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::{provision, tools};

const MARKER: &[u8] = b"~Module signature appended~\n";
/// A trailer without its length and the marker: nothing but the type, PKCS#7.
const TRAILER: [u8; 8] = [0, 0, 2, 0, 0, 0, 0, 0];

/// Somebody whom no kernel knows, unless one is made to.
#[derive(Debug)]
pub struct Signer {
    folder: PathBuf,
}

impl Signer {
    /// Makes a key and a certificate in `folder`.
    pub fn new(folder: &Path, name: &str) -> Result<Signer> {
        provision::openssl()?;
        fs::create_dir_all(folder)?;
        let mut command = tools::command("openssl");
        command.current_dir(folder).args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650"]);
        command.args(["-subj", &format!("/CN={name}"), "-keyout", "key.pem", "-out", "certificate.pem"]);
        tools::run(&mut command)?;
        Ok(Signer { folder: folder.to_owned() })
    }

    /// Makes a key and a certificate that has that many bytes as DER: a comment makes up for what is missing.
    pub fn of_length(folder: &Path, name: &str, length: usize) -> Result<Signer> {
        let signer = Signer::new(folder, name)?;
        let mut comment = 1;
        // Lengths have lengths, too, so that the first tries may be a little off.
        for _ in 0..5 {
            let mut command = tools::command("openssl");
            command.current_dir(folder).args(["req", "-x509", "-key", "key.pem", "-days", "3650", "-set_serial", "1"]);
            command.args(["-subj", &format!("/CN={name}"), "-out", "certificate.pem"]);
            tools::run(command.args(["-addext", &format!("nsComment={}", "-".repeat(comment))]))?;
            let now = signer.certificate()?.len();
            if now == length {
                return Ok(signer);
            }
            let more = (comment + length).checked_sub(now).filter(|comment| *comment > 0);
            comment = more.with_context(|| format!("no certificate has only {length} bytes"))?;
        }
        bail!("no certificate came to {length} bytes")
    }

    /// Makes a key, and a certificate for which we vouch.
    pub fn vouch(&self, folder: &Path, name: &str) -> Result<Signer> {
        fs::create_dir_all(folder)?;
        let mut command = tools::command("openssl");
        command.current_dir(folder).args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650"]);
        command.args(["-subj", &format!("/CN={name}"), "-keyout", "key.pem", "-out", "certificate.pem"]);
        command.arg("-CA").arg(self.folder.join("certificate.pem"));
        tools::run(command.arg("-CAkey").arg(self.folder.join("key.pem")))?;
        Ok(Signer { folder: folder.to_owned() })
    }

    /// The certificate, as DER.
    pub fn certificate(&self) -> Result<Vec<u8>> {
        let mut command = tools::command("openssl");
        command.current_dir(&self.folder).args(["x509", "-in", "certificate.pem", "-outform", "der"]);
        Ok(tools::run(&mut command)?.stdout)
    }

    /// A kernel with our signature, as EFI has it, in the place of the one that it has.
    pub fn sign_kernel(&self, vmlinuz: &Path) -> Result<Vec<u8>> {
        provision::sbsign()?;
        let (bare, signed) = (self.folder.join("vmlinuz"), self.folder.join("vmlinuz.signed"));
        tools::copy(vmlinuz, &bare)?;
        tools::run(tools::command("sbattach").arg("--remove").arg(&bare))?;
        let mut command = tools::command("sbsign");
        command.current_dir(&self.folder).args(["--key", "key.pem", "--cert", "certificate.pem", "--output"]);
        tools::run(command.arg(&signed).arg(&bare))?;
        fs::read(&signed).with_context(|| format!("unable to read {}", signed.display()))
    }

    /// A module with our signature, in the place of the one that it has, if it has one.
    pub fn sign(&self, module: &[u8]) -> Result<Vec<u8>> {
        let bare = if module.ends_with(MARKER) { unsigned(module)? } else { module.to_vec() };
        fs::write(self.folder.join("module"), &bare)?;
        let mut command = tools::command("openssl");
        command.current_dir(&self.folder).args(["cms", "-sign", "-signer", "certificate.pem", "-inkey", "key.pem"]);
        command.args(["-binary", "-in", "module", "-outform", "DER", "-nocerts", "-noattr", "-nosmimecap"]);
        let pkcs7 = tools::run(command.args(["-md", "sha256"]))?.stdout;
        let length = u32::try_from(pkcs7.len())?.to_be_bytes();
        Ok([&bare[..], &pkcs7, &TRAILER, &length, MARKER].concat())
    }
}

/// A module without its signature.
pub fn unsigned(module: &[u8]) -> Result<Vec<u8>> {
    let signed = module.strip_suffix(MARKER).context("the module is not signed")?;
    let (rest, length) = signed.split_last_chunk::<4>().context("the module is cut short")?;
    let length = usize::try_from(u32::from_be_bytes(*length))? + TRAILER.len();
    Ok(rest[..rest.len().checked_sub(length).context("the signature is longer than the module")?].to_vec())
}

/// A key of 64 bytes, encrypted with a master key of type `user`, as `keyctl pipe` would give it.
pub fn encrypted_key(folder: &Path, master: &[u8], name: &str) -> Result<String> {
    let (key, iv, length) = ([0x5a; 64], [7; 16], "64");
    let derived = |word: &str| {
        let mut buffer = [word.as_bytes(), &[0], master].concat();
        // The longer of the two words decides for both.
        buffer.resize(("AUTH_KEY".len() + 1 + master.len()).max(32), 0);
        Sha256::digest(&buffer).to_vec()
    };
    let encrypted = aes(folder, &derived("ENC_KEY"), &iv, &key)?;
    ensure!(encrypted.len() == key.len(), "the key came to {} bytes", encrypted.len());
    let name = format!("user:{name}");
    let mut parts = Vec::new();
    for part in [&b"default"[..], name.as_bytes(), length.as_bytes(), &iv] {
        parts.extend_from_slice(part);
        parts.push(0);
    }
    parts.extend_from_slice(&encrypted);
    let mac = hmac(&derived("AUTH_KEY"), &parts);
    let hex: String = [&iv[..], &[0], &encrypted, &mac].concat().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("default {name} {length} {hex}"))
}

fn aes(folder: &Path, key: &[u8], iv: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
    provision::openssl()?;
    fs::create_dir_all(folder)?;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    fs::write(folder.join("plain"), plain)?;
    let mut command: Command = tools::command("openssl");
    command.current_dir(folder).args(["enc", "-aes-256-cbc", "-nopad", "-in", "plain"]);
    Ok(tools::run(command.args(["-K", &hex(key), "-iv", &hex(iv)]))?.stdout)
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        block.iter_mut().zip(key).for_each(|(pad, key)| *pad ^= key);
        block
    };
    let inner = Sha256::digest([&pad(0x36)[..], message].concat());
    Sha256::digest([&pad(0x5c)[..], &inner[..]].concat()).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_put_on_and_taken_off_again() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let signer = Signer::new(folder.path(), "test")?;
        let bare = b"\x7fELF and so on".to_vec();
        let signed = signer.sign(&[&bare[..], &TRAILER, &[0; 4], MARKER].concat())?;
        assert!(signed.len() > bare.len() + 300);
        assert_eq!(unsigned(&signed)?, bare);
        assert_eq!(unsigned(&signer.sign(&bare)?)?, bare);
        Ok(())
    }

    /// RFC 4231, case 2.
    #[test]
    fn the_hmac_is_the_one_of_the_standard() {
        let mac = hmac(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(mac[..4], [0x5b, 0xdc, 0xc1, 0x46]);
    }
}
