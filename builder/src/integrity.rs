//! IMA, EVM and the certificates for modules: what of them the machine has.
//!
//! In: `/etc/sysconfig/{ima,evm,masterkey}` with dracut's variables, and the files at its usual places in `/etc/keys`.
//! Out: what the hooks take along. A file that a variable names has to be there; a usual one may be missing.
//! May surprise: the files are sourced as shell elsewhere, and read here without one, as `/etc/sysconfig/kdump` is.

use crate::config::{Config, Given, Origin, assignments_of};
use crate::host::Tree;
use anyhow::{Context, bail};
use kdump_hooks::integrity::{Integrity, MasterKey, MasterKind};
use kdump_hooks::modsign::{self, Modsign};
use std::fs;
use std::path::{Path, PathBuf};

const IMA: &str = "etc/sysconfig/ima";
const EVM: &str = "etc/sysconfig/evm";
const MASTERKEY: &str = "etc/sysconfig/masterkey";

/// The PCR that a master key's unsealing extends, if nothing else is said.
const PCRLOCK: u32 = 11;

/// What the three files say.
#[derive(Debug, Default)]
struct Said {
    policy: Option<Given<String>>,
    ima_directory: Option<Given<String>>,
    evm_key: Option<Given<String>>,
    evm_certificate: Option<Given<String>>,
    evm_directory: Option<Given<String>>,
    evm_bits: u32,
    master: Option<Given<String>>,
    kind: Option<MasterKind>,
    by_kernel: bool,
    pcrlock: Option<u32>,
}

/// What IMA and EVM need, as this machine has it, for a kernel of that release.
///
/// # Errors
/// A variable cannot be followed, a file that one names is missing, or there is nothing at all.
pub fn find(tree: &Tree, release: &str) -> anyhow::Result<Integrity> {
    let said = Said::read(tree)?;
    let kind = said.kind.unwrap_or(MasterKind::Trusted);
    let suffix = if said.by_kernel { format!("-{release}") } else { String::new() };
    let usual = format!("/etc/keys/kmk-{kind}{suffix}.blob");
    let master = file(tree, "MASTERKEY", said.master.as_ref(), &usual)?;
    let pcrlock = (kind == MasterKind::Trusted).then_some(said.pcrlock.unwrap_or(PCRLOCK));
    let mut evm_certificates: Vec<PathBuf> =
        file(tree, "EVMX509", said.evm_certificate.as_ref(), "/etc/keys/x509_evm.der")?.into_iter().collect();
    for path in directory(tree, "EVMKEYSDIR", said.evm_directory.as_ref(), "/etc/keys/evm")? {
        if !evm_certificates.contains(&path) {
            evm_certificates.push(path);
        }
    }
    let integrity = Integrity {
        master: master.map(|path| MasterKey { kind, path, pcrlock }),
        evm_key: file(tree, "EVMKEY", said.evm_key.as_ref(), "/etc/keys/evm-trusted.blob")?,
        evm_certificates,
        evm_bits: said.evm_bits,
        ima_certificates: directory(tree, "IMAKEYSDIR", said.ima_directory.as_ref(), "/etc/keys/ima")?,
        policy: file(tree, "IMAPOLICY", said.policy.as_ref(), "/etc/sysconfig/ima-policy")?,
    };
    if integrity == (Integrity { evm_bits: integrity.evm_bits, ..Integrity::default() }) {
        bail!(
            "there is nothing for IMA or EVM to take along: no policy (/etc/sysconfig/ima-policy), no key and no \
             certificate (/etc/keys); put them there, or name others in /{IMA}, /{EVM} and /{MASTERKEY}"
        );
    }
    Ok(integrity)
}

/// The certificates for modules that this machine has.
///
/// # Errors
/// There is none, or a directory cannot be listed.
pub fn certificates(tree: &Tree) -> anyhow::Result<Modsign> {
    let mut certificates = Vec::new();
    for path in modsign::DIRECTORIES {
        certificates.extend(directory(tree, path, None, path)?);
    }
    if certificates.is_empty() {
        bail!("there is no certificate for modules in {}; put one there", modsign::DIRECTORIES.join(" or "));
    }
    Ok(Modsign { certificates })
}

/// The files that an image with these in it is made of.
pub fn sources(config: &Config, tree: &Tree) -> Vec<PathBuf> {
    let is_wanted = |word: &Option<Given<bool>>| word.as_ref().is_some_and(|word| word.value);
    let mut sources: Vec<PathBuf> = Vec::new();
    if is_wanted(&config.dump.image.integrity) {
        sources.extend([IMA, EVM, MASTERKEY].map(|file| tree.path(file)));
        // What is missing is told when the image is built.
        let found = find(tree, "").unwrap_or_default();
        sources.extend(found.files().filter_map(|(file, ..)| tree.resolve(file).ok()));
    }
    if is_wanted(&config.dump.image.modsign) {
        sources.extend(modsign::DIRECTORIES.iter().map(|dir| tree.path(dir)));
        let found = certificates(tree).unwrap_or_default().certificates;
        sources.extend(found.iter().filter_map(|file| tree.resolve(file).ok()));
    }
    sources
}

impl Said {
    fn read(tree: &Tree) -> anyhow::Result<Said> {
        let mut said = Said::default();
        for name in [IMA, EVM, MASTERKEY] {
            let path = tree.path(name);
            if !path.exists() {
                continue;
            }
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            for (line, variable, value) in assignments_of(&text, &path)? {
                let origin = Origin::Line(path.clone(), line);
                said.take(name, &variable, value, &origin).with_context(|| format!("{origin}: {variable}"))?;
            }
        }
        Ok(said)
    }

    fn take(&mut self, file: &str, variable: &str, value: String, origin: &Origin) -> anyhow::Result<()> {
        let value = (!value.is_empty()).then_some(value);
        let number = |value: Option<String>| value.as_deref().map(number).transpose();
        let given = |value: Option<String>| value.map(|value| Given { value, origin: origin.clone() });
        match (file, variable) {
            (IMA, "IMAPOLICY") => self.policy = given(value),
            (IMA, "IMAKEYSDIR") => self.ima_directory = given(value),
            (EVM, "EVMKEY") => self.evm_key = given(value),
            (EVM, "EVMX509") => self.evm_certificate = given(value),
            (EVM, "EVMKEYSDIR") => self.evm_directory = given(value),
            (EVM, "EVM_ACTIVATION_BITS") => self.evm_bits = number(value)?.unwrap_or_default(),
            (EVM, "EVMKEYDESC") if value.as_deref().is_some_and(|value| value != "evm-key") => {
                bail!("the kernel asks for a key called evm-key and for no other; take the line out")
            }
            (EVM, "EVMKEYTYPE") if value.as_deref().is_some_and(|value| value != "encrypted") => {
                bail!("the kernel asks for an encrypted key and for no other; take the line out")
            }
            (EVM, "EVMKEYDESC" | "EVMKEYTYPE") => {}
            (MASTERKEY, "MASTERKEY") => self.master = given(value),
            (MASTERKEY, "MASTERKEYTYPE") => {
                self.kind = value.map(|kind| kind.parse()).transpose().map_err(anyhow::Error::msg)?;
            }
            (MASTERKEY, "MULTIKERNELMODE") => {
                self.by_kernel = match value.as_deref() {
                    Some("YES") => true,
                    Some("NO") | None => false,
                    Some(other) => bail!("`{other}` is neither YES nor NO"),
                }
            }
            (MASTERKEY, "PCRLOCKNUM") => self.pcrlock = number(value)?,
            _ => bail!("this version does not know that variable; take the line out"),
        }
        Ok(())
    }
}

fn number(text: &str) -> anyhow::Result<u32> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.with_context(|| format!("`{text}` is no number of 32 bits; write 4 or 0x80000000"))
}

/// The file that a variable names, or else the usual one if it is there.
fn file(tree: &Tree, variable: &str, given: Option<&Given<String>>, usual: &str) -> anyhow::Result<Option<PathBuf>> {
    let is_there = |path: &str| tree.resolve(Path::new(path)).is_ok_and(|file| file.is_file());
    match given {
        Some(Given { value, origin }) if !value.starts_with('/') => {
            bail!("{origin}: {variable}: `{value}` is no absolute path; write one")
        }
        Some(Given { value, origin }) if !is_there(value) => {
            bail!("{origin}: {variable}: there is no file {value}; put it there, or take the line out")
        }
        Some(Given { value, .. }) => Ok(Some(value.into())),
        None => Ok(is_there(usual).then(|| usual.into())),
    }
}

/// The files in the directory that a variable names, or else in the usual one, by name.
fn directory(tree: &Tree, variable: &str, given: Option<&Given<String>>, usual: &str) -> anyhow::Result<Vec<PathBuf>> {
    let path = Path::new(given.map_or(usual, |given| &given.value));
    let place = match (tree.resolve(path), given) {
        (Ok(place), _) if place.is_dir() => place,
        (_, Some(Given { origin, .. })) => {
            bail!("{origin}: {variable}: there is no directory {}; make it, or take the line out", path.display())
        }
        _ => return Ok(Vec::new()),
    };
    let entries = fs::read_dir(&place).with_context(|| format!("cannot read {}", place.display()))?;
    let names = entries.map(|entry| entry.map(|entry| path.join(entry.file_name())));
    let mut files = names.collect::<std::io::Result<Vec<PathBuf>>>()?;
    files.retain(|file| tree.resolve(file).is_ok_and(|file| file.is_file()));
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Tree) {
        crate::fake::tree(files).unwrap()
    }

    #[test]
    fn dracut_s_usual_places_are_looked_at() {
        let (_dir, tree) = tree(&[
            ("etc/keys/ima/b.der", ""),
            ("etc/keys/ima/a.der", ""),
            ("etc/keys/evm/c.der", ""),
            ("etc/keys/x509_evm.der", ""),
            ("etc/keys/evm-trusted.blob", ""),
            ("etc/keys/kmk-trusted.blob", ""),
            ("etc/sysconfig/ima-policy", ""),
        ]);
        let found = find(&tree, "6.1").unwrap();
        assert_eq!(found.ima_certificates, [Path::new("/etc/keys/ima/a.der"), Path::new("/etc/keys/ima/b.der")]);
        assert_eq!(found.evm_certificates, [Path::new("/etc/keys/x509_evm.der"), Path::new("/etc/keys/evm/c.der")]);
        assert_eq!(found.evm_key, Some("/etc/keys/evm-trusted.blob".into()));
        assert_eq!(found.policy, Some("/etc/sysconfig/ima-policy".into()));
        let master = found.master.unwrap();
        assert_eq!((master.kind, master.pcrlock), (MasterKind::Trusted, Some(11)));
    }

    #[test]
    fn every_variable_is_followed() {
        let (_dir, tree) = tree(&[
            ("k/policy", ""),
            ("k/ima/a.der", ""),
            ("k/evm", ""),
            ("k/x.der", ""),
            ("k/evms/b.der", ""),
            ("etc/keys/kmk-user-6.1.blob", ""),
            ("etc/sysconfig/ima", "IMAPOLICY=/k/policy\nIMAKEYSDIR=\"/k/ima\"\n"),
            (
                "etc/sysconfig/evm",
                "EVMKEY=/k/evm\nEVMX509=/k/x.der\nEVMKEYSDIR=/k/evms\nEVM_ACTIVATION_BITS=0x80000000\nEVMKEYDESC=evm-key\n",
            ),
            ("etc/sysconfig/masterkey", "MASTERKEYTYPE=user # no TPM\nMULTIKERNELMODE=YES\n"),
        ]);
        let found = find(&tree, "6.1").unwrap();
        assert_eq!(found.policy, Some("/k/policy".into()));
        assert_eq!(found.ima_certificates, [Path::new("/k/ima/a.der")]);
        assert_eq!((found.evm_key, found.evm_bits), (Some("/k/evm".into()), 1 << 31));
        assert_eq!(found.evm_certificates, [Path::new("/k/x.der"), Path::new("/k/evms/b.der")]);
        let master = found.master.unwrap();
        assert_eq!((master.path.to_str().unwrap(), master.pcrlock), ("/etc/keys/kmk-user-6.1.blob", None));
    }

    #[test]
    fn what_cannot_be_followed_is_refused_with_file_and_line() {
        for (file, text, expected) in [
            ("ima", "\nIMAPOLICY=/none\n", "ima:2: IMAPOLICY: there is no file /none"),
            ("ima", "IMAKEYSDIR=/none", "ima:1: IMAKEYSDIR: there is no directory /none"),
            ("ima", "EVMKEY=/none", "ima:1: EVMKEY: this version does not know"),
            ("evm", "EVMKEY=blob", "`blob` is no absolute path"),
            ("evm", "EVMKEYDESC=mine", "asks for a key called evm-key"),
            ("evm", "EVMKEYTYPE=user", "asks for an encrypted key"),
            ("evm", "EVM_ACTIVATION_BITS=many", "`many` is no number"),
            ("masterkey", "MASTERKEYTYPE=logon", "write user or trusted"),
            ("masterkey", "MULTIKERNELMODE=maybe", "neither YES nor NO"),
            ("masterkey", "MASTERKEY=$(ls)", "masterkey:1: `$` asks a shell"),
        ] {
            let path = format!("etc/sysconfig/{file}");
            let (_dir, tree) = tree(&[(&path, text)]);
            let error = format!("{:#}", find(&tree, "6.1").unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn an_empty_machine_is_told_what_could_be_there() {
        let (_dir, tree) = tree(&[]);
        assert!(find(&tree, "6.1").unwrap_err().to_string().contains("/etc/sysconfig/ima-policy"));
        assert!(certificates(&tree).unwrap_err().to_string().contains("/etc/keys/modsign"));
    }

    #[test]
    fn certificates_for_modules_are_in_both_places() {
        let (_dir, tree) = tree(&[("lib/modules/keys/b.der", ""), ("etc/keys/modsign/a.der", "")]);
        let found = certificates(&tree).unwrap().certificates;
        assert_eq!(found, [Path::new("/etc/keys/modsign/a.der"), Path::new("/lib/modules/keys/b.der")]);
    }

    proptest! {
        #[test]
        fn bits_are_read_as_they_are_written(bits: u32) {
            prop_assert_eq!(number(&bits.to_string()).unwrap(), bits);
            prop_assert_eq!(number(&format!("{bits:#x}")).unwrap(), bits);
        }

        #[test]
        fn any_text_in_the_files_ends_in_a_result(text in "[A-Z_=\"/$ \n0-9#]{0,60}") {
            let (_dir, tree) = tree(&[("etc/sysconfig/evm", &text)]);
            let _ = find(&tree, "6.1");
        }
    }
}
