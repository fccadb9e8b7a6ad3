//! The last target of all: what keeps the end of the kernel log over a reboot, pstore.
//!
//! *Into the image*: the backends that the kernel has as modules, and options with which they keep the log of a reboot.
//! Where ramoops finds its memory the administrator says, in modprobe.d or on the kernel command line. *At boot*: load
//! the backends, and have the kernel store its log when it ends. The log of the crash gets there by being written into
//! the kernel log, since distributions build kernels without `/dev/pmsg0`.
//!
//! May surprise: nothing is stored before the reboot, and the kernel stores the newest first, until its records are full.
//! The memory of ramoops must be none that the kernel uses, the crashed one included.

use crate::host::{Contribution, FileNeed, Host, ModuleNeed};
use crate::machine::Machine;
use crate::{Destination, Hook, TargetHook};
use anyhow::{Context, bail};
use log::info;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// The backends that are modules, in the order in which they are tried: ramoops is one only where it has been given memory.
pub const BACKENDS: [&str; 2] = ["ramoops", "efi_pstore"];

/// By default ramoops keeps what ends in a panic or an oops; 4 is `KMSG_DUMP_SHUTDOWN`. The name comes after those of
/// the administrator's files, so that this counts.
const OPTIONS: (&str, &str) =
    ("/etc/modprobe.d/zz-kdump-pstore.conf", "options ramoops max_reason=4\noptions efi_pstore pstore_disable=0\n");
/// `KMSG_DUMP_SHUTDOWN`: a reboot, a halt or a power off.
const SHUTDOWN: i64 = 4;

const BACKEND: &str = "/sys/module/pstore/parameters/backend";
const BYTES: &str = "/sys/module/pstore/parameters/kmsg_bytes";
const MAX_REASON: &str = "/sys/module/ramoops/parameters/max_reason";
/// Has the kernel store its log whenever it ends, if the backend has no opinion.
const ALWAYS: &str = "/sys/module/printk/parameters/always_kmsg_dump";
/// What the kernel stores if it does not say.
const DEFAULT_BYTES: u64 = 10240;

/// What keeps the end of the log over a reboot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pstore {}

impl fmt::Display for Pstore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pstore")
    }
}

impl Hook for Pstore {
    fn name(&self) -> &'static str {
        "pstore"
    }

    fn gather(&self, _host: &dyn Host) -> anyhow::Result<Contribution> {
        let need = |name: &str| ModuleNeed {
            request: name.to_owned(),
            reason: "the log may go to pstore".to_owned(),
            required: false,
            by_device: false,
        };
        let (path, text) = OPTIONS;
        let options = FileNeed {
            path: path.into(),
            bytes: text.into(),
            secret: false,
            reason: "pstore keeps the log of a reboot too".to_owned(),
        };
        Ok(Contribution { modules: BACKENDS.map(need).into(), files: vec![options], ..Contribution::default() })
    }
}

impl TargetHook for Pstore {
    fn open(&self, machine: &mut dyn Machine, _limit: Duration) -> anyhow::Result<Destination> {
        let mut refusals = Vec::new();
        let mut backend = backend(machine);
        for module in BACKENDS {
            if backend.is_none() {
                refusals.extend(machine.load_module(module).err().map(|error| format!("{module}: {error:#}")));
                backend = self::backend(machine);
            }
        }
        let Some(backend) = backend else {
            let why = if refusals.is_empty() { String::new() } else { format!(" ({})", refusals.join("; ")) };
            bail!(
                "pstore has no backend{why}; give ramoops memory that no kernel uses, with `options ramoops \
                 mem_address=… mem_size=…` in modprobe.d, or boot by EFI"
            );
        };
        if backend == "ramoops" {
            let most = machine.ask_kernel(Path::new(MAX_REASON))?;
            // 0 leaves it to printk.
            if !most.parse::<i64>().is_ok_and(|most| most == 0 || most >= SHUTDOWN) {
                bail!(
                    "ramoops keeps no log of a reboot (max_reason is {most}); put ramoops.max_reason={SHUTDOWN} on the \
                     capture kernel's command line"
                );
            }
        }
        machine.tell_kernel(Path::new(ALWAYS), "Y").context("the kernel does not store its log at a reboot")?;
        let bytes = machine.ask_kernel(Path::new(BYTES)).ok().and_then(|text| text.parse().ok());
        info!("pstore has a backend: {backend}");
        Ok(Destination::Pstore { backend, bytes: bytes.unwrap_or(DEFAULT_BYTES) })
    }

    fn close(&self, _machine: &mut dyn Machine) -> anyhow::Result<()> {
        Ok(())
    }

    fn is_last_resort(&self) -> bool {
        true
    }
}

/// Who keeps what pstore is given.
fn backend(machine: &mut dyn Machine) -> Option<String> {
    machine.ask_kernel(Path::new(BACKEND)).ok().filter(|name| !name.is_empty() && name != "(null)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeHost, FakeMachine};
    use crate::{Settings, Target};

    fn machine(files: &[(&str, &str)]) -> FakeMachine {
        let files = files.iter().map(|(path, text)| ((*path).into(), (*text).to_owned())).collect();
        FakeMachine { files, ..FakeMachine::default() }
    }

    fn open(machine: &mut FakeMachine) -> anyhow::Result<Destination> {
        Pstore {}.open(machine, Duration::ZERO)
    }

    #[test]
    fn a_backend_that_is_there_is_told_to_keep_the_log_of_a_reboot() {
        let mut machine = machine(&[(BACKEND, "efi_pstore"), (BYTES, "20480")]);
        let destination = open(&mut machine).unwrap();
        assert_eq!(destination, Destination::Pstore { backend: "efi_pstore".into(), bytes: 20480 });
        assert_eq!(machine.journal, [format!("write Y to {ALWAYS}")]);
    }

    #[test]
    fn without_a_backend_the_target_fails_and_says_what_would_be_one() {
        let mut machine = machine(&[(BACKEND, "(null)")]);
        machine.missing_modules.insert("efi_pstore".into());
        let error = open(&mut machine).unwrap_err().to_string();
        assert_eq!(machine.journal, ["load ramoops", "load efi_pstore"]);
        assert!(error.contains("no backend (efi_pstore: module efi_pstore is not in this image)"), "{error}");
        assert!(error.contains("options ramoops mem_address"), "{error}");
    }

    #[test]
    fn ramoops_that_keeps_panics_alone_is_no_use() {
        for (most, is_well) in [("-1", false), ("2", false), ("0", true), ("4", true)] {
            let mut machine = machine(&[(BACKEND, "ramoops"), (MAX_REASON, most)]);
            let opened = open(&mut machine).map_err(|error| error.to_string());
            match is_well {
                true => assert_eq!(opened, Ok(Destination::Pstore { backend: "ramoops".into(), bytes: DEFAULT_BYTES })),
                false => assert!(opened.unwrap_err().contains("put ramoops.max_reason=4"), "{most}"),
            }
        }
    }

    #[test]
    fn the_image_has_the_backends_that_there_are_and_it_survives_the_way() {
        let wanted = Pstore {}.gather(&FakeHost::default()).unwrap();
        assert!(wanted.modules.iter().all(|module| !module.required && BACKENDS.contains(&module.request.as_str())));
        assert_eq!(wanted.files[0].path, Path::new(OPTIONS.0));
        let settings = Settings { targets: vec![Target::Pstore(Pstore {})], ..Settings::default() };
        let text = toml::to_string(&settings).unwrap();
        assert_eq!(toml::from_str::<Settings>(&text).unwrap(), settings, "{text}");
    }
}
