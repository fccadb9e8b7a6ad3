//! The keys by which a kernel trusts modules.
//!
//! In: of the kernel that is running, its rings, whose members are known by name and key identifier; the certificates
//! that they were made of, from its image, where that could be looked into, and from the firmware. Out: [`Keys`]. Of a
//! kernel that is not running, what is in its image is taken for its built-in keys.

use super::certificate::{Certificate, in_signature_lists};
use super::signature::Signer;
use crate::keys::{KeyId, Keys as Kernel, Listed};
use std::collections::BTreeMap;

/// Where a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// `.builtin_trusted_keys`.
    Builtin,
    /// `.secondary_trusted_keys`.
    Secondary,
    /// `.machine`: keys that the owner of the machine has enrolled as trusted.
    Machine,
    /// `.platform`: keys that the firmware has; only some distributions' kernels trust modules by them.
    Platform,
}

const RINGS: [(Ring, &str); 4] = [
    (Ring::Builtin, ".builtin_trusted_keys"),
    (Ring::Secondary, ".secondary_trusted_keys"),
    (Ring::Machine, ".machine"),
    (Ring::Platform, ".platform"),
];
const BLACKLIST: &str = ".blacklist";
/// Where the sums of certificates that are on the blacklist are kept among the rings; `bin:`, the sum of a file, is a matter
/// of IMA, and no module is refused for it.
const SUMS: &str = "tbs:";

/// A key as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Whose it is.
    pub name: String,
    /// Its identifier.
    pub skid: Option<Vec<u8>>,
    /// The issuer of its certificate, as DER, and the number that this one gave it.
    pub issued: Option<(Vec<u8>, Vec<u8>)>,
}

/// The keys by which a kernel trusts modules, and those by which it does not any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Those that it has.
    pub trusted: Vec<(Ring, Key)>,
    /// Those that are on its blacklist.
    pub revoked: Vec<Key>,
    /// The sums of the certificates that it does not take any more ([`Certificate::tbs`]).
    pub banned: Vec<String>,
    /// Why there may be others, if there may.
    pub unread: Option<String>,
}

/// What is known of a signer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Its key is in that ring.
    In(Ring),
    /// Its key is on the blacklist.
    Revoked(String),
    /// The kernel does not have its key.
    No,
    /// The kernel may have its key, and why that cannot be told.
    CannotTell(String),
}

impl Key {
    fn is(&self, signer: &Signer) -> bool {
        match signer {
            Signer::Issued { issuer, serial, .. } => {
                self.issued.as_ref().is_some_and(|(mine, number)| mine == issuer && number == serial)
            }
            Signer::Identified(skid) => self.skid.as_ref() == Some(skid),
        }
    }
}

impl From<&Certificate> for Key {
    fn from(certificate: &Certificate) -> Key {
        Key {
            name: certificate.subject.clone(),
            skid: certificate.skid.clone(),
            issued: Some((certificate.issuer.clone(), certificate.serial.clone())),
        }
    }
}

impl Keys {
    /// Those of the kernel that is running, where its rings may be read. The more certificates, the more is known of each
    /// key; one whose key is in no ring does not count.
    pub fn running(kernel: &dyn Kernel, certificates: &[Certificate], firmware: &Firmware) -> Option<Keys> {
        Some(Keys::in_rings(&rings(kernel)?, certificates.iter().chain(firmware.all())))
    }

    /// What the rings hold; a certificate tells more of a key.
    fn in_rings<'a>(rings: &Rings, certificates: impl Iterator<Item = &'a Certificate>) -> Keys {
        let certificates: BTreeMap<String, &Certificate> =
            certificates.map(|certificate| (certificate.shown(), certificate)).collect();
        let key = |description: &String| {
            let (name, shown) = description.rsplit_once(": ").unwrap_or((description, ""));
            let known = certificates.get(shown).map(|certificate| Key::from(*certificate));
            known.unwrap_or_else(|| Key { name: name.to_owned(), skid: bytes(shown), issued: None })
        };
        let trusted = RINGS.iter().flat_map(|(ring, name)| {
            rings.get(*name).into_iter().flatten().map(|description| (*ring, key(description)))
        });
        Keys {
            trusted: trusted.collect(),
            revoked: rings.get(BLACKLIST).into_iter().flatten().map(key).collect(),
            banned: rings.get(SUMS).cloned().unwrap_or_default(),
            unread: None,
        }
    }

    /// Those of a kernel that is not running.
    pub fn other(built_in: &[Certificate], firmware: &Firmware) -> Keys {
        let of = |ring: Ring, certificates: &[Certificate]| {
            certificates.iter().map(move |certificate| (ring, Key::from(certificate))).collect::<Vec<_>>()
        };
        let enrolled = if firmware.enrolled_are_trusted { Ring::Machine } else { Ring::Platform };
        let parts = [of(Ring::Builtin, built_in), of(enrolled, &firmware.enrolled), of(Ring::Platform, &firmware.db)];
        let revoked = firmware.revoked.iter().map(Key::from).collect();
        Keys { trusted: parts.concat(), revoked, ..Keys::default() }
    }

    /// A certificate that the image brings along, if the kernel takes it: one of its keys has given it, and it is not on its
    /// blacklist. `known` are the certificates of its keys, as far as they are to be had, and those brought before.
    pub fn add(&mut self, certificate: &Certificate, known: &[Certificate]) {
        let vouches = |issuer: &&Certificate| issuer.subject_der == certificate.issuer && self.has(issuer);
        if !self.banned.contains(&certificate.tbs) && known.iter().any(|issuer| vouches(&issuer)) {
            self.trusted.push((Ring::Secondary, Key::from(certificate)));
        }
    }

    /// Whether the key of a certificate may vouch for others: the firmware's may not.
    fn has(&self, certificate: &Certificate) -> bool {
        let issued = Key::from(certificate).issued;
        self.trusted.iter().any(|(ring, key)| *ring != Ring::Platform && key.issued == issued)
    }

    /// What is known of the signers of a module: one is enough.
    pub(super) fn know(&self, signers: &[Signer]) -> Known {
        let find = |key: &Key| signers.iter().any(|signer| key.is(signer));
        if let Some(key) = self.revoked.iter().find(|key| find(key)) {
            return Known::Revoked(key.name.clone());
        }
        if let Some((ring, _)) = self.trusted.iter().find(|(_, key)| find(key)) {
            return Known::In(*ring);
        }
        let by_number = signers.iter().any(|signer| matches!(signer, Signer::Issued { .. }));
        let dark = self.trusted.iter().find(|(_, key)| key.issued.is_none()).filter(|_| by_number);
        match (dark, &self.unread) {
            (_, Some(why)) => Known::CannotTell(why.clone()),
            (Some((_, key)), None) => {
                Known::CannotTell(format!("the certificate of its key `{}` is nowhere", key.name))
            }
            (None, None) => Known::No,
        }
    }
}

/// The descriptions of the public keys in each ring.
type Rings = BTreeMap<String, Vec<String>>;

/// What the rings hold, where they may be read.
fn rings(kernel: &dyn Kernel) -> Option<Rings> {
    let all: BTreeMap<KeyId, Listed> = kernel.all().ok()?.into_iter().map(|key| (key.id, key)).collect();
    let mut rings = Rings::new();
    for name in RINGS.iter().map(|(_, name)| *name).chain([BLACKLIST]) {
        let Some(ring) = kernel.ring(name) else { continue };
        let members: Vec<&Listed> = kernel.members(ring).ok()?.into_iter().filter_map(|id| all.get(&id)).collect();
        let of = |kind: &'static str| members.iter().filter(move |key| key.kind == kind).map(|key| &key.description);
        let sums = of("blacklist").filter_map(|line| Some(line.strip_prefix(SUMS)?.to_owned()));
        rings.entry(SUMS.to_owned()).or_default().extend(sums);
        rings.insert(name.to_owned(), of("asymmetri").cloned().collect());
    }
    // A kernel that trusts nobody has no ring at all, or another user's are seen.
    rings.contains_key(".builtin_trusted_keys").then_some(rings)
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes().chunks(2).map(|two| {
        let two = std::str::from_utf8(two).ok().filter(|two| two.len() == 2)?;
        u8::from_str_radix(two, 16).ok()
    });
    digits.collect::<Option<Vec<u8>>>().filter(|bytes| !bytes.is_empty())
}

/// The certificates in the firmware's variables.
#[derive(Debug, Default)]
pub struct Firmware {
    /// Those of the machine's maker and of its owner.
    pub db: Vec<Certificate>,
    /// Those that were enrolled by mokutil.
    pub enrolled: Vec<Certificate>,
    /// Whether the owner trusts the latter like the kernel's own.
    pub enrolled_are_trusted: bool,
    /// Those that are good for nothing any more.
    pub revoked: Vec<Certificate>,
}

/// Reads a file of the machine, if it is there. No slash stands before its path.
pub type Read<'a> = &'a dyn Fn(&str) -> Option<Vec<u8>>;

impl Firmware {
    const VARIABLES: &str = "sys/firmware/efi/efivars";
    const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
    const DATABASES: &str = "d719b2cb-3d3a-4596-a3bc-dad00e67656f";
    const SHIM: &str = "605dab50-e046-4300-abb6-3dd810dd8b23";

    /// Reads them; what is not there holds nothing.
    pub fn read(read: Read<'_>) -> Firmware {
        let certificates =
            |name: &str, owner: &str| in_signature_lists(&Firmware::variable(read, name, owner).unwrap_or_default());
        Firmware {
            db: certificates("db", Self::DATABASES),
            enrolled: certificates("MokListRT", Self::SHIM),
            enrolled_are_trusted: Firmware::variable(read, "MokListTrustedRT", Self::SHIM).is_some(),
            revoked: [certificates("dbx", Self::DATABASES), certificates("MokListXRT", Self::SHIM)].concat(),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Certificate> {
        self.db.iter().chain(&self.enrolled).chain(&self.revoked)
    }

    /// What a variable holds; four bytes of attributes stand before it.
    fn variable(read: Read<'_>, name: &str, owner: &str) -> Option<Vec<u8>> {
        Some(read(&format!("{}/{name}-{owner}", Self::VARIABLES))?.get(4..)?.to_vec())
    }
}

/// Whether the firmware starts nothing but what is signed.
pub fn is_secure_boot(read: Read<'_>) -> bool {
    Firmware::variable(read, "SecureBoot", Firmware::GLOBAL).is_some_and(|value| value == [1])
}

#[cfg(test)]
mod tests {
    use super::super::certificate::tests::OURS;
    use super::*;
    use crate::fake::FakeKeys;

    fn ours() -> Certificate {
        Certificate::parse(OURS).unwrap()
    }

    fn signer() -> Signer {
        let Certificate { issuer, serial, subject, .. } = ours();
        Signer::Issued { issuer, serial, name: subject }
    }

    fn kernel(ring: &str, description: &str) -> FakeKeys {
        let mut kernel = FakeKeys::with_rings(&[".builtin_trusted_keys", ".secondary_trusted_keys", ".blacklist"]);
        let ring = kernel.ring(ring).unwrap();
        kernel.put("asymmetric", description, ring);
        kernel
    }

    fn known(kernel: &FakeKeys, certificates: &[Certificate]) -> Known {
        Keys::in_rings(&rings(kernel).unwrap(), certificates.iter()).know(&[signer()])
    }

    #[test]
    fn a_key_in_a_ring_is_told_by_its_certificate() {
        let description = format!("kdump-rs test signer: {}", ours().shown());
        let secondary = kernel(".secondary_trusted_keys", &description);
        assert_eq!(known(&secondary, &[ours()]), Known::In(Ring::Secondary));
        assert_eq!(known(&kernel(".blacklist", &description), &[ours()]), Known::Revoked(ours().subject));
        // A certificate that is in no ring is nobody's.
        assert_eq!(known(&kernel(".blacklist", "other: 00ff"), &[ours()]), Known::No);
    }

    #[test]
    fn a_key_without_a_certificate_may_be_anybody_s_unless_it_is_named_by_its_identifier() {
        let description = format!("kdump-rs test signer: {}", ours().shown());
        let kernel = kernel(".builtin_trusted_keys", &description);
        assert!(matches!(known(&kernel, &[]), Known::CannotTell(why) if why.contains("kdump-rs test signer")));
        let keys = Keys::in_rings(&rings(&kernel).unwrap(), [].iter());
        assert_eq!(keys.know(&[Signer::Identified(ours().skid.unwrap())]), Known::In(Ring::Builtin));
        assert_eq!(keys.know(&[Signer::Identified(vec![1])]), Known::No);
    }

    #[test]
    fn what_another_kernel_has_is_in_its_image_and_in_the_firmware() {
        let firmware = Firmware { enrolled: vec![ours()], ..Firmware::default() };
        assert_eq!(Keys::other(&[], &firmware).know(&[signer()]), Known::In(Ring::Platform));
        let trusted = Firmware { enrolled_are_trusted: true, ..firmware };
        assert_eq!(Keys::other(&[], &trusted).know(&[signer()]), Known::In(Ring::Machine));
        assert_eq!(Keys::other(&[ours()], &trusted).know(&[signer()]), Known::In(Ring::Builtin));
        let revoked = Firmware { revoked: vec![ours()], ..Firmware::default() };
        assert_eq!(Keys::other(&[ours()], &revoked).know(&[signer()]), Known::Revoked(ours().subject));
        assert_eq!(Keys::other(&[], &Firmware::default()).know(&[signer()]), Known::No);
    }

    #[test]
    fn a_certificate_of_the_image_counts_where_somebody_vouches_for_it() {
        // Its issuer is a root of the same name, with another number.
        let root = Certificate { serial: vec![1], subject_der: ours().issuer, ..ours() };
        let known = |keys: &Keys, issuers: &[Certificate]| {
            let mut keys = keys.clone();
            keys.add(&ours(), issuers);
            keys.know(&[signer()])
        };
        let of = |ring: Ring| Keys { trusted: vec![(ring, Key::from(&root))], ..Keys::default() };
        let roots = std::slice::from_ref(&root);
        for ring in [Ring::Builtin, Ring::Secondary, Ring::Machine] {
            assert_eq!(known(&of(ring), roots), Known::In(Ring::Secondary), "{ring:?}");
            assert_eq!(known(&of(ring), &[]), Known::No, "whose key that is, is not known");
        }
        // Nobody's key, and one of the firmware's, vouch for nothing.
        assert_eq!(known(&Keys::default(), roots), Known::No);
        assert_eq!(known(&of(Ring::Platform), roots), Known::No);
        // An enrolled key does as far as the owner trusts it.
        for (enrolled_are_trusted, expected) in [(false, Known::No), (true, Known::In(Ring::Secondary))] {
            let firmware = Firmware { enrolled: roots.to_vec(), enrolled_are_trusted, ..Firmware::default() };
            assert_eq!(known(&Keys::other(&[], &firmware), roots), expected);
        }
        let banned = Keys { banned: vec![ours().tbs], ..of(Ring::Builtin) };
        assert_eq!(known(&banned, roots), Known::No);
    }

    #[test]
    fn the_blacklist_has_sums_of_certificates_and_of_files_beside_its_keys() {
        let mut kernel = kernel(".builtin_trusted_keys", "other: 00ff");
        let ring = kernel.ring(".blacklist").unwrap();
        kernel.put("blacklist", &format!("tbs:{}", ours().tbs), ring);
        kernel.put("blacklist", "bin:0011", ring);
        let keys = Keys::in_rings(&rings(&kernel).unwrap(), [].iter());
        assert_eq!((keys.banned, keys.revoked), (vec![ours().tbs], Vec::new()));
    }

    #[test]
    fn a_kernel_whose_rings_are_not_seen_is_not_taken_for_one_that_trusts_nobody() {
        assert_eq!(rings(&FakeKeys::default()), None);
    }

    #[test]
    fn variables_are_read_behind_their_attributes() {
        let file = format!("{}/SecureBoot-{}", Firmware::VARIABLES, Firmware::GLOBAL);
        let read = |path: &str| (path == file).then(|| vec![6, 0, 0, 0, 1]);
        assert!(!is_secure_boot(&|_| None));
        assert!(is_secure_boot(&read));
        assert!(Firmware::read(&read).db.is_empty());
    }
}
