//! Where the keys of the kernel that an image is for are looked for.
//!
//! In: the kernel's image, the firmware's variables and, if it is running, its rings; the certificates that the image
//! brings along. Out: [`Keys`].

use super::read;
use crate::host::SystemHost;
use anyhow::Context;
use kdump_hooks::kernel::LinuxKeys;
use kdump_hooks::modsign::{DIRECTORIES, Modsign};
use kdump_hooks::signatures::{self, Certificate, Firmware, Keys, in_directories};

/// The keys of the kernel that an image is for.
pub(super) fn keys(host: &SystemHost, modsign: Option<&Modsign>) -> Keys {
    let mut unread = None;
    let built_in = built_in(host).unwrap_or_else(|error| {
        unread = Some(format!("{error:#}"));
        Vec::new()
    });
    let firmware = Firmware::read(&read(&host.tree));
    let is_running = host.tree.is_this_machine()
        && host.tree.line("proc/sys/kernel/osrelease").as_deref() == Some(&host.kernel.release);
    let running = || {
        let brought = in_directories(&DIRECTORIES.map(|directory| host.tree.path(directory)));
        Keys::running(&LinuxKeys, &[&built_in[..], &brought].concat(), &firmware)
    };
    let running = if is_running { running() } else { None };
    let mut keys = running.unwrap_or_else(|| Keys::other(&built_in, &firmware));
    if keys.trusted.iter().any(|(_, key)| key.issued.is_none()) || !is_running {
        keys.unread = unread;
    }
    let mut known = [built_in, firmware.enrolled].concat();
    if is_running {
        // One that somebody has added to the running kernel may vouch for others.
        known.extend(in_directories(&DIRECTORIES.map(|directory| host.tree.path(directory))));
    }
    for path in modsign.iter().flat_map(|modsign| &modsign.certificates) {
        if let Some(certificate) = host.tree.read(path).ok().and_then(|bytes| Certificate::parse(&bytes).ok()) {
            keys.add(&certificate, &known);
            known.push(certificate);
        }
    }
    keys
}

/// The certificates in the image of the kernel.
fn built_in(host: &SystemHost) -> anyhow::Result<Vec<Certificate>> {
    let image = host.kernel.file(&host.tree).context("the kernel's built-in keys are not known")?;
    signatures::built_in(&image)
}
