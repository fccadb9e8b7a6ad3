//! Where the root is: what `root=` means.
//!
//! In: `root=`, and for the kernel's own way of writing a root on NFS `nfsroot=` and `ip=`. Out: a device or an export.
//! May surprise: `PARTUUID=…/PARTNROFF=n` is the partition with the n-th next number on the same disk; it is looked for
//! when the one that is named is there. The server of an export may be left out where `ip=` names it, as the kernel has
//! it; what a DHCP server says of a root is not asked for.

use crate::config::Normal;
use anyhow::{Context, bail};
use kdump_hooks::cmdline::Cmdline;
use kdump_hooks::nfs::Nfs;
use kdump_hooks::{DeviceSpec, Machine};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where block devices are in sysfs.
const CLASS: &str = "/sys/class/block";

/// Where a root is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// On a block device.
    Device {
        /// The device that is named.
        device: DeviceSpec,
        /// How many partitions further it is.
        offset: i32,
    },
    /// On a server.
    Export(Nfs),
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Root::Device { device, offset: 0 } => device.fmt(f),
            Root::Device { device, offset } => write!(f, "{device}/PARTNROFF={offset}"),
            Root::Export(export) => export.fmt(f),
        }
    }
}

impl From<DeviceSpec> for Root {
    fn from(device: DeviceSpec) -> Root {
        Root::Device { device, offset: 0 }
    }
}

impl Root {
    /// The root that the builder saw.
    pub fn known(normal: &Normal) -> Option<Root> {
        normal.root.clone().map(Root::from).or_else(|| normal.export.clone().map(Root::Export))
    }

    /// The root that `root=` names.
    ///
    /// # Errors
    /// It names none, or one that this version cannot reach.
    pub fn named(root: &str, cmdline: &Cmdline) -> anyhow::Result<Root> {
        named(root, cmdline).with_context(|| format!("cannot boot root={root}"))
    }

    /// Waits for the device, and gives its node.
    ///
    /// # Errors
    /// It does not appear within `limit`.
    pub fn wait(
        device: &DeviceSpec,
        offset: i32,
        machine: &mut dyn Machine,
        limit: Duration,
    ) -> anyhow::Result<PathBuf> {
        let node = machine.wait_for_device(device, limit).context("the root does not appear (root=)")?;
        if offset == 0 {
            return Ok(node);
        }
        let name = neighbour(Path::new(CLASS), &node, offset)
            .with_context(|| format!("cannot find the partition {offset} numbers after {}", node.display()))?;
        let spec = DeviceSpec::Path(Path::new("/dev").join(name));
        machine.wait_for_device(&spec, limit).context("the root does not appear (PARTNROFF=)")
    }
}

fn named(root: &str, cmdline: &Cmdline) -> anyhow::Result<Root> {
    let text = root.strip_prefix("block:").unwrap_or(root);
    if text == "/dev/nfs" {
        let export = cmdline.last("nfsroot").filter(|export| !export.is_empty());
        return export_of(export.context("name the export with nfsroot=SERVER:/DIR")?, cmdline, None);
    }
    for (kind, version) in [("nfs:", None), ("nfs4:", Some("vers=4"))] {
        if let Some(export) = text.strip_prefix(kind) {
            return export_of(export, cmdline, version);
        }
    }
    if matches!(text, "dhcp" | "dhcp6") {
        bail!("what a DHCP server says of a root is not asked for by this version; write root=nfs:SERVER:/DIR");
    }
    let (text, offset) = match text.split_once("/PARTNROFF=") {
        Some((partition, offset)) if partition.starts_with("PARTUUID=") => {
            (partition, offset.parse().ok().with_context(|| format!("PARTNROFF={offset} is not a number"))?)
        }
        _ => (text, 0),
    };
    Ok(Root::Device { device: text.parse().map_err(anyhow::Error::msg)?, offset })
}

/// `[SERVER:]/DIR`, and options behind a comma or, as dracut also has it, a colon.
fn export_of(text: &str, cmdline: &Cmdline, version: Option<&str>) -> anyhow::Result<Root> {
    let directory = match text.starts_with('/') {
        true => 0,
        false => text.find(":/").with_context(|| format!("`{text}` is not SERVER:/DIR"))? + 1,
    };
    let end = text[directory..].find([',', ':']).map_or(text.len(), |end| directory + end);
    let export = match text.starts_with('/') {
        true => format!("{}:{}", server_of(cmdline)?, &text[..end]),
        false => text[..end].to_owned(),
    };
    if export.contains('%') {
        bail!("`%` in the name of an export would stand for this machine; write the name itself");
    }
    let mut nfs: Nfs = export.parse().map_err(anyhow::Error::msg)?;
    let given = text[end..].split([',', ':']).filter(|option| !option.is_empty());
    nfs.options = version.into_iter().chain(given).map(str::to_owned).collect();
    // What is said of the mode is said by `ro` and `rw`.
    nfs.options.retain(|option| option != "rw");
    nfs.check()?;
    Ok(Root::Export(nfs))
}

/// The server in the kernel's `ip=CLIENT:SERVER:…`.
fn server_of(cmdline: &Cmdline) -> anyhow::Result<String> {
    let server = cmdline.values("ip").filter_map(|ip| ip.split(':').nth(1)).find(|server| {
        // In `ip=INTERFACE:METHOD` there is none.
        server.parse::<std::net::Ipv4Addr>().is_ok()
    });
    Ok(server.context("neither root= nor ip= names the server; write SERVER:/DIR")?.to_owned())
}

/// The name of the partition that is so many numbers further on the same disk.
fn neighbour(class: &Path, node: &Path, offset: i32) -> anyhow::Result<String> {
    let name = node.file_name().context("it has no name")?;
    let place = fs::canonicalize(class.join(name)).context("it is not in sysfs")?;
    let number = fs::read_to_string(place.join("partition")).context("it is no partition")?;
    let number: i32 = number.trim().parse().context("its number")?;
    let disk = place.parent().and_then(Path::file_name).context("it is on no disk")?.to_string_lossy().into_owned();
    let number = number.checked_add(offset).filter(|number| *number > 0).context("there is no such number")?;
    let between = if disk.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    Ok(format!("{disk}{between}{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kdump_hooks::fake::FakeMachine;
    use std::os::unix::fs::symlink;

    fn of(line: &str) -> anyhow::Result<Root> {
        let line = Cmdline::parse(line);
        Root::named(line.last("root").unwrap(), &line)
    }

    #[test]
    fn every_form_of_an_export_names_it_with_its_options() {
        for (line, export, options) in [
            ("root=nfs:10.0.2.2:/srv/root", "nfs 10.0.2.2:/srv/root", ""),
            ("root=nfs4:nas:/srv:rsize=8192,hard", "nfs nas:/srv", "vers=4,rsize=8192,hard"),
            ("root=nfs:[fec0::2]:/srv,port=2050,rw", "nfs [fec0::2]:/srv", "port=2050"),
            ("root=/dev/nfs nfsroot=10.0.2.2:/srv,vers=3,nolock", "nfs 10.0.2.2:/srv", "vers=3,nolock"),
            ("root=/dev/nfs nfsroot=/srv ip=10.0.0.1:10.0.0.9::24::eth0:none", "nfs 10.0.0.9:/srv", ""),
            ("root=nfs:/srv ip=eth0:dhcp ip=:10.0.0.9:::::dhcp", "nfs 10.0.0.9:/srv", ""),
        ] {
            let Root::Export(nfs) = of(line).unwrap() else { panic!("{line}") };
            assert_eq!((nfs.to_string().as_str(), nfs.options.join(",").as_str()), (export, options), "{line}");
        }
    }

    #[test]
    fn a_root_that_cannot_be_is_refused_by_name() {
        for (line, words) in [
            ("root=/dev/nfs", "nfsroot=SERVER:/DIR"),
            ("root=nfs:/srv ip=eth0:dhcp", "names the server"),
            ("root=nfs:server", "is not SERVER:/DIR"),
            ("root=nfs:server:/srv/%s", "write the name itself"),
            ("root=nfs:server:/srv:sec=krb5", "sec=krb5"),
            ("root=dhcp", "write root=nfs:SERVER:/DIR"),
            ("root=PARTUUID=12-34/PARTNROFF=one", "PARTNROFF=one"),
        ] {
            let error = format!("{:#}", of(line).unwrap_err());
            assert!(error.contains(words) && error.starts_with("cannot boot root="), "{line}: {error}");
        }
    }

    #[test]
    fn a_partition_can_be_named_by_its_neighbour() {
        let root = of("root=PARTUUID=12-34/PARTNROFF=-1").unwrap();
        assert_eq!(root.to_string(), "PARTUUID=12-34/PARTNROFF=-1");
        let sys = tempfile::tempdir().unwrap();
        let class = sys.path().join("class");
        fs::create_dir(&class).unwrap();
        for (disk, partition, number) in [("vda", "vda2", "2\n"), ("nvme0n1", "nvme0n1p9", "9\n")] {
            let place = sys.path().join("devices").join(disk).join(partition);
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join("partition"), number).unwrap();
            symlink(&place, class.join(partition)).unwrap();
        }
        let next = |node: &str, offset| neighbour(&class, Path::new(node), offset);
        assert_eq!(next("/dev/vda2", 1).unwrap(), "vda3");
        assert_eq!(next("/dev/nvme0n1p9", 1).unwrap(), "nvme0n1p10");
        assert!(next("/dev/vda2", -2).unwrap_err().to_string().contains("no such number"));
        assert!(next("/dev/vdb", 1).is_err());
    }

    #[test]
    fn without_an_offset_the_device_is_all() {
        let mut machine = FakeMachine::default();
        machine.devices.insert("UUID=12".into(), "/dev/vda1".into());
        let spec = DeviceSpec::Uuid("12".into());
        assert_eq!(Root::wait(&spec, 0, &mut machine, Duration::from_secs(1)).unwrap(), Path::new("/dev/vda1"));
    }
}
