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

/// What a processor model is called so that the emulation has no part it gets wrong, or far too slowly.
pub(crate) fn processor(model: &str) -> String {
    format!("{model},-cx16,-aes")
}

/// What every emulated kernel is told, the capture kernel too.
pub(crate) const KERNEL_WORDS: &str = "no_timer_check";

/// Whether the first kernel of a run died of the emulator, before its init.
pub(crate) fn died_early(console: &str) -> bool {
    console.contains("Kernel panic - not syncing: Fatal exception in interrupt") && !console.contains("GUEST: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_exception_in_an_interrupt_before_init_is_a_fault_of_the_emulator() {
        let fatal = "[ 0.7] Kernel panic - not syncing: Fatal exception in interrupt\n";
        assert!(died_early(fatal));
        assert!(!died_early(
            "[ 0.0] Kernel panic - not syncing: IO-APIC + timer doesn't work!  Boot with apic=debug\n"
        ));
        assert!(!died_early(&format!("GUEST: loading modules\n{fatal}")));
        assert!(!died_early("[ 0.7] Kernel panic - not syncing: VFS: Unable to mount root fs\n"));
        assert!(!died_early("[ 0.7] BUG: kernel NULL pointer dereference\n"));
    }
}
