//! dracut's modules, as far as one of them may be asked for: what here does the same, or that nothing does.

use crate::config::{Given, Image, Origin};
use anyhow::bail;

/// What is there without being asked for, where it is needed.
const BY_ITSELF: [(&[&str], &str); 9] = [
    (
        &["lvm", "mdraid", "crypt", "dm", "multipath", "iscsi", "nvmf", "btrfs", "lvmthinpool-monitor", "lvmmerge"],
        "what lies between the target and its disks is found by itself",
    ),
    (&["nfs", "cifs", "ssh-client", "virtiofs", "virtiofs-modules"], "the target's own needs are found by themselves"),
    (
        &[
            "network",
            "network-legacy",
            "network-manager",
            "systemd-networkd",
            "systemd-network-management",
            "ifcfg",
            "kernel-network-modules",
            "net-lib",
            "qemu-net",
            "url-lib",
        ],
        "the network is brought up without another program, where the target needs one",
    ),
    (
        &[
            "base",
            "udev-rules",
            "systemd",
            "systemd-initrd",
            "dracut-systemd",
            "initqueue",
            "shutdown",
            "rootfs-block",
            "fs-lib",
            "fstab-sys",
            "kernel-modules",
            "kernel-modules-extra",
            "kernel-modules-export",
            "qemu",
            "usrmount",
            "bash",
            "dash",
            "busybox",
            "i18n",
            "terminfo",
            "dbus",
            "dbus-broker",
            "dbus-daemon",
            "systemd-udevd",
            "systemd-sysctl",
            "systemd-modules-load",
            "systemd-journald",
            "systemd-tmpfiles",
            "systemd-sysusers",
            "rngd",
            "warpclock",
            "watchdog-modules",
            "watchdog",
            "drm",
            "simpledrm",
            "plymouth",
            "hwdb",
            "resume",
            "memstrack",
            "debug",
            "squash",
            "squash-squashfs",
            "squash-erofs",
            "squash-lib",
            "overlayfs",
            "biosdevname",
        ],
        "init does without it, or does the same itself",
    ),
    (&["kdumpbase", "kdump", "99kdumpbase"], "saving the dump is what the image is for"),
    (&["earlykdump"], "it belongs to an image for a normal boot; build that with mkdumprd --normal --early-kdump"),
    (
        &["nvdimm", "dasd", "zfcp", "znet", "fcoe", "fcoe-uefi", "qeth_rules"],
        "what the target's disk needs is found by itself",
    ),
    (&["microcode_ctl-fw_dir_override"], "only an image for a normal boot has microcode"),
    (&["uefi-lib", "tpm2-tss", "pcmcia", "cms", "rescue", "test"], "it has no part in saving a dump"),
];

/// What nothing here does.
const NOT_HERE: [(&[&str], &str); 4] = [
    (&["fips", "fips-crypto-policies"], "no self-test of FIPS runs in the image; take it out of the line"),
    (&["ecryptfs", "securityfs", "selinux"], "nothing of it is loaded in the capture kernel; take it out"),
    (
        &["clevis", "clevis-pin-tang", "clevis-pin-tpm2", "clevis-pin-sss", "clevis-pin-null"],
        "no key comes from a server or a TPM; name a key file in /etc/crypttab",
    ),
    (
        &["nbd", "livenet", "dmsquash-live", "lunmask", "fido2", "pkcs11", "bluetooth"],
        "there is no such target in this version; name another, or list its programs in extra_bins",
    ),
];

/// Has the image bring what a module brings, if a setting of ours does so. Whether one does.
pub(super) fn set(name: &str, image: &mut Image, place: &Origin) -> bool {
    let setting = match name {
        "integrity" | "masterkey" => &mut image.integrity,
        "modsign" => &mut image.modsign,
        _ => return false,
    };
    *setting = Some(Given::at(true, place));
    true
}

/// Why it need not be asked for.
///
/// # Errors
/// It is missed; what to do instead.
pub(super) fn added(name: &str) -> anyhow::Result<&'static str> {
    if let Some((_, why)) = BY_ITSELF.iter().find(|(names, _)| names.contains(&name)) {
        return Ok(why);
    }
    match NOT_HERE.iter().find(|(names, _)| names.contains(&name)) {
        Some((_, what)) => bail!("dracut's module `{name}` is not supported: {what}"),
        None => bail!(
            "dracut's module `{name}` is not known here; name the modules and programs that it would bring, with \
             --add-drivers and --install"
        ),
    }
}
