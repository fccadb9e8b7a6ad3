//! Who has signed a module.
//!
//! ```text
//!   ELF │ PKCS#7, DER │ algo, hash, type: 1 each │ lengths of signer and key: 1 each │ 3 │ length, BE: 4 │ marker: 28
//! ```
//!
//! Facts: `include/linux/module_signature.h`, `scripts/sign-file.c`. Only type 2, PKCS#7, is of use, and then all but type
//! and length are 0 (`mod_check_sig`). The signature is inside of the file's compression.

use cms::content_info::ContentInfo;
use cms::signed_data::{SignedData, SignerIdentifier};
use der::{Decode, Encode};
use serde::{Deserialize, Serialize};
use std::fmt;

const MARKER: &[u8] = b"~Module signature appended~\n";
const TRAILER: usize = 12;
const PKCS7: u8 = 2;

/// What a module says about who signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signature {
    /// Nobody.
    None,
    /// These, each by itself.
    By(Vec<Signer>),
    /// Somebody, in a way that the kernel does not read.
    Unsupported,
    /// The signature cannot be what it says it is.
    Damaged(&'static str),
    /// The kernel may be able to read it; this program is not.
    Unread(String),
}

/// How a signature names a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signer {
    /// By the issuer of its certificate, as DER, and the number that this one gave it.
    Issued {
        /// The issuer's name.
        issuer: Vec<u8>,
        /// The number's bytes.
        serial: Vec<u8>,
        /// The issuer's name for people.
        name: String,
    },
    /// By the identifier that is in its certificate.
    Identified(Vec<u8>),
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Signer::Issued { serial, name, .. } => write!(f, "number {} of {name}", hex(serial)),
            Signer::Identified(skid) => write!(f, "{}", hex(skid)),
        }
    }
}

/// In hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Signature {
    /// Looks at the end of a module that is not compressed.
    pub fn of(module: &[u8]) -> Signature {
        let Some(signed) = module.strip_suffix(MARKER) else { return Signature::None };
        let Some((before, trailer)) = signed.split_last_chunk::<TRAILER>() else {
            return Signature::Damaged("it is cut short");
        };
        let [algorithm, hash, kind, signer, key, pad @ .., a, b, c, d] = *trailer;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if kind != PKCS7 {
            return Signature::Unsupported;
        }
        if [algorithm, hash, signer, key] != [0; 4] || pad != [0; 3] {
            return Signature::Damaged("its trailer holds what a trailer of PKCS#7 does not");
        }
        let start = before.len().checked_sub(length).filter(|start| *start > 0);
        match start.and_then(|start| before.get(start..)) {
            Some(pkcs7) => signers(pkcs7).map_or_else(|error| Signature::Unread(error.to_string()), Signature::By),
            None => Signature::Damaged("it is said to be longer than the file"),
        }
    }
}

fn signers(pkcs7: &[u8]) -> der::Result<Vec<Signer>> {
    let content: SignedData = ContentInfo::from_der(pkcs7)?.content.decode_as()?;
    let signer = |sid: &SignerIdentifier| {
        Ok(match sid {
            SignerIdentifier::IssuerAndSerialNumber(both) => Signer::Issued {
                issuer: both.issuer.to_der()?,
                serial: both.serial_number.as_bytes().to_vec(),
                name: both.issuer.to_string(),
            },
            SignerIdentifier::SubjectKeyIdentifier(skid) => Signer::Identified(skid.0.as_bytes().to_vec()),
        })
    };
    content.signer_infos.0.iter().map(|info| signer(&info.sid)).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use cms::cert::IssuerAndSerialNumber;
    use proptest::prelude::*;

    /// The module with that behind it, as the kernel's sign-file leaves it.
    pub(crate) fn sign(module: &[u8], pkcs7: &[u8]) -> Vec<u8> {
        let length = u32::try_from(pkcs7.len()).unwrap().to_be_bytes();
        [module, pkcs7, &[0, 0, PKCS7, 0, 0, 0, 0, 0], &length, MARKER].concat()
    }

    fn signed(pkcs7: &[u8]) -> Vec<u8> {
        sign(b"\x7fELF and so on", pkcs7)
    }

    /// What Debian's build has signed, as if the key of that certificate had: nobody here verifies it.
    pub(crate) fn by(certificate: &[u8]) -> Vec<u8> {
        let certificate = cms::cert::x509::Certificate::from_der(certificate).unwrap().tbs_certificate;
        let mut content = ContentInfo::from_der(DEBIAN).unwrap();
        let mut data: SignedData = content.content.decode_as().unwrap();
        let mut info = data.signer_infos.0.get(0).unwrap().clone();
        info.sid = SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
            issuer: certificate.issuer,
            serial_number: certificate.serial_number,
        });
        data.signer_infos = vec![info].try_into().unwrap();
        content.content = der::Any::encode_from(&data).unwrap();
        content.to_der().unwrap()
    }

    /// The end of Debian's dummy.ko for 6.1, which its build has signed.
    pub(crate) const DEBIAN: &[u8] = include_bytes!("../../tests/data/debian-dummy.p7s");

    #[test]
    fn a_module_of_debian_names_its_issuer_and_number() {
        let Signature::By(signers) = Signature::of(&signed(DEBIAN)) else { panic!("not read") };
        let [Signer::Issued { serial, name, .. }] = &signers[..] else { panic!("{signers:?}") };
        assert_eq!(name, "CN=Build time autogenerated kernel key");
        assert_eq!(hex(serial), "08a7a2557f1527094e4ed3e132b89a63a196c1d3");
    }

    #[test]
    fn what_is_at_the_end_decides() {
        let module = signed(DEBIAN);
        let at = |from_end: usize, byte: u8| {
            let mut module = module.clone();
            let index = module.len() - from_end;
            module[index] = byte;
            Signature::of(&module)
        };
        let trailer = MARKER.len() + TRAILER;
        assert_eq!(Signature::of(b"\x7fELF"), Signature::None);
        assert_eq!(at(1, b'x'), Signature::None);
        assert_eq!(at(trailer - 2, 1), Signature::Unsupported);
        assert!(matches!(at(trailer, 1), Signature::Damaged(_)));
        assert!(matches!(at(MARKER.len() + 4, 0xff), Signature::Damaged(_)));
        assert!(matches!(at(MARKER.len() + 1, 1), Signature::Unread(_)));
        assert!(matches!(Signature::of(MARKER), Signature::Damaged(_)));
    }

    proptest! {
        #[test]
        fn any_signature_is_taken_in_peace(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0_usize..700, byte: u8) {
            let _ = Signature::of(&signed(&bytes));
            let mut pkcs7 = DEBIAN.to_vec();
            if let Some(place) = pkcs7.get_mut(at) {
                *place = byte;
            }
            let _ = Signature::of(&signed(&pkcs7));
        }
    }
}
