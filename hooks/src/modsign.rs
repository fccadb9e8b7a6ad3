//! Certificates by which modules are trusted, besides those that are built into the kernel.
//!
//! *Into the image*: the certificates in `/etc/keys/modsign` and, as dracut's module `modsign` has it, in
//! `/lib/modules/keys`. *At boot*: each is added to `.secondary_trusted_keys` before the first module is loaded, in a normal
//! boot and in a capture kernel.
//!
//! May surprise: the kernel takes only what a key of its own vouches for, by a signature: one built in, one that is in the
//! ring already or, as a MOK, in `.machine`. A certificate that nobody vouches for has to be enrolled with mokutil; what
//! the kernel says about one is told. The rings of the firmware (`.platform`, `.machine`) are closed to everybody.

use crate::host::{Contribution, FileNeed, Host};
use crate::keys::{add_certificate, check_certificate};
use crate::machine::Machine;
use crate::moment::{Moment, Next};
use crate::{Hook, Stage};
use anyhow::{Context, anyhow};
use log::info;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The ring that can be added to.
const RING: &str = ".secondary_trusted_keys";

/// Where the certificates are looked for on the host.
pub const DIRECTORIES: [&str; 2] = ["/etc/keys/modsign", "/lib/modules/keys"];

/// Certificates by which modules are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Modsign {
    /// Where they are, on the host and in the image.
    pub certificates: Vec<PathBuf>,
}

impl Modsign {
    /// Adds them; those that can be added are.
    ///
    /// # Errors
    /// Which ones the kernel did not take, and why.
    fn load(&self, machine: &mut dyn Machine) -> anyhow::Result<()> {
        let Some(ring) = machine.keys().ring(RING) else {
            return Err(anyhow!(
                "no certificate can be added: this kernel has no {RING} (CONFIG_SECONDARY_TRUSTED_KEYRING), and trusts \
                 what is built in alone"
            ));
        };
        let mut problems = Vec::new();
        for path in &self.certificates {
            let added = machine.read_file(path).and_then(|bytes| {
                add_certificate(machine.keys(), &bytes, ring, RING)
                    .with_context(|| format!("the kernel does not take the certificate {}", path.display()))
            });
            match added {
                Ok(_) => info!("modules are trusted by {}", path.display()),
                Err(error) => problems.push(format!("{error:#}")),
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(anyhow!(problems.join("; "))) }
    }
}

impl Hook for Modsign {
    fn name(&self) -> &'static str {
        "modsign"
    }

    fn gather(&self, host: &dyn Host) -> anyhow::Result<Contribution> {
        let file = |path: &PathBuf| {
            let bytes = host.read(path).context("cannot take a certificate for modules along")?;
            check_certificate(&bytes).with_context(|| format!("cannot use {}", path.display()))?;
            let reason = "a certificate by which modules are trusted".to_owned();
            Ok(FileNeed { path: path.clone(), bytes, secret: false, reason })
        };
        let files: Vec<FileNeed> = self.certificates.iter().map(file).collect::<anyhow::Result<_>>()?;
        Ok(Contribution { files, ..Contribution::default() })
    }

    fn stages(&self) -> &'static [Stage] {
        &[Stage::Modules]
    }

    fn act(&self, _moment: &Moment, machine: &mut dyn Machine) -> anyhow::Result<Next> {
        self.load(machine).map(|()| Next::GoOn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeHost, FakeKeys, FakeMachine};
    use nix::libc;

    fn two() -> Modsign {
        Modsign { certificates: vec!["/etc/keys/modsign/a.der".into(), "/etc/keys/modsign/b.der".into()] }
    }

    fn machine(keys: FakeKeys) -> FakeMachine {
        let file = |name: &str| (format!("/etc/keys/modsign/{name}").into(), name.to_owned());
        FakeMachine { keys, files: ["a.der", "b.der"].map(file).into(), ..FakeMachine::default() }
    }

    #[test]
    fn every_certificate_is_added_to_the_secondary_ring() {
        let mut machine = machine(FakeKeys::with_rings(&[".builtin_trusted_keys", RING]));
        two().load(&mut machine).unwrap();
        assert_eq!(
            machine.keys.journal,
            ["add asymmetric  a.der to .secondary_trusted_keys", "add asymmetric  b.der to .secondary_trusted_keys"]
        );
    }

    #[test]
    fn a_certificate_that_nobody_vouches_for_is_told_with_the_remedy() {
        let mut keys = FakeKeys::with_rings(&[RING]);
        keys.refuses.insert(RING.into(), libc::ENOKEY);
        let error = two().load(&mut machine(keys)).unwrap_err().to_string();
        assert!(error.contains("a.der") && error.contains("b.der") && error.contains("mokutil"), "{error}");
    }

    #[test]
    fn a_kernel_with_nothing_but_built_in_keys_is_told() {
        let error = two().load(&mut machine(FakeKeys::default())).unwrap_err().to_string();
        assert!(error.contains("CONFIG_SECONDARY_TRUSTED_KEYRING"), "{error}");
    }

    #[test]
    fn certificates_come_along_and_nothing_else_does() {
        let der = [&[0x30, 0x82, 0x01, 0x00][..], &[0; 256]].concat();
        let mut host = FakeHost::default();
        host.files.insert("/etc/keys/modsign/a.der".into(), der);
        let one = Modsign { certificates: vec!["/etc/keys/modsign/a.der".into()] };
        assert_eq!(one.gather(&host).unwrap().files.len(), 1);
        host.files.insert("/etc/keys/modsign/a.der".into(), b"-----BEGIN CERTIFICATE-----".to_vec());
        assert!(format!("{:#}", one.gather(&host).unwrap_err()).contains("a.der"));
    }
}
