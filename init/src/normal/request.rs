//! What the kernel command line asks a normal boot for, filled up by what the builder knew of the machine.
//!
//! In: `root= nfsroot= rootfstype= rootflags= ro rw init= rootwait rootdelay= rd.timeout= rd.retry= rd.emergency=
//! rd.shell` and the `normal` section. Out: a [`Request`]. The last of several wins, as in the kernel.
//! May surprise: `rootwait` waits a day, not for ever, and says all the time what for; `rootdelay=` is no sleep, it is
//! patience: the boot goes on as soon as the root is there.

use super::root::Root;
use crate::config::{Ending, Endings, FailureAction, Normal};
use anyhow::bail;
use kdump_hooks::cmdline::Cmdline;
use std::time::Duration;

/// The longest wait for a root.
const DAY: u64 = 86_400;

/// What is to be booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where the root is.
    pub root: Root,
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
    /// Whether the root is not to be written to.
    pub fn is_read_only(&self) -> bool {
        self.options.iter().any(|option| option == "ro")
    }

    /// Reads the command line. `limit` is the ordinary wait for a device.
    ///
    /// # Errors
    /// No root is named, or one that this version cannot mount.
    pub fn of(cmdline: &Cmdline, normal: &Normal, limit: Duration) -> anyhow::Result<Request> {
        for name in ["root", "netroot"] {
            let elsewhere =
                |value: &str| ["iscsi:", "fcoe:", "nbd:", "nvmf:"].iter().any(|kind| value.starts_with(kind));
            if let Some(value) = cmdline.last(name).filter(|value| elsewhere(value)) {
                bail!(
                    "cannot boot {name}={value}: a root on a disk of another machine is not supported by this version"
                );
            }
        }
        let (root, builder_s_own) = match (cmdline.last("root"), Root::known(normal)) {
            (Some(asked), known) => {
                let root = Root::named(asked, cmdline)?;
                let same = known.as_ref() == Some(&root);
                (root, same)
            }
            (None, Some(known)) => (known, true),
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
            root,
            fstypes,
            options,
            init: cmdline.last("init").filter(|init| !init.is_empty()).map(str::to_owned),
            limit: patience(cmdline, limit),
        })
    }
}

/// How long to wait for the root. `limit` is what `rd.timeout=` says, or what the image was made with.
fn patience(cmdline: &Cmdline, limit: Duration) -> Duration {
    let seconds = |name| cmdline.last(name).and_then(|value| value.parse::<u64>().ok());
    let waits = cmdline.options().any(|(name, value)| name == "rootwait" && value.is_none());
    let retry = if seconds("rd.timeout").is_none() { seconds("rd.retry") } else { None };
    let given = if waits { Some(DAY) } else { seconds("rootwait").or(retry) };
    let least = seconds("rootdelay").unwrap_or(0);
    Duration::from_secs(given.unwrap_or(limit.as_secs()).max(least).min(DAY))
}

/// What is done when the system cannot be booted: a shell, if `rd.shell` asks for one and the image has one; else as
/// `rd.emergency=` says, or as the image is configured. That follows when the shell is left, too.
pub fn endings(cmdline: &Cmdline, configured: Endings, has_shell: bool) -> Endings {
    let named = cmdline.last("rd.emergency").and_then(|word| word.parse::<Ending>().ok());
    let action = named.map_or(configured.failure_action, FailureAction::End);
    let final_action = match action {
        FailureAction::End(ending) => ending,
        FailureAction::Shell => configured.final_action,
    };
    let wants_shell = has_shell && flag(cmdline, "rd.shell");
    let failure_action = if wants_shell { FailureAction::Shell } else { action };
    Endings { failure_action, final_action, shell_first: false }
}

/// Whether a switch is on: it stands alone, or has a value other than `0`, `no` and `off`.
pub fn flag(cmdline: &Cmdline, name: &str) -> bool {
    let last = cmdline.options().filter(|(option, _)| *option == name).last();
    last.is_some_and(|(_, value)| !matches!(value, Some("0" | "no" | "off")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kdump_hooks::DeviceSpec;

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
            assert_eq!(of(line, &Normal::default()).unwrap().root.to_string(), device, "{line}");
        }
    }

    #[test]
    fn a_root_that_cannot_be_is_refused_by_name() {
        for (line, words) in [
            ("quiet ro", "add root=UUID="),
            ("root=LABEL=", "names no device"),
            ("root=0801", "root=0801"),
            ("root=iscsi:10.0.2.2::::iqn.x", "a disk of another machine"),
            ("root=LABEL=x netroot=iscsi:10.0.2.2::::iqn.x", "cannot boot netroot=iscsi:"),
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
            export: None,
        };
        let request = of("quiet", &normal).unwrap();
        assert_eq!((request.root.to_string().as_str(), request.fstypes.len()), ("UUID=12-34", 1));
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
            ("rd.retry=20", 20),
            ("rd.retry=20 rd.timeout=90", 90),
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
        let configured =
            Endings { failure_action: Ending::Reboot.into(), final_action: Ending::Reboot, shell_first: false };
        let both = |line: &str, has_shell| endings(&Cmdline::parse(line), configured, has_shell);
        let pair =
            |failure_action: FailureAction, final_action| Endings { failure_action, final_action, shell_first: false };
        assert_eq!(both("rd.emergency=halt", true), pair(Ending::Halt.into(), Ending::Halt));
        assert_eq!(both("rd.emergency=party", true), configured);
        assert_eq!(both("rd.shell rd.emergency=halt", true), pair(FailureAction::Shell, Ending::Halt));
        assert_eq!(both("rd.shell", true), pair(FailureAction::Shell, Ending::Reboot));
        assert_eq!(both("rd.shell=0", true), configured);
        assert_eq!(both("rd.shell rd.emergency=poweroff", false), pair(Ending::Poweroff.into(), Ending::Poweroff));
    }
}
