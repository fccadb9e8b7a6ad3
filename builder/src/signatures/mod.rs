//! Whether the kernel would accept the modules of an image, known before it is asked.
//!
//! ```text
//!   module ─▶ Signature: who signed it ──┐
//!   rings, kernel image, firmware ─▶ Keys ─┼─▶ verdict ─▶ Accepted | Taints(why) | Refused(why) | Unknown(why)
//!   sig_enforce, lockdown, secure boot ─▶ Policy ─┘
//! ```
//!
//! In: the files of the machine and of the kernel that the image is for. Out: a verdict for each module. One that would be
//! refused is as good as missing; one that only taints is a note. How a verdict comes about is in
//! [`kdump_hooks::signatures`], which kpatch asks as well; here are the places where an image's kernel has its keys.
//!
//! May surprise: the signature itself is not verified, the kernel does that; what is told is whether it has the key. A
//! signer is named by issuer and serial number, and the kernel's list of keys shows neither, so certificates are looked
//! for where the kernel has them from: in its own image, in the firmware's variables, in the directories of the hook
//! `modsign`. That takes a moment, and it is only done where signatures decide.

mod keys;
mod policy;

pub use kdump_hooks::signatures::{Signature, Signer, Verdict};

use crate::host::{SystemHost, Tree};
use kdump_hooks::cmdline::Cmdline;
use kdump_hooks::kmod::ModuleName;
use kdump_hooks::modsign::Modsign;
use kdump_hooks::signatures::{Keys, Policy, verdict};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs;

/// Tells of one module after the other.
#[derive(Debug)]
pub struct Judge<'a> {
    host: &'a SystemHost,
    policy: Option<Policy>,
    modsign: Option<&'a Modsign>,
    is_thorough: bool,
    keys: OnceCell<Keys>,
}

impl<'a> Judge<'a> {
    /// For the modules of an image; `cmdline` is what is known of its kernel command line, `modsign` what it brings along.
    pub fn new(host: &'a SystemHost, cmdline: &Cmdline, modsign: Option<&'a Modsign>) -> Judge<'a> {
        Judge { host, policy: policy::policy(host, cmdline), modsign, is_thorough: false, keys: OnceCell::new() }
    }

    /// Looks for the keys of signed modules even where they only decide whether the kernel is tainted.
    pub fn thorough(self) -> Judge<'a> {
        Judge { is_thorough: true, ..self }
    }

    /// What the kernel would make of a module that is signed like this; nothing can be said of the kernel of a machine
    /// that is not here.
    pub fn verdict(&self, signature: &Signature) -> Option<Verdict> {
        let policy = self.policy.as_ref()?;
        if !self.is_thorough && policy.enforced.is_none() && matches!(signature, Signature::By(_)) {
            // An unknown key would taint at most, which is not worth unpacking a kernel for.
            return Some(Verdict::Accepted);
        }
        let keys = match signature {
            Signature::By(_) => self.keys.get_or_init(|| keys::keys(self.host, self.modsign)),
            _ => &Keys::default(),
        };
        Some(verdict(signature, keys, policy))
    }
}

/// Files of a machine, for those that read them below any root.
fn read(tree: &Tree) -> impl Fn(&str) -> Option<Vec<u8>> {
    |path| fs::read(tree.path(path)).ok()
}

/// One line for each reason for which modules taint the kernel, or for which nothing can be told.
pub fn notes<'a>(verdicts: impl Iterator<Item = (&'a ModuleName, &'a Verdict)>) -> Vec<String> {
    let mut reasons: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (module, verdict) in verdicts {
        let reason = match verdict {
            Verdict::Taints(why) => format!("the kernel takes them, but is tainted by them: {why}"),
            Verdict::Unknown(why) => format!("whether the kernel takes them cannot be told: {why}"),
            Verdict::Accepted | Verdict::Refused(_) => continue,
        };
        reasons.entry(reason).or_default().push(module.as_str());
    }
    reasons.into_iter().map(|(reason, modules)| format!("modules {}: {reason}", some(&modules))).collect()
}

/// The first few of them.
fn some(names: &[&str]) -> String {
    const MOST: usize = 6;
    let shown = names.get(..MOST).unwrap_or(names).join(", ");
    if names.len() > MOST { format!("{shown} and {} more", names.len() - MOST) } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_one_note_and_the_accepted_have_none() {
        let names: Vec<ModuleName> = ["a", "b", "c", "d", "e", "f", "g", "h"].map(ModuleName::from).to_vec();
        let unsigned = Verdict::Taints("no signature".into());
        let mut verdicts: Vec<(&ModuleName, &Verdict)> = names.iter().map(|name| (name, &unsigned)).collect();
        let (fine, dark) = (Verdict::Accepted, Verdict::Unknown("dark".into()));
        verdicts[0].1 = &fine;
        verdicts[1].1 = &dark;
        assert_eq!(
            notes(verdicts.into_iter()),
            [
                "modules c, d, e, f, g, h: the kernel takes them, but is tainted by them: no signature",
                "modules b: whether the kernel takes them cannot be told: dark"
            ]
        );
    }
}
