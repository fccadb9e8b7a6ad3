//! IMA, EVM and keys for modules on a real kernel: what the image gives it before the first program of the system runs, and
//! what the kernel then does; and the same in a capture kernel.
//!
//! ```text
//!  trusted: built into the kernel ─▶ image's: the image brings its certificate ─▶ the modules of the disk, dummy, a patch
//!                                 └▶ absent's: its certificate stays away      ─▶ veth
//!  stranger's: nobody vouches for it; the image brings its certificate in vain ─▶ ifb, a patch
//! ```
//!
//! Surprising: nothing but what the image's certificate vouches for is loaded, the disk's driver included, so that a system
//! that comes up at all has shown that the certificate came before the first module.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use qemu_tests::folders;
use qemu_tests::normal::{NormalBoot, Outcome, Place, Then, boot};
use qemu_tests::prelude::*;
use qemu_tests::programs::programs;
use qemu_tests::provision::{Kernel, own_module};
use qemu_tests::scenario::Content;
use qemu_tests::signer::{Signer, encrypted_key, unsigned};
use qemu_tests::trusting::trusting;

/// The system's first program: it says what it finds.
const PROBE: &str = "/usr/local/sbin/probe";

const LINES: &str = "b=/bin/busybox
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
say() { echo \"GUEST: $1=$2\"; }
cd /sys/kernel/security
$b sed 's/^/GUEST: measured=/' ima/ascii_runtime_measurements
say policy \"$($b ls ima | $b tr '\\n' ' ')\"
say evm \"$($b cat evm)\"
$b sed 's/^/GUEST: keys=/' /proc/keys
$b dmesg | $b grep -i 'evm: ' | $b sed 's/^/GUEST: log=/'
say loaded \"$(/usr/sbin/kpatch load /modules/patch.ko 2>&1 | $b tr '\\n' ';')\"
say effect \"$($b cat /proc/cmdline)\"
/usr/sbin/kpatch unload --all
before=$($b dmesg | $b grep -c 'is rejected\\|is restricted')
say foreign \"$(/usr/sbin/kpatch load /modules/foreign-patch.ko 2>&1 | $b tr '\\n' ';')\"
say naked \"$(/usr/sbin/kpatch load /modules/bare-patch.ko 2>&1 | $b tr '\\n' ';')\"
say asked $(($($b dmesg | $b grep -c 'is rejected\\|is restricted') - before))
for name in ours absent strange debian bare foreign-patch bare-patch; do
    $b insmod /modules/$name.ko
    say $name $?
done
say lax \"$(/usr/sbin/kdumpctl modules 2>&1 | $b tr '\\n' ';')\"
echo 'extra_modules ifb' >> /etc/kdump.conf
say strict \"$(/usr/sbin/kdumpctl modules 2>&1 | $b tr '\\n' ';')\"
$b sync
echo o > /proc/sysrq-trigger
$b sleep 60";

/// Before 6.6, EVM's HMAC does not get along with the BPF LSM.
const LSM: &str = "lsm=landlock,lockdown,yama,integrity,apparmor";

const MASTER: &str = "thirty-two bytes of a master key";

#[test]
fn policy_keys_and_certificates_are_there_before_the_system_s_first_program() -> Result<()> {
    // EKEYREJECTED is 129.
    before_the_first_program("integrity", ("module.sig_enforce=1", "module.sig_enforce"), "129")
}

#[test]
#[ignore = "as the first one, but that it is a lockdown that asks for signatures"]
fn certificates_of_the_image_are_trusted_by_a_kernel_that_is_locked_down() -> Result<()> {
    // EPERM is 1.
    before_the_first_program("integrity-lockdown", ("lockdown=integrity", "lockdown"), "1")
}

/// `word` has the kernel ask for signatures, `asks` is what that is called, and `code` is how insmod then ends.
fn before_the_first_program(name: &str, (word, asks): (&str, &str), code: &str) -> Result<()> {
    let theirs = kernel(Suite::Own)?;
    let folder = Scenario::of(theirs.clone(), &format!("{name}-keys")).folder();
    folders::fresh(&folder)?;
    let (kernel, trusted) = trusting(&theirs, &folder)?;
    let image = trusted.vouch(&folder.join("image"), "image's")?;
    kernel.sign(&image, &["virtio_pci", "virtio_blk", "ext4"])?;
    let mut scenario = Scenario { busybox: true, memory_mib: 768, ..Scenario::of(kernel.clone(), name) };
    scenario.files = files(&theirs, &kernel, &folder, &trusted, &image)?;
    // Whatever is not trusted is refused.
    let append = format!("root=LABEL={LABEL} rw {word} {LSM} loglevel=5 init={PROBE}");
    let options = vec!["--integrity".into(), "--modsign".into()];
    let outcome = boot(&NormalBoot { scenario, place: Place::Disk, options, append, then: Then::PowerOff })?;
    ensure!(outcome.ending == Ending::PowerOff, "the ending was {:?}", outcome.ending);

    // The kernel measures a program before it runs: the first one is there, so the policy was there before.
    let measured = all(&outcome, "measured");
    ensure!(measured.iter().any(|line| line.ends_with(PROBE)), "{PROBE} was not measured: {measured:?}");
    ensure!(!outcome.said("policy")?.contains("policy "), "there may be another policy: {}", outcome.said("policy")?);

    ensure!(outcome.said("evm")? == "3", "EVM says {}", outcome.said("evm")?);
    let log = all(&outcome, "log");
    ensure!(log.iter().any(|line| line.contains("initialized")), "the kernel says of EVM: {log:?}");
    let keys = all(&outcome, "keys");
    for expected in ["_ima: 1", "_evm: 1", "kmk-user: 32"] {
        ensure!(keys.iter().any(|line| line.contains(expected)), "there is no {expected}: {keys:?}");
    }
    ensure!(!keys.iter().any(|line| line.contains("evm-key")), "EVM's key is for everybody: {keys:?}");

    let says = |words: &[&str]| outcome.console.lines().any(|line| words.iter().all(|word| line.contains(word)));
    ensure!(says(&["modsign", "/etc/keys/modsign/stranger.der", "vouches", "mokutil"]), "the refusal was not told");
    ensure!(says(&["modules are trusted by /etc/keys/modsign/image.der"]), "the certificate was not told");
    for key in ["trusted: ", "image's: "] {
        ensure!(keys.iter().any(|line| line.contains(key)), "the kernel has no key {key}: {keys:?}");
    }
    // What is told beforehand is what the kernel does, to whose log nothing comes of what is refused beforehand.
    for (what, words) in [
        ("loaded", &["live_patch_one is enabled"][..]),
        ("effect", &["live patch one"]),
        ("foreign", &["would refuse", "does not have its key", "CN=stranger's", asks]),
        ("naked", &["would refuse", "it has no signature", asks]),
    ] {
        for word in words {
            ensure!(outcome.said(what)?.contains(word), "{what} does not say {word}: {}", outcome.said(what)?);
        }
    }
    ensure!(outcome.said("asked")? == "0", "the kernel was asked {} times", outcome.said("asked")?);
    const REFUSED: [&str; 6] = ["absent", "strange", "debian", "bare", "foreign-patch", "bare-patch"];
    for (name, expected) in [("ours", "0")].into_iter().chain(REFUSED.map(|name| (name, code))) {
        ensure!(outcome.said(name)? == expected, "insmod {name} ended with {}", outcome.said(name)?);
    }
    let lax = outcome.said("lax")?;
    ensure!(lax.contains("virtio_blk: accepted;") && !lax.contains("refused"), "kdumpctl modules: {lax}");
    let strict = outcome.said("strict")?;
    for expected in ["would refuse the module ifb", "does not have its key", "CN=stranger's", asks] {
        ensure!(strict.contains(expected), "kdumpctl modules does not say {expected}: {strict}");
    }
    Ok(())
}

#[test]
fn a_capture_image_has_them_if_kdump_conf_asks_for_dracut_s_modules() -> Result<()> {
    let kernel = kernel(Suite::Own)?;
    let folder = Scenario::of(kernel.clone(), "integrity-crash-keys").folder();
    folders::fresh(&folder)?;
    let stranger = Signer::new(&folder.join("stranger"), "stranger's")?;
    let scenario = Scenario {
        files: keys_and_policy(&folder, &stranger)?,
        conf: vec!["dracut_args --add \"integrity masterkey modsign\"".into()],
        append: LSM.into(),
        ..Scenario::of(kernel, "integrity-crash")
    };
    let outcome = crash(&scenario)?;
    outcome.status()?.expect_outcome("complete")?;
    let log =
        fs::read_to_string(outcome.dump()?.join("kexec-dmesg.log")).context("the dump has no log of its kernel")?;
    for words in [
        &["EVM is at work"][..],
        &["IMA's policy is /etc/sysconfig/ima-policy"],
        &["1 of 1 certificates are in _ima"],
        // The kernel was asked, and said no: nobody vouches for that one.
        &["modsign", "/etc/keys/modsign/stranger.der", "vouches"],
    ] {
        let said = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
        ensure!(said, "the capture kernel does not say {words:?}:\n{log}");
    }
    Ok(())
}

/// Everything that the probe says of something.
fn all<'a>(outcome: &'a Outcome, what: &str) -> Vec<&'a str> {
    let start = format!("GUEST: {what}=");
    outcome.console.lines().filter_map(|line| Some(line.split_once(&start)?.1.trim())).collect()
}

fn bytes(path: &str, bytes: &[u8]) -> GuestFile {
    GuestFile { path: path.into(), content: Content::Bytes(bytes.to_vec()) }
}

/// What dracut's modules `integrity`, `masterkey` and `modsign` bring, with one certificate for all.
fn keys_and_policy(folder: &Path, signer: &Signer) -> Result<Vec<GuestFile>> {
    let certificate = signer.certificate()?;
    Ok(vec![
        GuestFile::text("/etc/sysconfig/ima-policy", "measure func=BPRM_CHECK mask=MAY_EXEC\n"),
        GuestFile::text("/etc/sysconfig/masterkey", "MASTERKEYTYPE=user\n"),
        GuestFile::text("/etc/keys/kmk-user.blob", &format!("{MASTER}\n")),
        GuestFile::text("/etc/keys/evm-trusted.blob", &encrypted_key(folder, MASTER.as_bytes(), "kmk-user")?),
        bytes("/etc/keys/x509_evm.der", &certificate),
        bytes("/etc/keys/ima/ours.der", &certificate),
        bytes("/etc/keys/modsign/stranger.der", &certificate),
    ])
}

/// What the system has; `theirs` is the kernel as Debian has it.
fn files(theirs: &Kernel, kernel: &Kernel, keys: &Path, trusted: &Signer, image: &Signer) -> Result<Vec<GuestFile>> {
    let stranger = Signer::new(&keys.join("stranger"), "stranger's")?;
    let absent = trusted.vouch(&keys.join("absent"), "absent's")?;
    let read = |path: &Path| fs::read(path).with_context(|| format!("unable to read {}", path.display()));
    let module = |name: &str| read(&theirs.modules.join("kernel/drivers/net").join(format!("{name}.ko")));
    let patch = read(&own_module(theirs, "live-patch-one")?)?;
    let strange = stranger.sign(&module("ifb")?)?;
    let modules = format!("/usr/lib/modules/{}", kernel.release);
    let mut files = keys_and_policy(keys, &stranger)?;
    files.extend([
        GuestFile::script(PROBE, LINES),
        bytes("/etc/keys/modsign/image.der", &image.certificate()?),
        GuestFile { path: "/usr/sbin/kpatch".into(), content: Content::Copy(programs()?.path("kpatch")) },
        GuestFile { path: modules.clone(), content: Content::Copy(kernel.modules.clone()) },
        bytes(&format!("{modules}/kernel/drivers/net/ifb.ko"), &strange),
    ]);
    for (name, module) in [
        ("ours", image.sign(&module("dummy")?)?),
        ("absent", absent.sign(&module("veth")?)?),
        ("strange", strange),
        ("debian", module("nlmon")?),
        ("bare", unsigned(&module("veth")?)?),
        ("patch", image.sign(&patch)?),
        ("foreign-patch", stranger.sign(&patch)?),
        ("bare-patch", patch),
    ] {
        files.push(bytes(&format!("/modules/{name}.ko"), &module));
    }
    Ok(files)
}
