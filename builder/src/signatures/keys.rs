//! Where the keys of the kernel that an image is for are looked for.
//!
//! In: the kernel's image, the firmware's variables and, if it is running, its rings; the certificates that the image
//! brings along. Out: [`Keys`].

use super::{image, read};
use crate::host::SystemHost;
use kdump_hooks::kernel::LinuxKeys;
use kdump_hooks::modsign::Modsign;
use kdump_hooks::signatures::{Certificate, Firmware, Keys, in_bytes};
use std::fs;

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
    let running = if is_running { Keys::running(&LinuxKeys, &built_in, &firmware) } else { None };
    let mut keys = running.unwrap_or_else(|| Keys::other(&built_in, &firmware));
    if keys.trusted.iter().any(|(_, key)| key.issued.is_none()) || !is_running {
        keys.unread = unread;
    }
    for path in modsign.iter().flat_map(|modsign| &modsign.certificates) {
        if let Some(certificate) = host.tree.read(path).ok().and_then(|bytes| Certificate::parse(&bytes).ok()) {
            keys.add(&certificate, [&built_in[..], &firmware.enrolled].concat().iter());
        }
    }
    keys
}

/// The certificates in the image of the kernel.
fn built_in(host: &SystemHost) -> anyhow::Result<Vec<Certificate>> {
    let release = &host.kernel.release;
    let name = format!("vmlinuz-{release}");
    let mut places = vec![host.kernel.modules_dir.join("vmlinuz")];
    places.extend(host.kernel.modules_dir.ancestors().skip(3).take(2).map(|above| above.join("boot").join(&name)));
    places.push(host.tree.path("boot").join(&name));
    let Some((place, image)) = places.iter().find_map(|place| Some((place, fs::read(place).ok()?))) else {
        let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        anyhow::bail!("the kernel's image, which has its built-in keys, is at none of {}", places.join(", "));
    };
    let unpacked = image::unpack(&image);
    let unpacked = unpacked.map_err(|error| error.context(format!("cannot look into {}", place.display())))?;
    Ok(in_bytes(&unpacked))
}
