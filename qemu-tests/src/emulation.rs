//! What QEMU's emulation gets wrong, and how a run lives with it.
//!
//! QEMU 7.2 now and then leaves half a pointer in the flags register when an interrupt meets `cmpxchg16b` without a
//! lock prefix. Kernels use that instruction for every slab allocation (`this_cpu_cmpxchg16b`), and 6.12 died of it in
//! 4 of 40 boots with both cores busy; with the feature hidden, in none of 120. Kernels have another way without it.
//!
//! A kernel that finds AES in its processor tests what it makes of it in every mode when the driver is loaded, which takes
//! nine seconds here; without, the same encryption is done by code that the emulation runs well.
//!
//! On a busy machine the first interrupts of the timer come later than a kernel waits for them, which then panics ("IO-APIC +
//! timer doesn't work"). Kernels need not check that: [`KERNEL_WORDS`].
//!
//! What is left is a kernel that dies before its init has said a word. Such a run says nothing about kdump-rs and is
//! made again; no other is.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::machine::CONSOLE_LOG;
use crate::progress;

/// What a processor model is called so that the emulation has no part it gets wrong, or far too slowly.
pub(crate) fn processor(model: &str) -> String {
    format!("{model},-cx16,-aes")
}

/// What every emulated kernel is told, the capture kernel too.
pub(crate) const KERNEL_WORDS: &str = "no_timer_check";

/// How often a run is made, at most.
pub(crate) const ATTEMPTS: u32 = 4;

/// Has a machine run whose console's log is in `folder`; once more if the emulator killed its kernel.
pub(crate) fn survived<T>(name: &str, folder: &Path, mut run: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..ATTEMPTS {
        let outcome = run();
        // A kernel that dies may end as one that reboots does.
        if !died_early(&fs::read_to_string(folder.join(CONSOLE_LOG)).unwrap_or_default()) {
            return outcome;
        }
        progress::note(&format!("{name}: the emulator killed the kernel before its init; once more"));
    }
    run()
}

/// Whether the first kernel of a run died of the emulator, before its init.
pub(crate) fn died_early(console: &str) -> bool {
    let of_init = ["GUEST: ", "kdump: "];
    console.contains("Kernel panic - not syncing: Fatal exception in interrupt")
        && !of_init.iter().any(|words| console.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_made_again_until_its_kernel_gets_as_far_as_its_init() {
        let folder = tempfile::tempdir().unwrap();
        let says = |text: &str| fs::write(folder.path().join(CONSOLE_LOG), text).unwrap();
        let deaths = |count: u32, then: &str| {
            let mut runs = 0;
            let outcome = survived("test", folder.path(), || {
                runs += 1;
                says(if runs > count { then } else { "Kernel panic - not syncing: Fatal exception in interrupt\n" });
                if runs > count && then == "GUEST: well\n" { Ok(()) } else { anyhow::bail!("it ended") }
            });
            (outcome.is_ok(), runs)
        };
        assert_eq!(deaths(2, "GUEST: well\n"), (true, 3));
        assert_eq!(deaths(1, "Kernel panic - not syncing: VFS\n"), (false, 2));
        assert_eq!(deaths(9, ""), (false, ATTEMPTS));
    }

    #[test]
    fn only_an_exception_in_an_interrupt_before_init_is_a_fault_of_the_emulator() {
        let fatal = "[ 0.7] Kernel panic - not syncing: Fatal exception in interrupt\n";
        assert!(died_early(fatal));
        assert!(!died_early(
            "[ 0.0] Kernel panic - not syncing: IO-APIC + timer doesn't work!  Boot with apic=debug\n"
        ));
        assert!(!died_early(&format!("GUEST: loading modules\n{fatal}")));
        assert!(!died_early(&format!("kdump: loading modules\n{fatal}")));
        assert!(!died_early("[ 0.7] Kernel panic - not syncing: VFS: Unable to mount root fs\n"));
        assert!(!died_early("[ 0.7] BUG: kernel NULL pointer dereference\n"));
    }
}
