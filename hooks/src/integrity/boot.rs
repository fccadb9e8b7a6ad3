//! What is done at boot, step by step; a step that fails is told and the others are done.

use super::{Integrity, MasterKey};
use crate::cmdline::Cmdline;
use crate::keys::{KeyId, USER_RING, add_certificate, refusal};
use crate::links::{below, canonical};
use crate::machine::{Machine, MountPlan, SYSROOT};
use crate::moment::Moment;
use crate::stage::Stage;
use anyhow::{Context, anyhow, bail};
use log::{debug, info, warn};
use std::path::{Path, PathBuf};

const SECURITYFS: &str = "/sys/kernel/security";
const IMA: &str = "/sys/kernel/security/ima";
const POLICY: &str = "/sys/kernel/security/ima/policy";
const EVM: &str = "/sys/kernel/security/evm";

/// The only key that the kernel's EVM asks for.
const EVM_KEY: &str = "evm-key";

// Documentation/ABI/testing/evm
const EVM_INIT_HMAC: u32 = 1;
const EVM_INIT_X509: u32 = 2;
const EVM_SETUP_COMPLETE: u32 = 0x8000_0000;

/// The first kernel whose EVM looks whether a security module has named an attribute at all before it reads the name
/// (6bcdfd2cac55, "security: Allow all LSMs to provide xattrs for inode_init_security hook").
const SPARES_THE_NAMELESS: (u32, u32) = (6, 6);

/// Gives the kernel what the image has.
///
/// # Errors
/// What it did not take, and why, all of it.
pub(super) fn activate(given: &Integrity, moment: &Moment, machine: &mut dyn Machine) -> anyhow::Result<()> {
    let cmdline = Cmdline::parse(&machine.ask_kernel(Path::new("/proc/cmdline")).unwrap_or_default());
    let (integrity, told) = as_told(given, &cmdline);
    mount(machine)?;
    let mut problems: Vec<String> = told.err().map(|error| format!("{error:#}")).into_iter().collect();
    let mut tried = |step: anyhow::Result<()>| problems.extend(step.err().map(|error| format!("{error:#}")));
    if integrity.evm_key.is_some() || !integrity.evm_certificates.is_empty() {
        match machine.has_file(Path::new(EVM)) {
            true => enable_evm(&integrity, moment, machine, &mut tried),
            false => {
                tried(Err(anyhow!("this kernel has no EVM: it was built without CONFIG_EVM, or lsm= leaves it out")))
            }
        }
    } else if let Some(master) = &integrity.master {
        tried(load_master(master, moment, machine));
    }
    if integrity.policy.is_some() || !integrity.ima_certificates.is_empty() {
        match machine.has_file(Path::new(IMA)) {
            true => {
                load_certificates("ima", &integrity.ima_certificates, moment, machine, &mut tried);
                if let Some(policy) = &integrity.policy {
                    tried(load_policy(policy, moment, machine));
                }
            }
            false => {
                tried(Err(anyhow!("this kernel has no IMA: it was built without CONFIG_IMA, or lsm= leaves it out")))
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(anyhow!(problems.join("; "))) }
}

/// What the kernel command line says goes before what the image was built with. Where it says nothing sound of the master
/// key, there is none, and no key of EVM that it would have to decrypt; the rest is as it would be.
fn as_told(given: &Integrity, cmdline: &Cmdline) -> (Integrity, anyhow::Result<()>) {
    let mut integrity = given.clone();
    if let Some(path) = cmdline.last("evmkey") {
        integrity.evm_key = Some(path.into());
    }
    if let Some(path) = cmdline.last("evmx509") {
        let others = given.evm_certificates.iter().filter(|other| other.as_path() != Path::new(path));
        integrity.evm_certificates = std::iter::once(PathBuf::from(path)).chain(others.cloned()).collect();
    }
    let master = master_as_told(given.master.as_ref(), cmdline);
    let (master, told) = match master {
        Ok(master) => (master, Ok(())),
        Err(error) => {
            integrity.evm_key = None;
            (None, Err(error.context("neither the master key nor EVM's key is loaded")))
        }
    };
    integrity.master = master;
    (integrity, told)
}

fn master_as_told(known: Option<&MasterKey>, cmdline: &Cmdline) -> anyhow::Result<Option<MasterKey>> {
    let kind = cmdline.last("masterkeytype").map(str::parse).transpose().map_err(anyhow::Error::msg);
    let kind = kind.context("masterkeytype=")?;
    let path = cmdline.last("masterkey").map(PathBuf::from);
    if kind.is_none() && path.is_none() {
        return Ok(known.cloned());
    }
    let Some(kind) = kind.or(known.map(|master| master.kind)) else {
        bail!("masterkey= says where a master key is, and nothing says what it is; add masterkeytype=");
    };
    let Some(path) = path.or(known.map(|master| master.path.clone())) else {
        bail!("masterkeytype= says what the master key is, and nothing says where; add masterkey=");
    };
    Ok(Some(MasterKey { kind, path, pcrlock: known.and_then(|master| master.pcrlock) }))
}

fn mount(machine: &mut dyn Machine) -> anyhow::Result<()> {
    if machine.has_file(&Path::new(SECURITYFS).join("lsm")) {
        return Ok(());
    }
    if !machine.has_file(Path::new(SECURITYFS)) {
        bail!("this kernel has no securityfs (CONFIG_SECURITYFS), so neither IMA nor EVM can be told anything");
    }
    let options = ["nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
    let (source, fstype) = ("securityfs".into(), "securityfs".to_owned());
    let plan = MountPlan { source, point: SECURITYFS.into(), fstype, options };
    machine.mount(&plan).context("cannot mount securityfs, so neither IMA nor EVM can be told anything")
}

/// Keys and certificates first: the bits say which of them EVM is to use.
fn enable_evm(
    integrity: &Integrity,
    moment: &Moment,
    machine: &mut dyn Machine,
    tried: &mut dyn FnMut(anyhow::Result<()>),
) {
    let mut bits = 0;
    let mut key = None;
    let master = integrity.master.as_ref().map_or(Ok(()), |master| load_master(master, moment, machine));
    match (&integrity.evm_key, master) {
        (_, Err(error)) => tried(Err(error)),
        (Some(path), Ok(())) => {
            match survives(&moment.kernel_release, machine).and_then(|()| load_evm_key(path, moment, machine)) {
                Ok(id) => {
                    key = Some(id);
                    bits |= EVM_INIT_HMAC;
                }
                Err(error) => tried(Err(error)),
            }
        }
        (None, Ok(())) => {}
    }
    if load_certificates("evm", &integrity.evm_certificates, moment, machine, tried) > 0 {
        bits |= EVM_INIT_X509;
    }
    if bits != 0 {
        tried(tell_evm(bits | integrity.evm_bits, machine));
    }
    if let Some(id) = key {
        // EVM has its own copy; nobody else is to find it.
        let unlinked = machine.keys().unlink(id, USER_RING);
        tried(unlinked.context("cannot take EVM's key out of root's keyring again, where root's programs can use it"));
    }
}

fn tell_evm(bits: u32, machine: &mut dyn Machine) -> anyhow::Result<()> {
    // What holds already need not be told, and a key is only taken once.
    let before = machine.ask_kernel(Path::new(EVM)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0_u32);
    if before & bits == bits {
        debug!("EVM is at work already ({before:#x})");
        return Ok(());
    }
    let told = machine.tell_kernel(Path::new(EVM), &bits.to_string());
    told.map_err(|error| {
        let errno = error.root_cause().downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
        let why = match errno {
            Some(nix::libc::EPERM) if before & EVM_SETUP_COMPLETE != 0 => "its setup was declared complete before",
            Some(nix::libc::EPERM) => "a key of HMAC excludes what EVM_ACTIVATION_BITS asks for",
            Some(nix::libc::EINVAL) => "this kernel does not know all of the bits; look at EVM_ACTIVATION_BITS",
            Some(nix::libc::EBUSY) => "it has a key already",
            Some(nix::libc::ENOKEY) => "it does not find its key",
            _ => "the kernel refuses",
        };
        error.context(format!("EVM is not at work: {why}"))
    })?;
    info!("EVM is at work ({bits:#x})");
    Ok(())
}

fn load_master(master: &MasterKey, moment: &Moment, machine: &mut dyn Machine) -> anyhow::Result<()> {
    let MasterKey { kind, path, pcrlock } = master;
    let bytes = read(path, moment, machine)?;
    let payload = match kind {
        // As a shell would read it: a line end at the end of the file is not part of the key.
        super::MasterKind::User => without_line_end(bytes),
        super::MasterKind::Trusted => {
            load(machine, &["tpm_tis", "tpm_crb", "trusted"]);
            let text = String::from_utf8_lossy(&bytes);
            let lock = pcrlock.map(|pcr| format!(" pcrlock={pcr}")).unwrap_or_default();
            format!("load {}{lock}", text.trim()).into_bytes()
        }
    };
    let added = machine.keys().add(kind.name(), kind.description(), &payload, USER_RING);
    added
        .map_err(|error| refusal(error, kind.name(), "@u"))
        .with_context(|| format!("the kernel does not take the master key in {}", path.display()))?;
    debug!("the master key {} is loaded", kind.description());
    Ok(())
}

fn without_line_end(mut bytes: Vec<u8>) -> Vec<u8> {
    while bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    bytes
}

/// Whether the kernel lives on with EVM's HMAC. The BPF LSM names no attribute of a new file, and EVM read the name before
/// 6.6: the first file that is made is the last.
fn survives(release: &str, machine: &mut dyn Machine) -> anyhow::Result<()> {
    let modules = machine.ask_kernel(&Path::new(SECURITYFS).join("lsm")).unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse().ok());
    let version = (numbers.next().unwrap_or(u32::MAX), numbers.next().unwrap_or(0));
    let has = |name: &str| modules.split(',').any(|module| module == name);
    // These name one, and the BPF LSM leaves it as it is.
    if version >= SPARES_THE_NAMELESS || !has("bpf") || has("selinux") || has("smack") {
        return Ok(());
    }
    let others: Vec<&str> = modules.split(',').filter(|module| !matches!(*module, "bpf" | "capability")).collect();
    bail!(
        "EVM's key is not loaded: beside the BPF LSM, a kernel before {}.{} with that key crashes when the next file is \
         made; boot with lsm={}",
        SPARES_THE_NAMELESS.0,
        SPARES_THE_NAMELESS.1,
        others.join(",")
    )
}

fn load_evm_key(path: &Path, moment: &Moment, machine: &mut dyn Machine) -> anyhow::Result<KeyId> {
    load(machine, &["encrypted_keys"]);
    let text =
        String::from_utf8(read(path, moment, machine)?).with_context(|| format!("{} is not text", path.display()))?;
    let added = machine.keys().add("encrypted", EVM_KEY, format!("load {}", text.trim()).as_bytes(), USER_RING);
    added
        .map_err(|error| refusal(error, "encrypted", "@u"))
        .with_context(|| format!("the kernel does not take EVM's key in {}", path.display()))
}

/// Adds certificates to the ring `.NAME` where the kernel has one, else to `_NAME` of root, and says how many it took.
fn load_certificates(
    name: &str,
    paths: &[PathBuf],
    moment: &Moment,
    machine: &mut dyn Machine,
    tried: &mut dyn FnMut(anyhow::Result<()>),
) -> usize {
    if paths.is_empty() {
        return 0;
    }
    load(machine, &["asymmetric_keys", "public_key", "x509_key_parser"]);
    let (own, users) = (format!(".{name}"), format!("_{name}"));
    let ring = match machine.keys().ring(&own) {
        Some(ring) => Ok((ring, own)),
        None => users_ring(&users, machine).map(|ring| (ring, users)),
    };
    let (ring, ring_name) = match ring {
        Ok(ring) => ring,
        Err(error) => {
            tried(Err(error));
            return 0;
        }
    };
    let mut count = 0;
    for path in paths {
        let added = read(path, moment, machine).and_then(|certificate| {
            add_certificate(machine.keys(), &certificate, ring, &ring_name)
                .with_context(|| format!("the kernel does not take the certificate {}", path.display()))
        });
        match added {
            Ok(_) => count += 1,
            Err(error) => tried(Err(error)),
        }
    }
    info!("{count} of {} certificates are in {ring_name}", paths.len());
    count
}

/// The ring of root that a kernel without a ring of its own looks for (`CONFIG_INTEGRITY_TRUSTED_KEYRING` is not set).
fn users_ring(name: &str, machine: &mut dyn Machine) -> anyhow::Result<KeyId> {
    if let Some(ring) = machine.keys().ring(name) {
        return Ok(ring);
    }
    let made = machine.keys().add("keyring", name, &[], USER_RING);
    made.map_err(|error| refusal(error, "keyring", "@u")).with_context(|| format!("cannot make the ring {name}"))
}

/// The kernel reads the file itself, and then measures and appraises it as well; where it does not, it is told the content.
fn load_policy(policy: &Path, moment: &Moment, machine: &mut dyn Machine) -> anyhow::Result<()> {
    if !machine.has_file(Path::new(POLICY)) {
        bail!(
            "the policy {} is not loaded: this kernel has one already and takes no second (CONFIG_IMA_WRITE_POLICY)",
            policy.display()
        );
    }
    let text = String::from_utf8(read(policy, moment, machine)?)
        .with_context(|| format!("{} is not text", policy.display()))?;
    // The root's own may have a signature beside it, which an image cannot have.
    let files =
        [policy.to_owned()].into_iter().filter(|file| machine.has_file(file)).chain(on_root(policy, moment, machine));
    let mut ways: Vec<String> = files.map(|file| file.display().to_string()).collect();
    ways.push(text);
    let (mut last, told) = (None, policy.display().to_string());
    for way in ways {
        match machine.tell_kernel(Path::new(POLICY), &way) {
            Ok(()) => {
                info!("IMA's policy is {}", if way.starts_with('/') { &way } else { &told });
                return Ok(());
            }
            Err(error) => last = Some(error),
        }
    }
    let Some(error) = last else { return Ok(()) };
    let errno = error.root_cause().downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    let why = match errno {
        Some(nix::libc::EINVAL) => "one of its rules is none that this kernel knows",
        Some(nix::libc::EACCES | nix::libc::EPERM) => {
            "this kernel takes signed policies only; sign it with `evmctl ima_sign` by a key whose certificate is in .ima"
        }
        Some(nix::libc::EBUSY) => "another program is giving it one",
        _ => "the kernel refuses it",
    };
    Err(error.context(format!("the policy {} is not loaded: {why}", policy.display())))
}

/// What a file holds. That of the image is used where there is one, as the boot loader may have vouched for it; it is told
/// where the root has another one.
fn read(path: &Path, moment: &Moment, machine: &mut dyn Machine) -> anyhow::Result<Vec<u8>> {
    let (file, bytes, other) = find(path, moment, machine)?;
    match other {
        Some(other) => warn!(
            "{} is used as it is in this image, and {} is another one; build the image again for that one",
            file.display(),
            other.display()
        ),
        None => debug!("{} is read", file.display()),
    }
    Ok(bytes)
}

/// The file that is used, what it holds, and the one on the root that holds something else.
fn find(
    path: &Path,
    moment: &Moment,
    machine: &mut dyn Machine,
) -> anyhow::Result<(PathBuf, Vec<u8>, Option<PathBuf>)> {
    let on_root = on_root(path, moment, machine);
    if machine.has_file(path) {
        let bytes = machine.read_file(path)?;
        let other = on_root.filter(|file| machine.read_file(file).is_ok_and(|other| other != bytes));
        return Ok((path.to_owned(), bytes, other));
    }
    let Some(file) = on_root else {
        let place =
            if moment.stage == Stage::Switch { "neither in this image nor on the root" } else { "not in this image" };
        bail!("{} is {place}; build the image again when the file is where this one is looked for", path.display());
    };
    let bytes = machine.read_file(&file)?;
    Ok((file, bytes, None))
}

/// The file of the root, once that is mounted.
fn on_root(path: &Path, moment: &Moment, machine: &dyn Machine) -> Option<PathBuf> {
    let root = Path::new(SYSROOT);
    let file = below(root, &canonical(root, path).unwrap_or_else(|_| path.to_owned()));
    Some(file).filter(|file| moment.stage == Stage::Switch && machine.has_file(file))
}

/// What is built in, or not there, shows when it is needed.
fn load(machine: &mut dyn Machine, modules: &[&str]) {
    for module in modules {
        if let Err(error) = machine.load_module(module) {
            debug!("{error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::MasterKind;
    use super::*;
    use crate::fake::{FakeKeys, FakeMachine};
    use nix::libc;
    use std::time::Duration;

    fn everything() -> Integrity {
        Integrity {
            master: Some(MasterKey { kind: MasterKind::User, path: "/keys/kmk".into(), pcrlock: None }),
            evm_key: Some("/keys/evm".into()),
            evm_certificates: vec!["/keys/x509_evm.der".into()],
            evm_bits: EVM_SETUP_COMPLETE,
            ima_certificates: vec!["/keys/ima/a.der".into()],
            policy: Some("/etc/ima-policy".into()),
        }
    }

    fn machine(rings: &[&str]) -> FakeMachine {
        let mut machine = FakeMachine { keys: FakeKeys::with_rings(rings), ..FakeMachine::default() };
        for (path, text) in [
            ("/keys/kmk", "secret\n"),
            ("/keys/evm", "default user:kmk-user 32 00\n"),
            ("/keys/x509_evm.der", "E"),
            ("/keys/ima/a.der", "I"),
            ("/etc/ima-policy", "measure func=BPRM_CHECK\n"),
            ("/sys/kernel/security", ""),
            (IMA, ""),
            (POLICY, ""),
            (EVM, "0"),
        ] {
            machine.files.insert(path.into(), text.to_owned());
        }
        machine
    }

    fn act(integrity: &Integrity, machine: &mut FakeMachine) -> anyhow::Result<()> {
        activate(integrity, &Moment::at(Stage::Switch, Duration::from_secs(9)), machine)
    }

    fn told(machine: &FakeMachine) -> Vec<&str> {
        machine.journal.iter().map(String::as_str).filter(|line| !line.starts_with("load ")).collect()
    }

    #[test]
    fn keys_come_before_evm_and_certificates_before_the_policy() {
        let mut machine = machine(&[".ima", ".evm"]);
        act(&everything(), &mut machine).unwrap();
        assert_eq!(
            machine.keys.journal,
            [
                "add user kmk-user secret to @u",
                "add encrypted evm-key load default user:kmk-user 32 00 to @u",
                "add asymmetric  E to .evm",
                "unlink evm-key from @u",
                "add asymmetric  I to .ima"
            ]
        );
        assert_eq!(
            told(&machine),
            [
                "mount securityfs /sys/kernel/security securityfs nosuid,nodev,noexec",
                "write 2147483651 to /sys/kernel/security/evm",
                "write /etc/ima-policy to /sys/kernel/security/ima/policy"
            ]
        );
    }

    #[test]
    fn a_kernel_without_rings_of_its_own_gets_those_of_root_once() {
        let mut machine = machine(&[]);
        act(&everything(), &mut machine).unwrap();
        assert!(machine.keys.journal.contains(&"add keyring _ima  to @u".to_owned()), "{:?}", machine.keys.journal);
        assert!(machine.keys.journal.contains(&"add asymmetric  I to _ima".to_owned()));
        let before = machine.keys.journal.len();
        act(&everything(), &mut machine).unwrap();
        assert!(!machine.keys.journal[before..].iter().any(|line| line.starts_with("add keyring")));
    }

    #[test]
    fn a_sealed_master_key_is_unsealed_once_in_a_boot() {
        let mut machine = machine(&[".ima", ".evm"]);
        let master = Some(MasterKey { kind: MasterKind::Trusted, path: "/keys/kmk".into(), pcrlock: Some(11) });
        act(&Integrity { master, ..everything() }, &mut machine).unwrap();
        assert_eq!(machine.keys.journal[0], "add trusted kmk-trusted load secret pcrlock=11 to @u");
        assert!(machine.journal.contains(&"load tpm_crb".to_owned()));
    }

    #[test]
    fn whatever_is_refused_is_told_with_what_is_missing_and_the_rest_is_done() {
        let mut machine = machine(&[".ima", ".evm"]);
        machine.keys.refuses.insert("encrypted".into(), libc::ENOKEY);
        machine.keys.refuses.insert(".ima".into(), libc::ENOKEY);
        let error = format!("{:#}", act(&everything(), &mut machine).unwrap_err());
        assert!(error.contains("the master key that it is encrypted with is not there"), "{error}");
        assert!(error.contains("a CA in .builtin_trusted_keys"), "{error}");
        assert_eq!(
            told(&machine)[1..],
            [
                "write 2147483650 to /sys/kernel/security/evm",
                "write /etc/ima-policy to /sys/kernel/security/ima/policy"
            ]
        );
    }

    #[test]
    fn without_a_key_or_a_certificate_evm_is_left_alone() {
        let mut machine = machine(&[".ima", ".evm"]);
        machine.keys.refuses.insert("user".into(), libc::EDQUOT);
        machine.keys.refuses.insert(".evm".into(), libc::EBADMSG);
        let error = format!("{:#}", act(&everything(), &mut machine).unwrap_err());
        assert!(error.contains("too many keys") && error.contains("no X.509 certificate"), "{error}");
        assert!(!told(&machine).iter().any(|line| line.ends_with("/evm")));
    }

    #[test]
    fn a_kernel_that_the_key_would_crash_is_spared_and_gets_the_certificates_alone() {
        for (release, lsm, is_spared) in [
            ("6.1.0-56-cloud-amd64", "lockdown,capability,integrity,bpf", true),
            ("5.14.0-427.el9.x86_64", "capability,bpf", true),
            ("6.1.0-56-cloud-amd64", "lockdown,capability,integrity", false),
            ("5.14.0-427.el9.x86_64", "capability,selinux,bpf", false),
            ("6.6.1", "lockdown,bpf", false),
            ("6.12.117+deb13-cloud-amd64", "lockdown,bpf", false),
            ("7.0-rc1", "bpf", false),
        ] {
            let mut machine = machine(&[".ima", ".evm"]);
            machine.files.insert("/sys/kernel/security/lsm".into(), lsm.to_owned());
            let moment = Moment { kernel_release: release.into(), ..Moment::at(Stage::Switch, Duration::from_secs(9)) };
            let done = activate(&everything(), &moment, &mut machine);
            let bits = if is_spared { EVM_SETUP_COMPLETE | 2 } else { EVM_SETUP_COMPLETE | 3 };
            assert!(machine.journal.contains(&format!("write {bits} to {EVM}")), "{release} {lsm}");
            assert_eq!(machine.keys.journal.iter().any(|line| line.contains("evm-key")), !is_spared, "{release} {lsm}");
            match is_spared {
                true => assert!(format!("{:#}", done.unwrap_err()).contains("boot with lsm=")),
                false => done.unwrap(),
            }
        }
    }

    #[test]
    fn evm_that_is_at_work_is_not_told_again() {
        let mut machine = machine(&[".ima", ".evm"]);
        machine.files.insert(EVM.into(), "2147483651".into());
        act(&everything(), &mut machine).unwrap();
        assert!(!told(&machine).iter().any(|line| line.ends_with("/evm")));
    }

    #[test]
    fn each_refusal_of_evm_has_its_reason() {
        for (errno, before, expected) in [
            (libc::EPERM, "2147483649", "declared complete"),
            (libc::EINVAL, "0", "EVM_ACTIVATION_BITS"),
            (libc::EBUSY, "1", "a key already"),
            (libc::ENOKEY, "0", "does not find its key"),
        ] {
            let mut machine = machine(&[".ima", ".evm"]);
            machine.files.insert(EVM.into(), before.into());
            machine.refused_writes.insert(EVM.into(), vec![errno]);
            let error = format!("{:#}", act(&everything(), &mut machine).unwrap_err());
            assert!(error.contains("EVM is not at work") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_policy_is_read_by_the_kernel_from_the_image_from_the_root_or_told() {
        let alone = Integrity { policy: Some("/etc/ima-policy".into()), ..Integrity::default() };
        let mut machine = machine(&[]);
        machine.files.insert("/sysroot/etc/ima-policy".into(), String::new());
        machine.refused_writes.insert(POLICY.into(), vec![libc::EACCES, libc::EACCES]);
        act(&alone, &mut machine).unwrap();
        let writes: Vec<_> = machine.journal.iter().filter(|line| line.starts_with("write ")).collect();
        assert_eq!(writes.len(), 3);
        assert!(writes[1].starts_with("write /sysroot/etc/ima-policy"), "{writes:?}");
        assert!(writes[2].starts_with("write measure func=BPRM_CHECK"), "{writes:?}");
        for (errno, expected) in [(libc::EINVAL, "none that this kernel knows"), (libc::EACCES, "evmctl ima_sign")] {
            machine.refused_writes.insert(POLICY.into(), vec![errno; 3]);
            let error = format!("{:#}", act(&alone, &mut machine).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_the_image_lacks_is_read_from_the_root_once_that_is_there() {
        let mut machine = machine(&[".ima", ".evm"]);
        machine.files.insert("/proc/cmdline".into(), "evmx509=/etc/keys/later.der".into());
        machine.files.insert("/sysroot/etc/keys/later.der".into(), "L".into());
        let policy = machine.files.remove(Path::new("/etc/ima-policy")).unwrap();
        machine.files.insert("/sysroot/etc/ima-policy".into(), policy);
        act(&everything(), &mut machine).unwrap();
        assert!(machine.keys.journal.contains(&"add asymmetric  L to .evm".to_owned()), "{:?}", machine.keys.journal);
        assert_eq!(told(&machine)[2], "write /sysroot/etc/ima-policy to /sys/kernel/security/ima/policy");

        let early = Moment::at(Stage::Target, Duration::from_secs(9));
        let error = format!("{:#}", activate(&everything(), &early, &mut machine).unwrap_err());
        assert!(error.contains("/etc/keys/later.der is not in this image"), "{error}");
    }

    #[test]
    fn of_two_that_differ_that_of_the_image_is_used_and_the_other_told() {
        let mut machine = machine(&[]);
        let moment = Moment::at(Stage::Switch, Duration::from_secs(9));
        let (path, on_root) = (Path::new("/keys/ima/a.der"), PathBuf::from("/sysroot/keys/ima/a.der"));
        for (text, expected) in [("I", None), ("another", Some(on_root.clone()))] {
            machine.files.insert(on_root.clone(), text.into());
            assert_eq!(find(path, &moment, &mut machine).unwrap(), (path.to_owned(), b"I".to_vec(), expected));
        }
    }

    #[test]
    fn what_the_kernel_lacks_is_named() {
        for (gone, expected) in [
            (POLICY, "CONFIG_IMA_WRITE_POLICY"),
            (IMA, "CONFIG_IMA,"),
            (EVM, "CONFIG_EVM,"),
            (SECURITYFS, "CONFIG_SECURITYFS"),
            ("/keys/ima/a.der", "is neither in this image nor on the root"),
        ] {
            let mut machine = machine(&[".ima", ".evm"]);
            machine.files.remove(Path::new(gone));
            let error = format!("{:#}", act(&everything(), &mut machine).unwrap_err());
            assert!(error.contains(expected), "{gone}: {error}");
        }
    }

    #[test]
    fn the_kernel_command_line_goes_before_what_was_built_in() {
        let told = |line: &str| as_told(&everything(), &Cmdline::parse(line));
        let sound = |line: &str| {
            let (integrity, told) = told(line);
            told.map(|()| integrity)
        };
        let integrity = sound("evmkey=/k/e evmx509=/k/x masterkey=/k/m masterkeytype=trusted").unwrap();
        assert_eq!(integrity.evm_key, Some("/k/e".into()));
        assert_eq!(integrity.evm_certificates, [PathBuf::from("/k/x"), "/keys/x509_evm.der".into()]);
        let master = integrity.master.unwrap();
        assert_eq!((master.kind, master.path), (MasterKind::Trusted, "/k/m".into()));
        assert!(sound("masterkeytype=logon").is_err());
        let (_, nothing) = as_told(&Integrity::default(), &Cmdline::parse("masterkey=/k/m"));
        assert!(format!("{:#}", nothing.unwrap_err()).contains("add masterkeytype="));
        assert_eq!(sound("quiet").unwrap(), everything());
    }

    #[test]
    fn a_master_key_that_is_told_wrongly_switches_off_nothing_but_itself_and_what_it_decrypts() {
        let mut machine = machine(&[".ima", ".evm"]);
        machine.files.insert("/proc/cmdline".into(), "masterkeytype=logon evmx509=/keys/x509_evm.der".into());
        let error = format!("{:#}", act(&everything(), &mut machine).unwrap_err());
        assert!(error.starts_with("neither the master key nor EVM's key is loaded: masterkeytype="), "{error}");
        assert_eq!(machine.keys.journal, ["add asymmetric  E to .evm", "add asymmetric  I to .ima"]);
        assert_eq!(
            told(&machine)[1..],
            [
                "write 2147483650 to /sys/kernel/security/evm",
                "write /etc/ima-policy to /sys/kernel/security/ima/policy"
            ]
        );
    }
}
