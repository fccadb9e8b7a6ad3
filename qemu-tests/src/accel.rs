//! KVM or emulation? Opening `/dev/kvm` proves nothing: some machines offer it, and guests hang. So a kernel is booted
//! under KVM once, and the answer is kept until the machine boots anew.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::machine::Machine;
use crate::programs::programs;
use crate::provision::{Suite, kernel};
use crate::{emulation, folders, guest_image, progress};

const LIMIT: Duration = Duration::from_secs(15);

/// How a guest's instructions are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// By the processor.
    Kvm,
    /// By QEMU, one thread per guest processor.
    Tcg,
}

impl Accel {
    pub(crate) fn argument(self) -> &'static str {
        match self {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg,thread=multi",
        }
    }

    pub(crate) fn processor(self, model: &str) -> String {
        match self {
            Accel::Kvm => model.to_owned(),
            Accel::Tcg => emulation::processor(model),
        }
    }
}

/// What works on this machine.
pub fn accel() -> Result<Accel> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(Accel::Tcg);
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("unable to read the boot id")?;
    let known = folders::qemu().join(format!("accel-{}", boot.trim()));
    if !known.exists() {
        let _lock = folders::lock("accel")?;
        if !known.exists() {
            let boots = kvm_boots()?;
            progress::note(if boots {
                "KVM boots a guest: it is used"
            } else {
                "KVM boots no guest: emulation is used"
            });
            fs::write(&known, if boots { "kvm" } else { "tcg" })?;
        }
    }
    let kvm = fs::read_to_string(&known)? == "kvm";
    Ok(if kvm { Accel::Kvm } else { Accel::Tcg })
}

/// What works for a guest that needs 5-level page tables: KVM only lends what the processor has.
pub fn accel_with_five_levels() -> Result<Accel> {
    let processor = fs::read_to_string("/proc/cpuinfo").context("unable to read /proc/cpuinfo")?;
    let has_five = processor.split_whitespace().any(|flag| flag == "la57");
    if has_five { accel() } else { Ok(Accel::Tcg) }
}

fn kvm_boots() -> Result<bool> {
    progress::note("trying whether KVM boots a guest …");
    let run = tempfile::tempdir_in(folders::qemu()).context("unable to make a temporary folder")?;
    let kernel = kernel(Suite::Own)?;
    let initrd = run.path().join("initrd");
    guest_image::write(&kernel, &programs()?, &[], &initrd)?;
    let machine = Machine::new(&kernel.vmlinuz, &initrd, "guest.mode=poweroff", Accel::Kvm);
    let Ok(running) = machine.start(run.path()) else {
        return Ok(false);
    };
    Ok(running.console().wait_for("GUEST: booted", LIMIT).is_ok())
}
