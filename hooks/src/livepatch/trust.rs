//! Whether the kernel would accept a patch, known before it is asked.
//!
//! In: the patch, the running kernel's policy, its rings, the firmware's variables, the certificates that images bring
//! along, and where these do not tell, the kernel's image. Out: a [`Verdict`].
//! May surprise: where it cannot be told, the kernel decides, and says so itself.

use super::identity::Identity;
use super::kernel::Kernel;
use crate::kernel_image::Naming;
use crate::links::below;
use crate::modsign::DIRECTORIES;
use crate::signatures::{self, Certificate, Firmware, Keys, Policy, Signature, Verdict, in_directories, verdict};
use anyhow::Context;
use std::fs;
use std::path::Path;

const UNREAD: &str = "the kernel's rings of keys cannot be read";

/// Tells what the kernel would make of a patch.
pub type Judge<'a> = &'a dyn Fn(&Identity, &dyn Kernel) -> Verdict;

/// By who has signed it. `root` is where the kernel's image, the firmware's variables and certificates are found below.
pub fn by_signer(root: &Path, patch: &Identity, kernel: &dyn Kernel) -> Verdict {
    let signature = match fs::read(&patch.file) {
        Ok(module) => Signature::of(&module),
        Err(error) => return Verdict::Unknown(format!("{} cannot be read: {error}", patch.file.display())),
    };
    let policy = policy(kernel);
    if !matches!(signature, Signature::By(_)) {
        return verdict(&signature, &Keys::default(), &policy);
    }
    let firmware = Firmware::read(&|path| fs::read(root.join(path)).ok());
    let mut certificates = in_directories(&DIRECTORIES.map(|directory| below(root, Path::new(directory))));
    let Some(keys) = Keys::running(kernel.keys(), &certificates, &firmware) else {
        return verdict(&signature, &Keys { unread: Some(UNREAD.to_owned()), ..Keys::default() }, &policy);
    };
    match verdict(&signature, &keys, &policy) {
        // To unpack a kernel takes a moment.
        Verdict::Unknown(why) => match built_in(root, kernel) {
            Ok(more) => {
                certificates.extend(more);
                let keys = Keys::running(kernel.keys(), &certificates, &firmware).unwrap_or(keys);
                verdict(&signature, &keys, &policy)
            }
            Err(error) => Verdict::Unknown(format!("{why}; {error:#}")),
        },
        told => told,
    }
}

/// The certificates in the image of the kernel that is running, or in one of the same release: its rings decide which of
/// them count.
fn built_in(root: &Path, kernel: &dyn Kernel) -> anyhow::Result<Vec<Certificate>> {
    let release = kernel.release().context("the kernel does not tell its release")?;
    let image = Naming::default().find(root, &release).context("the kernel's built-in keys are not known")?;
    signatures::built_in(&image)
}

/// By whether it is signed at all: PID 1 has no room for more.
pub fn by_marker(patch: &Identity, kernel: &dyn Kernel) -> Verdict {
    match patch.is_signed {
        true => Verdict::Unknown("who has signed it is not looked at".to_owned()),
        false => verdict(&Signature::None, &Keys::default(), &policy(kernel)),
    }
}

fn policy(kernel: &dyn Kernel) -> Policy {
    Policy::running(&|path| kernel.read(&Path::new("/").join(path)).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeKernel, FakeKeys, object, unified_image};
    use crate::keys::Keys as _;
    use crate::livepatch::cli::{self, Kpatch};
    use crate::signatures::Certificate;
    use crate::signatures::tests::{DEBIAN, OURS, by, sign, variable};
    use clap::Parser;
    use std::path::PathBuf;

    const ENFORCE: &str = "/sys/module/module/parameters/sig_enforce";
    const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

    /// How a patch is signed.
    #[derive(Clone, Copy, Debug)]
    enum Signed {
        No,
        Badly,
        ByUs,
        ByDebian,
    }

    /// What is known of our key.
    #[derive(Clone, Copy, Debug)]
    enum Ours {
        /// It is in that ring, and the firmware has its certificate.
        In(&'static str),
        /// It is in that ring, and its certificate is nowhere.
        DarkIn(&'static str),
        /// It is in that ring, and the kernel's image has its certificate.
        BuiltIn(&'static str),
        /// The same, and that image is a part of a unified one.
        Unified(&'static str),
        /// It is in that ring, and its certificate is one of those that images bring along.
        Brought(&'static str),
        /// The rings are not to be read.
        Unread,
    }

    const BUILTIN: &str = ".builtin_trusted_keys";

    /// What is to come of it: where nothing enforces signatures, and where something does.
    type Row = (Signed, Ours, &'static str, &'static str);

    const TABLE: &[Row] = &[
        (Signed::No, Ours::In(BUILTIN), "taints the kernel: it has no signature", "refused: it has no signature"),
        (Signed::Badly, Ours::In(BUILTIN), "refused: its signature is damaged", "refused: its signature is damaged"),
        (Signed::ByUs, Ours::In(BUILTIN), "accepted", "accepted"),
        (Signed::ByUs, Ours::In(".secondary_trusted_keys"), "accepted", "accepted"),
        (Signed::ByUs, Ours::In(".platform"), "taints the kernel: its key, number", "refused: its key, number"),
        (Signed::ByUs, Ours::In(".blacklist"), "refused: its key, that of", "refused: its key, that of"),
        (Signed::ByUs, Ours::DarkIn(BUILTIN), "cannot be told: the certificate", "cannot be told: the certificate"),
        (Signed::ByUs, Ours::BuiltIn(BUILTIN), "accepted", "accepted"),
        (Signed::ByUs, Ours::Unified(BUILTIN), "accepted", "accepted"),
        (Signed::ByUs, Ours::Brought(".secondary_trusted_keys"), "accepted", "accepted"),
        (
            Signed::ByDebian,
            Ours::BuiltIn(BUILTIN),
            "taints the kernel: the kernel does not",
            "refused: the kernel does not",
        ),
        (Signed::ByUs, Ours::Unread, "cannot be told: the kernel's rings", "cannot be told: the kernel's rings"),
        (
            Signed::ByDebian,
            Ours::In(BUILTIN),
            "taints the kernel: the kernel does not have its key",
            "refused: the kernel does not have its key",
        ),
    ];

    /// Each of them enforces.
    const ENFORCING: [&[(&str, &str)]; 2] =
        [&[(ENFORCE, "Y")], &[(ENFORCE, "N"), (LOCKDOWN, "none [integrity] confidentiality")]];

    /// With a length in its trailer that no file has.
    fn spoiled(mut module: Vec<u8>) -> Vec<u8> {
        let at = module.len() - b"~Module signature appended~\n".len() - 4;
        module[at] = 0xff;
        module
    }

    /// A machine with a patch, `p.ko`, and its kernel.
    fn machine(signed: Signed, ours: Ours, files: &[(&str, &str)]) -> (tempfile::TempDir, FakeKernel) {
        let root = tempfile::tempdir().unwrap();
        let module = object(&["name=p", "livepatch=Y", "vermagic=6.1 SMP"]);
        let module = match signed {
            Signed::No => module,
            Signed::Badly => spoiled(sign(&module, DEBIAN)),
            Signed::ByUs => sign(&module, &by(OURS)),
            Signed::ByDebian => sign(&module, DEBIAN),
        };
        fs::write(root.path().join("p.ko"), module).unwrap();
        let mut keys = FakeKeys::with_rings(&[BUILTIN, ".secondary_trusted_keys", ".platform", ".blacklist"]);
        match ours {
            Ours::Unread => keys = FakeKeys::default(),
            Ours::In(name) | Ours::DarkIn(name) | Ours::BuiltIn(name) | Ours::Unified(name) | Ours::Brought(name) => {
                let description = format!("kdump-rs test signer: {}", Certificate::parse(OURS).unwrap().shown());
                let ring = keys.ring(name).unwrap();
                keys.put("asymmetric", &description, ring);
            }
        }
        let place = match ours {
            Ours::BuiltIn(_) => Some(("boot/vmlinuz-6.1", [b"\x7fELF...", OURS].concat())),
            Ours::Unified(_) => {
                let kernel = [b"\x7fELF...", OURS].concat();
                Some(("efi/EFI/Linux/system-6.1.efi", unified_image(&[(".linux", &kernel)])))
            }
            Ours::Brought(_) => Some(("etc/keys/modsign/ours.der", OURS.to_vec())),
            _ => None,
        };
        if let Some((path, bytes)) = place {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        if matches!(ours, Ours::In(_)) {
            let variables = root.path().join("sys/firmware/efi/efivars");
            fs::create_dir_all(&variables).unwrap();
            let file = variables.join("MokListRT-605dab50-e046-4300-abb6-3dd810dd8b23");
            fs::write(file, [&[6, 0, 0, 0], &variable()[..]].concat()).unwrap();
        }
        let files = files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect();
        (root, FakeKernel { release: "6.1".into(), keys, files, ..FakeKernel::default() })
    }

    fn run(words: &str, root: &Path, kernel: &mut FakeKernel) -> Result<String, String> {
        let words = words.replace("FILE", &root.join("p.ko").display().to_string());
        let typed = Kpatch::try_parse_from(format!("kpatch {words}").split(' ')).unwrap();
        let mut out = Vec::new();
        let done = cli::run(&typed, root, kernel, &mut out, &mut Vec::new());
        done.map(|()| String::from_utf8(out).unwrap()).map_err(|error| format!("{error:#}"))
    }

    fn is_asked(kernel: &FakeKernel) -> bool {
        kernel.journal.iter().any(|line| line == "insert p")
    }

    #[test]
    fn a_patch_that_the_kernel_would_refuse_is_refused_before_it_is_asked_and_no_other() {
        for (signed, ours, lax, strict) in TABLE {
            let kernels = ENFORCING.iter().map(|files| (*files, strict)).chain([(&[(ENFORCE, "N")][..], lax)]);
            for (files, expected) in kernels {
                let at = format!("{signed:?} {ours:?} {files:?}");
                let (root, mut kernel) = machine(*signed, *ours, files);
                let patch = Identity::read(&root.path().join("p.ko")).unwrap();
                let verdict = by_signer(root.path(), &patch, &kernel);
                assert!(verdict.to_string().starts_with(expected), "{at}: {verdict}");
                let loaded = run("load FILE", root.path(), &mut kernel);
                match verdict {
                    Verdict::Refused(why) => {
                        let error = loaded.unwrap_err();
                        assert!(
                            error.contains("would refuse") && error.contains(&why) && why.contains("; "),
                            "{at}: {error}"
                        );
                        assert!(!is_asked(&kernel), "{at}");
                    }
                    Verdict::Taints(why) => {
                        assert!(loaded.unwrap().contains(&format!("is tainted by it: {why}")), "{at}");
                        assert!(is_asked(&kernel), "{at}");
                    }
                    Verdict::Accepted | Verdict::Unknown(_) => {
                        assert!(!loaded.unwrap().contains("taint") && is_asked(&kernel), "{at}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_kernel_that_checks_no_signatures_is_not_spoken_for() {
        let (root, mut kernel) = machine(Signed::No, Ours::Unread, &[]);
        assert!(!run("load FILE", root.path(), &mut kernel).unwrap().contains("taint"));
    }

    #[test]
    fn a_patch_that_would_be_refused_is_installed_with_a_warning_unless_it_is_for_another_kernel() {
        let (root, mut kernel) = machine(Signed::No, Ours::In(BUILTIN), ENFORCING[0]);
        let said = run("install FILE", root.path(), &mut kernel).unwrap();
        assert!(said.contains("p: the kernel that is running would refuse it: it has no signature"), "{said}");
        assert!(run("load p", root.path(), &mut kernel).unwrap_err().contains("would refuse"));
        let (root, mut kernel) = machine(Signed::No, Ours::In(BUILTIN), ENFORCING[0]);
        kernel.release = "6.2".into();
        let said = run("install --kernel-version 6.1 FILE", root.path(), &mut kernel).unwrap();
        assert!(!said.contains("refuse"), "{said}");
    }

    #[test]
    fn a_patch_has_the_name_that_it_says_and_not_that_of_its_file() {
        let (root, mut kernel) = machine(Signed::ByUs, Ours::In(BUILTIN), ENFORCING[0]);
        fs::rename(root.path().join("p.ko"), root.path().join("other.ko")).unwrap();
        let file = root.path().join("other.ko").display().to_string();
        let typed = Kpatch::try_parse_from(["kpatch", "load", &file]).unwrap();
        let mut out = Vec::new();
        cli::run(&typed, root.path(), &mut kernel, &mut out, &mut Vec::new()).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("p is enabled"));
    }

    #[test]
    fn by_its_end_alone_only_an_unsigned_patch_is_judged() {
        for (signed, expected) in [(Signed::No, "refused: it has no signature"), (Signed::ByDebian, "cannot be told")] {
            let (root, kernel) = machine(signed, Ours::In(BUILTIN), ENFORCING[0]);
            let patch = Identity::read(&root.path().join("p.ko")).unwrap();
            assert!(by_marker(&patch, &kernel).to_string().starts_with(expected), "{signed:?}");
        }
    }
}
