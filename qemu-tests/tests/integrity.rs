//! IMA, EVM and keys for modules on a real kernel: what the image gives it before the first program of the system runs, and
//! what the kernel then does.

use std::fs;

use anyhow::{Context, Result, ensure};
use qemu_tests::normal::{NormalBoot, Outcome, Place, Then, boot};
use qemu_tests::prelude::*;
use qemu_tests::provision::Kernel;
use qemu_tests::scenario::Content;
use qemu_tests::signer::{Signer, encrypted_key, unsigned};

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
for name in theirs ours bare; do
    $b insmod /modules/$name.ko
    say $name $?
done
say lax \"$(/usr/sbin/kdumpctl modules 2>&1 | $b tr '\\n' ';')\"
echo 'extra_modules ifb' >> /etc/kdump.conf
say strict \"$(/usr/sbin/kdumpctl modules 2>&1 | $b tr '\\n' ';')\"
$b sync
echo o > /proc/sysrq-trigger
$b sleep 60";

const MASTER: &str = "thirty-two bytes of a master key";

#[test]
fn policy_keys_and_certificates_are_there_before_the_system_s_first_program() -> Result<()> {
    let kernel = kernel(Suite::Own)?;
    let mut scenario = Scenario { busybox: true, memory_mib: 768, ..Scenario::of(kernel.clone(), "integrity") };
    scenario.files = files(&kernel, &scenario.folder().with_file_name("integrity-keys"))?;
    // Whatever is not trusted is refused. Before 6.6, EVM's HMAC does not get along with the BPF LSM.
    let lsm = "lsm=landlock,lockdown,yama,integrity,apparmor";
    let append = format!("root=LABEL={LABEL} rw module.sig_enforce=1 {lsm} loglevel=5 init={PROBE}");
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

    // EKEYREJECTED is 129. No key of Debian's vouches for us, and the image says so.
    let says = |words: &[&str]| outcome.console.lines().any(|line| words.iter().all(|word| line.contains(word)));
    ensure!(says(&["modsign", "/etc/keys/modsign/ours.der", "vouches", "mokutil"]), "the refusal was not told");
    for (name, expected) in [("theirs", "0"), ("ours", "129"), ("bare", "129")] {
        ensure!(outcome.said(name)? == expected, "insmod {name} ended with {}", outcome.said(name)?);
    }

    // What is told beforehand is what the kernel does.
    let lax = outcome.said("lax")?;
    ensure!(lax.contains("virtio_blk: accepted;") && !lax.contains("refused"), "kdumpctl modules: {lax}");
    let strict = outcome.said("strict")?;
    for expected in ["would refuse the module ifb", "does not have its key", "CN=nobody's", "module.sig_enforce"] {
        ensure!(strict.contains(expected), "kdumpctl modules does not say {expected}: {strict}");
    }
    Ok(())
}

/// Everything that the probe says of something.
fn all<'a>(outcome: &'a Outcome, what: &str) -> Vec<&'a str> {
    let start = format!("GUEST: {what}=");
    outcome.console.lines().filter_map(|line| Some(line.split_once(&start)?.1.trim())).collect()
}

fn files(kernel: &Kernel, keys: &std::path::Path) -> Result<Vec<GuestFile>> {
    let signer = Signer::new(keys, "nobody's")?;
    let certificate = signer.certificate()?;
    let bytes = |path: &str, bytes: &[u8]| GuestFile { path: path.into(), content: Content::Bytes(bytes.to_vec()) };
    let module = |name: &str| {
        let path = kernel.modules.join("kernel/drivers/net").join(format!("{name}.ko"));
        fs::read(&path).with_context(|| format!("unable to read {}", path.display()))
    };
    let ours = signer.sign(&module("ifb")?)?;
    let modules = format!("/usr/lib/modules/{}", kernel.release);
    Ok(vec![
        GuestFile::script(PROBE, LINES),
        GuestFile::text("/etc/sysconfig/ima-policy", "measure func=BPRM_CHECK mask=MAY_EXEC\n"),
        GuestFile::text("/etc/sysconfig/masterkey", "MASTERKEYTYPE=user\n"),
        GuestFile::text("/etc/keys/kmk-user.blob", &format!("{MASTER}\n")),
        GuestFile::text("/etc/keys/evm-trusted.blob", &encrypted_key(keys, MASTER.as_bytes(), "kmk-user")?),
        bytes("/etc/keys/x509_evm.der", &certificate),
        bytes("/etc/keys/ima/ours.der", &certificate),
        bytes("/etc/keys/modsign/ours.der", &certificate),
        bytes("/modules/theirs.ko", &module("dummy")?),
        bytes("/modules/ours.ko", &ours),
        bytes("/modules/bare.ko", &unsigned(&module("veth")?)?),
        GuestFile { path: modules.clone(), content: Content::Copy(kernel.modules.clone()) },
        bytes(&format!("{modules}/kernel/drivers/net/ifb.ko"), &ours),
    ])
}
