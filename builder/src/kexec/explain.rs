//! What a refusal means, and what to do about it.
//!
//! In: an errno, and what is in force on the machine. Out: one error chain, the kernel's own words at its end.

use super::Guard;
use std::io;

/// Says what a refusal means.
pub fn explain(error: io::Error, guard: &Guard) -> anyhow::Error {
    let meaning = match error.raw_os_error() {
        Some(libc::EPERM) if guard.load_disabled => {
            "kernel.kexec_load_disabled is 1, which only a reboot takes back; load the capture kernel before it is set"
                .to_owned()
        }
        Some(libc::EPERM) => match (&guard.lockdown, guard.spent) {
            (_, Some(limit)) => format!(
                "kernel.{limit} is 0: as many kernels have been loaded as it allows, and only a reboot takes it back; raise it \
                 where it is set, in /etc/sysctl.d"
            ),
            (Some(level), None) if guard.firmware_has_keys => format!(
                "the kernel is locked down ({level}) and takes only a kernel that is signed with a key of its own; use the \
                 distribution's signed kernel, or enrol your key with mokutil"
            ),
            // The distribution's own key is then a stranger's, too, where the kernel trusts it through the firmware alone.
            (Some(level), None) => format!(
                "the kernel is locked down ({level}) and takes only a kernel that is signed with a key that was built into \
                 it, since without EFI no firmware brings others; boot without lockdown=, or by EFI"
            ),
            (None, None) => "only root may do this; run it as root".to_owned(),
        },
        Some(libc::EACCES) => {
            "a security module, such as SELinux or IMA, refuses it; look for `denied` in the audit log and allow \
             kdumpctl to load kernels"
                .to_owned()
        }
        Some(libc::ENOEXEC) => {
            "the kernel does not know this kind of kernel image; name a bzImage with KDUMP_IMG".to_owned()
        }
        Some(libc::EADDRNOTAVAIL | libc::ENOMEM) => {
            "the reserved memory is too small for kernel and image, or the system has none left; raise crashkernel= \
             (kdumpctl estimate says to what, kdumpctl reset-crashkernel sets it) and reboot"
                .to_owned()
        }
        Some(libc::EKEYREJECTED | libc::ENOKEY | libc::EBADMSG | libc::ENODATA) => {
            let why = if guard.secure_boot { ", and Secure Boot asks for that" } else { "" };
            format!(
                "the kernel image is not signed with a key that this kernel trusts{why}; use the distribution's signed \
                 kernel, or enrol your key with mokutil"
            )
        }
        Some(libc::ENOSYS) => {
            "this kernel was built without kexec_file_load; boot one with CONFIG_KEXEC_FILE and CONFIG_CRASH_DUMP"
                .to_owned()
        }
        Some(libc::EBUSY) => "another load is under way; try again".to_owned(),
        Some(libc::EINVAL) => {
            "the command line is too long for the capture kernel or the files are of no use to it".to_owned()
        }
        _ => return anyhow::Error::new(error),
    };
    anyhow::Error::new(error).context(meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_comes_with_its_meaning() {
        let free = Guard::default();
        let disabled = Guard { load_disabled: true, ..Guard::default() };
        let locked = Guard { lockdown: Some("integrity".into()), ..Guard::default() };
        let firmware = Guard { firmware_has_keys: true, ..locked.clone() };
        let spent = Guard { spent: Some("kexec_load_limit_panic"), ..Guard::default() };
        let secure = Guard { secure_boot: true, ..Guard::default() };
        for (errno, guard, words) in [
            (libc::EPERM, &disabled, "kexec_load_disabled is 1"),
            (libc::EPERM, &free, "run it as root"),
            (libc::EPERM, &locked, "(integrity) and takes only a kernel that is signed with a key that was built into"),
            (libc::EPERM, &firmware, "(integrity) and takes only a kernel that is signed with a key of its own"),
            (libc::EPERM, &spent, "kernel.kexec_load_limit_panic is 0"),
            (libc::EACCES, &free, "SELinux"),
            (libc::ENOEXEC, &free, "bzImage"),
            (libc::EADDRNOTAVAIL, &free, "raise crashkernel="),
            (libc::EKEYREJECTED, &free, "not signed with a key that this kernel trusts; use"),
            (libc::EKEYREJECTED, &secure, "Secure Boot asks for that"),
            (libc::ENOSYS, &free, "CONFIG_KEXEC_FILE"),
            (libc::EIO, &free, "os error 5"),
        ] {
            let text = format!("{:#}", explain(io::Error::from_raw_os_error(errno), guard));
            assert!(text.contains(words), "{text}");
        }
    }
}
