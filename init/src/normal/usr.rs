//! A `/usr` of its own: it has to be there before the system's init starts, which may be in it.
//!
//! In: the root, mounted, and its `/etc/fstab`. Out: `/usr` mounted in it, if a line says so. It is read-only as long as
//! the root is; systemd makes both as fstab has them.
//! May surprise: any other line is the system's own business, and so is a `/usr` that is a bind mount or an overlay.

use anyhow::Context;
use kdump_hooks::fstab::{self, Entry};
use kdump_hooks::nfs::{Nfs, Use};
use kdump_hooks::{DeviceSpec, Machine, links};
use log::{info, warn};
use std::fs;
use std::path::Path;
use std::time::Duration;

const FSTAB: &str = "/etc/fstab";
const USR: &str = "/usr";

/// Mounts `/usr` below `sysroot` as the root's own fstab says.
///
/// # Errors
/// The line names what does not appear or cannot be mounted, and does not say that this is no matter (`nofail`).
pub(super) fn mount(
    machine: &mut dyn Machine,
    sysroot: &Path,
    read_only: bool,
    limit: Duration,
    probe: &dyn Fn(&Path) -> Vec<String>,
) -> anyhow::Result<()> {
    let Some(entry) = of_fstab(sysroot) else { return Ok(()) };
    let what = || format!("cannot mount {USR} from {} as the root's {FSTAB} says", entry.source);
    match mount_entry(&entry, machine, sysroot, read_only, limit, probe).with_context(what) {
        Err(error) if entry.has("nofail") => {
            warn!("{error:#}; it may fail");
            Ok(())
        }
        result => result,
    }
}

/// The line for `/usr` that is followed here.
fn of_fstab(sysroot: &Path) -> Option<Entry> {
    let file = links::resolve(sysroot, Path::new(FSTAB)).ok()?;
    let text = fs::read(file).ok()?;
    let entry = fstab::entry_at(&String::from_utf8_lossy(&text), Path::new(USR))?;
    if entry.has("noauto") {
        return None;
    }
    if entry.has("bind") || entry.has("rbind") || matches!(entry.fstype.as_str(), "none" | "overlay") {
        warn!("{USR} is a bind mount or an overlay in {FSTAB}; that is left to the system");
        return None;
    }
    Some(entry)
}

fn mount_entry(
    entry: &Entry,
    machine: &mut dyn Machine,
    sysroot: &Path,
    read_only: bool,
    limit: Duration,
    probe: &dyn Fn(&Path) -> Vec<String>,
) -> anyhow::Result<()> {
    let point = sysroot.join("usr");
    let mut options = entry.for_the_kernel();
    if entry.fstype.starts_with("nfs") {
        let nfs = Nfs { options, ..entry.source.parse().map_err(anyhow::Error::msg)? };
        nfs.check()?;
        return nfs.mount(machine, &point, Use::System { read_only }, limit);
    }
    if read_only && !options.iter().any(|option| option == "ro") {
        options.push("ro".to_owned());
    }
    let device: DeviceSpec = entry.source.parse().map_err(anyhow::Error::msg)?;
    let source = machine.wait_for_device(&device, limit)?;
    let fstypes = if entry.fstype == "auto" { probe(&source) } else { vec![entry.fstype.clone()] };
    let fstype = super::mount_as_one_of(machine, &source, &point, &fstypes, &options)?;
    info!("{USR} is mounted from {} as {fstype}", source.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kdump_hooks::fake::{FakeMachine, FakeNet};
    use kdump_hooks::net::Net;

    fn mounted(fstab: &str, read_only: bool, machine: &mut FakeMachine) -> anyhow::Result<String> {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        // A link as some distributions have it, which means the root's own file.
        fs::write(root.path().join("etc/fstab.real"), fstab).unwrap();
        std::os::unix::fs::symlink("/etc/fstab.real", root.path().join("etc/fstab")).unwrap();
        machine.journal.clear();
        mount(machine, root.path(), read_only, Duration::from_secs(9), &|_| vec!["xfs".into()])?;
        Ok(machine.journal.last().cloned().unwrap_or_default().replace(root.path().to_str().unwrap(), ""))
    }

    fn machine() -> FakeMachine {
        let mut machine = FakeMachine::default();
        machine.devices.insert("LABEL=usr".into(), "/dev/vda2".into());
        machine
    }

    #[test]
    fn the_root_s_own_fstab_decides_and_the_root_s_mode() {
        for (fstab, read_only, done) in [
            ("LABEL=usr /usr ext4 defaults,noatime,x-initrd.mount 0 2\n", true, "mount /dev/vda2 /usr ext4 noatime,ro"),
            ("LABEL=usr /usr ext4 defaults 0 2\n", false, "mount /dev/vda2 /usr ext4 "),
            ("LABEL=usr /usr auto ro 0 2\n", true, "mount /dev/vda2 /usr xfs ro"),
            ("LABEL=usr /usr ext4 noauto\n", true, ""),
            ("/other /usr none bind\n", true, ""),
            ("LABEL=usr /srv ext4 defaults\n", true, ""),
        ] {
            assert_eq!(mounted(fstab, read_only, &mut machine()).unwrap(), done, "{fstab}");
        }
    }

    #[test]
    fn one_that_cannot_be_mounted_stops_the_boot_unless_it_may_fail() {
        let error = mounted("LABEL=none /usr ext4 defaults\n", true, &mut machine()).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.starts_with("cannot mount /usr from LABEL=none") && error.contains("within 9 s"), "{error}");
        mounted("LABEL=none /usr ext4 nofail\n", true, &mut machine()).unwrap();
    }

    #[test]
    fn it_can_be_on_a_server() {
        let mut machine = FakeMachine { net: FakeNet::with_cards(&["eth0"]), ..FakeMachine::default() };
        machine.net.add_address(2, "10.0.2.15/24".parse().unwrap()).unwrap();
        let done = mounted("10.0.2.7:/usr /usr nfs4 defaults,vers=4.2 0 0\n", true, &mut machine).unwrap();
        assert_eq!(done, "mount 10.0.2.7:/usr /usr nfs vers=4.2,addr=10.0.2.7,proto=tcp,clientaddr=10.0.2.15,ro");
    }
}
