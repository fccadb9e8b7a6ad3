//! What the kernel command line asks a normal boot for, filled up by what the builder knew of the machine.
//!
//! In: `root= rootfstype= rootflags= ro rw init= rootwait rootdelay= rd.emergency=` and the `normal` section. Out: a
//! [`Request`]. The last of several wins, as in the kernel.
//! May surprise: `rootwait` waits a day, not for ever, and says all the time what for; `rootdelay=` is no sleep, it is
//! patience: the boot goes on as soon as the root is there.

use crate::config::{Ending, FailureAction, Normal};
use anyhow::{Context, bail};
use kdump_hooks::DeviceSpec;
use kdump_hooks::cmdline::Cmdline;
use std::time::Duration;

/// The longest wait for a root.
const DAY: u64 = 86_400;

/// What is to be booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where the root is.
    pub device: DeviceSpec,
    /// The types to try, in order; what is on the device says it if there is none.
    pub fstypes: Vec<String>,
    /// How it is mounted, `ro` among it unless it is to be writable.
    pub options: Vec<String>,
    /// The init that is asked for by name.
    pub init: Option<String>,
    /// How long to wait for the device.
    pub limit: Duration,
}

impl Request {
    /// Reads the command line. `limit` is the ordinary wait for a device.
    ///
    /// # Errors
    /// No root is named, or one that this version cannot mount.
    pub fn of(cmdline: &Cmdline, normal: &Normal, limit: Duration) -> anyhow::Result<Request> {
        let (device, builder_s_own) = match (cmdline.last("root"), &normal.root) {
            (Some(root), known) => {
                let device = device(root).with_context(|| format!("cannot boot root={root}"))?;
                let same = known.as_ref() == Some(&device);
                (device, same)
            }
            (None, Some(known)) => (known.clone(), true),
            (None, None) => bail!("the kernel command line has no root=, and the image knows of none; add root=UUID=…"),
        };
        let words = |given: Option<&str>| -> Vec<String> {
            given.unwrap_or_default().split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect()
        };
        // What the builder saw belongs to the root that it saw.
        let known = |value: &Option<String>| value.clone().filter(|_| builder_s_own);
        let fstypes = words(cmdline.last("rootfstype").or(known(&normal.rootfstype).as_deref()));
        let fstypes = fstypes.into_iter().filter(|fstype| fstype != "auto").collect();
        let mut options = words(cmdline.last("rootflags").or(known(&normal.rootflags).as_deref()));
        options.retain(|option| option != "defaults" && option != "ro");
        let is_mode = |(name, value): &(&str, Option<&str>)| value.is_none() && (*name == "ro" || *name == "rw");
        if cmdline.options().filter(is_mode).last().is_none_or(|(name, _)| name == "ro") {
            options.retain(|option| option != "rw");
            options.push("ro".to_owned());
        }
        Ok(Request {
            device,
            fstypes,
            options,
            init: cmdline.last("init").filter(|init| !init.is_empty()).map(str::to_owned),
            limit: patience(cmdline, limit),
        })
    }
}

/// The device that `root=` names.
fn device(root: &str) -> anyhow::Result<DeviceSpec> {
    let root = root.strip_prefix("block:").unwrap_or(root);
    if root == "/dev/nfs" || ["nfs:", "nfs4:"].iter().any(|kind| root.starts_with(kind)) {
        bail!("a root on NFS is not supported by this version");
    }
    if root.starts_with("PARTUUID=") && root.contains("/PARTNROFF=") {
        bail!("PARTNROFF= is not supported; name the partition by its own PARTUUID=");
    }
    root.parse().map_err(anyhow::Error::msg)
}

/// How long to wait for the root.
fn patience(cmdline: &Cmdline, limit: Duration) -> Duration {
    let seconds = |name| cmdline.last(name).and_then(|value| value.parse::<u64>().ok());
    let waits = cmdline.options().any(|(name, value)| name == "rootwait" && value.is_none());
    let given = if waits { Some(DAY) } else { seconds("rootwait") };
    let least = seconds("rootdelay").unwrap_or(0);
    Duration::from_secs(given.unwrap_or(limit.as_secs()).max(least).min(DAY))
}

/// What is done when the system cannot be booted: as the image is configured, unless `rd.emergency=` names it.
pub fn failure_action(cmdline: &Cmdline, configured: FailureAction) -> FailureAction {
    let named = cmdline.last("rd.emergency").and_then(|word| word.parse::<Ending>().ok());
    named.map_or(configured, FailureAction::End)
}

/// Whether a switch is on: it stands alone, or has a value other than `0`, `no` and `off`.
pub fn flag(cmdline: &Cmdline, name: &str) -> bool {
    let last = cmdline.options().filter(|(option, _)| *option == name).last();
    last.is_some_and(|(_, value)| !matches!(value, Some("0" | "no" | "off")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDINARY: Duration = Duration::from_secs(90);

    fn of(line: &str, normal: &Normal) -> anyhow::Result<Request> {
        Request::of(&Cmdline::parse(line), normal, ORDINARY)
    }

    #[test]
    fn every_form_of_root_names_its_device() {
        for (line, device) in [
            ("root=/dev/vda1", "/dev/vda1"),
            ("root=UUID=12-34", "UUID=12-34"),
            ("root=\"LABEL=my root\"", "LABEL=my root"),
            ("root=block:LABEL=root", "LABEL=root"),
            ("root=/dev/mapper/vg-root", "/dev/mapper/vg-root"),
            ("root=/dev/vda1 root=/dev/disk/by-label/my\\x20root", "LABEL=my root"),
        ] {
            assert_eq!(of(line, &Normal::default()).unwrap().device.to_string(), device, "{line}");
        }
    }

    #[test]
    fn a_root_that_cannot_be_is_refused_by_name() {
        for (line, words) in [
            ("quiet ro", "add root=UUID="),
            ("root=nfs:server:/export", "NFS is not supported"),
            ("root=/dev/nfs", "NFS is not supported"),
            ("root=PARTUUID=12-34/PARTNROFF=1", "PARTNROFF="),
            ("root=LABEL=", "names no device"),
            ("root=0801", "root=0801"),
        ] {
            let error = format!("{:#}", of(line, &Normal::default()).unwrap_err());
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn what_the_builder_saw_fills_up_what_the_command_line_leaves_open() {
        let normal = Normal {
            root: Some(DeviceSpec::Uuid("12-34".into())),
            rootfstype: Some("btrfs".into()),
            rootflags: Some("subvol=/@".into()),
        };
        let request = of("quiet", &normal).unwrap();
        assert_eq!((request.device.to_string().as_str(), request.fstypes.len()), ("UUID=12-34", 1));
        assert_eq!(request.options, ["subvol=/@", "ro"]);
        // Another root is of another make.
        let other = of("root=UUID=56-78", &normal).unwrap();
        assert_eq!((other.fstypes, other.options), (vec![], vec!["ro".to_owned()]));
        let same = of("root=UUID=12-34 rootflags=subvol=/old rw", &normal).unwrap();
        assert_eq!((same.fstypes, same.options), (vec!["btrfs".to_owned()], vec!["subvol=/old".to_owned()]));
    }

    #[test]
    fn the_root_is_read_only_unless_rw_has_the_last_word() {
        for (line, options) in [
            ("", "ro"),
            ("ro", "ro"),
            ("ro rw", ""),
            ("rw ro", "ro"),
            ("rw rootflags=noatime,defaults", "noatime"),
            ("rootflags=rw,noatime", "noatime,ro"),
        ] {
            assert_eq!(of(&format!("root=/dev/vda {line}"), &Normal::default()).unwrap().options.join(","), options);
        }
    }

    #[test]
    fn patience_has_an_end_whatever_is_asked_for() {
        for (line, seconds) in [
            ("", 90),
            ("rootwait", 86_400),
            ("rootwait=20", 20),
            ("rootdelay=120", 120),
            ("rootdelay=5", 90),
            ("rootwait=9999999", 86_400),
        ] {
            let request = of(&format!("root=/dev/vda {line}"), &Normal::default()).unwrap();
            assert_eq!(request.limit.as_secs(), seconds, "{line}");
        }
    }

    #[test]
    fn switches_and_the_failure_action_are_read_from_the_last_word() {
        let on = |line: &str| flag(&Cmdline::parse(line), "rd.earlykdump");
        assert!(on("rd.earlykdump") && on("rd.earlykdump=1") && on("rd.earlykdump=0 rd.earlykdump"));
        assert!(!on("") && !on("rd.earlykdump=0") && !on("rd.earlykdump rd.earlykdump=no"));
        let action = |line: &str| failure_action(&Cmdline::parse(line), Ending::Reboot.into());
        assert_eq!(action("rd.emergency=halt"), Ending::Halt.into());
        assert_eq!(action("rd.emergency=party"), Ending::Reboot.into());
    }
}
