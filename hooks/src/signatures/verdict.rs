//! The table: signature, key, and what the kernel does about it.
//!
//! Facts: `kernel/module/signing.c`. No signature, one that it cannot read, and one by a key that it does not have are
//! forgiven unless something enforces signatures. A signature that is wrong, or by a key that was revoked, never is.

use super::keys::{Keys, Known, Ring};
use super::policy::Policy;
use super::signature::{Signature, Signer};
use std::fmt;

/// What the kernel would make of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It trusts it.
    Accepted,
    /// It loads it, and is tainted from then on.
    Taints(String),
    /// It does not load it: why, and what to do.
    Refused(String),
    /// That cannot be told, and why.
    Unknown(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Accepted => f.write_str("accepted"),
            Verdict::Taints(why) => write!(f, "taints the kernel: {why}"),
            Verdict::Refused(why) => write!(f, "refused: {why}"),
            Verdict::Unknown(why) => write!(f, "cannot be told: {why}"),
        }
    }
}

/// What a kernel with these keys and that policy would make of a module that is signed like this.
pub fn verdict(signature: &Signature, keys: &Keys, policy: &Policy) -> Verdict {
    if !policy.checks {
        return Verdict::Accepted;
    }
    let (why, remedy) = match signature {
        Signature::None => {
            ("it has no signature".to_owned(), "install the signed package, or sign it by a key of yours")
        }
        Signature::Unsupported => (
            "its signature is of a kind that the kernel does not read".to_owned(),
            "sign it with the kernel's sign-file",
        ),
        Signature::Damaged(why) => {
            return Verdict::Refused(format!("its signature is damaged: {why}; install its package again"));
        }
        Signature::Unread(why) => {
            return Verdict::Unknown(format!("its signature is none that can be read here ({why})"));
        }
        Signature::By(signers) => match keys.know(signers) {
            Known::In(ring) if ring != Ring::Platform || policy.platform => return Verdict::Accepted,
            Known::In(_) => (
                format!("its key, {}, is one of the firmware's, by which this kernel trusts no module", named(signers)),
                "enrol its certificate with mokutil, and trust it with `mokutil --trust-mok`",
            ),
            Known::Revoked(name) => {
                return Verdict::Refused(format!(
                    "its key, that of {name}, is on the kernel's blacklist; install a newer package of it"
                ));
            }
            Known::No => (
                format!("the kernel does not have its key, {}", named(signers)),
                "enrol the certificate of that key with `mokutil --import`, or install the package that belongs to this \
                 kernel",
            ),
            Known::CannotTell(why) => return Verdict::Unknown(why),
        },
    };
    match &policy.enforced {
        Some(enforced) => Verdict::Refused(format!("{why}, and signatures are enforced ({enforced}); {remedy}")),
        None => Verdict::Taints(why),
    }
}

fn named(signers: &[Signer]) -> String {
    signers.iter().map(Signer::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::keys::Key;
    use super::*;

    /// How a module is signed.
    #[derive(Clone, Copy, Debug)]
    enum Signed {
        No,
        Strangely,
        Badly,
        Unreadably,
        Well,
    }

    /// Where the key is.
    #[derive(Clone, Copy, Debug)]
    enum At {
        Nowhere,
        In(Ring),
        Blacklist,
        /// In a ring, but its certificate is not to be had.
        Dark,
    }

    /// What is to come of it: without anything that enforces signatures, and with.
    type Row = (Signed, At, &'static str, &'static str);

    const TABLE: &[Row] = &[
        (Signed::No, At::Nowhere, "taints the kernel: it has no signature", "refused: it has no signature"),
        (Signed::Strangely, At::Nowhere, "taints the kernel: its signature is of", "refused: its signature is of"),
        (Signed::Badly, At::Nowhere, "refused: its signature is damaged", "refused: its signature is damaged"),
        (Signed::Unreadably, At::Nowhere, "cannot be told", "cannot be told"),
        (Signed::Well, At::Nowhere, "taints the kernel: the kernel does not have", "refused: the kernel does not have"),
        (Signed::Well, At::In(Ring::Builtin), "accepted", "accepted"),
        (Signed::Well, At::In(Ring::Secondary), "accepted", "accepted"),
        (Signed::Well, At::In(Ring::Machine), "accepted", "accepted"),
        (Signed::Well, At::In(Ring::Platform), "taints the kernel: its key", "refused: its key"),
        (Signed::Well, At::Blacklist, "refused: its key, that of us", "refused: its key, that of us"),
        (Signed::Well, At::Dark, "cannot be told: the certificate of", "cannot be told: the certificate of"),
    ];

    /// Each of them enforces; secure boot does by the lockdown that comes with it.
    const ENFORCING: [&str; 4] =
        ["module.sig_enforce", "CONFIG_MODULE_SIG_FORCE", "lockdown", "secure boot, under which it is locked down"];

    fn signature(signed: Signed) -> Signature {
        match signed {
            Signed::No => Signature::None,
            Signed::Strangely => Signature::Unsupported,
            Signed::Badly => Signature::Damaged("cut"),
            Signed::Unreadably => Signature::Unread("odd".into()),
            Signed::Well => {
                Signature::By(vec![Signer::Issued { issuer: vec![1], serial: vec![2], name: "CN=us".into() }])
            }
        }
    }

    fn keys(at: At) -> Keys {
        let key = Key { name: "us".into(), skid: None, issued: Some((vec![1], vec![2])) };
        let other = Key { name: "other".into(), skid: None, issued: Some((vec![1], vec![3])) };
        let mut keys = Keys { trusted: vec![(Ring::Builtin, other)], ..Keys::default() };
        match at {
            At::Nowhere => {}
            At::In(ring) => keys.trusted.push((ring, key)),
            // A revoked key may still be in a ring.
            At::Blacklist => {
                keys.trusted.push((Ring::Builtin, key.clone()));
                keys.revoked.push(key);
            }
            At::Dark => keys.trusted.push((Ring::Builtin, Key { issued: None, ..key })),
        }
        keys
    }

    fn policy(enforced: Option<&str>, platform: bool) -> Policy {
        Policy { checks: true, enforced: enforced.map(str::to_owned), platform }
    }

    #[test]
    fn signature_key_secure_boot_and_sig_enforce_decide_together() {
        for (signed, at, lax, strict) in TABLE {
            let verdict = |policy: &Policy| verdict(&signature(*signed), &keys(*at), policy).to_string();
            let said = verdict(&policy(None, false));
            assert!(said.starts_with(lax), "{signed:?} {at:?}: {said}");
            for enforced in ENFORCING {
                let said = verdict(&policy(Some(enforced), false));
                assert!(said.starts_with(strict), "{signed:?} {at:?} {enforced}: {said}");
                if said.starts_with("refused") && !lax.starts_with("refused") {
                    assert!(said.contains(enforced) && said.contains("; "), "no reason or no remedy: {said}");
                }
            }
            let none = Policy { checks: false, ..policy(None, false) };
            assert_eq!(verdict(&none), "accepted", "{signed:?} {at:?}");
        }
    }

    #[test]
    fn a_key_of_the_firmware_counts_only_where_the_kernel_has_it_so() {
        let firmware = keys(At::In(Ring::Platform));
        let said = verdict(&signature(Signed::Well), &firmware, &policy(Some("lockdown"), true));
        assert_eq!(said, Verdict::Accepted);
        let said = verdict(&signature(Signed::Well), &firmware, &policy(Some("lockdown"), false)).to_string();
        assert!(said.contains("--trust-mok"), "{said}");
    }
}
