//! Certificates as the kernel knows them, and where they lie about: in its image, in the firmware's variables.
//!
//! May surprise: in a kernel's image certificates stand one behind the other without anything around them
//! (`system_certificate_list`). They are found by how one begins, and taken only if all of one can be read.

use super::signature::hex;
use cms::cert::x509;
use der::{Decode, Encode};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::PathBuf;

/// How a certificate of version 3 begins: a sequence, a sequence in it, the version. The lengths, two bytes each, lie
/// between.
const BEGIN: [u8; 2] = [0x30, 0x82];
const VERSION: [u8; 5] = [0xa0, 0x03, 0x02, 0x01, 0x02];

/// `EFI_CERT_X509_GUID`, a5c059a1-94e4-4aa7-87b5-ab155c2bf072.
const X509_LIST: [u8; 16] =
    [0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72];

/// More certificates than that are in no kernel and no firmware.
const MOST: usize = 4096;

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is.
    pub subject: String,
    /// Who gave it, as DER.
    pub issuer: Vec<u8>,
    /// Whose it is, as DER.
    pub subject_der: Vec<u8>,
    /// Which one it is of those that this one gave.
    pub serial: Vec<u8>,
    /// The identifier of its key.
    pub skid: Option<Vec<u8>>,
    /// The sha256 of what its issuer signed, as the kernel's blacklist has it.
    pub tbs: String,
}

impl Certificate {
    /// Reads one.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(bytes: &[u8]) -> anyhow::Result<Certificate> {
        let certificate = x509::Certificate::from_der(bytes)?;
        let tbs = &certificate.tbs_certificate;
        let skid = tbs.get::<x509::ext::pkix::SubjectKeyIdentifier>()?.map(|(_, skid)| skid.0.as_bytes().to_vec());
        Ok(Certificate {
            subject: tbs.subject.to_string(),
            issuer: tbs.issuer.to_der()?,
            subject_der: tbs.subject.to_der()?,
            serial: tbs.serial_number.as_bytes().to_vec(),
            skid,
            tbs: hex(&Sha256::digest(tbs.to_der()?)),
        })
    }

    /// What the kernel shows of it behind the subject: the key's identifier, else the number.
    pub fn shown(&self) -> String {
        hex(self.skid.as_deref().unwrap_or(&self.serial))
    }
}

/// Every certificate that lies in there.
pub fn in_bytes(bytes: &[u8]) -> Vec<Certificate> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(next) = find(bytes.get(at..).unwrap_or_default()) {
        at += next;
        let length = match bytes.get(at + 2..at + 4) {
            Some(&[high, low]) => 4 + (usize::from(high) << 8 | usize::from(low)),
            _ => break,
        };
        match bytes.get(at..at + length).map(Certificate::parse) {
            Some(Ok(certificate)) => {
                found.push(certificate);
                at += length;
            }
            _ => at += 1,
        }
        if found.len() == MOST {
            break;
        }
    }
    found
}

/// The certificates that are files of these directories, each as DER.
pub fn in_directories(directories: &[PathBuf]) -> Vec<Certificate> {
    let files = directories.iter().filter_map(|directory| fs::read_dir(directory).ok()).flatten().flatten();
    let certificates = files.filter_map(|file| Certificate::parse(&fs::read(file.path()).ok()?).ok());
    certificates.take(MOST).collect()
}

/// Where the next one may begin.
fn find(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    // The version is the rarest part by far.
    while let Some(at) = bytes.get(from..)?.windows(VERSION.len()).position(|window| window == VERSION) {
        let at = from + at;
        if let Some(start) = at.checked_sub(8)
            && bytes.get(start..start + 2) == Some(&BEGIN)
            && bytes.get(start + 4..start + 6) == Some(&BEGIN)
        {
            return Some(start);
        }
        from = at + 1;
    }
    None
}

/// The certificates in a variable of the firmware (`EFI_SIGNATURE_LIST`s): type, length of all, of the header, of each.
pub fn in_signature_lists(mut bytes: &[u8]) -> Vec<Certificate> {
    const HEAD: usize = 28;
    const OWNER: usize = 16;
    let mut found = Vec::new();
    while let Some((head, _)) = bytes.split_at_checked(HEAD) {
        let number = |at: usize| {
            let field = head.get(at..at + 4).and_then(|field| field.try_into().ok()).map(u32::from_le_bytes);
            field.and_then(|field| usize::try_from(field).ok()).unwrap_or(usize::MAX)
        };
        let (length, header, each) = (number(16), number(20), number(24));
        let Some(list) = bytes.get(..length).filter(|list| list.len() >= HEAD) else { break };
        if head.starts_with(&X509_LIST) && each > OWNER {
            let entries = list.get(HEAD..).and_then(|rest| rest.get(header..)).unwrap_or_default();
            let entries = entries.chunks_exact(each).filter_map(|entry| entry.get(OWNER..));
            found.extend(entries.filter_map(|entry| Certificate::parse(entry).ok()).take(MOST));
        }
        bytes = bytes.get(length..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A certificate that signs itself, made with openssl for these tests.
    pub(crate) const OURS: &[u8] = include_bytes!("../../tests/data/module-signer.der");

    /// A variable of the firmware that has our certificate, without its attributes.
    pub(crate) fn variable() -> Vec<u8> {
        list(X509_LIST, OURS)
    }

    fn list(kind: [u8; 16], certificate: &[u8]) -> Vec<u8> {
        let number = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
        let each = certificate.len() + 16;
        [&kind[..], &number(28 + each), &number(0), &number(each), &[7; 16], certificate].concat()
    }

    #[test]
    fn a_certificate_shows_what_the_kernel_shows() {
        let certificate = Certificate::parse(OURS).unwrap();
        assert_eq!(certificate.subject, "CN=kdump-rs test signer");
        assert_eq!(certificate.issuer, certificate.subject_der);
        assert_eq!(certificate.shown().len(), 40);
        assert_eq!(certificate.tbs.len(), 64);
    }

    #[test]
    fn certificates_are_found_wherever_they_lie() {
        let bytes = [&[0x30, 0x82][..], OURS, b"between", OURS, &BEGIN, &[1, 0], &BEGIN, &[1, 0], &VERSION].concat();
        assert_eq!(in_bytes(&bytes).len(), 2);
        assert!(in_bytes(&OURS[..OURS.len() - 1]).is_empty());
    }

    #[test]
    fn a_variable_of_the_firmware_has_lists_of_which_some_hold_certificates() {
        let variable = [list([1; 16], b"a hash"), list(X509_LIST, OURS), list(X509_LIST, b"none")].concat();
        assert_eq!(in_signature_lists(&variable).len(), 1);
        assert_eq!(in_signature_lists(&variable[..variable.len() - 30]).len(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_in_peace(bytes in proptest::collection::vec(any::<u8>(), 0..400), at in 0_usize..1000, byte: u8) {
            in_bytes(&bytes);
            in_signature_lists(&bytes);
            let mut variable = list(X509_LIST, OURS);
            if let Some(place) = variable.get_mut(at) {
                *place = byte;
            }
            in_signature_lists(&variable);
            in_bytes(&variable);
        }
    }
}
